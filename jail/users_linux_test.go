package jail

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// Users are locked where nobody else can say which are taken, or nobody has one.
func TestUsersAreLockedSafely(t *testing.T) {
	below := func(dir string) string { return filepath.Join(dir, "users") }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		with    func(dir string) // which is a new one
		refused bool
	}{
		"not there":                      {with: func(string) {}},
		"there":                          {with: func(dir string) { must(os.Mkdir(below(dir), 0o700)) }},
		"its parent is not there":        {with: func(dir string) { must(os.Remove(dir)) }},
		"a parent of everybody's":        {with: func(dir string) { must(os.Chmod(dir, 0o777)) }, refused: true},
		"a parent as /tmp is":            {with: func(dir string) { must(os.Chmod(dir, 0o777|os.ModeSticky)) }},
		"a directory others may write":   {with: func(dir string) { must(os.Mkdir(below(dir), 0o700)); must(os.Chmod(below(dir), 0o722)) }, refused: true},
		"a directory others may look at": {with: func(dir string) { must(os.Mkdir(below(dir), 0o700)); must(os.Chmod(below(dir), 0o755)) }, refused: true},
		"a link":                         {with: func(dir string) { must(os.Mkdir(dir+"/real", 0o700)); must(os.Symlink("real", below(dir))) }, refused: true},
		"a link that leads out":          {with: func(dir string) { must(os.Symlink(t.TempDir(), below(dir))) }, refused: true},
		"a file":                         {with: func(dir string) { must(os.WriteFile(below(dir), nil, 0o600)) }, refused: true},
		"a lock that is a link": {with: func(dir string) {
			must(os.Mkdir(below(dir), 0o700))
			must(os.Symlink("/etc/passwd", below(dir)+"/7001"))
		}, refused: true},
	} {
		dir := filepath.Join(t.TempDir(), "run")
		must(os.Mkdir(dir, 0o755))
		tc.with(dir)
		u := &users{first: 7001, n: 2, dir: below(dir), taken: map[int]*os.File{}}
		id, err := u.take(0)
		if r, ok := errors.AsType[*Refusal](err); tc.refused != ok || ok && r.Feature != FeatureHostUID || !ok && (err != nil || id != 7001) {
			t.Errorf("%s: %d, %v", name, id, err)
		}
	}
}

// What one hands out no other does, in this process or another, until it is given back.
func TestUsersAreHandedOutOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "users")
	one, two := &users{first: 7001, n: 2, dir: dir, taken: map[int]*os.File{}}, &users{first: 7001, n: 2, dir: dir, taken: map[int]*os.File{}}
	takes := func(u *users, want, got int) {
		t.Helper()
		id, err := u.take(want)
		if r, ok := errors.AsType[*Refusal](err); got == 0 && (!ok || r.Feature != FeatureHostUID) || got != 0 && (err != nil || id != got) {
			t.Errorf("%d, %v, want %d", id, err, got)
		}
	}
	takes(one, 0, 7001)
	takes(two, 7001, 0)
	takes(two, 0, 7002)
	takes(one, 0, 0)
	takes(one, 7002, 0)
	two.give(7002)
	takes(one, 7002, 7002)
	one.give(7001)
	takes(two, 0, 7001)
}

// A user whose holder was killed is free once nothing of it runs; one that was given back at once.
func TestUsersOfTheKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "users")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	me := os.Geteuid() // who has a process, this one
	const nobodys = 3999999999
	for _, id := range []int{me, nobodys} {
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(id)), []byte(inUse), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for id, want := range map[int]bool{me: false, nobodys: true} {
		u := &users{first: id, n: 1, dir: dir, taken: map[int]*os.File{}}
		if got, err := u.take(0); (err == nil) != want {
			t.Errorf("%d: %d, %v", id, got, err)
		}
		if want {
			if b, err := os.ReadFile(filepath.Join(dir, strconv.Itoa(id))); string(b) != inUse {
				t.Errorf("it says %q: %v", b, err)
			}
			u.give(id)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, strconv.Itoa(nobodys))); err != nil || len(b) > 0 {
		t.Errorf("given back, it says %q: %v", b, err)
	}
}
