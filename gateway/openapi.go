package gateway

import (
	stdjson "encoding/json"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/writ-gateway/writ"
)

// OpenAPI describes everything the gateway serves under /v1 for a registry.
// The same registry always gives the same document.
func OpenAPI(reg *writ.Registry) (*huma.OpenAPI, error) { return describe(reg) }

// OpenAPIYAML is the document of [OpenAPI] as YAML, as it is committed in
// openapi/openapi.yaml.
func OpenAPIYAML(reg *writ.Registry) ([]byte, error) {
	doc, err := describe(reg)
	if err != nil {
		return nil, err
	}
	return doc.YAML()
}

// bearer is the name of the one security scheme.
const bearer = "session"

// describe checks the routes and writes the document.
func describe(reg *writ.Registry) (doc *huma.OpenAPI, err error) {
	if err := CheckRoutes(reg); err != nil {
		return nil, err
	}
	cat, err := newCatalogue(reg)
	if err != nil {
		return nil, err
	}
	doc = &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "writ", Version: writ.Version,
			Description: "A policy-as-code governance gateway for autonomous agents. Every operation is a capability: it is judged by role and policy, committed atomically and signed into a receipt.",
			License:     &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
		},
		Servers: []*huma.Server{{URL: "/", Description: "This gateway."}},
		Components: &huma.Components{
			Schemas: cat.reg, Responses: map[string]*huma.Response{}, Headers: map[string]*huma.Header{},
			Parameters: map[string]*huma.Param{},
			SecuritySchemes: map[string]*huma.SecurityScheme{bearer: {
				Type: "http", Scheme: "bearer",
				Description: "Token of a session, <tenant>.ses_<id>.<secret>, as session.open returned it once.",
			}},
		},
		Security: []map[string][]string{{bearer: {}}},
	}
	for _, t := range tags {
		doc.Tags = append(doc.Tags, &huma.Tag{Name: t.name, Description: t.text})
	}
	shared(doc)
	for _, r := range Routes {
		doc.AddOperation(operation(cat, r, reg.Get(r.Capability)))
	}
	prune(cat, doc)
	return doc, nil
}

// prune drops the schemas no operation leads to: those of internal
// capabilities, which callers do not see.
func prune(cat *catalogue, doc *huma.OpenAPI) {
	used := map[string]*huma.Schema{}
	content := func(c map[string]*huma.MediaType) {
		for _, m := range c {
			cat.reach(m.Schema, used)
		}
	}
	for _, r := range doc.Components.Responses {
		content(r.Content)
	}
	for _, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Put, item.Post} {
			if op == nil {
				continue
			}
			for _, p := range op.Parameters {
				cat.reach(p.Schema, used)
			}
			if op.RequestBody != nil {
				content(op.RequestBody.Content)
			}
			for _, r := range op.Responses {
				content(r.Content)
			}
		}
	}
	maps.DeleteFunc(cat.reg.Map(), func(name string, _ *huma.Schema) bool { return used[name] == nil })
}

// shared fills the components that operations refer to.
func shared(doc *huma.OpenAPI) {
	reg := doc.Components.Schemas
	problem := reg.Schema(reflect.TypeFor[Problem](), true, "Problem")
	text := func(pattern string) *huma.Schema { return &huma.Schema{Type: huma.TypeString, Pattern: pattern} }
	header := func(name, about string, s *huma.Schema) {
		doc.Components.Headers[name] = &huma.Header{Description: about, Schema: s}
	}
	header("Request-Id", "Id of the call.", text(`^cll_[0-7][0-9A-HJKMNP-TV-Z]{25}$`))
	header("Receipt-Id", "Receipt of the transition or denial; absent for reads.", text(writ.PatternReceipt))
	header("ETag", "Version of the document shown, for If-Match.", text(`^"[1-9][0-9]*"$`))
	header("Policy-Revision", "Revision of the policy in force.", text(""))
	header(HeaderCheckpoint, "Latest checkpoint of the transparency log that this replica knows, base64 of the signed note (C2SP tlog-checkpoint); absent while it knows none. "+
		"Keep it: log.head proves that a later one only added to it.", text(`^[A-Za-z0-9+/]+={0,2}$`))
	header("Budget-Warning", "The call took its run to a mark of its budget for the first time: dimension=percent, for example steps=80. One header per dimension.", &huma.Schema{Type: huma.TypeString})
	header("Idempotency-Replayed", "true when the reply is that of an earlier call with the same key.", &huma.Schema{Type: huma.TypeString, Enum: []any{"true"}})
	header("Policy-Redacted", "JSON pointers into the body, each in quotes, * for every member or element: policy keeps these values from the caller. "+
		`What stands there is "[redacted]", 0, false, or an object or array without contents.`, text(""))
	header("Policy-Limited", "Arguments that were greater than policy allows and what was used instead, for example lease_ttl_s=60, wait_s=10 (RFC 9651).", text(""))
	header("Retry-After", "Seconds to wait before the next try.", &huma.Schema{Type: huma.TypeInteger, Minimum: ptr(0.0)})

	doc.Components.Parameters["IdempotencyKey"] = &huma.Param{
		Name: "Idempotency-Key", In: "header",
		Description: "Makes the change happen at most once: the same key and request give the same reply.",
		Schema:      &huma.Schema{Type: huma.TypeString, MinLength: ptr(1), MaxLength: ptr(128), Pattern: `^[!-~]+$`},
	}
	doc.Components.Parameters["Cosignature"] = &huma.Param{
		Name: "Cosignature", In: "header",
		Description: "The caller's own signature of the call, where policy wants one (see agent.register, keys): v1, the id of the key, and the signature in base64. It needs an Idempotency-Key.",
		Schema:      text(CosignaturePattern),
	}
	doc.Components.Parameters["IfMatch"] = &huma.Param{
		Name: "If-Match", In: "header", Description: "ETag the document must still have; otherwise the answer is 412.",
		Schema: text(`^"?[1-9][0-9]*"?$`),
	}
	doc.Components.Responses["Pending"] = &huma.Response{
		Description: "Repeat the call later, with the same Idempotency-Key. approval_required: it has not happened, policy allows it once people have agreed. pending_log: it has happened, and the transparency log does not have its receipt yet.",
		Headers: map[string]*huma.Param{
			"Request-Id": headerRef("Request-Id"), "Receipt-Id": headerRef("Receipt-Id"), "Policy-Limited": headerRef("Policy-Limited"), HeaderCheckpoint: headerRef(HeaderCheckpoint),
		},
		Content: map[string]*huma.MediaType{
			"application/json": {Schema: &huma.Schema{OneOf: []*huma.Schema{
				reg.Schema(reflect.TypeFor[writ.Pending](), true, "Pending"), reg.Schema(reflect.TypeFor[writ.Unlogged](), true, "Unlogged"),
			}}},
		},
	}
	doc.Components.Responses["Problem"] = &huma.Response{
		Description: "The call was refused.",
		Headers: map[string]*huma.Param{
			"Request-Id": headerRef("Request-Id"), "Receipt-Id": headerRef("Receipt-Id"), "Retry-After": headerRef("Retry-After"), HeaderCheckpoint: headerRef(HeaderCheckpoint),
		},
		Content: map[string]*huma.MediaType{problemJSON: {Schema: problem}},
	}
}

func headerRef(name string) *huma.Param { return &huma.Param{Ref: "#/components/headers/" + name} }

// operation describes one route.
func operation(cat *catalogue, r Route, c *writ.Capability) *huma.Operation {
	op := &huma.Operation{
		OperationID: r.OperationID, Method: r.Method, Path: r.Path, Tags: []string{r.Tag}, Summary: c.Summary,
		Responses: map[string]*huma.Response{}, SkipValidateBody: true,
		Security:   []map[string][]string{{bearer: {}}},
		Extensions: map[string]any{"x-capability": string(r.Capability), "x-safety": string(c.Safety)},
	}
	args, example := cat.args[c.Args], exampleArgs(c)
	for _, p := range r.Params() {
		op.Parameters = append(op.Parameters, parameter(args, example, p, "path"))
	}
	if r.Method == http.MethodGet || r.TakesBytes {
		names := slices.Sorted(maps.Keys(queryTypes(r, c.Args)))
		for _, name := range names {
			op.Parameters = append(op.Parameters, parameter(args, example, name, "query"))
		}
	}
	switch {
	case r.TakesBytes:
		op.RequestBody = &huma.RequestBody{Description: "The bytes.", Content: octets()}
	case r.Method != http.MethodGet:
		op.RequestBody = requestBody(cat, r, args, example)
	}
	if r.Method != http.MethodGet {
		op.Parameters = append(op.Parameters,
			&huma.Param{Ref: "#/components/parameters/IdempotencyKey"}, &huma.Param{Ref: "#/components/parameters/IfMatch"},
			&huma.Param{Ref: "#/components/parameters/Cosignature"})
	}
	result := cat.result(c)
	for _, o := range r.Outcomes {
		op.Responses[strconv.Itoa(statusOf[o])] = success(o, result)
		if r.GivesBytes {
			op.Responses[strconv.Itoa(statusOf[o])].Content = octets()
		}
	}
	if r.Method != http.MethodGet {
		op.Responses[strconv.Itoa(http.StatusAccepted)] = &huma.Response{Ref: "#/components/responses/Pending"}
	}
	for _, status := range refusals(r) {
		op.Responses[strconv.Itoa(status)] = &huma.Response{Ref: "#/components/responses/Problem"}
	}
	return op
}

// exampleArgs are the arguments of the capability's example; nil when it has none.
func exampleArgs(c *writ.Capability) (args map[string]any) {
	_ = stdjson.Unmarshal([]byte(c.Example), &args) // those of the registry are well formed: a test decodes each
	return args
}

// parameter describes an argument that travels outside the body.
func parameter(args *huma.Schema, example map[string]any, name, in string) *huma.Param {
	s := *args.Properties[name]
	text := s.Description
	s.Description = ""
	return &huma.Param{Name: name, In: in, Description: text, Example: example[name], Schema: &s, Required: in == "path" || slices.Contains(args.Required, name)}
}

// requestBody describes the arguments without those in the path.
func requestBody(cat *catalogue, r Route, args *huma.Schema, example map[string]any) *huma.RequestBody {
	s := *args
	s.Properties = maps.Clone(args.Properties)
	s.Required = nil
	for _, name := range args.Required {
		if !slices.Contains(r.Params(), name) {
			s.Required = append(s.Required, name)
		}
	}
	example = maps.Clone(example)
	for _, p := range r.Params() {
		delete(s.Properties, p)
		delete(example, p)
	}
	name := pascal(r.OperationID) + "Request"
	cat.reg.Map()[name] = &s
	body := &huma.MediaType{Schema: &huma.Schema{Ref: schemaPrefix + name}}
	if example != nil {
		body.Example = example
	}
	return &huma.RequestBody{Required: len(s.Required) > 0, Content: map[string]*huma.MediaType{"application/json": body}}
}

// octets is a body of any bytes.
func octets() map[string]*huma.MediaType {
	return map[string]*huma.MediaType{octetStream: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}
}

func success(o writ.Outcome, result *huma.Schema) *huma.Response {
	res := &huma.Response{Headers: map[string]*huma.Param{}}
	for _, h := range []string{
		"Request-Id", "Receipt-Id", "ETag", "Policy-Revision", "Policy-Redacted", "Policy-Limited", "Idempotency-Replayed", "Budget-Warning", HeaderCheckpoint,
	} {
		res.Headers[h] = headerRef(h)
	}
	switch o {
	case writ.OutcomeEmpty:
		res.Description = "Nothing to hand out."
		res.Headers = map[string]*huma.Param{"Request-Id": headerRef("Request-Id"), "Retry-After": headerRef("Retry-After"), "Policy-Limited": headerRef("Policy-Limited"), HeaderCheckpoint: headerRef(HeaderCheckpoint)}
		return res
	case writ.OutcomeCreated:
		res.Description = "Created."
	default:
		res.Description = "Done."
	}
	res.Content = map[string]*huma.MediaType{"application/json": {Schema: result}}
	return res
}

// onlyOfChanges are the statuses a read is never answered with.
var onlyOfChanges = []int{http.StatusRequestEntityTooLarge, http.StatusLocked, http.StatusPreconditionFailed}

// refusals lists the statuses of problems an operation can answer with.
func refusals(r Route) []int {
	var out []int
	for code := range kindOf {
		for _, status := range Statuses(code) {
			if r.Method == http.MethodGet && slices.Contains(onlyOfChanges, status) {
				continue
			}
			if !slices.Contains(out, status) {
				out = append(out, status)
			}
		}
	}
	return out
}

// pascal turns "task.claim.byId" into "TaskClaimById".
func pascal(id string) string {
	var b strings.Builder
	for _, word := range strings.FieldsFunc(id, func(r rune) bool { return r == '.' || r == '-' || r == '_' }) {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}

func ptr[T any](v T) *T { return &v }
