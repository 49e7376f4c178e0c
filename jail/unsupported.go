//go:build !linux

package jail

import (
	"context"
	"time"
)

// Options are what the jails of one process share.
type Options struct {
	FirstUID, UIDs int
	Start, Ready   time.Duration
}

// New is of no use here: every jail is refused.
func New(Options) Jailer { return none{} }

// SandboxOptions are where the sandbox of gVisor is on this machine.
type SandboxOptions struct {
	Runsc, Platform string
	Start           time.Duration
}

// NewSandbox is of no use here: every jail is refused.
func NewSandbox(SandboxOptions) Jailer { return none{} }

type none struct{}

func (none) Preflight(context.Context, Profile) (Features, error) { return Features{}, unsupported() }

func (none) Spawn(context.Context, Spec) (Jail, error) { return nil, unsupported() }

func unsupported() *Refusal {
	return refuse(FeaturePlatform, nil, "jail unsupported: jails need Linux", "run agents on a Linux machine; the gateway itself runs here")
}

// Examine says that there is nothing to examine.
func Examine(context.Context, Jailer, Jailer) []Probe {
	r := unsupported()
	return []Probe{{Name: FeaturePlatform, Found: r.Msg, Remedy: r.Remedy}}
}
