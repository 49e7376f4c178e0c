package daemon

import (
	"fmt"
	"strings"
	"testing"
)

// No finding repeats the password of a store.
func TestExamineTellsNoPassword(t *testing.T) {
	for _, setting := range []string{
		"redis://user:pa55word@127.0.0.1:1/0?read_timeout=pa55word", "redis://:pa55word@127.0.0.1:1", "unix://user:pa55word@/nowhere/redis.sock?db=0",
		"redis://127.0.0.1:1?password=pa55word",
	} {
		cfg, err := Load("", noEnv, map[string]string{"data": t.TempDir(), "store": setting})
		if err != nil {
			t.Fatal(err)
		}
		failed := false
		for _, f := range Examine(t.Context(), cfg) {
			failed = failed || f.What == "store" && f.Err != nil
			if s := fmt.Sprint(f.Detail, f.Err); strings.Contains(s, "pa55word") {
				t.Errorf("%s: %s", f.What, s)
			}
		}
		if !failed {
			t.Errorf("the store at %s was found", setting)
		}
	}
}
