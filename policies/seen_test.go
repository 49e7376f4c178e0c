package policies

import "testing"

// A field that the wrapper does not write out cannot be read in any way: a rule that
// reads it would be silent.
func TestFieldsAreNotReadUnseen(t *testing.T) {
	for name, add := range map[string]string{
		"direct get":                "    object.get(input.user, \"banned\", false) == true",
		"alias get":                 "    u := input.user\n    object.get(u, \"banned\", false) == true",
		"alias get of input":        "    i := input\n    object.get(i, [\"user\", \"banned\"], false) == true",
		"helper function":           "    _flag(input.user, \"banned\")",
		"var key":                   "    some k in [\"banned\", \"blocked\"]\n    input.user[k] == true",
		"walk":                      "    walk(input, [p, v])\n    p[count(p)-1] == \"banned\"\n    v == true",
		"json.filter":               "    json.filter(input, [\"user/banned\"]).user.banned == true",
		"object.keys":               "    \"banned\" in object.keys(input.user)",
		"union":                     "    object.union({\"banned\": false}, input.user).banned == true",
		"every":                     "    every k, v in input.user {\n        k != \"banned\"\n    }",
		"inside another":            "    count({\"u\": input.user}) > 0",
		"an alias of an alias":      "    u := input.user\n    w := u\n    object.get(w, \"banned\", false) == true",
		"taken apart":               "    [u] := [input.user]\n    some k\n    k != \"role\"\n    u[k] == \"x\"",
		"taken apart, of an object": "    {\"a\": u} = {\"a\": input.user}\n    some k\n    u[k] == \"x\"",
		"out of an array":           "    some k\n    [input.user][0][k] == \"x\"",
		"out of an object":          "    some k\n    {\"a\": input.user}.a[k] == \"x\"",
		"out of an array, assigned": "    u := [input.user][0]\n    some k\n    u[k] == \"x\"",
		"out of an array, given":    "    object.get([input.user][0], \"banned\", false) == true",
		"out of two arrays":         "    some k\n    [[input.user]][0][0][k] == \"x\"",
		"alias dot":                 "    u := input.user\n    u.banned == true",
	} {
		f := adapter(t)
		more := "\ndeny contains \"banned\" if {\n" + add + "\n}\n"
		if name == "helper function" {
			more += "\n_flag(o, k) if object.get(o, k, false) == true\n"
		}
		f[theirFile] = []byte(theirs + more)
		if _, err := Load(t.Context(), from(f), Options{Capabilities: verbs}); err == nil {
			t.Errorf("%s: loads, and can never deny", name)
		}
	}
}

// What is read by constant names, through names for objects too, may be; and what
// somebody has looked at.
func TestFieldsAreReadByName(t *testing.T) {
	for name, add := range map[string]string{
		"plain":             "    input.user.role == \"x\"",
		"alias":             "    u := input.user\n    u.role == \"x\"",
		"get":               "    object.get(input.user, \"role\", \"\") == \"x\"",
		"get of an alias":   "    u := input.user\n    object.get(u, \"role\", \"\") == \"x\"",
		"get by a path":     "    object.get(input, [\"user\", \"role\"], \"\") == \"x\"",
		"a value in a call": "    startswith(input.user.role, \"x\")",
	} {
		f := adapter(t)
		f[theirFile] = []byte(theirs + "\ndeny contains \"more\" if {\n" + add + "\n}\n")
		if _, err := Load(t.Context(), from(f), Options{Capabilities: verbs}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	f := adapter(t)
	f[theirFile] = []byte(theirs + "\ndeny contains \"more\" if _flag(input.user)\n\n_flag(u) if u.role == \"x\"\n")
	refused(t, from(f), "whole")
	change(t, f, wrapsFile, "    entrypoints:", "    ignores: [user.*]\n    entrypoints:")
	loadFrom(t, from(f))
	change(t, f, wrapsFile, "[user.*]", "[users.*]")
	refused(t, from(f), "users.*")
}
