package receipts_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
)

// A verifier written from docs/receipt-format.md and the tables of states in
// docs/reference.md. It imports nothing of writ's, so that the pages say all.

type pageEnvelope struct {
	PayloadType string `json:"payloadType"`
	Payload     string `json:"payload"`
	Signatures  []struct {
		KeyID string `json:"keyid"`
		Sig   string `json:"sig"`
	} `json:"signatures"`
}

type pageStatement struct {
	Type          string `json:"_type"`
	PredicateType string `json:"predicateType"`
	Subject       []struct {
		Digest struct{ SHA256 string }
		Name   string
	}
	Predicate struct {
		KeyID   string `json:"keyId"`
		Log     struct{ Origin string }
		Receipt string `json:"receiptId"`
		Outcome string
		Code    string
		Count   int64
		Run     string
		Tenant  string
		Parents []string
		Changes []struct{ Kind, ID, From, To string }
		Commit  struct {
			At, Epoch string
			Seq       int64
			RunSeq    int64 `json:"runSeq"`
		}
		Evidence string
		Verdict  struct {
			Digest string
			KeyID  string `json:"keyId"`
		}

		// Of a head:
		At          string
		FirstSeq    int64
		LastSeq     int64
		LastReceipt string
		More        bool
	}
}

func pageVerify(export string, key *ecdsa.PublicKey, moves map[string]bool) error {
	if !strings.HasSuffix(export, "\n") {
		return errors.New("the last line has no end")
	}
	lines := strings.Split(strings.TrimSuffix(export, "\n"), "\n")
	var header struct{ Format, Log string }
	if err := json.Unmarshal([]byte(lines[0]), &header); err != nil || lines[0] != `{"format":"writ-receipts/v1","log":"`+header.Log+`"}` {
		return errors.New("header")
	}
	id := pageKeyID(key)
	var chain [32]byte
	var count, last int64 = 0, -1
	var lastReceipt, at, epoch, tenant, headAt string
	seen, left, runs, objects := map[string]bool{}, map[string]bool{}, map[string]int64{}, map[string]string{}
	more := true
	var before *pageForeign
	for n, line := range lines[1:] {
		if !more {
			return errors.New("something follows the head")
		}
		if strings.HasPrefix(line, `{"envelope":`) {
			f, err := pageOpenForeign(line)
			if err != nil || before != nil || seen[f.id] {
				return fmt.Errorf("line %d: a foreign entry: %w", n+2, err)
			}
			before, seen[f.id] = &f, true
			last, lastReceipt, count = last+1, f.id, count+1
			chain = sha256.Sum256(append(chain[:], f.digest[:]...))
			continue
		}
		payload, err := pageOpen(line, id, key)
		if err != nil {
			return fmt.Errorf("line %d: %w", n+2, err)
		}
		var tree any
		d := json.NewDecoder(bytes.NewReader(payload))
		d.UseNumber()
		if err := d.Decode(&tree); err != nil {
			return err
		}
		if again, err := json.Marshal(tree); err != nil || !bytes.Equal(again, payload) {
			return errors.New("not canonical")
		}
		var s pageStatement
		if err := json.Unmarshal(payload, &s); err != nil {
			return err
		}
		p := s.Predicate
		if s.Type != "https://in-toto.io/Statement/v1" || p.KeyID != id || p.Log.Origin != header.Log || len(s.Subject) != 1 {
			return errors.New("statement")
		}
		const attestation = "https://writ-gateway.github.io/writ/attestation/"
		if s.PredicateType == attestation+"export-head/v1" {
			if p.Count != count || p.LastSeq != last || p.FirstSeq != last-count+1 || p.LastReceipt != lastReceipt || p.At < headAt ||
				s.Subject[0].Name != "export/"+header.Log || s.Subject[0].Digest.SHA256 != hex.EncodeToString(chain[:]) || (count == 0 && p.More) {
				return errors.New("the head is of other receipts")
			}
			if more, headAt = p.More, p.At; !more && before != nil {
				return errors.New("nothing rests on the foreign entry at the end")
			}
			chain, count, lastReceipt = [32]byte{}, 0, ""
			continue
		}
		if s.PredicateType != attestation+"transition/v1" {
			return errors.New("predicate type")
		}
		name, sum := "receipt/"+p.Receipt, p.Evidence
		if len(p.Changes) > 0 {
			name = p.Changes[0].Kind + "/" + p.Changes[0].ID
		}
		if sum == "" {
			h := sha256.Sum256([]byte(p.Receipt))
			sum = hex.EncodeToString(h[:])
		}
		if tenant == "" {
			tenant = p.Tenant
		}
		switch c := p.Commit; {
		case s.Subject[0].Name != name || s.Subject[0].Digest.SHA256 != sum:
			return errors.New("subject")
		case c.Seq != last+1 || c.At < at || left[c.Epoch] || seen[p.Receipt] || p.Tenant != tenant:
			return fmt.Errorf("receipt %d is out of order", c.Seq)
		case (p.Run != "") != (c.RunSeq > 0) || (p.Run != "" && c.RunSeq != runs[p.Run]+1):
			return fmt.Errorf("receipt %d is out of order in its run", c.Seq)
		}
		if before != nil && (p.Verdict.Digest != hex.EncodeToString(before.digest[:]) || p.Verdict.KeyID != before.keyID || !slices.Contains(p.Parents, before.id)) {
			return fmt.Errorf("receipt %d does not rest on the entry before it", p.Commit.Seq)
		}
		if before == nil && slices.Contains(p.Parents, pageVerdictID(p.Verdict.Digest)) {
			return fmt.Errorf("receipt %d rests on an entry elsewhere", p.Commit.Seq)
		}
		before = nil
		opens := false
		for _, c := range p.Changes {
			if objects[c.Kind+"/"+c.ID] != c.From || !moves[c.Kind+" "+c.From+" "+c.To] {
				return fmt.Errorf("receipt %d: no such move", p.Commit.Seq)
			}
			objects[c.Kind+"/"+c.ID] = c.To
			opens = opens || c.Kind == "approval" && c.From == "" && c.To == "pending"
		}
		ok := map[string]bool{
			"transition": p.Code == "" && p.Count == 0,
			"request":    p.Code == "" && p.Count == 0 && opens,
			"denial":     p.Code != "" && p.Count == 0 && len(p.Changes) == 0,
			"aggregate":  p.Count > 0 && len(p.Changes) == 0,
		}
		if !ok[p.Outcome] {
			return fmt.Errorf("receipt %d: outcome", p.Commit.Seq)
		}
		for _, parent := range p.Parents {
			if !seen[parent] {
				return fmt.Errorf("receipt %d: parent", p.Commit.Seq)
			}
		}
		if epoch != "" && epoch != p.Commit.Epoch {
			left[epoch] = true
		}
		seen[p.Receipt], last, lastReceipt, at, epoch = true, p.Commit.Seq, p.Receipt, p.Commit.At, p.Commit.Epoch
		if p.Run != "" {
			runs[p.Run] = p.Commit.RunSeq
		}
		one := sha256.Sum256(payload)
		chain = sha256.Sum256(append(chain[:], one[:]...))
		count++
	}
	if more {
		return errors.New("the head is missing")
	}
	return nil
}

// pageForeign is a verdict that is an entry of its own.
type pageForeign struct {
	id, keyID string
	digest    [32]byte
}

// pageOpenForeign proves one by the key that is with it, of the one kind the example has.
func pageOpenForeign(line string) (f pageForeign, err error) {
	var l struct {
		Envelope  json.RawMessage
		Kind      string
		PublicKey string `json:"publicKey"`
	}
	if err := json.Unmarshal([]byte(line), &l); err != nil || line != `{"envelope":`+string(l.Envelope)+`,"kind":"foreign","publicKey":"`+l.PublicKey+`"}` {
		return f, errors.New("not in the one form of a foreign entry")
	}
	der, err := base64.StdEncoding.Strict().DecodeString(l.PublicKey)
	if err != nil {
		return f, err
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return f, err
	}
	f.keyID = pageKeyID(key.(*ecdsa.PublicKey))
	payload, err := pageSigned(string(l.Envelope), f.keyID, key.(*ecdsa.PublicKey), true)
	if err != nil {
		return f, err
	}
	f.digest = sha256.Sum256(payload)
	f.id = pageVerdictID(hex.EncodeToString(f.digest[:]))
	return f, nil
}

func pageVerdictID(digest string) string {
	n, ok := new(big.Int).SetString(digest[:min(32, len(digest))], 16)
	if !ok {
		return ""
	}
	id := make([]byte, 26)
	for i := range id {
		id[25-i] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"[new(big.Int).And(new(big.Int).Rsh(n, uint(5*i)), big.NewInt(31)).Int64()]
	}
	return "rcp_" + string(id)
}

// pageOpen checks form and signature of a receipt's envelope.
func pageOpen(line, id string, key *ecdsa.PublicKey) ([]byte, error) {
	return pageSigned(line, id, key, false)
}

// pageSigned is the same where the signature may have either s.
func pageSigned(line, id string, key *ecdsa.PublicKey, either bool) ([]byte, error) {
	var e pageEnvelope
	if err := json.Unmarshal([]byte(line), &e); err != nil || len(e.Signatures) != 1 {
		return nil, errors.New("not an envelope")
	}
	s := e.Signatures[0]
	const kind = "application/vnd.in-toto+json"
	payload, err := base64.StdEncoding.Strict().DecodeString(e.Payload)
	sig, err2 := base64.StdEncoding.Strict().DecodeString(s.Sig)
	if err != nil || err2 != nil || s.KeyID != id ||
		line != `{"payloadType":"`+kind+`","payload":"`+base64.StdEncoding.EncodeToString(payload)+`","signatures":[{"keyid":"`+id+`","sig":"`+base64.StdEncoding.EncodeToString(sig)+`"}]}` {
		return nil, errors.New("not in the one form of an envelope")
	}
	var rs struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(sig, &rs); err != nil || len(rest) > 0 || !either && rs.S.Cmp(new(big.Int).Rsh(elliptic.P256().Params().N, 1)) > 0 {
		return nil, errors.New("not in the one form of a signature")
	}
	pae := sha256.Sum256([]byte(fmt.Sprintf("DSSEv1 %d %s %d %s", len(kind), kind, len(payload), payload)))
	if !ecdsa.VerifyASN1(key, pae[:], sig) {
		return nil, errors.New("the signature does not hold")
	}
	return payload, nil
}

func pageKeyID(key *ecdsa.PublicKey) string {
	point, err := key.Bytes() // 0x04, x, y
	if err != nil {
		return ""
	}
	var wire []byte
	for _, s := range [][]byte{[]byte("ecdsa-sha2-nistp256"), []byte("nistp256"), point} {
		wire = append(binary.BigEndian.AppendUint32(wire, uint32(len(s))), s...)
	}
	sum := sha256.Sum256(wire)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// pageMoves reads the tables of states.
func pageMoves(t *testing.T) map[string]bool {
	text, err := os.ReadFile("../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	moves, kind := map[string]bool{}, ""
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 2 {
			kind = ""
			continue
		}
		from, to := strings.TrimSpace(cells[0]), strings.TrimSpace(cells[1])
		switch {
		case to == "may become":
			kind = from
		case kind != "" && !strings.HasPrefix(from, "-") && !strings.HasPrefix(to, "nothing"):
			for _, s := range strings.Split(to, ", ") {
				moves[kind+" "+strings.TrimPrefix(from, "·")+" "+s] = true
			}
		}
	}
	for _, m := range []string{"gate  open", "approval approved consumed", "task running running"} {
		if !moves[m] {
			t.Fatalf("docs/reference.md has no move %q", m)
		}
	}
	return moves
}

func TestThePageIsEnoughForAVerifier(t *testing.T) {
	export, err := os.ReadFile("../testdata/vectors/receipts/export.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	pub, err := os.ReadFile("../testdata/vectors/receipts/receipt.pub")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(pub)
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	key := parsed.(*ecdsa.PublicKey)
	moves := pageMoves(t)
	if err := pageVerify(string(export), key, moves); err != nil {
		t.Fatalf("the example: %v", err)
	}
	lines := strings.SplitAfter(string(export), "\n")
	without := func(i int) string { return strings.Join(append(append([]string{}, lines[:i]...), lines[i+1:]...), "") }
	for name, bad := range map[string]string{
		"no header":  without(0),
		"a gap":      without(3),
		"no head":    without(6),
		"cut off":    string(export[:len(export)-1]),
		"a line on":  string(export) + lines[1],
		"other sig":  strings.Replace(string(export), `"sig":"MEU`, `"sig":"MEQ`, 1),
		"other text": strings.Replace(string(export), "eyJfdHlwZSI6", "eyJfdHlwZSI7", 1),
		"swapped":    lines[0] + lines[2] + lines[1] + strings.Join(lines[3:], ""),
	} {
		if bad == string(export) {
			t.Fatalf("%s: nothing was changed", name)
		}
		if err := pageVerify(bad, key, moves); err == nil {
			t.Errorf("%s: it verifies", name)
		}
	}
	foreign, err := os.ReadFile("../testdata/vectors/receipts/export-foreign.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	if err := pageVerify(string(foreign), key, moves); err != nil {
		t.Fatalf("the example with a verdict: %v", err)
	}
	lines = strings.SplitAfter(string(foreign), "\n")
	for name, bad := range map[string]string{
		"without it":    without(3),
		"without its":   without(4),
		"another place": lines[0] + lines[1] + lines[3] + lines[2] + strings.Join(lines[4:], ""),
		"another key":   strings.Replace(string(foreign), `"publicKey":"MFk`, `"publicKey":"MFo`, 1),
	} {
		if err := pageVerify(bad, key, moves); bad == string(foreign) || err == nil {
			t.Errorf("with a verdict, %s: it verifies", name)
		}
	}
	page, err := os.ReadFile("../docs/receipt-format.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, said := range []string{"DSSEv1", "ecdsa-sha2-nistp256", "writ-receipts/v1", "attestation/transition/v1", "export-head/v1", "chain = SHA-256(chain || SHA-256(payload))"} {
		if !strings.Contains(string(page), said) {
			t.Errorf("the page does not say %q", said)
		}
	}
}
