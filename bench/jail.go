package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/writ-gateway/writ/jail"
)

// atOnce is how many jails are kept under way together.
const atOnce = 32

// jails compares starting a program in a jail, until nothing of it is left, with starting it without one.
func (b *bench) jails(ctx context.Context) error {
	program, err := b.nothing(ctx)
	if err != nil {
		return err
	}
	w := jailWork{Jailer: jail.New(jail.Options{}), program: program}
	var inside, outside []float64
	for turn := range b.pick(400, 60) {
		began := time.Now()
		if err := exec.CommandContext(ctx, program).Run(); err != nil {
			return err
		}
		outside = append(outside, ms(time.Since(began)))
		began = time.Now()
		if _, err := w.start(ctx, fmt.Sprintf("bench-%d", turn)); err != nil {
			return err
		}
		inside = append(inside, ms(time.Since(began)))
	}
	in, out := median(inside), median(outside)
	b.line("a program in a jail / by itself, p50", in/out, atMost(8, "×"))
	b.note("%.2f ms in a jail of the profile strict, %.2f ms without", in, out)

	n := b.pick(400, 60)
	jailed, err := together(n, func(i int) error {
		_, err := w.start(ctx, fmt.Sprintf("bench-many-%d", i))
		return err
	})
	if err != nil {
		return err
	}
	free, err := together(n, func(int) error { return exec.CommandContext(ctx, program).Run() })
	if err != nil {
		return err
	}
	b.line(fmt.Sprintf("the same, %d at once, per second", atOnce), jailed/free, atLeast(1.0/8, "×"))
	b.note("%.0f jails per second, %.0f programs without", jailed, free)

	peak, err := w.start(ctx, "bench-memory")
	if err != nil {
		return err
	}
	if peak > 0 { // else no control group counted
		b.line("memory of a jail whose program does nothing", float64(peak)/(1<<20), atMost(1.5, " MiB"))
	}
	return nil
}

// nothing is a program that ends at once, linked statically. Without a C compiler it is one in Go, whose own start
// is longer and hides some of the jail's.
func (b *bench) nothing(ctx context.Context) (string, error) {
	dir, err := b.scratch()
	if err != nil {
		return "", err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", err
	}
	source, program := filepath.Join(dir, "nothing.c"), filepath.Join(dir, "nothing")
	if err := os.WriteFile(source, []byte("int main(void) { return 0; }\n"), 0o600); err != nil {
		return "", err
	}
	if _, err := output(ctx, dir, "gcc", "-static", "-O1", "-o", program, source); err == nil {
		return program, nil
	}
	source = filepath.Join(dir, "nothing.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		return "", err
	}
	_, err = output(ctx, dir, "env", "CGO_ENABLED=0", "go", "build", "-o", program, source)
	return program, err
}

type jailWork struct {
	jail.Jailer
	program string
}

func (w jailWork) start(ctx context.Context, id string) (memory int64, err error) {
	p := jail.Strict()
	j, err := w.Spawn(ctx, jail.Spec{ID: id, Profile: p, Agent: jail.Program{Path: w.program}})
	if err != nil {
		return 0, err
	}
	if err := j.Go(); err != nil {
		return 0, err
	}
	e := j.Wait()
	if e.Code != 0 {
		return 0, fmt.Errorf("a jail ended with %+v", e)
	}
	return e.Usage.MemoryPeak, nil
}

// together does something n times, in lanes, and says how often a second.
func together(n int, do func(int) error) (perSecond float64, err error) {
	var lanes sync.WaitGroup
	work, failed := make(chan int), make(chan error, n)
	began := time.Now()
	for range atOnce {
		lanes.Go(func() {
			for i := range work {
				if err := do(i); err != nil {
					failed <- err
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	lanes.Wait()
	select {
	case err := <-failed:
		return 0, err
	default:
		return float64(n) / time.Since(began).Seconds(), nil
	}
}
