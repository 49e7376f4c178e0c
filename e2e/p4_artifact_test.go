package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

func digestOf(b string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(b))) }

// made declares artifacts as a test wants them.
func made(name, mediaType string, more obj) obj {
	b := obj{"name": name, "media_type": mediaType, "required": true}
	for k, v := range more {
		b[k] = v
	}
	return b
}

// putPath is where an artifact of a held task goes.
func putPath(l lease, name string, more ...string) string {
	p := fmt.Sprintf("/v1/artifacts?task_id=%s&lease_id=%s&fence=%d&name=%s", l.task, l.id, l.fence, name)
	for _, m := range more {
		p += "&" + m
	}
	return p
}

func (c caller) put(l lease, name, body string, more ...string) string {
	c.t.Helper()
	r := c.ok(201, "PUT", putPath(l, name, more...), body)
	if r.str("digest") != digestOf(body) || r.num("size") != int64(len(body)) || r.receipt() == "" {
		c.t.Fatalf("put: %s", r)
	}
	return r.str("digest")
}

func (c caller) content(task, digest string) reply {
	c.t.Helper()
	return c.do("GET", "/v1/artifacts/"+digest+"/content?task_id="+task, nil)
}

// artifactFiles are the files of the store of artifacts, temporary ones too.
func (w *world) artifactFiles() (blobs, temporary []string) {
	w.t.Helper()
	root := filepath.Join(w.gw[0].data, "artifacts")
	if w.redis != nil {
		root = filepath.Join(filepath.Dir(w.gw[0].data), "artifacts")
	}
	for dir, out := range map[string]*[]string{"sha256": &blobs, "tmp": &temporary} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				*out = append(*out, path)
			}
			return err
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return blobs, temporary
}

func pipe() obj { return obj{"depends_on": []obj{{"key": "make"}}} }

// What a task must make has to be there when it is completed, and the task that is
// given it gets it with its claim, at another gateway.
func TestP4T1ArtifactsAreHandedOn(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		task := c.enqueue("make", obj{"produces": []obj{
			made("report", "application/json", obj{"schema": obj{"type": "object", "required": []string{"ok"}, "properties": obj{"ok": obj{"type": "boolean"}}}}),
			made("site", "application/zip", obj{"max_bytes": 100, "labels": []string{"public", "external.untrusted"}}),
			made("log", "text/plain", obj{"required": false}),
		}})
		use := pipe()
		use["consumes"] = []obj{{"name": "site", "from": "make"}, {"name": "log", "from": "make", "optional": true}}
		next := c.enqueue("use", use)
		l := c.builder.claim(task)
		path := "/v1/tasks/" + task + "/complete"

		missing := c.builder.refused(422, "input_invalid", "POST", path, l.hold(nil))
		if missing.str("details", "missing") != "report,site" {
			t.Errorf("got %s", missing)
		}
		// Against its declaration.
		c.builder.refused(422, "input_invalid", "PUT", putPath(l, "report"), `{"ok":"yes"}`)
		c.builder.refused(422, "input_invalid", "PUT", putPath(l, "report"), `no JSON`)
		c.builder.refused(400, "malformed", "PUT", putPath(l, "report"), `{"ok":"yes","ok":true}`) // whatever a reader makes of it
		c.builder.refused(422, "input_invalid", "PUT", putPath(l, "other"), "x")
		c.builder.refused(422, "input_invalid", "PUT", putPath(l, "site", "media_type=text/plain"), "x")
		c.builder.refused(422, "input_invalid", "PUT", putPath(l, "site", "label=secret.token"), "x")
		c.builder.refused(422, "input_invalid", "PUT", putPath(l, "site"), strings.Repeat("x", 101))
		c.builder.refused(422, "input_invalid", "PUT", putPath(l, "site", "digest="+digestOf("y")), "x")
		c.builder.refused(422, "input_invalid", "PUT", putPath(l, "site", "size=5"), "x")
		if blobs, temporary := w.artifactFiles(); len(blobs)+len(temporary) != 0 {
			t.Errorf("what was refused is kept: %v %v", blobs, temporary)
		}

		report := c.builder.put(l, "report", `{"ok":true}`)
		old := c.builder.put(l, "site", "first", "label=external.untrusted")
		site := c.builder.put(l, "site", "second", "label=external.untrusted", "digest="+digestOf("second"))
		if r := c.builder.do("PUT", putPath(l, "site", "label=external.untrusted"), "second"); r.status != 200 {
			t.Errorf("put again: %s", r)
		}
		unput := l.hold(obj{"artifacts": []obj{{"name": "report", "digest": report}, {"name": "site", "digest": old}}})
		c.builder.refused(422, "input_invalid", "POST", path, unput)
		done := l.hold(obj{"artifacts": []obj{{"name": "report", "digest": report}, {"name": "site", "digest": site}}})
		first := c.builder.ok(200, "POST", path, done)
		again := c.builder.do("POST", path, done) // the same, once more
		if again.status != 200 || first.str("receipt") != again.str("receipt") {
			t.Errorf("completed twice: %s %s", first, again)
		}
		if list, _ := first.at("unblocked").([]any); len(list) != 1 || list[0] != next {
			t.Errorf("got %s", first)
		}

		other := c.another().at(w.last())
		other.refused(404, "not_found", "GET", "/v1/artifacts/"+site+"?task_id="+next, nil) // before it is claimed
		r := other.ok(200, "POST", "/v1/tasks/"+next+"/claim", nil)
		inputs, _ := r.at("inputs").([]any)
		if len(inputs) != 1 {
			t.Fatalf("got %s", r)
		}
		in, _ := inputs[0].(map[string]any)
		if in["digest"] != site || in["name"] != "site" || in["media_type"] != "application/zip" || fmt.Sprint(in["size"]) != "6" || in["from_task_id"] != task {
			t.Errorf("given %v", in)
		}
		if labels := fmt.Sprint(r.at("task", "labels")); !strings.Contains(labels, "external.untrusted") {
			t.Errorf("the task has the labels %s", labels)
		}
		got := other.content(next, site)
		if got.status != 200 || string(got.body) != "second" || got.header.Get("Content-Type") != "application/octet-stream" || got.header.Get("Repr-Digest") == "" {
			t.Errorf("got %s %v", got, got.header)
		}
		if r := other.content(next, report); r.status != 404 { // which it is not given
			t.Errorf("got %s", r)
		}
		if r := c.orc.ok(200, "GET", "/v1/artifacts?run_id="+c.run, nil); !strings.Contains(string(r.body), report) || !strings.Contains(string(r.body), site) || strings.Contains(string(r.body), old) {
			t.Errorf("listed: %s", r)
		}
		if r := c.orc.content(task, old); r.status != 404 { // replaced
			t.Errorf("got %s", r)
		}
		w.audit()
	})
}

// Nobody but the holder puts anything, and nobody learns of what is not theirs.
func TestP4T3WhoseArtifacts(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		l := c.builder.claim(c.enqueue("make", obj{"produces": []obj{made("site", "text/plain", nil)}}))
		other := c.another().at(w.last())
		other.refused(403, "not_holder", "PUT", putPath(l, "site"), "x")
		stale := l
		stale.fence++
		c.builder.refused(409, "lease_lost", "PUT", putPath(stale, "site"), "x")
		c.orc.refused(403, "rbac_denied", "PUT", putPath(l, "site"), "x")
		caller{t: t, gw: c.gw[0]}.refused(401, "unauthenticated", "PUT", putPath(l, "site"), "x")
		c.builder.refused(400, "malformed", "POST", "/v1/invoke", obj{"capability": "artifact.put", "args": l.hold(obj{"task_id": l.task, "name": "site"})})
		site := c.builder.put(l, "site", "x")

		stranger := w.session("stranger", writ.RoleOrchestrator, "")
		elsewhere := stranger.ok(201, "POST", "/v1/runs", obj{"budget": obj{"steps": 5}}).str("run_id")
		foreign := stranger.ok(201, "POST", "/v1/tasks", obj{"run_id": elsewhere, "key": "make", "capability": tool, "required_domain": "web"}).str("task_id")
		for name, r := range map[string]reply{
			"of another run":         stranger.content(l.task, site),
			"not of this task":       stranger.content(foreign, site),
			"not of this task, seen": stranger.do("GET", "/v1/artifacts/"+site+"?task_id="+foreign, nil),
			"never stored":           stranger.content(foreign, digestOf("never")),
			"held by somebody else":  other.content(l.task, site),
			"a verifier of nothing":  w.verifier("judge", "vera", "").content(l.task, site),
		} {
			if r.status != 404 || r.code() != writ.CodeNotFound || strings.Contains(string(r.body), site) {
				t.Errorf("%s: %s", name, r)
			}
		}
		stranger.refused(404, "not_found", "GET", "/v1/artifacts?run_id="+c.run, nil)
		for _, bad := range []string{"..%2f..%2fid", "sha256:..%2f..", "sha256:" + strings.Repeat("%2f", 64), strings.ToUpper(site), site + "0"} {
			if r := w.op.do("GET", "/v1/artifacts/"+bad+"/content?task_id="+l.task, nil); r.status < 400 || r.status >= 500 {
				t.Errorf("%s: %s", bad, r)
			}
		}
		for _, who := range []caller{c.builder, c.orc, w.op, w.session("auditor", writ.RoleAuditor, "")} {
			if r := who.at(w.last()).content(l.task, site); r.status != 200 || string(r.body) != "x" {
				t.Errorf("got %s", r)
			}
		}

		// What another attempt put is not of this one.
		c.builder.ok(200, "POST", "/v1/tasks/"+l.task+"/release", l.hold(nil))
		next := other.claim(l.task)
		other.refused(422, "input_invalid", "POST", "/v1/tasks/"+l.task+"/complete", next.hold(obj{"artifacts": []obj{{"name": "site", "digest": site}}}))
	})
}

// What a task is given is checked when it is enqueued, place by place.
func TestW3T2WhatIsGivenMustBeMade(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		c.enqueue("make", obj{"produces": []obj{made("site", "text/plain", nil), made("log", "text/plain", obj{"required": false})}})
		goesOn := obj{"depends_on": []obj{{"key": "make", "on_failure": "continue"}}}
		for pointer, more := range map[string]obj{
			"/consumes/0/from":       {"consumes": []obj{{"name": "site", "from": "make"}}},
			"/consumes/0/name":       {"depends_on": pipe()["depends_on"], "consumes": []obj{{"name": "nothing", "from": "make"}}},
			"/consumes/0/media_type": {"depends_on": pipe()["depends_on"], "consumes": []obj{{"name": "site", "from": "make", "media_type": "text/html"}}},
			"/consumes/0/optional":   {"depends_on": pipe()["depends_on"], "consumes": []obj{{"name": "log", "from": "make"}}},
			"/consumes/1/optional":   {"depends_on": goesOn["depends_on"], "consumes": []obj{{"name": "log", "from": "make", "optional": true}, {"name": "site", "from": "make"}}},
			"/produces/0/schema":     {"produces": []obj{made("x", "text/plain", obj{"schema": obj{}})}},
			"/produces/0/max_bytes":  {"produces": []obj{made("x", "application/json", obj{"schema": obj{}, "max_bytes": 60000})}},
			"/produces/1/name":       {"produces": []obj{made("x", "text/plain", nil), made("x", "text/plain", nil)}},
			"/produces/0/media_type": {"produces": []obj{made("x", "text", nil)}},
		} {
			r := c.orc.refused(422, "input_invalid", "POST", "/v1/tasks", c.task("use", more))
			if !strings.Contains(string(r.body), `"pointer":"`+pointer+`"`) {
				t.Errorf("want %s, got %s", pointer, r)
			}
		}
	})
}

// A byte that changes in storage is noticed by whoever reads it, and nobody can
// accept it.
func TestA3T4TamperedArtifacts(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		judge := w.verifier("judge", "vera", "").at(w.last())
		c.judgedRun()
		task := c.enqueue("make", obj{"verify": obj{"required": true}, "produces": []obj{made("site", "text/plain", nil)}})
		c.orc.ok(200, "POST", "/v1/runs/"+c.run+"/seal", nil)
		l := c.builder.claim(task)
		body := strings.Repeat("site ", 50_000)
		site := c.builder.put(l, "site", body)
		c.builder.ok(200, "POST", "/v1/tasks/"+task+"/complete", l.hold(obj{"artifacts": []obj{{"name": "site", "digest": site}}}))
		blobs, _ := w.artifactFiles()
		if len(blobs) != 1 {
			t.Fatalf("stored: %v", blobs)
		}
		write := func(text string) {
			t.Helper()
			if err := os.WriteFile(blobs[0], []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		tampered := body[:len(body)-1] + "!"
		write(tampered)
		for _, who := range []caller{judge, c.orc} {
			if r := who.content(task, site); r.status != 409 || r.code() != writ.CodeArtifact {
				t.Errorf("read: %d %s", r.status, r.code())
			}
		}
		path, accept := judge.verdict("/v1/tasks/"+task, "accept", nil)
		if r := judge.refused(409, "artifact_digest", "POST", path, accept); r.receipt() == "" || r.str("details", "digest") != site {
			t.Errorf("got %s", r)
		}
		write(body)
		judge.ok(200, "POST", path, accept)

		run := "/v1/runs/" + c.run
		path, accept = judge.verdict(run, "accept", nil)
		write(tampered)
		judge.refused(409, "artifact_digest", "POST", path, accept)
		if err := os.Remove(blobs[0]); err != nil {
			t.Fatal(err)
		}
		if r := judge.refused(409, "artifact_digest", "POST", path, accept); r.str("details", "state") != "absent" {
			t.Errorf("got %s", r)
		}
		write(body)
		judge.ok(200, "POST", path, accept)
		w.audited()
	})
}

// Storage is paid from the budget of the run, and a gateway keeps no more than it
// may; both are known before a byte is read.
func TestP4ArtifactsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "bolt", "--artifact-total-mb", "1")
	c := newCast(t, w)
	mb := strings.Repeat("x", 700<<10)
	l := c.builder.claim(c.enqueue("make", obj{"produces": []obj{made("one", "text/plain", nil), made("two", "text/plain", nil)}}))
	c.builder.put(l, "one", mb)
	c.builder.refused(429, "quota_exceeded", "PUT", putPath(l, "two"), mb+"y")

	c.run = c.orc.ok(201, "POST", "/v1/runs", obj{"budget": obj{"steps": 100, "storage_write_bytes": 100_000}}).str("run_id")
	l = c.builder.claim(c.enqueue("poor", obj{"produces": []obj{made("one", "text/plain", nil)}}))
	c.builder.refused(403, "budget_exceeded", "PUT", putPath(l, "one"), strings.Repeat("x", 60_000))
	c.builder.put(l, "one", strings.Repeat("y", 1000))
	if used := c.orc.ok(200, "GET", "/v1/runs/"+c.run+"/budget", nil); !strings.Contains(string(used.body), "50") {
		t.Errorf("got %s", used)
	}
	if _, temporary := w.artifactFiles(); len(temporary) != 0 {
		t.Errorf("left: %v", temporary)
	}
}

// An upload that is cut leaves nothing; one during which the gateway is killed
// neither, but for a file nobody looks at, and can be made again.
func TestP4CutUploads(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		l := c.builder.claim(c.enqueue("make", obj{"lease_ttl_s": 600, "produces": []obj{made("site", "text/plain", nil)}}))
		half := func() net.Conn {
			t.Helper()
			conn, err := net.Dial("tcp", strings.TrimPrefix(c.gw[0].url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n", putPath(l, "site"), c.builder.token)
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil || !strings.Contains(line, " 100 ") {
				t.Fatalf("%q, %v", line, err)
			}
			if _, err := io.Copy(conn, bytes.NewReader(make([]byte, 500_000))); err != nil {
				t.Fatal(err)
			}
			within(t, 10*time.Second, "half of it has come", func() bool {
				_, temporary := w.artifactFiles()
				return len(temporary) == 1
			})
			return conn
		}
		_ = half().Close()
		within(t, 10*time.Second, "nothing is left of it", func() bool {
			blobs, temporary := w.artifactFiles()
			return len(blobs)+len(temporary) == 0
		})
		conn := half()
		w.crash()
		_ = conn.Close()
		if blobs, temporary := w.artifactFiles(); len(blobs) != 0 || len(temporary) != 1 {
			t.Errorf("after the crash: %v %v", blobs, temporary)
		}
		site := c.builder.put(l, "site", "whole")
		w.crash()
		if r := c.orc.at(w.last()).content(l.task, site); r.status != 200 || string(r.body) != "whole" {
			t.Errorf("got %s", r)
		}
		c.builder.ok(200, "POST", "/v1/tasks/"+l.task+"/complete", l.hold(obj{"artifacts": []obj{{"name": "site", "digest": site}}}))
		w.audit()
	})
}

// Who may not put an artifact is told so before the body is sent.
func TestP4RefusedBeforeTheBody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "bolt")
	c := newCast(t, w)
	l := c.builder.claim(c.enqueue("make", obj{"produces": []obj{made("site", "text/plain", nil)}}))
	for token, want := range map[string]string{"": " 401 ", c.orc.token: " 403 ", c.another().token: " 403 "} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(c.gw[0].url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\nContent-Length: 60000000\r\nExpect: 100-continue\r\n\r\n", putPath(l, "site"), token)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || !strings.Contains(" "+res.Status+" ", want) {
			t.Errorf("want%s: %v, %v", want, res, err)
		}
		_ = conn.Close()
	}
}

// A replica with another directory of artifacts does not start.
func TestReplicasShareArtifacts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "redis")
	two := w.last()
	two.kill()
	r := command(t, append(two.args, "--blobs", t.TempDir())...)
	if r.code == 0 || !strings.Contains(r.stderr, "is not the directory of artifacts") || !strings.Contains(r.stderr, "--blobs") {
		t.Errorf("got %s", r)
	}
}
