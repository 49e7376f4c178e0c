package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/writ-gateway/writ/jail"
)

func jailCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "jail", Short: "Try the jail agents run in", GroupID: "operate", Args: noCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	cmd.AddCommand(jailRunCommand(), jailDoctorCommand())
	return cmd
}

func jailRunCommand() *cobra.Command {
	var spec jail.Spec
	var profile, format string
	var write, read, tools []string
	var withoutCgroup, withoutProc bool
	var tier jailTier
	cmd := &cobra.Command{
		Use: "run [flags] -- COMMAND [ARGUMENT...]", Short: "Run a command as an agent would be run", Args: someArgs,
		Example: `  writ jail run -- /opt/agents/static-agent
  writ jail run --profile tools --write ./site --tool curl -- ./agent
  writ jail run --profile workspace --deadline 10s -- bash -c 'id; ls /'`,
		Long: `Run a command in a jail, with nothing of this machine but what the profile shows and the
flags name. There is no gateway behind its door here: requests to http://gateway get a 503.

Profiles: strict has the command alone, which must be linked statically unless --runtime names what
it needs; its scope is in memory. tools adds exactly the programs that --tool names, with their
libraries. workspace shows /usr. None has a network.

With --tier gvisor the command's system calls are answered by a kernel of its own, gVisor's, and not by this
machine's. It works in memory: no directory of the host is shown to work in.

The exit code is the command's, 128 and the signal's number if one ended it, 124 at the deadline, 125 if
there is no jail, 126 if the command cannot be executed, 127 if it is not there. docs/jail.md says what holds.`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			jailer, err := tier.jailer()
			if err != nil {
				return usage(c, err)
			}
			p, err := jail.ProfileNamed(profile)
			if err != nil {
				return usage(c, errors.New("--profile wants strict, tools or workspace"))
			}
			p.WithoutCgroup, p.WithoutProc = withoutCgroup, withoutProc
			spec.ID, spec.Profile, spec.Args = fmt.Sprintf("run-%d", os.Getpid()), p, args[1:]
			if spec.Agent, err = programOf(args[0]); err != nil {
				return refusedJail(c, format, err)
			}
			for _, name := range tools {
				tool, err := programOf(name)
				if err != nil {
					return refusedJail(c, format, err)
				}
				spec.Tools = append(spec.Tools, tool)
			}
			if (!p.WriteDirs || tier.name == jail.TierGvisor) && len(write) == 0 {
				spec.Scopes = append(spec.Scopes, jail.Scope{Medium: jail.Memory})
			}
			for i, dir := range append(write, read...) {
				real, err := realPath(dir)
				if err != nil {
					return usage(c, err)
				}
				spec.Scopes = append(spec.Scopes, jail.Scope{Path: real, ReadOnly: i >= len(write)})
			}
			for i, name := range spec.Runtime {
				if spec.Runtime[i], err = filepath.Abs(name); err != nil {
					return usage(c, err)
				}
			}
			return runJail(c, jailer, spec, format)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVar(&profile, "profile", "strict", "strict, tools or workspace")
	tier.flags(f)
	f.StringArrayVar(&write, "write", nil, "directory it may write, at /scopes/1 and so on; the first is /workspace too (repeatable)")
	f.StringArrayVar(&read, "read", nil, "directory it may read, at the next of /scopes (repeatable)")
	f.StringArrayVar(&tools, "tool", nil, "program it may execute, at /tools (repeatable)")
	f.StringArrayVar(&spec.Runtime, "runtime", nil, "file or directory it may read and map as a library, at the same path (repeatable)")
	f.StringArrayVar(&spec.Env, "env", nil, "variable of its environment, as NAME=value (repeatable)")
	f.DurationVar(&spec.Deadline, "deadline", 0, "end it after this time, such as 30s; 0: never")
	f.BoolVar(&withoutCgroup, "without-cgroup", false, "start though no control group can be made; its memory in all is then unbounded")
	f.BoolVar(&withoutProc, "without-proc", false, "give it no /proc, for where none can be mounted")
	outputFlag(cmd, &format)
	return cmd
}

func someArgs(c *cobra.Command, args []string) error {
	return usage(c, cobra.MinimumNArgs(1)(c, args))
}

// programOf is what a shell would run, by its real path and under the name it was given.
func programOf(name string) (jail.Program, error) {
	found, err := exec.LookPath(name)
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return jail.Program{}, &jail.Refusal{Feature: jail.FeatureAgent, Msg: "there is no such program", Remedy: "name one that is there and can be executed", Code: jail.CodeNotFound}
	}
	path, err := realPath(found)
	return jail.Program{Path: path, Name: filepath.Base(name)}, err
}

func realPath(name string) (string, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// jailRun is the report of jail run as JSON.
type jailRun struct {
	Exit     jail.Exit     `json:"exit"`
	Features jail.Features `json:"features"`
	Stdout   string        `json:"stdout"`
	Stderr   string        `json:"stderr"`
}

func runJail(c *cobra.Command, jailer jail.Jailer, spec jail.Spec, format string) error {
	var out, errs strings.Builder
	spec.Stdout, spec.Stderr = c.OutOrStdout(), c.ErrOrStderr()
	if format == "json" {
		spec.Stdout, spec.Stderr = &out, &errs
	}
	j, err := jailer.Spawn(c.Context(), spec)
	if err != nil {
		return refusedJail(c, format, err)
	}
	tcp, unix := j.Listeners()
	server := &http.Server{Handler: http.HandlerFunc(nobodyBehind), ReadHeaderTimeout: 5 * time.Second}
	for _, l := range []net.Listener{tcp, unix} {
		go func() { _ = server.Serve(l) }()
	}
	defer func() { _ = server.Close() }()
	stop := context.AfterFunc(c.Context(), func() { j.Kill("interrupted") })
	defer stop()
	if err := j.Go(); err != nil {
		return refusedJail(c, format, err)
	}
	e := j.Wait()
	switch {
	case format == "json":
		if err := printJSON(c, jailRun{e, j.Features(), out.String(), errs.String()}); err != nil {
			return err
		}
	case e.Reason != jail.Exited:
		fmt.Fprintf(c.ErrOrStderr(), "writ: the jail ended: %s\n", shown(e.Reason))
	}
	if format != "json" && e.Truncated {
		fmt.Fprintln(c.ErrOrStderr(), "writ: not all it wrote was shown: a line, or all of it, was too long")
	}
	return exitWith(e.Code)
}

// nobodyBehind answers what would be calls.
func nobodyBehind(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(w, `{"type":"about:blank","title":"No gateway is behind this jail","status":503,"code":"not_ready","detail":"writ jail run started it; only the jail itself can be tried"}`+"\n")
}

// refusedJail says why there is no jail, and ends with its exit code.
func refusedJail(c *cobra.Command, format string, err error) error {
	r, ok := errors.AsType[*jail.Refusal](err)
	if !ok {
		return err
	}
	if format == "json" {
		e := refusal{Exit: r.Code}
		e.Type, e.Title, e.Code, e.Detail, e.Hint = "about:blank", "The jail was refused", codeFailed, r.Error(), r.Remedy
		e.Details = map[string]string{"feature": r.Feature}
		printRefusal(c.ErrOrStderr(), e)
		return exitStatus(r.Code)
	}
	printError(c.ErrOrStderr(), r)
	fmt.Fprintf(c.ErrOrStderr(), "writ: hint: %s\n", shown(r.Remedy))
	return exitStatus(r.Code)
}

// jailTier is which kernel answers an agent, as flags say.
type jailTier struct {
	name    string
	sandbox jail.SandboxOptions
}

func (t *jailTier) flags(f *pflag.FlagSet) {
	f.StringVar(&t.name, "tier", jail.TierHost, "kernel that answers it: host, this machine's; gvisor, one of its own (wants runsc and root)")
	t.runsc(f)
}

func (t *jailTier) runsc(f *pflag.FlagSet) {
	f.StringVar(&t.sandbox.Runsc, "runsc", "runsc", "program of gVisor, by its path or looked for in PATH")
	f.StringVar(&t.sandbox.Platform, "runsc-platform", "", "how it runs code: systrap, kvm or ptrace; what it does by itself if empty")
}

func (t *jailTier) jailer() (jail.Jailer, error) {
	switch t.name {
	case jail.TierHost:
		return jail.New(jail.Options{}), nil
	case jail.TierGvisor:
		return jail.NewSandbox(t.sandbox), nil
	}
	return nil, errors.New("--tier: want host or gvisor")
}

func jailDoctorCommand() *cobra.Command {
	var format string
	var tier jailTier
	cmd := &cobra.Command{
		Use: "doctor", Short: "Try what jails need of this machine", Args: noArgs,
		Example: `  writ jail doctor
  writ jail doctor -o json`,
		Long: `Try each thing a jail needs, and start one of each profile that runs nothing, and one with a kernel of its own. What is missing
is named with what to change. Exit code 0 if a jail of the profile strict can start, 1 if not.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			probes := jail.Examine(c.Context(), jail.New(jail.Options{}), jail.NewSandbox(tier.sandbox))
			starts := false
			for _, p := range probes {
				starts = starts || p.OK && p.Name == "profile "+jail.Strict().Name
			}
			b, err := json.Marshal(struct {
				Starts bool         `json:"starts"`
				Probes []jail.Probe `json:"probes"`
			}{starts, probes})
			if err != nil {
				return err
			}
			if format == "json" {
				if err := render(c.OutOrStdout(), format, b); err != nil {
					return err
				}
			} else {
				printProbes(c.OutOrStdout(), probes)
			}
			if !starts {
				return exitStatus(exitError)
			}
			return nil
		},
	}
	tier.runsc(cmd.Flags())
	outputFlag(cmd, &format)
	return cmd
}

func printProbes(w io.Writer, probes []jail.Probe) {
	for _, p := range probes {
		mark := "ok     "
		if !p.OK {
			mark = "missing"
		}
		fmt.Fprintf(w, "%s  %-18s %s\n", mark, p.Name, shown(p.Found))
		if p.Remedy != "" {
			fmt.Fprintf(w, "         %-18s → %s\n", "", shown(p.Remedy))
		}
	}
}
