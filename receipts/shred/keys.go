package shred

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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

const (
	fileProcessed = "processed" // up to which sequence of the ledger shreddings are done
	stride        = 8192        // receipts after which that is written down
	warm          = 1024        // opened keys kept in memory
	dayMs         = 24 * 3600 * 1000
)

// Keys are the keys of one ledger. Whoever opens them holds the ledger's lock.
// They are safe for concurrent use; Keep, Filed and Settle are the Integrator's.
type Keys struct {
	dir  string
	wrap cipher.AEAD

	mu     sync.Mutex
	known  []key            // by number, from 1; zero where a number is not used
	latest map[owner]int64  // its key with the highest number
	opened map[int64][]byte // some of the live keys
	size   int64            // bytes of the last file
	failed error            // a sync failed: nobody knows what the disk holds

	group  group   // what Keep was last asked about
	due    []order // filed and not carried out
	done   int64   // shreddings up to this sequence are carried out
	noted  int64   // what the file says of that
	missed int64   // see Missing
}

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

// Open reads the keys in a directory, making it if needed, and carries out the
// shreddings of the log that are not done. A torn end of the last file, as a
// crash leaves it, is cut off: nothing was filed under its keys. Any other
// damage, and another secret than the keys were wrapped with, is refused.
func Open(dir string, secret [32]byte, log Log) (*Keys, error) {
	k := &Keys{dir: dir, latest: map[owner]int64{}, opened: map[int64][]byte{}, done: -1, noted: -1}
	if err := k.open(secret, log); err != nil {
		return nil, &writ.Error{
			Code: writ.CodeNotReady, Op: "shred.Open", Msg: "the keys of evidence in " + dir + " cannot be used", Err: err,
			Hint: "restore the directory, or evidence.key, from a backup of the same gateway",
		}
	}
	return k, nil
}

func (k *Keys) open(secret [32]byte, log Log) error {
	prk, err := hkdf.Key(sha256.New, secret[:], nil, "writ evidence keys v1", 32)
	if err != nil {
		return err
	}
	block, err := aes.NewCipher(prk)
	if err != nil {
		return err
	}
	if k.wrap, err = cipher.NewGCM(block); err != nil {
		return err
	}
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return err
	}
	if err := k.readFiles(); err != nil {
		return err
	}
	for n := int64(len(k.known)); n > 0; n-- { // one tells whether the secret is theirs
		if k.known[n-1].state == live {
			if _, err := k.secret(n); err != nil {
				return err
			}
			break
		}
	}
	text, err := os.ReadFile(filepath.Join(k.dir, fileProcessed))
	if err == nil {
		k.done, err = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", fileProcessed, err)
	}
	k.noted = k.done
	k.done = min(k.done, log.Last())
	return k.catchUp(log)
}

func (k *Keys) readFiles() error {
	list, err := os.ReadDir(k.dir)
	if err != nil {
		return err
	}
	var files []int64
	for _, f := range list {
		var n int64
		if strings.HasSuffix(f.Name(), ".tmp") {
			// A replacement that a crash has stopped. It may hold what was to be destroyed.
			if err := os.Remove(filepath.Join(k.dir, f.Name())); err != nil {
				return err
			}
		} else if _, err := fmt.Sscanf(f.Name(), "%d.keys", &n); err == nil && f.Name() == fileName(n) {
			files = append(files, n)
		}
	}
	slices.Sort(files)
	for i, n := range files {
		path := filepath.Join(k.dir, fileName(n))
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		slots, cut, err := parseFile(b, n, i == len(files)-1)
		if err != nil {
			return err
		}
		if cut < len(b) {
			if err := truncate(path, int64(cut)); err != nil {
				return err
			}
		}
		k.size = int64(cut)
		k.known = append(k.known, make([]key, n*perFile-int64(len(k.known)))...)
		for _, s := range slots {
			k.learn(s)
		}
	}
	return nil
}

func truncate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Sync(), f.Close())
}

// learn remembers the next key.
func (k *Keys) learn(s slot) {
	k.known = append(k.known, key{owner: s.owner, from: s.from, prev: k.latest[s.owner], state: s.state})
	k.latest[s.owner] = int64(len(k.known))
}

// catchUp carries out what the log says and was not done: after a crash, and
// when the keys come from a backup that is older than the log. In that case the
// log may name keys that are not here: their numbers are not used again.
func (k *Keys) catchUp(log Log) error {
	used := int64(0)
	for r, err := range log.All(k.done, log.Last()) {
		if err != nil {
			return err
		}
		if used = max(used, r.EvidenceKey); r.EvidenceKey > 0 && k.state(r.EvidenceKey) == 0 {
			k.missed++
		}
		o, is, err := shredding(r.Payload, r.ID)
		if err != nil {
			return err
		}
		if is {
			if err := k.destroy(o); err != nil {
				return err
			}
		}
		k.done = r.Seq
	}
	if used > int64(len(k.known)) { // the next is the first of another file
		k.known = append(k.known, make([]key, (used-1)/perFile*perFile+perFile-int64(len(k.known)))...)
	}
	return k.note()
}

// Missing is how many receipts, of those filed since the keys were last in
// order, have evidence whose key is not here.
func (k *Keys) Missing() int64 { return k.missed }

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
	if k.done == k.noted {
		return nil
	}
	if err := replace(k.dir, fileProcessed, []byte(strconv.FormatInt(k.done, 10)+"\n")); err != nil {
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
	if k.failed != nil {
		return writ.Fault(writ.CodeInternal, op, k.failed)
	}
	g := group{last: -1}
	var made []slot
	before, size := len(k.known), k.size
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
		return k.write(int64(before), made)
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
	k.warm(n, secret)
	return s, nil
}

// about is what a wrapped key is bound to.
func (k *Keys) about(n int64, s slot) []byte {
	b := append([]byte("writ evidence key v1 "), s.owner[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(s.from))
	return binary.BigEndian.AppendUint64(b, uint64(n))
}

func (k *Keys) warm(n int64, secret []byte) {
	if len(k.opened) >= warm+ledgerBatch {
		clear(k.opened)
	}
	k.opened[n] = secret
}

// ledgerBatch is more than the keys one Keep makes, which must be in memory
// until they are written.
const ledgerBatch = 1024

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
	k.known, k.size = k.known[:before], size
}

// write puts new keys behind those there are, a group for each file it takes,
// and syncs each.
func (k *Keys) write(before int64, made []slot) error {
	for len(made) > 0 {
		file, in := before/perFile, before%perFile
		n := min(int64(len(made)), perFile-in)
		var b []byte
		if in == 0 {
			b = header(file)
		}
		for i, s := range made[:n] {
			s.place = i
			b = s.append(b)
		}
		if in == 0 {
			if err := replace(k.dir, fileName(file), b); err != nil {
				return err
			}
			k.size = 0
		} else if err := k.extend(file, b); err != nil {
			return err
		}
		k.size += int64(len(b))
		before, made = before+n, made[n:]
	}
	return nil
}

func (k *Keys) extend(file int64, b []byte) error {
	f, err := os.OpenFile(filepath.Join(k.dir, fileName(file)), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(b, k.size); err != nil {
		// A full disk may have room again later: take back what was written.
		if cut := f.Truncate(k.size); cut != nil {
			k.failed = fmt.Errorf("%w: %w", ledger.ErrFailed, cut)
		}
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		k.failed = fmt.Errorf("%w: %w", ledger.ErrFailed, err)
		return errors.Join(k.failed, f.Close())
	}
	return f.Close()
}

// secret opens a live key.
func (k *Keys) secret(n int64) ([]byte, error) {
	if b := k.opened[n]; b != nil {
		return b, nil
	}
	s, err := k.read(n)
	if err != nil {
		return nil, err
	}
	b, err := k.wrap.Open(nil, s.key[:nonceBytes], s.key[nonceBytes:], k.about(n, s))
	if err != nil {
		return nil, errors.New("a key does not open with this evidence.key")
	}
	k.warm(n, b)
	return b, nil
}

func (k *Keys) read(n int64) (slot, error) {
	f, err := os.Open(filepath.Join(k.dir, fileName((n-1)/perFile)))
	if err != nil {
		return slot{}, err
	}
	defer f.Close()
	b := make([]byte, slotBytes)
	if _, err := f.ReadAt(b, fileHead+(n-1)%perFile*slotBytes); err != nil {
		return slot{}, err
	}
	s, ok := parseSlot(b)
	if !ok {
		return s, fmt.Errorf("key %d is damaged", n)
	}
	return s, nil
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
	files := map[int64][]int64{}
	for n := k.latest[o.owner]; n > 0; n = k.known[n-1].prev {
		if x := k.known[n-1]; x.state == live && x.from < o.seq {
			files[(n-1)/perFile] = append(files[(n-1)/perFile], n)
		}
	}
	for file, numbers := range files {
		b, err := os.ReadFile(filepath.Join(k.dir, fileName(file)))
		if err != nil {
			return err
		}
		for _, n := range numbers {
			at := fileHead + (n-1)%perFile*slotBytes
			s, ok := parseSlot(b[at:])
			if !ok || s.owner != o.owner {
				return fmt.Errorf("key %d is damaged", n)
			}
			s.state, s.key = shredded, [nonceBytes + sealedBytes]byte{}
			id := ledger.Binary(string(o.receipt))
			copy(s.key[:], id[:])
			copy(b[at:], s.append(nil))
		}
		if err := replace(k.dir, fileName(file), b); err != nil {
			return err
		}
		for _, n := range numbers {
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
	switch k.state(r.EvidenceKey) {
	case 0:
		return nil, writ.Refuse(writ.CodeUnavailable, op, "the key of this evidence is missing", "restore the keys of the ledger from a backup")
	case shredded:
		s, err := k.read(r.EvidenceKey)
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
