package health

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/egress/dial"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// via may dial this machine, and knows no name but broken.example.
func via(t *testing.T) dial.Transport {
	t.Helper()
	g, err := dial.ParseGrants([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	d := dial.Dialer{Grants: g, Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}}
	return d.Transport(time.Second)
}

func TestWhatAnAnswerMeans(t *testing.T) {
	over := make(chan struct{})
	mux := http.NewServeMux()
	for _, code := range []int{200, 204, 302, 304, 404, 500} {
		mux.HandleFunc(fmt.Sprint("/", code), func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/200")
			w.WriteHeader(code)
		})
	}
	mux.HandleFunc("/hang", func(w http.ResponseWriter, r *http.Request) { <-over })
	mux.HandleFunc("/drip", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		<-over
	})
	var sent atomic.Int64
	mux.HandleFunc("/flood", func(w http.ResponseWriter, r *http.Request) {
		for {
			n, err := w.Write(make([]byte, 1<<16))
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/switch", func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = c.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"))
		<-over
		_ = c.Close()
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) })
	s := httptest.NewServer(mux)
	defer s.Close()
	defer close(over)
	secure := httptest.NewUnstartedServer(mux)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	gone := httptest.NewServer(mux)
	gone.Close()
	rude, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rude.Close() }()
	go func() {
		for {
			c, err := rude.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("hello\r\n\r\n"))
			_ = c.Close()
		}
	}()
	for _, c := range []struct {
		url    string
		codes  []int64
		reason writ.HealthReason
		code   int64
	}{
		{s.URL + "/200", nil, "", 200},
		{s.URL + "/204", nil, "", 204},
		{s.URL + "/204", []int64{200}, writ.ReasonCode, 204},
		{s.URL + "/404", []int64{404}, "", 404},
		{s.URL + "/302", nil, writ.ReasonRedirect, 302},
		{s.URL + "/304", nil, writ.ReasonRedirect, 304},
		{s.URL + "/404", nil, writ.ReasonCode, 404},
		{s.URL + "/500", nil, writ.ReasonCode, 500},
		{s.URL + "/hang", nil, writ.ReasonTimeout, 0},
		{s.URL + "/drip", nil, writ.ReasonTimeout, 200},
		{s.URL + "/switch", nil, writ.ReasonTimeout, 101},
		{s.URL + "/flood", nil, "", 200},
		{s.URL + "/headers", nil, writ.ReasonProtocol, 0},
		{gone.URL + "/200", nil, writ.ReasonConnect, 0},
		{secure.URL + "/200", nil, writ.ReasonTLS, 0},
		{strings.Replace(s.URL, "http:", "https:", 1) + "/200", nil, writ.ReasonTLS, 0},
		{"http://broken.example/", nil, writ.ReasonName, 0},
		{"http://10.0.0.1/", nil, writ.ReasonAddress, 0},
		{"http://169.254.169.254/latest/", nil, writ.ReasonAddress, 0},
		{"http://[::ffff:127.0.0.1]/", nil, writ.ReasonAddress, 0},
		{"http://" + rude.Addr().String() + "/", nil, writ.ReasonProtocol, 0},
	} {
		tr := via(t)
		limit := int64(10_000)
		if c.reason == writ.ReasonTimeout {
			limit = 50
		}
		r := ask(t.Context(), tr, writ.Endpoint{URL: c.url, Codes: c.codes, TimeoutMs: limit})
		if r.Reason != c.reason || r.Code != c.code {
			t.Errorf("%s: got %+v, want %s, %d", c.url, r, c.reason, c.code)
		}
		tr.CloseIdleConnections()
	}
}

// board is a queue in memory that two probers share.
type board struct {
	mu       sync.Mutex
	jobs     map[string]writ.ProbeJob
	due      map[string]bool
	taken    map[string]int
	recorded map[string][]writ.ProbeResult
	noted    chan string
}

func newBoard(jobs ...writ.ProbeJob) *board {
	b := &board{jobs: map[string]writ.ProbeJob{}, due: map[string]bool{}, taken: map[string]int{}, recorded: map[string][]writ.ProbeResult{}, noted: make(chan string, 100)}
	for _, j := range jobs {
		b.jobs[j.Endpoint.Name], b.due[j.Endpoint.Name] = j, true
	}
	return b
}

func (b *board) Due(_ context.Context, limit int) (out []writ.ProbeJob, _ error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, due := range b.due {
		if due && len(out) < limit {
			out = append(out, b.jobs[name])
		}
	}
	return out, nil
}

func (b *board) Open(_ context.Context, agents []writ.AgentID) (out []writ.ProbeJob, _ error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, j := range b.jobs {
		if slices.Contains(agents, j.Agent) && len(b.recorded[name]) == 0 {
			out = append(out, j)
		}
	}
	return out, nil
}

func (b *board) Take(_ context.Context, j writ.ProbeJob) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken[j.Endpoint.Name] > 0 {
		return false, nil
	}
	b.taken[j.Endpoint.Name]++
	b.due[j.Endpoint.Name] = false
	return true, nil
}

func (b *board) Record(_ context.Context, j writ.ProbeJob, r writ.ProbeResult) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.recorded[j.Endpoint.Name] = append(b.recorded[j.Endpoint.Name], r)
	if !j.Known {
		b.due[j.Endpoint.Name] = false
	}
	b.noted <- j.Endpoint.Name
	return nil
}

func (b *board) Checked(_ context.Context, j writ.ProbeJob) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return int64(len(b.recorded[j.Endpoint.Name])), nil
}

type counted struct{ n atomic.Int64 }

func (c *counted) Probe(string, float64) { c.n.Add(1) }

func newProber(t *testing.T, b *board) (*Prober, *counted) {
	t.Helper()
	c, tr := &counted{}, via(t)
	p := New(Config{Queue: b, Via: tr, Observer: c, Log: slog.New(slog.DiscardHandler), Every: time.Millisecond})
	t.Cleanup(func() { p.Stop(); tr.CloseIdleConnections() })
	return p, c
}

func job(name, url string) writ.ProbeJob {
	return writ.ProbeJob{Agent: "tester", Known: true, Endpoint: writ.Endpoint{Name: name, URL: url, TimeoutMs: 10_000, IntervalSeconds: 3600}}
}

// Two replicas ask what is due once between them, and one that hangs holds up no
// other.
func TestDueIsAskedOnceAndNothingIsHeldUp(t *testing.T) {
	over := make(chan struct{})
	var hits atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		if r.URL.Path == "/hang" {
			select {
			case <-over:
			case <-r.Context().Done():
			}
		}
	}))
	defer s.Close()
	defer close(over)
	var jobs []writ.ProbeJob
	jobs = append(jobs, job("hang", s.URL+"/hang"))
	for i := range 20 {
		jobs = append(jobs, job(fmt.Sprint("e-", i), s.URL))
	}
	ghost := job("ghost", s.URL)
	ghost.Known = false
	b := newBoard(append(jobs, ghost)...)
	one, first := newProber(t, b)
	two, second := newProber(t, b)
	one.Start()
	two.Start()
	for seen := map[string]bool{}; len(seen) < 21; {
		seen[<-b.noted] = true
	}
	one.Stop()
	two.Stop()
	if got := first.n.Load() + second.n.Load(); got != 20 || hits.Load() != 21 {
		t.Errorf("%d answers, %d requests", got, hits.Load())
	}
	for i := range 20 {
		if got := b.recorded[fmt.Sprint("e-", i)]; len(got) != 1 || got[0].Reason != "" {
			t.Errorf("recorded %+v", got)
		}
	}
	if len(b.recorded["hang"]) != 0 {
		t.Error("recorded what was never answered")
	}
}

// fine is an endpoint that always passes.
type fine struct{}

func (fine) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
}

// When all agents become due at once they are all asked before they are due again.
func TestAThousandAreDueAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var jobs []writ.ProbeJob
		for i := range 1000 {
			jobs = append(jobs, job(fmt.Sprint("e-", i), "http://x.example/"))
		}
		b := newBoard(jobs...)
		b.noted = make(chan string, len(jobs))
		p := New(Config{Queue: b, Via: fine{}, Observer: &counted{}, Log: slog.New(slog.DiscardHandler)})
		p.Start()
		time.Sleep(3 * time.Second)
		p.Stop()
		if len(b.recorded) != len(jobs) {
			t.Errorf("%d of %d after three seconds", len(b.recorded), len(jobs))
		}
	})
}

// Many that want to know at once wait for one look, of whichever replica.
func TestRefreshWaitsForOneLook(t *testing.T) {
	var hits atomic.Int64
	asked, answer := make(chan struct{}, 10), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		hits.Add(1)
		asked <- struct{}{}
		<-answer
	}))
	defer s.Close()
	b := newBoard(job("api", s.URL))
	one, _ := newProber(t, b)
	two, _ := newProber(t, b)
	var wg sync.WaitGroup
	for i := range 10 {
		p := []*Prober{one, two}[i%2]
		wg.Go(func() {
			p.Refresh(t.Context(), []writ.AgentID{"tester"})
			b.mu.Lock()
			defer b.mu.Unlock()
			if len(b.recorded["api"]) != 1 {
				t.Errorf("came back with %d looks", len(b.recorded["api"]))
			}
		})
	}
	<-asked
	close(answer)
	wg.Wait()
	if hits.Load() != 1 {
		t.Errorf("asked %d times", hits.Load())
	}
	one.Refresh(t.Context(), []writ.AgentID{"tester"}) // all is known
	if hits.Load() != 1 {
		t.Errorf("asked %d times", hits.Load())
	}
}

// Nobody waits when the prober stops, or for longer than he wants to.
func TestRefreshEnds(t *testing.T) {
	over := make(chan struct{})
	asked := make(chan struct{}, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-over:
		case <-r.Context().Done():
		}
	}))
	defer s.Close()
	defer close(over)
	p, _ := newProber(t, newBoard(job("api", s.URL)))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { p.Refresh(ctx, []writ.AgentID{"tester"}); close(done) }()
	<-asked
	cancel()
	<-done
	done = make(chan struct{})
	go func() { p.Refresh(t.Context(), []writ.AgentID{"tester"}); close(done) }()
	p.Stop()
	<-done
	p.Refresh(t.Context(), []writ.AgentID{"tester"})
}
