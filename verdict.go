package writ

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
)

// VerdictType is the predicate of a verdict that its verifier's own key signs:
// in-toto's Simple Verification Result.
const VerdictType = "https://in-toto.io/attestation/svr/v0.2"

// Limits of a signed verdict.
const (
	MaxVerdictBytes  = 48 << 10       // envelope or bundle as text: a run of as many artifacts as there may be fits
	VerdictFreshMs   = 60 * 60 * 1000 // how old it may be
	VerdictAheadMs   = 60 * 1000      // how far the verifier's clock may be ahead
	verdictRecallMs  = VerdictFreshMs + 10*VerdictAheadMs
	sha256Prefix     = "sha256:"
	verdictKeyPrefix = "verdict/"
)

// VerdictWant is what a signed verdict must say, no more and no less, to count.
type VerdictWant struct {
	Agent      AgentID     // who judges
	Keys       []PublicKey // of the agent, one of which must have signed
	Properties []string    // see VerdictProperties
	Subjects   []string    // SHA-256 in hex: of the payload of the receipt that is judged, and of every artifact
	Policy     string      // revision of the policies in force, sha256:<hex>
	Now        int64       // milliseconds
}

// SignedVerdict is one that held.
type SignedVerdict struct {
	Digest   string    // SHA-256 in hex of the payload that was signed
	Key      PublicKey // that signed it
	At       int64     // when, as it says; milliseconds
	Envelope []byte    // DSSE in JSON, as receipts have it, with the id of the key

	Payload, Sig []byte // what is in it
	Public       []byte // the key as DER (PKIX)
}

// VerdictRef is how a receipt names the signed verdict it rests on.
type VerdictRef struct {
	Digest string // SHA-256 in hex of the payload
	KeyID  string
}

// Verdicts checks what verifiers sign. It must be pure; package receipts has one.
type Verdicts interface {
	// Digest takes a verdict apart and names it. Nothing of it is proved by that.
	Digest(text string) (string, error)
	// Check holds a verdict to what it must say. Errors have CodeVerdict, and the
	// reason in their details.
	Check(text string, want VerdictWant) (SignedVerdict, error)
}

// Why a verdict's signature is refused (closed list).
const (
	BadVerdictMissing   = "missing"   // there is none
	BadVerdictForm      = "form"      // not one envelope or bundle in strict form
	BadVerdictStatement = "statement" // not one statement in strict form
	BadVerdictKey       = "key"       // not by a key of the agent
	BadVerdictSignature = "signature" // does not hold
	BadVerdictVerifier  = "verifier"  // names another verifier
	BadVerdictPolicy    = "policy"    // made under other policies
	BadVerdictSaid      = "verdict"   // says something else than the call
	BadVerdictSubjects  = "subjects"  // about something else
	BadVerdictTime      = "time"      // too old, or of a time to come
	BadVerdictUsed      = "used"      // was used before
)

// RefuseVerdict refuses a verdict for a reason of the list above.
func RefuseVerdict(op, reason, msg, hint string) *Error {
	return Refuse(CodeVerdict, op, msg, hint).With("reason", reason)
}

// VerifierID is how a signed verdict names who judges.
func VerifierID(a AgentID) string { return "agent:" + string(a) }

// VerdictOn is how a signed verdict names the task or run it is on: the digest of a
// receipt does not, since that may be the last change of several things.
func VerdictOn(kind, id string) string { return "WRIT_VERDICT_ON:" + kind + "/" + id }

// VerdictProperties are what a signed verdict says was found, sorted: on what it is
// (VerdictOn; "" in verdicts of before it was asked for), the verdict, what every check
// gave, and the reasons. gates says whether a check passed.
func VerdictProperties(on string, v Verdict, gates map[string]bool, reasons []string) []string {
	out := []string{"WRIT_VERDICT_" + strings.ToUpper(string(v))}
	if on != "" {
		out = append(out, on)
	}
	for g, pass := range gates {
		if pass {
			out = append(out, "WRIT_GATE_PASS:"+g)
		} else {
			out = append(out, "WRIT_GATE_FAIL:"+g)
		}
	}
	for _, r := range reasons {
		out = append(out, "WRIT_REASON:"+r)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// VerdictSubjects are what a verdict on a receipt and artifacts (sha256:<hex>) is
// about, in the form of VerdictWant.
func VerdictSubjects(receipt Receipt, artifacts []string) []string {
	sum := sha256.Sum256(receipt.Payload)
	out := []string{hex.EncodeToString(sum[:])}
	for _, a := range artifacts {
		out = append(out, strings.TrimPrefix(a, sha256Prefix))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// VerdictKey is where it is noted that a signed verdict was used, for as long as it
// would be fresh.
func VerdictKey(digest string) Key { return Key(verdictKeyPrefix + digest) }

// VerdictID is under which id a signed verdict is logged. It follows from its digest, so
// whoever has the verdict, or a receipt that names it, finds it.
func VerdictID(digest string) ReceiptID {
	b, err := hex.DecodeString(digest)
	if err != nil || len(b) != sha256.Size {
		return ""
	}
	return ReceiptID(MakeID(PrefixReceipt, int64(binary.BigEndian.Uint64(b)>>16), [10]byte(b[6:16])))
}

// Fact is the verdict as it is logged, beside the run it is about.
func (v SignedVerdict) Fact(run RunID) *Fact {
	return &Fact{ID: VerdictID(v.Digest), Run: run, KeyID: v.Key.ID, Head: v.Payload, Sig: v.Sig, Public: v.Public}
}

// UsedVerdict says by which receipt a signed verdict was used.
type UsedVerdict struct {
	Receipt ReceiptID `json:"receipt"`
}

// VerdictAbout asks for the receipt a verdict is about.
func VerdictAbout(id ReceiptID) ArchiveRead { return ArchiveRead{Receipt: id, Limit: 1} }

// VerdictReads names what Vouch must see for a signed verdict on a receipt.
func VerdictReads(v Verdicts, text string, about ReceiptID) (ReadSet, error) {
	if text == "" || v == nil {
		return ReadSet{}, nil
	}
	digest, err := v.Digest(text)
	if err != nil {
		return ReadSet{}, err
	}
	return ReadSet{Docs: []Key{VerdictKey(digest), GateKey}, Archive: []ArchiveRead{VerdictAbout(about)}}, nil
}

// Vouch holds a verdict to the signature of the verifier's own key. An agent that has
// keys signs whatever policy says, so whoever gets hold of its token alone judges
// nothing; policy can want that everybody does. The verdict names the receipt it is
// about by the digest of what was signed there, so it is about that and nothing else;
// and it is used once. want lacks Subjects, Policy and Now, which are taken from what
// was read.
func (t *Tx) Vouch(op string, v Verdicts, text string, s Snapshot, c *Call, d Decision, about ReceiptID, artifacts []string, want VerdictWant) error {
	if text == "" {
		if len(want.Keys) == 0 && !d.Duties.SignVerdict {
			return nil
		}
		hint := "sign it: writ verdict sign, or cosign attest-blob (docs/verdicts.md), and give it as verdict_dsse"
		if len(want.Keys) == 0 {
			hint = "only agents have keys: judge in the session of one that has registered some, and sign the verdict"
		}
		return RefuseVerdict(op, BadVerdictMissing, "this verdict must be signed with the verifier's own key", hint)
	}
	if v == nil {
		return RefuseVerdict(op, BadVerdictForm, "this gateway checks no signed verdicts", "operators: give it what checks them")
	}
	digest, err := v.Digest(text)
	if err != nil {
		return err
	}
	_, _, used, err := Get[UsedVerdict](s, VerdictKey(digest))
	if err != nil {
		return err
	}
	if used {
		return RefuseVerdict(op, BadVerdictUsed, "this signed verdict was used before", "read what is there now, judge that, and sign anew")
	}
	gate, _, _, err := Get[Gate](s, GateKey)
	if err != nil {
		return err
	}
	found := s.Archive[VerdictAbout(about)]
	if len(found) != 1 || found[0].ID != about {
		return RefuseVerdict(op, BadVerdictSubjects, "the receipt the verdict is about cannot be read here", "repeat the call; it may reach another replica")
	}
	want.Subjects, want.Policy, want.Now = VerdictSubjects(found[0], artifacts), gate.PolicyRevision, s.Now
	signed, err := v.Check(text, want)
	if err != nil {
		return err
	}
	if signed.Digest != digest {
		return RefuseVerdict(op, BadVerdictForm, "the signed verdict cannot be read in one way", "sign it anew")
	}
	t.NotAfter(signed.At + VerdictFreshMs)
	body, err := EncodeDoc(s, VerdictKey(digest), "verdict", UsedVerdict{ReceiptID(c.NewID(PrefixReceipt, 0))})
	if err != nil {
		return err
	}
	t.PutFor(VerdictKey(digest), body, verdictRecallMs)
	t.Verdict = &signed
	return nil
}

// NotedVerdict is what evidence keeps of a signed verdict among the arguments: its
// digest, since the verdict itself stands beside them when it held.
func NotedVerdict(text string) string {
	if text == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(text))
	return sha256Prefix + hex.EncodeToString(sum[:])
}
