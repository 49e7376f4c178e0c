// Package witnesstest is a witness in memory (C2SP tlog-witness), for tests.
package witnesstest

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/checkpoint"
)

// Witness cosigns what goes on from what it cosigned before.
type Witness struct {
	Name string
	Now  func() time.Time

	key  ed25519.PrivateKey
	logs map[string]string // verifier keys it knows, by origin

	mu    sync.Mutex
	seen  map[string]checkpoint.Checkpoint
	down  bool
	lies  bool // it answers with a signature of something else
	asked int
}

// New makes a witness of logs, each named by its verifier key; none: of every log, whose
// signature it does not check then.
func New(name string, seed byte, logs ...string) *Witness {
	w := &Witness{
		Name: name, Now: time.Now, key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)),
		logs: map[string]string{}, seen: map[string]checkpoint.Checkpoint{},
	}
	for _, key := range logs {
		origin, _, _ := strings.Cut(key, "+")
		w.logs[origin] = key
	}
	return w
}

// Key is its verifier key.
func (w *Witness) Key() string {
	return w.witness().String()
}

func (w *Witness) witness() *checkpoint.Witness {
	public, _ := w.key.Public().(ed25519.PublicKey)
	return checkpoint.NewEd25519Witness(w.Name, public)
}

// Down makes it answer nothing useful, or again as it should.
func (w *Witness) Down(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
}

// Lie makes it sign something else than it was asked to.
func (w *Witness) Lie(lies bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lies = lies
}

// Seen is the latest checkpoint it cosigned of a log, and how often it was asked.
func (w *Witness) Seen(origin string) (checkpoint.Checkpoint, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[origin], w.asked
}

// Forget makes it forget what it cosigned.
func (w *Witness) Forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.seen)
}

// ServeHTTP implements add-checkpoint.
func (w *Witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if w.down || r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/add-checkpoint") {
		http.Error(rw, "no", http.StatusServiceUnavailable)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	if err != nil {
		return
	}
	head, text, ok := bytes.Cut(body, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	old, err := strconv.ParseInt(strings.TrimPrefix(lines[0], "old "), 10, 64)
	if !ok || err != nil || !strings.HasPrefix(lines[0], "old ") || len(lines) > 64 {
		http.Error(rw, "malformed", http.StatusBadRequest)
		return
	}
	var proof tlog.TreeProof
	for _, l := range lines[1:] {
		h, err := base64.StdEncoding.DecodeString(l)
		if err != nil || len(h) != tlog.HashSize {
			http.Error(rw, "malformed", http.StatusBadRequest)
			return
		}
		proof = append(proof, tlog.Hash(h))
	}
	origin, cp, err := checkpoint.Unverified(text)
	if err != nil || old > cp.Size {
		http.Error(rw, "malformed", http.StatusBadRequest)
		return
	}
	if len(w.logs) > 0 {
		if w.logs[origin] == "" {
			http.Error(rw, "unknown", http.StatusNotFound)
			return
		}
		if _, err := checkpoint.Parse(text, w.logs[origin]); err != nil {
			http.Error(rw, "not signed", http.StatusForbidden)
			return
		}
	}
	have := w.seen[origin]
	if have.Size != old {
		rw.Header().Set("Content-Type", "text/x.tlog.size")
		rw.WriteHeader(http.StatusConflict)
		_, _ = fmt.Fprintf(rw, "%d\n", have.Size)
		return
	}
	if have.Size == 0 && len(proof) > 0 || !checkpoint.Consistent(have, cp, proof) {
		http.Error(rw, "not consistent", http.StatusUnprocessableEntity)
		return
	}
	w.seen[origin] = cp
	said, _, _ := bytes.Cut(text, []byte("\n\n"))
	if w.lies {
		said = append([]byte("other."), said...)
	}
	at := w.Now().Unix()
	line := binary.BigEndian.AppendUint32(nil, w.witness().KeyHash())
	line = binary.BigEndian.AppendUint64(line, uint64(at))
	sig, err := receipts.SignCheckpoint(w.key, checkpoint.Cosigned(at, append(bytes.Clone(said), '\n')))
	if err != nil {
		http.Error(rw, "no", http.StatusInternalServerError)
		return
	}
	line = append(line, sig...)
	_, _ = fmt.Fprintf(rw, "— %s %s\n", w.Name, base64.StdEncoding.EncodeToString(line))
}
