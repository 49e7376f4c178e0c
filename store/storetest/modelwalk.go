package storetest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// Names implements store.Store.
func (m *Model) Names(_ context.Context, shard writ.Tenant, prefix, _ string) (out []writ.Key, next string, err error) {
	s, now, err := m.shard(shard)
	defer m.mu.Unlock()
	if err != nil {
		return nil, "", err
	}
	if !writ.ValidName(prefix) {
		return nil, "", fmt.Errorf("%w: document name", store.ErrInvalid)
	}
	for k := range s.docs {
		if strings.HasPrefix(string(k), prefix) && s.doc(k, now).Version != 0 {
			out = append(out, k)
		}
	}
	return out, "", nil
}

// Entries implements store.Store.
func (m *Model) Entries(_ context.Context, shard writ.Tenant, lane writ.Lane, _ string) (out []string, next string, err error) {
	s, _, err := m.shard(shard)
	defer m.mu.Unlock()
	if err != nil {
		return nil, "", err
	}
	if !writ.ValidName(string(lane)) {
		return nil, "", fmt.Errorf("%w: lane name", store.ErrInvalid)
	}
	out = slices.Clone(s.lanes[lane])
	for _, h := range s.held {
		if h.Lane == lane {
			out = append(out, h.Entry)
		}
	}
	return out, "", nil
}
