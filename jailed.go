package writ

import (
	"slices"
	"time"
)

// JailProfile says how much of the host an agent in a jail finds there.
type JailProfile string

const (
	// JailStrict: its program and what that needs to run, the gateway, and nothing
	// else: no shell, no interpreter, no other program. The default.
	JailStrict JailProfile = "strict"
	// JailTools: strict, and exactly the executables that are named.
	JailTools JailProfile = "tools"
	// JailWorkspace: the programs of the host's /usr, read-only.
	JailWorkspace JailProfile = "workspace"
)

// JailTier says which kernel answers an agent in a jail.
type JailTier string

const (
	// JailHost: the machine's own, through a filter of what may be asked. The default.
	JailHost JailTier = "host"
	// JailGvisor: one of its own, by runsc of gVisor; the machine's is asked for little
	// more than memory. No directory of the host is written.
	JailGvisor JailTier = "gvisor"
)

// JailTiers lists them, the weakest first.
func JailTiers() []JailTier { return []JailTier{JailHost, JailGvisor} }

// rank orders tiers; none at all ranks below, and an unknown one above all, so nothing
// satisfies it.
func (t JailTier) rank() int { return rankIn(JailTiers(), t) }

// Stronger is the stronger of two.
func (t JailTier) Stronger(u JailTier) JailTier {
	if u.rank() > t.rank() {
		return u
	}
	return t
}

// JailSpec is what the registration of an agent says of the jail its sessions run
// in. It names a program that the operators of the machine have set up and no path,
// so who may write to the registry decides nothing about a host.
type JailSpec struct {
	Program    string      `json:"program" doc:"Name of a program as the gateway's configuration knows it (jail_programs)." pattern:"^[a-z][a-z0-9-]{1,62}$"`
	Args       []string    `json:"args,omitempty" doc:"Arguments after those the program is configured with. They are no place for secrets: a process shows its arguments." maxItems:"32" maxLength:"512"`
	Profile    JailProfile `json:"profile,omitempty" doc:"How much of the host it finds: strict, its program and the gateway; tools, also the executables its program is configured with; workspace, the programs of /usr." default:"strict" enum:"strict,tools,workspace"`
	Tier       JailTier    `json:"tier,omitempty" doc:"Which kernel answers it: host, the machine's own; gvisor, one of its own, where no directory of the host is written. Policy may want the stronger one." default:"host" enum:"host,gvisor"`
	MemoryMB   int64       `json:"memory_mb,omitempty" doc:"Memory of all its processes, MiB." default:"256" minimum:"16" maximum:"1048576"`
	CPUPercent int64       `json:"cpu_percent,omitempty" doc:"CPU time of all its processes; 100 is one core." default:"100" minimum:"1" maximum:"102400"`
	Processes  int64       `json:"processes,omitempty" doc:"Processes and threads at a time." default:"128" minimum:"1" maximum:"32768"`
	Deadline   int64       `json:"deadline_s,omitempty" doc:"Seconds after which it is killed, all its starts together; the session's life ends it too." default:"3600" minimum:"1" maximum:"43200"`
	Restarts   int64       `json:"restarts,omitempty" doc:"How often it is started again when it ends badly, later each time." minimum:"0" maximum:"10"`
}

// Filled is the spec with every default in place.
func (s JailSpec) Filled() JailSpec {
	or := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	if s.Profile == "" {
		s.Profile = JailStrict
	}
	if s.Tier == "" {
		s.Tier = JailHost
	}
	or(&s.MemoryMB, 256)
	or(&s.CPUPercent, 100)
	or(&s.Processes, 128)
	or(&s.Deadline, 3600)
	return s
}

// JailState is where the jail of a session stands.
type JailState string

const (
	// JailWanted: by session.spawn; some replica that can is to take it.
	JailWanted JailState = "wanted"
	// JailStarting: a replica builds it. No process of the agent runs.
	JailStarting JailState = "starting"
	// JailRunning: it is built, its features are noted, and the agent runs.
	JailRunning JailState = "running"
	// JailEnded: nothing of it is left, or it never came to be. Terminal.
	JailEnded JailState = "ended"
)

// JailMoves are the legal moves of a session's jail. running → starting starts an
// agent again that ended badly.
var JailMoves = Table[JailState]{
	"":           {JailWanted},
	JailWanted:   {JailStarting, JailEnded},
	JailStarting: {JailRunning, JailEnded},
	JailRunning:  {JailStarting, JailEnded},
	JailEnded:    {},
}

// JailEnd is why a jail ended (closed list).
type JailEnd string

const (
	JailExited      JailEnd = "exited"      // the agent's own first process did, with a code
	JailSignalled   JailEnd = "signalled"   // a signal ended it
	JailDeadline    JailEnd = "deadline"    // its time was up
	JailMemory      JailEnd = "memory"      // it took more than it may
	JailKilled      JailEnd = "killed"      // its session ended first, or nobody could serve its door any more
	JailUnavailable JailEnd = "unavailable" // this host cannot make such a jail, or none of the gateways can: its agent was not started
	JailRefused     JailEnd = "refused"     // the session was not started: policy, or a write claim somebody else holds
	JailLost        JailEnd = "lost"        // the gateway that had it is gone, and the jail with it
)

// JailExit is how a jail ended.
type JailExit struct {
	Why     JailEnd `json:"why" doc:"Why it ended. When it is unavailable or refused the agent was not started, or not again; in every other case it may have done some of its work." enum:"exited,signalled,deadline,memory,killed,unavailable,refused,lost"`
	Code    int64   `json:"code,omitempty" doc:"Exit code of the agent's first process." minimum:"0" maximum:"255"`
	Signal  int64   `json:"signal,omitempty" doc:"Signal that ended it." minimum:"0" maximum:"64"`
	Missing string  `json:"missing,omitempty" doc:"What was missing. When it is unavailable: a feature of the host ('writ jail doctor' there says what to do), something its jails file does not offer, a ceiling, or a gateway that runs agents; when it was killed: its door, if that could not be served any more. docs/jail.md lists all of them." maxLength:"64" pattern:"^[a-z0-9_.-]*$"`
	CPUMs   int64   `json:"cpu_ms,omitempty" doc:"CPU time it used, milliseconds." minimum:"0"`
	PeakKB  int64   `json:"peak_memory_kb,omitempty" doc:"The most memory it had, KiB; 0 when the host does not say." minimum:"0"`
}

// JailUse is what an agent in a jail uses.
type JailUse struct {
	CPUMs     int64 `json:"cpu_ms" doc:"CPU time since it was last started, milliseconds." minimum:"0"`
	MemoryKB  int64 `json:"memory_kb" doc:"Memory it has now, KiB." minimum:"0"`
	Processes int64 `json:"processes,omitempty" doc:"Processes it has now; absent where another kernel answers it (gvisor)." minimum:"0"`
}

// Badly says whether an agent that ended so is worth another start.
func (e JailExit) Badly() bool {
	switch e.Why {
	case JailExited:
		return e.Code != 0
	case JailSignalled, JailMemory:
		return true
	}
	return false
}

// Jail is that of a session that was spawned.
type Jail struct {
	Session   SessionID         `json:"session"`
	Agent     AgentID           `json:"agent"`
	Spec      JailSpec          `json:"spec"` // as registered when it was spawned
	State     JailState         `json:"state"`
	Claims    []WriteClaim      `json:"claims,omitempty"`
	Host      string            `json:"host,omitempty"`     // replica that has it
	Features  map[string]string `json:"features,omitempty"` // what holds the agent, as it was found
	Restarts  int64             `json:"restarts,omitempty"`
	Exit      *JailExit         `json:"exit,omitempty"` // of the last start
	WantedAt  int64             `json:"wanted_at"`      // milliseconds
	StartedAt int64             `json:"started_at,omitempty"`
	EndedAt   int64             `json:"ended_at,omitempty"`
	Receipt   ReceiptID         `json:"receipt"` // of the last change
}

// Holds says whether an agent runs in the jail, and which kernel answers it is at least
// of a tier: not only as it was wanted, but as it was found when the jail was made. A tier
// that is not known holds nothing.
func (j Jail) Holds(t JailTier) bool {
	is := j.Spec.Filled().Tier
	known := slices.Contains(JailTiers(), is) && slices.Contains(JailTiers(), t)
	return known && j.State == JailRunning && is.rank() >= t.rank() && (is != JailGvisor || j.Features["backend"] == "runsc")
}

// JailKey is where the jail of a session is kept.
func JailKey(id SessionID) Key { return Key(ObjectJail + "/" + string(id)) }

const (
	// JailTakeMs is how long a jail is wanted before nobody can make it, milliseconds.
	JailTakeMs = 15_000
	// JailGraceMs is how long one may be in the making, its session's start included:
	// after that who has it is gone, milliseconds.
	JailGraceMs = 60_000
	// JailKillMs is how long a jail that is killed takes at most to be gone, milliseconds.
	JailKillMs = 15_000
	// MaxJailFeatures bounds what is noted of a jail.
	MaxJailFeatures = 48
)

// JailSilence is how long whoever has a jail may not have heard that its session lives,
// before it kills it: others may have ended the session by then.
func JailSilence(ttlSeconds int64) time.Duration {
	return time.Duration(ttlSeconds+SessionGraceSeconds) * time.Second
}

// JailGoneAt is when the jail of a session that ended is gone, wherever it was and
// whether or not that replica reaches the store: it heard of the session before that
// ended, and is silent from then on. Milliseconds, as is the end.
func JailGoneAt(ended, ttlSeconds int64) int64 {
	return ended + JailSilence(ttlSeconds).Milliseconds() + JailKillMs
}

// IndexJails lists the sessions whose jails have not ended.
const IndexJails Index = "list/jails"

// TodoJail asks to look whether somebody has the jail of a session.
func TodoJail(id SessionID) string { return "jail " + string(id) }

// JailSeen is a jail as one look at the store shows it, with its session.
type JailSeen struct {
	Jail    Jail
	Session Session
}

// Over says whether the session has ended, so that nothing may run in the jail.
func (j JailSeen) Over() bool { return SessionMoves.Terminal(j.Session.State) }
