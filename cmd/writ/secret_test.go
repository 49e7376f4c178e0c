package main

import (
	"strings"
	"testing"
)

// A value is read from standard input, without the end of its line.
func TestSecretFrom(t *testing.T) {
	for in, want := range map[string]string{
		"s3cret": "s3cret", "s3cret\n": "s3cret", "s3cret\r\n": "s3cret", " s3cret \n": " s3cret ", "a\nb\n": "a\nb", // which the gateway refuses
		strings.Repeat("x", 4096) + "\r\n": strings.Repeat("x", 4096), "": "", "\n": "", strings.Repeat("x", 4097): "", strings.Repeat("x", 9000): "",
	} {
		got, err := secretFrom(strings.NewReader(in))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%d bytes: got %d, %v", len(in), len(got), err)
		}
		if err != nil && strings.Contains(err.Error(), "x") && strings.Contains(err.Error(), "xx") {
			t.Error("the error holds the value")
		}
	}
}

// No flag takes a value: others on the machine see the arguments of programs.
func TestNoFlagTakesASecret(t *testing.T) {
	c, _, err := root().Find([]string{"secret", "put"})
	if err != nil || c.Name() != "put" {
		t.Fatal(c.Name(), err)
	}
	for _, name := range []string{"value", "file"} {
		if c.Flags().Lookup(name) != nil {
			t.Errorf("there is a flag --%s", name)
		}
	}
}
