package jail

import "fmt"

// Features whose absence refuses a jail, as Refusal.Feature.
const (
	FeaturePlatform   = "platform"
	FeatureUserns     = "user_namespaces"
	FeatureOuter      = "outer_seccomp" // a filter of a container around us
	FeatureAppArmor   = "apparmor"
	FeatureNamespaces = "namespaces"
	FeatureMount      = "mount"
	FeatureProc       = "proc"
	FeatureNetwork    = "network"
	FeatureCgroup     = "cgroup"
	FeatureLandlock   = "landlock"
	FeatureSeccomp    = "seccomp"
	FeatureHostUID    = "host_uid"
	FeatureSource     = "source"  // something of the host that is to be mounted
	FeatureSymlink    = "symlink" // is, or leads through, a symbolic link
	FeatureScope      = "scope"
	FeatureAgent      = "agent" // cannot be executed
	FeatureSpec       = "spec"
	FeatureInit       = "init"
	FeatureSandbox    = "sandbox" // a kernel of its own, of the tier gvisor
)

// Refusal is why there is no jail. The agent was not started.
type Refusal struct {
	Feature string // what is missing, one of the above
	Msg     string // what was found
	Remedy  string // what to change
	Code    int    // exit code: CodeRefused, CodeNotExec or CodeNotFound
	Err     error
}

func (r *Refusal) Error() string {
	s := fmt.Sprintf("jail refused: %s: %s", r.Feature, r.Msg)
	if r.Err != nil {
		s += ": " + r.Err.Error()
	}
	return s + "; the agent was not started"
}

func (r *Refusal) Unwrap() error { return r.Err }

func refuse(feature string, err error, msg, remedy string) *Refusal {
	return &Refusal{Feature: feature, Msg: msg, Remedy: remedy, Code: CodeRefused, Err: err}
}
