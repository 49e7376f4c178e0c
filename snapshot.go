package writ

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// ReadSet names what one atomic read returns.
type ReadSet struct {
	Docs     []Key
	Counters []Counter
	Ranges   []Range
	Archive  []ArchiveRead // receipts; answered by the ledger, not by the store
	Blobs    []string      // digests; their bytes are read, wherever they are stored
}

// Empty says whether nothing is asked for.
func (r ReadSet) Empty() bool {
	return len(r.Docs) == 0 && len(r.Counters) == 0 && len(r.Ranges) == 0 && len(r.Archive) == 0 && len(r.Blobs) == 0
}

// Join is the union of two read sets. Neither is changed.
func (r ReadSet) Join(o ReadSet) ReadSet {
	return ReadSet{
		Docs:     append(r.Docs[:len(r.Docs):len(r.Docs)], o.Docs...),
		Counters: append(r.Counters[:len(r.Counters):len(r.Counters)], o.Counters...),
		Ranges:   append(r.Ranges[:len(r.Ranges):len(r.Ranges)], o.Ranges...),
		Archive:  append(r.Archive[:len(r.Archive):len(r.Archive)], o.Archive...),
		Blobs:    append(r.Blobs[:len(r.Blobs):len(r.Blobs)], o.Blobs...),
	}
}

// Range asks for part of an index. By score: members with Min <= score <= Max
// ordered by (score, member). Otherwise lexically: From <= member < To, ""
// meaning unbounded; such an index must hold one score only. Desc reverses.
// With Member it is that member, whatever its score, and nothing else. Limit must
// be 1–1000.
type Range struct {
	Index    Index
	Member   string
	ByScore  bool
	Min, Max int64
	From, To string
	Limit    int
	Desc     bool
}

// Member is one entry of an index.
type Member struct {
	Name  string
	Score int64
}

// RangeResult is what a Range found. Version is the version of the index, 0
// when it is empty or not versioned.
type RangeResult struct {
	Members []Member
	Version int64
}

// ArchiveRead asks for sealed receipts: one by id, or a page after a sequence.
type ArchiveRead struct {
	Receipt ReceiptID
	After   int64 // exclusive; -1 from the start
	Limit   int
	Run     RunID // only this run's, when set
	Proof   bool  // with the proof that the log has it, if it does
	Wait    bool  // for a moment, until it does
}

// Doc is a stored document. Version is the fact's sequence + 1 of the commit
// that wrote it, so it never repeats; 0 means absent.
type Doc struct {
	Version int64
	Body    []byte // an Envelope
}

// Snapshot is what was read, and when. Every document, counter and range it
// holds was asked for; the zero Doc in it means "known to be absent".
type Snapshot struct {
	Now      int64  // milliseconds since 1970, the store's clock at the last hop
	Epoch    string // of the shard
	Docs     map[Key]Doc
	Counters map[Counter]int64
	Ranges   map[Range]RangeResult
	Archive  map[ArchiveRead][]Receipt
	Blobs    map[string]BlobState

	Cache *DocCache // spares Get from decoding the same bytes again; nil: none
}

// Missing returns the part of want the snapshot does not hold yet.
func (s Snapshot) Missing(want ReadSet) ReadSet {
	var out ReadSet
	for _, k := range want.Docs {
		if _, ok := s.Docs[k]; !ok {
			out.Docs = append(out.Docs, k)
		}
	}
	for _, c := range want.Counters {
		if _, ok := s.Counters[c]; !ok {
			out.Counters = append(out.Counters, c)
		}
	}
	for _, r := range want.Ranges {
		if _, ok := s.Ranges[r]; !ok {
			out.Ranges = append(out.Ranges, r)
		}
	}
	for _, a := range want.Archive {
		if _, ok := s.Archive[a]; !ok {
			out.Archive = append(out.Archive, a)
		}
	}
	for _, b := range want.Blobs {
		if _, ok := s.Blobs[b]; !ok {
			out.Blobs = append(out.Blobs, b)
		}
	}
	return out
}

// Has says whether the document was read (it may still be absent).
func (s Snapshot) Has(k Key) bool { _, ok := s.Docs[k]; return ok }

// Envelope is how every document is stored. Unknown fields of Body survive a
// rewrite by an older version of the program.
type Envelope struct {
	Kind   string          `json:"kind"`
	Schema int             `json:"schema"`
	Body   json.RawMessage `json:"body"`
}

// Schema is the newest document schema this program writes and understands.
const Schema = 1

// Get decodes the document under k. ok is false when it is absent; asking for
// a document that was never read is a defect and reported as such.
func Get[T any](s Snapshot, k Key) (doc T, version int64, ok bool, err error) {
	d, read := s.Docs[k]
	if !read {
		return doc, 0, false, Fault(CodeInternal, "writ.Get", fmt.Errorf("document %s was not in the read set", k))
	}
	if d.Version == 0 {
		return doc, 0, false, nil
	}
	if doc, ok := recall[T](s.Cache, k, d.Body); ok {
		return doc, d.Version, true, nil
	}
	schema, err := decodeDoc(d.Body, &doc)
	if schema > Schema {
		var none T
		return none, 0, false, &Error{
			Code: CodeUpgrade, Op: "writ.Get", Msg: "a newer version of writ wrote this document",
			Hint: "upgrade this replica",
		}
	}
	if err != nil {
		return doc, 0, false, Fault(CodeInternal, "writ.Get", fmt.Errorf("document %s: %w", k, err))
	}
	remember(s.Cache, k, d.Body, doc)
	return doc, d.Version, true, nil
}

// EncodeDoc renders doc for storage under k. Fields of the document as read
// that doc's type does not know are carried over.
func EncodeDoc(s Snapshot, k Key, kind string, doc any) ([]byte, error) {
	body, err := json.Marshal(doc)
	if err != nil {
		return nil, Fault(CodeInternal, "writ.EncodeDoc", err)
	}
	if old, ok := s.Docs[k]; ok && old.Version != 0 {
		if body, err = keepUnknown(old.Body, body, doc); err != nil {
			return nil, Fault(CodeInternal, "writ.EncodeDoc", err)
		}
	}
	b := make([]byte, 0, len(body)+len(kind)+32)
	b = append(b, `{"kind":`...)
	b = strconv.AppendQuote(b, kind)
	b = append(b, `,"schema":`...)
	b = strconv.AppendInt(b, Schema, 10)
	b = append(b, `,"body":`...)
	b = append(b, body...)
	return append(b, '}'), nil
}
