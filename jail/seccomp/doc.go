// Package seccomp writes the system call filter of a jail: an allow-list, assembled into
// classic BPF for amd64 and arm64 alike, whichever machine does it.
//
// What no list names is answered with ENOSYS, as an older kernel would, so programs fall back
// on what is allowed. Calls of another architecture, and of x32, end the process: there a number
// means another call, and a filter that lets them pass decides about nothing.
package seccomp

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// What the kernel does with a call. Errno makes one that fails with an error.
const (
	Allow Action = 0x7fff0000
	Kill  Action = 0x80000000
)

// Action is the answer of a filter.
type Action uint32

// Errno is the action that fails a call with the error of that number.
func Errno(n uint32) Action { return 0x00050000 | Action(n&0xffff) }

// Linux numbers of the errors a filter answers with; they are the same on both architectures.
const (
	eperm        = 1
	enomem       = 12
	einval       = 22
	enosys       = 38
	eafnosupport = 97
)

// Cond compares the low half of an argument under a mask. The kernel takes these arguments as
// 32 bits, so what is in the high half must not make a difference; of a pointer it does.
type Cond struct {
	Arg         int
	Mask, Value uint32
	High        bool // the other half
}

// Case is the action of a call whose arguments meet all conditions.
type Case struct {
	If   []Cond
	Then Action
}

// Rule is what becomes of one call: the first case that fits, or else Else.
type Rule struct {
	Cases []Case
	Else  Action
}

// Options are what profiles differ in.
type Options struct {
	Datagrams bool // unix sockets of type DGRAM and SEQPACKET
	MemfdExec bool // memory files that can be executed
	Execveat  bool // execveat: running a descriptor
	Splice    bool // splice, tee and vmsplice
}

// Filter is an assembled program.
type Filter struct {
	Arch    string
	Program []byte // struct sock_filter, in the byte order of both architectures
}

// Digest names the program.
func (f Filter) Digest() string {
	sum := sha256.Sum256(f.Program)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Len is the number of instructions.
func (f Filter) Len() int { return len(f.Program) / 8 }

// New assembles the filter for an architecture by Go's name.
func New(arch string, o Options) (Filter, error) {
	a, ok := arches[arch]
	if !ok {
		return Filter{}, fmt.Errorf("no system call list for %s; amd64 and arm64 have one", arch)
	}
	rules, err := a.number(policy(o))
	if err != nil {
		return Filter{}, err
	}
	return Filter{Arch: arch, Program: assemble(a, rules)}, nil
}

type machine struct {
	audit   uint32 // AUDIT_ARCH_…
	numbers map[string]uint32
	limit   uint32 // numbers from here on are of another ABI; 0: there is none
}

var arches = map[string]machine{
	"amd64": {audit: 0xc000003e, numbers: amd64Numbers, limit: 0x40000000},
	"arm64": {audit: 0xc00000b7, numbers: arm64Numbers},
}

// number turns names into numbers. A name that this architecture does not have has no number to
// forbid; one that neither has is a mistake in the list.
func (m machine) number(byName map[string]Rule) (map[uint32]Rule, error) {
	out := map[uint32]Rule{}
	for name, r := range byName {
		n, ok := m.numbers[name]
		if !ok {
			if _, x86 := amd64Numbers[name]; !x86 {
				if _, arm := arm64Numbers[name]; !arm {
					return nil, fmt.Errorf("the list names %q, which is no system call", name)
				}
			}
			continue
		}
		out[n] = r
	}
	return out, nil
}
