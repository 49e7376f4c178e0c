package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/internal/printable"
	"github.com/writ-gateway/writ/jail"
	"github.com/writ-gateway/writ/supervisor"
)

// jailLogs is the directory of what agents in jails print, below data: a file for each
// session.
const jailLogs = "jails"

// jailURL is where an agent in a jail finds the gateway.
const jailURL = "http://gateway"

// openJails runs agents in jails for the sessions that were spawned, when the machine
// says what they may have of it. It is opened after the server, and so stopped before it.
func (d *Daemon) openJails(ctx context.Context) error {
	if d.cfg.Jails == "" {
		return nil
	}
	own, err := d.cfg.own()
	if err != nil {
		return fmt.Errorf("jails: %w", err)
	}
	site, err := readJailSite(d.cfg.Jails, own...)
	if err != nil {
		return fmt.Errorf("jails: %w", err)
	}
	logs := filepath.Join(d.cfg.Data, jailLogs)
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return fmt.Errorf("jails: %w", err)
	}
	c := cells{site: site, logs: logs, log: d.log, jailers: map[writ.JailTier]jail.Jailer{
		writ.JailHost:   jail.New(jail.Options{Ready: keptReady}),
		writ.JailGvisor: jail.NewSandbox(jail.SandboxOptions{Runsc: site.Gvisor.Runsc, Platform: site.Gvisor.Platform}),
	}}
	cannot := func(tier writ.JailTier, p jail.Profile) {
		if _, err := c.jailers[tier].Preflight(ctx, p); err != nil { // agents that want it will be refused; everything else goes on
			remedy := ""
			if r, ok := errors.AsType[*jail.Refusal](err); ok {
				remedy = r.Remedy
			}
			d.log.Warn("this host cannot jail agents of a profile, so they are not run", "profile", p.Name, "tier", tier, "error", err, "remedy", remedy)
		}
	}
	for _, p := range jail.Profiles() {
		cannot(writ.JailHost, p)
	}
	if site.Gvisor != (jailGvisor{}) { // most machines have none, and nobody is told of what nobody wants
		cannot(writ.JailGvisor, jail.Strict())
	}
	s := supervisor.New(supervisor.Config{
		Queue: d.door.Jails(shard), Jailer: c, Host: d.replica, Adopts: d.cfg.Store == "bolt", Most: int(site.Most.Jails), Log: d.log,
		Serve: func(ctx context.Context, id writ.SessionID, l net.Listener) error {
			err := d.ServeSession(ctx, l, Served{Session: id, Jailed: true})
			if writ.CodeOf(err) == writ.CodeNotFound { // it has ended before it was served
				return nil
			}
			return err
		},
	})
	s.Start()
	d.onStop(func(context.Context) error {
		s.Stop()
		if kept, ok := c.jailers[writ.JailHost].(io.Closer); ok {
			return kept.Close()
		}
		return nil
	})
	d.loops.Go(func() { d.sweepJailLogs(logs) })
	return nil
}

// keptReady is how long after a jail a first process is kept for the next one.
const keptReady = time.Minute

// sweepJailLogs removes what agents printed as long ago as artifacts are kept.
func (d *Daemon) sweepJailLogs(dir string) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		before := time.Now().AddDate(0, 0, -d.cfg.ArtifactDays)
		files, err := filepath.Glob(filepath.Join(dir, "ses_*.log"))
		if err != nil {
			return // never: the pattern is sound
		}
		for _, f := range files {
			if fi, err := os.Lstat(f); err == nil && fi.ModTime().Before(before) {
				if err := os.Remove(f); err != nil {
					d.log.Warn("what an agent printed is kept longer than it should", "error", err)
				}
			}
		}
		select {
		case <-d.stopping:
			return
		case <-tick.C:
		}
	}
}

// cells makes jails of what this machine lets agents have.
type cells struct {
	site    jailSite
	jailers map[writ.JailTier]jail.Jailer
	logs    string
	log     *slog.Logger
}

// lacking is a jail that cannot be, for want of what it names.
type lacking struct {
	what string
	err  error
}

func (l lacking) Error() string   { return l.err.Error() }
func (l lacking) Unwrap() error   { return l.err }
func (l lacking) Missing() string { return l.what }

func lacks(what, format string, args ...any) error { return lacking{what, fmt.Errorf(format, args...)} }

func (c cells) Make(ctx context.Context, j writ.Jail) (supervisor.Jail, error) {
	spec, err := c.spec(j)
	if err != nil {
		return nil, err
	}
	jailer := c.jailers[j.Spec.Filled().Tier]
	if jailer == nil {
		return nil, lacks("tier", "this gateway knows no such tier")
	}
	out, err := openOutput(filepath.Join(c.logs, string(j.Session)+".log"))
	if err != nil {
		return nil, lacks("log", "the file for its output: %w", err)
	}
	spec.Stdout, spec.Stderr = out.stream("out"), out.stream("err")
	made, err := jailer.Spawn(ctx, spec)
	if err != nil {
		_ = out.Close(false)
		if r, ok := errors.AsType[*jail.Refusal](err); ok {
			return nil, lacking{r.Feature, fmt.Errorf("%w: %s", err, r.Remedy)}
		}
		return nil, err
	}
	return inmate{made, out, c.log.With("session", j.Session)}, nil
}

// spec is a jail as this machine makes it.
func (c cells) spec(j writ.Jail) (spec jail.Spec, err error) {
	program, ok := c.site.Programs[j.Spec.Program]
	if !ok {
		return spec, lacks("program", "the machine has no program of the name %s: add it to the file of the setting jails", j.Spec.Program)
	}
	if len(program.Profiles) > 0 && !slices.Contains(program.Profiles, string(j.Spec.Profile)) {
		return spec, lacks("profile", "the program %s may not be run in the profile %s here", j.Spec.Program, j.Spec.Profile)
	}
	if name, most, above := c.site.Most.tooMuch(j.Spec); above {
		return spec, lacks("most."+name, "the agent is registered with more %s than the %d this machine lets a jail have: register it with less, or raise most in the file of the setting jails", name, most)
	}
	profile, err := jail.ProfileNamed(string(j.Spec.Profile))
	if err != nil {
		return spec, lacks("profile", "%w", err)
	}
	spec = jail.Spec{
		ID:      fmt.Sprintf("%s-%d", strings.ToLower(strings.ReplaceAll(string(j.Session), "_", "-")), j.Restarts),
		Profile: profile, Agent: jail.Program{Path: program.Path}, Args: slices.Concat(program.Args, j.Spec.Args),
		Env: append([]string{
			"WRIT_URL=" + jailURL, "WRIT_SESSION=" + string(j.Session), "WRIT_AGENT=" + string(j.Agent),
			"HTTP_PROXY=http://127.0.0.1:80", "HTTPS_PROXY=http://127.0.0.1:80", "http_proxy=http://127.0.0.1:80", "https_proxy=http://127.0.0.1:80",
			"NO_PROXY=gateway", "no_proxy=gateway",
		}, program.Env...),
		Runtime:  program.Runtime,
		Limits:   jail.Limits{Memory: j.Spec.MemoryMB << 20, CPU: j.Spec.CPUPercent, Processes: j.Spec.Processes},
		Deadline: time.Duration(j.Spec.Deadline) * time.Second,
		Output:   jail.Output{Bytes: maxJailLog, Line: maxJailLine + 1}, // one more, so that a line that is too long looks so here
	}
	if profile.Tools {
		for _, t := range program.Tools {
			spec.Tools = append(spec.Tools, jail.Program{Path: t})
		}
	}
	files := func(claim writ.WriteClaim) bool { return strings.HasPrefix(claim.Resource, "fs:") }
	inMemory := j.Spec.Filled().Tier == writ.JailGvisor
	if inMemory && profile.WriteDirs && slices.ContainsFunc(j.Claims, files) {
		return spec, lacks("scope", "a jail of the tier gvisor writes no directory of the host, and the session claims one: let results leave as artifacts")
	}
	if !profile.WriteDirs || inMemory { // what it makes leaves as artifacts
		spec.Scopes = []jail.Scope{{Medium: jail.Memory}}
		return spec, nil
	}
	for _, claim := range j.Claims {
		if !files(claim) {
			continue // nothing of a file system
		}
		dir, ok := c.site.directory(claim.Resource)
		if !ok {
			return spec, lacks("scope", "the machine has no directory for a scope the session claims: add it to scopes in the file of the setting jails")
		}
		spec.Scopes = append(spec.Scopes, jail.Scope{Path: dir})
	}
	if len(spec.Scopes) == 0 {
		spec.Scopes = []jail.Scope{{Medium: jail.Memory}}
	}
	return spec, nil
}

// inmate is a jail as the supervisor sees it.
type inmate struct {
	jail.Jail
	out *output
	log *slog.Logger
}

func (i inmate) Listeners() []net.Listener {
	tcp, unix := i.Jail.Listeners()
	return []net.Listener{tcp, unix}
}

func (i inmate) Used() writ.JailUse {
	u := i.Usage()
	return writ.JailUse{CPUMs: u.CPU.Milliseconds(), MemoryKB: u.Memory / 1024, Processes: u.Processes}
}

func (i inmate) Kill() { i.Jail.Kill(string(writ.JailKilled)) }

func (i inmate) Wait() writ.JailExit {
	e := i.Jail.Wait()
	_ = i.out.Close(e.Truncated)
	out := writ.JailExit{Code: int64(e.Code), CPUMs: e.Usage.CPU.Milliseconds(), PeakKB: e.Usage.MemoryPeak / 1024}
	switch e.Reason {
	case jail.Exited:
		out.Why = writ.JailExited
	case jail.Signaled:
		out.Why, out.Code, out.Signal = writ.JailSignalled, 0, int64(e.Signal)
	case jail.Deadline:
		out.Why, out.Code = writ.JailDeadline, 0
	case jail.OOM:
		out.Why, out.Code = writ.JailMemory, 0
	case jail.Refused:
		out.Why, out.Code, out.Missing = writ.JailUnavailable, 0, jail.FeatureAgent
	case jail.Lost:
		i.log.Warn("the first process of a jail ended without saying why", "ended", e.First)
		out.Why, out.Code = writ.JailLost, 0
	default: // a reason it was killed for
		out.Why, out.Code = writ.JailKilled, 0
	}
	return out
}

// Features is what holds the agent, each as a word or a line of JSON.
func (i inmate) Features() map[string]string {
	out := map[string]string{}
	var all map[string]json.RawMessage
	b, err := json.Marshal(i.Jail.Features())
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		return map[string]string{"error": "the features cannot be told"} // never: it is plain data
	}
	for name, v := range all {
		var text string
		if json.Unmarshal(v, &text) != nil {
			text = string(v)
		}
		out[name] = text
	}
	return out
}

// What is kept of what agents print.
const (
	maxJailLog   = 4 << 20 // of one session, all starts of the agent together
	maxJailLine  = 8 << 10 // of one line
	roomToSayCut = 256     // of the file, for saying that more was printed
)

// output is the file of what the agent of one session prints: a line for each, with
// when and on which stream; the stream writ is the gateway's own word, that something
// was left out. What looks like a secret is taken out, and what would move a terminal's
// cursor. It is for people who look why something went wrong; nothing is decided by it.
type output struct {
	mu   sync.Mutex
	f    *os.File
	size int64
	full bool // nothing more is taken
}

func openOutput(path string) (*output, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &output{f: f, size: fi.Size()}, nil
}

// Close closes it. Short says that the jail passed on less than was printed.
func (o *output) Close(short bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var err error
	if short && !o.full {
		_, err = o.line("writ", "not all that it printed is here", maxJailLog)
	}
	return errors.Join(err, o.f.Close())
}

// line writes one where it fits.
func (o *output) line(stream, text string, most int64) (fits bool, err error) {
	b := fmt.Appendf(nil, "%s %s %s\n", time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), stream, text)
	if o.size+int64(len(b)) > most {
		return false, nil
	}
	n, err := o.f.Write(b)
	o.size += int64(n)
	return true, err
}

// stream takes whole lines.
func (o *output) stream(name string) io.Writer { return &lines{o: o, name: name} }

type lines struct {
	o     *output
	name  string
	scrub supervisor.Scrubber
}

func (l *lines) Write(p []byte) (int, error) {
	l.o.mu.Lock()
	defer l.o.mu.Unlock()
	if l.o.full {
		return len(p), nil
	}
	text, long := cut(bytes.TrimRight(p, "\r\n"))
	fits, err := l.o.line(l.name, printable.Text(string(l.scrub.Line(text)), "\t"), maxJailLog-roomToSayCut)
	if fits && err == nil && long {
		fits, err = l.o.line("writ", fmt.Sprintf("the line above was longer than %d bytes, and its rest is not here", maxJailLine), maxJailLog-roomToSayCut)
	}
	if !fits && err == nil {
		l.o.full = true
		_, err = l.o.line("writ", "it printed more than is kept of a session, and the rest is not here", maxJailLog)
	}
	return len(p), err
}

// cut is the line as far as it is kept. It ends with a word, unless that is far longer than
// any secret: half of one does not look like one, and would be kept.
func cut(text []byte) (kept []byte, short bool) {
	if len(text) <= maxJailLine {
		return text, false
	}
	text = text[:maxJailLine]
	if i := bytes.LastIndexAny(text, " \t\"'`,;()[]{}<>"); i >= maxJailLine/2 {
		text = text[:i+1]
	}
	return text, true
}
