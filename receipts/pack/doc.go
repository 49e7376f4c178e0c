// Package pack writes and checks evidence packs: receipts of a log, each with the
// proof that one checkpoint covers it, and what else somebody needs who judges them
// without the gateway. docs/verify.md has the form.
//
// Invariants: a pack follows from the log, its checkpoint and what was asked for, so
// that two packs of the same are the same bytes; nothing in a pack is trusted because
// it lies there: keys come from whoever checks; a finding has one code, in this
// program and in verify/js, which shares nothing with it.
package pack

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/writ-gateway/writ"
)

// Format names the form of a pack.
const Format = "writ-pack/v1"

// Files of a pack.
const (
	FileManifest    = "pack.json"
	FileCheckpoint  = "checkpoint"
	FileTrustedRoot = "trusted_root.json"
	FileLogKey      = "log.vkey"
	FileList        = "receipts.jsonl"
	FileReadme      = "README.md"
	FileSums        = "SHA256SUMS"
	FileKeys        = "keys/manifest.json"
	FileEarlier     = "earlier/checkpoint"
	FileConsistency = "earlier/consistency"
)

func receiptName(seq int64) string  { return fmt.Sprintf("receipts/%012d.sigstore.json", seq) }
func evidenceName(seq int64) string { return fmt.Sprintf("evidence/%012d.json", seq) }
func policyName(digest string) string {
	return "policies/" + strings.TrimPrefix(digest, "sha256:") + ".tar"
}
func keyName(n int) string { return fmt.Sprintf("keys/receipt-%d.pub", n) }

var (
	receiptPath  = regexp.MustCompile(`^receipts/([0-9]{12})\.sigstore\.json$`)
	evidencePath = regexp.MustCompile(`^evidence/([0-9]{12})\.json$`)
	policyPath   = regexp.MustCompile(`^policies/([0-9a-f]{64})\.tar$`)
	keyPath      = regexp.MustCompile(`^keys/receipt-[1-9][0-9]{0,3}\.pub$`)
)

// single are the files there is one of.
var single = []string{FileManifest, FileCheckpoint, FileTrustedRoot, FileLogKey, FileList, FileReadme, FileSums, FileKeys, FileEarlier, FileConsistency}

// Kinds of scope.
const (
	ScopeLog   = "log"   // all the checkpoint covers
	ScopeRange = "range" // from one sequence to another
	ScopeRun   = "run"   // a run, and what came before it that one needs to judge it
)

// Scope says what of a log a pack holds.
type Scope struct {
	First int64      `json:"first,omitempty"` // of a range
	Kind  string     `json:"kind"`
	Last  int64      `json:"last,omitempty"` // of a range
	Run   writ.RunID `json:"run,omitempty"`
}

func (s Scope) valid() bool {
	switch s.Kind {
	case ScopeLog:
		return s == Scope{Kind: ScopeLog}
	case ScopeRange:
		return s.Run == "" && 0 <= s.First && s.First <= s.Last
	case ScopeRun:
		return s.First == 0 && s.Last == 0 && s.Run.Valid()
	}
	return false
}

// receipts is how many there are in a log or a range; of a run nobody knows without looking.
func (s Scope) receipts(size int64) int64 {
	switch s.Kind {
	case ScopeLog:
		return size
	case ScopeRange:
		return s.Last - s.First + 1
	}
	return 0
}

// manifest is pack.json: what the pack says it is. It is not signed; what it promises
// is checked.
type manifest struct {
	Evidence bool   `json:"evidence"` // that of every receipt is there, or was shredded by a later one that is
	Format   string `json:"format"`
	Origin   string `json:"origin"`
	Policies bool   `json:"policies,omitempty"` // a bundle with each policy pack is there that receipts were judged by, and each that they put in force
	Scope    Scope  `json:"scope"`
	Size     int64  `json:"size"` // of the checkpoint
}

// listed is a line of receipts.jsonl.
type listed struct {
	Payload string         `json:"payload"` // SHA-256, hex
	Receipt writ.ReceiptID `json:"receipt"`
	Seq     int64          `json:"seq"`
}
