package main

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/writ-gateway/writ"
)

// What --help says about arguments comes from the tags of their structs, as
// the API's description does.

// text is a flag whose value is read when the command runs.
type text struct{ value, kind string }

func (t *text) String() string     { return t.value }
func (t *text) Set(s string) error { t.value = s; return nil }
func (t *text) Type() string       { return t.kind }

// kindOf names what a flag takes.
func kindOf(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[writ.RawObject]():
		return "json"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String:
		return "list"
	case t.Kind() == reflect.Slice, t.Kind() == reflect.Struct, t.Kind() == reflect.Map:
		return "json"
	case t.Kind() == reflect.Int64:
		return "int"
	case t.Kind() == reflect.Bool:
		return "bool"
	}
	return "string"
}

// usageOf is the line of a flag: what it is for, what it may be, and whether
// it must be given.
func usageOf(f reflect.StructField) string {
	s := strings.ReplaceAll(strings.TrimSuffix(f.Tag.Get("doc"), "."), "`", "'")
	if l := limitsOf(f); l != "" {
		s += "; " + l
	}
	switch kindOf(f.Type) {
	case "list":
		s += " (comma separated, or a JSON array)"
	case "json":
		s += " (JSON, or @file)"
	}
	if !optional(f) {
		s += " (required)"
	}
	return s
}

func optional(f reflect.StructField) bool {
	_, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
	return strings.Contains(opts, "omitempty")
}

// limitsOf says what a schema says about a value.
func limitsOf(f reflect.StructField) string {
	var out []string
	tag := f.Tag.Get
	if e := tag("enum"); e != "" {
		out = append(out, "one of "+strings.ReplaceAll(e, ",", "|"))
		if kindOf(f.Type) == "list" {
			out[0] = "any of " + strings.ReplaceAll(e, ",", "|")
		}
	}
	if p := formOf(tag("pattern")); p != "" {
		out = append(out, p)
	}
	between := func(low, high, what string) {
		switch {
		case tag(low) != "" && tag(high) != "":
			out = append(out, fmt.Sprintf("%s to %s%s", tag(low), tag(high), what))
		case tag(low) != "":
			out = append(out, fmt.Sprintf("at least %s%s", tag(low), what))
		case tag(high) != "":
			out = append(out, fmt.Sprintf("at most %s%s", tag(high), what))
		}
	}
	between("minimum", "maximum", "")
	between("minLength", "maxLength", " characters")
	between("minItems", "maxItems", " items")
	if d := tag("default"); d != "" {
		out = append(out, "default "+d)
	}
	return strings.Join(out, "; ")
}

// formOf says in words what the patterns of ids, slugs and names ask for.
func formOf(pattern string) string {
	prefix, _, isID := strings.Cut(strings.TrimPrefix(pattern, "^"), "_[0-7][0-9A-HJKMNP-TV-Z]{25}$")
	switch {
	case pattern == "":
		return ""
	case isID:
		return prefix + "_…"
	case pattern == writ.PatternSlug:
		return "2 to 63 of a-z, 0-9 and -"
	case pattern == writ.PatternBound:
		return "2 to 63 of a-z, 0-9 and -, or *"
	case strings.HasPrefix(pattern, `^[a-z][a-z0-9_-]{0,62}(`):
		return "a dotted name such as site.build"
	}
	return "of the form " + pattern
}

// shapesOf describes the arguments that are JSON: their members, below the
// name of the argument.
func shapesOf(t reflect.Type) string {
	var b strings.Builder
	for _, a := range argumentsOf(t) {
		in, list := membersOf(a.field.Type)
		if in == nil {
			continue
		}
		what := "a JSON object"
		if list {
			what = "a JSON array of objects"
		}
		fmt.Fprintf(&b, "\n--%s is %s with:\n", flagName(a.name), what)
		shape(&b, in, "  ")
	}
	return b.String()
}

func shape(b *strings.Builder, t reflect.Type, indent string) {
	for _, a := range argumentsOf(t) {
		f := a.field
		kind := map[string]string{"list": "array", "json": "object", "int": "integer"}[kindOf(f.Type)]
		if kind == "" {
			kind = kindOf(f.Type)
		}
		if !optional(f) {
			kind += ", required"
		}
		limits := limitsOf(f)
		if limits != "" {
			limits = "; " + limits
		}
		fmt.Fprintf(b, "%s%s (%s): %s%s\n", indent, a.name, kind, strings.TrimSuffix(f.Tag.Get("doc"), "."), limits)
		if in, _ := membersOf(f.Type); in != nil {
			shape(b, in, indent+"  ")
		}
	}
}

// exampleOf is JSON of the form a type has, with the members that must be given.
func exampleOf(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[writ.RawObject](), t.Kind() == reflect.Map:
		return `{"name":"value"}`
	case t.Kind() == reflect.Slice:
		return "[" + exampleOf(t.Elem()) + "]"
	case t.Kind() == reflect.Int64:
		return "1"
	case t.Kind() == reflect.Bool:
		return "true"
	case t.Kind() != reflect.Struct:
		return `"…"`
	}
	var must, may []string
	for _, a := range argumentsOf(t) {
		value := exampleOf(a.field.Type)
		if enum, _, _ := strings.Cut(a.field.Tag.Get("enum"), ","); enum != "" {
			value = `"` + enum + `"`
		}
		if member := `"` + a.name + `":` + value; a.required {
			must = append(must, member)
		} else {
			may = append(may, member)
		}
	}
	if len(must) == 0 && len(may) > 0 { // one of them at least makes sense
		must = may[:1]
	}
	return "{" + strings.Join(must, ",") + "}"
}

// membersOf is the struct an argument holds, if its members can be told.
func membersOf(t reflect.Type) (in reflect.Type, list bool) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() == reflect.Slice {
		t, list = t.Elem(), true
	}
	if t.Kind() != reflect.Struct {
		return nil, false
	}
	return t, list
}

// examples has one call of every verb. A test holds them to the commands and to
// the schemas.
var examples = map[writ.CapabilityID]string{
	"agent.register": `writ agent register site-builder --archetypes executor --domain web \
    --tools '[{"name":"site.build","safety":"mutating"}]' --write-scope fs:site/`,
	"agent.activate":  `writ agent activate site-builder`,
	"agent.suspend":   `writ agent suspend site-builder --reason maintenance`,
	"agent.revoke":    `writ agent revoke site-builder --reason compromised`,
	"agent.supersede": `writ agent supersede site-builder --successor site-builder-2`,
	"agent.retire":    `writ agent retire site-builder`,
	"agent.info":      `writ agent info site-builder`,
	"agent.list":      `writ agent list --limit 20`,
	"agent.health":    `writ agent health site-builder`,
	"agent.tools":     `writ agent tools site-builder`,
	"agent.delegate":  `writ agent delegate run_01M89R8776FSMT3FKAH3617HBC --input "movie night" --task '{"key":"night","capability":"media.plan"}'`,
	"agent.route":     `writ agent route --input "movie night"`,
	"scope.list":      `writ scope list --under fs:repo/docs/`,
	"session.open":    `writ session open --principal site-builder --kind agent --role executor --agent-id site-builder --token-out builder.token`,
	"session.start": `writ session start ses_01M89R87380BN93ZHPZ445DCJ8 --token-file builder.token \
    --write-claims '[{"resource":"fs:site/dist/"},{"resource":"mem:notes/","mode":"shared"}]'`,
	"session.heartbeat": `writ session heartbeat ses_01M89R87380BN93ZHPZ445DCJ8 --token-file builder.token`,
	"session.close":     `writ session close ses_01M89R87380BN93ZHPZ445DCJ8 --token-file builder.token`,
	"session.revoke":    `writ session revoke ses_01M89R87380BN93ZHPZ445DCJ8 --reason token_lost`,
	"session.spawn":     `writ session spawn site-builder --role executor --write-claims '[{"resource":"fs:site/dist/"}]'`,
	"session.get":       `writ session get ses_01M89R87380BN93ZHPZ445DCJ8`,
	"session.list":      `writ session list --limit 20`,
	"run.create":        `writ run create --title "spring release" --budget '{"steps":40}'`,
	"run.get":           `writ run get run_01M89R8763R5PGQGSMXGFWBA4N`,
	"run.budget":        `writ run budget run_01M89R8763R5PGQGSMXGFWBA4N`,
	"run.list":          `writ run list --state active`,
	"run.seal":          `writ run seal run_01M89R8763R5PGQGSMXGFWBA4N`,
	"run.cancel":        `writ run cancel run_01M89R8763R5PGQGSMXGFWBA4N --reason mistake`,
	"run.close":         `writ run close run_01M89R8763R5PGQGSMXGFWBA4N --verdict accept --receipt-id rcp_01M89R8763R5PGQGSMXGFWBA4N --token-file judge.token`,
	"task.enqueue": `writ task enqueue --run-id run_01M89R8763R5PGQGSMXGFWBA4N --key build --capability site.build \
    --required-domain web --write-scopes fs:site/dist/ --args '{"ref":"main"}'`,
	"task.claim": `writ task claim --wait-s 20 --token-file builder.token`,
	"task.heartbeat": `writ task heartbeat tsk_01M89R8776FSMT3FKAH3617HBC --lease-id lse_01M89R87A1XW9VX2J6QY4SBD3M --fence 9 \
    --progress '{"pct":40,"seq":1}' --token-file builder.token`,
	"task.complete": `writ task complete tsk_01M89R8776FSMT3FKAH3617HBC --lease-id lse_01M89R87A1XW9VX2J6QY4SBD3M --fence 9 \
    --result '{"ok":true}' --token-file builder.token`,
	"task.handoff": `writ task handoff tsk_01M89R8776FSMT3FKAH3617HBC --lease-id lse_01M89R87A1XW9VX2J6QY4SBD3M --fence 9 \
    --to '{"key":"publish"}' --refs '[{"name":"plan","kind":"file","ref":"fs:repo/docs/plan.md"}]' --token-file builder.token`,
	"task.fail": `writ task fail tsk_01M89R8776FSMT3FKAH3617HBC --lease-id lse_01M89R87A1XW9VX2J6QY4SBD3M --fence 9 \
    --failure '{"class":"external","code":"timeout","retryable":true}' --token-file builder.token`,
	"task.release": `writ task release tsk_01M89R8776FSMT3FKAH3617HBC --lease-id lse_01M89R87A1XW9VX2J6QY4SBD3M --fence 9 --token-file builder.token`,
	"task.verify": `writ task verify tsk_01M89R8776FSMT3FKAH3617HBC --verdict accept --receipt-id rcp_01M89R8763R5PGQGSMXGFWBA4N \
    --gates '[{"gate":"tests","status":"pass"}]' --token-file judge.token`,
	"task.admit":       `writ task admit tsk_01M89R8776FSMT3FKAH3617HBC`,
	"task.revive":      `writ task revive tsk_01M89R8776FSMT3FKAH3617HBC --key build-again`,
	"task.cancel":      `writ task cancel tsk_01M89R8776FSMT3FKAH3617HBC`,
	"task.get":         `writ task get tsk_01M89R8776FSMT3FKAH3617HBC`,
	"task.list":        `writ task list run_01M89R8763R5PGQGSMXGFWBA4N --state queued`,
	"policy.explain":   `writ policy explain rcp_01M89R8763R5PGQGSMXGFWBA4N`,
	"policy.records":   `writ policy records --capability task.claim --limit 50 -o json`,
	"policy.shadow":    `writ policy shadow`,
	"policy.list":      `writ policy list --limit 5`,
	"policy.activate":  `writ policy activate sha256:4ca9f4fc0a9cdcf5a4b2bb9f3d8b8b1e6f7d2c0a9e5b4c3d2e1f0a9b8c7d6e5f`,
	"policy.rollback":  `writ policy rollback`,
	"policy.withdraw":  `writ policy withdraw sha256:4ca9f4fc0a9cdcf5a4b2bb9f3d8b8b1e6f7d2c0a9e5b4c3d2e1f0a9b8c7d6e5f`,
	"approval.decide":  `writ approval decide apr_01M85DS6ADY7YHVBWVGXH347C2 --decision approve --reason "checked" --token-file alice.token`,
	"approval.respond": `writ approval respond apr_01M85DS6ADY7YHVBWVGXH347C2 --response '{"answer":"yes"}' --token-file alice.token`,
	"approval.revoke":  `writ approval revoke apr_01M85DS6ADY7YHVBWVGXH347C2`,
	"approval.get":     `writ approval get apr_01M85DS6ADY7YHVBWVGXH347C2`,
	"approval.list":    `writ approval list --state pending`,
	"capability.list":  `writ capability list`,
	"capability.get":   `writ capability get task.enqueue`,
	"policy.info":      `writ policy info`,
	"role.bind":        `writ role bind --principal alice --role approver`,
	"role.unbind":      `writ role unbind --principal mallory --role executor`,
	"role.list":        `writ role list --role approver`,
	"role.permissions": `writ role permissions --principal alice`,
	"quota.set":        `writ quota set --metric claims_per_min --subject agent --limit 60`,
	"quota.delete":     `writ quota delete quo_01M89R8763R5PGQGSMXGFWBA4N`,
	"quota.get":        `writ quota get quo_01M89R8763R5PGQGSMXGFWBA4N`,
	"quota.list":       `writ quota list --metric queued_tasks`,
	"egress.fetch":     `writ egress fetch --grant github-api --path /repos/writ-gateway/writ`,
	"egress.grant":     `writ egress grant github-api --host api.github.com --path-prefix /repos --agents builder-1`,
	"egress.grants":    `writ egress grants`,
	"egress.revoke":    `writ egress revoke github-api`,
	"effect.list":      `writ effect list --state unknown`,
	"effect.get":       `writ effect get eff_01M89R8763R5PGQGSMXGFWBA4N`,
	"effect.resolve":   `writ effect resolve eff_01M89R8763R5PGQGSMXGFWBA4N --as error`,
	"secret.list":      `writ secret list`,
	"secret.delete":    `writ secret delete stripe`,
	"artifact.list":    `writ artifact list run_01M89R8763R5PGQGSMXGFWBA4N --limit 20`,
	"artifact.get":     `writ artifact get sha256:4ca9f4fc0a9cdcf5a4b2bb9f3d8b8b1e6f7d2c0a9e5b4c3d2e1f0a9b8c7d6e5f --task-id tsk_01M89R8776FSMT3FKAH3617HBC --out site.zip`,
	"receipt.list":     `writ receipt list --run-id run_01M89R8763R5PGQGSMXGFWBA4N --limit 20`,
	"evidence.shred":   `writ evidence shred run_01M89R8763R5PGQGSMXGFWBA4N --reason data_subject_request`,
	"receipt.evidence": `writ receipt evidence rcp_01M89R8776WWQMDZ1SS4766DAD`,
	"log.head":         `writ log head --since 1024`,
	"key.list":         `writ key list`,
	"key.introduce":    `writ key introduce --public-key "$(cat receipt-4ca9f4fc0a9cdcf5.pub)"`,
	"key.activate":     `writ key activate SHA256:hfuNWmjIYvsBGZ6dpCLTTAEa5LxbZABRHHVoynAxFlo`,
	"key.retire":       `writ key retire SHA256:hfuNWmjIYvsBGZ6dpCLTTAEa5LxbZABRHHVoynAxFlo`,
	"key.revoke":       `writ key revoke SHA256:hfuNWmjIYvsBGZ6dpCLTTAEa5LxbZABRHHVoynAxFlo --since 20481`,
	"receipt.get":      `writ receipt get rcp_01M89R8776WWQMDZ1SS4766DAD`,
}
