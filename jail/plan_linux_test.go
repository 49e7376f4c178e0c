package jail

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/wire"
)

// planned is the plan of a jail with one of everything its profile has.
func planned(t *testing.T, p Profile, abi int) *plan {
	t.Helper()
	s := Spec{ID: "x", Profile: p, Agent: Program{Path: "/proc/self/exe"}, Scopes: []Scope{{Path: "/srv/ro", ReadOnly: true}, {Medium: Memory}}}
	if p.WriteDirs {
		s.Scopes = append(s.Scopes, Scope{Path: "/srv/rw"})
	}
	if p.Name == "strict" {
		s.Runtime = []string{"/etc/hostname"} // so that a test binary which wants a loader is taken
	}
	if err := s.check(); err != nil {
		t.Fatal(err)
	}
	got, err := planOf(s, abi, insideID)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// In every profile, what can be written cannot be executed, and what can be executed cannot be written: by the
// mounts, and once more by Landlock.
func TestWritableXorExecutable(t *testing.T) {
	for _, p := range Profiles() {
		plan := planned(t, p, 7)
		for _, m := range plan.Mounts {
			if m.Kind != wire.Bind && m.Kind != wire.Tmpfs && m.Kind != wire.Proc {
				continue
			}
			if m.Attr&(unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_RDONLY) == 0 {
				t.Errorf("%s: %s can be written and executed", p.Name, m.Target)
			}
			if m.Attr&unix.MOUNT_ATTR_NOSUID == 0 {
				t.Errorf("%s: %s honours setuid", p.Name, m.Target)
			}
			if m.Attr&unix.MOUNT_ATTR_NODEV == 0 && !strings.HasPrefix(m.Source, "/dev/") {
				t.Errorf("%s: %s has devices", p.Name, m.Target)
			}
		}
		for _, r := range plan.Landlock.Paths {
			const writes = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_REG
			if r.Access&execute != 0 && r.Access&writes != 0 {
				t.Errorf("%s: Landlock lets %s be written and executed", p.Name, r.Path)
			}
			if r.Access&(unix.LANDLOCK_ACCESS_FS_MAKE_CHAR|unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK) != 0 {
				t.Errorf("%s: Landlock lets devices be made in %s", p.Name, r.Path)
			}
		}
	}
}

// Each rule asks for accesses that its ABI has and handles; a kernel refuses any other.
func TestRulesFitTheABI(t *testing.T) {
	for abi := 1; abi <= 10; abi++ {
		for _, p := range Profiles() {
			plan := planned(t, p, abi)
			for _, r := range plan.Landlock.Paths {
				if r.Access == 0 || r.Access&^plan.Landlock.FS != 0 {
					t.Errorf("ABI %d, %s: %s has %#x of %#x", abi, p.Name, r.Path, r.Access, plan.Landlock.FS)
				}
			}
			if abi < 4 && plan.Landlock.Net != 0 || abi < 6 && plan.Landlock.Scoped != 0 {
				t.Errorf("ABI %d is asked for more than it has: %+v", abi, plan.Landlock)
			}
			if abi >= 4 && (plan.Landlock.Net == 0) != p.Servers || abi >= 6 && plan.Landlock.Scoped != 3 {
				t.Errorf("ABI %d, %s is asked for less than it has: %+v", abi, p.Name, plan.Landlock)
			}
		}
	}
	for abi, want := range map[int]uint64{0: 0, 1: 0x1fff, 2: 0x3fff, 3: 0x7fff, 4: 0x7fff, 5: 0xffff, 8: 0xffff, 9: 0x1ffff} {
		if got := handled(abi); got != want {
			t.Errorf("ABI %d handles %#x, want %#x", abi, got, want)
		}
	}
}

// Nothing of the host is in a strict jail but devices, the agent, and what was named.
func TestStrictBinds(t *testing.T) {
	var got []string
	for _, m := range planned(t, Strict(), 7).Mounts {
		if m.Kind == wire.Bind {
			got = append(got, m.Source)
		}
	}
	want := []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/proc/self/exe", "/etc/hostname", "/srv/ro"}
	if !slices.Equal(got, want) {
		t.Errorf("it shows %v", got)
	}
}
