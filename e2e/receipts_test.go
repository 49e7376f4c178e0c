package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// statement is the part of a receipt the tests look at.
type statement struct {
	Predicate struct {
		Actor   struct{ Session writ.SessionID }
		Changes []writ.Change
		Code    writ.Code
		Commit  struct {
			Seq, RunSeq int64
			At          time.Time
		}
		Evidence   string
		Outcome    string
		Parents    []writ.ReceiptID
		ReceiptID  writ.ReceiptID
		Run        string
		Task       string
		Transition writ.CapabilityID
	}
}

// export writes all receipts to a file with the program's own command, checks
// it offline with nothing but the public key, and returns file and content.
func (w *world) export() (path string, all []statement) {
	w.t.Helper()
	path = filepath.Join(w.t.(interface{ TempDir() string }).TempDir(), "receipts.jsonl")
	if r := command(w.t, "receipt", "export", "--data", w.gw[0].data, "--out", path); r.code != 0 {
		w.t.Fatalf("receipt export: %s", r)
	}
	if r := w.verify(path); r.code != 0 {
		w.t.Fatalf("receipt verify: %s", r)
	}
	return path, statements(w.t, path)
}

// audited verifies offline all receipts there are, and the log as it is published,
// whatever happened to the gateway that writes it.
func (w *world) audited() {
	w.t.Helper()
	w.export()
	w.logged()
}

// happenedOnce checks by the receipts that moves, each "<kind> <id> <from> <to>", happened
// once each.
func (w *world) happenedOnce(moves map[string]int) {
	w.t.Helper()
	_, all := w.export()
	for _, s := range all {
		for _, m := range s.Predicate.Changes {
			move := m.Kind + " " + m.ID + " " + m.From + " " + m.To
			if n, counts := moves[move]; counts {
				moves[move] = n + 1
			}
		}
	}
	for move, n := range moves {
		if n != 1 {
			w.t.Errorf("%s happened %d times", move, n)
		}
	}
}

func (w *world) logged() {
	w.t.Helper()
	head := w.op.at(w.gw[0]).ok(200, "GET", "/v1/log/head", nil)
	if n, ok := head.at("size").(json.Number); ok && n == "0" {
		return // the gateway has not run for a second
	}
	key := head.str("verifier_key")
	if r := command(w.t, "log", "verify", filepath.Join(w.gw[0].data, "log"), "--log-key", key, "--key", w.publicKey()); r.code != 0 {
		w.t.Errorf("the log does not verify: %s", r)
	}
}

// inTheLogAsExported checks that the log holds the receipts of the gateway, each at the
// index that is its sequence, and waits until it has them all.
func (w *world) inTheLogAsExported() {
	w.t.Helper()
	path, all := w.export()
	last := string(all[len(all)-1].Predicate.ReceiptID)
	if r := w.op.at(w.gw[0]).ok(200, "GET", "/v1/receipts/"+last+"?wait=included", nil); r.at("included") != true {
		w.t.Fatalf("the log does not come up: %s", r)
	}
	w.logged()
	text, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	entries := entriesOf(w.t, filepath.Join(w.gw[0].data, "log"))
	seq := 0
	for line := range bytes.Lines(text) {
		var e struct {
			Payload     []byte `json:"payload"`
			PayloadType string `json:"payloadType"`
			Signatures  []struct {
				Sig []byte `json:"sig"`
			} `json:"signatures"`
		}
		if err := json.Unmarshal(line, &e); err != nil || len(e.Signatures) != 1 || !bytes.Contains(e.Payload, []byte(`"receiptId"`)) {
			continue // the header and the heads
		}
		digest := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(e.PayloadType), e.PayloadType, len(e.Payload), e.Payload))
		if seq >= len(entries) || !bytes.Contains(entries[seq], []byte(base64.StdEncoding.EncodeToString(digest[:]))) ||
			!bytes.Contains(entries[seq], []byte(base64.StdEncoding.EncodeToString(e.Signatures[0].Sig))) {
			w.t.Fatalf("the log has something else than receipt %d at its index", seq)
		}
		seq++
	}
	if seq != len(all) {
		w.t.Errorf("compared %d of %d receipts", seq, len(all))
	}
}

// entriesOf reads the entries of a log, of which there are fewer than 256,000.
func entriesOf(t testing.TB, dir string) (out [][]byte) {
	t.Helper()
	head, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	size, err := strconv.Atoi(strings.Split(string(head), "\n")[1])
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; len(out) < size; n++ {
		path := filepath.Join(dir, "tile", "entries", fmt.Sprintf("%03d", n))
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			data, err = os.ReadFile(filepath.Join(path+".p", strconv.Itoa(size%256)))
		}
		if err != nil {
			t.Fatal(err)
		}
		for len(data) > 0 {
			end := 2 + int(data[0])<<8 + int(data[1])
			out, data = append(out, data[2:end]), data[end:]
		}
	}
	return out[:size]
}

// publicKey is what receipts are verified with.
func (w *world) publicKey() string {
	if w.redis != nil {
		return filepath.Join(filepath.Dir(w.gw[0].data), "keys", "receipt.pub")
	}
	return filepath.Join(w.gw[0].data, "keys", "receipt.pub")
}

func (w *world) verify(path string) result {
	w.t.Helper()
	return command(w.t, "receipt", "verify", path, "--key", w.publicKey(), "-o", "json")
}

// statements reads an export: of every envelope what was signed. Headers and
// heads are left out.
func statements(t testing.TB, path string) []statement {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []statement
	for line := range bytes.Lines(text) {
		var env struct{ Payload []byte }
		var s statement
		if err := json.Unmarshal(line, &env); err != nil {
			t.Fatal(err)
		}
		if len(env.Payload) == 0 {
			continue
		}
		if err := json.Unmarshal(env.Payload, &s); err != nil {
			t.Fatal(err)
		}
		if s.Predicate.ReceiptID != "" {
			out = append(out, s)
		}
	}
	return out
}

// explained replays receipts: where they leave every object, and the sequence
// of the last one about it. Transitions only; a denial changes nothing.
type explained struct {
	state map[string]string // "<kind> <id>" → state
	seq   map[string]int64
	known map[writ.ReceiptID]statement
}

func explain(t testing.TB, all []statement) explained {
	t.Helper()
	e := explained{state: map[string]string{}, seq: map[string]int64{}, known: map[writ.ReceiptID]statement{}}
	for i, s := range all {
		p := s.Predicate
		if p.Commit.Seq != int64(i) {
			t.Fatalf("receipt %d has sequence %d", i, p.Commit.Seq)
		}
		e.known[p.ReceiptID] = s
		for _, c := range p.Changes {
			name := c.Kind + " " + c.ID
			if e.state[name] != c.From {
				t.Fatalf("receipt %d moves %s from %q; the receipts before left it %q", i, name, c.From, e.state[name])
			}
			e.state[name], e.seq[name] = c.To, p.Commit.Seq
		}
	}
	return e
}
