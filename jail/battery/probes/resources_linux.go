package probes

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// What the battery gives a jail, and what probes want, which is more.
const (
	MaxMemory    = 96 << 20
	MaxProcesses = 64
	MaxFiles     = 128
	MaxFileSize  = 8 << 20
	MaxData      = 256 << 20
	MaxTmp       = 24 << 20
	MaxShm       = 8 << 20
)

// resources are more of something than was given.
var resources = []Probe{
	{Name: "res_processes", Try: func(*World) error { return manyChildren(3 * MaxProcesses) }},
	{Name: "res_files", Try: func(*World) error {
		for range 2 * MaxFiles {
			if _, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
				return err
			}
		}
		return nil
	}},
	{Name: "res_file_size", Try: func(w *World) error { return grows(w.Scope+"/large", MaxFileSize+1<<20) }},
	{Name: "res_file_size_sparse", Try: func(w *World) error {
		name := w.Scope + "/sparse"
		defer func() { _ = os.Remove(name) }()
		f, err := os.Create(name)
		if err != nil {
			return cannot{err}
		}
		defer func() { _ = f.Close() }()
		return anyOf(f.Truncate(MaxFileSize+1<<20), unix.Fallocate(int(f.Fd()), 0, 0, MaxFileSize+1<<20))
	}},
	{Name: "res_tmp", Try: func(*World) error { return fills("/tmp", MaxTmp+4<<20) }},
	{Name: "res_shm", Try: func(*World) error { return fills("/dev/shm", MaxShm+4<<20) }},
	{Name: "res_names", Try: func(*World) error { return names("/dev/shm", 10000) }},
	{Name: "res_private_memory", Try: func(*World) error {
		b, err := unix.Mmap(-1, 0, 2*MaxData, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
		if err == nil {
			err = unix.Munmap(b)
		}
		return err
	}},
	{Name: "res_locked_memory", Control: Root, Try: func(*World) error {
		b, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return cannot{err}
		}
		return unix.Mlock(b)
	}},
	{Name: "res_message_queue", Lacks: true, Try: func(*World) error {
		name := []byte("probe\x00")
		f, err := value(unix.SYS_MQ_OPEN, pointer(&name[0]), unix.O_CREAT|unix.O_RDWR, 0o600, 0)
		if err == nil {
			_ = unix.Close(int(f))
			_ = try(unix.SYS_MQ_UNLINK, pointer(&name[0]))
		}
		return err
	}},
	{Name: "res_core_dump", Try: func(*World) error {
		var l unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_CORE, &l); err != nil {
			return cannot{err}
		}
		if l.Max <= 1 {
			return held("the limit is %d", l.Max)
		}
		return nil
	}},
	{Name: "res_core_handler", Try: func(*World) error { // at 0 the kernel still pipes one to a program of the host
		_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
		_ = unix.Prlimit(os.Getpid(), unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
		var l unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_CORE, &l); err != nil {
			return cannot{err}
		}
		if l.Cur == 1 {
			return held("the limit is 1")
		}
		return nil
	}},
	{Name: "res_raise_limits", Control: Root, Lacks: true, Try: raises},
	{Name: "res_raise_files", Control: Root, Lacks: true, Try: func(*World) error { return anyOf(raise(unix.RLIMIT_NOFILE), raise(unix.RLIMIT_NPROC)) }},
	{Name: "res_nicer", Control: Root, Try: func(*World) error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -5) }},
	{Name: "res_real_time", Control: Root, Try: func(*World) error {
		return inChild([4]uintptr{unix.SYS_SCHED_SETSCHEDULER, 0, 1, pointer(&[1]int32{1})})
	}},
	{Name: "res_real_time_io", Control: Root, Try: func(*World) error { return inChild([4]uintptr{unix.SYS_IOPRIO_SET, 1, 0, 1 << 13}) }},
	{Name: "res_inotify", Lacks: true, Try: func(*World) error { // a user has 128, on the host too
		for i := range 32 {
			f, err := unix.InotifyInit1(unix.IN_CLOEXEC)
			if err != nil {
				return held("after %d: %v", i, err)
			}
			defer func() { _ = unix.Close(f) }()
		}
		return nil
	}},
	{Name: "res_pending_signals", Lacks: true, Try: pendingSignals},
	{Name: "res_spare_me", Control: Plain, Lacks: true, Try: func(*World) error { // from the kernel when memory is short
		f, err := os.OpenFile("/proc/self/oom_score_adj", os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		_, err = f.WriteString("0")
		return err
	}},
	{Name: "res_memory_in_all", Alone: true, Try: memoryInAll},
	{Name: "res_shared_memory", Alone: true, Lacks: true, Try: sharedMemory},
	{Name: "res_fork_bomb", Alone: true, Try: forkBomb},
}

func manyChildren(n int) error {
	self, err := os.Executable()
	if err != nil {
		return cannot{err}
	}
	var all []*exec.Cmd
	defer func() {
		for _, c := range all {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	}()
	for range n {
		c, err := sleeper(self)
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	return nil
}

func grows(name string, size int) error {
	defer func() { _ = os.Remove(name) }()
	f, err := os.Create(name)
	if err != nil {
		return cannot{err}
	}
	defer func() { _ = f.Close() }()
	block := make([]byte, 1<<20)
	for ; size > 0; size -= len(block) {
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	return nil
}

// fills a directory with files that are each small enough.
func fills(dir string, size int) error {
	at, err := os.MkdirTemp(dir, "fill")
	if err != nil {
		return cannot{err}
	}
	defer func() { _ = os.RemoveAll(at) }()
	block := make([]byte, 1<<20)
	for i := 0; size > 0; size -= len(block) {
		if err := os.WriteFile(filepath.Join(at, strconv.Itoa(i)), block, 0o600); err != nil {
			return err
		}
		i++
	}
	return nil
}

func names(dir string, n int) error {
	at, err := os.MkdirTemp(dir, "names")
	if err != nil {
		return cannot{err}
	}
	defer func() { _ = os.RemoveAll(at) }()
	for i := range n {
		if err := unix.Mknod(filepath.Join(at, strconv.Itoa(i)), unix.S_IFREG|0o600, 0); err != nil {
			return err
		}
	}
	return nil
}

func raise(resource int) error {
	var l unix.Rlimit
	if err := unix.Getrlimit(resource, &l); err != nil {
		return cannot{err}
	}
	had := l.Max
	l.Max++
	if err := unix.Setrlimit(resource, &l); err != nil {
		return err
	}
	if err := unix.Getrlimit(resource, &l); err != nil || l.Max == had {
		return held("it is as it was")
	}
	return nil
}

// raises wants one limit, whichever, above its ceiling.
func raises(*World) error {
	var last error
	for r := range 16 {
		var l unix.Rlimit
		if unix.Getrlimit(r, &l) != nil || l.Max == unix.RLIM_INFINITY {
			continue
		}
		if last = raise(r); last == nil {
			return nil
		}
	}
	if last == nil {
		last = held("no limit is set")
	}
	return last
}

// memoryInAll has several processes use memory, each less than one may.
func memoryInAll(w *World) error {
	const each = 40 << 20
	var all []*exec.Cmd
	defer func() {
		for _, c := range all {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	}()
	for range 2*MaxMemory/each + 1 {
		c := exec.Command(w.Agent, "use", strconv.Itoa(each))
		out, err := c.StdoutPipe()
		if err != nil {
			return cannot{err}
		}
		if err := c.Start(); err != nil {
			return err
		}
		all = append(all, c)
		var b [1]byte
		if _, err := out.Read(b[:]); err != nil { // it says when it has it
			return held("one was ended")
		}
	}
	for _, c := range all {
		if err := c.Process.Signal(syscall.Signal(0)); err != nil {
			return err
		}
		if gone(c.Process.Pid) {
			return held("one was ended")
		}
	}
	return nil
}

// gone says whether a child of ours has ended, waited for or not.
func gone(pid int) bool {
	var st syscall.WaitStatus
	got, err := syscall.Wait4(pid, &st, syscall.WNOHANG, nil)
	return err != nil || got == pid
}

// sharedMemory is that of no process and no file system.
func sharedMemory(*World) error {
	const each = 8 << 20
	for range 2 * MaxMemory / each {
		id, err := unix.SysvShmGet(unix.IPC_PRIVATE, each, unix.IPC_CREAT|0o600)
		if err != nil {
			return err
		}
		b, err := unix.SysvShmAttach(id, 0, 0)
		if err != nil {
			return err
		}
		_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
	}
	return nil
}

// forkBomb has children have children.
func forkBomb(w *World) error {
	c := exec.Command(w.Agent, "breed", "7")
	err := c.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok && e.ExitCode() == 1 {
		return unix.EAGAIN
	}
	return err
}

// pendingSignals queues more for itself than a program needs: they are counted for whoever made the jail, too.
func pendingSignals(*World) error {
	runtime.LockOSThread() // which ends with what waits for it
	const signal, many = 40, 2000
	blocked := [1]uint64{1 << (signal - 1)}
	if err := try(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, pointer(&blocked), 0, 8); err != nil {
		return cannot{err}
	}
	info := [128]byte{8: 0xff, 9: 0xff, 10: 0xff, 11: 0xff} // SI_QUEUE
	for i := range many {
		if err := try(unix.SYS_RT_TGSIGQUEUEINFO, uintptr(os.Getpid()), uintptr(unix.Gettid()), signal, pointer(&info)); err != nil {
			return held("after %d: %v", i, err)
		}
	}
	return nil
}
