package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/internal/daemon"
	"github.com/writ-gateway/writ/internal/story"
	"github.com/writ-gateway/writ/receipts"
)

func demoCommand() *cobra.Command {
	var set settings
	var once, jailed, inmate bool
	cmd := &cobra.Command{
		Use: "demo", Short: "Play a short story on a gateway of its own, then keep serving", GroupID: "operate", Args: cobra.ArbitraryArgs,
		Long: `Start a gateway on this machine with the embedded store and let an operator, an
orchestrator, executors and a second person do a small piece of work through it:
what is done, what is refused, and a risky call that waits until somebody agreed
and then happens once. Then every receipt is exported and verified offline.

With --jail an agent also runs in a strict jail, tries to reach the host, the network
and another agent, and shows what came of each. Without it, nothing needs Linux.

It keeps serving afterwards; --once ends with exit code 0 instead.`,
		RunE: func(c *cobra.Command, rest []string) error {
			if inmate { // this process is the agent of the story that runs in a jail
				return story.Inmate(c.Context(), rest)
			}
			if err := noArgs(c, rest); err != nil {
				return err
			}
			cfg, err := set.load(c)
			if err != nil {
				return err
			}
			if jailed {
				if cfg.Jails, err = demoJails(cfg.Data); err != nil {
					return err
				}
			}
			// The story lets a lease end, so nothing may stretch it.
			cfg.MinLease, cfg.Grace = 1, daemon.Duration(time.Second)
			cfg.Activate = true // and it plays under the policies given, whatever was staged here before
			if !c.Flags().Lookup("listen").Changed {
				cfg.Listen = freeListen(cfg.Listen)
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
			d := daemon.New(cfg, log)
			if err := d.Start(c.Context()); err != nil {
				return err
			}
			if err := tell(c, cfg, d, jailed); err != nil {
				_ = stop(d)
				return err
			}
			if once {
				return stop(d)
			}
			w := c.OutOrStdout()
			fmt.Fprintf(w, "\nServing %s (API reference at %s/docs). Stop with Ctrl-C. Try:\n\n", d.URL(), d.URL())
			fmt.Fprintf(w, "  curl -s -H \"Authorization: Bearer $(cat %s)\" %s/v1/runs\n", daemon.OperatorToken(cfg.Data), d.URL())
			fmt.Fprintf(w, "  %s run list --data %s\n", invoked(), cfg.Data)
			select {
			case <-c.Context().Done():
			case err := <-d.Served():
				return fmt.Errorf("serving: %w", err)
			}
			fmt.Fprintln(c.ErrOrStderr(), "writ: stopping")
			return stop(d)
		},
	}
	cmd.Flags().BoolVar(&jailed, "jail", false, "play an agent in a jail too (Linux)")
	cmd.Flags().BoolVar(&inmate, "inmate", false, "be that agent")
	_ = cmd.Flags().MarkHidden("inmate")
	cmd.Flags().BoolVar(&once, "once", false, "end after the story")
	set.flags(cmd)
	return cmd
}

// demoProgram is what the file of jails calls this very program.
const demoProgram = "demo"

// demoJails writes the file of jails of the demonstration: the one program agents may
// be run with is this one.
func demoJails(data string) (string, error) {
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err == nil {
		data, err = filepath.Abs(data)
	}
	if err == nil {
		err = os.MkdirAll(data, 0o700)
	}
	if err != nil {
		return "", err
	}
	file := filepath.Join(data, "jails.yaml")
	text := fmt.Sprintf("programs:\n  %s: {path: %q, args: [demo, --inmate, --], profiles: [strict]}\n", demoProgram, self)
	return file, os.WriteFile(file, []byte(text), 0o600)
}

// tell plays the story, then exports all receipts and verifies the file.
func tell(c *cobra.Command, cfg daemon.Config, d *daemon.Daemon, jailed bool) error {
	w := c.OutOrStdout()
	token := daemon.OperatorToken(cfg.Data)
	s, err := story.New(d.URL(), token, w)
	if err != nil {
		return err
	}
	if jailed {
		s.Jail = &story.Jail{Program: demoProgram, TokenFile: token}
	}
	if err := s.Tell(c.Context()); err != nil {
		return fmt.Errorf("the story went another way: %w", err)
	}
	cl, err := client.New(client.Config{URL: d.URL(), TokenFile: token})
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := writeExport(c, cl, -1, &b); err != nil {
		return err
	}
	path := filepath.Join(cfg.Data, "receipts.jsonl")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		return err
	}
	key := filepath.Join(cfg.Keys, receipts.FilePublic)
	pub, err := os.ReadFile(key)
	if err != nil {
		return err
	}
	page, err := keysOf(c.Context(), cl)
	if err != nil {
		return err
	}
	ring, err := receipts.ReadRing(page.File, receipts.Trusted{Key: pub})
	if err != nil {
		return err
	}
	report, err := receipts.VerifyKeys(&b, ring)
	if err != nil {
		return err
	}
	more := ""
	if len(ring.Events()) > 0 { // the key was changed in this directory
		file := filepath.Join(cfg.Data, "keys.json")
		if err := os.WriteFile(file, page.File, 0o600); err != nil {
			return err
		}
		more = " --keys " + file
	}
	fmt.Fprintf(w, "\nEvery step above is a signed receipt. They were exported and verified offline:\n\n")
	fmt.Fprintf(w, "  %s receipt verify %s --key %s%s\n\n", invoked(), path, key, more)
	if err := printReport(w, "table", report); err != nil {
		return err
	}
	return exitWith(report.ExitCode())
}

// freeListen is addr, or a free port on its host when addr is taken.
func freeListen(addr string) string {
	l, err := net.Listen("tcp", addr)
	if err == nil {
		_ = l.Close()
		return addr
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return net.JoinHostPort(host, "0")
}

// invoked is how this program was started from the directory one is in, bin/writ for example; elsewhere its name.
func invoked() string {
	if name := os.Args[0]; !filepath.IsAbs(name) && filepath.Base(name) != name {
		return name
	}
	return "writ"
}
