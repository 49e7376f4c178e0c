package writ

import "fmt"

// Caps of one transaction.
const (
	MaxOps      = 512       // guards and writes together
	MaxTxBytes  = 256 << 10 // sum of all names and bodies
	MaxDocBytes = 64 << 10  // one document body; more goes to a blob by digest
)

// GuardKind says what a guard re-checks at the commit.
type GuardKind string

const (
	GuardExpect   GuardKind = "expect"    // document Key is at Version (0: absent)
	GuardRange    GuardKind = "range"     // versioned index is at Version (0: empty)
	GuardFree     GuardKind = "free"      // no member of Index in [From, To) but those that end in " "+Except
	GuardWithin   GuardKind = "within"    // Lo <= Counter <= Hi
	GuardNotAfter GuardKind = "not_after" // the store's clock is not past Hi (milliseconds)
	GuardEpoch    GuardKind = "epoch"     // the shard is still in the snapshot's epoch
)

// Guard is one condition of a transaction.
type Guard struct {
	Kind     GuardKind
	Key      Key
	Index    Index
	Counter  Counter
	Version  int64
	From, To string
	Except   string
	Lo, Hi   int64
}

// OpKind says what a write does.
type OpKind string

const (
	OpPut     OpKind = "put"     // Key := Body, its version := seq + 1; forgotten after TTLMs when that is > 0
	OpDelete  OpKind = "delete"  // Key becomes absent
	OpIndex   OpKind = "index"   // Member of Index gets Score
	OpUnindex OpKind = "unindex" // Member leaves Index (with IfScore: only when it still has Score)
	OpAdd     OpKind = "add"     // Counter += Delta; over Limit (when HasLimit) the commit fails
	OpPush    OpKind = "push"    // Entry joins the end of Lane
	OpAck     OpKind = "ack"     // delivery ID leaves Lane
)

// Op is one write of a transaction.
type Op struct {
	Kind     OpKind
	Key      Key
	Body     []byte
	TTLMs    int64
	Index    Index
	Member   string
	Score    int64
	IfScore  bool
	Counter  Counter
	Delta    int64
	Limit    int64
	HasLimit bool
	Lane     Lane
	Entry    string
	ID       string
}

// Tx is everything one commit checks and does, atomically. A Tx that puts or
// deletes documents must carry a Fact; one without a Fact may touch indexes,
// lanes and counters only.
type Tx struct {
	Call   CallID // the commit happens at most once under it (remembered 10 minutes)
	Fact   *Fact
	Before *Fact // a foreign fact that Fact rests on: it gets the sequence before it
	Guards []Guard
	Ops    []Op
	// Mandate marks work that must go on when the store is out of memory:
	// expiry, release, completion, trimming.
	Mandate bool

	// Verdict is the signed verdict the transaction rests on, if it does: the door
	// names it in the fact and keeps it in the evidence.
	Verdict *SignedVerdict
	// Changes are the moves of objects this transaction makes, the call's own
	// first. The door signs them into the fact.
	Changes []Change
	// Causes are receipts the transaction follows from beside those of the last
	// changes of its objects. The door signs them as parents too.
	Causes []ReceiptID
	// Key is the receipt key it is about, signed into the fact.
	Key KeyFact
	// Effect is what it says of an effect whose state it changes, signed into the fact.
	Effect *EffectFact
	// Charged is what a mandate charges a run, or with a minus gives back, signed into
	// the fact.
	Charged map[string]int64
}

// Change is one object's move, as signed into the receipt.
type Change struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
	From string `json:"from"`
	To   string `json:"to"`
}

// Expect guards a document's version.
func (t *Tx) Expect(k Key, version int64) {
	t.Guards = append(t.Guards, Guard{Kind: GuardExpect, Key: k, Version: version})
}

// ExpectRange guards a versioned index.
func (t *Tx) ExpectRange(i Index, version int64) {
	t.Guards = append(t.Guards, Guard{Kind: GuardRange, Index: i, Version: version})
}

// Free guards that a lexical range holds nobody's member but except's.
func (t *Tx) Free(i Index, from, to, except string) {
	t.Guards = append(t.Guards, Guard{Kind: GuardFree, Index: i, From: from, To: to, Except: except})
}

// Within guards that a counter lies in [lo, hi].
func (t *Tx) Within(c Counter, lo, hi int64) {
	t.Guards = append(t.Guards, Guard{Kind: GuardWithin, Counter: c, Lo: lo, Hi: hi})
}

// NotAfter guards that the commit happens no later than ms. Of several the earliest is
// the guard: they are one operation, however many say until when they hold.
func (t *Tx) NotAfter(ms int64) {
	for i, g := range t.Guards {
		if g.Kind == GuardNotAfter {
			t.Guards[i].Hi = min(g.Hi, ms)
			return
		}
	}
	t.Guards = append(t.Guards, Guard{Kind: GuardNotAfter, Hi: ms})
}

// Put writes a document.
func (t *Tx) Put(k Key, body []byte) { t.Ops = append(t.Ops, Op{Kind: OpPut, Key: k, Body: body}) }

// PutFor writes a document that may be forgotten after ttl milliseconds.
// Nothing may be decided by its end.
func (t *Tx) PutFor(k Key, body []byte, ttlMs int64) {
	t.Ops = append(t.Ops, Op{Kind: OpPut, Key: k, Body: body, TTLMs: ttlMs})
}

// Delete removes a document.
func (t *Tx) Delete(k Key) { t.Ops = append(t.Ops, Op{Kind: OpDelete, Key: k}) }

// Index adds or rescores a member.
func (t *Tx) Index(i Index, member string, score int64) {
	t.Ops = append(t.Ops, Op{Kind: OpIndex, Index: i, Member: member, Score: score})
}

// Unindex removes a member, whatever its score.
func (t *Tx) Unindex(i Index, member string) {
	t.Ops = append(t.Ops, Op{Kind: OpUnindex, Index: i, Member: member})
}

// UnindexAt removes a member only if its score is still the one seen.
func (t *Tx) UnindexAt(i Index, member string, score int64) {
	t.Ops = append(t.Ops, Op{Kind: OpUnindex, Index: i, Member: member, Score: score, IfScore: true})
}

// Add moves a counter.
func (t *Tx) Add(c Counter, delta int64) {
	t.Ops = append(t.Ops, Op{Kind: OpAdd, Counter: c, Delta: delta})
}

// AddUpTo moves a counter and fails the commit when it would pass limit.
func (t *Tx) AddUpTo(c Counter, delta, limit int64) {
	t.Ops = append(t.Ops, Op{Kind: OpAdd, Counter: c, Delta: delta, Limit: limit, HasLimit: true})
}

// Push appends an entry to a lane.
func (t *Tx) Push(l Lane, entry string) {
	t.Ops = append(t.Ops, Op{Kind: OpPush, Lane: l, Entry: entry})
}

// Ack takes a received delivery out of its lane for good.
func (t *Tx) Ack(d Delivery) {
	t.Ops = append(t.Ops, Op{Kind: OpAck, Lane: d.Lane, ID: d.ID})
}

// Move notes an object's move for the receipt.
func (t *Tx) Move(kind, id, from, to string) {
	t.Changes = append(t.Changes, Change{Kind: kind, ID: id, From: from, To: to})
}

// PutDoc encodes and writes a document, keeping fields a newer program wrote.
func (t *Tx) PutDoc(s Snapshot, k Key, kind string, doc any) error {
	b, err := EncodeDoc(s, k, kind, doc)
	if err != nil {
		return err
	}
	t.Put(k, b)
	return nil
}

// Cause notes the receipt of what the transaction follows from; "" is none.
func (t *Tx) Cause(r ReceiptID) {
	if r != "" {
		t.Causes = append(t.Causes, r)
	}
}

// Join adds everything another transaction checks and does.
func (t *Tx) Join(o Tx) {
	t.Guards, t.Ops, t.Changes = append(t.Guards, o.Guards...), append(t.Ops, o.Ops...), append(t.Changes, o.Changes...)
	t.Causes, t.Mandate = append(t.Causes, o.Causes...), t.Mandate || o.Mandate
	if t.Verdict == nil {
		t.Verdict = o.Verdict
	}
}

// GuardSnapshot guards everything the snapshot holds that can be guarded:
// documents by version, versioned ranges by version, and the epoch. Counters
// are left to the planner, who knows the band its answer holds in.
func (t *Tx) GuardSnapshot(s Snapshot) {
	for k, d := range s.Docs {
		t.Expect(k, d.Version)
	}
	for r, res := range s.Ranges {
		if r.Index.Versioned() {
			t.ExpectRange(r.Index, res.Version)
		}
	}
	t.Guards = append(t.Guards, Guard{Kind: GuardEpoch, From: s.Epoch})
}

// Empty says whether the transaction writes nothing.
func (t *Tx) Empty() bool { return t.Fact == nil && len(t.Ops) == 0 }

// Check refuses a transaction no store may run: over a cap, documents without
// a fact, names outside the alphabet. Stores call it first.
func (t *Tx) Check() error {
	if n := len(t.Guards) + len(t.Ops); n > MaxOps {
		return fmt.Errorf("transaction of %d operations is over the cap of %d", n, MaxOps)
	}
	size := 0
	bad := func(what, name string) error { return fmt.Errorf("%s name %q is not allowed", what, name) }
	for _, g := range t.Guards {
		size += len(g.Key) + len(g.Index) + len(g.From) + len(g.To) + len(g.Counter.Entity) + len(g.Counter.Field)
		switch g.Kind {
		case GuardExpect:
			if !ValidName(string(g.Key)) {
				return bad("document", string(g.Key))
			}
		case GuardRange:
			if !g.Index.Versioned() {
				return fmt.Errorf("index %q has no version to guard", g.Index)
			}
			if !ValidName(string(g.Index)) {
				return bad("index", string(g.Index))
			}
		case GuardFree:
			if !ValidName(string(g.Index)) {
				return bad("index", string(g.Index))
			}
			if g.From == "" || g.To == "" || g.From >= g.To {
				return fmt.Errorf("free guard wants a bounded range")
			}
		case GuardWithin:
			if !ValidName(g.Counter.Entity) || !ValidName(g.Counter.Field) {
				return bad("counter", g.Counter.Entity+"#"+g.Counter.Field)
			}
		case GuardNotAfter, GuardEpoch:
		default:
			return fmt.Errorf("unknown guard %q", g.Kind)
		}
	}
	for _, o := range t.Ops {
		size += len(o.Key) + len(o.Body) + len(o.Index) + len(o.Member) + len(o.Counter.Entity) + len(o.Counter.Field) + len(o.Lane) + len(o.Entry)
		switch o.Kind {
		case OpPut, OpDelete:
			if t.Fact == nil {
				return fmt.Errorf("document %s changes without a fact", o.Key)
			}
			if !ValidName(string(o.Key)) {
				return bad("document", string(o.Key))
			}
			if len(o.Body) > MaxDocBytes {
				return fmt.Errorf("document %s of %d bytes is over the cap of %d", o.Key, len(o.Body), MaxDocBytes)
			}
			if o.Kind == OpPut && len(o.Body) == 0 {
				return fmt.Errorf("document %s has no body", o.Key)
			}
		case OpIndex, OpUnindex:
			if !ValidName(string(o.Index)) {
				return bad("index", string(o.Index))
			}
			if o.Member == "" || len(o.Member) > 1024 {
				return fmt.Errorf("index %s: member must have 1 to 1024 bytes", o.Index)
			}
			if o.Score < 0 || o.Score > MaxAmount {
				return fmt.Errorf("index %s: score out of range", o.Index)
			}
		case OpAdd:
			if !ValidName(o.Counter.Entity) || !ValidName(o.Counter.Field) {
				return bad("counter", o.Counter.Entity+"#"+o.Counter.Field)
			}
			if o.Delta > MaxAmount || o.Delta < -MaxAmount {
				return fmt.Errorf("counter %s#%s: amount out of range", o.Counter.Entity, o.Counter.Field)
			}
		case OpPush, OpAck:
			if !ValidName(string(o.Lane)) {
				return bad("lane", string(o.Lane))
			}
			if o.Kind == OpPush && (o.Entry == "" || len(o.Entry) > 256) {
				return fmt.Errorf("lane %s: entry must have 1 to 256 bytes", o.Lane)
			}
			if o.Kind == OpAck && o.ID == "" {
				return fmt.Errorf("lane %s: ack without a delivery id", o.Lane)
			}
		default:
			return fmt.Errorf("unknown operation %q", o.Kind)
		}
	}
	if t.Fact != nil && t.Fact.Foreign() {
		return fmt.Errorf("a foreign fact that no other rests on")
	}
	if t.Fact != nil {
		size += len(t.Fact.Head) + len(t.Fact.Tail) + len(t.Fact.Evidence)
	}
	if b := t.Before; b != nil {
		if t.Fact == nil || !b.Foreign() || b.Run != t.Fact.Run || len(b.Head) == 0 || len(b.Sig) == 0 || len(b.Tail)+len(b.Evidence) > 0 {
			return fmt.Errorf("a fact before another that is not foreign, or not whole")
		}
		size += len(b.Head) + len(b.Sig) + len(b.Public)
	}
	if size > MaxTxBytes {
		return fmt.Errorf("transaction of %d bytes is over the cap of %d", size, MaxTxBytes)
	}
	return nil
}

// MaxAmount bounds scores, counters and deltas: every store holds such an
// integer exactly (Redis scripts compute with doubles).
const MaxAmount = 100_000_000_000_000

// Committed is what a commit gave. Without a fact, Seq is -1.
type Committed struct {
	Epoch  string
	Seq    int64 // of the fact, 0, 1, 2, … in its shard without a gap
	RunSeq int64 // of the fact in its run, from 1; 0 without a run
	At     int64 // milliseconds, never before an earlier commit's
}

// Version is the version the commit gave to the documents it put.
func (c Committed) Version() int64 { return c.Seq + 1 }

// Delivery is an entry received from a lane and not yet acknowledged.
type Delivery struct {
	Lane  Lane
	ID    string
	Entry string
}

// LaneCount is how many entries wait in a lane.
type LaneCount struct {
	Lane  Lane
	Count int64
}
