package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts/checkpoint"
)

// Replies carry the latest checkpoint of the gateway's transparency log. A client keeps
// the newest it saw, and so can tell when the gateway shows a log that was changed, or
// cut off: nobody who kept a checkpoint needs to believe who runs the gateway.

// headerCheckpoint is the header of replies that carries it.
const headerCheckpoint = "Writ-Checkpoint"

// LogConfig says how a client holds a gateway to its log.
type LogConfig struct {
	// Key of the log, verifier_key of log.head, from when there was reason to trust
	// it. Empty: the one the gateway names when it is first asked is kept.
	Key string
	// Every is how often at most a call asks, once the log has grown, for the proof that
	// it only grew: one more request. 0: only CheckLog asks.
	Every time.Duration
	// Keep holds what was seen for longer than this client lives. nil: nothing does.
	Keep LogKeeper
	// Found is told at once what is wrong with the log. Optional.
	Found func(error)
}

// LogKeeper keeps what was seen of one gateway's log. Its errors change nothing of what
// calls answer.
type LogKeeper interface {
	Load() (LogSeen, error)
	Save(LogSeen) error
}

// LogSeen is what was seen of a log. The checkpoints are texts as the gateway signed
// them: with the key they are evidence.
type LogSeen struct {
	Key     string `json:"verifier_key,omitempty"`
	Proven  string `json:"proven,omitempty"`     // it goes on from all before it
	Shown   string `json:"shown,omitempty"`      // another one, not proven yet
	Checked int64  `json:"checked_ms,omitempty"` // when it was last asked for a proof
}

// LogError says that a gateway shows another log than it showed before. What its
// receipts prove is in doubt, so once it was met a client makes no further call.
// It is the Err of the *writ.Error that calls give.
type LogError struct {
	Kept, Shown string // the two checkpoints as signed; Shown is empty where the gateway denies having had Kept
	Why         string
}

func (e *LogError) Error() string {
	return e.Why + "; kept: " + nameOf(e.Kept) + "; shown: " + nameOf(e.Shown)
}

// nameOf names a checkpoint in a message.
func nameOf(text string) string {
	if _, cp, err := checkpoint.Unverified([]byte(text)); err == nil {
		return cp.String()
	}
	return "none"
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
	found error
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
// error with a *LogError in it means that it did not; another that there is no proof
// for now, for example because another replica writes the log.
func (c *Client) CheckLog(ctx context.Context) error {
	c.proving.Lock()
	defer c.proving.Unlock()
	if err := c.LogError(); err != nil {
		return err
	}
	return c.prove(ctx)
}

// noteLog takes what a reply shows of the log, and asks for a proof when one is due.
func (c *Client) noteLog(ctx context.Context, h http.Header) {
	text, err := checkpoint.FromCompact(h.Get(headerCheckpoint))
	if err != nil || len(text) == 0 {
		return
	}
	c.logMu.Lock()
	due := c.show(string(text))
	c.logMu.Unlock()
	if due && c.proving.TryLock() { // else somebody asks already
		defer c.proving.Unlock()
		_ = c.prove(ctx) // what it finds later calls say
	}
}

// show takes a checkpoint and says whether a proof is due. The caller holds the lock.
func (c *Client) show(text string) (due bool) {
	s := &c.log.seen
	if c.log.found != nil || text == s.Proven || text == s.Shown {
		return c.due()
	}
	if _, _, err := checkpoint.Unverified([]byte(text)); err != nil {
		return c.due() // nothing that could be shown to anybody
	}
	cp, err := c.parse(text)
	if err != nil {
		c.find(s.Proven, text, "the gateway shows a checkpoint that the key of its log did not sign")
		return false
	}
	for _, known := range []string{s.Proven, s.Shown} {
		was, err := c.parse(known)
		if known == "" || err != nil || was.Size != cp.Size {
			continue
		}
		if was.Root != cp.Root {
			c.find(known, text, "the gateway shows two logs of the same size: it has forked its log")
			return false
		}
		return c.due() // signed again, by one more witness
	}
	// The newer of two that are not proven is kept. An older one is, too: a replica may
	// be behind, and a log that was cut off looks just like that until it is asked.
	if shown, err := c.parse(s.Shown); s.Shown != "" && err == nil && cp.Size < shown.Size {
		return c.due()
	}
	s.Shown = text
	c.save()
	return c.due()
}

// due says whether it is time to ask for a proof.
func (c *Client) due() bool {
	s := c.log.seen
	return c.log.found == nil && s.Shown != "" && c.cfg.Log.Every > 0 &&
		time.Since(time.UnixMilli(s.Checked)).Abs() >= c.cfg.Log.Every
}

// parse reads a checkpoint, and checks its signature when the key is known.
func (c *Client) parse(text string) (checkpoint.Checkpoint, error) {
	if key := c.log.seen.Key; key != "" {
		return checkpoint.Parse([]byte(text), key)
	}
	_, cp, err := checkpoint.Unverified([]byte(text))
	return cp, err
}

// find notes what is wrong. The caller holds the lock.
func (c *Client) find(kept, shown, why string) error {
	if shown != "" {
		c.log.seen.Shown = shown // so that what is kept is the evidence
	}
	c.save()
	c.log.found = wrongLog(kept, shown, why)
	if c.cfg.Log.Found != nil {
		c.cfg.Log.Found(c.log.found)
	}
	return c.log.found
}

func (c *Client) save() {
	if c.cfg.Log.Keep != nil {
		_ = c.cfg.Log.Keep.Save(c.log.seen)
	}
}

// logHead is what log.head answers.
type logHead struct {
	Checkpoint  string   `json:"checkpoint"`
	Consistency [][]byte `json:"consistency"`
	Key         string   `json:"verifier_key"`
}

// prove has the gateway prove what it has shown.
func (c *Client) prove(ctx context.Context) error {
	c.logMu.Lock()
	c.log.seen.Checked = time.Now().UnixMilli() // however it ends: the next try is not at once
	c.save()
	s := c.log.seen
	c.logMu.Unlock()
	if s.Key == "" || s.Proven == "" { // the first look
		head, err := c.askLog(ctx, 0, 0)
		if err != nil {
			return err
		}
		c.logMu.Lock()
		err = c.begin(head)
		s = c.log.seen
		c.logMu.Unlock()
		if err != nil || s.Shown == "" {
			return err
		}
	}
	if s.Shown == "" { // nothing was seen since; look what there is now
		head, err := c.askLog(ctx, sizeOf(s.Proven), 0)
		return c.answer(s.Proven, head, "", err)
	}
	older, newer := s.Proven, s.Shown
	if sizeOf(older) > sizeOf(newer) {
		older, newer = newer, older
	}
	if sizeOf(older) == 0 {
		return c.answer(older, logHead{}, newer, nil)
	}
	head, err := c.askLog(ctx, sizeOf(older), sizeOf(newer))
	return c.answer(older, head, newer, err)
}

// begin takes the first answer of a log. The caller holds the lock.
func (c *Client) begin(head logHead) error {
	s := &c.log.seen
	if s.Key != "" && head.Key != s.Key {
		return c.find(s.Proven, head.Checkpoint, "the gateway has another log, with another key, than the one that was kept")
	}
	if s.Key = head.Key; head.Checkpoint == "" {
		return errors.New("the gateway has published no checkpoint yet")
	}
	if _, err := checkpoint.Parse([]byte(head.Checkpoint), s.Key); err != nil {
		return c.find(s.Proven, head.Checkpoint, "the gateway shows a checkpoint that the key of its log did not sign")
	}
	if s.Proven == "" {
		s.Proven = head.Checkpoint
	}
	if s.Shown != "" {
		shown, err := checkpoint.Parse([]byte(s.Shown), s.Key)
		if err != nil {
			return c.find(s.Proven, s.Shown, "the gateway shows a checkpoint that the key of its log did not sign")
		}
		if proven, _ := checkpoint.Parse([]byte(s.Proven), s.Key); shown.Size == proven.Size {
			if shown.Root != proven.Root {
				return c.find(s.Proven, s.Shown, "the gateway shows two logs of the same size: it has forked its log")
			}
			s.Shown = ""
		}
	}
	c.save()
	return nil
}

// answer takes the proof that the log of newer begins with that of older; newer is empty
// for the latest one, which is in the answer.
func (c *Client) answer(older string, head logHead, newer string, err error) error {
	c.logMu.Lock()
	defer c.logMu.Unlock()
	s := &c.log.seen
	if pastEnd(err) {
		kept := newer
		if kept == "" {
			kept = older
		}
		return c.find(kept, "", "the log of the gateway is shorter than it was: receipts are gone")
	}
	if err != nil {
		return err
	}
	if head.Key != "" && head.Key != s.Key {
		return c.find(s.Proven, head.Checkpoint, "the gateway has another log, with another key, than the one that was kept")
	}
	now := newer
	if now == "" {
		now = head.Checkpoint
	}
	a, err := checkpoint.Parse([]byte(older), s.Key)
	b, berr := checkpoint.Parse([]byte(now), s.Key)
	if errors.Join(err, berr) != nil {
		return c.find(older, now, "the gateway shows a checkpoint that the key of its log did not sign")
	}
	hashes := make([]tlog.Hash, 0, len(head.Consistency))
	for _, h := range head.Consistency {
		if len(h) != tlog.HashSize {
			return c.find(older, now, "the gateway does not prove that its log only grew")
		}
		hashes = append(hashes, tlog.Hash(h))
	}
	if !checkpoint.Consistent(a, b, hashes) {
		return c.find(older, now, "the gateway does not prove that its log only grew")
	}
	if b.Size >= sizeOf(s.Proven) {
		s.Proven = now
	}
	if s.Shown == older || s.Shown == now {
		s.Shown = ""
	}
	c.save()
	return nil
}

// sizeOf is what a checkpoint that was read before says.
func sizeOf(text string) int64 {
	_, cp, err := checkpoint.Unverified([]byte(text))
	if err != nil {
		return 0
	}
	return cp.Size
}

// pastEnd says whether the gateway answered that its log never had a size.
func pastEnd(err error) bool {
	e, ok := errors.AsType[*writ.Error](err)
	return ok && e.Code == writ.CodeInputInvalid && e.Details["log_size"] != "" // an older version refuses until itself
}

// askLog calls log.head, once, past what calls do with the log of the reply.
func (c *Client) askLog(ctx context.Context, since, until int64) (head logHead, err error) {
	args := struct {
		Since int64 `json:"since,omitempty"`
		Until int64 `json:"until,omitempty"`
	}{since, until}
	body, err := json.Marshal(map[string]any{"capability": "log.head", "args": args})
	if err != nil {
		return head, err
	}
	answer, _, _, err := c.exchange(ctx, body, options{noKey: true})
	if err != nil {
		return head, err
	}
	var env struct {
		Data logHead `json:"data"`
	}
	if err := json.Unmarshal(answer, &env); err != nil {
		return head, &writ.Error{Code: writ.CodeInternal, Op: "client.Log", Msg: "the answer is not that of a gateway", Hint: "check the URL", Err: err}
	}
	return env.Data, nil
}
