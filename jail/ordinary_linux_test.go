package jail_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/writ-gateway/writ/jail/jailtest"
)

// What root can do an ordinary user can: the tests of behaviour are run again as one.
func TestAsAnOrdinaryUser(t *testing.T) {
	jailtest.Need(t)
	if os.Geteuid() != 0 {
		return // as which everything is being run
	}
	dir, err := os.MkdirTemp("/tmp", "writ-jail-user-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	const user = 65534
	binary, home := filepath.Join(dir, "test"), filepath.Join(dir, "tmp")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.Chmod(dir, 0o755), os.Chown(home, user, user), jailtest.Copy("/proc/self/exe", binary)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command(binary, "-test.v", "-test.timeout=2m", "-test.skip=^(TestImageIsUpToDate|TestThePageNamesEveryRefusal|TestAsAnOrdinaryUser)$")
	c.Dir = home
	c.Env = []string{"WRIT_TEST_JAIL_AGENT=" + agentBinary, "TMPDIR=" + home, "PATH=" + os.Getenv("PATH")}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	out, err := c.CombinedOutput()
	passed := strings.Count(string(out), "--- PASS: Test")
	if err != nil || passed < 15 {
		t.Errorf("%v, and %d tests passed:\n%s", err, passed, out)
	}
}
