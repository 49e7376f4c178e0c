package jail

import (
	"context"
	"io"
	"net"
	"time"
)

// A Jailer makes jails of one kind.
type Jailer interface {
	// Preflight tries whether a jail of this profile can start here, by starting one that runs
	// nothing. The error is a *Refusal.
	Preflight(ctx context.Context, p Profile) (Features, error)
	// Spawn makes a jail in which nothing runs yet. The error is a *Refusal, and then nothing
	// was started and nothing is left. The context bounds the making, not the jail.
	Spawn(ctx context.Context, s Spec) (Jail, error)
}

// A Jail holds one agent and all processes it starts. It ends with the agent, with the process that
// made it, by its deadline, or by Kill; then everything in it is gone.
type Jail interface {
	// Listeners are the two ends the agent can connect to: 127.0.0.1:80 and /run/gateway.sock
	// inside. They are the caller's to serve on and to close, and closed when the jail ends.
	Listeners() (tcp, unix net.Listener)
	// Go starts the agent, once, and returns when it runs. On an error (*Refusal) the jail is gone.
	Go() error
	// Kill ends the jail at once. The reason is what Exit will say; the first one counts.
	Kill(reason string)
	// Wait returns when nothing of the jail is left and all its output was written.
	Wait() Exit
	// Features says what really holds the agent, for a receipt.
	Features() Features
	// Usage is what the jail has used up to now.
	Usage() Usage
}

// Spec is one jail. The zero value of what is not required is a default.
type Spec struct {
	ID      string  // names the jail; 1 to 64 of a-z, 0-9 and -
	Profile Profile // Strict(), Tools(), Workspace(), or one of these changed

	Agent Program  // what runs, at /agent/<name> inside; required
	Args  []string // after the name of the program
	Env   []string // all of its environment, as NAME=value; PATH, HOME and TMPDIR have defaults
	Dir   string   // where it starts, a path inside; the first scope, or else /tmp

	Tools   []Program // what it may execute besides, at /tools/<name>; in profiles that have tools
	Runtime []string  // files and directories of the host it may read, at the same path, and map as libraries
	Scopes  []Scope   // where it works: /scopes/1, /scopes/2, …; /workspace is the first

	Limits   Limits
	Deadline time.Duration // after Go; 0: none

	Stdin          io.Reader // nil: empty; read until it ends, or the jail has
	Stdout, Stderr io.Writer // nil: dropped; each gets whole lines, one Write a line, which must not block for ever: Wait waits for it
	Output         Output

	// HostUID is the user of the host, and the group, that the agent runs as where a privileged gateway
	// makes the jail; never 0. 0: one of Options.UIDs that no other jail has. Without privileges it is
	// the gateway's own.
	HostUID int
}

// Program is an executable of the host, by its absolute path without symbolic links.
type Program struct {
	Path string
	Name string // inside; the last part of Path unless given
}

// Media of a scope.
const (
	Directory = ""      // of the host: what is written stays
	Memory    = "tmpfs" // of the jail: bounded, and gone with it
)

// Scope is somewhere an agent may write, or read. Nothing in it can be executed unless the profile
// says so. Scopes of one jail do not contain each other; whether those of two jails may is the
// caller's to decide.
type Scope struct {
	Path     string // absolute directory of the host, without symbolic links; none with Memory
	ReadOnly bool
	Medium   string // Directory or Memory
	Size     int64  // bytes, with Memory; 64 MiB
}

// Limits bound what a jail uses in all, where the name does not say per what. 0 is the default.
type Limits struct {
	Memory    int64 `json:"memory"`      // bytes, by control group; 512 MiB
	Processes int64 `json:"processes"`   // and threads; 128
	CPU       int64 `json:"cpu_percent"` // of one processor; 0: unlimited
	Files     int64 `json:"files"`       // open descriptors per process; 256
	FileSize  int64 `json:"file_size"`   // bytes per file; 64 MiB
	Data      int64 `json:"data"`        // bytes of private memory per process, which holds without a control group; 1 GiB
	Tmp       int64 `json:"tmp"`         // bytes of /tmp; 32 MiB
	Shm       int64 `json:"shm"`         // bytes of /dev/shm; 16 MiB
}

func (l Limits) orDefault() Limits {
	for _, d := range []struct {
		at    *int64
		value int64
	}{
		{&l.Memory, 512 << 20},
		{&l.Processes, 128},
		{&l.Files, 256},
		{&l.FileSize, 64 << 20},
		{&l.Data, 1 << 30},
		{&l.Tmp, 32 << 20},
		{&l.Shm, 16 << 20},
	} {
		if *d.at == 0 {
			*d.at = d.value
		}
	}
	return l
}

// Output bounds what is passed on of each stream. More than that is read and dropped, ever more
// slowly, so the agent goes on, and Exit says so. 0 is the default.
type Output struct {
	Bytes int64 // of the whole stream; 1 MiB
	Line  int   // of one line, the rest of which is dropped; 8 KiB
}

func (o Output) orDefault() Output {
	if o.Bytes == 0 {
		o.Bytes = 1 << 20
	}
	if o.Line == 0 {
		o.Line = 8 << 10
	}
	return o
}

// Why a jail ended, as Exit.Reason. Another reason is one that Kill was given.
const (
	Exited   = "exited"   // the agent did, with Code
	Signaled = "signaled" // a signal ended the agent
	Deadline = "deadline" // its time was over
	OOM      = "oom"      // its memory was
	Lost     = "lost"     // the first process ended without saying why
	Refused  = "refused"  // the agent was not started
)

// Exit codes of a jail, as shells and timeout(1) have them.
const (
	CodeDeadline = 124
	CodeRefused  = 125 // the jail could not be made
	CodeNotExec  = 126 // the agent cannot be executed
	CodeNotFound = 127
	codeSignal   = 128 // and the signal's number
)

// Exit is how a jail ended.
type Exit struct {
	Code      int    `json:"code"` // of the agent, or one of the above
	Signal    int    `json:"signal,omitempty"`
	Reason    string `json:"reason"`
	First     string `json:"first,omitempty"` // how the first process itself ended ("signal 9", "exit 125"), where it is lost
	Truncated bool   `json:"truncated"`       // output was dropped
	Usage     Usage  `json:"usage"`
}

// Usage is what a jail has used. What cannot be known is 0.
type Usage struct {
	Wall       time.Duration `json:"wall_ns"`
	CPU        time.Duration `json:"cpu_ns"`
	MemoryPeak int64         `json:"memory_peak"`         // bytes
	Memory     int64         `json:"memory,omitempty"`    // now
	Processes  int64         `json:"processes,omitempty"` // of the agent, now
	Stdout     int64         `json:"stdout"`              // bytes the agent wrote
	Stderr     int64         `json:"stderr"`
	OOMKills   int64         `json:"oom_kills"`
}

// Features are what holds an agent.
type Features struct {
	Backend     string   `json:"backend"`           // ns, or runsc: then a kernel of its own answers the agent
	Runtime     string   `json:"runtime,omitempty"` // which runsc
	Kernel      string   `json:"kernel"`
	Profile     string   `json:"profile"`
	Privileged  bool     `json:"privileged"` // the agent's user is not the gateway's
	HostUID     int      `json:"host_uid"`
	Namespaces  []string `json:"namespaces"`
	Landlock    int      `json:"landlock"`     // ABI, all of which is enforced up to 9
	Seccomp     string   `json:"seccomp"`      // digest of the filter
	Cgroup      string   `json:"cgroup"`       // v1, v2, or none
	Controllers []string `json:"controllers"`  // of the control group
	UsernsLimit bool     `json:"userns_limit"` // the kernel too makes no user namespace inside, and few instances of inotify
	Proc        bool     `json:"proc"`         // /proc is there, with the jail's own processes
	Limits      Limits   `json:"limits"`
}
