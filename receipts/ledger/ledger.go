// Package ledger keeps sealed receipts for good: append-only segment files by
// sequence, fed from a store's outbox by an Integrator, which trims the outbox
// behind it, and read through an Archive. It is not a transparency log and
// proves nothing by itself: the receipts do.
//
// Invariants: receipts 0 … Last are all there, in order, without a gap; what
// Append reported as written survives a crash; one process at a time holds the
// directory, for life.
package ledger

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/writ-gateway/writ"
)

// SegmentBytes is the size from which a segment is closed and the next begun.
const SegmentBytes = 64 << 20

// MaxGroup bounds the bytes of one Append.
const MaxGroup = 256 << 20

var (
	// ErrOrder: entries do not continue the ledger. Whoever appends has read a
	// history that is not this ledger's and must stop.
	ErrOrder = errors.New("the receipts do not continue the ledger")
	// ErrFailed: a sync failed, so nobody knows what the disk holds. The
	// ledger stays readable and has to be opened again to go on.
	ErrFailed = errors.New("the ledger has failed and must be opened again")
	// ErrCorrupt: bytes that were once synced are not what they were.
	ErrCorrupt = errors.New("the ledger is damaged")
	// ErrClosed: Close was called.
	ErrClosed = errors.New("the ledger is closed")
	// ErrReading: the ledger was opened to be read.
	ErrReading = errors.New("the ledger is open for reading only")
)

// Entry is a receipt with the run it is filed under, if any.
type Entry struct {
	writ.Receipt
	Run writ.RunID
}

// Ledger is an open directory. All methods are safe for concurrent use.
type Ledger struct {
	dir   string
	limit int64 // of a segment
	lock  *os.File
	cut   int64
	wrap  func(disk) disk // for tests: a disk that fails

	append sync.Mutex // one Append at a time

	mu     sync.RWMutex // guards what is below
	segs   []*segment   // by sequence, the last one open for appending; none only where an empty directory is read
	last   int64
	grown  chan struct{} // closed by the next Append
	failed error
}

// disk is what a segment needs of its file.
type disk interface {
	ReadAt(b []byte, off int64) (int, error)
	WriteAt(b []byte, off int64) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

// Open takes the directory, making it if needed, and reads what it holds. A
// torn end of the last segment, as a crash during Append leaves it, is cut
// off: it was never reported as written. Any other damage is ErrCorrupt, and a
// directory that another process holds is refused, naming the process.
func Open(dir string) (*Ledger, error) {
	return open(dir, SegmentBytes, func(d disk) disk { return d })
}

// Read opens a directory that nobody appends to meanwhile, and changes nothing in
// it: a torn end is left out, and stays. Others may read it at the same time.
func Read(dir string) (_ *Ledger, err error) {
	l := &Ledger{dir: dir, last: -1, grown: make(chan struct{}), failed: ErrReading, wrap: func(d disk) disk { return d }}
	if l.lock, err = shareDir(dir); err != nil {
		return nil, err
	}
	if err := l.load(true); err != nil {
		return nil, errors.Join(err, l.closeFiles())
	}
	return l, nil
}

func open(dir string, limit int64, wrap func(disk) disk) (_ *Ledger, err error) {
	const op = "ledger.Open"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, notReady(op, "the ledger's directory cannot be made", "choose a directory the gateway's user can write to", err)
	}
	l := &Ledger{dir: dir, limit: limit, last: -1, grown: make(chan struct{}), wrap: wrap}
	if l.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.closeFiles()
		}
	}()
	if err := l.load(false); err != nil {
		return nil, err
	}
	if len(l.segs) == 0 {
		s, err := createSegment(dir, 0, wrap)
		if err != nil {
			return nil, notReady(op, "the ledger cannot be written", "let the gateway's user write to its directory", err)
		}
		l.segs = []*segment{s}
	}
	return l, nil
}

// load opens the segments there are. Reading, it leaves them as they are.
func (l *Ledger) load(reading bool) error {
	const op = "ledger.Open"
	firsts, err := segmentsIn(l.dir)
	if err != nil {
		return notReady(op, "the ledger's directory cannot be read", "let the gateway's user read it", err)
	}
	for i, first := range firsts {
		s, cut, err := openSegment(l.dir, first, i == len(firsts)-1, reading, l.wrap)
		if s != nil {
			l.segs = append(l.segs, s)
		}
		if err == nil && first != l.last+1 {
			err = fmt.Errorf("%w: segment %d follows receipt %d", ErrCorrupt, first, l.last)
		}
		if err != nil {
			return notReady(op, "the ledger cannot be read", "restore its directory from a backup; the outbox of the store still has what was not yet trimmed", err)
		}
		l.cut += cut
		l.last += int64(len(s.entries))
	}
	return nil
}

func notReady(op, msg, hint string, err error) error {
	return &writ.Error{Code: writ.CodeNotReady, Op: op, Msg: msg, Hint: hint, Err: err}
}

func segmentsIn(dir string) ([]int64, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var firsts []int64
	for _, f := range files {
		var first int64
		if _, err := fmt.Sscanf(f.Name(), "%d.seg", &first); err == nil && f.Name() == segmentName(first) {
			firsts = append(firsts, first)
		}
	}
	slices.Sort(firsts)
	return firsts, nil
}

// Close lets the directory go. It may be called twice.
func (l *Ledger) Close() error {
	l.append.Lock()
	defer l.append.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(l.failed, ErrClosed) {
		return nil
	}
	l.failed = ErrClosed
	return l.closeFiles()
}

func (l *Ledger) closeFiles() error {
	var err error
	for _, s := range l.segs {
		err = errors.Join(err, s.f.Close())
	}
	if l.lock != nil {
		err = errors.Join(err, l.lock.Close()) // given up last
	}
	return err
}

// Last is the sequence of the last receipt, -1 when there is none.
func (l *Ledger) Last() int64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last
}

// Grown is closed when receipts are added after the call.
func (l *Ledger) Grown() <-chan struct{} {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.grown
}

// Cut is how many bytes of a torn end Open took off, or Read left out.
func (l *Ledger) Cut() int64 { return l.cut }

// Append writes the entries, which must continue the ledger without a gap, and
// syncs once: when it returns nil, all of them survive a crash and can be
// read; otherwise none of them can be read, and after ErrFailed or a crash the
// next Open decides which prefix of them was written.
func (l *Ledger) Append(entries []Entry) error {
	const op = "ledger.Append"
	fault := func(err error) error { return writ.Fault(writ.CodeInternal, op, err) }
	if len(entries) == 0 {
		return nil
	}
	l.append.Lock()
	defer l.append.Unlock()
	l.mu.RLock()
	last, failed, segs := l.last, l.failed, l.segs
	l.mu.RUnlock()
	if failed != nil {
		return fault(failed)
	}
	s := segs[len(segs)-1]
	var buf []byte
	added := make([]entry, 0, len(entries))
	if s.size >= l.limit {
		next, err := l.roll(s)
		if err != nil {
			return fault(err)
		}
		s = next
	}
	for i, e := range entries {
		if e.Seq != last+1+int64(i) {
			return fault(fmt.Errorf("%w: %d follows %d", ErrOrder, e.Seq, last+int64(i)))
		}
		x := entry{off: s.size + int64(len(buf))}
		var err error
		if buf, err = appendRecord(buf, e, i, &x); err != nil {
			return fault(err)
		}
		added = append(added, x)
	}
	if len(buf) > MaxGroup {
		return fault(errors.New("more than one group can hold"))
	}
	if _, err := s.f.WriteAt(buf, s.size); err != nil {
		// A full disk may have room again later: take back what was written.
		if cut := s.f.Truncate(s.size); cut != nil {
			l.fail(cut)
		}
		return fault(err)
	}
	if err := s.f.Sync(); err != nil {
		l.fail(err)
		return fault(fmt.Errorf("%w: %w", ErrFailed, err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.entries = append(s.entries, added...)
	s.size += int64(len(buf))
	l.last += int64(len(added))
	close(l.grown)
	l.grown = make(chan struct{})
	return nil
}

func (l *Ledger) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = fmt.Errorf("%w: %w", ErrFailed, err)
}

// roll closes the last segment, which is synced already, and begins the next.
// A crash between the two files leaves a segment without an index or without
// receipts; Open knows both.
func (l *Ledger) roll(s *segment) (*segment, error) {
	order := s.sorted()
	if err := s.writeIndex(l.dir); err != nil {
		return nil, err
	}
	next, err := createSegment(l.dir, s.first+int64(len(s.entries)), l.wrap)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.order = order
	l.segs = append(l.segs, next)
	return next, nil
}
