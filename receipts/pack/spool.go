package pack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
)

// spool keeps the log on disk while a pack is made of it: its receipts, to be gone
// through more than once, and its tree, to prove any of them. In memory is nothing of it.
type spool struct {
	dir                   string
	text, ends, hashes    *os.File
	list, sums, evidence  paper // of the pack that is made
	n, size, storedHashes int64
}

// Spool is how the directory of a spool is named in that of temporary files.
const Spool = "writ-pack-*"

func newSpool() (*spool, error) {
	dir, err := os.MkdirTemp("", Spool)
	if err != nil {
		return nil, err
	}
	s := &spool{dir: dir}
	for name, f := range map[string]**os.File{"text": &s.text, "ends": &s.ends, "hashes": &s.hashes, "list": &s.list.file, "sums": &s.sums.file, "evidence": &s.evidence.file} {
		if *f, err = os.OpenFile(dir+"/"+name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	return s, nil
}

func (s *spool) close() error {
	for _, f := range []*os.File{s.text, s.ends, s.hashes, s.list.file, s.sums.file, s.evidence.file} {
		if f != nil {
			_ = f.Close()
		}
	}
	return os.RemoveAll(s.dir)
}

// ReadHashes reads hashes of the tree, by their index in golang.org/x/mod's order.
func (s *spool) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if _, err := s.hashes.ReadAt(out[i][:], x*tlog.HashSize); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// add keeps the next receipt and its leaf.
func (s *spool) add(r writ.Receipt, leaf []byte) error {
	if r.Seq != s.n {
		return fmt.Errorf("receipt %d where %d should be", r.Seq, s.n)
	}
	env, err := receipts.Line(r)
	if err != nil {
		return err
	}
	if _, err := s.text.WriteAt(env, s.size); err != nil {
		return err
	}
	s.size += int64(len(env))
	var end [8]byte
	binary.BigEndian.PutUint64(end[:], uint64(s.size))
	if _, err := s.ends.WriteAt(end[:], 8*s.n); err != nil {
		return err
	}
	more, err := tlog.StoredHashesForRecordHash(s.n, tlog.RecordHash(leaf), s)
	if err != nil {
		return err
	}
	var b []byte
	for _, h := range more {
		b = append(b, h[:]...)
	}
	if _, err := s.hashes.WriteAt(b, s.storedHashes*tlog.HashSize); err != nil {
		return err
	}
	s.storedHashes += int64(len(more))
	s.n++
	return nil
}

// get reads a receipt back.
func (s *spool) get(seq int64) (r writ.Receipt, rec receipts.Record, err error) {
	var at [16]byte
	from, b := int64(0), at[8:]
	if seq > 0 {
		b = at[:]
	}
	if _, err := s.ends.ReadAt(b, 8*max(seq-1, 0)); err != nil {
		return r, rec, err
	}
	if seq > 0 {
		from = int64(binary.BigEndian.Uint64(at[:8]))
	}
	text := make([]byte, int64(binary.BigEndian.Uint64(at[8:]))-from)
	if _, err := s.text.ReadAt(text, from); err != nil {
		return r, rec, err
	}
	r, rec, err = receipts.OpenLine(text)
	r.Seq = seq // a foreign one states none
	return r, rec, err
}

// root of the first n receipts.
func (s *spool) root(n int64) (tlog.Hash, error) {
	if n == 0 {
		return tlog.Hash{}, nil
	}
	return tlog.TreeHash(n, s)
}
