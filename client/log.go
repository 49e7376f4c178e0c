package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

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

// How many checkpoints that are not proven are kept, besides the newest. From many on
// calls ask for proofs, unless there was no answer; of more than most the first ones are
// kept, and the others counted. Until the keeper has them a client may have more: others may
// have had proven what waits.
const (
	manyUnproven = 16
	mostUnproven = 2 * manyUnproven
	mostUnkept   = 2 * mostUnproven
)

// How many proofs one call asks for, how long it waits for them, and as long for the keeper;
// and how long calls let a keeper be that has failed.
const (
	proofsPerCall = 4
	asideTime     = 2 * time.Second
	keeperRests   = 5 * time.Second
)

// errGoneOn is why an answer is not enough: meanwhile another client had another checkpoint
// proven, and what it is to be proven against is that.
var errGoneOn = errors.New("more of the log is proven by now")

// errSlow is why the proofs of a call end when the gateway has had all that time.
var errSlow = errors.New("the gateway gave no proof in time")

// ErrNotKept is in what KeepLog and CheckLog give where the LogKeeper fails.
var ErrNotKept = errors.New("what was seen of the log cannot be kept, and is forgotten when this program ends")

// LogKeeper keeps what was seen of one gateway's log, for every client that holds it to
// that. Where it fails calls go on, and KeepLog and CheckLog say so.
type LogKeeper interface {
	// Load gives what is kept, the zero value where nothing is. What cannot be read, or is
	// not Valid, MUST be an error: New gives it.
	Load() (LogSeen, error)
	// Update puts in the place of what is kept what change makes of it. Nobody else MUST
	// change it meanwhile, and what is there when this ends early MUST be all of the one
	// or all of the other. A call waits for it, so where others have it for long it MUST
	// give up when ctx ends; that is tried again.
	Update(ctx context.Context, change func(kept LogSeen) LogSeen) error
}

// LogSeen is what was seen of a log. The checkpoints are texts as the gateway signed
// them: with the key they are evidence.
type LogSeen struct {
	Key      string   `json:"verifier_key,omitempty"`
	Proven   string   `json:"proven,omitempty"`     // it goes on from all before it
	Shown    string   `json:"shown,omitempty"`      // the newest that is not proven yet
	Others   []string `json:"others,omitempty"`     // others that are not, smallest first
	NoAnswer bool     `json:"no_answer,omitempty"`  // the gateway gave no proof when it was last asked
	Checked  int64    `json:"checked_ms,omitempty"` // when proofs of all were last asked for

	Dropped LogDropped `json:"dropped,omitzero"` // stays until whoever keeps this takes it out
}

// Valid says whether this can be what clients kept, and not something that was damaged. What
// waits need not be signed by the key: the gateway may have shown it so.
func (s LogSeen) Valid() bool {
	if s.Shown == "" && len(s.Others) > 0 || s.Dropped.Count < 0 {
		return false
	}
	for _, text := range s.unproven() {
		if _, _, err := checkpoint.Unverified([]byte(text)); err != nil {
			return false
		}
	}
	var err error
	if s.Proven != "" {
		_, err = checkpoint.Parse([]byte(s.Proven), s.Key)
	} else if s.Key != "" {
		_, err = note.NewVerifier(s.Key)
	}
	return err == nil
}

// merge is what is to be kept where one client has seen s, and others have kept something
// since base was there: all that any of them saw, less what one of them has proven. What left
// base since was proven against what is kept now, or against what waits there, as long as they
// all are of one log; and if they are not, the proofs of what waits tell.
func (s LogSeen) merge(base, kept LogSeen, room int) LogSeen {
	d := s.Dropped.plus(kept.Dropped)
	if d.Count -= base.Dropped.Count; d.Count <= 0 { // they were taken out
		d = LogDropped{}
	}
	strange := s.Key != "" && kept.Key != "" && s.Key != kept.Key
	if strange || max(sizeOf(kept.Proven), sizeOf(kept.Shown)) < sizeOf(base.Proven) {
		base = LogSeen{} // what is kept now does not come of it: it was taken away, or an older one put there
	}
	all := kept
	all.Key, all.Dropped = cmp.Or(s.Key, kept.Key), d
	if s.Checked >= kept.Checked {
		all.Checked, all.NoAnswer = s.Checked, s.NoAnswer
	}
	for _, text := range base.unproven() {
		if !slices.Contains(s.unproven(), text) {
			all.settle(text)
		}
	}
	more := slices.DeleteFunc(s.unproven(), func(text string) bool { return slices.Contains(base.unproven(), text) })
	if s.Proven != base.Proven || strange { // else others may have gone on from it
		if all.Proven = s.Proven; kept.Proven != base.Proven { // proven to the other: not that it and ours are of one log
			more = append(more, kept.Proven)
		}
	}
	all.settle(all.Proven)
	for _, text := range more {
		if text != "" && text != all.Proven && !slices.Contains(all.unproven(), text) {
			all.add(text, room)
		}
	}
	return all
}

// LogDropped counts the checkpoints that were shown and not kept, because too many others
// waited for their proofs. One of them may have been of another log, and no later proof
// tells. It is the Err of the *writ.Error that CheckLog gives as long as there are any.
type LogDropped struct {
	Count    int64 `json:"count"`
	Smallest int64 `json:"smallest"` // receipts of the smallest log among them
	Largest  int64 `json:"largest"`
}

func (d LogDropped) Error() string {
	return fmt.Sprintf("checkpoints that the gateway showed and did not prove: %d more than could be kept, of %d to %d receipts", d.Count, d.Smallest, d.Largest)
}

// plus are those of both.
func (d LogDropped) plus(e LogDropped) LogDropped {
	if d.Count == 0 || e.Count == 0 {
		return cmp.Or(d, e)
	}
	return LogDropped{d.Count + e.Count, min(d.Smallest, e.Smallest), max(d.Largest, e.Largest)}
}

// unproven are all that are not proven yet, smallest first.
func (s *LogSeen) unproven() []string {
	if s.Shown == "" {
		return nil
	}
	return append(slices.Clip(s.Others), s.Shown)
}

// add takes one more that is not proven. Where there is no room besides the newest, what is
// not that is counted only.
func (s *LogSeen) add(text string, room int) {
	if len(s.Others) < room {
		s.put(text)
		return
	}
	if sizeOf(s.Shown) < sizeOf(text) {
		text, s.Shown = s.Shown, text
	}
	s.Dropped = s.Dropped.plus(LogDropped{1, sizeOf(text), sizeOf(text)})
}

// put takes one more, room or not.
func (s *LogSeen) put(text string) {
	if s.Shown == "" {
		s.Shown = text
		return
	}
	if sizeOf(s.Shown) < sizeOf(text) {
		text, s.Shown = s.Shown, text
	}
	at, _ := slices.BinarySearchFunc(s.Others, sizeOf(text), func(o string, size int64) int { return cmp.Compare(sizeOf(o), size) })
	s.Others = slices.Insert(slices.Clone(s.Others), at, text) // others may read the old ones
}

// settle takes out one that is proven.
func (s *LogSeen) settle(text string) {
	left := slices.DeleteFunc(slices.Clone(s.unproven()), func(o string) bool { return o == text })
	s.Others, s.Shown = nil, ""
	if n := len(left); n > 0 {
		s.Others, s.Shown = left[:n-1:n-1], left[n-1]
	}
	if len(s.Others) == 0 {
		s.Others = nil
	}
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
	err := c.prove(ctx, math.MaxInt)
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

// KeepLog has kept what was seen of the log and is not kept yet, and says why it cannot be.
// Calls do so at their end, and answer the same where it fails: a program that makes no
// more of them asks here, so that nothing it was shown is forgotten unsaid.
func (c *Client) KeepLog(ctx context.Context) error { return c.update(ctx, false) }

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

// keep has kept what is new, unless another call is at it: that one goes on with what came
// meanwhile, as long as it has time. What is left the next call takes, or KeepLog.
func (c *Client) keep(ctx context.Context) {
	ctx, cancel := aside(ctx)
	defer cancel()
	for ctx.Err() == nil {
		c.logMu.Lock()
		wanted := c.log.news && !time.Now().Before(c.log.rests)
		c.logMu.Unlock()
		if !wanted || !c.keeping.TryLock() {
			return
		}
		_ = c.save(ctx)
		c.keeping.Unlock()
	}
}

// update has kept what is new, now, and always looks what others saw where that is asked for.
func (c *Client) update(ctx context.Context, always bool) error {
	c.keeping.Lock()
	defer c.keeping.Unlock()
	c.logMu.Lock()
	news := c.log.news
	c.logMu.Unlock()
	if !news && !always {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, asideTime)
	defer cancel()
	return c.save(ctx)
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
	if c.log.found == nil {
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

// save has kept what was seen, and takes over what other clients saw. The caller holds
// keeping, and not the lock: calls go on meanwhile.
func (c *Client) save(ctx context.Context) error {
	c.logMu.Lock()
	seen, base, room := c.log.seen, c.log.kept, mostUnproven
	if c.log.found != nil {
		room = mostUnkept // the evidence, too
	}
	c.log.news = false
	c.logMu.Unlock()
	if c.cfg.Log.Keep == nil {
		return nil
	}
	all := seen
	err := c.cfg.Log.Keep.Update(ctx, func(kept LogSeen) LogSeen {
		all = seen.merge(base, kept, room)
		return all
	})
	c.logMu.Lock()
	defer c.logMu.Unlock()
	if err != nil {
		c.log.news, c.log.rests = true, time.Now().Add(keeperRests)
		return fmt.Errorf("%w: %w", ErrNotKept, err)
	}
	c.log.seen, c.log.kept = c.log.seen.merge(seen, all, mostUnkept), all // more was seen since
	return nil
}

// logHead is what log.head answers.
type logHead struct {
	Checkpoint  string   `json:"checkpoint"`
	Consistency [][]byte `json:"consistency"`
	Key         string   `json:"verifier_key"`
}

// What two checkpoints of one size say, and one of another key.
const (
	forked    = "the gateway shows two logs of the same size: it has forked its log"
	notSigned = "the gateway shows a checkpoint that the key of its log did not sign"
)

// prove has the gateway prove what it has shown, up to n of it, the smallest first. That
// there was no answer is kept, so that not every call asks again; but not where the caller
// did not wait for it.
func (c *Client) prove(ctx context.Context, n int) error {
	defer c.tell()
	whole, err := c.ask(ctx, n)
	for errors.Is(err, errGoneOn) {
		whole, err = c.ask(ctx, n)
	}
	c.logMu.Lock()
	defer c.logMu.Unlock()
	if c.log.found != nil || err != nil && ctx.Err() != nil && !errors.Is(context.Cause(ctx), errSlow) {
		return err
	}
	s := &c.log.seen
	if s.NoAnswer = err != nil; s.NoAnswer || whole {
		s.Checked = time.Now().UnixMilli()
	}
	c.log.news = true
	return err
}

// ask asks for up to n proofs, and says whether those were all.
func (c *Client) ask(ctx context.Context, n int) (whole bool, err error) {
	c.logMu.Lock()
	s := c.log.seen
	c.logMu.Unlock()
	if s.Key == "" || s.Proven == "" { // the first look
		n--
		head, err := c.askLog(ctx, 0, 0)
		if err != nil {
			return false, err
		}
		c.logMu.Lock()
		err = c.begin(head)
		s = c.log.seen
		c.logMu.Unlock()
		if err != nil || s.Shown == "" {
			return true, err
		}
	}
	unproven := s.unproven()
	if len(unproven) == 0 { // nothing was seen since; look what there is now
		head, err := c.askLog(ctx, sizeOf(s.Proven), 0)
		return true, c.answer(s.Proven, head, "", err)
	}
	for _, text := range unproven[:min(n, len(unproven))] {
		if err := c.proveOne(ctx, text); err != nil {
			return false, err
		}
	}
	return n >= len(unproven), nil
}

// proveOne has the gateway prove that a checkpoint and the one proven last are of one log.
func (c *Client) proveOne(ctx context.Context, text string) error {
	older, newer := c.LogSeen().Proven, text
	switch a, b := sizeOf(older), sizeOf(newer); {
	case a == b:
		return c.answer(older, logHead{}, newer, nil)
	case a > b:
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
		return c.find(s.Proven, head.Checkpoint, notSigned)
	}
	if s.Proven == "" {
		s.Proven = head.Checkpoint
	} else if head.Checkpoint != s.Proven && !slices.Contains(s.unproven(), head.Checkpoint) {
		s.put(head.Checkpoint) // another client had the first look meanwhile
	}
	if s.Shown == s.Proven {
		s.settle(s.Shown)
	}
	c.log.news = true
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
	now, unsigned := newer, "the key of the log did not sign a checkpoint that is kept: the gateway showed it so, or what is kept was changed"
	if now == "" {
		now, unsigned = head.Checkpoint, notSigned
	}
	a, err := checkpoint.Parse([]byte(older), s.Key)
	b, berr := checkpoint.Parse([]byte(now), s.Key)
	if errors.Join(err, berr) != nil {
		return c.find(older, now, unsigned)
	}
	hashes := make([]tlog.Hash, 0, len(head.Consistency))
	for _, h := range head.Consistency {
		if len(h) != tlog.HashSize {
			return c.find(older, now, "the gateway does not prove that its log only grew")
		}
		hashes = append(hashes, tlog.Hash(h))
	}
	if a.Size == b.Size && a.Root != b.Root {
		return c.find(older, now, forked)
	}
	if !checkpoint.Consistent(a, b, hashes) {
		return c.find(older, now, "the gateway does not prove that its log only grew")
	}
	if s.Proven != older && s.Proven != now {
		return errGoneOn
	}
	if b.Size >= sizeOf(s.Proven) {
		s.Proven = now
	}
	s.settle(older)
	s.settle(now)
	c.log.news = true
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
