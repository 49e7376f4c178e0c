package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/writ-gateway/writ/jail"
)

// atOnce is how many jails are kept under way together.
const atOnce = 32

// jails compares starting a program in a jail, until nothing of it is left, with starting it without one.
func (b *bench) jails(ctx context.Context) error {
	program, err := b.program(ctx, "nothing", "int main(void) { return 0; }\n", "func main() {}")
	if err != nil {
		return err
	}
	w := jailWork{Jailer: jail.New(jail.Options{Ready: time.Minute}), program: program} // as a gateway makes them
	defer func() {
		if c, ok := w.Jailer.(io.Closer); ok {
			_ = c.Close()
		}
	}()
	fresh := jailWork{Jailer: jail.New(jail.Options{}), program: program}
	var inside, outside, kernel, unready []float64
	measure := func(into *[]float64, run func() error) error { // each begins with the same quiet
		if err := settle(ctx, program); err != nil {
			return err
		}
		began := time.Now()
		err := run()
		if err == nil {
			*into = append(*into, ms(time.Since(began)))
		}
		return err
	}
	for turn := range b.pick(400, 60) {
		if err := measure(&outside, exec.CommandContext(ctx, program).Run); err != nil {
			return err
		}
		if c := exec.CommandContext(ctx, program); inNamespaces(c) {
			_ = measure(&kernel, c.Run) // where it cannot be had the rest is measured all the same
		}
		if err := measure(&inside, func() error { return w.start(ctx, fmt.Sprintf("bench-%d", turn)) }); err != nil {
			return err
		}
	}
	for turn := range b.pick(200, 30) {
		if err := measure(&unready, func() error { return fresh.start(ctx, fmt.Sprintf("bench-fresh-%d", turn)) }); err != nil {
			return err
		}
	}
	in, out := median(inside), median(outside)
	b.line("a program in a jail / by itself, p50", in/out, atMost(8, "×"))
	b.note("%.2f ms in a jail of the profile strict, %.2f ms without; of the fastest tenth %.2f ms and %.2f ms", in, out, tenth(inside), tenth(outside))
	b.note("%.2f ms, or %.1f×, where the jail before left no first process ready; of the fastest tenth %.2f ms", median(unready), median(unready)/out, tenth(unready))
	if len(kernel) > 0 {
		b.note("%.2f ms in namespaces of the same kinds and nothing else of a jail, %.2f ms of the fastest tenth", median(kernel), tenth(kernel))
	}

	n := b.pick(400, 60)
	jailed, err := together(n, func(i int) error {
		return w.start(ctx, fmt.Sprintf("bench-many-%d", i))
	})
	if err != nil {
		return err
	}
	free, err := together(n, func(int) error { return exec.CommandContext(ctx, program).Run() })
	if err != nil {
		return err
	}
	b.line(fmt.Sprintf("jails per second, %d at once", atOnce), jailed, atLeast(100, ""))
	b.line("the same / programs without", jailed/free, atLeast(1.0/8, "×"))
	b.note("%.0f programs without", free)
	return b.idleJails(ctx)
}

// idleJails measures what a jail takes while its program only waits.
func (b *bench) idleJails(ctx context.Context) error {
	program, err := b.program(ctx, "waiting", "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n", "func main() { select {} }")
	if err != nil {
		return err
	}
	jailer := jail.New(jail.Options{})
	n := b.pick(32, 8)
	var all []jail.Jail
	defer func() {
		for _, j := range all {
			j.Kill("measured")
			j.Wait()
		}
	}()
	for i := range n {
		j, err := jailer.Spawn(ctx, jail.Spec{ID: fmt.Sprintf("bench-idle-%d", i), Profile: jail.Strict(), Agent: jail.Program{Path: program}})
		if err != nil {
			return err
		}
		all = append(all, j)
		if err := j.Go(); err != nil {
			return err
		}
	}
	time.Sleep(time.Second) // what was made for the start alone is gone
	var now, peak []float64
	for _, j := range all {
		u := j.Usage()
		now, peak = append(now, float64(u.Memory)/(1<<20)), append(peak, float64(u.MemoryPeak)/(1<<20))
	}
	if median(now) == 0 { // no control group counts
		return nil
	}
	alone, err := idleAlone(program, n)
	if err != nil {
		b.note("the program alone could not be measured, and counts as nothing: %v", err)
		alone = []float64{0}
	}
	itself := median(alone) / (1 << 20)
	b.line("memory of an idle jail beyond that of its program", median(now)-itself, atMost(1, " MiB"))
	b.note("%.2f MiB with its program, %.2f MiB the program alone in a control group; %.2f MiB at most, while it was made", median(now), itself, median(peak))
	return nil
}

// settle lets what a jail leaves behind be over, and a first process that is kept for the next be there: nothing is made beside what is
// measured then. After a rest everything is slow once.
func settle(ctx context.Context, program string) error {
	time.Sleep(10 * time.Millisecond)
	return exec.CommandContext(ctx, program).Run()
}

// tenth is the slowest of the fastest tenth: what it takes where nothing else is in the way.
func tenth(all []float64) float64 {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/10]
}

// program is one linked statically. Without a C compiler it is one in Go, whose own start is longer and hides some of
// the jail's.
func (b *bench) program(ctx context.Context, name, c, golang string) (string, error) {
	dir, err := b.scratch()
	if err != nil {
		return "", err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", err
	}
	source, program := filepath.Join(dir, name+".c"), filepath.Join(dir, name)
	if err := os.WriteFile(source, []byte(c), 0o600); err != nil {
		return "", err
	}
	if _, err := output(ctx, dir, "gcc", "-static", "-O1", "-o", program, source); err == nil {
		return program, nil
	}
	source = filepath.Join(dir, name+".go")
	if err := os.WriteFile(source, []byte("package main\n\n"+golang+"\n"), 0o600); err != nil {
		return "", err
	}
	_, err = output(ctx, dir, "env", "CGO_ENABLED=0", "go", "build", "-o", program, source)
	return program, err
}

type jailWork struct {
	jail.Jailer
	program string
}

func (w jailWork) start(ctx context.Context, id string) error {
	j, err := w.Spawn(ctx, jail.Spec{ID: id, Profile: jail.Strict(), Agent: jail.Program{Path: w.program}})
	if err != nil {
		return err
	}
	if err := j.Go(); err != nil {
		return err
	}
	if e := j.Wait(); e.Code != 0 {
		return fmt.Errorf("a jail ended with %+v", e)
	}
	return nil
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
