package e2e

import (
	"bytes"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

func (c caller) client() *client.Client {
	c.t.Helper()
	cl, err := client.New(client.Config{URL: c.gw.url, Token: c.token})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(cl.Close)
	return cl
}

// What programs and people do with artifacts: a file as large as may be goes through
// the client, a stream too, and the commands save only what they have checked.
func TestP4ArtifactsForPrograms(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		task := c.enqueue("make", obj{"produces": []obj{made("large", "application/octet-stream", nil), made("log", "text/plain", nil), made("empty", "text/plain", nil)}})
		use := pipe()
		use["consumes"] = []obj{{"name": "large", "from": "make"}}
		next := c.enqueue("use", use)
		agent := c.builder.client()
		held, err := agent.Claim(t.Context(), client.ClaimOptions{Task: writ.TaskID(task)})
		if err != nil {
			t.Fatal(err)
		}
		large := make([]byte, writ.MaxArtifactBytes+1)
		_, _ = rand.Read(large)
		if _, err := agent.PutArtifact(t.Context(), held, "large", "", bytes.NewReader(large)); writ.CodeOf(err) != writ.CodeTooLarge {
			t.Errorf("a byte too many: %v", err)
		}
		// A stream states no size: it is cut where it is too long.
		if _, err := agent.PutArtifact(t.Context(), held, "large", "", io.MultiReader(bytes.NewReader(large))); err == nil {
			t.Error("a byte too many in a stream was taken")
		}
		large = large[1:]
		var all []client.Artifact
		for name, r := range map[string]io.Reader{"large": bytes.NewReader(large), "log": io.MultiReader(strings.NewReader("line\n")), "empty": strings.NewReader("")} {
			a, err := agent.PutArtifact(t.Context(), held, name, "", r)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			all = append(all, a)
		}
		if _, err := agent.CompleteWith(t.Context(), held, nil, nil, all); err != nil {
			t.Fatal(err)
		}

		other := c.another().at(w.last()).client()
		given, err := other.Claim(t.Context(), client.ClaimOptions{Task: writ.TaskID(next)})
		if err != nil || len(given.Inputs) != 1 || given.Inputs[0].From != writ.TaskID(task) {
			t.Fatalf("%+v, %v", given, err)
		}
		in := given.Inputs[0]
		var got bytes.Buffer
		if n, err := other.ReadArtifact(t.Context(), given.Task.ID, in.Digest, &got); err != nil || n != writ.MaxArtifactBytes || !bytes.Equal(got.Bytes(), large) {
			t.Fatalf("read %d bytes, %v", n, err)
		}
		if a, err := other.GetArtifact(t.Context(), given.Task.ID, in.Digest); err != nil || a.Digest != in.Digest || a.Name != "large" {
			t.Errorf("%+v, %v", a, err)
		}
		if page, err := w.op.client().ListArtifacts(t.Context(), writ.RunID(c.run), ""); err != nil || len(page.Artifacts) != 3 {
			t.Errorf("%+v, %v", page, err)
		}

		// The commands.
		dir := t.TempDir()
		token := filepath.Join(dir, "token")
		if err := os.WriteFile(token, []byte(c.builder.token), 0o600); err != nil {
			t.Fatal(err)
		}
		l := c.builder.claim(c.enqueue("more", obj{"produces": []obj{made("note", "text/plain", nil)}}))
		note := filepath.Join(dir, "note")
		if err := os.WriteFile(note, []byte("a note"), 0o600); err != nil {
			t.Fatal(err)
		}
		at := []string{"--url", c.gw[0].url, "--token-file", token}
		put := command(t, append([]string{"artifact", "put", note, "--task-id", l.task, "--lease-id", l.id, "--fence", strconv.FormatInt(l.fence, 10), "--name", "note", "-o", "json"}, at...)...)
		if put.code != 0 || !strings.Contains(put.stdout, digestOf("a note")) {
			t.Fatalf("put: %s", put)
		}
		saved := filepath.Join(dir, "saved")
		get := append([]string{"artifact", "get", digestOf("a note"), "--task-id", l.task, "--out", saved}, at...)
		if r := command(t, get...); r.code != 0 {
			t.Fatalf("get: %s", r)
		}
		if b, err := os.ReadFile(saved); err != nil || string(b) != "a note" {
			t.Errorf("saved %q, %v", b, err)
		}
		if r := command(t, get...); r.code == 0 {
			t.Errorf("a file was written over: %s", r)
		}
		if r := command(t, append([]string{"artifact", "content", digestOf("a note"), "--task-id", l.task}, at...)...); r.code != 0 || r.stdout != "a note" {
			t.Errorf("content: %s", r)
		}
		blobs, _ := w.artifactFiles()
		for _, b := range blobs {
			if strings.HasSuffix(b, digestOf("a note")[9:]) {
				if err := os.WriteFile(b, []byte("b note"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		broken := filepath.Join(dir, "broken")
		get[6] = broken
		if r := command(t, get...); r.code != 7 || !strings.Contains(r.stderr, "artifact") {
			t.Errorf("damaged: %s", r)
		}
		if _, err := os.Stat(broken); err == nil {
			t.Error("what is damaged was saved")
		}
	})
}
