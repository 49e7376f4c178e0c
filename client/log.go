package client

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts/checkpoint"
)

// Replies carry the latest checkpoint of the gateway's transparency log. A client keeps
// each it saw until it is proven, and the newest of those, and so can tell when the gateway
// shows a log that was changed, or cut off: nobody who kept a checkpoint needs to believe
// who runs the gateway. A later checkpoint takes the place of none before it that is not
// proven: else a gateway could show another log and, a moment later, this one again. There
// is room for so many; that there were more is kept, too, for good.

// headerCheckpoint is the header of replies that carries it.
const headerCheckpoint = "Writ-Checkpoint"

// LogConfig says how a client holds a gateway to its log.
type LogConfig struct {
	// Key of the log, verifier_key of log.head, from when there was reason to trust
	// it. Empty: the one the gateway names when it is first asked is kept.
	Key string
	// Every is how often calls ask, once the log has grown, for the proof that it only grew:
	// one more request for each checkpoint that was shown since. Where more than a few wait
	// calls ask at once. A call asks at its end, for four at most, and takes two seconds for
	// it at most, or a quarter of what is left to its context; the next call asks for the
	// rest. 0: LogEvery. Negative: only CheckLog asks.
	Every time.Duration
	// Keep holds what was seen for longer than this client lives. nil: nothing does.
	Keep LogKeeper
	// Found is told once, at once, what is wrong with the log. It may ask the client. Optional.
	Found func(error)
}

// LogEvery is LogConfig.Every where that is not set.
const LogEvery = 10 * time.Minute

// asideTime is how long a call waits for proofs, and as long for the keeper.
const asideTime = 2 * time.Second

// LogError says that a gateway shows another log than it showed before. What its
// receipts prove is in doubt, so once it was met a client makes no further call.
// It is the Err of the *writ.Error that calls give.
type LogError struct {
	Kept  string `json:"kept,omitempty"`  // the two checkpoints as signed
	Shown string `json:"shown,omitempty"` // empty where the gateway denies having had Kept
	Why   string `json:"why"`
	At    int64  `json:"at_ms,omitempty"` // milliseconds, when that was found
}

func (e *LogError) Error() string {
	return e.Why + "; kept: " + nameOf(e.Kept) + "; shown: " + nameOf(e.Shown)
}

// nameOf names a checkpoint in a message: a log that could not go on has another name in its next shard.
func nameOf(text string) string {
	origin, cp, err := checkpoint.Unverified([]byte(text))
	switch {
	case err != nil:
		return "none"
	case strings.ContainsFunc(origin, func(r rune) bool { return r <= ' ' || r > '~' }): // whoever shows it may have named it anything
		return cp.String()
	}
	return origin + ", " + cp.String()
}

// wrongLog is what calls give once the log was seen to be another one.
func wrongLog(kept, shown, why string) error {
	e := &writ.Error{
		Code: writ.CodeInternal, Op: "client.Log", Msg: why,
		Hint: "keep both checkpoints, they prove it, and show them to who runs the gateway; if its log was begun anew on purpose, forget what was kept of the old one",
		Err:  &LogError{Kept: kept, Shown: shown, Why: why},
	}
	return e.With("kept", nameOf(kept)).With("shown", nameOf(shown))
}

// watch is what a client knows of the log.
type watch struct {
	seen  LogSeen
	kept  LogSeen   // what the keeper had of it when it was last asked
	news  bool      // it has not all that was seen
	rests time.Time // it failed, and calls do not ask it before
	due   bool      // a reply showed that it is time to ask for proofs
	found error
	tells bool // Found is not told yet
}

// LogError is what is wrong with the log of the gateway; nil as long as nothing is known.
func (c *Client) LogError() error {
	c.logMu.Lock()
	defer c.logMu.Unlock()
	return c.log.found
}

// LogSeen is what this client keeps of the log.
func (c *Client) LogSeen() LogSeen {
	c.logMu.Lock()
	defer c.logMu.Unlock()
	return c.log.seen
}

// CheckLog asks the gateway to prove that its log only grew since it was first seen. An
// error with a *LogError in it means that it did not; one with a LogDropped that all it
// has kept is proven, and not all was kept; another that there is no proof for now, for
// example because another replica writes the log.
func (c *Client) CheckLog(ctx context.Context) error {
	if err := c.LogError(); err != nil { // also to Found, which is told while somebody proves
		return err
	}
	c.proving.Lock()
	defer c.proving.Unlock()
	if err := c.LogError(); err != nil {
		return err
	}
	_ = c.update(ctx, true) // what other clients were shown is asked for, too
	before, err := c.doubted()
	if err == nil {
		err = c.prove(ctx, math.MaxInt)
	}
	if err == nil {
		err = c.cleared(before)
	}
	unkept := c.KeepLog(ctx)
	if err != nil {
		return err
	}
	if unkept != nil {
		return fmt.Errorf("the log only grew, but %w", unkept)
	}
	if d := c.LogSeen().Dropped; d.Count > 0 {
		return &writ.Error{
			Code: writ.CodePredicate, Op: "client.CheckLog", Msg: d.Error(),
			Hint: "ask who runs the gateway why its log gave no proofs; then take dropped out of what is kept of the log", Err: d,
		}
	}
	return nil
}

// doubted is what was found before, if proofs can show that it was wrong: all of it is asked for again. Two logs of one
// size, both signed, no proof makes one: that is the error.
func (c *Client) doubted() (*LogError, error) {
	defer c.tell()
	c.logMu.Lock()
	defer c.logMu.Unlock()
	s := &c.log.seen
	f := s.Found
	if f == nil {
		return nil, nil
	}
	kept, err := checkpoint.Parse([]byte(f.Kept), s.Key)
	shown, serr := checkpoint.Parse([]byte(f.Shown), s.Key)
	if err == nil && serr == nil && kept.Size == shown.Size && kept.Root != shown.Root {
		return f, c.find(f.Kept, f.Shown, f.Why)
	}
	for _, text := range []string{f.Kept, f.Shown} {
		if _, _, err := checkpoint.Unverified([]byte(text)); err == nil && text != s.Proven && !slices.Contains(s.unproven(), text) {
			s.put(text)
			c.log.news = true
		}
	}
	return f, nil
}

// cleared forgets what was found before, since all that was shown is of one log, unless something was found meanwhile.
func (c *Client) cleared(before *LogError) error {
	c.logMu.Lock()
	defer c.logMu.Unlock()
	if s := &c.log.seen; before != nil && s.Found.is(before) {
		s.Found, c.log.news = nil, true
	}
	return c.log.found
}

// noteLog takes what a reply shows of the log.
func (c *Client) noteLog(h http.Header) {
	text, err := checkpoint.FromCompact(h.Get(headerCheckpoint))
	if err != nil || len(text) == 0 {
		return
	}
	defer c.tell()
	c.logMu.Lock()
	defer c.logMu.Unlock()
	c.show(string(text))
	c.log.due = c.due()
}

// tend has kept what a call was shown, and asks for proofs that are due. Calls do at their
// end, with nothing open that has to wait for it, so that neither a log that is slow to answer
// nor a keeper is a reason for a call to fail or to be late.
func (c *Client) tend(ctx context.Context) {
	c.keep(ctx)
	c.logMu.Lock()
	due := c.log.due
	c.log.due = false
	c.logMu.Unlock()
	if !due || ctx.Err() != nil || !c.proving.TryLock() { // or somebody asks already
		return
	}
	defer c.proving.Unlock()
	limited, cancel := aside(ctx)
	defer cancel()
	_ = c.prove(limited, proofsPerCall) // what it finds later calls say
	c.keep(ctx)
}

// aside limits what a call does besides what it was made for.
func aside(ctx context.Context) (context.Context, context.CancelFunc) {
	limit, why := asideTime, errSlow
	if end, ok := ctx.Deadline(); ok && time.Until(end)/4 < limit {
		limit, why = time.Until(end)/4, nil // the caller's, and says nothing of the gateway
	}
	return context.WithTimeoutCause(ctx, limit, why)
}

// show takes a checkpoint. The caller holds the lock.
func (c *Client) show(text string) {
	s := &c.log.seen
	if c.log.found != nil || text == s.Proven || text == s.Shown || slices.Contains(s.Others, text) {
		return
	}
	if _, _, err := checkpoint.Unverified([]byte(text)); err != nil {
		return // nothing that could be shown to anybody
	}
	cp, err := c.parse(text)
	if err != nil {
		c.find(s.Proven, text, notSigned)
		return
	}
	for _, known := range append(s.unproven(), s.Proven) {
		if known == "" || sizeOf(known) != cp.Size {
			continue
		}
		was, err := c.parse(known)
		if err != nil {
			continue
		}
		if was.Root != cp.Root {
			c.find(known, text, forked)
		}
		return // else it is signed again, by one more witness
	}
	// One older than what is proven is kept, too: a replica may be behind, and a log
	// that was cut off looks just like that until it is asked.
	room := mostUnproven
	if c.cfg.Log.Keep != nil {
		room = mostUnkept
	}
	s.add(text, room)
	c.log.news = true
}

// due says whether it is time to ask for proofs. The caller holds the lock.
func (c *Client) due() bool {
	s, every := &c.log.seen, c.cfg.Log.Every
	if c.log.found != nil || s.Shown == "" || every < 0 {
		return false
	}
	return time.Since(time.UnixMilli(s.Checked)).Abs() >= every || len(s.Others) >= manyUnproven && !s.NoAnswer
}

// parse reads a checkpoint, and checks its signature when the key is known.
func (c *Client) parse(text string) (checkpoint.Checkpoint, error) {
	if key := c.log.seen.Key; key != "" {
		return checkpoint.Parse([]byte(text), key)
	}
	_, cp, err := checkpoint.Unverified([]byte(text))
	return cp, err
}

// find notes what is wrong. The caller holds the lock, and tells when it does no more.
func (c *Client) find(kept, shown, why string) error {
	s := &c.log.seen
	if _, _, err := checkpoint.Unverified([]byte(shown)); err == nil && shown != s.Proven && !slices.Contains(s.unproven(), shown) {
		s.put(shown) // so that what is kept is the evidence
	}
	c.log.news = true
	if c.log.found == nil { // what others found before says nothing of this
		s.Found = &LogError{Kept: kept, Shown: shown, Why: why, At: time.Now().UnixMilli()}
		c.log.found, c.log.tells = wrongLog(kept, shown, why), true
	}
	return c.log.found
}

// tell tells Found what find has noted. The caller does not hold the lock: Found may want it.
func (c *Client) tell() {
	c.logMu.Lock()
	found, tells := c.log.found, c.log.tells
	c.log.tells = false
	c.logMu.Unlock()
	if tells && c.cfg.Log.Found != nil {
		c.cfg.Log.Found(found)
	}
}
