package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// decision quotes the benchmarks of package policies: evaluating is no
// business of other packages, so they cannot time it from outside.
func (b *bench) decision(ctx context.Context) error {
	each := fmt.Sprintf("-benchtime=%dms", b.pick(1000, 200))
	out, err := output(ctx, b.root, "go", "test", "-run=^$", "-bench=^Benchmark(Evaluate|Decide|Memo|Permit|Replay|Reload)$", "-benchmem", each, "./policies")
	if err != nil {
		return err
	}
	got := benchmarks(out)
	few, many := got["Evaluate/packs=9"], got["Evaluate/packs=200"]
	decide, one, hit, permit := got["Decide/memo=off"], got["Decide/memo=one-misses"], got["Decide/memo=hit"], got["Permit"]
	replay, reload := got["Replay"], got["Reload"]
	dearest := 0.0 // hit of a memo
	for name, m := range got {
		if strings.HasPrefix(name, "Memo/") && strings.HasSuffix(name, "/hit") {
			dearest = max(dearest, m["ns/op"])
		}
	}
	if few == nil || many == nil || decide == nil || one == nil || hit == nil || dearest == 0 || permit == nil || replay == nil || reload == nil {
		return fmt.Errorf("the benchmarks of package policies are not all there:\n%s", out)
	}
	b.line("decision: allocations of an evaluation, 6 packs routed", few["allocs/op"], atMost(560, ""))
	b.line("decision: allocations with 200 packs loaded / with 9", many["allocs/op"]/few["allocs/op"], atMost(1.1, "×"))
	b.line("decision: whole, every pack remembered / none", hit["ns/op"]/decide["ns/op"], atMost(0.1, "×"))
	b.line("decision: whole, one of six packs asked / all", one["ns/op"]/decide["ns/op"], atMost(0.5, "×"))
	b.line("decision: a remembered pack, the dearest", dearest, atMost(1000, " ns"))
	b.line("replay: records judged by a candidate, per second and core", 1e9/replay["ns/op"], atLeast(5000, ""))
	b.line("reload: 200 packs, until they decide", reload["ms/reload"], atMost(1000, " ms"))
	b.line("reload: p99 of decisions made meanwhile / without", reload["p99-ratio"], atMost(2, "×"))
	b.line("Permit: one question to the role bindings", permit["ns/op"], atMost(100, " ns"))
	b.note("evaluation %.0f µs with 9 packs loaded, %.0f µs with 200; the whole decision with input and digest %.0f µs, %.0f allocations; every pack remembered %.1f µs, %.0f allocations",
		few["ns/op"]/1000, many["ns/op"]/1000, decide["ns/op"]/1000, decide["allocs/op"], hit["ns/op"]/1000, hit["allocs/op"])
	return nil
}

// benchmarks reads the output of go test -bench: per benchmark its values by
// unit. The format is https://go.dev/design/14313-benchmark-format.
func benchmarks(out string) map[string]map[string]float64 {
	all := map[string]map[string]float64{}
	for _, l := range strings.Split(out, "\n") {
		f := strings.Fields(l)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(f[0], "Benchmark")
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			name = name[:i] // GOMAXPROCS
		}
		all[name] = map[string]float64{}
		for i := 2; i+1 < len(f); i += 2 {
			if v, err := strconv.ParseFloat(f[i], 64); err == nil {
				all[name][f[i+1]] = v
			}
		}
	}
	return all
}
