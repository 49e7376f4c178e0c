package registry

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/writtest"
)

// How far the log is only grows, whoever says it last, and saying so leaves no receipt.
func TestLogPublish(t *testing.T) {
	r := newRoom(t, nil)
	k := logPublish()
	said := func(size int64) *writtest.Planned {
		t.Helper()
		p, err := r.Plan(k, r.NewCall(k, r.System(), &LogPublishArgs{Size: size}))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, c := range []struct{ size, want int64 }{{5, 5}, {3, 5}, {5, 5}, {9, 9}} {
		p := said(c.size)
		if !p.Tx.Mandate {
			t.Error("it waits for room")
		}
		reply, err := r.Commit(p)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := writtest.Body[LogPublished](reply); err != nil || v.Size != c.want {
			t.Errorf("%d: says %+v, %v", c.size, v, err)
		}
		if got := r.Counter(writ.LogSize()); got != c.want {
			t.Errorf("%d: noted is %d, want %d", c.size, got, c.want)
		}
	}
	// Two that say it at once: what one adds is not added to what the other has.
	first, second := said(12), said(14)
	if _, err := r.Commit(first); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Commit(second); err == nil || r.Counter(writ.LogSize()) != 12 {
		t.Errorf("noted is %d, %v", r.Counter(writ.LogSize()), err)
	}
	// The checkpoint goes along: there is one at any time, the latest. That of the next
	// shard takes its place whatever its size is.
	of := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	a, b, c, d := of("writ.local\na"), of("writ.local\nb"), of("writ.local\nc"), of("writ.local\nd")
	next, after := of("s2.writ.local\na"), of("s2.writ.local\nb")
	for _, c := range []struct {
		size       int64
		checkpoint string
		want       string
		noted      int64
	}{{20, a, a, 20}, {19, b, a, 20}, {21, c, c, 21}, {22, "", "", 22}, {23, d, d, 23}, {23, next, next, 23}, {22, after, next, 23}, {24, after, after, 24}, {7, a, a, 7}} {
		p, err := r.Plan(k, r.NewCall(k, r.System(), &LogPublishArgs{Size: c.size, Checkpoint: c.checkpoint}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Commit(p); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(r.Members(writ.IndexCheckpoint), " "); got != c.want {
			t.Errorf("%d: known is %q, want %q", c.size, got, c.want)
		}
		if got := r.Counter(writ.LogSize()); got != c.noted {
			t.Errorf("%d: noted is %d, want %d", c.size, got, c.noted)
		}
	}
	if len(r.Facts) > 0 {
		t.Error("it leaves a receipt")
	}
}
