package tlog

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/checkpoint"
	"github.com/writ-gateway/writ/receipts/tlog/witnesstest"
)

// witnessed is a log of receipts in memory with witnesses in this process.
type witnessed struct {
	t      *testing.T
	dir    string
	memory *memory
	by     []*witnesstest.Witness
	urls   []string
	open   bool

	log      *Log
	follower *Follower
}

func newWitnessed(t *testing.T, open bool, by ...*witnesstest.Witness) *witnessed {
	w := &witnessed{t: t, dir: t.TempDir(), memory: newMemory(), by: by, open: open}
	for _, b := range by {
		srv := httptest.NewServer(b)
		t.Cleanup(srv.Close)
		w.urls = append(w.urls, srv.URL+"/at/")
	}
	w.start()
	return w
}

func (w *witnessed) start() {
	w.t.Helper()
	l, err := Open(w.dir, testKey(w.t))
	if err != nil {
		w.t.Fatal(err)
	}
	var asked []*Witness
	for i, b := range w.by {
		one, err := NewWitness(w.urls[i], b.Key())
		if err != nil {
			w.t.Fatal(err)
		}
		asked = append(asked, one)
	}
	l.Witnessed(asked, w.open)
	w.log, w.follower = l, NewFollower(l, w.memory, func(string) ([]byte, bool) { return []byte("der"), true }, MinEvery)
	if err := w.follower.compare(); err != nil {
		w.t.Fatal(err)
	}
}

// grow adds receipts and has them published.
func (w *witnessed) grow(n int) error {
	w.memory.add(n, "a")
	return w.follower.round(w.t.Context())
}

// cosigned is of how many witnesses the published checkpoint has the signature.
func (w *witnessed) cosigned() (n int) {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, CheckpointPath))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, b := range w.by {
		key, err := NewWitnessKey(b.Key())
		if err != nil {
			w.t.Fatal(err)
		}
		if _, err := key.At(text); err == nil {
			n++
		} else if !errors.Is(err, ErrNotCosigned) {
			w.t.Fatal(err)
		}
	}
	return n
}

func knowing(t *testing.T, name string, seed byte) *witnesstest.Witness {
	return witnesstest.New(name, seed, verifierOf(t, testKey(t)))
}

// Each checkpoint is cosigned by all witnesses before it is published, each time from the
// one before, across restarts and whatever a witness has forgotten.
func TestCheckpointsAreCosigned(t *testing.T) {
	one, two := knowing(t, "one.example", 1), knowing(t, "two.example", 2)
	w := newWitnessed(t, false, one, two)
	for _, n := range []int{3, 250, 3, 44, 700} {
		if err := w.grow(n); err != nil || w.cosigned() != 2 {
			t.Fatalf("%v, %d", err, w.cosigned())
		}
	}
	if _, asked := one.Seen("log.example.org"); asked != 5 {
		t.Errorf("asked %d times", asked)
	}
	w.start()
	if err := w.grow(1); err != nil || w.cosigned() != 2 {
		t.Fatal(err)
	}
	if seen, asked := one.Seen("log.example.org"); asked != 6 || seen.Size != 1001 || seen.Root != w.log.Latest().Root {
		t.Errorf("asked %d times, has seen %v", asked, seen)
	}
	two.Forget()
	if err := w.grow(1); err != nil || w.cosigned() != 2 {
		t.Fatal(err)
	}
	(&history{}).whole(t, w.dir, w.memory)

	// Who verifies may ask for them.
	var keys []*WitnessKey
	for _, b := range append(w.by, knowing(t, "three.example", 3)) {
		key, err := NewWitnessKey(b.Key())
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	trust := Trust{Log: verifierOf(t, testKey(t)), Witnesses: keys[:2]}
	if _, err := Verify(t.Context(), w.dir, trust, nil); err != nil {
		t.Error(err)
	}
	trust.Witnesses = keys
	if _, err := Verify(t.Context(), w.dir, trust, nil); !errors.Is(err, ErrNotCosigned) || !strings.Contains(err.Error(), "three.example") {
		t.Errorf("it has a third: %v", err)
	}
}

// A witness that does not sign keeps a checkpoint from being published, or not, as
// configured; either way it is said, and once it signs all is well.
func TestAWitnessThatDoesNotSign(t *testing.T) {
	for _, open := range []bool{false, true} {
		for name, set := range map[string]func(*witnesstest.Witness, bool){
			"down": (*witnesstest.Witness).Down, "lies": (*witnesstest.Witness).Lie,
		} {
			good, bad := knowing(t, "one.example", 1), knowing(t, "two.example", 2)
			w := newWitnessed(t, open, good, bad)
			if err := w.grow(5); err != nil {
				t.Fatal(err)
			}
			set(bad, true)
			err := w.grow(5)
			switch {
			case open && (err != nil || w.log.Latest().Size != 10 || w.cosigned() != 1):
				t.Errorf("%s, open: %v, %d, %d", name, err, w.log.Latest().Size, w.cosigned())
			case !open && (!errors.Is(err, ErrWitness) || !strings.Contains(err.Error(), "two.example") || w.log.Latest().Size != 5 || w.cosigned() != 2):
				t.Errorf("%s, closed: %v, %d, %d", name, err, w.log.Latest().Size, w.cosigned())
			}
			if !errors.Is(w.log.Unwitnessed(), ErrWitness) {
				t.Errorf("%s, open %v: it is not said", name, open)
			}
			set(bad, false)
			if err := w.grow(5); err != nil || w.log.Latest().Size != 15 || w.cosigned() != 2 || w.log.Unwitnessed() != nil {
				t.Errorf("%s, open %v, then: %v, %d, %d, %v", name, open, err, w.log.Latest().Size, w.cosigned(), w.log.Unwitnessed())
			}
			(&history{}).whole(t, w.dir, w.memory)
		}
	}
}

// A log that goes back, or on from something else, is not cosigned, and not published
// either: even with its key nobody else is shown it.
func TestAWitnessStopsAForkedLog(t *testing.T) {
	for name, c := range map[string]struct {
		n    int
		want string
	}{"shorter": {7, "has seen this log with 10 receipts"}, "as long": {10, "forked"}, "longer": {25, "forked"}} {
		by := knowing(t, "one.example", 1)
		w := newWitnessed(t, false, by)
		if err := w.grow(10); err != nil {
			t.Fatal(err)
		}
		forked := &witnessed{t: t, dir: t.TempDir(), memory: newMemory(), by: w.by, urls: w.urls}
		forked.start()
		forked.memory.add(c.n, "b")
		err := forked.follower.round(t.Context())
		if !errors.Is(err, ErrWitness) || !strings.Contains(err.Error(), c.want) || forked.log.Latest().Size != 0 {
			t.Errorf("%s: %v, %d published", name, err, forked.log.Latest().Size)
		}
	}
}

// What a witness is sent is as C2SP tlog-witness has it.
func TestWhatAWitnessIsSent(t *testing.T) {
	var got []string
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = append(got, r.Method+" "+r.URL.Path+"\n"+string(b))
		if len(got) == 1 {
			rw.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(rw, "2\n")
			return
		}
		http.Redirect(rw, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
	}))
	defer srv.Close()
	w, err := NewWitness(srv.URL+"/w/", witnesstest.New("one.example", 1).Key())
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.TempDir(), testKey(t))
	if err != nil {
		t.Fatal(err)
	}
	l.Witnessed([]*Witness{w}, false)
	if err := l.Append([][]byte{[]byte("a"), []byte("b"), []byte("c")}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Publish(); !errors.Is(err, ErrWitness) || !strings.Contains(err.Error(), "HTTP 307") {
		t.Errorf("it says %v", err)
	}
	want := []string{
		"POST /w/add-checkpoint\nold 0\n\nlog.example.org\n3\n",
		"POST /w/add-checkpoint\nold 2\nWX/LMSgtNGVMIA00GPylcFxkjr8ybsc9jd7xGEH4dtg=\n\nlog.example.org\n3\n",
	}
	if len(got) != 2 || !strings.HasPrefix(got[0], want[0]) || !strings.HasPrefix(got[1], want[1]) {
		t.Errorf("sent %q", got)
	}
}

// With a second key each checkpoint has its signature too, beside those of witnesses, and
// who verifies can ask for it.
func TestTheSecondKey(t *testing.T) {
	seed := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	second, err := receipts.SecondLogKey(seed, "log.example.org")
	if err != nil {
		t.Fatal(err)
	}
	by := knowing(t, "one.example", 1)
	w := newWitnessed(t, false, by)
	w.log.key.Second(second)
	if err := w.grow(300); err != nil || w.cosigned() != 1 {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(w.dir, CheckpointPath))
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewWitnessKey(w.log.Key().SecondVerifier().String())
	if err != nil || key.Name() != "log.example.org" {
		t.Fatal(err)
	}
	if sum := sha256.Sum256([]byte(key.String())); fmt.Sprintf("%x", sum[:8]) != pinnedSecond {
		t.Errorf("the key that follows from the first is another than it was: %x", sum[:8])
	}
	if at, err := key.At(text); err != nil || time.Since(at).Abs() > time.Minute {
		t.Errorf("%v, %v", at, err)
	}
	trust := Trust{Log: verifierOf(t, testKey(t)), Witnesses: []*WitnessKey{key}}
	if _, err := Verify(t.Context(), w.dir, trust, nil); err != nil {
		t.Error(err)
	}
	if size := len(text); size > 4200 {
		t.Errorf("a checkpoint has %d bytes", size)
	}
	if compact, err := checkpoint.FromCompact(w.log.Latest().Compact()); err != nil || len(compact) > 300 {
		t.Errorf("what replies carry has %d bytes, %v", len(compact), err)
	}
	// Changed anywhere, or of another state, it does not hold.
	lines := strings.SplitAfter(string(text), "\n")
	for i, line := range lines {
		if !strings.HasPrefix(line, "— log.example.org ") || len(line) < 1000 {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(strings.Fields(line)[2])
		if err != nil {
			t.Fatal(err)
		}
		for at := 4; at < len(raw); at += 97 {
			raw[at] ^= 1
			lines[i] = "— log.example.org " + base64.StdEncoding.EncodeToString(raw) + "\n"
			if _, err := key.At([]byte(strings.Join(lines, ""))); !errors.Is(err, ErrCheckpoint) {
				t.Fatalf("byte %d: %v", at, err)
			}
			raw[at] ^= 1
		}
	}
	if _, err := key.At([]byte(strings.Replace(string(text), "\n300\n", "\n301\n", 1))); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("of another state: %v", err)
	}
	if other, err := receipts.SecondLogKey(seed, "other.example.org"); err != nil || other.PublicKey().Equal(second.PublicKey()) {
		t.Errorf("two logs have one second key: %v", err)
	}
	remote, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := receipts.SecondLogKey(remote, "x"); err == nil {
		t.Error("a key whose seed nobody has gives a second one")
	}
}

// pinnedSecond is the beginning of the digest of the second key of a seed of zeros.
const pinnedSecond = "4fed04a7b10bae87"

func TestAddressesOfWitnesses(t *testing.T) {
	key := witnesstest.New("one.example", 1).Key()
	for _, bad := range []string{"", "ftp://h", "https://", "https://u:p@h", "https://h?x", "https://h#x", "%"} {
		if _, err := NewWitness(bad, key); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if _, err := NewWitness("https://h", verifierOf(t, testKey(t))); err == nil {
		t.Error("the key of a log is taken")
	}
}
