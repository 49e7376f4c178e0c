package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/writ-gateway/writ"
)

// Door is the one way to do anything. The receipt is nil when nothing was
// committed. An error is a *writ.Error, or else internal.
type Door interface {
	Do(ctx context.Context, call *writ.Call) (writ.Reply, *writ.Receipt, error)
}

// Telemetry hears about every request, and serves what it heard. It must not
// block.
type Telemetry interface {
	// ObserveRequest is told the operation ("other" outside routes), the HTTP
	// status and the seconds it took.
	ObserveRequest(operation string, status int, seconds float64)
	// Handler serves /metrics.
	Handler() http.Handler
}

// ReadyReport says whether the gateway can do its work, and why not.
type ReadyReport struct {
	Ready  bool         `json:"ready"`
	Checks []ReadyCheck `json:"checks"`
}

// ReadyCheck is one dependency. Detail is for operators and holds no secret.
type ReadyCheck struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

// Limits bound what one request may cost.
type Limits struct {
	BodyBytes int64         // largest request body; 128 KiB when 0
	BodyTime  time.Duration // to send the body in; 10 s when 0
}

// Config is everything the gateway needs. Door and Registry are required.
type Config struct {
	Door     Door
	Registry *writ.Registry
	Limits   Limits

	// Hosts are the names a request may address the gateway by, in its Host
	// header; nil: any. A name that ends up at this address by somebody else's
	// DNS is how a web page would reach a gateway that listens for its own
	// machine only (see [LoopbackHosts]).
	Hosts []string

	Blobs     Blobs                             // nil: artifacts are not ready
	Ready     func(context.Context) ReadyReport // nil: always ready
	Telemetry Telemetry                         // nil: nobody listens, and /metrics is 404
	Log       *slog.Logger                      // nil: nothing is logged

	// PolicyRevision names the policy in force, for the Policy-Revision header of
	// replies whose call does not say what it was judged by; nil: no header then.
	PolicyRevision func() string

	// Checkpoint is the latest one of the transparency log, for the header of replies
	// (HeaderCheckpoint); empty: none is known, and nothing is said. nil: the same.
	Checkpoint func() string

	// Transfers bounds the bodies of artifacts that are on their way, in and out
	// (32); an eighth of them of one session. When Stopping is done they end: they
	// may take minutes.
	Transfers int
	Stopping  context.Context // nil: never
	transfers *transfers
	large     *transfers // bodies of calls whose arguments may be large, and are

	Now  func() time.Time // nil: time.Now; for ids and logs only
	Rand io.Reader        // nil: crypto/rand; 26 bytes per request
}

// largeAtOnce is how many large bodies are read and held at a time.
const largeAtOnce = 8

// Timeouts of the server that carries the gateway. A claim may wait 30 s for
// work, so nothing that covers a whole exchange is shorter than 40 s; slow
// bodies are cut off by Limits.BodyTime.
const (
	ReadHeaderTimeout = 5 * time.Second
	WriteTimeout      = 60 * time.Second
	IdleTimeout       = 120 * time.Second
	MaxHeaderBytes    = 16 << 10
)

// Server wraps a handler in a server with those timeouts.
func Server(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: ReadHeaderTimeout, WriteTimeout: WriteTimeout, IdleTimeout: IdleTimeout,
		MaxHeaderBytes: MaxHeaderBytes,
	}
}

// New builds the handler. It fails when routes and registry do not match.
func New(cfg Config) (http.Handler, error) {
	if cfg.Door == nil || cfg.Registry == nil {
		return nil, errors.New("gateway: Door and Registry are required")
	}
	if cfg.Limits.BodyBytes <= 0 {
		cfg.Limits.BodyBytes = 128 << 10
	}
	if cfg.Limits.BodyTime <= 0 {
		cfg.Limits.BodyTime = 10 * time.Second
	}
	if cfg.Transfers == 0 {
		cfg.Transfers = 32
	}
	cfg.transfers = newTransfers(cfg.Transfers)
	cfg.large = newTransfers(largeAtOnce)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	if cfg.Ready == nil {
		cfg.Ready = func(context.Context) ReadyReport { return ReadyReport{Ready: true, Checks: []ReadyCheck{}} }
	}

	if err := CheckRoutes(cfg.Registry); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	mux := http.NewServeMux()
	adapter := humago.NewAdapter(mux, "")
	for _, r := range Routes {
		op := &huma.Operation{OperationID: r.OperationID, Method: r.Method, Path: r.Path}
		adapter.Handle(op, governed(cfg, r, cfg.Registry.Get(r.Capability)))
	}
	addOpen(mux, cfg)
	mux.HandleFunc("/", fallback(mux))
	return edge(cfg, mux), nil
}
