package wire

// Launch asks the launcher for one process: this program again, in new namespaces. Descriptors sent along are its standard
// ones and its socket, and with Group the control group (v2) it begins in.
type Launch struct {
	ID           uint64
	Flags        uint64 // of clone
	UID, HostUID uint32 // the one line of its map
	GID, HostGID uint32
	SetGroups    bool
	Take         bool // be that user from the start
	Kept         bool // its spec may come a long time after: until then nothing of the host is held
	Caps         []uint64
	Group        bool
	Enter, Leave []string // files of control groups (v1) to begin in, and those to go back to
}

// Launched is what the launcher says of one: that it was started, with a descriptor of it, that it was not, or that it has ended.
type Launched struct {
	ID      uint64
	Ended   bool
	Pid     uint32
	Errno   uint32 // why it was not started
	InGroup bool   // which is because it could not begin in its group
	CPU     uint64 // nanoseconds, once it has ended
	Status  uint32 // of wait(2), then
}

// Role is the variable that makes this program the launcher, a first process whose jail is not known yet, or the first process of
// a sandbox, and what its agent is before.
const (
	Role     = "ROLE"
	Launcher = "launcher"
	Kept     = "kept"
	Sandbox  = "sandbox"
	Stage    = "stage"
)

// Sockets of the gateway as a sandbox shows them, in a directory of nothing else: who makes the jail listens on
// SandboxControl until the first process has come, and on the others for the agent.
const (
	SandboxDir     = "/run"
	SandboxControl = SandboxDir + "/control.sock"
	SandboxTCP     = SandboxDir + "/tcp.sock"
)

// Encode writes a message.
func (l *Launch) Encode() []byte {
	c := writer()
	l.walk(&c)
	return c.buf
}

// Decode reads one; false means it is no message of this version.
func (l *Launch) Decode(b []byte) bool {
	c := reader(b)
	l.walk(&c)
	return c.all()
}

// Encode writes a message.
func (l *Launched) Encode() []byte {
	c := writer()
	l.walk(&c)
	return c.buf
}

// Decode reads one; false means it is no message of this version.
func (l *Launched) Decode(b []byte) bool {
	c := reader(b)
	l.walk(&c)
	return c.all()
}

func (l *Launch) walk(c *coder) {
	c.u64(&l.ID, &l.Flags)
	c.u32(&l.UID, &l.HostUID, &l.GID, &l.HostGID)
	for _, p := range []*bool{&l.SetGroups, &l.Take, &l.Kept, &l.Group} {
		c.yes(p)
	}
	each(c, &l.Caps, func(v *uint64) { c.u64(v) })
	each(c, &l.Enter, func(v *string) { c.str(v) })
	each(c, &l.Leave, func(v *string) { c.str(v) })
}

func (l *Launched) walk(c *coder) {
	c.u64(&l.ID, &l.CPU)
	c.u32(&l.Pid, &l.Errno, &l.Status)
	c.yes(&l.Ended)
	c.yes(&l.InGroup)
}
