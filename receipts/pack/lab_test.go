package pack

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/tlog"
)

// lab is a log somebody could have kept: receipts with evidence, sealed and published
// with keys everybody may have.
type lab struct {
	t      testing.TB
	priv   *ecdsa.PrivateKey
	sealer *receipts.Sealer
	log    *tlog.Key
	list   []writ.Receipt
	proofs map[writ.ReceiptID][]byte // evidence
	runs   map[writ.RunID]int64
	last   map[string]writ.ReceiptID    // of objects
	asked  []string                     // digests of policies
	denied bool                         // evidence cannot be read
	logs   bool                         // verdicts are logged themselves
	laws   [][]byte                     // bundles that were in force, the last one still; none: a text that is no bundle
	old    map[string]*ecdsa.PrivateKey // other receipt keys, by id

	silent string // in which transition an agent's receipts do not name the last change of its entry

	spell func(what string, evidence []byte) []byte // how evidence is written, if otherwise
}

var evidenceKey = [32]byte{7}

func privateKey(t testing.TB, seed byte) *ecdsa.PrivateKey {
	t.Helper()
	d := sha256.Sum256([]byte{seed})
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d[:])
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newLab(t testing.TB, receiptSeed, logSeed byte, origin string) *lab {
	t.Helper()
	l := &lab{t: t, priv: privateKey(t, receiptSeed), proofs: map[writ.ReceiptID][]byte{}, runs: map[writ.RunID]int64{}, last: map[string]writ.ReceiptID{}}
	var err error
	if l.sealer, err = receipts.NewSealer(l.priv, origin, evidenceKey); err != nil {
		t.Fatal(err)
	}
	seed := sha256.Sum256([]byte{logSeed, 1})
	l.log = tlog.NewKey(origin, ed25519.NewKeyFromSeed(seed[:]))
	return l
}

// world is where the labs of these tests begin.
func world(t testing.TB) *lab { return newLab(t, 1, 1, "log.example.org") }

func ulid(prefix string, n int) string { return fmt.Sprintf("%s_01KEDVDNA%017d", prefix, n) }

func ses(n int) writ.SessionID { return writ.SessionID(ulid("ses", n)) }

// call is one receipt of a lab.
type call struct {
	what      string
	by        writ.Actor
	principal string
	run       writ.RunID
	moves     []writ.Change
	args      any
	limited   any              // of which arguments policy took no more
	parents   []writ.ReceiptID // instead of the last changes of what moves
	code      writ.Code
	key       writ.KeyFact
	request   bool
	verdict   *writ.VerdictRef
	signed    *writ.Receipt // the verdict it is by, in evidence; verdict follows unless it is given
	policy    string
	at        int64 // seconds; as many as receipts when 0
	epoch     string

	id     writ.ReceiptID // instead of the next
	before writ.ReceiptID // the verdict that is logged itself
}

// theirs logs the verdict a receipt will be by.
func (l *lab) theirs(c call) writ.ReceiptID {
	r := *c.signed
	r.Seq = int64(len(l.list))
	r.ID = writ.VerdictID(hex.EncodeToString(sha256Of(r.Payload)))
	l.list = append(l.list, r)
	return r.ID
}

func move(kind, id, from, to string) writ.Change {
	return writ.Change{Kind: kind, ID: id, From: from, To: to}
}

// do adds a receipt.
func (l *lab) do(c call) writ.ReceiptID {
	l.t.Helper()
	if c.signed != nil && l.logs {
		c.before = l.theirs(c)
	}
	n := len(l.list)
	id := cmp.Or(c.id, writ.ReceiptID(ulid("rcp", n+1)))
	st := writ.Statement{
		Receipt: id, Call: writ.CallID(ulid("cll", n+1)), Tenant: "default", Log: l.sealer.Origin(), Transition: c.what, Outcome: writ.OutcomeOfTransition,
		Actor: c.by, Changes: c.moves, Run: c.run, KeyID: l.sealer.KeyID(), Parents: c.parents, Code: c.code, Key: c.key, Verdict: c.verdict,
	}
	if c.code != "" {
		st.Outcome = writ.OutcomeOfDenial
	}
	if c.request {
		st.Outcome = writ.OutcomeOfRequest
	}
	if n == 0 { // a log begins with the policies it is kept by
		id := bundleID
		if len(l.laws) > 0 {
			id = lawID(l.laws[0])
		}
		c.moves = append(slices.Clone(c.moves), move("bundle", id, "", "staged"), move("bundle", id, "staged", "active"))
		st.Changes = c.moves
	}
	st.Decision.Packs = []writ.PackRef{{ID: "base", Digest: "sha256:" + hex.EncodeToString(make([]byte, 32))}}
	if len(l.laws) > 0 {
		st.Decision.Packs = nil
		for _, digest := range packsOf(l.laws[len(l.laws)-1]) {
			st.Decision.Packs = append(st.Decision.Packs, writ.PackRef{ID: "base", Digest: digest})
		}
	}
	for _, m := range c.moves {
		if p := l.last[m.Kind+"/"+m.ID]; p != "" && c.parents == nil && !slices.Contains(st.Parents, p) {
			st.Parents = append(st.Parents, p)
		}
	}
	if p := l.last["agent/"+string(c.by.Agent)]; p != "" && c.what != l.silent && !slices.Contains(st.Parents, p) {
		st.Parents = append(st.Parents, p)
	}
	if c.before != "" {
		st.Parents = append(st.Parents, c.before)
	}
	var sealed []byte
	var err error
	st.Decision.PolicyRevision = c.policy
	ev := map[string]any{"capability": c.what, "principal": c.principal, "args": c.args}
	if c.limited != nil {
		ev["limited"] = c.limited
	}
	if c.signed != nil {
		env, err := receipts.Envelope(*c.signed)
		if err != nil {
			l.t.Fatal(err)
		}
		if ev["verdict"] = map[string]any{"envelope": json.RawMessage(env)}; st.Verdict == nil {
			sum := sha256.Sum256(c.signed.Payload)
			st.Verdict = &writ.VerdictRef{Digest: hex.EncodeToString(sum[:]), KeyID: c.signed.KeyID}
		}
	}
	if st.Evidence, sealed, err = l.sealer.Evidence([16]byte{byte(n)}, id, ev); err != nil {
		l.t.Fatal(err)
	}
	if l.proofs[id], err = receipts.OpenEvidence(evidenceKey, id, sealed); err != nil {
		l.t.Fatal(err)
	}
	if l.spell != nil {
		l.proofs[id] = l.spell(c.what, l.proofs[id])
		st.Evidence = hex.EncodeToString(sha256Of(l.proofs[id]))
	}
	head, tail, err := receipts.Draft(st)
	if err != nil {
		l.t.Fatal(err)
	}
	at := c.at
	if at == 0 {
		at = int64(n)
	}
	done := writ.Committed{Seq: int64(n), At: 1_767_225_600_000 + 1000*at, Epoch: "e1"}
	if c.epoch != "" {
		done.Epoch = c.epoch
	}
	if c.run != "" {
		l.runs[c.run]++
		done.RunSeq = l.runs[c.run]
	}
	r, err := l.sealer.Seal(writ.StoredFact{Fact: writ.Fact{ID: id, Run: c.run, KeyID: st.KeyID, Head: head, Tail: tail}, Commit: done})
	if err != nil {
		l.t.Fatal(err)
	}
	l.list = append(l.list, r)
	for _, m := range c.moves {
		l.last[m.Kind+"/"+m.ID] = id
	}
	return id
}

func sha256Of(text []byte) []byte {
	sum := sha256.Sum256(text)
	return sum[:]
}

// open opens a session and starts it.
func (l *lab) open(by writ.Actor, id writ.SessionID, principal string, kind writ.PrincipalKind, role writ.Role, agent, controller string) writ.Actor {
	a := l.opens(by, id, principal, kind, role, agent, controller)
	l.do(call{what: "session.start", by: a, args: map[string]any{}, moves: []writ.Change{move("session", string(id), "opened", "active")}})
	return a
}

func (l *lab) opens(by writ.Actor, id writ.SessionID, principal string, kind writ.PrincipalKind, role writ.Role, agent, controller string) writ.Actor {
	args := map[string]any{"principal": principal, "kind": kind, "role": role}
	if controller != "" {
		args["controller"] = controller
	}
	l.do(call{what: "session.open", by: by, args: args, moves: []writ.Change{move("session", string(id), "", "opened")}})
	return writ.Actor{Agent: writ.AgentID(agent), Kind: kind, Role: role, Session: id}
}

// register has agents, with a key or none.
func (l *lab) register(by writ.Actor, key string, agents ...string) {
	for _, a := range agents {
		more := map[string]any{}
		if key != "" {
			more["keys"] = []string{key}
		}
		l.declares(by, a, more)
	}
}

// declares has an agent with what more is said of it, again if it is there.
func (l *lab) declares(by writ.Actor, agent string, more map[string]any) {
	from := ""
	if l.last["agent/"+agent] != "" {
		from = "planned"
	}
	more["agent_id"] = agent
	l.do(call{what: "agent.register", by: by, args: more, moves: []writ.Change{move("agent", agent, from, "planned")}})
}

// without takes receipts out of a pack, as whoever hides them would.
func (l *lab) without(seqs ...int) func(files) {
	return func(p files) {
		for _, n := range seqs {
			drop(receiptName(int64(n)), evidenceName(int64(n)))(p)
		}
		var list []byte
		for line := range bytes.Lines(p[FileList]) {
			if !slices.ContainsFunc(seqs, func(n int) bool { return bytes.Contains(line, fmt.Appendf(nil, `"seq":%d}`, n)) }) {
				list = append(list, line...)
			}
		}
		p[FileList] = list
		l.retell(p)
	}
}

// retell writes the README anew, and the manifest of keys, as whoever changes a pack would.
func (l *lab) retell(p files) {
	l.t.Helper()
	var m manifest
	if err := json.Unmarshal(p[FileManifest], &m); err != nil {
		l.t.Fatal(err)
	}
	first, err := receipts.NewVerifier(p[keyName(1)])
	if err != nil {
		l.t.Fatal(err)
	}
	ring, err := receipts.NewRing(first)
	if err != nil {
		l.t.Fatal(err)
	}
	about := readme{first: ring.First().KeyID}
	for _, name := range slices.Sorted(maps.Keys(p)) {
		if !receiptPath.MatchString(name) {
			continue
		}
		b, _ := parse(p[name])
		if receipts.IsVerdict(b.payload) {
			continue
		}
		rec, err := receipts.Decode(b.payload)
		if err != nil {
			l.t.Fatal(err)
		}
		about.note(rec)
		_ = ring.Learn(rec, writ.Receipt{Seq: rec.Commit.Seq}) // of receipts that say nothing of keys nothing
	}
	evidence := slices.ContainsFunc(slices.Collect(maps.Keys(p)), evidencePath.MatchString)
	p[FileReadme] = about.text(l.logKey(), m.Scope, m.Size, evidence, p[FileEarlier] != nil)
	p[FileKeys] = livesOf(ring, m.Origin, m.Size)
}

// shred has the evidence of a run destroyed.
func (l *lab) shred(by writ.Actor, run writ.RunID, from string) {
	for _, r := range l.list {
		if rec, err := receipts.Decode(r.Payload); err != nil {
			l.t.Fatal(err)
		} else if rec.Statement.Run == run && rec.Statement.Transition != writ.CapabilityShred {
			delete(l.proofs, r.ID)
		}
	}
	l.do(call{what: writ.CapabilityShred, by: by, run: run, args: map[string]any{"reason": "legal_order"}, moves: []writ.Change{move("evidence", string(run), from, "shredded")}})
}

// cast are those who act in the story.
type cast struct {
	operator, planner, worker, judge writ.Actor
	run                              writ.RunID
	task                             string
}

var system = writ.Actor{Kind: writ.KindSystem, Role: writ.RoleSystem}

func (l *lab) cast() cast {
	c := cast{run: writ.RunID(ulid("run", 1)), task: ulid("tsk", 1)}
	c.operator = l.open(system, ses(1), "operator", writ.KindHuman, writ.RoleOperator, "", "")
	c.planner = l.opens(c.operator, ses(2), "planner", writ.KindAgent, writ.RoleOrchestrator, "planner", "")
	l.declares(c.operator, "worker", map[string]any{})
	c.worker = l.open(c.operator, ses(3), "worker", writ.KindAgent, writ.RoleExecutor, "worker", "")
	c.judge = l.open(c.operator, ses(4), "vera", writ.KindHuman, writ.RoleVerifier, "", "")
	return c
}

// begin creates the run, which asks for a verdict, and its task, which does too.
func (l *lab) begin(c cast) { l.makes(c) }

// makes is begin, and the task makes artifacts.
func (l *lab) makes(c cast, artifacts ...string) {
	completed := map[string]any{}
	if len(artifacts) > 0 {
		var list []any
		for _, a := range artifacts {
			list = append(list, map[string]any{"name": "site", "digest": "sha256:" + a})
		}
		completed["artifacts"] = list
	}
	l.asks(c, map[string]any{}, map[string]any{"gates": []string{"lint"}}, completed)
}

// asks is begin with what more the run asks for, and what the task does.
func (l *lab) asks(c cast, ofRun, ofTask, completed map[string]any) {
	run := func(x call) { x.run = c.run; l.do(x) }
	ofRun["close_policy"], ofTask["required"] = "verifier", true
	run(call{what: "run.create", by: c.planner, args: ofRun, moves: []writ.Change{move("run", string(c.run), "", "active")}})
	run(call{what: "task.enqueue", by: c.planner, args: map[string]any{"key": "one", "capability": "site.build", "verify": ofTask}, moves: []writ.Change{move("task", c.task, "", "queued")}})
	run(call{what: "run.seal", by: c.planner, args: map[string]any{}, moves: []writ.Change{move("run", string(c.run), "active", "active")}})
	run(call{what: "task.claim", by: c.worker, args: map[string]any{}, moves: []writ.Change{move("task", c.task, "queued", "running")}})
	run(call{what: "task.complete", by: c.worker, args: completed, moves: []writ.Change{move("task", c.task, "running", "verifying")}})
}

// accept accepts the task, then the run.
func (l *lab) accept(c cast, by writ.Actor) {
	l.do(call{
		what: "task.verify", by: by, run: c.run, moves: []writ.Change{move("task", c.task, "verifying", "done"), move("run", string(c.run), "active", "verifying")},
		args: map[string]any{"receipt_id": l.last["task/"+c.task], "gates": []any{map[string]any{"gate": "lint", "status": "pass"}}},
	})
	l.do(call{
		what: "run.close", by: by, run: c.run, moves: []writ.Change{move("run", string(c.run), "verifying", "done")},
		args: map[string]any{"receipt_id": l.last["run/"+string(c.run)], "tasks": []any{map[string]any{"task_id": c.task, "receipt_id": l.last["task/"+c.task]}}},
	})
}

// story is a log in which a run is done as it should be.
func story(t testing.TB) (*lab, cast) {
	l := world(t)
	c := l.cast()
	l.begin(c)
	l.accept(c, c.judge)
	return l, c
}

// checkpoint is of the first n receipts.
func (l *lab) checkpoint(n int) []byte {
	l.t.Helper()
	sp, err := newSpool()
	if err != nil {
		l.t.Fatal(err)
	}
	defer sp.close()
	for _, r := range l.list[:n] {
		der, err := tlog.PublicDER(l.keyOf(r.KeyID))
		if err != nil {
			l.t.Fatal(err)
		}
		if err := sp.add(r, tlog.Leaf(r, der)); err != nil {
			l.t.Fatal(err)
		}
	}
	root, err := sp.root(int64(n))
	if err != nil {
		l.t.Fatal(err)
	}
	text, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", l.log.Name(), n, root)}, l.log)
	if err != nil {
		l.t.Fatal(err)
	}
	return text
}

func (l *lab) logKey() string {
	v, err := l.log.Verifier()
	if err != nil {
		l.t.Fatal(err)
	}
	return v
}

func (l *lab) pub() []byte {
	b, err := receipts.PublicPEM(&l.priv.PublicKey)
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

func (l *lab) trust() Trust { return Trust{LogKey: l.logKey(), Keys: [][]byte{l.pub()}} }

// A lab is a source.

func (l *lab) Receipts(context.Context) iter.Seq2[writ.Receipt, error] {
	return func(yield func(writ.Receipt, error) bool) {
		for _, r := range l.list {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (l *lab) Key(_ context.Context, keyID string, _ writ.ReceiptID) (*ecdsa.PublicKey, error) {
	return l.keyOf(keyID), nil
}

func (l *lab) keyOf(keyID string) *ecdsa.PublicKey {
	if k := l.old[keyID]; k != nil {
		return &k.PublicKey
	}
	return &l.priv.PublicKey
}

// signer is a receipt key of a lab.
type signer struct {
	priv   *ecdsa.PrivateKey
	sealer *receipts.Sealer
	about  writ.KeyFact
}

func (l *lab) signer(seed byte) signer {
	l.t.Helper()
	other := newLab(l.t, seed, 1, l.sealer.Origin())
	sum, _, err := receipts.SPKIOf(&other.priv.PublicKey)
	if err != nil {
		l.t.Fatal(err)
	}
	return signer{other.priv, other.sealer, writ.KeyFact{ID: other.sealer.KeyID(), Purpose: writ.KeyReceipt, SPKI: sum}}
}

// signs has a receipt key sign from now on, whatever is said of it.
func (l *lab) signs(s signer) {
	if l.old == nil {
		l.old = map[string]*ecdsa.PrivateKey{}
	}
	l.old[l.sealer.KeyID()], l.old[s.sealer.KeyID()] = l.priv, s.priv
	l.priv, l.sealer = s.priv, s.sealer
}

// ofKey says something of a receipt key.
func (l *lab) ofKey(by writ.Actor, what string, about writ.KeyFact, moves ...writ.Change) {
	l.do(call{what: what, by: by, key: about, args: map[string]any{}, moves: moves})
}

func (l *lab) introduce(by writ.Actor, s signer, more ...writ.Change) {
	l.ofKey(by, writ.KeyIntroduce, s.about, append([]writ.Change{move("key", s.about.SPKI, "", "introduced")}, more...)...)
}

func (l *lab) activate(by writ.Actor, s, before signer) {
	l.ofKey(by, writ.KeyActivate, s.about, move("key", s.about.SPKI, "introduced", "active"), move("key", before.about.SPKI, "active", "retired"))
}

func (l *lab) revoke(by writ.Actor, s signer, since int64) {
	s.about.Since = since
	l.ofKey(by, writ.KeyRevoke, s.about, move("key", s.about.SPKI, "retired", "revoked"))
}

// rotate introduces a receipt key and has it sign from now on.
func (l *lab) rotate(by writ.Actor, before, next byte) (old, now signer) {
	old, now = l.signer(before), l.signer(next)
	var more []writ.Change
	if l.old == nil {
		more = []writ.Change{move("key", old.about.SPKI, "", "active")}
	}
	l.introduce(by, now, more...)
	l.activate(by, now, old)
	l.signs(now)
	return old, now
}

// keysFile is what receipts say of keys from the first on, up to the receipt n, as a file that
// somebody signed.
func (l *lab) keysFile(first []byte, n int, by crypto.Signer) []byte {
	l.t.Helper()
	v, err := receipts.NewVerifier(first)
	if err != nil {
		l.t.Fatal(err)
	}
	ring, err := receipts.NewRing(v)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, k := range append(slices.Collect(maps.Values(l.old)), l.priv) {
		text, err := receipts.PublicPEM(&k.PublicKey)
		if err == nil {
			err = ring.Show(text)
		}
		if err != nil {
			l.t.Fatal(err)
		}
	}
	for _, r := range l.list[:n] {
		if _, ok := ofKey(r.Payload); ok {
			if err := ring.Take(r); err != nil {
				l.t.Fatal(err)
			}
		}
	}
	payload, err := receipts.Manifest(ring, l.sealer.Origin(), "default")
	if err != nil {
		l.t.Fatal(err)
	}
	env, err := receipts.SignManifest(payload, by)
	if err != nil {
		l.t.Fatal(err)
	}
	list, err := ring.Envelopes()
	if err != nil {
		l.t.Fatal(err)
	}
	text, err := json.Marshal(receipts.KeysFile{Format: receipts.KeysFormat, Manifest: env, Receipts: list})
	if err != nil {
		l.t.Fatal(err)
	}
	return text
}

func (l *lab) Evidence(_ context.Context, id writ.ReceiptID) ([]byte, bool, error) {
	b, ok := l.proofs[id]
	return b, ok, nil
}

var (
	bundle   = []byte("a policy bundle")
	bundleID = hex.EncodeToString(sha256Of(bundle))
)

func (l *lab) Policies(_ context.Context, digests []string, want func([]writ.PackVer) bool) iter.Seq2[[]byte, error] {
	l.asked = append(l.asked, digests...)
	return func(yield func([]byte, error) bool) {
		if slices.Contains(digests, "sha256:"+bundleID) && want([]writ.PackVer{{ID: "base", Digest: "sha256:" + hex.EncodeToString(make([]byte, 32))}}) {
			yield(bundle, nil)
		}
		for _, text := range l.laws {
			var packs []writ.PackVer
			for _, digest := range packsOf(text) {
				packs = append(packs, writ.PackVer{Digest: digest})
			}
			if slices.Contains(digests, "sha256:"+lawID(text)) && want(packs) && !yield(text, nil) {
				return
			}
		}
	}
}

func lawID(text []byte) string { return hex.EncodeToString(sha256Of(text)) }

func packsOf(text []byte) []string {
	packs := map[string]bool{}
	packsIn(text, packs)
	return slices.Sorted(maps.Keys(packs))
}

// enacts puts another bundle in force.
func (l *lab) enacts(by writ.Actor, text []byte) {
	old, now := lawID(l.laws[len(l.laws)-1]), lawID(text)
	l.do(call{what: "policy.stage", by: by, args: map[string]any{}, moves: []writ.Change{move("bundle", now, "", "staged")}})
	l.do(call{what: "policy.activate", by: by, args: map[string]any{}, moves: []writ.Change{move("bundle", now, "staged", "active"), move("bundle", old, "active", "retired")}})
	l.laws = append(l.laws, text)
}

// files are a pack in memory.
type files map[string][]byte

func (f files) File(name string, text []byte) error {
	if _, twice := f[name]; twice {
		return fmt.Errorf("%s twice", name)
	}
	f[name] = bytes.Clone(text)
	return nil
}

func (f files) Copy(name string, size int64, r io.Reader) error {
	text, err := io.ReadAll(r)
	if err == nil && int64(len(text)) != size {
		err = fmt.Errorf("%s is not %d bytes long", name, size)
	}
	if err != nil {
		return err
	}
	return f.File(name, text)
}

func (f files) Close() error { return nil }

// pack opens them, and says the sums again that whoever changed them would.
func (f files) pack() *Pack {
	return &Pack{
		names: slices.Sorted(maps.Keys(f)), close: func() error { return nil },
		read: func(name string) ([]byte, error) { return f[name], nil },
	}
}

func (f files) with(change func(files)) files {
	out := maps.Clone(f)
	change(out)
	out.sum()
	return out
}

func (f files) sum() {
	var sums bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if name != FileSums {
			fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(f[name]), name)
		}
	}
	f[FileSums] = sums.Bytes()
}

// export is a pack of a lab.
func (l *lab) export(o Options) files {
	l.t.Helper()
	if o.Checkpoint == nil {
		o.Checkpoint = l.checkpoint(len(l.list))
	}
	if o.Scope.Kind == "" {
		o.Scope.Kind = ScopeLog
	}
	o.LogKey, o.Evidence = l.logKey(), !l.denied
	out := files{}
	if err := Write(context.Background(), out, l, o); err != nil {
		l.t.Fatal(err)
	}
	return out
}

func verify(t testing.TB, f files, trust Trust, ask Ask) Report {
	t.Helper()
	r, err := Verify(f.pack(), trust, ask)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// codes are what a report found, "code@seq", each once.
func codes(r Report) []string {
	out := []string{}
	for _, f := range r.Findings {
		out = append(out, fmt.Sprintf("%s@%d", f.Code, f.Seq))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// judged has both verifiers look at the close of a run, in the whole log and in the pack of the run, and holds them to what they find.
func (l *lab) judged(t *testing.T, o *other, name string, run writ.RunID, ofLog, ofRun string) {
	t.Helper()
	for _, x := range []struct {
		scope Scope
		want  string
	}{{Scope{Kind: ScopeLog}, ofLog}, {Scope{Kind: ScopeRun, Run: run}, ofRun}} {
		f := l.export(Options{Scope: x.scope})
		if got := both(t, o, name+x.scope.Kind, f, f, l.trust(), Ask{Run: run, Close: true}).each(); got != x.want {
			t.Errorf("%s, in the pack of a %s: got %q, want %q", name, x.scope.Kind, got, x.want)
		}
	}
}

// leftOut has both verifiers look at the close of a run, in its pack without a receipt (-1: with all), and holds them to what
// they find.
func (l *lab) leftOut(t *testing.T, o *other, run writ.RunID, want map[int]string) {
	t.Helper()
	f := l.export(Options{Scope: Scope{Kind: ScopeRun, Run: run}})
	for seq, codes := range want {
		changed := f
		if seq >= 0 {
			changed = f.with(l.without(seq))
		}
		if got := both(t, o, "left out", f, changed, l.trust(), Ask{Run: run, Close: true}).each(); got != codes {
			t.Errorf("without %d: got %q, want %q", seq, got, codes)
		}
	}
}
