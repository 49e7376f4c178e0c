package storetest

import (
	"context"
	"sort"
	"strconv"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
)

// Lanes implements store.Store.
func (m *Model) Lanes(_ context.Context, shard writ.Tenant) ([]writ.LaneCount, error) {
	s, _, err := m.shard(shard)
	defer m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var out []writ.LaneCount
	for l, entries := range s.lanes {
		if len(entries) > 0 {
			out = append(out, writ.LaneCount{Lane: l, Count: int64(len(entries))})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Lane < out[j].Lane })
	return out, nil
}

// Receive implements store.Store.
func (m *Model) Receive(_ context.Context, shard writ.Tenant, lanes []writ.Lane, _ string, n int) ([]writ.Delivery, error) {
	s, now, err := m.shard(shard)
	defer m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var out []writ.Delivery
	for _, l := range lanes {
		for len(out) < n && len(s.lanes[l]) > 0 {
			s.deliveries++
			d := writ.Delivery{Lane: l, ID: strconv.FormatInt(s.deliveries, 10), Entry: s.lanes[l][0]}
			s.lanes[l] = s.lanes[l][1:]
			s.held[d.ID] = modelHeld{Delivery: d, since: now}
			out = append(out, d)
		}
		if len(out) > 0 {
			break
		}
	}
	return out, nil
}

// GiveBack implements store.Store.
func (m *Model) GiveBack(_ context.Context, shard writ.Tenant, _ string, d writ.Delivery) error {
	s, _, err := m.shard(shard)
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	if h, ok := s.held[d.ID]; ok && h.Lane == d.Lane {
		delete(s.held, d.ID)
		s.push(h.Lane, h.Entry)
		m.notify()
	}
	return nil
}

// Reclaim implements store.Store.
func (m *Model) Reclaim(_ context.Context, shard writ.Tenant, idle time.Duration, n int) (int, error) {
	s, now, err := m.shard(shard)
	defer m.mu.Unlock()
	if err != nil {
		return 0, err
	}
	var old []modelHeld
	for _, h := range s.held {
		if now-h.since > idle.Milliseconds() {
			old = append(old, h)
		}
	}
	sort.Slice(old, func(i, j int) bool {
		a, _ := strconv.Atoi(old[i].ID)
		b, _ := strconv.Atoi(old[j].ID)
		return a < b
	})
	old = old[:min(len(old), max(n, 0))]
	for _, h := range old {
		delete(s.held, h.ID)
		s.push(h.Lane, h.Entry)
	}
	m.notify()
	return len(old), nil
}

// Wake implements store.Store.
func (m *Model) Wake(ctx context.Context, shard writ.Tenant, cursor string, wait time.Duration) (string, []writ.Lane, error) {
	var lanes []writ.Lane
	from := -1
	err := m.until(ctx, shard, min(wait, 2*time.Second), func(s *modelShard) bool {
		if from < 0 {
			from = len(s.pushes)
			if n, err := strconv.Atoi(cursor); err == nil {
				from = n
			}
		}
		lanes = append(lanes, s.pushes[from:]...)
		from = len(s.pushes)
		return len(lanes) > 0
	})
	return strconv.Itoa(from), lanes, err
}

// until holds the lock for each try of found, and waits in between.
func (m *Model) until(ctx context.Context, shard writ.Tenant, wait time.Duration, found func(*modelShard) bool) error {
	timer := time.NewTimer(max(wait, 0))
	defer timer.Stop()
	for {
		s, _, err := m.shard(shard)
		changed := m.changed
		ok := err == nil && found(s)
		m.mu.Unlock()
		if err != nil || ok {
			return err
		}
		select {
		case <-changed:
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Facts implements store.Store.
func (m *Model) Facts(ctx context.Context, shard writ.Tenant, after int64, n int, wait time.Duration) ([]writ.StoredFact, error) {
	var out []writ.StoredFact
	err := m.until(ctx, shard, wait, func(s *modelShard) bool {
		for _, f := range s.facts {
			if f.Commit.Seq > after && len(out) < n {
				out = append(out, f)
			}
		}
		return len(out) > 0
	})
	return out, err
}

// Trim implements store.Store.
func (m *Model) Trim(_ context.Context, shard writ.Tenant, upto int64) error {
	s, _, err := m.shard(shard)
	defer m.mu.Unlock()
	if err != nil {
		return err
	}
	for s.trimmed < min(upto, s.seq) {
		s.facts = s.facts[1:]
		s.trimmed++
	}
	return nil
}

// Head implements store.Store.
func (m *Model) Head(_ context.Context, shard writ.Tenant) (store.Head, error) {
	s, _, err := m.shard(shard)
	defer m.mu.Unlock()
	if err != nil {
		return store.Head{}, err
	}
	return store.Head{Epoch: s.epoch, Seq: s.seq, Trimmed: s.trimmed, At: s.at, Backlog: s.seq - s.trimmed}, nil
}

// Info implements store.Store.
func (m *Model) Info(context.Context) (store.Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return store.Info{}, store.ErrClosed
	}
	return store.Info{Kind: "model", Durability: store.DurabilityBuffered}, nil
}

// Close implements store.Store.
func (m *Model) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.closed = true
		m.notify()
	}
	return nil
}
