package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/ledger"
	"github.com/writ-gateway/writ/receipts/tlog"
	"github.com/writ-gateway/writ/registry"
	"github.com/writ-gateway/writ/store"
)

// openLog opens the transparency log of the ledger, whose lock is the log's too.
func (d *Daemon) openLog(ctx context.Context, files tlog.Files, name string) error {
	_, err := files.Read(tlog.CheckpointPath)
	key, err := receipts.OpenLogKey(ctx, d.cfg.Keys, d.cfg.LogKey, keyOptions(d.cfg), !errors.Is(err, fs.ErrNotExist))
	if err != nil {
		return err
	}
	signs := tlog.NewKey(name, key)
	if d.cfg.LogMLDSA {
		second, err := receipts.SecondLogKey(key, name)
		if err != nil {
			return err
		}
		signs.Second(second)
	}
	if d.tlog, err = tlog.OpenFiles(files, signs); err != nil {
		return err
	}
	witnesses, err := d.cfg.witnesses()
	if err != nil {
		return err
	}
	d.tlog.Witnessed(witnesses, d.cfg.WitnessFail == "open")
	d.witnesses = witnesses
	if err := receipts.KeepLogKey(d.cfg.Keys, key); err != nil { // the checkpoint there is was signed with it
		return err
	}
	d.follower = tlog.NewFollower(d.tlog, d.ledger, d.leafKey, time.Duration(d.cfg.Checkpoint))
	if err := d.follower.Start(ctx); err != nil {
		return err
	}
	d.onStop(d.follower.Stop)
	return nil
}

// openShard gives the files and the name of the shard that the log is at, which nobody may
// have frozen.
func (d *Daemon) openShard(ctx context.Context) (tlog.Files, string, error) {
	n, err := receipts.LogShard(d.cfg.Keys)
	if err != nil {
		return nil, "", err
	}
	all, err := d.openTiles(ctx)
	if err != nil {
		return nil, "", err
	}
	return tlog.Below(all, receipts.ShardDir(n)), receipts.ShardName(d.sealer.Origin(), n), notFrozen(all, n)
}

// notFrozen refuses a shard of the log that nothing may be added to any more.
func notFrozen(all tlog.Files, n int) error {
	_, frozen, err := tlog.Frozen(tlog.Below(all, receipts.ShardDir(n+1)))
	if err == nil && frozen {
		err = notReadyTiles("the log is frozen, and the keys do not say that the next one is begun",
			"run 'writ log next' again, which ends what it began; or, where the keys are from an earlier time, restore "+receipts.FileLogShard+" and the keys of the log", nil)
	}
	return err
}

// archive is the ledger and the outbox, with what the log proves.
type archive struct {
	*ledger.Archive
	log      *tlog.Log
	follower *tlog.Follower
}

// includedWait is how long a read waits for the next checkpoint.
const includedWait = 3 * time.Second

func (a archive) Read(ctx context.Context, shard writ.Tenant, q writ.ArchiveRead) ([]writ.Receipt, error) {
	found, err := a.Archive.Read(ctx, shard, q)
	if err != nil || !q.Proof || a.log == nil {
		return found, err
	}
	for i := range found {
		if q.Wait {
			c, cancel := context.WithTimeout(ctx, includedWait)
			_ = a.follower.Wait(c, found[i].Seq) // what is not included by then says so
			cancel()
		}
		p, ok, err := a.log.Include(found[i].Seq)
		if err != nil {
			return nil, writ.Fault(writ.CodeInternal, "daemon.Archive", err)
		}
		if ok {
			found[i].Inclusion = p.Receipt()
		}
	}
	return found, nil
}

// published says what the log covers, on any replica.
type published struct {
	follower *tlog.Follower // nil: another replica writes the log
	log      *tlog.Log
	store    store.Store
}

// Size implements guard.Published.
func (p published) Size(ctx context.Context, shard writ.Tenant) (int64, error) {
	if p.log != nil {
		return p.log.Latest().Size, nil
	}
	s, err := p.store.Read(ctx, shard, writ.ReadSet{Counters: []writ.Counter{writ.LogSize()}})
	return s.Counters[writ.LogSize()], err
}

// look is how often a replica that does not write the log asks how far it is.
const look = 100 * time.Millisecond

// Wait implements guard.Published.
func (p published) Wait(ctx context.Context, shard writ.Tenant, seq int64) error {
	if p.follower != nil {
		return p.follower.Wait(ctx, seq)
	}
	t := time.NewTicker(look)
	defer t.Stop()
	for {
		size, err := p.Size(ctx, shard)
		if err != nil || size > seq {
			return err
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// notePublished tells other replicas how far the log is, after every checkpoint. Where
// there can be no other it does nothing.
func (d *Daemon) notePublished() {
	if d.follower == nil || d.cfg.Store == "bolt" {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	d.loops.Go(func() { <-d.stopping; cancel() })
	var noting guard.Trouble
	tellOthers(ctx, d.follower.Wait, func(ctx context.Context) (int64, error) {
		cp := d.tlog.Latest()
		_, _, err := d.door.System(ctx, shard, "log.publish", registry.LogPublishArgs{Size: cp.Size, Checkpoint: cp.Compact()}, nil)
		noting.Note(d.log, err, "other replicas are not told what the transparency log has until the store answers", "other replicas are told again what the transparency log has")
		return cp.Size, err
	})
}

// tellOthers tells each size of the log once it is there, and again after a second where that fails, until ctx ends.
func tellOthers(ctx context.Context, there func(ctx context.Context, seen int64) error, tell func(context.Context) (int64, error)) {
	for seen := int64(0); there(ctx, seen) == nil; {
		size, err := tell(ctx)
		if err == nil {
			seen = size
			continue
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return // waiting for what is there already would not notice
		}
	}
}

// checkpoint is the latest one that is known here, as replies carry it; empty as long as
// none is.
func (d *Daemon) checkpoint() string {
	if d.tlog == nil {
		if text := d.told.Load(); text != nil {
			return *text
		}
		return ""
	}
	cp := d.tlog.Latest()
	if cp.Size == 0 {
		return ""
	}
	return cp.Compact()
}

// watchCheckpoint reads what the replica that writes the log has told the others.
func (d *Daemon) watchCheckpoint() {
	d.watch("the latest checkpoint of the log was not looked at", nil, func(ctx context.Context) error {
		newest := writ.Range{Index: writ.IndexCheckpoint, ByScore: true, Max: math.MaxInt64, Limit: 1, Desc: true}
		s, err := d.store.Read(ctx, shard, writ.ReadSet{Ranges: []writ.Range{newest}})
		if m := s.Ranges[newest].Members; err == nil && len(m) > 0 {
			d.told.Store(&m[0].Name)
		}
		return err
	})
}

// logReady says how the log is. That it lags keeps nobody from working: what is
// committed is in the ledger, and only its publication waits.
func (d *Daemon) logReady(note func(name string, ok bool, detail string)) {
	if d.follower == nil {
		note("log", true, "written by another replica")
		return
	}
	n, since := d.follower.Lag()
	detail := strconv.FormatInt(n, 10) + " receipts behind"
	if since > 0 {
		detail += fmt.Sprintf(" for %.1f s", since.Seconds())
	}
	if err := d.follower.Err(); errors.Is(err, tlog.ErrWitness) { // others' outage takes no gateway out of service
		note("log", true, "nothing is published until its witnesses cosign it: the log says why; "+detail)
		return
	} else if errors.Is(err, tlog.ErrFork) {
		note("log", false, "it and the ledger hold different receipts, so nothing is published: stop the gateway and see 'writ log next --dry-run'; "+detail)
		return
	} else if err != nil {
		note("log", false, "it is not written: the log says why; "+detail)
		return
	}
	if d.tlog.Unwitnessed() != nil { // fail open
		detail += "; the latest checkpoint is not cosigned by all witnesses: the log says why"
	}
	note("log", true, detail)
}

func (d *Daemon) logGauges() {
	if d.follower == nil {
		return
	}
	d.telemetry.Gauge("log_size_receipts", "Receipts the latest checkpoint of the transparency log covers.", func() float64 { return float64(d.tlog.Latest().Size) })
	d.telemetry.Gauge("log_lag_receipts", "Receipts in the ledger that no checkpoint covers yet.", func() float64 { n, _ := d.follower.Lag(); return float64(n) })
	d.telemetry.Gauge("log_lag_seconds", "For how long the first of them has not been covered.", func() float64 { _, since := d.follower.Lag(); return since.Seconds() })
}

// logHead is what anybody needs to check the log as it is published.
func (d *Daemon) logHead(since, until int64) (registry.LogHead, error) {
	const op = "daemon.LogHead"
	if d.tlog == nil {
		return registry.LogHead{}, writ.Refuse(writ.CodeNotFound, op, "the log is written by another replica", "ask that one")
	}
	cp := d.tlog.Latest()
	for _, named := range []struct {
		pointer string
		size    int64
	}{{"/since", since}, {"/until", until}} {
		if named.size > cp.Size {
			e := &writ.Error{
				Code: writ.CodeInputInvalid, Op: op, Msg: "the log has not had this size yet", Hint: "name the size of a checkpoint there was; if it was of this log, the log went back: keep that checkpoint, it proves it",
				Fields: []writ.FieldError{{Pointer: named.pointer, Msg: "is past the end of the log"}},
			}
			return registry.LogHead{}, e.With("log_size", strconv.FormatInt(cp.Size, 10)) // clients tell it by that from any other refusal
		}
	}
	if until > 0 && (since == 0 || since > until) {
		return registry.LogHead{}, &writ.Error{
			Code: writ.CodeInputInvalid, Op: op, Msg: "there is nothing to prove between these sizes", Hint: "give since, the smaller size, with until",
			Fields: []writ.FieldError{{Pointer: "/until", Msg: "wants a since that is not greater"}},
		}
	}
	key := d.tlog.Key()
	head := registry.LogHead{Origin: key.Name(), Size: cp.Size, Checkpoint: string(cp.Text)}
	var err error
	if head.Key, err = key.Verifier(); err == nil {
		head.TrustedRoot, err = tlog.TrustedRoot(key.Name(), key.Public(), time.Unix(0, 0))
	}
	text := cp.Text
	if cp.Size > 0 {
		head.Root = cp.Root[:]
	}
	if since > 0 && err == nil {
		proof, latest, perr := d.tlog.Consistent(since, until)
		err = perr
		head.Size, head.Root, head.Checkpoint = latest.Size, latest.Root[:], string(latest.Text)
		text = latest.Text
		for _, h := range proof {
			head.Consistency = append(head.Consistency, h[:])
		}
	}
	if err != nil {
		return registry.LogHead{}, writ.Fault(writ.CodeInternal, op, err)
	}
	if second := key.SecondVerifier(); second != nil {
		head.Second = second.String()
	}
	for _, w := range d.witnesses {
		if at, err := w.Key().At(text); err == nil {
			head.Witnesses = append(head.Witnesses, registry.LogWitness{Name: w.Key().Name(), Key: w.Key().String(), At: writ.FormatTime(at.UnixMilli())})
		}
	}
	return head, nil
}
