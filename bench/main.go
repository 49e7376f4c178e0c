package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// bench is one run of the program.
type bench struct {
	report
	quick bool
	long  bool
	root  string // of the module
	dir   string // scratch, removed at the end
	names int    // scratch names given out
}

// lines are the parts of the report, in order.
var lines = []struct {
	name string
	run  func(*bench, context.Context) error
}{
	{"commit", (*bench).commit},
	{"decision", (*bench).decision},
	{"path", (*bench).path},
	{"queue", (*bench).queue},
	{"lanes", (*bench).lanes},
	{"replicas", (*bench).replicas},
	{"approve", (*bench).approve},
	{"dag", (*bench).dag},
	{"asynq", (*bench).asynq},
	{"revoke", (*bench).revoke},
	{"jails", (*bench).jails},
	{"egress", (*bench).egress},
	{"receipts", (*bench).receipts},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	var names []string
	for _, l := range lines {
		names = append(names, l.name)
	}
	b := &bench{report: report{out: os.Stdout}}
	only := flag.String("only", "", "parts to run, of "+strings.Join(names, ","))
	profiles := flag.String("profile", "", "profile governed calls in this process instead, into this directory")
	scratch := flag.String("dir", "", "directory for scratch data, on the disk to measure (default: the system's)")
	flag.BoolVar(&b.quick, "quick", false, "fewer turns and smaller queues: a look, not a result")
	flag.BoolVar(&b.long, "long", false, "verify a log of a million receipts, which takes some minutes more")
	flag.Parse()
	want := names
	if *only != "" {
		want = strings.Split(*only, ",")
	}
	for _, w := range want {
		if !slices.Contains(names, w) {
			return fmt.Errorf("-only: there is no part %q, use %s", w, strings.Join(names, ", "))
		}
	}
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if b.root, err = moduleRoot(ctx); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(*scratch, "wb"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if *profiles != "" {
		return b.profile(ctx, *profiles)
	}
	b.header()
	for _, l := range lines {
		if !slices.Contains(want, l.name) {
			continue
		}
		if err := l.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	return nil
}

// pick is a size: the full one, or the one of -quick.
func (b *bench) pick(full, quick int) int {
	if b.quick {
		return quick
	}
	return full
}
