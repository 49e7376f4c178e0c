package client

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts/checkpoint"
)

// proofsPerCall is how many proofs one call asks for.
const proofsPerCall = 4

// errGoneOn is why an answer is not enough: meanwhile another client had another checkpoint
// proven, and what it is to be proven against is that.
var errGoneOn = errors.New("more of the log is proven by now")

// errSlow is why the proofs of a call end when the gateway has had all that time.
var errSlow = errors.New("the gateway gave no proof in time")

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
