package egress

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"time"

	"github.com/writ-gateway/writ/egress/target"
)

// Mode is how an attempt was made.
type Mode string

const (
	// Reverse: the agent names a grant and a path, and the gateway makes the request.
	Reverse Mode = "reverse"
	// Forward: the agent uses the gateway as its proxy for plain http.
	Forward Mode = "forward"
	// Connect: the agent speaks TLS with the host itself. Nothing but host, bytes and
	// time is seen of it.
	Connect Mode = "connect"
)

// Attempt is what an agent wants to do outside, before anything was looked up.
type Attempt struct {
	Mode   Mode
	Grant  string        // named by the agent; "" where it names a target
	Target target.Target // named by the agent; zero where it names a grant
	Method string
	Path   string // escaped, in its one spelling; "" for Connect
	Query  string
	Length int64 // of the body; -1: not known
}

// Permit is what may be done.
type Permit struct {
	Mode   Mode
	Scheme string // http or https; "" for Connect
	Target target.Target
	Method string
	Path   string
	Query  string
	// Private are networks in which the host may lie although they are not the
	// internet. None: it may not. Where Scheme is http and there are any, it must.
	Private []netip.Prefix
	// Up and Down bound the bytes in each direction, heads included.
	Up, Down int64
	Time     time.Duration // in all
	Meter    Meter         // counts them; nil: nobody
	// Key is the idempotency key the host is given; "": none.
	Key string
	// Inject puts a credential in. It is called for the host of Target and for no
	// other; nil: there is none.
	Inject func(ctx context.Context, h http.Header) error
	// Mark is shown to the agent with the answer, for example which receipt says
	// that this was permitted.
	Mark http.Header
}

// Meter counts bytes. It says whether they are within what was set aside.
type Meter interface {
	Add(dimension string, n int64) bool
}

// Streams are the agent's side of an exchange.
type Streams struct {
	Header http.Header // as it came; what must not go out is taken off here
	Body   io.Reader   // nil: none
	Length int64       // of the body; -1: not known
	// Answer takes the answer, whose body is read while it is called.
	Answer func(*Answer) error
	// Hijack gives the agent's connection, for Connect: it is told of success first.
	Hijack func() (Conn, error)
}

// Answer is what a host said, as the agent may see it.
type Answer struct {
	Status int
	Header http.Header
	Length int64 // -1: not known
	Body   io.Reader
}

// Outcome is what became of an exchange.
type Outcome struct {
	Status   int   `json:"status"` // 0 for Connect
	Up, Down int64 // bytes
}

// Authorizer judges attempts.
type Authorizer interface {
	// Authorize judges an attempt and, if it may be made, has it carried out with the
	// streams. It looks up no name before it has. An error is a refusal or says what
	// went wrong.
	Authorize(ctx context.Context, a Attempt, s *Streams) error
	// Deny notes that an attempt is refused before it can be judged, and why: where it
	// goes, as the agent wrote it, is no place there is, or no grant could let it through.
	// Nothing is carried out. The error is what the agent is told.
	Deny(ctx context.Context, method, to string, why error) error
}
