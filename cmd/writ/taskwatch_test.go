package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
)

// shapeOf is a watch without the times.
func shapeOf(out string) string {
	var lines []string
	for line := range strings.Lines(out) {
		if i := strings.Index(line, `"at":"`); i >= 0 {
			line = line[:i] + line[i+len(`"at":"2026-11-26T04:16:40Z",`):]
		} else {
			_, line, _ = strings.Cut(line, " ")
		}
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(lines, "\n")
}

// A watch shows where the run stands when nothing moves in it, and the failure of an
// attempt only for as long as that explains where the task stands.
func TestWatching(t *testing.T) {
	const id = "run_01M89R8763R5PGQGSMXGFWBA4N"
	runs := []string{
		`{"run_id":"` + id + `","state":"active","open_tasks":2}`,
		`{"run_id":"` + id + `","state":"active","open_tasks":2}`,
		`{"run_id":"` + id + `","state":"paused_approval","waits_for":"apr_1","open_tasks":2}`,
		`{"run_id":"` + id + `","state":"active","open_tasks":2}`,
		`{"run_id":"` + id + `","state":"failed","reason":"tasks_failed","open_tasks":0}`,
	}
	failure := `,"failure":{"class":"external","code":"timeout","retryable":true}`
	tasks := []string{
		`{"task_id":"tsk_1","key":"build","state":"queued","attempt":1` + failure + `}`,
		`{"task_id":"tsk_1","key":"build","state":"running","attempt":2,"lease":{"agent":"builder"}` + failure + `}`,
		`{"task_id":"tsk_1","key":"build","state":"parked","attempt":2,"waits_for":"apr_1"` + failure + `}`,
		`{"task_id":"tsk_1","key":"build","state":"cancelled","attempt":2` + failure + `}`,
		`{"task_id":"tsk_1","key":"build","state":"dead","attempt":2` + failure + `}`,
	}
	for _, tt := range []struct{ of, format, want string }{
		{id, "table", `build tsk_1 queued attempt 1 the attempt before: external/timeout
build tsk_1 running attempt 2 builder
the run ` + id + ` paused_approval waits for apr_1
build tsk_1 parked attempt 2 waits for apr_1
the run ` + id + ` active
build tsk_1 cancelled attempt 2
build tsk_1 dead attempt 2 external/timeout
the run ` + id + ` failed tasks_failed`},
		{id, "json", `{"key":"build","task_id":"tsk_1","state":"queued","attempt":1,"last_failure":"external/timeout","receipt":""}
{"key":"build","task_id":"tsk_1","state":"running","attempt":2,"agent_id":"builder","receipt":""}
{"run_id":"` + id + `","state":"paused_approval","waits_for":"apr_1","receipt":""}
{"key":"build","task_id":"tsk_1","state":"parked","attempt":2,"waits_for":"apr_1","receipt":""}
{"run_id":"` + id + `","state":"active","receipt":""}
{"key":"build","task_id":"tsk_1","state":"cancelled","attempt":2,"receipt":""}
{"key":"build","task_id":"tsk_1","state":"dead","attempt":2,"why":"external/timeout","receipt":""}
{"run_id":"` + id + `","state":"failed","reason":"tasks_failed","receipt":""}`},
		{"tsk_01M89R8776FSMT3FKAH3617HBC", "table", `build tsk_1 queued attempt 1 the attempt before: external/timeout
build tsk_1 running attempt 2 builder
the run ` + id + ` paused_approval waits for apr_1
build tsk_1 parked attempt 2 waits for apr_1
build tsk_1 cancelled attempt 2`},
	} {
		looks := map[string]int{}
		next := func(of string, list []string) string {
			looks[of]++
			return list[min(looks[of], len(list))-1]
		}
		g := newStandIn(t, func(a asked) (int, string) {
			switch a.Capability {
			case "run.get":
				return 200, next("run", runs)
			case "task.get":
				return 200, next("task", tasks)
			}
			return 200, `{"tasks":[` + next("task", tasks) + `]}`
		})
		w, out := watching(t, g, tt.format == "json")
		var err error
		over, well := false, true
		for !over && err == nil {
			if tt.of == id {
				over, well, err = w.run(t.Context(), id)
			} else {
				over, well, err = w.task(t.Context(), writ.TaskID(tt.of))
			}
		}
		if got := shapeOf(out.String()); well || err != nil || got != tt.want {
			t.Errorf("%s %s: %v\n%s", tt.of, tt.format, err, got)
		}
	}
}

// Who may not see the run of a task watches the task.
func TestWatchingOnlyATask(t *testing.T) {
	answer, status := `{"code":"not_found","detail":"there is no such run"}`, 404
	g := newStandIn(t, func(a asked) (int, string) {
		if a.Capability == "run.get" {
			return status, answer
		}
		return 200, `{"task_id":"tsk_1","key":"build","state":"queued"}`
	})
	w, out := watching(t, g, false)
	if over, _, err := w.task(t.Context(), "tsk_1"); over || err != nil || shapeOf(out.String()) != "build tsk_1 queued attempt 0" {
		t.Errorf("%v %v\n%s", over, err, out)
	}
	answer, status = `{"code":"unauthenticated","detail":"no"}`, 401
	if _, _, err := w.task(t.Context(), "tsk_1"); writ.CodeOf(err) != writ.CodeUnauthenticated {
		t.Errorf("another refusal: %v", err)
	}
}

// watching is a watch of what a stand-in says, and where it prints.
func watching(t *testing.T, g *standIn, asJSON bool) (watcher, *bytes.Buffer) {
	t.Helper()
	cl, err := (&connection{url: g.flags[1], tokenFile: g.flags[3]}).open()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c := &cobra.Command{}
	c.SetOut(&out)
	return watcher{c: c, cl: cl, json: asJSON, seen: map[string]string{}}, &out
}
