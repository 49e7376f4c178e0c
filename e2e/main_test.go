package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/writ-gateway/writ/writtest"
)

// binary is the program under test, built once per run. raced is the same,
// built with the race detector when the tests are, or RACED_GATEWAYS is 1: for those that
// put it under load, where the races worth finding are. With it all tests take four
// times as long.
var binary, raced string

// states is where commands keep what is theirs; below it each test has a directory.
var states string

func TestMain(m *testing.M) {
	if os.Getenv(agentTask) != "" { // these tests start themselves as an agent that is to be killed
		os.Exit(beAnAgent())
	}
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	// Most of a test's time is spent waiting for leases and processes.
	if f := flag.Lookup("test.parallel"); f.Value.String() == fmt.Sprint(runtime.GOMAXPROCS(0)) {
		_ = flag.Set("test.parallel", fmt.Sprint(2+2*runtime.GOMAXPROCS(0)))
	}
	dir, err := os.MkdirTemp("", "writ-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// Commands keep what they saw of a gateway's log under its address, and ports come again.
	states = filepath.Join(dir, "state")
	_ = os.Setenv("XDG_STATE_HOME", states)
	binary = filepath.Join(dir, "writ")
	raced = binary
	builds := [][]string{{"build", "-o", binary}} // static, as it is released: it is an agent in a strict jail too
	if writtest.Raced || os.Getenv("RACED_GATEWAYS") == "1" {
		raced = filepath.Join(dir, "raced", "writ")
		builds = append(builds, []string{"build", "-race", "-o", raced})
	}
	for _, args := range builds {
		build := exec.Command("go", append(args, "../cmd/writ")...)
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		cgo := "CGO_ENABLED=0"
		if slices.Contains(args, "-race") {
			cgo = "CGO_ENABLED=1"
		}
		build.Env = append(os.Environ(), cgo)
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e: building the program:", err)
			return 1
		}
	}
	return m.Run()
}

// slow says whether gateways under load are, since the race detector looks at them.
func slow() bool { return raced != binary }

// soak says whether the long tests run at full length.
func soak() bool { return os.Getenv("WRIT_SOAK") == "1" }
