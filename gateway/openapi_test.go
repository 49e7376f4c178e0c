package gateway

import (
	"bytes"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	stdjson "encoding/json"

	"github.com/danielgtaylor/huma/v2"

	"github.com/writ-gateway/writ"
)

func TestRoutesAndRegistryMatch(t *testing.T) {
	if err := CheckRoutes(testRegistry(t)); err != nil {
		t.Fatal(err)
	}
	without := func(id writ.CapabilityID) []*writ.Capability {
		return slices.DeleteFunc(testCapabilities(), func(c *writ.Capability) bool { return c.ID == id })
	}
	internal := stub[pageArgs]("run.list", writ.SafetyReadOnly)
	internal.Internal = true
	for name, caps := range map[string][]*writ.Capability{
		"route without capability":     without("run.list"),
		"capability without route":     append(testCapabilities(), stub[noArgs]("run.extra", writ.SafetyReadOnly)),
		"route to an internal one":     append(without("run.list"), internal),
		"path parameter, no argument":  append(without("run.get"), stub[noArgs]("run.get", writ.SafetyReadOnly)),
		"a change behind GET":          append(without("run.get"), stub[runArgs]("run.get", writ.SafetyMutating)),
		"a read behind POST":           append(without("run.seal"), stub[runArgs]("run.seal", writ.SafetyReadOnly)),
		"other arguments for invoking": append(without("capability.invoke"), stub[capArgs]("capability.invoke", writ.SafetyMutating)),
	} {
		reg, err := writ.NewRegistry(caps...)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckRoutes(reg); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := New(Config{Door: &fakeDoor{}, Registry: reg}); err == nil {
			t.Errorf("%s: New accepted it", name)
		}
	}
	ids := map[string]bool{}
	for _, r := range Routes {
		if ids[r.OperationID] {
			t.Errorf("operation %s twice", r.OperationID)
		}
		ids[r.OperationID] = true
	}
}

func operations(doc *huma.OpenAPI) []*huma.Operation {
	var out []*huma.Operation
	for _, p := range slices.Sorted(maps.Keys(doc.Paths)) {
		i := doc.Paths[p]
		for _, op := range []*huma.Operation{i.Get, i.Put, i.Post, i.Delete, i.Patch, i.Head, i.Options, i.Trace} {
			if op != nil {
				out = append(out, op)
			}
		}
	}
	return out
}

// Every operation in the document is a registered capability, and without a
// token none of them reaches the door.
func TestNothingIsUngoverned(t *testing.T) {
	reg := testRegistry(t)
	doc, err := OpenAPI(reg)
	if err != nil {
		t.Fatal(err)
	}
	h, door := newFake(t, nil)
	param := regexp.MustCompile(`\{[a-z_]+\}`)
	ops := operations(doc)
	if len(ops) != len(Routes) {
		t.Errorf("%d operations for %d routes", len(ops), len(Routes))
	}
	for _, op := range ops {
		id, _ := op.Extensions["x-capability"].(string)
		if c := reg.Get(writ.CapabilityID(id)); c == nil || c.Internal {
			t.Errorf("%s %s: x-capability %q is not a public capability", op.Method, op.Path, id)
		}
		if len(op.Security) == 0 {
			t.Errorf("%s: no security", op.OperationID)
		}
		body := ""
		if op.Method != http.MethodGet {
			body = `{}`
		}
		w := send(h, op.Method, param.ReplaceAllString(op.Path, "x"), body, "Authorization", "")
		wantProblem(t, w, http.StatusUnauthorized, writ.CodeUnauthenticated)
	}
	if n := door.count(); n != 0 {
		t.Errorf("%d calls without a token reached the door", n)
	}
	// The mux serves nothing but operations and the open paths.
	served := map[string]bool{}
	for _, p := range Open {
		served[p] = true
	}
	for p := range doc.Paths {
		if served[p] {
			t.Errorf("%s is both open and governed", p)
		}
	}
	for _, p := range Open {
		for _, m := range []string{"POST", "PUT", "DELETE", "PATCH"} {
			if w := send(h, m, p, ""); w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", m, p, w.Code)
			}
		}
	}
}

func TestDocument(t *testing.T) {
	reg := testRegistry(t)
	a, err := OpenAPIYAML(reg)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		b, err := OpenAPIYAML(testRegistry(t))
		if err != nil || !bytes.Equal(a, b) {
			t.Fatal("the document is not the same twice")
		}
	}
	if !bytes.HasPrefix(a, []byte("components:")) || !bytes.Contains(a, []byte("\nopenapi: 3.1.0\n")) {
		t.Errorf("not OpenAPI 3.1: %.200s", a)
	}

	h, _ := newFake(t, nil)
	w := send(h, "GET", "/openapi.json", "", "Authorization", "")
	if w.Code != http.StatusOK {
		t.Fatal(w.Code)
	}
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string `json:"operationId"`
			Parameters  []struct{ Name, In, Ref string }
			RequestBody struct {
				Content map[string]struct {
					Schema struct {
						Ref string `json:"$ref"`
					}
				}
			}
			Responses map[string]stdjson.RawMessage
		}
		Components struct {
			Schemas map[string]struct {
				Type       string
				Properties map[string]stdjson.RawMessage
				Required   []string

				AdditionalProperties any
			}
		}
	}
	if err := stdjson.Unmarshal(w.Body.Bytes(), &doc); err != nil || doc.OpenAPI != "3.1.0" {
		t.Fatal(err, doc.OpenAPI)
	}
	put := doc.Paths["/v1/agents/{agent_id}"]["put"]
	if put.RequestBody.Content["application/json"].Schema.Ref != schemaPrefix+"AgentRegisterRequest" {
		t.Errorf("request body %+v", put.RequestBody)
	}
	body := doc.Components.Schemas["AgentRegisterRequest"]
	if _, has := body.Properties["agent_id"]; has || slices.Contains(body.Required, "agent_id") || !slices.Contains(body.Required, "archetypes") {
		t.Errorf("the body's schema has the path parameter: %+v", body)
	}
	args, err := newCatalogue(reg)
	if err != nil {
		t.Fatal(err)
	}
	if args.args[reg.Get("agent.register").Args].Properties["agent_id"] == nil {
		t.Error("the arguments' schema lost the path parameter")
	}
	if string(doc.Components.Schemas["TaskEnqueueRequest"].Properties["args"]) != `{"additionalProperties":true,"type":"object"}` {
		t.Errorf("raw object: %s", doc.Components.Schemas["TaskEnqueueRequest"].Properties["args"])
	}
	// Requests are closed, replies are open to later versions.
	for name, closed := range map[string]bool{"AgentRegisterRequest": true, "Tool": true, "Shown": false, "Problem": false, "Envelope": false} {
		s, ok := doc.Components.Schemas[name]
		if !ok || (s.AdditionalProperties != nil) != closed {
			t.Errorf("%s: present %v, additionalProperties %v", name, ok, s.AdditionalProperties)
		}
	}
	for path, item := range doc.Paths {
		for method, op := range item {
			for _, status := range []string{"400", "401", "403", "404", "422", "429", "500", "503"} {
				if op.Responses[status] == nil {
					t.Errorf("%s %s: no response %s", method, path, status)
				}
			}
			if (op.Responses["412"] != nil) != (method != "get") {
				t.Errorf("%s %s: 412 is for what takes If-Match, and for that only", method, path)
			}
		}
	}
	if w := send(h, "GET", "/openapi.yaml", "", "Authorization", ""); !bytes.Equal(w.Body.Bytes(), a) {
		t.Error("/openapi.yaml is not OpenAPIYAML")
	}
	if strings.Contains(w.Body.String(), "HiddenPart") || strings.Contains(w.Body.String(), "task.sweep") {
		t.Error("an internal capability shows")
	}
	// Every reference leads somewhere.
	text := send(h, "GET", "/openapi.json", "").Body.String()
	for _, m := range regexp.MustCompile(`"\$ref":"#/components/([a-zA-Z]+)/([^"]+)"`).FindAllStringSubmatch(text, -1) {
		if !strings.Contains(text, `"`+m[2]+`":{`) {
			t.Errorf("%s leads nowhere", m[0])
		}
	}
}

func TestReferencePage(t *testing.T) {
	h, _ := newFake(t, nil)
	w := send(h, "GET", "/docs", "", "Authorization", "")
	page := w.Body.String()
	for _, r := range Routes {
		if !strings.Contains(page, `<article id="`+r.OperationID+`">`) {
			t.Errorf("%s is not on the page", r.OperationID)
		}
	}
	for _, never := range []string{"<script", "http://", "https://", "javascript:", "ZgotmplZ", "<no value>", "%!"} {
		if strings.Contains(page, never) {
			t.Errorf("the page holds %q", never)
		}
	}
	if !strings.Contains(page, "<style>"+docsCSS+"</style>") {
		t.Error("the style is not the one its hash names")
	}
	if csp := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; style-src 'sha256-") {
		t.Errorf("policy %q", csp)
	}
}
