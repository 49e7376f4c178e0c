// Command testcount reads test results from standard input, prints one line per
// package and the output of every failure as it comes, and counts. Lines that a
// test prints with "note: " in front are shown even when it passes.
//
//	go test -json ./... | testcount -counts FILE
//	opa test --format json DIR | testcount -opa -counts FILE
//
// A test with subtests is not counted itself, its leaves are, unless it failed
// on its own. A package that does not build, that exits badly without a failed
// test, or that leaves a test unfinished, counts as failed. When the environment
// has CI=true a skipped test is a failed test: a check that could not run has
// not passed. The exit status is 1 when anything failed or when no test ran.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
)

func main() {
	counts := flag.String("counts", "", "write the counts to this `file`")
	opa := flag.Bool("opa", false, "standard input is the output of opa test --format json")
	flag.Parse()
	ci, _ := strconv.ParseBool(os.Getenv("CI"))
	if err := run(os.Stdin, os.Stdout, *counts, *opa, ci); err != nil {
		fmt.Fprintln(os.Stderr, "testcount:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer, countsFile string, opa, ci bool) error {
	t := tally{out: out, failSkips: ci}
	var readErr error
	if opa {
		readErr = t.readOPA(in)
	} else {
		readErr = t.readGo(in)
	}
	t.summary()
	if countsFile != "" {
		text := fmt.Sprintf("passed %d\nfailed %d\nskipped %d\n", t.passed, t.failed, t.skipped)
		if err := os.WriteFile(countsFile, []byte(text), 0o644); err != nil {
			return err
		}
	}
	switch {
	case readErr != nil:
		return readErr
	case t.failed > 0:
		return fmt.Errorf("%d failed", t.failed)
	case t.passed == 0:
		return errors.New("no test ran")
	}
	return nil
}
