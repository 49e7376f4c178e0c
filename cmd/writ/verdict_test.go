package main

import (
	"strings"
	"testing"
)

// What is asked wrongly is said before anything is read or signed.
func TestVerdictUsage(t *testing.T) {
	g := newStandIn(t, func(asked) (int, string) { return 200, `{}` })
	for words, want := range map[string]string{
		"verdict statement --verdict accept":                                            "--task or --run",
		"verdict statement --verdict accept --task tsk_1 --run run_1":                   "--task or --run",
		"verdict statement --task tsk_1":                                                "--verdict is",
		"verdict statement --task tsk_1 --verdict maybe":                                "--verdict is",
		"verdict statement --task tsk_1 --verdict reject":                               "--reason",
		"verdict statement --run run_1 --verdict accept --gate tests=pass":              "--gate goes with",
		"verdict statement --task tsk_1 --verdict accept --gate tests":                  "--gate is",
		"verdict statement --task tsk_1 --verdict accept --gate tests=pass --gate x=ok": "--gate is",
		"verdict sign --task tsk_1 --verdict accept":                                    "--key is required",
		"verdict get": "accepts 1 arg",
	} {
		args := append(strings.Fields(words), g.flags...)
		if _, text, exit := typed(args...); exit != exitUsage || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s", words, exit, text)
		}
	}
	if len(g.got) > 0 {
		t.Errorf("the gateway was asked: %v", g.got)
	}
}
