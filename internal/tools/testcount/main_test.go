package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func recorded(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "stream.json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// onePackage keeps the events of one package of the recorded stream.
func onePackage(t *testing.T, name string) string {
	t.Helper()
	var kept strings.Builder
	for line := range strings.Lines(recorded(t)) {
		if strings.Contains(line, `"Package":"`+name+`"`) {
			kept.WriteString(line)
		}
	}
	if kept.Len() == 0 {
		t.Fatalf("the recorded stream has no package %s", name)
	}
	return kept.String()
}

func TestRecordedStream(t *testing.T) {
	var out strings.Builder
	counts := filepath.Join(t.TempDir(), "counts")
	err := run(strings.NewReader(recorded(t)), &out, counts, false, false)
	if err == nil {
		t.Error("a stream with failures gave no error")
	}
	got, readErr := os.ReadFile(counts)
	if readErr != nil {
		t.Fatal(readErr)
	}
	if want := "passed 7\nfailed 6\nskipped 1\n"; string(got) != want {
		t.Errorf("counts are %q, want %q\n%s", got, want, out.String())
	}
	for _, want := range []string{
		"a_test.go:4: got 1, want 2",                  // a failed subtest
		"a_test.go:5: cleanup failed",                 // a failed parent whose subtests passed
		"panic: kaboom",                               // a panic
		"(did not finish)",                            // the test that was running beside it
		"undefined: undefined",                        // what the compiler said
		"FAIL  example.test/broken: does not build\n", // the package's line
		"leaked a goroutine",                          // a failure outside every test
		"none  example.test/none\n",
		"ok    example.test/good: 3 (",
		"  example.test/good TestSkipped\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "--- PASS") {
		t.Errorf("the output of a passed test is printed:\n%s", out.String())
	}
}

func TestFailures(t *testing.T) {
	tl := tally{out: io.Discard}
	if err := tl.readGo(strings.NewReader(recorded(t))); err != nil {
		t.Fatal(err)
	}
	slices.Sort(tl.failures)
	want := []string{
		"example.test/bad TestParentOnly",
		"example.test/bad TestTable/ko",
		"example.test/boom TestPanic",
		"example.test/boom TestPar",
		"example.test/broken (does not build)",
		"example.test/main_fail (the package failed, no test of it did)",
	}
	if !slices.Equal(tl.failures, want) {
		t.Errorf("failures are %q, want %q", tl.failures, want)
	}
}

func TestGoStreams(t *testing.T) {
	good := onePackage(t, "example.test/good")
	cut := good[:strings.LastIndex(strings.TrimSpace(good), "\n")+1]
	tests := []struct {
		name                    string
		stream                  string
		ci                      bool
		passed, failed, skipped string
		ok                      bool
	}{
		{"passes", good, false, "3", "0", "1", true},
		{"a skip fails in CI", good, true, "3", "1", "0", false},
		{"cut off", cut, false, "3", "1", "1", false},
		{"empty", "", false, "0", "0", "0", false},
		{"no tests", onePackage(t, "example.test/none"), false, "0", "0", "0", false},
		{"not JSON", "go: no such module\n" + good, false, "3", "0", "1", true},
		{"last line without newline", strings.TrimSpace(good), false, "3", "0", "1", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			checkRun(t, tt.stream, false, tt.ci, tt.ok, "tests: passed="+tt.passed+" failed="+tt.failed+" skipped="+tt.skipped+"\n")
		})
	}
}

// What a passed test says with "note: " in front is shown, and nothing else.
func TestNotesAreShown(t *testing.T) {
	good := onePackage(t, "example.test/good")
	const output = `{"Action":"output","Package":"example.test/good","Test":"TestNoted","Output":"%"}` + "\n"
	said := strings.ReplaceAll(output, "%", `note: two cases are not run\n`) + strings.ReplaceAll(output, "%", `a_test.go:1: note: not this\n`)
	var out strings.Builder
	if err := run(strings.NewReader(said+good), &out, "", false, false); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), "note: two cases are not run\n") || strings.Contains(out.String(), "not this") {
		t.Errorf("got:\n%s", out.String())
	}
}

func TestOPA(t *testing.T) {
	const (
		pass = `{"location":{"file":"a_test.rego","row":3},"package":"data.a","name":"test_ok","duration":1}`
		fail = `{"location":{"file":"a_test.rego","row":9},"package":"data.a","name":"test_ko","fail":true,"duration":1}`
		skip = `{"package":"data.a","name":"todo_test_x","skip":true,"duration":0}`
		bad  = `{"package":"data.a","name":"test_err","error":{"message":"boom"},"duration":1}`
	)
	tests := []struct {
		name   string
		stream string
		ci     bool
		want   string
		ok     bool
	}{
		{"passes", "[" + pass + "," + skip + "]", false, "passed=1 failed=0 skipped=1", true},
		{"a skip fails in CI", "[" + pass + "," + skip + "]", true, "passed=1 failed=1 skipped=0", false},
		{"fails", "[" + pass + "," + fail + "," + bad + "]", false, "passed=1 failed=2 skipped=0", false},
		{"names the place", "[" + fail + "]", false, "FAIL  data.a.test_ko (a_test.rego:9)", false},
		{"none", "[]", false, "passed=0 failed=0 skipped=0", false},
		{"null", "null", false, "passed=0 failed=0 skipped=0", false},
		{"nothing", "", false, "passed=0 failed=1 skipped=0", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			checkRun(t, tt.stream, true, tt.ci, tt.ok, tt.want)
		})
	}
}

func checkRun(t *testing.T, stream string, opa, ci, ok bool, want string) {
	t.Helper()
	var out strings.Builder
	err := run(strings.NewReader(stream), &out, "", opa, ci)
	if (err == nil) != ok {
		t.Errorf("error is %v, want none: %v", err, ok)
	}
	if !strings.Contains(out.String(), want) {
		t.Errorf("the output lacks %q:\n%s", want, out.String())
	}
}
