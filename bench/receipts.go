package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/ledger"
	"github.com/writ-gateway/writ/receipts/tlog"
	"github.com/writ-gateway/writ/store/boltstore"
)

// receipts measures what is done to every receipt after its commit, and what whoever
// checks them does.
func (b *bench) receipts(ctx context.Context) error {
	for _, part := range []func(context.Context) error{b.sealing, b.integrating, b.verifying, b.verifyingJS, b.logged} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// sealed is a sealer with a key of its own, and what its log is checked with.
func (b *bench) sealed() (dir string, s *receipts.Sealer, err error) {
	if dir, err = b.scratch(); err != nil {
		return "", nil, err
	}
	keys, err := receipts.LoadOrCreate(filepath.Join(dir, "keys"), receipts.KeyOptions{})
	if err != nil {
		return "", nil, err
	}
	s, err = keys.Sealer()
	return dir, s, err
}

// id is a valid id that says a number.
func id(prefix string, n int64) string {
	return writ.MakeID(prefix, 1_700_000_000_000+n, [10]byte{9: byte(n)})
}

// factOf is a fact of the size of most: a task that was enqueued, with its evidence.
func factOf(s *receipts.Sealer, n int64) (f writ.Fact, err error) {
	st := writ.Statement{
		Receipt: writ.ReceiptID(id(writ.PrefixReceipt, n)), Tenant: shard, Transition: "task.enqueue", Outcome: writ.OutcomeOfTransition, Run: writ.RunID(id(writ.PrefixRun, n%64)), Task: writ.TaskID(id(writ.PrefixTask, n)),
		Changes: []writ.Change{{Kind: writ.ObjectTask, ID: id(writ.PrefixTask, n), To: string(writ.TaskQueued)}},
	}
	sum, evidence, err := s.Evidence([16]byte{byte(n), byte(n >> 8)}, st.Receipt, map[string]any{"arguments": map[string]any{"ref": "main", "key": fmt.Sprint("task-", n)}, "principal": plannerAgent})
	if err != nil {
		return f, err
	}
	st.Evidence = sum
	head, tail, err := s.Draft(st)
	return writ.Fact{ID: st.Receipt, Run: st.Run, KeyID: s.KeyID(), Head: head, Tail: tail, Evidence: evidence}, err
}

// spent is the processor time this process has used.
func spent() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// sealing is the signature of a receipt, one after the other.
func (b *bench) sealing(context.Context) error {
	_, s, err := b.sealed()
	if err != nil {
		return err
	}
	n := int64(b.pick(20_000, 4_000))
	fact, err := factOf(s, 1)
	if err != nil {
		return err
	}
	seq := int64(0)
	var micros []float64
	for range b.pick(7, 3) {
		before := spent()
		for range n {
			seq++ // each is another receipt: of one that was sealed the signature is remembered
			if _, err := s.Seal(writ.StoredFact{Fact: fact, Commit: writ.Committed{Epoch: "e", Seq: seq, RunSeq: seq, At: seq}}); err != nil {
				return err
			}
		}
		micros = append(micros, float64((spent()-before).Nanoseconds())/1000/float64(n))
	}
	b.line("receipts: CPU to seal one, on one core", median(micros), atMost(80, " µs"))
	b.note("ECDSA P-256, deterministic; %d bytes of payload", len(fact.Head)+len(fact.Tail))
	return nil
}

// integrating is a backlog of the outbox on its way into ledger and log.
func (b *bench) integrating(ctx context.Context) error {
	const callers = 128
	n := b.pick(40_000, 10_000)
	var rates, logged, micros []float64
	for range b.pick(3, 1) {
		rate, all, each, err := b.backlog(ctx, callers, n)
		if err != nil {
			return err
		}
		rates, logged, micros = append(rates, rate), append(logged, all), append(micros, each)
	}
	b.line("receipts: a backlog into the ledger, per second", median(rates), atLeast(10_000, "/s"))
	b.note("%d facts with evidence in the outbox of the embedded store, sealed, filed and synced, with the log behind them on the same cores; until it has published the last, %.0f/s; %.0f µs of processor time each", n, median(logged), median(micros))
	return nil
}

// backlog fills an outbox, and then has it integrated.
func (b *bench) backlog(ctx context.Context, callers, n int) (rate, logged, micros float64, err error) {
	dir, s, err := b.sealed()
	if err != nil {
		return 0, 0, 0, err
	}
	st, err := boltstore.Open(filepath.Join(dir, "writ.db"), boltstore.Options{})
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if _, err := drive(ctx, callers, n, func(ctx context.Context, _, turn int) error {
		fact, err := factOf(s, int64(turn))
		if err != nil {
			return err
		}
		tx := writ.Tx{Call: writ.CallID(id(writ.PrefixCall, int64(turn))), Fact: &fact}
		tx.Index("list/bench", string(fact.ID), 0)
		_, err = st.Commit(ctx, shard, tx)
		return err
	}); err != nil {
		return 0, 0, 0, err
	}
	l, err := ledger.Open(filepath.Join(dir, "ledger"))
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	t, der, err := openLog(dir)
	if err != nil {
		return 0, 0, 0, err
	}
	begun, before := time.Now(), spent()
	follower := tlog.NewFollower(t, l, func(string) ([]byte, bool) { return der, true }, tlog.Every)
	if err := follower.Start(ctx); err != nil {
		return 0, 0, 0, err
	}
	integrator := ledger.NewIntegrator(shard, l, st, s)
	if err := integrator.Start(ctx); err != nil {
		return 0, 0, 0, err
	}
	for l.Last() < int64(n)-1 {
		grown := l.Grown()
		if l.Last() == int64(n)-1 {
			break
		}
		select {
		case <-grown:
		case <-integrator.Done():
			return 0, 0, 0, integrator.Err()
		case <-ctx.Done():
			return 0, 0, 0, ctx.Err()
		}
	}
	rate = float64(n) / time.Since(begun).Seconds()
	if err := follower.Wait(ctx, int64(n)-1); err != nil {
		return 0, 0, 0, err
	}
	logged = float64(n) / time.Since(begun).Seconds()
	micros = float64((spent() - before).Microseconds()) / float64(n)
	return rate, logged, micros, errors.Join(integrator.Stop(ctx), follower.Stop(ctx))
}

// openLog is a log beside the keys of sealed, and the receipt key as leaves have it.
func openLog(dir string) (*tlog.Log, []byte, error) {
	text, err := os.ReadFile(filepath.Join(dir, "keys", receipts.FilePublic))
	if err != nil {
		return nil, nil, err
	}
	v, err := receipts.NewVerifier(text)
	if err != nil {
		return nil, nil, err
	}
	der, err := tlog.PublicDER(v.Public())
	if err != nil {
		return nil, nil, err
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, nil, err
	}
	l, err := tlog.Open(filepath.Join(dir, "log"), tlog.NewKey("writ.local", key))
	return l, der, err
}

// verifying is `writ log verify`, which reads every entry again and checks its signature.
func (b *bench) verifying(ctx context.Context) error {
	binary, err := b.buildWrit(ctx)
	if err != nil {
		return err
	}
	n := b.pick(100_000, 20_000)
	if b.long {
		n = 1_000_000
	}
	dir, s, err := b.sealed()
	if err != nil {
		return err
	}
	l, der, err := openLog(dir)
	if err != nil {
		return err
	}
	// A few thousand signatures, over and over: whoever verifies remembers none of them.
	var leaves [][]byte
	fact, err := factOf(s, 1)
	if err != nil {
		return err
	}
	for seq := range int64(min(n, 4096)) {
		r, err := s.Seal(writ.StoredFact{Fact: fact, Commit: writ.Committed{Epoch: "e", Seq: seq, RunSeq: seq + 1, At: seq}})
		if err != nil {
			return err
		}
		leaves = append(leaves, tlog.Leaf(r, der))
	}
	for l.Size() < int64(n) {
		if err := errors.Join(l.Append(leaves[:min(len(leaves), n-int(l.Size()))]), ctx.Err()); err != nil {
			return err
		}
	}
	if _, err := l.Publish(); err != nil {
		return err
	}
	key, err := l.Key().Verifier()
	if err != nil {
		return err
	}
	used, wall, memory, err := b.finish(ctx, binary, "log", "verify", filepath.Join(dir, "log"), "--log-key", key, "--key", filepath.Join(dir, "keys", receipts.FilePublic))
	if err != nil {
		return err
	}
	what := fmt.Sprintf("receipts: writ log verify of %d, per second and core", n)
	b.line(what, float64(n)/used.Seconds(), atLeast(5_000, "/s"))
	b.line(fmt.Sprintf("receipts: memory it needs for %d", n), float64(memory)/(1<<20), atMost(100, " MB"))
	b.note("%.1f s on %d cores; the whole is read, its hashes, tiles, root and every signature", wall.Seconds(), runtime.NumCPU())
	return nil
}

// finish runs a command to its end and says what it took: processor time, time, and the
// most memory it had.
func (b *bench) finish(ctx context.Context, name string, args ...string) (used, wall time.Duration, memory int64, err error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = b.root
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, 0, 0, err
	}
	// Not what wait4 says: that begins with the memory of this process.
	ended, most := make(chan struct{}), make(chan int64)
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for n := int64(0); ; {
			n = max(n, peak(cmd.Process.Pid))
			select {
			case <-tick.C:
			case <-ended:
				most <- n
				return
			}
		}
	}()
	err = cmd.Wait()
	wall = time.Since(begun)
	close(ended)
	if memory = <-most; err != nil {
		return 0, 0, 0, fmt.Errorf("%s: %w\n%s", cmd, err, out.Bytes()[max(0, out.Len()-2000):])
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), wall, memory, nil
}

// peak is the most memory a process had so far; 0 when it has ended.
func peak(pid int) int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10
		}
	}
	return 0
}

// verifyingJS is the verifier in JavaScript, on a pack of a gateway.
func (b *bench) verifyingJS(ctx context.Context) error {
	node, err := exec.LookPath("node")
	if err != nil {
		b.note("receipts: the JavaScript verifier is not measured: there is no node")
		return nil
	}
	binary, err := b.buildWrit(ctx)
	if err != nil {
		return err
	}
	g, err := b.serve(ctx, binary, "bolt")
	if err != nil {
		return err
	}
	defer g.close()
	p := newPoster(connections, g.planner.Token)
	defer p.close()
	n := b.pick(10_000, 2_000)
	if _, err := drive(ctx, connections, n, func(ctx context.Context, _, i int) error {
		_, _, err := p.post(ctx, g.url+"/v1/tasks", g.task(fmt.Sprint("task-", i)))
		return err
	}); err != nil {
		return err
	}
	if err := g.settle(ctx); err != nil {
		return err
	}
	g.stop() // with a checkpoint of it all
	file := filepath.Join(g.data, "pack.tar")
	if _, err := output(ctx, b.root, binary, "export", "--offline", "--data", g.data, "--out", file); err != nil {
		return err
	}
	var rates, cores []float64
	for range b.pick(3, 1) {
		used, wall, _, err := b.finish(ctx, node, "verify/js/cli.mjs", file)
		if err != nil {
			return err
		}
		rates, cores = append(rates, float64(n)/wall.Seconds()), append(cores, float64(n)/used.Seconds())
	}
	b.line("receipts: the JavaScript verifier on a pack, per second", median(rates), atLeast(1_500, "/s"))
	b.note("%d receipts with evidence and proofs; %.0f per second of processor time", n, median(cores))
	return nil
}

// logged compares the answers of a gateway whose log publishes ten times a second with
// those of one whose log never does, in turns.
func (b *bench) logged(ctx context.Context) error {
	binary, err := b.buildWrit(ctx)
	if err != nil {
		return err
	}
	n := b.pick(4_000, 800)
	var subjects []func() (turn, error)
	for _, every := range []string{"100ms", "100h"} {
		g, err := b.serve(ctx, binary, "bolt", "--checkpoint-every", every)
		if err != nil {
			return err
		}
		defer g.close()
		p := newPoster(connections, g.planner.Token)
		defer p.close()
		turns := 0
		subjects = append(subjects, func() (turn, error) {
			turns++
			if err := g.beat(ctx); err != nil {
				return turn{}, err
			}
			return measure(ctx, n, []*process{g.process}, g.settle, func(ctx context.Context, _, i int) error {
				_, _, err := p.post(ctx, g.url+"/v1/tasks", g.task(fmt.Sprintf("turn-%d-task-%d", turns, i)))
				return err
			})
		})
	}
	got, err := rounds(b.pick(9, 3), subjects...)
	if err != nil {
		return err
	}
	for _, p := range []struct {
		percent int
		most    float64
	}{{50, 1.25}, {99, 2}} {
		of := func(t turn) float64 { return ms(t.percentile(p.percent)) }
		m, lo, hi := ratios(got[0], got[1], of)
		b.line(fmt.Sprintf("receipts: p%d of a committed reply, log running / not", p.percent), m, atMost(p.most, "×"))
		b.note("%.2f and %.2f ms at %d callers; rounds %.2f–%.2f×", mid(got[0], of), mid(got[1], of), connections, lo, hi)
	}
	return nil
}
