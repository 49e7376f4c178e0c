package webhooks

import (
	"context"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Everything due is delivered once and comes off the queue.
func TestDelivered(t *testing.T) {
	r := newReceiver(t, nil)
	l := newLab(t, r.URL)
	all := l.tell(0, 300)
	l.turn(0)
	for _, n := range all {
		if got := r.got(t, n); got != 1 {
			t.Fatalf("%s came %d times", n.ID(), got)
		}
	}
	if left := l.queue.waiting(l.targets[0].id); len(left) != 0 || l.count.of(outcomeDelivered) != 300 {
		t.Errorf("%d wait, %d counted", len(left), l.count.of(outcomeDelivered))
	}
	l.tell(0, 1)
	l.queue.set(func(q *queue) { q.clock.at-- })
	l.turn(0)
	if r.requests() != 300 {
		t.Error("delivered before it was due")
	}
}

// What fails is tried again on schedule, each time as the same message, until
// it is taken.
func TestTriedAgain(t *testing.T) {
	var good atomic.Bool
	r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
		if !good.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	l := newLab(t, r.URL+"/secret-path?token=secret-query")
	n := l.tell(0, 1)[0]
	for i := range 3 {
		l.turn(0)
		l.turn(0)
		if got := r.got(t, n); got != i+1 {
			t.Fatalf("after %d tries it came %d times", i+1, got)
		}
		l.clock.pass(wait(int64(i+1), .5) - time.Millisecond)
		l.turn(0)
		if got := r.got(t, n); got != i+1 {
			t.Fatalf("tried %d times too early", got)
		}
		l.clock.pass(time.Millisecond)
	}
	good.Store(true)
	l.turn(0)
	if got := r.got(t, n); got != 4 || len(l.queue.waiting(l.targets[0].id)) != 0 {
		t.Errorf("it came %d times, and waits: %v", got, l.queue.waiting(l.targets[0].id))
	}
	if l.count.of(outcomeFailed) != 3 || l.count.of(outcomeDelivered) != 1 {
		t.Errorf("counted %v", l.count.n)
	}
	log := l.log.String()
	if strings.Count(log, "does not take notices") != 1 || strings.Count(log, "takes notices again") != 1 || !strings.Contains(log, "answered 500") {
		t.Errorf("the log tells it otherwise than once:\n%s", log)
	}
	if strings.Contains(log, "secret") || strings.Contains(log, "whsec") {
		t.Errorf("the log holds what is secret:\n%s", log)
	}
}

// After the last try it is given up, said once, and gone.
func TestGivenUp(t *testing.T) {
	r := newReceiver(t, status(http.StatusBadRequest))
	l := newLab(t, r.URL)
	n := l.tell(0, 1)[0]
	for range 2 * maxTries {
		l.turn(0)
		l.clock.pass(2 * longestWait)
	}
	if got := r.got(t, n); got != maxTries || len(l.queue.waiting(l.targets[0].id)) != 0 {
		t.Errorf("tried %d times, waiting %v", got, l.queue.waiting(l.targets[0].id))
	}
	if l.count.of(outcomeGivenUp) != 1 || l.count.of(outcomeFailed) != maxTries-1 || strings.Count(l.log.String(), "given up") != 1 {
		t.Errorf("counted %v, logged\n%s", l.count.n, l.log)
	}
}

// An endpoint that says 410 is left alone by this process. What waits for it is
// put off as if it had been tried, so that a restart in time delivers it.
func TestGone(t *testing.T) {
	var answer atomic.Int64
	answer.Store(http.StatusGone)
	r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(answer.Load())) })
	l := newLab(t, r.URL)
	first := l.tell(0, 1)[0]
	l.turn(0)
	answer.Store(http.StatusOK)
	later := l.tell(0, 200)
	l.clock.pass(firstWait)
	l.turn(0)
	if r.requests() != 1 || r.got(t, first) != 1 {
		t.Fatalf("asked %d times", r.requests())
	}
	if left := l.queue.waiting(l.targets[0].id); len(left) != 201 || l.count.of(outcomeGone) != 202 {
		t.Errorf("%d wait, counted %v", len(left), l.count.n)
	}
	if strings.Count(l.log.String(), "410 Gone") != 1 {
		t.Errorf("said otherwise than once:\n%s", l.log)
	}
	again := newLab(t, r.URL) // the next process
	again.queue.members, again.clock.at = l.queue.members, l.clock.now()+longestWait.Milliseconds()
	again.turn(0)
	if r.requests() != 202 || r.got(t, later[7]) != 1 || len(again.queue.waiting(again.targets[0].id)) != 0 {
		t.Errorf("after a restart %d requests, waiting %d", r.requests(), len(again.queue.waiting(again.targets[0].id)))
	}
	for range 2 * maxTries { // or never
		l.tell(0, 1)
		l.turn(0)
		l.clock.pass(2 * longestWait)
	}
	if left := len(l.queue.waiting(l.targets[0].id)); left > maxTries {
		t.Errorf("%d pile up for an endpoint that is gone", left)
	}
}

// Retry-After holds for the whole endpoint, and no longer than it may.
func TestRestsWhenAsked(t *testing.T) {
	for header, want := range map[string]time.Duration{"600": 10 * time.Minute, "1": firstWait, "99999999": longestWait} {
		for _, code := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
			r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", header)
				w.WriteHeader(code)
			})
			l := newLab(t, r.URL)
			n := l.tell(0, 1)[0]
			l.turn(0)
			other := l.tell(0, 1)[0]
			l.clock.pass(want - time.Second)
			l.turn(0)
			if r.got(t, n) != 1 || want != firstWait && r.got(t, other) != 0 {
				t.Errorf("%d with %s: not left alone for %v", code, header, want)
			}
			l.clock.pass(time.Second)
			l.turn(0)
			if r.got(t, n)+r.got(t, other) < 2 {
				t.Errorf("%d with %s: left alone for longer than %v", code, header, want)
			}
		}
	}
	if got := (&sender{now: time.Now}).judge(&http.Response{StatusCode: 500, Header: http.Header{"Retry-After": {"600"}}}); got.after != 0 {
		t.Errorf("a 500 asked for %v", got.after)
	}
}

// No redirect is followed, whatever it is.
func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := newReceiver(t, nil)
	for _, code := range []int{301, 302, 303, 304, 307, 308} {
		for _, to := range []string{elsewhere.URL, "://no url", ""} {
			r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
				if to != "" {
					w.Header()["Location"] = []string{to}
				}
				w.WriteHeader(code)
			})
			l := newLab(t, r.URL)
			l.tell(0, 1)
			l.turn(0)
			if elsewhere.requests() != 0 || r.requests() != 1 || l.count.of(outcomeFailed) != 1 || !strings.Contains(l.log.String(), "redirects are not followed") {
				t.Errorf("%d to %q: %d elsewhere, counted %v\n%s", code, to, elsewhere.requests(), l.count.n, l.log)
			}
		}
	}
}

// However an endpoint misbehaves, a request ends in time and reads no more than
// it must.
func TestMisbehavingEndpoints(t *testing.T) {
	flood := func(w http.ResponseWriter, req *http.Request) {
		b := make([]byte, 64<<10)
		for range 1 << 14 { // a gigabyte
			if _, err := w.Write(b); err != nil {
				return
			}
		}
		t.Error("all of a giant answer was taken")
	}
	hang := func(w http.ResponseWriter, req *http.Request) { <-req.Context().Done() }
	drip := func(w http.ResponseWriter, req *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-req.Context().Done()
	}
	raw := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(c, text)
			_ = c.Close()
		}
	}
	for name, tt := range map[string]struct {
		answer  http.HandlerFunc
		outcome string
		says    string
	}{
		"a giant answer":          {flood, outcomeDelivered, ""},
		"no answer":               {hang, outcomeFailed, "no answer within"},
		"an answer without end":   {drip, outcomeDelivered, ""},
		"giant headers":           {raw("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n"), outcomeFailed, ""},
		"nonsense":                {raw(strings.Repeat("nonsense ", 2000) + "\r\n\r\n"), outcomeFailed, "malformed"},
		"the connection is ended": {raw(""), outcomeFailed, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReceiver(t, tt.answer)
			l := newLab(t, r.URL)
			l.sender.limit = 300 * time.Millisecond
			l.tell(0, 1)
			l.turn(0)
			if l.count.of(tt.outcome) != 1 || !strings.Contains(l.log.String(), tt.says) || l.log.b.Len() > 1000 {
				t.Errorf("counted %v\n%s", l.count.n, l.log)
			}
			r.CloseClientConnections()
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		r := newReceiver(t, nil)
		r.Close()
		l := newLab(t, r.URL)
		l.tell(0, 1)
		l.turn(0)
		if l.count.of(outcomeFailed) != 1 || !strings.Contains(l.log.String(), "refused") {
			t.Errorf("counted %v\n%s", l.count.n, l.log)
		}
	})
}

// Certificates are verified; there is nothing to turn that off.
func TestCertificatesAreVerified(t *testing.T) {
	s := httptest.NewUnstartedServer(status(http.StatusNoContent))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	l := newLab(t, s.URL)
	l.tell(0, 1)
	l.turn(0)
	if l.count.of(outcomeFailed) != 1 || !strings.Contains(l.log.String(), "certificate") {
		t.Errorf("counted %v\n%s", l.count.n, l.log)
	}
	trusting := newLab(t, s.URL)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	trusting.cfg.Transport.TLSClientConfig.RootCAs = pool
	trusting.tell(0, 1)
	trusting.turn(0)
	if trusting.count.of(outcomeDelivered) != 1 {
		t.Errorf("counted %v\n%s", trusting.count.n, trusting.log)
	}
}

// At most so many requests to one endpoint are under way, and one to an
// endpoint that fails; the others are none the slower for it.
func TestBounded(t *testing.T) {
	var now, most atomic.Int64
	var once sync.Once
	begin := make(chan struct{})
	slow := newReceiver(t, func(http.ResponseWriter, *http.Request) {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		if now.Load() == parallel {
			once.Do(func() { close(begin) })
		}
		<-begin
		now.Add(-1)
	})
	l := newLab(t, slow.URL)
	l.tell(0, parallel)
	l.step(t.Context(), l.targets[0])
	if most.Load() != parallel || l.count.of(outcomeDelivered) != parallel {
		t.Errorf("%d at once, counted %v", most.Load(), l.count.n)
	}

	bad := newReceiver(t, status(http.StatusInternalServerError))
	l = newLab(t, bad.URL)
	l.tell(0, 100)
	for i := range 4 {
		l.turn(0)
		if want := parallel + i; bad.requests() != want {
			t.Errorf("turn %d: %d requests to an endpoint that fails, want %d", i, bad.requests(), want)
		}
	}
}

// What is too old for an endpoint that fails is given up untried; one that
// works is told even of what is old.
func TestTooOld(t *testing.T) {
	var good atomic.Bool
	r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
		if !good.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	l := newLab(t, r.URL)
	l.tell(0, 100)
	l.clock.pass(tooOld + time.Minute)
	young := l.tell(0, 1)[0]
	l.turn(0)
	if l.count.of(outcomeGivenUp) != 100-parallel || r.requests() != parallel {
		t.Errorf("counted %v after %d requests", l.count.n, r.requests())
	}
	if left := l.queue.waiting(l.targets[0].id); len(left) != parallel+1 || left[young.Member()] == 0 {
		t.Errorf("%d wait", len(left))
	}
	good.Store(true)
	l.clock.pass(firstWait)
	l.turn(0)
	l.turn(0)
	if left := l.queue.waiting(l.targets[0].id); len(left) != 0 {
		t.Errorf("%d wait after it works again", len(left))
	}
}

// A stop leaves what is under way for the next process and takes note of what
// was delivered.
func TestStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var begun atomic.Int64
	r := newReceiver(t, func(_ http.ResponseWriter, req *http.Request) {
		if begun.Add(1) == 2 {
			cancel()
			<-req.Context().Done()
		}
	})
	l := newLab(t, r.URL)
	l.targets[0].failing = true // one at a time
	all := l.tell(0, 2)
	for l.step(ctx, l.targets[0]) {
	}
	left := l.queue.waiting(l.targets[0].id)
	if len(left) != 1 || left[all[1].Member()] != all[1].At || l.count.of(outcomeDelivered) != 1 || l.count.of(outcomeFailed) != 0 {
		t.Errorf("waiting %v, counted %v", left, l.count.n)
	}
}
