package ledger

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
)

const childDir = "WRIT_TEST_LEDGER"

// TestKilled appends in another process, kills it at a random moment, and
// opens what is left: everything it was told is written must be there.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(childDir); dir != "" {
		appendForever(t, dir)
		return
	}
	seed := rand.Int63()
	r := rand.New(rand.NewSource(seed))
	dir := t.TempDir()
	rounds := 8
	if os.Getenv("WRIT_SOAK") != "" {
		rounds = 200
	}
	acked := int64(-1)
	for round := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 1 + r.Intn(40) {
			if !lines.Scan() {
				t.Fatalf("seed %d, round %d: the child ended by itself", seed, round)
			}
			if last, ok := strings.CutPrefix(lines.Text(), "acked "); ok {
				if acked, err = strconv.ParseInt(last, 10, 64); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it said before it died
			if last, ok := strings.CutPrefix(lines.Text(), "acked "); ok {
				if n, err := strconv.ParseInt(last, 10, 64); err == nil {
					acked = n
				}
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the child was not killed")
		}
		l := mustOpen(t, dir, 20_000)
		if l.Last() < acked {
			t.Fatalf("seed %d, round %d: %d was acknowledged, the ledger ends at %d", seed, round, acked, l.Last())
		}
		holds(t, l, l.Last())
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func appendForever(t *testing.T, dir string) {
	l := mustOpen(t, dir, 20_000)
	for {
		last := l.Last()
		mustAppend(t, l, entries(last+1, last+1+last%6))
		fmt.Fprintf(os.Stdout, "acked %d\n", l.Last())
	}
}

// The whole way with real keys: facts, integrator, ledger, export, verifier.
func TestExportOfLedger(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	keys, err := receipts.LoadOrCreate(filepath.Join(dir, "keys"), receipts.KeyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := keys.Sealer()
	if err != nil {
		t.Fatal(err)
	}
	o := newOutbox()
	for seq := range int64(40) {
		run := writ.RunID(id(writ.PrefixRun, seq))
		sum, sealed, err := s.Evidence([16]byte{byte(seq)}, entryOf(seq).ID, map[string]any{"title": "for people only", "seq": seq})
		if err != nil {
			t.Fatal(err)
		}
		st := writ.Statement{
			Receipt: entryOf(seq).ID, Tenant: shard, Transition: "run.create", Outcome: writ.OutcomeOfTransition, Run: run, Evidence: sum,
			Changes: []writ.Change{{Kind: writ.ObjectRun, ID: string(run), To: string(writ.RunActive)}},
		}
		head, tail, err := s.Draft(st)
		if err != nil {
			t.Fatal(err)
		}
		o.facts = append(o.facts, writ.StoredFact{
			Fact:   writ.Fact{ID: st.Receipt, Run: run, KeyID: s.KeyID(), Head: head, Tail: tail, Evidence: sealed},
			Commit: writ.Committed{Epoch: "e", Seq: seq, RunSeq: 1, At: 1000 + seq},
		})
	}
	l := mustOpen(t, filepath.Join(dir, "ledger"), 8000)
	if n, err := NewIntegrator(shard, l, o, s).Round(ctx, 0); n != 40 || err != nil {
		t.Fatal(n, err)
	}
	var export bytes.Buffer
	if err := receipts.WriteExport(&export, l.All(-1, l.Last()), s, -1, 5000, false); err != nil {
		t.Fatal(err)
	}
	pub, err := os.ReadFile(filepath.Join(dir, "keys", receipts.FilePublic))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(export.Bytes(), []byte("people")) {
		t.Error("the export shows evidence")
	}
	if r, err := receipts.Verify(&export, pub); err != nil || r.ExitCode() != 0 || r.Receipts != 40 {
		t.Errorf("got %+v, %v", r, err)
	}
	got, ok, err := l.ByID(entryOf(7).ID)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	plain, err := receipts.OpenEvidence(keys.Evidence, got.ID, got.Evidence)
	if err != nil || !json.Valid(plain) || !bytes.Contains(plain, []byte(`"seq":7`)) {
		t.Errorf("evidence %s, %v", plain, err)
	}
}
