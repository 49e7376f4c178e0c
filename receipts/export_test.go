package receipts

import (
	"bytes"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"math/big"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/writ-gateway/writ"
)

const start = 1_767_225_600_000

// story is a small true history: records as a gateway would commit them.
func story() []Record {
	run, task := writ.RunID(id(writ.PrefixRun, 1)), writ.TaskID(id(writ.PrefixTask, 1))
	base := func(n int, transition string) writ.Statement {
		return writ.Statement{
			Receipt: rcp(n), Tenant: "default", Transition: transition, Outcome: writ.OutcomeOfTransition,
			Actor: writ.Actor{Kind: writ.KindSystem, Role: writ.RoleSystem}, Nonce: [16]byte{byte(n)},
		}
	}
	create := base(1, "run.create")
	create.Run, create.Changes = run, []writ.Change{{Kind: "run", ID: string(run), To: "active"}}
	enqueue := base(2, "task.enqueue")
	enqueue.Run, enqueue.Task, enqueue.Parents = run, task, []writ.ReceiptID{rcp(1)}
	enqueue.Changes = []writ.Change{{Kind: "task", ID: string(task), To: "queued"}}
	refused := base(3, "task.claim")
	refused.Run, refused.Outcome, refused.Code = run, writ.OutcomeOfDenial, writ.CodePolicy
	counted := base(4, "policy.denials")
	counted.Outcome, counted.Count = writ.OutcomeOfAggregate, 12
	cancel := base(5, "run.cancel")
	cancel.Run, cancel.Parents = run, []writ.ReceiptID{rcp(1), rcp(2)}
	cancel.Changes = []writ.Change{{Kind: "run", ID: string(run), From: "active", To: "cancelled"}, {Kind: "task", ID: string(task), From: "queued", To: "cancelled"}}
	return []Record{
		{create, writ.Committed{Epoch: "e1", Seq: 0, RunSeq: 1, At: start}},
		{enqueue, writ.Committed{Epoch: "e1", Seq: 1, RunSeq: 2, At: start + 1}},
		{refused, writ.Committed{Epoch: "e1", Seq: 2, RunSeq: 3, At: start + 1}},
		{counted, writ.Committed{Epoch: "e2", Seq: 3, At: start + 5}},
		{cancel, writ.Committed{Epoch: "e2", Seq: 4, RunSeq: 4, At: start + 9}},
	}
}

func list(rs []writ.Receipt) iter.Seq2[writ.Receipt, error] {
	return func(yield func(writ.Receipt, error) bool) {
		for _, r := range rs {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// export seals the records and writes them. It checks nothing: what it writes
// may be a lie signed with the right key.
func export(t testing.TB, records []Record) []byte {
	t.Helper()
	s := testSealer(t)
	var rs []writ.Receipt
	for _, rec := range records {
		rs = append(rs, seal(t, s, rec.Statement, rec.Commit))
	}
	var out bytes.Buffer
	if err := WriteExport(&out, list(rs), s, firstAfter(rs), start+20, false); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// firstAfter is the sequence before the first of the receipts.
func firstAfter(rs []writ.Receipt) int64 {
	if len(rs) == 0 {
		return -1
	}
	return rs[0].Seq - 1
}

func verify(t testing.TB, text []byte) Report {
	t.Helper()
	r, err := Verify(bytes.NewReader(text), testPublic(t))
	if err != nil {
		t.Fatal(err)
	}
	if (r.Verdict != Good) != (r.Reason != "") {
		t.Fatalf("a verdict without its reason: %+v", r)
	}
	return r
}

func TestExport(t *testing.T) {
	text := export(t, story())
	golden(t, "export.jsonl", text)
	lines := bytes.SplitAfter(text, []byte("\n"))
	head, err := openEnvelope(bytes.TrimSuffix(lines[len(lines)-2], []byte("\n")))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "export-head.json", head.payload)
	want := Report{Log: "writ.local", KeyID: testSealer(t).KeyID(), Receipts: 5, LastSeq: 4, HeadAt: start + 20}
	if got := verify(t, text); got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if got, err := Verify(iotest.OneByteReader(bytes.NewReader(text)), testPublic(t)); err != nil || got != want {
		t.Errorf("byte by byte: %+v, %v", got, err)
	}
	if got := verify(t, export(t, story()[2:])); got.ExitCode() != 0 || got.FirstSeq != 2 || got.Receipts != 3 {
		t.Errorf("from sequence 2: %+v", got)
	}
	if got := verify(t, export(t, nil)); got.ExitCode() != 0 || got.Receipts != 0 || got.LastSeq != -1 {
		t.Errorf("without receipts: %+v", got)
	}
}

func TestExportWithOtherKey(t *testing.T) {
	dir := t.TempDir()
	k, err := LoadOrCreate(dir, KeyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pub, err := os.ReadFile(dir + "/" + FilePublic)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(bytes.NewReader(export(t, story())), pub); err != nil || r.Verdict != Tampered || r.Line != 2 || r.KeyID != k.KeyID {
		t.Errorf("got %+v, %v", r, err)
	}
	for name, bad := range map[string][]byte{
		"nothing": nil, "words": []byte("hello"), "two": append(bytes.Clone(pub), pub...), "cut": pub[:len(pub)/2],
		"curve": []byte("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"),
	} {
		if _, err := Verify(bytes.NewReader(nil), bad); writ.CodeOf(err) != writ.CodeMalformed {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Verify(iotest.ErrReader(io.ErrClosedPipe), pub); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a reader that fails: %v", err)
	}
}

// Whatever byte of an export is changed, it is refused.
func TestEveryByteFlipped(t *testing.T) {
	all := story()
	text := export(t, all[:2])
	flips := func(i int) []byte { return []byte{1 << (i % 8)} }
	if os.Getenv("WRIT_SOAK") != "" {
		flips = func(int) []byte { return []byte{1, 2, 4, 8, 16, 32, 64, 128, 255} }
	}
	if testing.Short() {
		text = export(t, nil)
	}
	verdicts := map[Verdict]int{}
	for i := range text {
		for _, x := range flips(i) {
			text[i] ^= x
			r := verify(t, text)
			text[i] ^= x
			if r.ExitCode() == 0 {
				t.Errorf("byte %d (%q) changed by %#x is not noticed", i, text[i], x)
			}
			verdicts[r.Verdict]++
		}
	}
	t.Logf("%d bytes: %v", len(text), verdicts)
}

func TestEveryLength(t *testing.T) {
	text := export(t, story()[:2])
	for n := range text {
		if r := verify(t, text[:n]); r.Verdict != Incomplete {
			t.Fatalf("cut at byte %d: %+v", n, r)
		}
	}
	for _, more := range []string{"\n", "x", "{}\n", string(text)} {
		if r := verify(t, append(bytes.Clone(text), more...)); r.Verdict != Tampered {
			t.Errorf("followed by %.10q: %+v", more, r)
		}
	}
}

func TestLines(t *testing.T) {
	text := export(t, story())
	lines := bytes.SplitAfter(text, []byte("\n"))
	lines = lines[:len(lines)-1]
	join := func(order ...int) []byte {
		var out []byte
		for _, i := range order {
			out = append(out, lines[i]...)
		}
		return out
	}
	order := func(change func([]int) []int) []byte {
		o := make([]int, len(lines))
		for i := range o {
			o[i] = i
		}
		return join(change(o)...)
	}
	for i := range lines {
		gone := verify(t, order(func(o []int) []int { return append(o[:i:i], o[i+1:]...) }))
		if gone.Verdict != Incomplete {
			t.Errorf("line %d deleted: %+v", i+1, gone)
		}
		twice := verify(t, order(func(o []int) []int { return append(o[:i+1:i+1], o[i:]...) }))
		if twice.ExitCode() == 0 {
			t.Errorf("line %d twice: %+v", i+1, twice)
		}
		for j := range i {
			if r := verify(t, order(func(o []int) []int { o[i], o[j] = o[j], o[i]; return o })); r.ExitCode() == 0 {
				t.Errorf("lines %d and %d swapped: %+v", i+1, j+1, r)
			}
		}
	}
	// The report names what is missing.
	gap := verify(t, order(func(o []int) []int { return append(o[:3:3], o[4:]...) }))
	if gap.Line != 4 || gap.Seq != 3 || gap.Receipt != rcp(4) || gap.Receipts != 2 {
		t.Errorf("third receipt deleted: %+v", gap)
	}
	// A head of other receipts: the right count, the wrong chain.
	other := story()
	other[2].Statement.Nonce[5] = 1
	alien := bytes.SplitAfter(export(t, other), []byte("\n"))
	mixed := append(join(0, 1, 2, 3, 4, 5), alien[6]...)
	if r := verify(t, mixed); r.Verdict != Tampered || r.Line != 7 {
		t.Errorf("another head: %+v", r)
	}
}

// Even the holder of the key cannot state an impossible history.
func TestSignedLies(t *testing.T) {
	run := string(id(writ.PrefixRun, 1))
	for name, c := range map[string]struct {
		lie  func(r []Record) []Record
		want Verdict
		seq  int64
	}{
		"illegal move":           {func(r []Record) []Record { r[4].Statement.Changes[0].To = "queued"; return r }, Tampered, 4},
		"out of a terminal":      {func(r []Record) []Record { r[0].Statement.Changes[0].To = "done"; return r }, Tampered, 0},
		"from another state":     {func(r []Record) []Record { r[4].Statement.Changes[1].From = "running"; return r }, Tampered, 4},
		"never born":             {func(r []Record) []Record { r[1].Statement.Changes[0].From = "running"; return r }, Tampered, 1},
		"born twice":             {func(r []Record) []Record { r[4].Statement.Changes[0].From = ""; return r }, Tampered, 4},
		"same id":                {func(r []Record) []Record { r[4].Statement.Receipt = rcp(2); return r }, Tampered, 4},
		"unknown parent":         {func(r []Record) []Record { r[4].Statement.Parents = []writ.ReceiptID{rcp(77)}; return r }, Tampered, 4},
		"later parent":           {func(r []Record) []Record { r[1].Statement.Parents = []writ.ReceiptID{rcp(5)}; return r }, Tampered, 1},
		"own parent":             {func(r []Record) []Record { r[1].Statement.Parents = []writ.ReceiptID{rcp(2)}; return r }, Tampered, 1},
		"time back":              {func(r []Record) []Record { r[3].Commit.At = start; return r }, Tampered, 3},
		"epoch back":             {func(r []Record) []Record { r[4].Commit.Epoch = "e1"; return r }, Tampered, 4},
		"run sequence gap":       {func(r []Record) []Record { r[4].Commit.RunSeq = 5; return r }, Incomplete, 4},
		"run sequence repeated":  {func(r []Record) []Record { r[4].Commit.RunSeq = 3; return r }, Tampered, 4},
		"run starts late":        {func(r []Record) []Record { r[0].Commit.RunSeq = 2; return r }, Incomplete, 0},
		"other tenant":           {func(r []Record) []Record { r[3].Statement.Tenant = "acme"; return r }, Tampered, 3},
		"late start, own parent": {func(r []Record) []Record { r[1].Statement.Parents = []writ.ReceiptID{rcp(2)}; return r[1:] }, Tampered, 1},
		"late start, bad move": {func(r []Record) []Record {
			r = r[1:]
			r[3].Statement.Changes[0] = writ.Change{Kind: "run", ID: run, From: "done", To: "active"}
			return r
		}, Tampered, 4},
	} {
		if r := verify(t, export(t, c.lie(story()))); r.Verdict != c.want || r.Seq != c.seq {
			t.Errorf("%s: got %+v, want %s at %d", name, r, c.want, c.seq)
		}
	}
}

// signedExport wraps payloads that no Draft would give.
func signedExport(t testing.TB, header string, payloads ...string) []byte {
	t.Helper()
	s := testSealer(t)
	out := []byte(header + "\n")
	for _, p := range payloads {
		sig, err := sign(s.keys[s.keyID], dsse.PAE(PayloadType, []byte(p)))
		if err != nil {
			t.Fatal(err)
		}
		env, err := Envelope(writ.Receipt{Payload: []byte(p), KeyID: s.keyID, Sig: sig})
		if err != nil {
			t.Fatal(err)
		}
		out = append(append(out, env...), '\n')
	}
	return out
}

func TestForm(t *testing.T) {
	good := export(t, story()[:1])
	lines := strings.SplitAfter(string(good), "\n")
	header, line, head := strings.TrimSuffix(lines[0], "\n"), lines[1], lines[2]
	o, err := openEnvelope([]byte(strings.TrimSuffix(line, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	h, err := openEnvelope([]byte(strings.TrimSuffix(head, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	payload, headPayload := string(o.payload), string(h.payload)
	if r := verify(t, signedExport(t, header, payload, headPayload)); r.Verdict != Good {
		t.Fatalf("taken apart and put together: %+v", r)
	}

	swap := func(s, old, new string) string {
		t.Helper()
		if !strings.Contains(s, old) {
			t.Fatalf("%q is not in %s", old, s)
		}
		return strings.Replace(s, old, new, 1)
	}
	for name, p := range map[string]string{
		"space":             swap(payload, `:{`, `: {`),
		"unknown field":     swap(payload, `"tenant"`, `"surprise":"x","tenant"`),
		"case variant":      swap(payload, `"tenant"`, `"Tenant"`),
		"duplicate":         swap(payload, `"tenant":"default"`, `"tenant":"default","tenant":"default"`),
		"order":             swap(payload, `"kind":"system","role":"system"`, `"role":"system","kind":"system"`),
		"fraction":          swap(payload, `"seq":0`, `"seq":0.0`),
		"negative":          swap(payload, `"seq":0`, `"seq":-1`),
		"other type":        swap(payload, `attestation/transition/v1`, `attestation/transition/v2`),
		"other statement":   swap(payload, `Statement/v1`, `Statement/v0.1`),
		"free text":         swap(payload, `"tenant":"default"`, `"tenant":"our best tenant"`),
		"unknown state":     swap(payload, `"to":"active"`, `"to":""`),
		"time zone":         swap(payload, `.000Z`, `.000+00:00`),
		"short time":        swap(payload, `.000Z`, `Z`),
		"no epoch":          swap(payload, `"epoch":"e1"`, `"epoch":""`),
		"no run sequence":   swap(payload, `"runSeq":1,`, ``),
		"empty list":        swap(payload, `"nonce"`, `"labels":[],"nonce"`),
		"long nonce":        swap(payload, `"nonce":"`, `"nonce":"00`),
		"upper nonce":       swap(payload, `"nonce":"01`, `"nonce":"0A`),
		"other subject":     swap(payload, `"name":"run/`, `"name":"ran/`),
		"null":              swap(payload, `"tenant":"default"`, `"tenant":null`),
		"array":             `[]`,
		"not JSON":          `hello`,
		"head, space":       swap(headPayload, `:{`, `: {`),
		"head, field":       swap(headPayload, `"count"`, `"a":1,"count"`),
		"head, time":        swap(headPayload, `.020Z`, `.02Z`),
		"head, chain":       swap(headPayload, `"sha256":"`, `"sha256":"0`),
		"head, no subject":  headPayload[:strings.Index(headPayload, `"subject"`)] + `"subject":[]}`,
		"head, other names": swap(headPayload, `"name":"export/`, `"name":"expert/`),
	} {
		if r := verify(t, signedExport(t, header, p, headPayload)); r.Verdict != Malformed || r.Line != 2 {
			t.Errorf("%s: got %+v\n%s", name, r, p)
		}
	}
	for name, c := range map[string]struct {
		text []byte
		want Verdict
	}{
		"head first":           {signedExport(t, header, headPayload), Incomplete},
		"head counts less":     {signedExport(t, header, payload, swap(headPayload, `"count":1`, `"count":0`)), Tampered},
		"head of another log":  {signedExport(t, header, payload, strings.ReplaceAll(headPayload, "writ.local", "evil.local")), Tampered},
		"head of another seq":  {signedExport(t, header, payload, swap(headPayload, `"lastSeq":0`, `"lastSeq":7`)), Tampered},
		"head of another key":  {signedExport(t, header, payload, swap(headPayload, `"keyId":"SHA256:`, `"keyId":"SHA257:`)), Tampered},
		"other key stated":     {signedExport(t, header, swap(payload, `"keyId":"SHA256:`, `"keyId":"SHA257:`), headPayload), Tampered},
		"other log":            {signedExport(t, swap(header, "writ.local", "evil.local"), payload, headPayload), Tampered},
		"other format":         {signedExport(t, swap(header, "/v1", "/v2"), payload, headPayload), Malformed},
		"header, unknown":      {signedExport(t, swap(header, `"log"`, `"keys":[],"log"`), payload, headPayload), Malformed},
		"header, space":        {signedExport(t, " "+header, payload, headPayload), Malformed},
		"header, words":        {signedExport(t, "hello", payload, headPayload), Malformed},
		"header, upper origin": {signedExport(t, swap(header, "writ.local", "Writ.local"), payload, headPayload), Malformed},
		"empty line":           {[]byte(header + "\n\n"), Malformed},
		"envelope, space":      {[]byte(header + "\n" + swap(line, `,"sig`, `, "sig`)), Malformed},
		"envelope, order":      {[]byte(header + "\n" + reorder(t, line)), Malformed},
		"envelope, type":       {[]byte(header + "\n" + swap(line, PayloadType, "text/plain")), Malformed},
		"envelope, newline":    {[]byte(header + "\n" + swap(line, `"payload":"`, `"payload":"\n`)), Malformed},
		"envelope, unsigned":   {[]byte(header + "\n" + line[:strings.Index(line, `"signatures"`)] + `"signatures":[]}` + "\n"), Malformed},
		"envelope, key":        {[]byte(header + "\n" + swap(line, `"keyid":"SHA256:`, `"keyid":"SHA257:`)), Tampered},
		"long line":            {append([]byte(header+"\n"), make([]byte, MaxLine+2)...), Malformed},
	} {
		if r := verify(t, c.text); r.Verdict != c.want {
			t.Errorf("%s: got %+v, want %s", name, r, c.want)
		}
	}
}

// reorder writes an envelope with its members sorted, which DSSE's are not.
func reorder(t *testing.T, line string) string {
	var m map[string]any
	if err := json.Unmarshal([]byte(line), &m); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(out) + "\n"
}

// One signature has one encoding: sigstore would also take the bare r‖s form.
func TestSignatureForm(t *testing.T) {
	s, v := testSealer(t), testVerifier(t)
	r := seal(t, s, aggregate(), writ.Committed{Epoch: "e"})
	if _, err := v.Receipt(r); err != nil {
		t.Fatal(err)
	}
	var n struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(r.Sig, &n); err != nil {
		t.Fatal(err)
	}
	rs := append(n.R.FillBytes(make([]byte, 32)), n.S.FillBytes(make([]byte, 32))...)
	for name, sig := range map[string][]byte{"none": nil, "P1363": rs, "trailing": append(bytes.Clone(r.Sig), 0), "cut": r.Sig[:len(r.Sig)-1]} {
		bad := r
		bad.Sig = sig
		if _, err := v.Receipt(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := v.v.VerifySignature(bytes.NewReader(rs), bytes.NewReader(dsse.PAE(PayloadType, r.Payload))); err != nil {
		t.Errorf("the bare form is not one sigstore takes (%v): this test proves nothing", err)
	}
	for name, spoil := range map[string]func(*writ.Receipt){
		"id": func(r *writ.Receipt) { r.ID = rcp(8) }, "seq": func(r *writ.Receipt) { r.Seq++ }, "key": func(r *writ.Receipt) { r.KeyID = "" },
	} {
		bad := r
		spoil(&bad)
		if _, err := v.Receipt(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestWriteExportRefuses(t *testing.T) {
	s := testSealer(t)
	all := story()
	rs := []writ.Receipt{seal(t, s, all[0].Statement, all[0].Commit), seal(t, s, all[2].Statement, all[2].Commit)}
	if err := WriteExport(io.Discard, list(rs), s, -1, start, false); err == nil {
		t.Error("wrote an export with a gap")
	}
	failing := func(yield func(writ.Receipt, error) bool) { yield(writ.Receipt{}, io.ErrUnexpectedEOF) }
	if err := WriteExport(io.Discard, failing, s, -1, start, false); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a source that fails: %v", err)
	}
	if err := WriteExport(fullDisk{}, list(rs[:1]), s, -1, start, false); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("a writer that fails: %v", err)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func FuzzVerify(f *testing.F) {
	text := export(f, story()[:2])
	pub := testPublic(f)
	f.Add(text)
	f.Add([]byte(`{"format":"writ-receipts/v1","log":"writ.local"}` + "\n"))
	for _, line := range bytes.SplitAfter(text, []byte("\n")) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Verify(bytes.NewReader(b), pub)
		if err != nil {
			t.Fatal(err)
		}
		if r.ExitCode() == 0 && !bytes.Equal(b, text) {
			t.Fatalf("another text is good: %q", b)
		}
	})
}

func FuzzEnvelope(f *testing.F) {
	for _, line := range bytes.Split(export(f, story()[:2]), []byte("\n")) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := openEnvelope(b)
		if err != nil {
			return
		}
		again, err := Envelope(writ.Receipt{Payload: o.payload, Sig: o.sig, KeyID: o.keyID})
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%q reads as %q, %v", b, again, err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	s := testSealer(f)
	for _, rec := range story() {
		f.Add(seal(f, s, rec.Statement, rec.Commit).Payload)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := Decode(b)
		if err != nil {
			return
		}
		head, tail, err := Draft(rec.Statement)
		if err != nil {
			t.Fatal(err)
		}
		again := writ.StoredFact{Fact: writ.Fact{Run: rec.Statement.Run, Head: head, Tail: tail}, Commit: rec.Commit}.Payload()
		if !bytes.Equal(again, b) {
			t.Fatalf("%q reads as %q", b, again)
		}
	})
}

// A long export is pieces; none of them can be left out.
func TestExportInPieces(t *testing.T) {
	s := testSealer(t)
	var rs []writ.Receipt
	for _, rec := range story() {
		rs = append(rs, seal(t, s, rec.Statement, rec.Commit))
	}
	pieceAfter := func(rs []writ.Receipt, after, at int64, more bool) [][]byte {
		var b bytes.Buffer
		if err := WriteExport(&b, list(rs), s, after, at, more); err != nil {
			t.Fatal(err)
		}
		lines := bytes.SplitAfter(b.Bytes(), []byte("\n"))
		return lines[:len(lines)-1]
	}
	piece := func(rs []writ.Receipt, at int64, more bool) [][]byte { return pieceAfter(rs, firstAfter(rs), at, more) }
	a, b, none := piece(rs[:2], start+30, true), piece(rs[2:], start+40, false), pieceAfter(nil, 4, start+40, false)
	joined := func(parts ...[][]byte) []byte {
		out := bytes.Clone(parts[0][0])
		for _, p := range parts {
			out = append(out, bytes.Join(p[1:], nil)...)
		}
		return out
	}
	want := Report{Log: "writ.local", KeyID: s.KeyID(), Receipts: 5, LastSeq: 4, HeadAt: start + 40}
	if got := verify(t, joined(a, b)); got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	// The end may turn out to be empty.
	if got := verify(t, joined(piece(rs, start+30, true), none)); got.ExitCode() != 0 || got.LastSeq != 4 {
		t.Errorf("empty last piece: %+v", got)
	}
	for name, tt := range map[string]struct {
		text []byte
		want Verdict
	}{
		"last piece removed":   {joined(a), Incomplete},
		"first piece removed":  {joined(b, b), Tampered},
		"piece of another end": {joined(a, none), Tampered},
		"end of nowhere":       {joined(a, pieceAfter(nil, 1_000_000, start+40, false)), Tampered},
		"pieces swapped":       {joined(b, a), Tampered},
		"piece repeated":       {joined(a, a, b), Tampered},
		"head removed":         {joined(a[:len(a)-1], b), Tampered},
		"older head":           {joined(piece(rs[:2], start+50, true), b), Tampered},
	} {
		if got := verify(t, tt.text); got.Verdict != tt.want {
			t.Errorf("%s: %+v, want %v", name, got, tt.want)
		}
	}
}
