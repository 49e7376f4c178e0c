package main

import (
	"encoding/json"
	"strings"
	"testing"
)

const graphed = `version: 1
budget: {steps: 20}
steps:
  build:   {capability: site.build, required_domain: web}
  links:   {capability: site.test, required_domain: web, depends_on: [{key: build, on_failure: fail}]}
  spell:   {capability: site.test, required_domain: web, depends_on: [{key: build, on_failure: skip}]}
  publish: {capability: site.publish, required_domain: web, join: any_of, depends_on: [links, spell], verify: {required: true}}
  restore: {capability: site.restore, required_domain: web, join: manual, depends_on: [{key: publish, when: failed}]}
`

// A graph shows how much of what a step waits for must come about, and which end of it,
// in every format, of a file and of a run.
func TestGraphsShowJoins(t *testing.T) {
	g := newStandIn(t, func(a asked) (int, string) {
		return 200, `{"tasks":[
		{"task_id":"tsk_1","key":"build","state":"failed"},
		{"task_id":"tsk_2","key":"links","state":"failed","depends_on":[{"key":"build","task_id":"tsk_1","on_failure":"fail"}]},
		{"task_id":"tsk_3","key":"spell","state":"cancelled","depends_on":[{"key":"build","task_id":"tsk_1","on_failure":"skip"}]},
		{"task_id":"tsk_4","key":"publish","state":"failed","join":"any_of","verify":{"required":true},"depends_on":[{"key":"links","on_failure":"fail"},{"key":"spell","on_failure":"fail"}]},
		{"task_id":"tsk_5","key":"restore","state":"blocked","join":"manual","admitted":true,"depends_on":[{"key":"publish","when":"failed","on_failure":"skip"}]}]}`
	})
	file := write(t, graphed)
	run := append([]string{"run_01M89R8763R5PGQGSMXGFWBA4N"}, g.flags...)
	for _, tt := range []struct {
		of     []string
		format string
		lines  string
	}{
		{[]string{file}, "table", `STEP STATE AFTER JOIN VERDICT
build - - - -
links - build - -
spell - build (on failure: skip) - -
publish - links, spell any_of wanted
restore - publish (when failed) manual -`},
		{run, "table", `STEP STATE AFTER JOIN VERDICT
build failed - - -
links failed build - -
spell cancelled build (on failure: skip) - -
publish failed links, spell any_of wanted
restore blocked publish (when failed) manual, admitted -`},
		{[]string{file}, "mermaid", `flowchart TD
s_build_["build"]
s_links_["links"]
s_spell_["spell"]
s_publish_["publish<br>any_of"]
s_restore_["restore<br>manual"]
s_build_ --> s_links_
s_build_ -->|"on failure: skip"| s_spell_
s_links_ --> s_publish_
s_spell_ --> s_publish_
s_publish_ -->|"when failed"| s_restore_`},
		{run, "mermaid", `flowchart TD
s_build_["build<br>failed"]
s_links_["links<br>failed"]
s_spell_["spell<br>cancelled"]
s_publish_["publish<br>failed<br>any_of"]
s_restore_["restore<br>blocked<br>manual, admitted"]
s_build_ --> s_links_
s_build_ -->|"on failure: skip"| s_spell_
s_links_ --> s_publish_
s_spell_ --> s_publish_
s_publish_ -->|"when failed"| s_restore_`},
	} {
		out, text, exit := typed(append([]string{"workflow", "graph", "-o", tt.format}, tt.of...)...)
		var got []string
		for line := range strings.Lines(out) {
			got = append(got, strings.Join(strings.Fields(line), " "))
		}
		if strings.Join(got, "\n") != tt.lines {
			t.Errorf("%s: %d %s\n%s", tt.format, exit, text, out)
		}
	}
	for _, of := range [][]string{{file}, run} {
		out, text, exit := typed(append([]string{"workflow", "graph", "-o", "json"}, of...)...)
		var got struct{ Steps []map[string]any }
		if err := json.Unmarshal([]byte(out), &got); err != nil || len(got.Steps) != 5 {
			t.Fatalf("%d %s %v", exit, text, err)
		}
		for i, want := range map[int]string{
			0: `null null []`,
			1: `null [{"key":"build"}] ["build"]`,
			2: `null [{"key":"build","on_failure":"skip"}] ["build"]`,
			3: `"any_of" [{"key":"links"},{"key":"spell"}] ["links","spell"]`,
			4: `"manual" [{"key":"publish","when":"failed"}] ["publish"]`,
		} {
			var parts []string
			for _, name := range []string{"join", "depends_on", "after"} {
				b, _ := json.Marshal(got.Steps[i][name])
				parts = append(parts, string(b))
			}
			if have := strings.Join(parts, " "); have != want {
				t.Errorf("%s: got %s, want %s", got.Steps[i]["key"], have, want)
			}
		}
	}
}

// Steps are shown in the same order, whichever was made a task first.
func TestInLevels(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}} {
		all := []node{{Key: "build"}, {Key: "links", After: []string{"build"}}, {Key: "spell", After: []string{"build"}}, {Key: "look", After: []string{"links", "spell"}}}
		var nodes []node
		for _, i := range order {
			nodes = append(nodes, all[i])
		}
		inLevels(nodes)
		var got []string
		for _, n := range nodes {
			got = append(got, n.Key)
		}
		if want := "build links spell look"; strings.Join(got, " ") != want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
}
