package seccomp

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the digests of the filters")

// call is what the kernel shows a filter.
type call struct {
	arch, nr uint32
	args     [6]uint64
}

// run is the part of the kernel that decides, for a program of ours.
func run(t *testing.T, program []byte, c call) Action {
	t.Helper()
	data := make([]byte, 64)
	binary.LittleEndian.PutUint32(data, c.nr)
	binary.LittleEndian.PutUint32(data[4:], c.arch)
	for i, a := range c.args {
		binary.LittleEndian.PutUint64(data[16+8*i:], a)
	}
	var acc uint32
	for pc := 0; pc < len(program)/8; pc++ {
		in := program[8*pc:]
		op, jt, jf, k := binary.LittleEndian.Uint16(in), int(in[2]), int(in[3]), binary.LittleEndian.Uint32(in[4:])
		jump := func(yes bool) {
			if yes {
				pc += jt
			} else {
				pc += jf
			}
		}
		switch op {
		case opLoad:
			acc = binary.LittleEndian.Uint32(data[k:])
		case opAnd:
			acc &= k
		case opJump:
			pc += int(k)
		case opEqual:
			jump(acc == k)
		case opAbove:
			jump(acc >= k)
		case opRet:
			return Action(k)
		default:
			t.Fatalf("no such instruction: %#x", op)
		}
	}
	t.Fatal("the program ran past its end")
	return 0
}

// profiles are the filters there are.
var profiles = map[string]Options{
	"strict":    {},
	"workspace": {Datagrams: true, MemfdExec: true, Execveat: true, Splice: true},
}

func filter(t *testing.T, arch string, o Options) Filter {
	t.Helper()
	f, err := New(arch, o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

const archI386 = 0x40000003

// Every number is answered as the list says, on both architectures: what is not named as no such call.
func TestEveryCall(t *testing.T) {
	for arch, m := range arches {
		for name, o := range profiles {
			f := filter(t, arch, o)
			rules, err := m.number(policy(o))
			if err != nil {
				t.Fatal(err)
			}
			for nr := range uint32(1000) {
				want := Action(Errno(enosys))
				if r, ok := rules[nr]; ok {
					if len(r.Cases) > 0 {
						continue
					}
					want = r.Else
				}
				if got := run(t, f.Program, call{arch: m.audit, nr: nr}); got != want {
					t.Errorf("%s %s: call %d is %#x, want %#x", arch, name, nr, got, want)
				}
				if got := run(t, f.Program, call{arch: archI386, nr: nr}); got != Kill {
					t.Fatalf("%s %s: call %d of i386 is %#x", arch, name, nr, got)
				}
			}
			for _, nr := range []uint32{0x3fffffff, 0x40000000, 0x40000029, 0x7fffffff, 0x80000000, 0xffffffff} {
				want := Action(Errno(enosys))
				if m.limit != 0 && nr >= m.limit {
					want = Kill
				}
				if got := run(t, f.Program, call{arch: m.audit, nr: nr}); got != want {
					t.Errorf("%s %s: call %#x is %#x, want %#x", arch, name, nr, got, want)
				}
			}
		}
	}
}

// Arguments decide by their low half alone: the kernel looks at no more.
func TestArguments(t *testing.T) {
	const high = 0xdeadbeef << 32
	yes, no, noFamily := Action(Allow), Errno(eperm), Errno(eafnosupport)
	for _, tt := range []struct {
		call      string
		args      []uint64
		strict    Action
		workspace Action
	}{
		{"clone", []uint64{0x11}, yes, yes},
		{"clone", []uint64{0x3d0f00}, yes, yes}, // a thread
		{"clone", []uint64{0x10000011}, no, no},
		{"clone", []uint64{high | 0x10000011}, no, no},
		{"clone", []uint64{0x20011}, no, no},
		{"clone", []uint64{0x2000011}, no, no},
		{"clone", []uint64{0x4000011}, no, no},
		{"clone", []uint64{0x8000011}, no, no},
		{"clone", []uint64{0x20000011}, no, no},
		{"clone", []uint64{0x40000011}, no, no},
		{"clone3", nil, Errno(enosys), Errno(enosys)},
		{"unshare", []uint64{0x10000000}, no, no},
		{"socket", []uint64{1, 1, 0}, yes, yes},
		{"socket", []uint64{1, 1 | 0o2004000, 0}, yes, yes},
		{"socket", []uint64{high | 1, high | 1, 0}, yes, yes},
		{"socket", []uint64{1, 2, 0}, noFamily, yes},
		{"socket", []uint64{1, 5, 0}, noFamily, yes},
		{"socket", []uint64{1, 3, 0}, noFamily, noFamily},
		{"socket", []uint64{2, 1, 0}, yes, yes},
		{"socket", []uint64{2, 1, 6}, yes, yes},
		{"socket", []uint64{10, 1, 6}, yes, yes},
		{"socket", []uint64{2, 1, 262}, noFamily, noFamily}, // MPTCP
		{"socket", []uint64{2, 1, 132}, noFamily, noFamily}, // SCTP
		{"socket", []uint64{2, 2, 0}, noFamily, noFamily},   // UDP
		{"socket", []uint64{2, 3, 1}, noFamily, noFamily},   // raw
		{"socket", []uint64{16, 3, 0}, noFamily, noFamily},  // netlink
		{"socket", []uint64{17, 3, 0}, noFamily, noFamily},  // packet
		{"socket", []uint64{38, 5, 0}, noFamily, noFamily},  // AF_ALG
		{"socket", []uint64{40, 1, 0}, noFamily, noFamily},  // vsock
		{"socket", []uint64{2, 1 | 1<<8, 0}, noFamily, noFamily},
		{"socketpair", []uint64{1, 2, 0}, yes, yes},
		{"socketpair", []uint64{2, 1, 0}, noFamily, noFamily},
		{"ioctl", []uint64{0, 0x5412}, no, no},
		{"ioctl", []uint64{0, high | 0x5412}, no, no},
		{"ioctl", []uint64{0, 0x541c}, no, no},
		{"ioctl", []uint64{0, 0x5401}, yes, yes},
		{"prctl", []uint64{35}, no, no},
		{"prctl", []uint64{0x59616d61}, no, no},
		{"prctl", []uint64{28}, no, no},
		{"prctl", []uint64{15}, yes, yes},
		{"prlimit64", []uint64{0, 7}, yes, yes},
		{"prlimit64", []uint64{1, 0}, no, no},
		{"personality", []uint64{0xffffffff}, yes, yes},
		{"personality", []uint64{0x0400000}, no, no},
		{"memfd_create", []uint64{0, 1}, no, yes},
		{"memfd_create", []uint64{0, 9}, yes, yes},
		{"execveat", []uint64{3}, no, yes},
		{"splice", nil, Errno(einval), yes},
		{"fchmodat", []uint64{0, 0, 0o755}, yes, yes},
		{"fchmodat", []uint64{0, 0, 0o4755}, no, no},
		{"fchmodat", []uint64{0, 0, 0o2755}, no, no},
		{"fchmodat", []uint64{0, 0, 0o1777}, yes, yes},
		{"fchmodat2", []uint64{0, 0, 0o4755}, no, no},
		{"fchmod", []uint64{0, 0o6755}, no, no},
		{"mkdirat", []uint64{0, 0, 0o2755}, no, no},
		{"openat", []uint64{0, 0, 0o101, 0o644}, yes, yes},
		{"openat", []uint64{0, 0, 0o101, 0o4755}, no, no},
		{"openat", []uint64{0, 0, 0o20200002, 0o2755}, no, no},
		{"openat", []uint64{0, 0, 0, 0o4755}, yes, yes}, // no file is made, and the last one is noise
		{"openat2", nil, Errno(enosys), Errno(enosys)},
		{"mknodat", []uint64{0, 0, 0o010644}, yes, yes},
		{"mknodat", []uint64{0, 0, 0o014644}, no, no},
		{"mknodat", []uint64{0, 0, 0o020644}, no, no},
		{"mknodat", []uint64{0, 0, 0o060644}, no, no},
		{"setsockopt", []uint64{3, 1, 26}, no, no},
		{"setsockopt", []uint64{3, 6, 31}, no, no},
		{"setsockopt", []uint64{3, 6, 1}, yes, yes},
		{"fcntl", []uint64{3, 1024, 0}, no, no},
		{"fcntl", []uint64{3, high | 1024, 0}, no, no},
		{"fcntl", []uint64{3, 1030, 0}, yes, yes},
		{"setrlimit", []uint64{4, 0x1000}, Errno(0), Errno(0)},
		{"setrlimit", []uint64{7, 0x1000}, yes, yes},
		{"prlimit64", []uint64{0, 7, 0x1000}, yes, yes},
		{"prlimit64", []uint64{0, 4, 0, 0x1000}, yes, yes},
		{"prlimit64", []uint64{0, high | 4, 0x1000, 0}, Errno(0), Errno(0)},
		{"prlimit64", []uint64{0, 4, 1 << 32, 0}, Errno(0), Errno(0)}, // a pointer whose low half is 0
		{"setpriority", []uint64{0, 0, 19}, yes, yes},
		{"setpriority", []uint64{0, high, 19}, yes, yes},
		{"setpriority", []uint64{0, 1, 19}, no, no},
		{"setpriority", []uint64{1, 0, 19}, no, no},
		{"setpriority", []uint64{1, 1, 19}, no, no},
		{"setpriority", []uint64{2, 0, 19}, no, no},
		{"sched_setscheduler", []uint64{0, 5}, yes, yes},
		{"sched_setscheduler", []uint64{1, 5}, no, no},
		{"sched_setparam", []uint64{2}, no, no},
		{"sched_setattr", []uint64{0}, yes, yes},
		{"sched_setattr", []uint64{1}, no, no},
		{"sched_setaffinity", []uint64{0, 8}, yes, yes},
		{"sched_setaffinity", []uint64{1, 8}, no, no},
		{"ioprio_set", []uint64{1, 0, 4}, yes, yes},
		{"ioprio_set", []uint64{1, 1, 4}, no, no},
		{"ioprio_set", []uint64{2, 0, 4}, no, no},
		{"ioprio_set", []uint64{3, 0, 4}, no, no},
		{"mmap", []uint64{0, 4096, 3, 0x22, 0xffffffff}, yes, yes},
		{"mmap", []uint64{0, 4096, 3, 0x40022, 0xffffffff}, Errno(enomem), Errno(enomem)},
		{"mmap", []uint64{0, 4096, 3, high | 0x54040022, 0xffffffff}, Errno(enomem), Errno(enomem)}, // of a size
		{"memfd_create", []uint64{0, 4}, Errno(enomem), Errno(enomem)},
		{"memfd_create", []uint64{0, 12}, Errno(enomem), Errno(enomem)},
		{"shmget", []uint64{0, 4096, 0o1600}, yes, yes},
		{"shmget", []uint64{0, 4096, 0o5600}, Errno(enomem), Errno(enomem)},
		{"io_uring_setup", nil, no, no},
		{"ptrace", nil, no, no},
		{"bpf", nil, no, no},
		{"setuid", nil, no, no},
		{"pidfd_getfd", nil, no, no},
	} {
		for arch, m := range arches {
			nr, ok := m.numbers[tt.call]
			if !ok {
				t.Fatalf("%s has no %s", arch, tt.call)
			}
			c := call{arch: m.audit, nr: nr}
			copy(c.args[:], tt.args)
			for name, want := range map[string]Action{"strict": tt.strict, "workspace": tt.workspace} {
				if got := run(t, filter(t, arch, profiles[name]).Program, c); got != want {
					t.Errorf("%s %s: %s %#x is %#x, want %#x", arch, name, tt.call, tt.args, got, want)
				}
			}
		}
	}
}

// Nothing is on two lists, and each name is a call somewhere.
func TestListsAreApart(t *testing.T) {
	names := append(strings.Fields(allowed), strings.Fields(refused)...)
	slices.Sort(names)
	for i := 1; i < len(names); i++ {
		if names[i] == names[i-1] {
			t.Errorf("%s is listed twice", names[i])
		}
	}
	if n := len(strings.Fields(allowed)); n > 290 {
		t.Errorf("%d calls are allowed: does each have a reason?", n)
	}
}

// Receipts name filters by their digests, so a change of a filter is seen here.
func TestDigests(t *testing.T) {
	var b strings.Builder
	for _, arch := range []string{"amd64", "arm64"} {
		for _, name := range []string{"strict", "workspace"} {
			f := filter(t, arch, profiles[name])
			fmt.Fprintf(&b, "%s %s %d %s\n", arch, name, f.Len(), f.Digest())
			if f.Len() > 4096 {
				t.Errorf("%d instructions are more than the kernel takes", f.Len())
			}
		}
	}
	const golden = "testdata/digests.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || string(want) != b.String() {
		t.Errorf("filters have changed, to\n%srun make generate (%v)", b.String(), err)
	}
}

func TestNoOtherArchitecture(t *testing.T) {
	if _, err := New("riscv64", Options{}); err == nil {
		t.Error("there is a filter for riscv64")
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		if _, err := New("amd64", Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
