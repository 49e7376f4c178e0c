package e2e

import (
	"encoding/base64"
	"encoding/json"
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

	door "github.com/writ-gateway/writ/gateway"
	"github.com/writ-gateway/writ/internal/daemon"
)

// published are the words of callers that receipts show as they are: names that
// somebody has registered, or that name nothing but a kind of work.
var published = map[string]string{
	"agent.register /agent_id": "agents are named in receipts",
}

// planted is what was put into one place of one call.
type planted struct {
	place string
	took  bool
}

var canaryPattern = regexp.MustCompile(`(?i)cnry[0-9]{5}q`)

// sower plants a canary of its own in every text a capability takes.
type sower struct {
	known map[string]any // a value that names something there is, by member
	all   map[string]*planted
}

func (s *sower) next(place string) string {
	word := fmt.Sprintf("cnry%05dq", len(s.all))
	s.all[word] = &planted{place: place}
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
	return "web"
}

// Whatever callers write, in any text of any call, accepted or refused: it is in
// evidence and documents, and in nothing that is published or shown around. Not in
// a receipt, bundle or export, not in the transparency log, not in what the gateway
// logs, and not in its metrics.
func TestNothingCallersSayIsPublished(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		w.agent("mailer", "web", "executor", "mail.send", []string{}, obj{"tools": []obj{{"name": "mail.send", "safety": "mutating", "approval": "manual"}}})
		held := c.builder.claim(c.enqueue("held", nil))
		pending := c.orc.waits("POST", "/v1/tasks", c.task("mail", obj{"capability": "mail.send"}))
		receipt := c.orc.ok(200, "GET", "/v1/runs/"+c.run, nil).str("receipt")
		alice, judge := w.alice(), w.verifier("judge", "vera", "")
		idle := c.another()
		s := &sower{all: map[string]*planted{}, known: map[string]any{
			"run_id": c.run, "task_id": held.task, "lease_id": held.id, "fence": held.fence, "agent_id": "builder", "session_id": idle.id, "approval_id": pending, "receipt_id": receipt,
			"capability": tool, "required_domain": "web", "domain": "web", "principal": "somebody", "kind": "human", "role": "auditor", "budget": obj{"steps": 1}, "archetypes": []string{"executor"}, "principal_id": "somebody",
		}}
		cat := daemon.Catalog()
		v, err := door.NewValidator(cat)
		if err != nil {
			t.Fatal(err)
		}
		callers := []caller{w.op, c.orc, c.builder, alice, judge}
		barred := map[string]bool{}
		begun := time.Now()
		for _, k := range cat.All() {
			raw, _ := v.Schemas(k)
			var schema map[string]any
			if k.Internal || raw == nil || k.ID == "capability.invoke" || k.ID == "artifact.put" {
				continue
			}
			if err := json.Unmarshal(raw, &schema); err != nil {
				t.Fatal(err)
			}
			schema, _ = written(schema, schema, 8).(map[string]any)
			for _, path := range texts(schema, "") {
				for i, form := range []string{"%s", "%s, born 1 April, a@example.org"} { // a word, and what no pattern takes
					word := s.next(string(k.ID) + " " + path)
					args, _ := s.fill(schema, "", path, fmt.Sprintf(form, word)).(map[string]any)
					if k.ID == "task.enqueue" && path != "/key" {
						args["key"] = fmt.Sprintf("k%d", len(s.all))
					}
					if k.ID == "agent.register" && path != "/agent_id" {
						args["agent_id"] = fmt.Sprintf("a%d", len(s.all))
					}
					if slices.Contains([]string{"task.complete", "task.fail", "task.handoff", "task.heartbeat", "task.release"}, string(k.ID)) {
						l := c.builder.claim(c.enqueue(fmt.Sprintf("held-%d", len(s.all)), nil))
						for name, is := range map[string]any{"task_id": l.task, "lease_id": l.id, "fence": l.fence} {
							if args[name] != nil && path != "/"+name {
								args[name] = is
							}
						}
					}
					for n, who := range callers {
						if barred[fmt.Sprint(k.ID, n)] {
							continue
						}
						if k.ID == "task.claim" || k.ID == "session.close" { // would wait, or leave nobody to call
							who = idle
						}
						r := who.do("POST", "/v1/invoke", obj{"capability": k.ID, "args": args}, "Idempotency-Key", fmt.Sprintf("%s-%d-%d", word, i, n))
						barred[fmt.Sprint(k.ID, n)] = r.code() == "rbac_denied" // once is enough: later ones would only be counted
						if r.status < 300 {
							s.all[word].took = true
						}
						if who.token == idle.token {
							break
						}
					}
				}
			}
		}
		took := map[string]bool{}
		for _, p := range s.all {
			if p.took {
				took[strings.Fields(p.place)[0]] = true
			}
		}
		t.Logf("%d canaries, calls of %d capabilities accepted, %v", len(s.all), len(took), time.Since(begun))
		if len(s.all) < 200 || len(took) < 12 {
			t.Errorf("only %d canaries, and accepted calls of %v: the sower is too tame", len(s.all), slices.Sorted(maps.Keys(took)))
		}

		seen := map[string]bool{}
		look := func(where, text string) {
			for _, word := range canaryPattern.FindAllString(text, -1) {
				p := s.all[strings.ToLower(word)]
				if p == nil {
					t.Errorf("%s holds %s, which nobody planted", where, word)
					continue
				}
				if id := where + " " + p.place; !seen[id] && (published[p.place] == "" || where != "a receipt") {
					seen[id] = true
					t.Errorf("%s holds what stood in %s", where, p.place)
				}
			}
		}
		path, _ := w.export()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			var e struct{ Payload string }
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			payload, err := base64.StdEncoding.DecodeString(e.Payload)
			if err != nil {
				t.Fatal(err)
			}
			look("a receipt", string(payload))
			look("the export", line)
		}
		bundle := w.op.ok(200, "GET", "/v1/receipts/"+receipt+"?wait=included", nil)
		look("a bundle", string(bundle.body))
		if err := filepath.WalkDir(filepath.Join(w.gw[0].data, "log"), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			look("the log's "+filepath.Base(path), string(b))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		for _, g := range w.gw {
			look("what the gateway logs", g.log.String())
			res, err := http.Get(g.url + "/metrics")
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err != nil || len(b) == 0 {
				t.Fatalf("metrics: %d bytes, %v", len(b), err)
			}
			look("the metrics", string(b))
		}
		// The canaries are alive: evidence has them.
		if text := string(w.op.ok(200, "GET", "/v1/runs", nil).body); !canaryPattern.MatchString(text) {
			t.Error("no canary is in any document")
		}
	})
}
