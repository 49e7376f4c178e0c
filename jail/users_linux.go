package jail

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/writ-gateway/writ/jail/wire"
)

// privileged says whether this process is root of the machine and may give a jail another user. Root of a user namespace
// is an ordinary user: of the users below it no other is known to be free.
func privileged() bool {
	return rootOfMachine() && hasCap(unix.CAP_SETUID) && hasCap(unix.CAP_SETGID)
}

func rootOfMachine() bool {
	m, err := os.ReadFile("/proc/self/uid_map")
	return os.Geteuid() == 0 && err == nil && slices.Equal(strings.Fields(string(m)), []string{"0", "0", "4294967295"})
}

func hasCap(c uint) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) != nil {
		return false
	}
	return data[c/32].Effective&(1<<(c%32)) != 0
}

// users hands out users of the host, each to one jail of the machine: those of two gateways that are one user could reach
// each other, were they to get out. So whoever has one holds a lock on a file of its name, which ends with the process. Jails of
// a gateway that is killed die a moment after it, so while somebody has a user there is a word in its file: who finds it there, and
// no lock, looks for processes of that user.
type users struct {
	mu          sync.Mutex
	first, n    int              // the first ones are tried first
	taken       map[int]*os.File // by user, the file that is locked
	dir         string           // of the files; userLocks unless given
	translators map[translation]*os.File
}

// userLocks is where the files are, for all gateways of the machine. They are never removed: of two processes each could
// else hold a lock on another file of one name.
const userLocks = "/run/writ-jail-users"

type translation struct{ uid, gid, to int }

func (u *users) take(want int) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	dir, err := openUserLocks(cmp.Or(u.dir, userLocks))
	if err != nil {
		return 0, userLockRefusal(err)
	}
	defer func() { _ = unix.Close(dir) }()
	if want != 0 {
		free, err := u.lock(dir, want)
		if err == nil && !free {
			err = refuse(FeatureHostUID, nil, "another jail runs as this user", "give each jail its own, or leave it to the gateway")
		}
		return want, err
	}
	for id := u.first; id < u.first+u.n; id++ {
		if free, err := u.lock(dir, id); free || err != nil {
			return id, err
		}
	}
	return 0, refuse(FeatureHostUID, nil, "all users for jails are taken", "wait until a jail ends, or let fewer run at a time (most.jails in the file of the setting jails)")
}

// lock takes a user that nobody has. The caller holds mu.
func (u *users) lock(dir, id int) (free bool, err error) {
	if u.taken[id] != nil {
		return false, nil
	}
	fd, err := unix.Openat(dir, strconv.Itoa(id), unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return false, userLockRefusal(err)
	}
	f := os.NewFile(uintptr(fd), "user")
	defer func() {
		if !free {
			_ = f.Close()
		}
	}()
	if err := flock(f, unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return false, nil
		}
		return false, userLockRefusal(err)
	}
	st, err := f.Stat()
	if err == nil && st.Size() > 0 && hasProcesses(id) {
		return false, nil
	}
	if err == nil {
		_, err = f.WriteAt([]byte(inUse), 0)
	}
	if err != nil {
		return false, userLockRefusal(err)
	}
	u.taken[id] = f
	return true, nil
}

// inUse is in the file of a user that somebody has, or had when it was killed.
const inUse = "in use\n"

// hasProcesses says whether there is a process of a user of the host. It is asked after a gateway was killed alone, since it
// looks at all there are.
func hasProcesses(uid int) bool {
	all, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil || len(all) == 0 {
		return true // nobody knows
	}
	for _, name := range all {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		if is := statusOf(string(b)); slices.Contains(is["Uid"], strconv.Itoa(uid)) && !over(is) {
			return true
		}
	}
	return false
}

// statusOf is a file status of /proc.
func statusOf(text string) map[string][]string {
	is := map[string][]string{}
	for line := range strings.Lines(text) {
		name, words, _ := strings.Cut(line, ":")
		is[name] = strings.Fields(words)
	}
	return is
}

// over says of a process that it does nothing more, and waits for somebody to hear of its end. Its first thread may have ended alone.
func over(is map[string][]string) bool {
	return len(is["State"]) > 0 && is["State"][0] == "Z" && slices.Equal(is["Threads"], []string{"1"})
}

// give takes a user back of whom no process is left.
func (u *users) give(id int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if f := u.taken[id]; f != nil {
		_ = f.Truncate(0)
		_ = unix.Flock(int(f.Fd()), unix.LOCK_UN) // a process that is being started may have a copy of it for a moment
		_ = f.Close()
	}
	delete(u.taken, id)
}

// openUserLocks opens the directory of the files, and makes it where it is not there. Nobody else may have made it, or be
// able to put another in its place: who holds the locks says which users are taken.
func openUserLocks(dir string) (int, error) {
	parent, name := filepath.Split(dir)
	if err := os.Mkdir(parent, 0o755); err != nil && !errors.Is(err, unix.EEXIST) { // /run is not in every container
		return 0, err
	}
	p, err := unix.Openat2(unix.AT_FDCWD, parent, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(p) }()
	if err := unix.Mkdirat(p, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return 0, err
	}
	d, err := unix.Openat2(p, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH})
	if err != nil {
		return 0, err
	}
	var above, st unix.Stat_t
	err = errors.Join(unix.Fstat(p, &above), unix.Fstat(d, &st))
	me := uint32(os.Geteuid())
	if err == nil && (st.Uid != me || st.Mode&0o077 != 0 || above.Uid != me || above.Mode&0o022 != 0 && above.Mode&unix.S_ISVTX == 0) {
		err = errors.New("others may change it")
	}
	if err != nil {
		_ = unix.Close(d)
		return 0, err
	}
	return d, nil
}

func userLockRefusal(err error) *Refusal {
	if full(err) {
		return fullRefusal(err)
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return refuse(FeatureHostUID, bare(err), "its user cannot be kept from the jails of other gateways", "make room in "+filepath.Dir(userLocks))
	}
	return refuse(FeatureHostUID, bare(err), "its user cannot be kept from the jails of other gateways",
		"let "+userLocks+" be no link but a directory of root's, of mode 0700, that can be written, below one nobody else can change; it is made where it is not there")
}

// asItIs is no user: a mount that shows owners as they are.
const asItIs = -1

// tree is a copy of what a mount shows. Given a user, files of the directory's owner are that user's in it, and what the user
// writes is the owner's: nothing on the disk changes hands.
func (u *users) tree(m wire.Mount, uid int) (*os.File, error) {
	f, err := unix.Openat2(unix.AT_FDCWD, m.Source, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, sourceRefusal(err)
	}
	defer func() { _ = unix.Close(f) }()
	var st unix.Stat_t
	if err := unix.Fstat(f, &st); err != nil {
		return nil, err
	}
	if (st.Mode&unix.S_IFMT == unix.S_IFDIR) != m.IsDir {
		return nil, sourceRefusal(unix.ENOTDIR)
	}
	how := &unix.MountAttr{Attr_set: m.Attr, Propagation: unix.MS_PRIVATE}
	if uid != asItIs && (int(st.Uid) != uid || int(st.Gid) != uid) {
		ns, err := u.translator(translation{int(st.Uid), int(st.Gid), uid})
		if err != nil {
			return nil, err
		}
		defer func() { _ = ns.Close() }()
		how.Attr_set |= unix.MOUNT_ATTR_IDMAP
		how.Userns_fd = uint64(ns.Fd())
	}
	t, err := unix.OpenTree(f, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return nil, mountRefusal(err)
	}
	tree := os.NewFile(uintptr(t), "tree")
	if err := unix.MountSetattr(t, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, how); err != nil {
		_ = tree.Close()
		if how.Attr_set&unix.MOUNT_ATTR_IDMAP != 0 {
			return nil, scopeRefusal(err, uid)
		}
		return nil, mountRefusal(err)
	}
	return tree, nil
}

func ownedBy(dir string, uid int) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) != nil || int(st.Uid) == uid && int(st.Gid) == uid // what is not there is refused elsewhere
}

func scopeRefusal(err error, uid int) *Refusal {
	return refuse(FeatureScope, err, "a scope that is another user's cannot be shown as the jail's",
		"give the scope itself to the jail's user (chown to "+strconv.Itoa(uid)+", and set the host user), keep it on ext4, xfs, btrfs or tmpfs under a gateway with CAP_SYS_ADMIN, or keep it in memory")
}

// translator is a user namespace that is nothing but a map of users, kept for the next time.
func (u *users) translator(t translation) (*os.File, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if f := u.translators[t]; f != nil {
		return again(f)
	}
	mine, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer func() { _, _ = mine.Close(), theirs.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	p, err := launch(wire.Launch{
		Flags: unix.CLONE_NEWUSER, UID: uint32(t.uid), HostUID: uint32(t.to), GID: uint32(t.gid), HostGID: uint32(t.to), SetGroups: true,
	}, []*os.File{null, null, null, theirs})
	if err != nil {
		return nil, startRefusal(err)
	}
	f, err := os.Open(p.proc("ns/user"))
	p.kill()
	p.wait()
	p.close()
	if err != nil {
		return nil, err
	}
	if len(u.translators) >= maxTranslators { // whichever: it can be made again
		for k, old := range u.translators {
			_ = old.Close()
			delete(u.translators, k)
			break
		}
	}
	u.translators[t] = f
	return again(f)
}

// again is a descriptor of the caller's own.
func again(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

const maxTranslators = 64
