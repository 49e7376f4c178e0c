package pack

import (
	"fmt"
	"strings"

	"github.com/writ-gateway/writ/receipts"
)

// readme tells whoever was handed a pack how to check it, with the digests filled in.
func (w *writer) readme() []byte {
	var b strings.Builder
	name, _, _ := noteKey(w.o.LogKey)
	fmt.Fprintf(&b, "# Receipts of %s\n\n", name)
	switch s := w.o.Scope; s.Kind {
	case ScopeLog:
		fmt.Fprintf(&b, "All receipts of the log, 0 to %d,", w.cp.Size-1)
	case ScopeRange:
		fmt.Fprintf(&b, "Receipts %d to %d of %d", s.First, s.Last, w.cp.Size)
	case ScopeRun:
		fmt.Fprintf(&b, "The receipts of %s, and those before it that it rests on,", s.Run)
	}
	b.WriteString(" each with the proof that the file `checkpoint` covers it.\n\n")
	b.WriteString("The keys in here are for reading only. Check with those you were given by somebody you trust: `receipt.pub` and the log's\nverifier key, here `" + w.o.LogKey + "`.\n\n")
	b.WriteString("## With writ\n\n```\nwrit pack verify . --log-key LOG-KEY --key receipt.pub\n```\n\n")
	if w.o.Scope.Kind == ScopeRun {
		fmt.Fprintf(&b, "```\nwrit run verify . --run %[1]s --log-key LOG-KEY --key receipt.pub\nwrit close verify . --run %[1]s --log-key LOG-KEY --key receipt.pub\n```\n\n", w.o.Scope.Run)
	}
	b.WriteString("Without it: `node cli.mjs . --log-key LOG-KEY --key receipt.pub`, or `verify.html` in a browser; both are in `verify/js` of the sources.\n\n")
	b.WriteString("## With cosign\n\nA receipt's signature, and that the log has it. `trusted_root.json` is the log's key: compare it with the one you have.\n\n```\n")
	for _, e := range w.shown {
		fmt.Fprintf(&b, "# %s\ncosign verify-blob-attestation --key receipt.pub --bundle %s --trusted-root trusted_root.json \\\n  --type %s --digest %s --digestAlg sha256\n",
			e.what, e.file, receipts.TransitionType, e.digest)
	}
	b.WriteString("```\n\nThe digest of any other receipt is `subject[0].digest.sha256` of its payload.\n\n")
	b.WriteString("## Files\n\n| | |\n|---|---|\n" +
		"| `pack.json` | what the pack says it holds |\n" +
		"| `checkpoint` | size and root of the log, signed (C2SP tlog-checkpoint) |\n" +
		"| `receipts/` | one Sigstore bundle each, by sequence; `receipts.jsonl` lists them |\n")
	if w.o.Evidence {
		b.WriteString("| `evidence/` | what a receipt's `evidence` digest stands for: arguments of calls, which may hold personal data |\n")
	}
	b.WriteString("| `policies/` | policy bundles that receipts name, as far as the gateway has them; the name is their SHA-256 |\n" +
		"| `keys/`, `log.vkey`, `trusted_root.json` | the keys it was made with |\n")
	if len(w.o.Earlier) > 0 {
		b.WriteString("| `earlier/` | an earlier checkpoint, and the proof that the log still begins with it |\n")
	}
	b.WriteString("| `SHA256SUMS` | `sha256sum -c SHA256SUMS` shows damage; it is not signed |\n")
	return []byte(b.String())
}
