package jail

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Who has ended has no user, though nobody heard of it yet; who has other threads than the first has.
func TestWhoHasEndedHasNoUser(t *testing.T) {
	if os.Geteuid() != 0 {
		return // only root is another user
	}
	const uid = 73999
	c := exec.Command("/bin/sleep", "60")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if !hasProcesses(uid) {
		t.Error("one that runs is not seen")
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	status := "/proc/" + strconv.Itoa(c.Process.Pid) + "/status"
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if b, err := os.ReadFile(status); err != nil || time.Now().After(end) {
			t.Fatalf("it is no zombie: %v", err)
		} else if strings.Contains(string(b), "\nState:\tZ") {
			break
		}
	}
	if hasProcesses(uid) {
		t.Error("one that has ended has a user")
	}
	_ = c.Wait()
	for text, want := range map[string]bool{"State:\tZ (zombie)\nThreads:\t1\n": true, "State:\tZ (zombie)\nThreads:\t2\n": false, "State:\tS (sleeping)\nThreads:\t1\n": false, "State:\tZ (zombie)\n": false, "": false} {
		if over(statusOf(text)) != want {
			t.Errorf("%q", text)
		}
	}
}
