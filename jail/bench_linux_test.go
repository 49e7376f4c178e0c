package jail_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/writ-gateway/writ/jail"
	"github.com/writ-gateway/writ/jail/jailtest"
)

// tiny is a static program that ends at once, so that starting it is all there is to measure. With no C compiler
// it is ours, which takes longer by itself.
var tiny = sync.OnceValue(func() string {
	dir := filepath.Dir(agentBinary)
	source, out := filepath.Join(dir, "true.c"), filepath.Join(dir, "true")
	if os.WriteFile(source, []byte("int main(void) { return 0; }\n"), 0o644) == nil &&
		exec.Command("gcc", "-static", "-O1", "-o", out, source).Run() == nil {
		return out
	}
	return agentBinary
})

// BenchmarkStart says how much longer a program takes in a jail, from asking for it until nothing of it is left: x/exec
// is the ratio to starting it without one, of the medians measured in turn.
func BenchmarkStart(b *testing.B) {
	for _, p := range jail.Profiles() {
		b.Run(p.Name, func(b *testing.B) {
			jailtest.Need(b)
			p.WithoutCgroup = !jailtest.HasCgroup()
			var inside, outside []time.Duration
			for b.Loop() {
				began := time.Now()
				if err := exec.Command(tiny()).Run(); err != nil {
					b.Fatal(err)
				}
				outside = append(outside, time.Since(began))
				began = time.Now()
				start(b, p)
				inside = append(inside, time.Since(began))
			}
			slices.Sort(inside)
			slices.Sort(outside)
			in, out := inside[len(inside)/2], outside[len(outside)/2]
			b.ReportMetric(float64(in)/float64(out), "x/exec")
			b.ReportMetric(float64(in.Microseconds()), "jail-µs")
			b.ReportMetric(float64(out.Microseconds()), "exec-µs")
		})
	}
}

// BenchmarkAtOnce starts jails in 32 lanes.
func BenchmarkAtOnce(b *testing.B) {
	jailtest.Need(b)
	p := jail.Strict()
	p.WithoutCgroup = !jailtest.HasCgroup()
	var lanes sync.WaitGroup
	work := make(chan struct{})
	for range 32 {
		lanes.Go(func() {
			for range work {
				start(b, p)
			}
		})
	}
	began := time.Now()
	for b.Loop() {
		work <- struct{}{}
	}
	close(work)
	lanes.Wait()
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "jails/s")
}

// BenchmarkIdle is what a jail that sleeps costs.
func BenchmarkIdle(b *testing.B) {
	jailtest.Need(b)
	if !jailtest.HasCgroup() {
		b.Skip("only a control group counts memory")
	}
	var peak, n int64
	for b.Loop() {
		j := spawn(b, jail.Strict(), agentBinary, "sleep=1h")
		if err := j.Go(); err != nil {
			b.Fatal(err)
		}
		peak += j.Usage().MemoryPeak
		n++
		j.Kill("measured")
		j.Wait()
	}
	b.ReportMetric(float64(peak)/float64(n)/(1<<20), "MiB/jail")
}

func start(b *testing.B, p jail.Profile) {
	j := spawn(b, p, tiny())
	if err := j.Go(); err != nil {
		b.Error(err)
	}
	if e := j.Wait(); e.Code != 0 {
		b.Errorf("it ended with %+v", e)
	}
}

func spawn(b *testing.B, p jail.Profile, program string, args ...string) jail.Jail {
	n, _ := numbers.LoadOrStore("b", new(counter))
	j, err := jailer.Spawn(b.Context(), jail.Spec{
		ID: fmt.Sprintf("b%d", n.(*counter).next()), Profile: p, Agent: jail.Program{Path: program}, Args: args,
	})
	if err != nil {
		b.Fatal(err)
	}
	return j
}
