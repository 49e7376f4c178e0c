package pack

import (
	"slices"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
)

// Readme is the text of README.md, with holes. Whoever was handed a pack runs what it
// says, so it is part of the form of a pack, and whoever checks one renders it again.
var Readme = map[string]string{
	"": "# Receipts of {origin}\n\n{scope} each with the proof that the file `checkpoint` covers it.\n\n" +
		"The keys in here are for reading only. Check with those you were given by somebody you trust: `receipt.pub` and the log's\nverifier key, here `{key}`.\n\n" +
		"## With writ\n\n```\nwrit pack verify . --log-key LOG-KEY --key receipt.pub\n```\n\n{commands}" +
		"Without it: `node cli.mjs . --log-key LOG-KEY --key receipt.pub`, or `verify.html` in a browser; both are in `verify/js` of the sources.\n\n" +
		"## With cosign\n\nA receipt's signature, and that the log has it. `trusted_root.json` is the log's key: compare it with the one you have.\n\n```\n{shown}```\n\n" +
		"The digest of any other receipt is `subject[0].digest.sha256` of its payload.\n\n" +
		"## Files\n\n| | |\n|---|---|\n" +
		"| `pack.json` | what the pack says it holds |\n" +
		"| `checkpoint` | size and root of the log, signed (C2SP tlog-checkpoint) |\n" +
		"| `receipts/` | one Sigstore bundle each, by sequence; `receipts.jsonl` lists them |\n{evidence}" +
		"| `policies/` | policy bundles with the packs that receipts name; the name is their SHA-256 |\n" +
		"| `keys/`, `log.vkey`, `trusted_root.json` | the keys it was made with; `keys/manifest.json` says which receipt key signs from where in the log, and until where |\n{earlier}" +
		"| `SHA256SUMS` | `sha256sum -c SHA256SUMS` shows damage; it is not signed |\n",
	ScopeLog:   "All receipts of the log, 0 to {end},",
	ScopeRange: "Receipts {first} to {last} of {size}",
	ScopeRun:   "The receipts of {run}, and those before it that it rests on,",
	"commands": "```\nwrit run verify . --run {run} --log-key LOG-KEY --key receipt.pub\nwrit close verify . --run {run} --log-key LOG-KEY --key receipt.pub\n```\n\n",
	"shown":    "# {what}{later}\ncosign verify-blob-attestation --key {key} --bundle {file} --trusted-root trusted_root.json \\\n  --type " + receipts.TransitionType + " --digest {digest} --digestAlg sha256\n",
	"first":    "the first one",
	"later":    ", signed with a later receipt key: only `writ pack verify` shows that it is the gateway's",
	"ended":    "how {run} became {to}",
	"evidence": "| `evidence/` | what a receipt's `evidence` digest stands for: arguments of calls, which may hold personal data |\n",
	"earlier":  "| `earlier/` | an earlier checkpoint, and the proof that the log still begins with it |\n",
}

// MaxShown is how many receipts the README shows how to check.
const MaxShown = 20

// readme is what fills the holes.
type readme struct {
	first string   // id of the key the log began with, which whoever checks was given
	used  []string // ids of the keys that signed, as they come: the files of keys are in this order
	shown []string
}

// note shows how to check the first receipt, and those by which a run ended.
func (r *readme) note(rec receipts.Record) {
	st := rec.Statement
	if !slices.Contains(r.used, st.KeyID) {
		r.used = append(r.used, st.KeyID)
	}
	what := Readme["first"]
	if i := slices.IndexFunc(st.Changes, func(c writ.Change) bool {
		return c.Kind == writ.ObjectRun && writ.RunMoves.Terminal(writ.RunState(c.To))
	}); i >= 0 {
		what = fill("ended", "run", st.Changes[i].ID, "to", st.Changes[i].To)
	} else if len(r.shown) > 0 {
		return
	}
	if len(r.shown) < MaxShown {
		later, key := "", "receipt.pub"
		if st.KeyID != r.first {
			later, key = Readme["later"], keyName(slices.Index(r.used, st.KeyID)+1)
		}
		r.shown = append(r.shown, fill("shown", "what", what, "later", later, "key", key, "file", receiptName(rec.Commit.Seq), "digest", receipts.SubjectDigest(st)))
	}
}

// text is the README of a pack of the log with this key.
func (r *readme) text(key string, s Scope, size int64, evidence, earlier bool) []byte {
	origin, _, _ := strings.Cut(key, "+")
	about := []string{
		"run", string(s.Run), "first", strconv.FormatInt(s.First, 10), "last", strconv.FormatInt(s.Last, 10),
		"size", strconv.FormatInt(size, 10), "end", strconv.FormatInt(size-1, 10),
	}
	part := func(name string, there bool) string {
		if !there {
			return ""
		}
		return fill(name, about...)
	}
	return []byte(fill("", "origin", origin, "key", key, "scope", fill(s.Kind, about...), "shown", strings.Join(r.shown, ""),
		"commands", part("commands", s.Kind == ScopeRun), "evidence", part("evidence", evidence), "earlier", part("earlier", earlier)))
}

// fill fills the holes of a part: each once, whatever stands in what is put in.
func fill(part string, holes ...string) string {
	pairs := slices.Clone(holes)
	for i := 0; i < len(pairs); i += 2 {
		pairs[i] = "{" + pairs[i] + "}"
	}
	return strings.NewReplacer(pairs...).Replace(Readme[part])
}
