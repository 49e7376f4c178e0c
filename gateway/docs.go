package gateway

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed docs.html
var docsHTML string

//go:embed docs.css
var docsCSS string

// docsPolicy lets the reference page use its own style and nothing else: no
// script, no other host.
var docsPolicy = func() string {
	sum := sha256.Sum256([]byte(docsCSS))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

// What the page shows; filled from the OpenAPI document alone.
type (
	docsPage struct {
		Title, Version, Description string
		Style                       template.CSS
		Groups                      []docsGroup
		Schemas                     []docsSchema
	}
	docsGroup struct {
		Name, Text string
		Operations []docsOperation
	}
	docsOperation struct {
		ID, Method, Path, Summary, Capability, Safety string
		Parameters                                    []docsField
		Body                                          *docsType
		Answers                                       []docsAnswer
	}
	docsAnswer struct {
		Status string
		Type   docsType
	}
	docsSchema struct {
		Name   string
		Fields []docsField
	}
	docsField struct {
		Name, In, Text string
		Required       bool
		Type           docsType
	}
	docsType struct{ Text, Link, Rule string }
)

// reference renders the document as one HTML page.
func reference(doc *huma.OpenAPI) ([]byte, error) {
	t, err := template.New("docs").Parse(docsHTML)
	if err != nil {
		return nil, err
	}
	page := docsPage{
		Title: doc.Info.Title, Version: doc.Info.Version, Description: doc.Info.Description,
		Style: template.CSS(docsCSS), // our own file
	}
	for _, tag := range doc.Tags {
		page.Groups = append(page.Groups, docsGroup{Name: tag.Name, Text: tag.Description, Operations: docsOperations(doc, tag.Name)})
	}
	for _, name := range slices.Sorted(maps.Keys(doc.Components.Schemas.Map())) {
		s := doc.Components.Schemas.Map()[name]
		page.Schemas = append(page.Schemas, docsSchema{Name: name, Fields: docsFields(s)})
	}
	var b bytes.Buffer
	if err := t.Execute(&b, page); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func docsOperations(doc *huma.OpenAPI, tag string) []docsOperation {
	var out []docsOperation
	for _, p := range slices.Sorted(maps.Keys(doc.Paths)) {
		item := doc.Paths[p]
		for _, op := range []*huma.Operation{item.Get, item.Put, item.Post} {
			if op == nil || !slices.Contains(op.Tags, tag) {
				continue
			}
			o := docsOperation{
				ID: op.OperationID, Method: op.Method, Path: op.Path, Summary: op.Summary,
				Capability: fmt.Sprint(op.Extensions["x-capability"]), Safety: fmt.Sprint(op.Extensions["x-safety"]),
			}
			for _, param := range op.Parameters {
				if param.Ref != "" {
					param = doc.Components.Parameters[param.Ref[strings.LastIndexByte(param.Ref, '/')+1:]]
				}
				o.Parameters = append(o.Parameters, docsField{
					Name: param.Name, In: param.In, Text: param.Description, Required: param.Required, Type: docsTypeOf(param.Schema),
				})
			}
			if op.RequestBody != nil {
				m := op.RequestBody.Content["application/json"]
				if m == nil {
					m = op.RequestBody.Content[octetStream]
				}
				body := docsTypeOf(m.Schema)
				o.Body = &body
			}
			for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
				a := docsAnswer{Status: status}
				if m := op.Responses[status].Content["application/json"]; m != nil {
					a.Type = docsTypeOf(m.Schema)
				}
				o.Answers = append(o.Answers, a)
			}
			out = append(out, o)
		}
	}
	return out
}

func docsFields(s *huma.Schema) []docsField {
	var out []docsField
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		p := s.Properties[name]
		out = append(out, docsField{Name: name, Text: p.Description, Required: slices.Contains(s.Required, name), Type: docsTypeOf(p)})
	}
	return out
}

// docsTypeOf puts a schema into a few words.
func docsTypeOf(s *huma.Schema) docsType {
	if s == nil {
		return docsType{Text: "any"}
	}
	if s.Ref != "" {
		name := strings.TrimPrefix(s.Ref, schemaPrefix)
		return docsType{Text: name, Link: name}
	}
	switch s.Type {
	case huma.TypeArray:
		t := docsTypeOf(s.Items)
		t.Text = "array of " + t.Text
		return t
	case "":
		return docsType{Text: "any"}
	}
	var rules []string
	if len(s.Enum) > 0 {
		words := make([]string, len(s.Enum))
		for i, e := range s.Enum {
			words[i] = fmt.Sprint(e)
		}
		rules = append(rules, strings.Join(words, " | "))
	}
	if s.Pattern != "" {
		rules = append(rules, s.Pattern)
	}
	if s.Minimum != nil {
		rules = append(rules, fmt.Sprintf("≥ %v", *s.Minimum))
	}
	if s.Maximum != nil {
		rules = append(rules, fmt.Sprintf("≤ %v", *s.Maximum))
	}
	if s.MaxLength != nil {
		rules = append(rules, fmt.Sprintf("at most %d characters", *s.MaxLength))
	}
	if s.Default != nil {
		rules = append(rules, fmt.Sprintf("default %v", s.Default))
	}
	return docsType{Text: s.Type, Rule: strings.Join(rules, ", ")}
}
