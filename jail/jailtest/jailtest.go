// Package jailtest says whether tests may start jails, and has what those tests share. Where none can start,
// tests fail, with what to change: one that was skipped would look as if the jail had held.
package jailtest

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"

	"github.com/writ-gateway/writ/jail"
)

// Need fails a test where no jail can start. WRIT_TEST_JAIL=off skips it instead.
func Need(t testing.TB) {
	t.Helper()
	if os.Getenv("WRIT_TEST_JAIL") == "off" {
		t.Skip("WRIT_TEST_JAIL=off: without jails")
	}
	if err := starts(); err != nil {
		if r, ok := errors.AsType[*jail.Refusal](err); ok {
			t.Fatalf("%v\n%s\n`writ jail doctor` tries each part; WRIT_TEST_JAIL=off runs the other tests", r, r.Remedy)
		}
		t.Fatal(err)
	}
}

// Profile is a profile as far as this machine can bound its memory: without a control group where
// none can be made, as for an ordinary user to whom nobody delegated one.
func Profile(t testing.TB, p jail.Profile) jail.Profile {
	t.Helper()
	Need(t)
	p.WithoutCgroup = !HasCgroup()
	return p
}

// HasCgroup says whether control groups can be made here.
func HasCgroup() bool { return grouped() }

var starts = sync.OnceValue(func() error {
	p := jail.Workspace()
	p.WithoutCgroup = true
	_, err := jail.New(jail.Options{}).Preflight(context.Background(), p)
	return err
})

var grouped = sync.OnceValue(func() bool {
	_, err := jail.New(jail.Options{}).Preflight(context.Background(), jail.Strict())
	return err == nil
})

// NeedSandbox fails a test where no jail with a kernel of its own can start.
func NeedSandbox(t testing.TB) {
	t.Helper()
	Need(t)
	if err := sandboxes(); err != nil {
		t.Fatalf("%v\n`make deps` installs runsc; WRIT_TEST_JAIL=off runs the other tests", err)
	}
}

var sandboxes = sync.OnceValue(func() error {
	_, err := jail.NewSandbox(jail.SandboxOptions{}).Preflight(context.Background(), jail.Strict())
	return err
})
