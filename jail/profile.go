package jail

// Profile is what a jail allows, as data. Everything a profile does not mention is the same in all:
// no network but the door, no capability, no uid 0, nothing of the host but what is named.
type Profile struct {
	Name string `json:"name"`

	System      bool `json:"system"`        // /usr of the host, to read and execute
	Libraries   bool `json:"libraries"`     // the loader and libraries that granted programs name
	Tools       bool `json:"tools"`         // programs besides the agent may be granted
	WriteDirs   bool `json:"write_dirs"`    // scopes may be directories of the host that are written
	ExecInScope bool `json:"exec_in_scope"` // what is in a scope may be executed

	Datagrams bool `json:"datagrams"`  // unix sockets that keep messages apart
	Servers   bool `json:"servers"`    // listening on the jail's own loopback
	MemfdExec bool `json:"memfd_exec"` // executing what was only ever in memory
	Execveat  bool `json:"execveat"`
	Splice    bool `json:"splice"`

	WithoutCgroup bool `json:"without_cgroup"` // start without a control group where there is none: memory in all is then unbounded
	WithoutProc   bool `json:"without_proc"`   // have no /proc
	MinLandlock   int  `json:"min_landlock"`   // lowest ABI
}

// minLandlock is the first ABI that knows of TCP.
const minLandlock = 4

// Strict has the agent and nothing else: no shell, no tool, no file that stays.
func Strict() Profile { return Profile{Name: "strict", MinLandlock: minLandlock} }

// Tools has exactly the programs that are granted by name, and directories to work in.
func Tools() Profile {
	return Profile{Name: "tools", Libraries: true, Tools: true, WriteDirs: true, MinLandlock: minLandlock}
}

// Workspace has the system's programs: a shell, compilers, interpreters. The boundary is the same.
func Workspace() Profile {
	return Profile{
		Name: "workspace", System: true, Libraries: true, Tools: true, WriteDirs: true,
		Datagrams: true, Servers: true, MemfdExec: true, Execveat: true, Splice: true, MinLandlock: minLandlock,
	}
}

// Profiles are all, the default first.
func Profiles() []Profile { return []Profile{Strict(), Tools(), Workspace()} }

// ProfileNamed finds one.
func ProfileNamed(name string) (Profile, error) {
	for _, p := range Profiles() {
		if p.Name == name {
			return p, nil
		}
	}
	return Profile{}, refuse(FeatureSpec, nil, "there is no such profile", "use strict, tools or workspace")
}

// Tiers are which kernel answers an agent.
const (
	TierHost   = "host"   // the machine's, through a filter: New
	TierGvisor = "gvisor" // one of its own: NewSandbox
)
