package daemon

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// What cannot be told is told later, and who stops meanwhile stops: that there is something to tell
// does not wait for anything.
func TestTellingOthersEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		const size = int64(5)
		var down atomic.Bool
		down.Store(true)
		var told []int64
		there := func(ctx context.Context, seen int64) error {
			if size > seen {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		ended := make(chan struct{})
		go func() {
			tellOthers(ctx, there, func(context.Context) (int64, error) {
				if down.Load() {
					return size, errors.New("the store is down")
				}
				told = append(told, size)
				return size, nil
			})
			close(ended)
		}()
		time.Sleep(1500 * time.Millisecond)
		down.Store(false)
		time.Sleep(time.Second)
		if synctest.Wait(); !slices.Equal(told, []int64{5}) {
			t.Errorf("told %v", told)
		}
		cancel()
		<-ended

		gone, stop := context.WithCancel(t.Context())
		stop()
		tellOthers(gone, there, func(context.Context) (int64, error) { return size, gone.Err() })
	})
}
