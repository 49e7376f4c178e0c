package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-gateway/writ/client"
)

// What many commands saw at once is all there, whichever of them were killed while they
// wrote it.
func TestWhatCommandsSawIsKeptByAll(t *testing.T) {
	path := seenFile(filepath.Join(t.TempDir(), "client", "log.json"))
	if name := os.Getenv("WRIT_TEST_SEEN"); name != "" {
		for i := range 1000 {
			text := checkpointOf(fmt.Sprintf("%s-%d", name, i))
			if err := seenFile(os.Getenv("WRIT_TEST_FILE")).Update(t.Context(), also(text)); err != nil {
				fmt.Println("failed", err)
				return
			}
			fmt.Printf("kept %q\n", text)
		}
		return
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var kept []string
	for i := range 4 {
		c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWhatCommandsSawIsKeptByAll$")
		c.Env = append(os.Environ(), fmt.Sprint("WRIT_TEST_SEEN=", i), "WRIT_TEST_FILE="+string(path))
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			n, lines := 0, bufio.NewScanner(out)
			for lines.Scan() {
				switch word, text, _ := strings.Cut(lines.Text(), " "); word {
				case "kept":
					mu.Lock()
					text, err := strconv.Unquote(text)
					if err != nil {
						t.Error(err)
					}
					kept = append(kept, text)
					mu.Unlock()
				case "failed":
					t.Error(text)
				}
				if n++; n == 20+5*i {
					_ = c.Process.Kill() // while it writes the next, or thereabouts
				}
			}
			_ = c.Wait()
		})
	}
	wg.Wait()
	seen, err := path.Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range kept {
		if !slices.Contains(seen.Others, text) {
			t.Errorf("%s is gone", text)
		}
	}
	if len(kept) < 110 || len(seen.Others) > len(kept)+4 {
		t.Errorf("%d were kept, and %d are there", len(kept), len(seen.Others))
	}
	// A command that was stopped in the middle is waited for, and what it left is no obstacle.
	dir, err := lockDir(t.Context(), filepath.Dir(string(path)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(string(path)+".new", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := path.Update(ctx, also(checkpointOf("x"))); err == nil {
		t.Error("it is written while it is locked")
	}
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	if err := path.Update(t.Context(), also(checkpointOf("x"))); err != nil {
		t.Error(err)
	}
	if seen, err := path.Load(); err != nil || !slices.Contains(seen.Others, checkpointOf("x")) {
		t.Errorf("%v, %d", err, len(seen.Others))
	}
}

// also adds one more.
func also(text string) func(client.LogSeen) client.LogSeen {
	return func(kept client.LogSeen) client.LogSeen {
		kept.Shown, kept.Others = checkpointOf("newest"), append(kept.Others, text)
		return kept
	}
}

// A command that cannot keep what it was shown does what it was told, and says so.
func TestWhatCommandsSawCannotBeKept(t *testing.T) {
	secret, key, err := note.GenerateKey(nil, "writ.local")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	body, _, _ := strings.Cut(checkpointOf("writ.local"), "\n\n")
	signed, err := note.Sign(&note.Note{Text: body + "\n"}, signer)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Writ-Checkpoint", base64.StdEncoding.EncodeToString(signed))
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"status":"done","data":{"checkpoint":%q,"verifier_key":%q}}`, signed, key)
	}))
	defer srv.Close()
	data := dataAt(t, t.TempDir(), srv.URL)
	path := filepath.Join(data, "log-seen.json")
	if err := os.MkdirAll(filepath.Join(path+".new", "x"), 0o700); err != nil { // which nothing can be written to
		t.Fatal(err)
	}
	for range 2 {
		out, said, exit := typed("run", "list", "--data", data, "-o", "json")
		if exit != exitOK || !strings.HasPrefix(said, "writ: warning: ") || strings.Count(said, client.ErrNotKept.Error()) != 1 || !strings.Contains(said, "log-seen.json") || !strings.Contains(out, "{") {
			t.Errorf("%d %s %s", exit, out, said)
		}
	}
	if _, said, exit := typed("log", "check", "--data", data); exit != exitUnverified || !strings.Contains(said, "only grew, but") || strings.Count(said, client.ErrNotKept.Error()) != 1 {
		t.Errorf("%d %s", exit, said)
	}
	if err := os.RemoveAll(path + ".new"); err != nil {
		t.Fatal(err)
	}
	for _, words := range [][]string{{"run", "list"}, {"log", "check"}} {
		if out, said, exit := typed(append(words, "--data", data)...); exit != exitOK || said != "" {
			t.Errorf("%d %s %s", exit, out, said)
		}
	}
}

// checkpointOf is what could be a checkpoint of a log of that name.
func checkpointOf(origin string) string {
	return origin + "\n3\n" + strings.Repeat("A", 43) + "=\n\n— " + origin + " " + strings.Repeat("A", 12) + "\n"
}

// A file that was damaged is said, by every command, and is neither believed nor written over.
func TestWhatCommandsSawIsDamaged(t *testing.T) {
	shown := base64.StdEncoding.EncodeToString([]byte(checkpointOf("writ.local")))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Writ-Checkpoint", shown)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"status":"done","data":{}}`)
	}))
	defer srv.Close()
	for _, text := range []string{"", "{", `{"proven":"x"}`, `{"verifier_key":"writ.local+b4618fe7+AYS046cwsalB2sLk5WtRosBEcAbqekOfqyyRe8IAeHn0","proven":"writ.local\n5\n"}`, `[1]`, `{}`, `null`, `{"dropped":{"count":1}}`, `{"shown":"x"}`} {
		data := dataAt(t, t.TempDir(), srv.URL)
		path := filepath.Join(data, "log-seen.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, said, exit := typed("run", "list", "--data", data, "-o", "json")
		if exit != exitError || !strings.Contains(said, "move "+path+" away") || !strings.Contains(out, "{") {
			t.Errorf("%q: %d %s %s", text, exit, out, said)
		}
		if out, said, exit := typed("log", "check", "--data", data); exit != exitUnverified || out != "" || !strings.Contains(said, "move "+path+" away") {
			t.Errorf("%q: %d %s %s", text, exit, out, said)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != text {
			t.Errorf("%q is %q now: %v", text, b, err)
		}
	}
}
