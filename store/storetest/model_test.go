package storetest

import (
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/writ-gateway/writ/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The model meets the contract it is compared by.
func TestModel(t *testing.T) {
	Run(t, func(testing.TB) Opened {
		m := NewModel()
		var shift atomic.Int64
		m.Now = func() int64 { return time.Now().UnixMilli() + shift.Load() }
		return Opened{
			Store:    m,
			Peer:     func(testing.TB) store.Store { return m },
			Advance:  func(d time.Duration) { shift.Add(d.Milliseconds()) },
			StepBack: func(d time.Duration) { shift.Add(-d.Milliseconds()) },
		}
	})
}
