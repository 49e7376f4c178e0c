package e2e

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	door "github.com/writ-gateway/writ/gateway"
	"github.com/writ-gateway/writ/internal/daemon"
	"github.com/writ-gateway/writ/receipts"
)

// published are the words of callers that receipts show as they are, as docs/retention.md says: names that
// somebody has registered, or that name nothing but a kind of work.
var published = map[string]string{
	"agent.register /agent_id": "agents are named in receipts",
	"egress.grant /grant_id":   "grants are, as objects that operators name",
}

// signedWords are the words of callers in a verdict that its verifier signed, which is logged as it is: they stay
// when evidence is shredded, as docs/retention.md says, and stand nowhere else that is published.
var signedWords = []string{"a check of a signed verdict", "a reason of a signed verdict", "a subject's name in a signed verdict"}

// spelled is how a canary is written: as a word, as what no pattern takes, and, where neither is accepted, as what some do.
var spelled = []string{"%", "%, born 1 April, a@example.org", "site.%", "fs:repo/%/", "https://%.example.org/%", "/%", "text/%", "X-Key: {{secret}} %"}

var canaryPattern = regexp.MustCompile(`(?i)cnry[0-9]{5}q`)

// sower plants a canary of its own in every text a capability takes.
type sower struct {
	known map[string]any    // a value that names something there is, by member
	all   map[string]string // the places of canaries, by canary
}

func (s *sower) next(place string) string {
	word := fmt.Sprintf("cnry%05dq", len(s.all))
	s.all[word] = place
	return word
}

// written is a schema with its references written out, as deep as they go.
func written(node any, root map[string]any, deep int) any {
	switch n := node.(type) {
	case map[string]any:
		if ref, ok := n["$ref"].(string); ok && deep > 0 {
			var at any = root
			for name := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
				in, _ := at.(map[string]any)
				at = in[name]
			}
			return written(at, root, deep-1)
		}
		out := map[string]any{}
		for name, sub := range n {
			if name != "$defs" {
				out[name] = written(sub, root, deep)
			}
		}
		return out
	case []any:
		out := make([]any, 0, len(n))
		for _, sub := range n {
			out = append(out, written(sub, root, deep))
		}
		return out
	}
	return node
}

// texts lists the places of a schema that take words of the caller's choice.
func texts(schema map[string]any, path string) (out []string) {
	switch schema["type"] {
	case "string":
		if schema["enum"] == nil && schema["const"] == nil {
			out = append(out, path)
		}
	case "array":
		if items, ok := schema["items"].(map[string]any); ok {
			out = append(out, texts(items, path+"/-")...)
		}
	case "object":
		props, _ := schema["properties"].(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(props)) {
			if p, ok := props[name].(map[string]any); ok {
				out = append(out, texts(p, path+"/"+name)...)
			}
		}
		if extra, ok := schema["additionalProperties"].(map[string]any); ok {
			out = append(out, texts(extra, path+"/*")...)
		} else if len(props) == 0 {
			out = append(out, path+"/*")
		}
	}
	return out
}

// fill makes the smallest value a schema takes that has word at a path.
func (s *sower) fill(schema map[string]any, name, path, word string) any {
	if path == "" && word != "" {
		return word
	}
	at, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if rest != "" {
		rest = "/" + rest
	}
	if word == "" {
		if v, ok := s.known[name]; ok {
			return v
		}
	}
	if enum, ok := schema["enum"].([]any); ok && len(enum) > 0 {
		return enum[0]
	}
	switch schema["type"] {
	case "array":
		items, _ := schema["items"].(map[string]any)
		least, _ := schema["minItems"].(float64)
		if word == "" && least == 0 {
			return []any{}
		}
		return []any{s.fill(items, name, rest, word)}
	case "object":
		out := map[string]any{}
		props, _ := schema["properties"].(map[string]any)
		required, _ := schema["required"].([]any)
		for _, r := range required {
			n, _ := r.(string)
			p, _ := props[n].(map[string]any)
			out[n] = s.fill(p, n, "", "")
		}
		if word == "" {
			return out
		}
		if at == "*" {
			extra, _ := schema["additionalProperties"].(map[string]any)
			out["member"] = s.fill(extra, "member", rest, word)
		} else if p, ok := props[at].(map[string]any); ok {
			out[at] = s.fill(p, at, rest, word)
		}
		return out
	case "integer", "number":
		if least, ok := schema["minimum"].(float64); ok && least > 0 {
			return least
		}
		return 1
	case "boolean":
		return false
	}
	if p, _ := schema["pattern"].(string); strings.Contains(p, `(\.[a-z`) {
		return "site.page" // a dotted name
	}
	return "web"
}

// plant is args with a word in a place of theirs: all else stays as it makes an acceptable call.
func (s *sower) plant(schema map[string]any, name string, v any, path, word string) any {
	at, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if rest != "" {
		rest = "/" + rest
	}
	given, _ := v.(map[string]any)
	if path == "" || given == nil || at == "*" {
		return s.fill(schema, name, path, word)
	}
	out := maps.Clone(given)
	props, _ := schema["properties"].(map[string]any)
	p, _ := props[at].(map[string]any)
	out[at] = s.plant(p, at, given[at], rest, word)
	return out
}

// sendBytes plants in what stands in the query and the body of artifact.put, and in headers of any call.
func (s *sower) sendBytes(c cast) {
	l := c.builder.claim(c.enqueue("bytes", obj{"produces": []obj{made("bytes", "text/plain", nil)}}))
	for place, query := range map[string]string{"digest": "name=bytes&digest=", "label": "name=bytes&label=", "media_type": "name=bytes&media_type=text/", "name": "name=", "an argument nobody knows": "name=bytes&"} {
		c.builder.do("PUT", strings.TrimSuffix(putPath(l, ""), "name=")+query+s.next("artifact.put "+place), s.next("artifact.put bytes"))
	}
	for _, header := range []string{"If-Match", "Traceparent", "Content-Type", "Accept", "User-Agent", "Wait", "Log-Checkpoint", "Authorization"} {
		c.orc.do("POST", "/v1/runs", obj{"budget": obj{"steps": 1}}, header, s.next("header "+header))
		c.orc.do("GET", "/v1/runs/"+s.next("a path"), nil, header, s.next("header "+header))
	}
}

// signVerdict has a verdict accepted, signed by its verifier, with canaries wherever a verifier has words of its own.
// It gives the ids of the verdict as it is logged, and of the receipt that rests on it.
func (s *sower) signVerdict(c cast) (verdict writ.ReceiptID, rests string) {
	c.t.Helper()
	key, public := newKey(c.t, filepath.Join(c.t.TempDir(), "checker.pem"))
	c.agent("checker", "web", "verifier", "", []string{}, obj{"keys": []string{public}})
	by := c.signer("checker", "victor", key, public)
	check, reason, name := s.next(signedWords[0]), s.next(signedWords[1]), s.next(signedWords[2])
	c.judgedRun()
	task := c.enqueue("signed", obj{"verify": obj{"required": true, "gates": []string{check}}})
	path := "/v1/tasks/" + task
	l := c.builder.claim(task)
	c.builder.ok(200, "POST", path+"/complete", l.hold(nil))
	verify, body := by.verdict(path, "reject", obj{"gates": []obj{{"gate": check, "status": "fail"}}, "reasons": []string{reason}})
	want := by.want(by.about(path), nil, writ.VerdictProperties(writ.VerdictOn("task", task), writ.VerdictReject, map[string]bool{check: false}, []string{reason}))
	text, err := receipts.VerdictStatement(want, map[string]string{want.Subjects[0]: name})
	if err != nil {
		c.t.Fatal(err)
	}
	r, err := by.key.SignVerdict(text)
	if err != nil {
		c.t.Fatal(err)
	}
	env, err := receipts.Envelope(r)
	if err != nil {
		c.t.Fatal(err)
	}
	body["verdict_dsse"] = string(env)
	rests = by.ok(200, "POST", verify, body).str("receipt")
	return writ.VerdictID(fmt.Sprintf("%x", sha256.Sum256(text))), rests
}

var base64Pattern = regexp.MustCompile(`[A-Za-z0-9+/]{24,}={0,2}`)

// laidOpen is a text with what stands in it in base64, and in that, decoded behind it.
func laidOpen(text string) string {
	var open strings.Builder
	open.WriteString(text)
	for _, word := range base64Pattern.FindAllString(text, -1) {
		if b, err := base64.StdEncoding.DecodeString(word); err == nil {
			open.WriteString("\n" + laidOpen(string(b)))
		}
	}
	return open.String()
}

// Whatever callers write, in any text of any call, accepted or refused: it is in
// evidence and documents, and in nothing that is published or shown around. Not in
// a receipt, bundle, export or pack, not in the transparency log, not in what the gateway
// logs, and not in its metrics; but for some words of a verdict that its verifier signed.
func TestNothingCallersSayIsPublished(t *testing.T) {
	onLenientHosts(t, func(t *testing.T, host string, args []string) {
		w := newWorld(t, host, args...)
		c := newCast(t, w)
		receipt := c.orc.ok(200, "GET", "/v1/runs/"+c.run, nil).str("receipt")
		alice, judge, idle := w.alice(), w.verifier("judge", "vera", ""), c.another()
		scenes := c.scenes(t, idle, alice, judge)
		s := &sower{all: map[string]string{}, known: map[string]any{
			"run_id": c.run, "task_id": c.enqueue("there", nil), "agent_id": "builder", "session_id": idle.id, "receipt_id": receipt, "role": "auditor", "budget": obj{"steps": 1},
			"approval_id": c.orc.waits("POST", "/v1/tasks", c.task("mail", obj{"capability": "mail.send"})), "principal": "somebody", "capability": "task.get",
			"media_type": "text/plain", "digest": digestOf("nothing"),
		}}
		cat := daemon.Catalog()
		v, err := door.NewValidator(cat)
		if err != nil {
			t.Fatal(err)
		}
		callers := []caller{w.op, c.orc, c.builder, alice, judge}
		begun, calls, took := time.Now(), 0, map[string]writ.ReceiptID{}
		for _, k := range cat.All() {
			raw, _ := v.Schemas(k)
			// What capability.invoke takes is what the others take. artifact.put is no call with arguments: its own place is below.
			if k.Internal || k.ID == "capability.invoke" || k.ID == "artifact.put" {
				continue
			}
			var schema map[string]any
			if err := json.Unmarshal(raw, &schema); err != nil {
				t.Fatal(err)
			}
			schema, _ = written(schema, schema, 8).(map[string]any)
			make := scenes[k.ID]
			if make == nil {
				smallest, _ := s.fill(schema, "", "", "").(map[string]any)
				make = func() (caller, obj) { return w.op, smallest }
			}
			invoke := func(who caller, args any) reply {
				calls++
				return who.do("POST", "/v1/invoke", obj{"capability": k.ID, "args": args}, "Idempotency-Key", fmt.Sprintf("%s-%d", s.next(string(k.ID)+" Idempotency-Key"), calls))
			}
			// Nothing is shown by calls that never get anywhere: what they begin with is accepted.
			who, args := make()
			if r := invoke(who, args); r.status >= 300 {
				t.Errorf("%s was not exercised: %s", k.ID, r)
			}
			barred, used := map[string]bool{}, true
			for _, path := range texts(schema, "") {
				done := false // no more forms
				for i, form := range spelled {
					if done && i >= 2 {
						break
					}
					word := s.next(string(k.ID) + " " + path)
					if used { // what is accepted changes what the next would be about
						who, args = make()
						used = false
					}
					sown := s.plant(schema, "", args, path, strings.ReplaceAll(form, "%", word))
					r := invoke(who, sown)
					if used = r.status < 300; used {
						took[word] = r.receipt()
					}
					done = done || r.status != 422 && r.code() != writ.CodeEgress || strings.Contains(string(r.body), "[0-7][0-9A-HJKMNP-TV-Z]")
					for _, other := range callers {
						if i > 0 || other.token == who.token || barred[other.token] || k.ID == "session.close" { // which would leave nobody to call
							continue
						}
						r := invoke(other, sown)
						used = used || r.status < 300
						barred[other.token] = r.code() == "rbac_denied" // once is enough: later ones would only be counted
					}
				}
			}
		}
		s.sendBytes(c)
		verdict, rests := s.signVerdict(c)
		t.Logf("%d canaries, %d of them accepted, in %d calls, %v", len(s.all), len(took), calls, time.Since(begun))

		seen := map[string]bool{}
		// look looks at a text of some kind, and at all that is in base64 in it: may says of a place whether that may stand there.
		look := func(where, text string, may func(place string) bool) {
			for _, word := range canaryPattern.FindAllString(laidOpen(text), -1) {
				place := s.all[strings.ToLower(word)]
				if place == "" {
					t.Errorf("%s holds %s, which nobody planted", where, word)
					continue
				}
				if id := where + ": " + place; !seen[id] {
					if seen[id] = true; !may(place) {
						t.Errorf("%s holds what stood in %s", where, place)
					}
				}
			}
		}
		registered := func(place string) bool { return published[place] != "" }
		signed := func(place string) bool { return slices.Contains(signedWords, place) }
		never := func(string) bool { return false }
		path := filepath.Join(w.gw[0].data, "receipts.jsonl")
		if r := command(t, "receipt", "export", "--data", w.gw[0].data, "--out", path); r.code != 0 {
			t.Fatal(r)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		foreign := 0
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, `"kind":"foreign"`) {
				foreign++
				look("a signed verdict in the export", line, signed)
			} else {
				look("the export", line, registered)
			}
		}
		// Bundles and proofs of what was accepted, and of the verdict; and what receipt.get says beside them.
		some := []string{string(verdict), rests}
		for _, id := range took {
			if id != "" && len(some) < 200 {
				some = append(some, string(id))
			}
		}
		for _, id := range some {
			r := w.op.ok(200, "GET", "/v1/receipts/"+id+"?wait=included", nil)
			may, kind := registered, "a receipt's "
			if id == string(verdict) {
				may, kind = signed, "a signed verdict's "
			}
			for _, member := range []string{"bundle", "tlog_proof", "envelope"} {
				text, err := json.Marshal(r.at(member))
				if err != nil || member != "tlog_proof" && !strings.Contains(laidOpen(string(text)), `"predicateType"`) || r.at("included") != true {
					t.Fatalf("%s: no statement in the %s: %v, %s", id, member, err, r)
				}
				look(kind+member, string(text), may)
			}
			look(kind+"answer", string(r.body), may)
		}
		pack := filepath.Join(w.gw[0].data, "pack.tar")
		if r := command(t, "export", "--data", w.gw[0].data, "--no-evidence", "--out", pack); r.code != 0 {
			t.Fatal(r)
		}
		file, err := os.Open(pack)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		for files := tar.NewReader(file); ; {
			h, err := files.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(files)
			if err != nil {
				t.Fatal(err)
			}
			may := registered
			if strings.HasPrefix(h.Name, "receipts/") && strings.Contains(laidOpen(string(b)), writ.VerdictType) {
				may = signed
			}
			look("a pack's "+h.Name, string(b), may)
		}
		// The words of the verdict are there, where it is: else nothing was looked at.
		for _, where := range []string{"a signed verdict in the export", "a signed verdict's bundle", "a signed verdict's envelope"} {
			for _, place := range signedWords {
				if !seen[where+": "+place] {
					t.Errorf("%s does not hold what stood in %s", where, place)
				}
			}
		}
		if foreign != 1 {
			t.Errorf("the export has %d signed verdicts", foreign)
		}
		if err := filepath.WalkDir(filepath.Join(w.gw[0].data, "log"), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			look("the log's "+filepath.Base(path), string(b), never)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		for _, g := range w.gw {
			look("what the gateway logs", g.log.String(), never)
			res, err := http.Get(g.url + "/metrics")
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err != nil || len(b) == 0 {
				t.Fatalf("metrics: %d bytes, %v", len(b), err)
			}
			look("the metrics", string(b), never)
		}
		// The canaries are alive: evidence has them.
		alive := 0
		for word, id := range took {
			if id == "" || alive == 20 { // a read leaves no receipt, and some are enough
				continue
			}
			if text := string(w.op.ok(200, "GET", "/v1/receipts/"+string(id)+"/evidence", nil).body); strings.Contains(text, word) {
				alive++
			}
		}
		if alive < 20 {
			t.Errorf("only %d canaries are in evidence", alive)
		}
	})
}
