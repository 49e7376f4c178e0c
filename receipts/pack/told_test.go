package pack

import (
	"bytes"
	"strings"
	"testing"
)

// Evidence is read one way: a name in other letters is another name, and what has one twice,
// or is no text, says nothing. Both verifiers hold to it.
func TestEvidenceIsReadOneWay(t *testing.T) {
	o := node(t)
	// in writes the evidence of some calls in another way.
	in := func(what, old, new string) func(string, []byte) []byte {
		return func(of string, text []byte) []byte {
			if of != what {
				return text
			}
			return bytes.Replace(text, []byte(old), []byte(new), 1)
		}
	}
	const opens, vera = "session.open", `"principal":"vera"`
	deep := func(n int) string { return vera + `,"more":` + strings.Repeat("[", n) + strings.Repeat("]", n) }
	for name, x := range map[string]struct {
		spell func(string, []byte) []byte
		want  string
	}{
		"as it is written":                 {nil, ""},
		"with spaces":                      {in(opens, vera, ` "principal" : "vera" `), ""},
		"with an escape":                   {in(opens, vera, `"princip\u0061l":"vera"`), ""},
		"a name in other letters":          {in(opens, vera, `"Principal":"vera"`), "lineage_unknown"},
		"a name twice":                     {in(opens, vera, `"principal":"worker","principal":"vera"`), "lineage_unknown"},
		"a name twice, spelled otherwise":  {in(opens, vera, `"princip\u0061l":"worker",`+vera), "lineage_unknown"},
		"a name beside it":                 {in(opens, vera, `"Principal":"worker",`+vera), ""},
		"a name twice, which nobody reads": {in(opens, vera, vera+`,"more":{"a":1,"a":2}`), "lineage_unknown"},
		"no text":                          {in(opens, vera, vera+`,"more":"\ud800"`), "lineage_unknown"},
		"bytes that are none":              {in(opens, vera, vera+",\"more\":\"\xff\""), "lineage_unknown"},
		"as deep as it may be":             {in(opens, vera, deep(9997)), ""},
		"deeper":                           {in(opens, vera, deep(9998)), "lineage_unknown"},
		"arguments in other letters":       {in(opens, `"args"`, `"Args"`), "lineage_unknown"},
		"arguments twice":                  {in(opens, `"args":{`, `"args":{},"args":{`), "lineage_unknown"},
		"arguments that are a list":        {in(opens, `"args":{`, `"args":[],"argo":{`), "lineage_unknown"},
		"checks in other letters":          {in("task.verify", `"gates"`, `"Gates"`), "verdict_gate"},
		"a receipt in other letters":       {in("run.close", `"receipt_id"`, `"Receipt_ID"`), "verdict_other"},
		"what is asked in other letters":   {in("run.create", `"close_policy"`, `"Close_policy"`), ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := world(t)
			c := l.cast()
			l.spell = x.spell
			c.judge = l.open(c.operator, ses(9), "vera", "human", "verifier", "", "")
			l.begin(c)
			l.accept(c, c.judge)
			f := l.export(Options{})
			if got := both(t, o, name, f, f, l.trust(), Ask{Run: c.run, Close: true}).each(); got != x.want {
				t.Errorf("got %q, want %q", got, x.want)
			}
		})
	}
}
