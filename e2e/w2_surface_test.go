package e2e

import (
	"encoding/csv"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/writ-gateway/writ"
)

// rights is what the shipped rows let each role invoke.
func rights(t testing.TB) map[writ.Role]map[string]bool {
	t.Helper()
	rd := csv.NewReader(strings.NewReader(shipped(t)["roles/policy.csv"]))
	rd.Comment, rd.FieldsPerRecord, rd.TrimLeadingSpace = '#', -1, true
	rows, err := rd.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	out := map[writ.Role]map[string]bool{}
	for _, row := range rows {
		if role, ok := strings.CutPrefix(row[1], "role:"); ok && row[0] == "p" {
			if out[writ.Role(role)] == nil {
				out[writ.Role(role)] = map[string]bool{}
			}
			out[writ.Role(role)][row[3]] = true
		}
	}
	return out
}

// Whoever asks what can be called is shown what its role may call, by either way and at
// every replica, and of the rest not even that it is there.
func TestW2T3EachRoleSeesWhatItMayCall(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		c := newCast(t, w)
		known := map[string]bool{}
		for _, op := range w.operations() {
			known[op.capability] = true
		}
		for role, may := range rights(t) {
			if !may["capability.list"] {
				continue // it is refused the question
			}
			by := c.op
			switch role {
			case writ.RoleOperator:
			case writ.RoleExecutor:
				by = c.builder
			default:
				by = w.session("of-"+string(role), role, "")
			}
			for way, r := range map[string]reply{
				"REST": by.ok(200, "GET", "/v1/capabilities", nil), "invoke": by.at(w.last()).ok(200, "POST", "/v1/invoke", obj{"capability": "capability.list"}),
			} {
				in := []string{"capabilities"}
				if way == "invoke" {
					in = []string{"data", "capabilities"}
				}
				shown, _ := r.at(in...).([]any)
				ids := map[string]bool{}
				for _, v := range shown {
					one := v.(map[string]any)
					if one["kind"] == "builtin" {
						ids[one["id"].(string)] = true
					} else if one["id"] != tool {
						t.Errorf("%s is shown %v", role, one)
					}
				}
				if !maps.Equal(ids, may) {
					t.Errorf("%s, by %s, is shown\n%v, may call\n%v", role, way, slices.Sorted(maps.Keys(ids)), slices.Sorted(maps.Keys(may)))
				}
			}
			for id := range known {
				want := 404
				if may[id] {
					want = 200
				}
				if r := by.do("GET", "/v1/capabilities/"+id, nil); r.status != want {
					t.Errorf("%s: want %d: %s", role, want, r)
				}
			}
			by.ok(200, "GET", "/v1/capabilities/"+tool, nil) // all of them have to do with tasks
		}
	})
}
