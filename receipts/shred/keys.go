package shred

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"iter"
	"sync"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/ledger"
)

// Log is the ledger whose evidence is kept.
type Log interface {
	Last() int64
	All(after, upto int64) iter.Seq2[writ.Receipt, error]
}

// Dir, in the ledger's directory, is where a gateway has them.
const Dir = "keys"

const (
	stride = 8192 // receipts after which it is written down what is done
	warm   = 1024 // opened keys kept in memory
	dayMs  = 24 * 3600 * 1000
)

// Keys are the keys of one ledger. Whoever opens them holds the ledger's lock.
// They are safe for concurrent use; Keep, Filed and Settle are the Integrator's.
type Keys struct {
	wrap cipher.AEAD

	mu     sync.Mutex
	files  files
	known  []key            // by number, from 1; zero where a number is not used
	latest map[owner]int64  // its key with the highest number
	opened map[int64][]byte // some of the live keys

	group  group   // what Keep was last asked about
	due    []order // filed and not carried out
	done   int64   // shreddings up to this sequence are carried out
	noted  int64   // what is written down of that
	missed int64   // see Missing

	ordered map[int64]writ.ReceiptID // not nil: nothing is written; keys that are to be destroyed, and by what
}

func (k *Keys) reading() bool { return k.ordered != nil }

// key is what is remembered of one.
type key struct {
	owner owner
	from  int64
	prev  int64 // an earlier one of the owner's, 0: none
	state byte
}

type group struct {
	last   int64
	orders []order
}

// order is a shredding.
type order struct {
	owner   owner
	seq     int64
	receipt writ.ReceiptID
}

// learn remembers the next key.
func (k *Keys) learn(s slot) {
	k.known = append(k.known, key{owner: s.owner, from: s.from, prev: k.latest[s.owner], state: s.state})
	k.latest[s.owner] = int64(len(k.known))
}

// Close writes down what is done. The keys must not be used afterwards.
func (k *Keys) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.due) > 0 {
		return nil // the next Open carries them out
	}
	return k.note()
}

func (k *Keys) note() error {
	if k.done == k.noted || k.reading() {
		return nil
	}
	if err := k.files.setProcessed(k.done); err != nil {
		return err
	}
	k.noted = k.done
	return nil
}

func (k *Keys) state(n int64) byte {
	if n < 1 || n > int64(len(k.known)) {
		return 0
	}
	return k.known[n-1].state
}

// Keep seals the evidence of entries under the keys of their runs, which are on
// disk when it returns. A shredding holds for what comes before it: what
// follows, in the same group too, gets another key.
func (k *Keys) Keep(facts []writ.StoredFact, entries []ledger.Entry) error {
	const op = "shred.Keep"
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.files.failed != nil {
		return writ.Fault(writ.CodeInternal, op, k.files.failed)
	}
	k.cool()
	g := group{last: -1}
	var made []slot
	before, size := len(k.known), k.files.size
	err := func() error {
		for i := range entries {
			f, e := facts[i], &entries[i]
			g.last = f.Commit.Seq
			o, is, err := shredding(e.Payload, e.ID)
			if err != nil {
				return err
			}
			if is {
				g.orders = append(g.orders, o)
			}
			if len(e.Evidence) == 0 {
				continue
			}
			who := ownerOf(f)
			n := k.usable(who, f.Commit.Seq, g.orders)
			if n == 0 {
				s, err := k.make(who, f.Commit.Seq)
				if err != nil {
					return err
				}
				made = append(made, s)
				n = int64(len(k.known))
			}
			secret, err := k.secret(n)
			if err != nil {
				return err
			}
			if e.Evidence, err = receipts.SealEvidence([32]byte(secret), e.ID, e.Evidence); err != nil {
				return err
			}
			e.EvidenceKey = n
		}
		return k.files.add(int64(before), made)
	}()
	if err != nil {
		k.forget(before, size)
		return writ.Fault(writ.CodeStore, op, err)
	}
	k.group = g
	return nil
}

// usable is the owner's latest key that holds from a sequence on and is not to
// be destroyed; 0: there is none.
func (k *Keys) usable(who owner, seq int64, orders []order) int64 {
	from := int64(-1) // of keys that stay
	for _, o := range orders {
		if o.owner == who {
			from = o.seq
		}
	}
	for n := k.latest[who]; n > 0; n = k.known[n-1].prev {
		if x := k.known[n-1]; x.state == live && x.from <= seq && x.from >= from {
			return n
		}
	}
	return 0
}

// make makes the next key, in memory.
func (k *Keys) make(who owner, seq int64) (slot, error) {
	s := slot{owner: who, from: seq, state: live}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return s, err
	}
	if _, err := rand.Read(s.key[:nonceBytes]); err != nil {
		return s, err
	}
	k.learn(s)
	n := int64(len(k.known))
	k.wrap.Seal(s.key[:nonceBytes], s.key[:nonceBytes], secret, k.about(n, s))
	k.opened[n] = secret
	return s, nil
}

// about is what a wrapped key is bound to.
func (k *Keys) about(n int64, s slot) []byte {
	b := append([]byte("writ evidence key v1 "), s.owner[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(s.from))
	return binary.BigEndian.AppendUint64(b, uint64(n))
}

// cool forgets opened keys when there are many. What a Keep has made must be in memory
// until it is written, so it is asked before and not in between.
func (k *Keys) cool() {
	if len(k.opened) >= warm {
		clear(k.opened)
	}
}

// forget takes back what a failed Keep has made.
func (k *Keys) forget(before int, size int64) {
	for n := int64(len(k.known)); n > int64(before); n-- {
		x := k.known[n-1]
		delete(k.opened, n)
		if x.state == 0 {
			continue
		}
		if k.latest[x.owner] = x.prev; x.prev == 0 {
			delete(k.latest, x.owner)
		}
	}
	k.known, k.files.size = k.known[:before], size
}

// secret opens a live key.
func (k *Keys) secret(n int64) ([]byte, error) {
	if b := k.opened[n]; b != nil {
		return b, nil
	}
	s, err := k.files.read(n)
	if err != nil {
		return nil, err
	}
	b, err := k.wrap.Open(nil, s.key[:nonceBytes], s.key[nonceBytes:], k.about(n, s))
	if err != nil {
		return nil, errors.New("a key does not open with this evidence.key")
	}
	k.opened[n] = b
	return b, nil
}

// Filed carries out the shreddings of the group that is in the ledger now.
func (k *Keys) Filed() error {
	k.mu.Lock()
	k.due = append(k.due, k.group.orders...)
	if len(k.due) == 0 {
		k.done = max(k.done, k.group.last)
	}
	last := k.group.last
	k.group = group{last: last}
	k.mu.Unlock()
	return k.Settle()
}

// Settle carries out what Filed could not.
func (k *Keys) Settle() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := func() error {
		if len(k.due) == 0 {
			if k.done-k.noted < stride {
				return nil
			}
			return k.note()
		}
		for len(k.due) > 0 {
			if err := k.destroy(k.due[0]); err != nil {
				return err
			}
			k.due = k.due[1:]
		}
		k.done = max(k.done, k.group.last)
		return k.note()
	}()
	if err != nil {
		return writ.Fault(writ.CodeStore, "shred.Settle", err)
	}
	return nil
}

// destroy replaces the files that hold keys of a shredded run by ones that do
// not. A crash between two files leaves the order to be carried out again.
func (k *Keys) destroy(o order) error {
	in := map[int64][]int64{}
	for n := k.latest[o.owner]; n > 0; n = k.known[n-1].prev {
		if x := k.known[n-1]; x.state == live && x.from < o.seq {
			file := (n - 1) / perFile
			in[file] = append(in[file], n)
		}
	}
	for file, numbers := range in {
		if !k.reading() {
			if err := k.files.destroy(file, numbers, o); err != nil {
				return err
			}
		}
		for _, n := range numbers {
			if k.reading() {
				k.ordered[n] = o.receipt
			}
			k.known[n-1].state = shredded
			clear(k.opened[n])
			delete(k.opened, n)
		}
	}
	return nil
}

// Sealed is the evidence of a receipt as it came: what Keep sealed is opened.
// Of a shredded run that is refused, with the receipt of the shredding.
func (k *Keys) Sealed(r writ.Receipt) ([]byte, error) {
	const op = "shred.Sealed"
	if r.EvidenceKey == 0 {
		return r.Evidence, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cool()
	switch k.state(r.EvidenceKey) {
	case 0:
		return nil, writ.Refuse(writ.CodeUnavailable, op, "the key of this evidence is missing", "restore the keys of the ledger from a backup")
	case shredded:
		if by := k.ordered[r.EvidenceKey]; by != "" {
			return nil, writ.Shredded(op, by)
		}
		s, err := k.files.read(r.EvidenceKey)
		if err != nil {
			return nil, writ.Fault(writ.CodeInternal, op, err)
		}
		return nil, writ.Shredded(op, writ.ReceiptID(writ.PrefixReceipt+ledger.Text([16]byte(s.key[:16]))))
	}
	secret, err := k.secret(r.EvidenceKey)
	if err != nil {
		return nil, writ.Fault(writ.CodeInternal, op, err)
	}
	return receipts.OpenEvidence([32]byte(secret), r.ID, r.Evidence)
}
