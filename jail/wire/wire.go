// Package wire is what a gateway and the first process of a jail say to each other over their
// socket: one Spec down with descriptors beside it, a word to go, and Reports up. Its encoding is its own,
// because that process starts once per jail and what it imports is paid for every time.
package wire

// Spec is a jail in full. The first process of a jail decides nothing: it does what is written
// here, in this order, and gives up at the first thing that fails.
type Spec struct {
	UID, GID uint32 // inside; never 0
	Become   bool   // take them once all of the host is opened; else the process has them from its start
	Hostname string

	Mounts   []Mount
	ReadOnly []string // mounts of the jail's own that become read-only once all is in place
	Socket   string   // where the unix listener is
	Port     uint32   // of the TCP listener on loopback

	Limits   []Limit
	Landlock Landlock
	Filter   string // a program for seccomp

	Exec       string   // path inside
	Args       []string // with the name as the first
	Env        []string
	Dir        string
	DeadlineMs uint64
}

// Kinds of mounts.
const (
	Bind  = iota // Source of the host, or a descriptor sent along, at Target
	Tmpfs        // an empty file system of Size bytes
	Proc         // the jail's own processes
	File         // a file with Content
	Link         // a symbolic link to Source
	Dir          // a directory
)

// Mount is one thing in the new root, at Target, which begins with / and is never below
// something an agent could have written.
type Mount struct {
	Kind    uint32
	Source  string
	Target  string
	FD      int32 // which of the descriptors sent along that are of mounts, with Bind; -1: the source is opened by name
	IsDir   bool  // what Source must be
	Attr    uint64
	Size    uint64
	Mode    uint32
	Content string
}

// Limit is one rlimit.
type Limit struct {
	Resource uint32
	Value    uint64
}

// Landlock is a ruleset. What is handled and not allowed by a rule is refused.
type Landlock struct {
	FS, Net, Scoped uint64
	Paths           []PathRule
	Connect         []uint64 // TCP ports
}

// PathRule allows accesses on a path of the jail and below it.
type PathRule struct {
	Path   string
	Access uint64
}

// What a Report can be.
const (
	Ready   = iota + 1 // built; both listeners are sent along
	Failed             // Step failed with Errno: nothing was started
	Started            // the agent runs
	Exited             // the agent ended with Status
)

// How a jail can end, as Report.Why.
const (
	ByItself = iota
	ByDeadline
)

// Report is what the first process of a jail says.
type Report struct {
	Kind   uint32
	Step   string
	Detail string // what the step was about: a path of the spec
	Errno  uint32
	Status uint32 // as wait4 gives it
	Why    uint32

	UsernsLimit bool // no user namespace can be made inside, whatever the filter says, and few instances of inotify
}

// Go is the word to start the agent.
const Go = "go"

// MaxDescriptors is how many can be sent along, as Linux has it. The first three are the agent's input and outputs, where the first process
// was started without; the others are of mounts.
const (
	MaxDescriptors = 253
	MaxTrees       = MaxDescriptors - 3
)

// MaxMessage is the size of the longest message.
const MaxMessage = 160 << 10

// Encode writes a message.
func (s *Spec) Encode() []byte {
	c := writer()
	s.walk(&c)
	return c.buf
}

// Decode reads one; false means it is no message of this version.
func (s *Spec) Decode(b []byte) bool {
	c := reader(b)
	s.walk(&c)
	return c.all()
}

// Encode writes a message.
func (r *Report) Encode() []byte {
	c := writer()
	r.walk(&c)
	return c.buf
}

// Decode reads one; false means it is no message of this version.
func (r *Report) Decode(b []byte) bool {
	c := reader(b)
	r.walk(&c)
	return c.all()
}

func (s *Spec) walk(c *coder) {
	c.u32(&s.UID, &s.GID)
	c.yes(&s.Become)
	c.str(&s.Hostname)
	each(c, &s.Mounts, func(m *Mount) {
		c.u32(&m.Kind, &m.Mode)
		c.str(&m.Source, &m.Target, &m.Content)
		fd := uint32(m.FD)
		c.u32(&fd)
		m.FD = int32(fd)
		c.yes(&m.IsDir)
		c.u64(&m.Attr, &m.Size)
	})
	each(c, &s.ReadOnly, func(v *string) { c.str(v) })
	c.str(&s.Socket)
	c.u32(&s.Port)
	each(c, &s.Limits, func(l *Limit) { c.u32(&l.Resource); c.u64(&l.Value) })
	l := &s.Landlock
	c.u64(&l.FS, &l.Net, &l.Scoped)
	each(c, &l.Paths, func(p *PathRule) { c.str(&p.Path); c.u64(&p.Access) })
	each(c, &l.Connect, func(v *uint64) { c.u64(v) })
	c.str(&s.Filter)
	c.str(&s.Exec)
	each(c, &s.Args, func(v *string) { c.str(v) })
	each(c, &s.Env, func(v *string) { c.str(v) })
	c.str(&s.Dir)
	c.u64(&s.DeadlineMs)
}

func (r *Report) walk(c *coder) {
	c.u32(&r.Kind, &r.Errno, &r.Status, &r.Why)
	c.str(&r.Step, &r.Detail)
	c.yes(&r.UsernsLimit)
}
