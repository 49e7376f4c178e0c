package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/writ-gateway/writ/client"
)

// turn is one subject's turn: the processor time per request of the server
// and of the store beside it, and what the callers saw.
type turn struct {
	cpu, store float64 // microseconds per request
	load
}

func (t turn) both() float64 { return t.cpu + t.store }

const connections = 8

// path compares one governed task.enqueue (bearer token, schema, role, Rego,
// commit, signed receipt) with an OPA server that answers only the policy
// question about that call.
func (b *bench) path(ctx context.Context) error {
	binary, err := b.buildWrit(ctx)
	if err != nil {
		return err
	}
	n := b.pick(5000, 1000)
	var subjects []func() (turn, error)
	var read func() (turn, error)
	var names []string
	var input []byte
	for _, host := range []string{"bolt", "Redis"} {
		g, err := b.serve(ctx, binary, host)
		if err != nil {
			return err
		}
		defer g.close()
		if input == nil {
			if input, err = policyInput(ctx, g); err != nil {
				return err
			}
		}
		p := newPoster(connections, g.planner.Token)
		defer p.close()
		turns := 0
		subject := func() (turn, error) {
			turns++
			if err := g.beat(ctx); err != nil {
				return turn{}, err
			}
			return measure(ctx, n, []*process{g.process, g.redis.process}, g.settle, func(ctx context.Context, _, i int) error {
				_, _, err := p.post(ctx, g.url+"/v1/tasks", g.task(fmt.Sprintf("turn-%d-task-%d", turns, i)))
				return err
			})
		}
		subjects, names = append(subjects, subject), append(names, "writ on "+host)
		if read == nil {
			t, err := g.planner.Enqueue(ctx, client.TaskOptions{Run: g.run, Key: "shown", Capability: capability, Domain: domain})
			if err != nil {
				return err
			}
			show := fmt.Appendf(nil, `{"capability":"task.get","args":{"task_id":%q}}`, t.ID)
			read = func() (turn, error) {
				return measure(ctx, n, []*process{g.process}, g.settle, func(ctx context.Context, _, _ int) error {
					_, _, err := p.post(ctx, g.url+"/v1/invoke", show)
					return err
				})
			}
		}
	}
	for _, variant := range []struct {
		name  string
		env   []string
		flags []string
	}{
		{"opa run --server, defaults", nil, nil},
		{"opa run --server, GOGC as writ's, silent", []string{"GOGC=400"}, []string{"--log-level=error"}},
	} {
		s, err := b.startOPA(ctx, variant.env, variant.flags...)
		if err != nil {
			return err
		}
		defer s.stop()
		p := newPoster(connections, "")
		defer p.close()
		subject := func() (turn, error) {
			return measure(ctx, n, []*process{s.process}, nil, func(ctx context.Context, _, _ int) error { return s.ask(ctx, p, input) })
		}
		subjects, names = append(subjects, subject), append(names, variant.name)
	}
	subjects, names = append(subjects, read), append(names, "writ on bolt, task.get")
	for _, warm := range subjects {
		if _, err := warm(); err != nil {
			return err
		}
	}
	got, err := rounds(b.pick(5, 3), subjects...)
	if err != nil {
		return err
	}
	cpu, both := func(t turn) float64 { return t.cpu }, turn.both
	bolt, _, _ := ratios(got[0], got[2], cpu)
	redis, _, _ := ratios(got[1], got[2], cpu)
	redisBoth, _, _ := ratios(got[1], got[2], both)
	b.line("whole path on bolt: CPU of a governed enqueue / of an OPA query", bolt, atMost(1, "×"))
	b.line("whole path on Redis: the gateway's CPU / of an OPA query", redis, atMost(1, "×"))
	b.line("whole path on Redis: CPU with redis-server's / of an OPA query", redisBoth, atMost(1, "×"))
	reading, _, _ := ratios(got[4], got[2], cpu)
	b.line("whole path on bolt: CPU of a governed read / of an OPA query", reading, atMost(0.7, "×"))
	quiet, _, _ := ratios(got[0], got[3], cpu)
	_, lo, hi := ratios(got[0], got[2], cpu)
	b.note("rounds on bolt %.2f–%.2f×; against OPA without request log and with writ's GOGC %.2f×", lo, hi, quiet)
	for i, name := range names {
		t := got[i]
		line := fmt.Sprintf("%-42s %6.0f µs", name, mid(t, cpu))
		if mid(t, func(t turn) float64 { return t.store }) > 0 {
			line += fmt.Sprintf(" + %.0f µs redis-server", mid(t, func(t turn) float64 { return t.store }))
		}
		b.note("%s, %.0f requests/s per core, p50 %.1f ms, p99 %.1f ms", line, 1e6/mid(t, both),
			mid(t, func(t turn) float64 { return ms(t.percentile(50)) }), mid(t, func(t turn) float64 { return ms(t.percentile(99)) }))
	}
	return nil
}

// measure drives a job and charges the processes: the first is the server, the
// second, if there is one, its store.
func measure(ctx context.Context, n int, charged []*process, settle func(context.Context) error, job func(context.Context, int, int) error) (turn, error) {
	spent := func() (out [2]time.Duration, err error) {
		for i, p := range charged {
			if p != nil && err == nil {
				out[i], err = p.cpu()
			}
		}
		return out, err
	}
	before, err := spent()
	if err != nil {
		return turn{}, err
	}
	l, err := drive(ctx, connections, n, job)
	if err == nil && settle != nil {
		err = settle(ctx)
	}
	after, err2 := spent()
	per := func(i int) float64 { return float64((after[i] - before[i]).Microseconds()) / float64(n) }
	return turn{per(0), per(1), l}, errors.Join(err, err2)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
