// Command agent is what tests run in jails: each word of its command line is something to do, and it
// says what came of it.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	for _, word := range os.Args[1:] {
		verb, arg, _ := strings.Cut(word, "=")
		do, ok := verbs[verb]
		if !ok {
			fmt.Println("no such verb:", verb)
			os.Exit(99)
		}
		if err := do(arg); err != nil {
			if errno, ok := errors.AsType[syscall.Errno](err); ok {
				fmt.Printf("%s: %s\n", word, errnoName(errno))
			} else {
				fmt.Printf("%s: %v\n", word, err)
			}
		}
	}
}

var verbs = map[string]func(string) error{
	"exit":  func(s string) error { n, _ := strconv.Atoi(s); os.Exit(n); return nil },
	"say":   func(s string) error { _, err := fmt.Println(s); return err },
	"err":   func(s string) error { _, err := fmt.Fprintln(os.Stderr, s); return err },
	"env":   func(string) error { all := os.Environ(); sort.Strings(all); return say(strings.Join(all, " "), nil) },
	"args":  func(string) error { return say(fmt.Sprintf("%q", os.Args), nil) },
	"pwd":   func(string) error { return say(os.Getwd()) },
	"id":    func(string) error { return say(fmt.Sprint(os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid()), nil) },
	"ls":    list,
	"cat":   func(s string) error { b, err := os.ReadFile(s); return say(strings.TrimSpace(string(b)), err) },
	"write": func(s string) error { return os.WriteFile(s, []byte("written\n"), 0o644) },
	"chmod": func(s string) error {
		name, mode, _ := strings.Cut(s, ":")
		n, _ := strconv.ParseUint(mode, 8, 32)
		return syscall.Chmod(name, uint32(n))
	},
	"create": func(s string) error {
		name, mode, _ := strings.Cut(s, ":")
		n, _ := strconv.ParseUint(mode, 8, 32)
		_, err := syscall.Open(name, syscall.O_CREAT|syscall.O_WRONLY, uint32(n))
		return err
	},
	"copy": func(s string) error { // itself, and runs the copy
		b, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			return err
		}
		if err := os.WriteFile(s, b, 0o755); err != nil {
			return err
		}
		return exec.Command(s, "say=copied").Run()
	},
	"run":    run,
	"get":    get,
	"dial":   func(s string) error { c, err := net.Dial("tcp", s); return closed(c, err) },
	"unix":   func(s string) error { c, err := net.Dial("unix", s); return closed(c, err) },
	"listen": func(s string) error { l, err := net.Listen("tcp", s); return closed(l, err) },
	"kill1": func(string) error {
		for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGSEGV, syscall.SIGURG} {
			_ = syscall.Kill(1, sig)
		}
		return nil
	},
	"segv":  func(string) error { signal.Reset(syscall.SIGSEGV); return syscall.Kill(os.Getpid(), syscall.SIGKILL) },
	"sleep": func(s string) error { d, err := time.ParseDuration(s); time.Sleep(d); return err },
	"orphan": func(string) error { // a session of its own, that outlives us
		c := exec.Command("/proc/self/exe", "sleep=1h")
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		return c.Start()
	},
	"eat": func(s string) error {
		n, err := strconv.Atoi(s)
		for range n {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			eaten = append(eaten, b)
		}
		return err
	},
	"busy": func(string) error {
		for n := 0; ; n++ {
			_ = n
		}
	},
	"forks": func(s string) error {
		n, _ := strconv.Atoi(s)
		made := 0
		for range n {
			c := exec.Command("/proc/self/exe", "sleep=1h")
			if c.Start() != nil {
				break
			}
			made++
		}
		return say(fmt.Sprint("forked ", made < n), nil)
	},
	"spam": func(s string) error {
		n, _ := strconv.Atoi(s)
		for range n {
			fmt.Println(strings.Repeat("x", 99))
		}
		return nil
	},
	"long":  func(s string) error { n, _ := strconv.Atoi(s); return say(strings.Repeat("y", n), nil) },
	"stdin": func(string) error { b, err := io.ReadAll(os.Stdin); return say(string(b), err) },
	"fds":   func(string) error { return list("/proc/self/fd") },
	"userns": func(string) error {
		_, _, errno := syscall.RawSyscall(syscall.SYS_UNSHARE, syscall.CLONE_NEWUSER, 0, 0)
		return errno
	},
	"status": func(s string) error {
		b, err := os.ReadFile("/proc/self/status")
		for line := range strings.Lines(string(b)) {
			if k, v, _ := strings.Cut(line, ":"); strings.HasPrefix(k, s) {
				fmt.Println(k, strings.TrimSpace(v))
			}
		}
		return err
	},
}

var eaten [][]byte

func say(s string, err error) error {
	if err == nil {
		fmt.Println(s)
	}
	return err
}

func list(dir string) error {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return say(strings.Join(names, " "), err)
}

func run(s string) error {
	words := strings.Fields(s)
	c := exec.Command(words[0], words[1:]...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	return c.Run()
}

// get asks for a URL, or for one of the socket whose path comes before a comma.
func get(s string) error {
	client := &http.Client{Timeout: 20 * time.Second}
	if sock, url, ok := strings.Cut(s, ","); ok {
		s = url
		client.Transport = &http.Transport{Dial: func(string, string) (net.Conn, error) { return net.Dial("unix", sock) }}
	}
	res, err := client.Get(s)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return say(strings.TrimSpace(string(b)), err)
}

func closed(c io.Closer, err error) error {
	if err == nil {
		fmt.Println("open")
		return c.Close()
	}
	return err
}

func errnoName(e syscall.Errno) string {
	for name, n := range map[string]syscall.Errno{
		"EPERM": syscall.EPERM, "EACCES": syscall.EACCES, "EROFS": syscall.EROFS, "ENOENT": syscall.ENOENT, "ECONNREFUSED": syscall.ECONNREFUSED,
		"ENETUNREACH": syscall.ENETUNREACH, "EAFNOSUPPORT": syscall.EAFNOSUPPORT, "ENOSYS": syscall.ENOSYS, "ENOSPC": syscall.ENOSPC,
	} {
		if n == e {
			return name
		}
	}
	return e.Error()
}
