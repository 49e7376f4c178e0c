package daemon

import (
	"context"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/egress/dial"
	"github.com/writ-gateway/writ/health"
)

// grants reads the setting of the same purpose.
func (c Config) grants() (dial.Grants, error) {
	if c.Grants == "" {
		return dial.Grants{}, nil
	}
	return dial.ParseGrants(strings.Split(c.Grants, ","))
}

// openProber looks at agents, and has the dispatcher ask it before a claim is
// refused for what nobody has looked at.
func (d *Daemon) openProber() error {
	grants, err := d.cfg.grants()
	if err != nil {
		return err
	}
	via := (&dial.Dialer{Grants: grants}).Transport(10 * time.Second)
	p := health.New(health.Config{Queue: d.door.Probes(shard), Via: via, Observer: d.telemetry.Health, Log: d.log})
	d.dispatcher.Probing(prober{p})
	p.Start()
	d.onStop(func(context.Context) error { p.Stop(); via.CloseIdleConnections(); return nil })
	return nil
}

// prober is a Prober of the one shard there is.
type prober struct{ *health.Prober }

func (p prober) Refresh(ctx context.Context, _ writ.Tenant, agents []writ.AgentID) {
	p.Prober.Refresh(ctx, agents)
}
