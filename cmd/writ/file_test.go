package main

import (
	"encoding/json"
	"testing"
)

func TestArgumentFiles(t *testing.T) {
	for _, tt := range []struct{ text, want string }{ // "": refused
		{"", "{}"},
		{"null", "{}"},
		{"# nothing\n", "{}"},
		{"{}", "{}"},
		{"run_id: r\nargs: {n: 1, x: [a, null]}\n", `{"args":{"n":1,"x":["a",null]},"run_id":"r"}`},
		{`{"run_id": "r"}`, `{"run_id":"r"}`},
		{"a: 1\n---\nb: 2\n", ""},
		{"a: 1\n---\n{", ""},
		{"a: 1\na: 2\n", ""},
		{"args: {1: x}\n", ""},
		{"args: .nan\n", ""},
		{"- a\n", ""},
		{"a", ""},
		{"{", ""},
	} {
		body, err := parseFile([]byte(tt.text))
		if err != nil || tt.want == "" {
			if err == nil || tt.want != "" {
				t.Errorf("%q: got %v, %v, want %s", tt.text, body, err, tt.want)
			}
			continue
		}
		got, err := json.Marshal(body)
		if err != nil || string(got) != tt.want {
			t.Errorf("%q: got %s, %v, want %s", tt.text, got, err, tt.want)
		}
	}
}

// What a file holds can be sent, and takes what flags add, or it is refused.
func FuzzParseFile(f *testing.F) {
	for _, text := range []string{
		"", "null", "run_id: r\nargs: {n: 1, x: [a, null]}\n", `{"a":"\u0000","b":1e400}`, "a: 1\n---\nb: 2\n", "a: &x [1]\nb: *x\n", "<<: {a: 1}\n", "a: 2001-01-01\n",
		"a: !!binary aGk=\n", "1: x\n", "a: {1: x}\n", "a: .inf\n", "a: &x {b: *x}\n", "? [a]\n: b\n", "\t", "\xff\xfe", "%YAML 1.1\n---\na: yes\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		body, err := parseFile(text)
		if err != nil {
			return
		}
		body["added"] = "by a flag"
		if _, err := json.Marshal(body); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	})
}
