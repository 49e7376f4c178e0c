package pack

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"strconv"

	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/tlog"
)

// What stands in the holes of a bundle.
const (
	words  = `([!#-\[\]-~]*)` // printable ASCII that JSON does not escape
	digits = `([0-9]+)`
	b64    = `([A-Za-z0-9+/=]*)`
	hashes = `((?:"[A-Za-z0-9+/=]*"(?:,"[A-Za-z0-9+/=]*")*)?)`
	lines  = `((?:[^"\\]|\\n)*)` // a checkpoint as JSON has it
)

// A bundle has one text: what tlog.Bundle writes, and an LF. It is taken apart by that
// text and not as JSON, so that no two readers understand one differently.
var bundleForm = regexp.MustCompile(`^\{"mediaType":"` + regexp.QuoteMeta(tlog.BundleType) + `","verificationMaterial":\{"publicKey":\{"hint":"` + words + `"\},` +
	`"tlogEntries":\[\{"logIndex":"` + digits + `","logId":\{"keyId":"` + b64 + `"\},"kindVersion":\{"kind":"hashedrekord","version":"0\.0\.2"\},` +
	`"inclusionProof":\{"logIndex":"` + digits + `","rootHash":"` + b64 + `","treeSize":"` + digits + `","hashes":\[` + hashes + `\],` +
	`"checkpoint":\{"envelope":"` + lines + `"\}\},"canonicalizedBody":"` + b64 + `"\}\]\},` +
	`"dsseEnvelope":\{"payload":"` + b64 + `","payloadType":"` + regexp.QuoteMeta(receipts.PayloadType) + `","signatures":\[\{"sig":"` + b64 + `","keyid":"` + words + `"\}\]\}\}` + "\n$")

// parsed is a bundle taken apart, nothing in it proved yet.
type parsed struct {
	hint, keyID           string
	index, proofIndex     string
	size                  string
	logID, root           []byte
	hashes                [][]byte
	checkpoint            []byte
	leaf, payload, signed []byte
}

// parse takes a bundle apart. The code is empty if it is in its form.
func parse(text []byte) (p parsed, wrong Code) {
	m := bundleForm.FindSubmatch(text)
	if m == nil {
		return p, BundleMalformed
	}
	p = parsed{hint: string(m[1]), index: string(m[2]), proofIndex: string(m[4]), size: string(m[6]), keyID: string(m[12])}
	p.checkpoint = bytes.ReplaceAll(m[8], []byte(`\n`), []byte("\n"))
	ok := true
	decode := func(b []byte) []byte {
		out, good := unbase64(string(b))
		ok = ok && good
		return out
	}
	p.logID, p.root, p.leaf, p.payload, p.signed = decode(m[3]), decode(m[5]), decode(m[9]), decode(m[10]), decode(m[11])
	if len(m[7]) > 0 {
		for _, h := range bytes.Split(m[7], []byte(",")) {
			p.hashes = append(p.hashes, decode(bytes.Trim(h, `"`)))
		}
	}
	if !ok {
		return p, Base64
	}
	return p, ""
}

// unbase64 takes one spelling only: that which encoding gives.
func unbase64(s string) ([]byte, bool) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	return b, err == nil && base64.StdEncoding.EncodeToString(b) == s
}

// number reads what must be the one spelling of a sequence.
func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != s {
		return -1
	}
	return n
}
