package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/writ-gateway/writ/internal/durable"
)

// segment is one file of records. Its entries are kept in memory, 40 bytes
// each.
type segment struct {
	first   int64 // sequence of its first record
	f       disk
	size    int64 // bytes of whole, synced records
	entries []entry
	order   []uint32 // places in entries sorted by id; nil while it is appended to
}

// entry is where a receipt lies.
type entry struct {
	id, run [16]byte
	off     int64
}

func segmentName(first int64) string { return fmt.Sprintf("%020d.seg", first) }
func indexName(first int64) string   { return fmt.Sprintf("%020d.idx", first) }

func createSegment(dir string, first int64, wrap func(disk) disk) (*segment, error) {
	f, err := os.OpenFile(filepath.Join(dir, segmentName(first)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := durable.SyncDir(dir); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return &segment{first: first, f: wrap(f)}, nil
}

// openSegment reads a segment. The last one may have a torn end, which is cut
// off; of the others the index is believed if it fits, and made again if not.
// Reading, both is done in memory only.
func openSegment(dir string, first int64, last, reading bool, wrap func(disk) disk) (s *segment, cut int64, err error) {
	path := filepath.Join(dir, segmentName(first))
	mode := os.O_RDWR
	if reading {
		mode = os.O_RDONLY
	}
	f, err := os.OpenFile(path, mode, 0o600)
	if err != nil {
		return nil, 0, err
	}
	s = &segment{first: first, f: wrap(f)}
	info, err := f.Stat()
	if err != nil {
		return s, 0, err
	}
	s.size = info.Size()
	if !last && s.readIndex(dir) {
		s.order = s.sorted()
		return s, 0, nil
	}
	data, err := io.ReadAll(io.NewSectionReader(f, 0, s.size))
	if err != nil {
		return s, 0, err
	}
	good := s.scan(data)
	if !last {
		if good < s.size {
			return s, 0, fmt.Errorf("%w: %s at byte %d", ErrCorrupt, path, good)
		}
		if s.order = s.sorted(); reading {
			return s, 0, nil
		}
		return s, 0, s.writeIndex(dir)
	}
	if good == s.size {
		return s, 0, nil
	}
	next := first + int64(len(s.entries))
	if later := laterGroup(data[good:], next); later >= 0 {
		return s, 0, fmt.Errorf("%w: %s at byte %d, before receipt %d, which was written later", ErrCorrupt, path, good, later)
	}
	cut, s.size = s.size-good, good
	if reading {
		return s, cut, nil
	}
	if err := s.f.Truncate(good); err != nil {
		return s, 0, err
	}
	return s, cut, s.f.Sync()
}

// scan reads records until one is not whole or not the next, and returns where
// that is.
func (s *segment) scan(data []byte) (good int64) {
	for good < int64(len(data)) {
		r, err := readRecord(data[good:])
		if err != nil || r.Seq != s.first+int64(len(s.entries)) {
			break
		}
		x := entry{id: Binary(string(r.ID)), off: good}
		if r.Run != "" {
			x.run = Binary(string(r.Run))
		}
		s.entries = append(s.entries, x)
		good += r.size
	}
	return good
}

// laterGroup looks behind a damaged place, where receipt next should be, for a
// whole record of a group that began after next: such a group was written when
// the damaged one was already synced, so the damage is not a torn end. It
// returns that record's sequence, or -1.
func laterGroup(data []byte, next int64) int64 {
	for at := 0; ; at++ {
		i := bytes.Index(data[at:], []byte(magic))
		if i < 0 {
			return -1
		}
		at += i
		if r, err := readRecord(data[at:]); err == nil && r.Seq-r.place > next {
			return r.Seq
		}
	}
}

// read reads the record of an entry.
func (s *segment) read(x entry, seq int64) (Entry, error) {
	damaged := func() (Entry, error) {
		return Entry{}, fmt.Errorf("%w: receipt %d in %s", ErrCorrupt, seq, segmentName(s.first))
	}
	head := make([]byte, headBytes)
	if _, err := s.f.ReadAt(head, x.off); err != nil {
		return Entry{}, fmt.Errorf("receipt %d: %w", seq, err)
	}
	n := binary.BigEndian.Uint32(head[4:])
	if n > maxBody {
		return damaged()
	}
	b := append(head, make([]byte, n)...)
	if _, err := s.f.ReadAt(b[headBytes:], x.off+headBytes); err != nil {
		return Entry{}, fmt.Errorf("receipt %d: %w", seq, err)
	}
	r, err := readRecord(b)
	if err != nil || r.Seq != seq || Binary(string(r.ID)) != x.id {
		return damaged()
	}
	return r.Entry, nil
}

// find is the place of an id among the entries, or -1. A segment that is still
// appended to is searched from its end, where the ids asked for mostly are.
func (s *segment) find(id [16]byte) int {
	if s.order != nil {
		i, ok := slices.BinarySearchFunc(s.order, id, func(n uint32, id [16]byte) int { return bytes.Compare(s.entries[n].id[:], id[:]) })
		if !ok {
			return -1
		}
		return int(s.order[i])
	}
	for i := len(s.entries) - 1; i >= 0; i-- {
		if s.entries[i].id == id {
			return i
		}
	}
	return -1
}

func (s *segment) sorted() []uint32 {
	order := make([]uint32, len(s.entries))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return bytes.Compare(s.entries[a].id[:], s.entries[b].id[:]) })
	return order
}

// The index of a closed segment is
//
//	"writidx1", first uint64, size of the segment uint64,
//	per record: receipt ULID, run ULID, seq uint64, offset uint64,
//	CRC-32C of all that
//
// It holds nothing that the segment does not.
const (
	indexMagic = "writidx1"
	indexHead  = 8 + 8 + 8
	indexEntry = 16 + 16 + 8 + 8
)

func (s *segment) writeIndex(dir string) error {
	b := make([]byte, 0, indexHead+indexEntry*len(s.entries)+4)
	b = append(b, indexMagic...)
	b = binary.BigEndian.AppendUint64(b, uint64(s.first))
	b = binary.BigEndian.AppendUint64(b, uint64(s.size))
	for i, x := range s.entries {
		b = append(b, x.id[:]...)
		b = append(b, x.run[:]...)
		b = binary.BigEndian.AppendUint64(b, uint64(s.first+int64(i)))
		b = binary.BigEndian.AppendUint64(b, uint64(x.off))
	}
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return durable.Replace(filepath.Join(dir, indexName(s.first)), b, 0o600)
}

// readIndex says whether there is an index that fits the segment.
func (s *segment) readIndex(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, indexName(s.first)))
	if err != nil {
		return false
	}
	entries, ok := parseIndex(b, s.first, s.size)
	s.entries = entries
	return ok
}

func parseIndex(b []byte, first, size int64) ([]entry, bool) {
	if len(b) < indexHead+4 || (len(b)-indexHead-4)%indexEntry != 0 || string(b[:8]) != indexMagic {
		return nil, false
	}
	b, end := b[:len(b)-4], b[len(b)-4:]
	if crc32.Checksum(b, castagnoli) != binary.BigEndian.Uint32(end) ||
		int64(binary.BigEndian.Uint64(b[8:])) != first || int64(binary.BigEndian.Uint64(b[16:])) != size {
		return nil, false
	}
	entries := make([]entry, 0, (len(b)-indexHead)/indexEntry)
	for b = b[indexHead:]; len(b) > 0; b = b[indexEntry:] {
		x := entry{id: [16]byte(b), run: [16]byte(b[16:]), off: int64(binary.BigEndian.Uint64(b[40:]))}
		if int64(binary.BigEndian.Uint64(b[32:])) != first+int64(len(entries)) || x.off < 0 || x.off >= size {
			return nil, false
		}
		entries = append(entries, x)
	}
	return entries, true
}
