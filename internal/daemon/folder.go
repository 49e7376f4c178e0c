package daemon

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/bundles"
	"github.com/writ-gateway/writ/policies"
)

// folderEvery is how often the folder is looked at. What is found changed is
// proposed at the next look, if it is as it was then: nobody is half way through
// writing it.
const folderEvery = time.Second

// proposal is a source as a canonical bundle, not compiled.
func proposal(src policies.Source) ([]byte, error) {
	packed, digest, err := policies.Pack(src)
	if err != nil {
		return nil, err
	}
	return policies.Unpack(packed, digest)
}

// proposer stages what this replica was started with, and what becomes of that
// folder later. It puts nothing in force: replicas with different folders never
// depose each other. It is used by one goroutine at a time.
type proposer struct {
	last string          // digest of what was last proposed, whatever came of it
	mine writ.BundleID   // staged by this replica: withdrawn when the folder moves on
	took map[string]bool // digests this replica withdrew, so may stage again
}

// propose stages a bundle that is not in force and that nobody has brought
// before. It says false if the store could not be asked.
func (d *Daemon) propose(ctx context.Context, canonical []byte) bool {
	p, digest := &d.proposer, digestOf(canonical)
	id := writ.BundleOf(digest)
	gate, _, err := d.readGate(ctx)
	if err != nil {
		return false
	}
	say := func(what string, args ...any) {
		d.log.Warn("the policies this gateway is started with are not in force"+what, append([]any{"active", gate.Bundle.Digest(), "given", digest}, args...)...)
	}
	again := "writ policy stage " + d.cfg.Policies
	if d.cfg.Policies == "" { // the built-in ones
		again = "start it with --activate-policies"
	}
	if d.vet != nil {
		if p.last = digest; id != gate.Bundle {
			say(", and not staged either: bundles must be signed here")
		}
		return true
	}
	if p.mine != "" && p.mine != id {
		if !d.takeBack(ctx, p.mine) {
			return false
		}
		p.mine = ""
	}
	if id == gate.Bundle {
		p.last = digest
		return true
	}
	s, err := d.store.Read(ctx, shard, writ.ReadSet{Docs: []writ.Key{writ.BundleKey(id)}})
	if err != nil {
		return false
	}
	old, _, known, err := writ.Get[writ.Bundle](s, writ.BundleKey(id))
	if err != nil {
		return false
	}
	if known && !(p.took[digest] && old.State == writ.BundleWithdrawn) {
		switch p.last = digest; old.State {
		case writ.BundleStaged:
			say("; they are staged", "activate", "writ policy activate "+digest)
		case writ.BundleRetired:
			say(": they were, before the ones that are; they are not staged again", "again", again)
		default:
			say(", and not staged again", "state", old.State, "reason", old.Reason, "again", again)
		}
		return true
	}
	sent, err := packed(canonical)
	if err == nil {
		_, _, err = d.door.System(ctx, shard, "policy.stage", bundles.PolicyStageArgs{Bundle: sent, Note: "from the folder of a replica"}, nil)
	}
	if passing(err) {
		return false
	}
	p.last = digest
	if err != nil {
		say(", and were not staged", "error", err)
		return true
	}
	p.mine = id
	say("; they are staged", "activate", "writ policy activate "+digest)
	return true
}

// takeBack withdraws what this replica staged and nobody has activated: its
// folder holds something else by now. It says false if the store could not be
// asked.
func (d *Daemon) takeBack(ctx context.Context, id writ.BundleID) bool {
	s, err := d.store.Read(ctx, shard, writ.ReadSet{Docs: []writ.Key{writ.BundleKey(id)}})
	if err != nil {
		return false
	}
	if b, _, _, err := writ.Get[writ.Bundle](s, writ.BundleKey(id)); err != nil || b.State != writ.BundleStaged {
		return err == nil
	}
	_, _, err = d.door.System(ctx, shard, "policy.withdraw", bundles.PolicyWithdrawArgs{Digest: id.Digest()}, nil)
	switch {
	case err == nil:
		d.proposer.took[id.Digest()] = true
		d.log.Info("the folder holds other policies now: what was staged from it is withdrawn", "digest", id.Digest())
	case writ.CodeOf(err) == writ.CodeIllegal: // activated, or refused, meanwhile
	case passing(err):
		return false
	default:
		d.log.Warn("what was staged from the folder before is not withdrawn", "digest", id.Digest(), "error", err)
	}
	return true
}

// passing says whether the same call may well succeed a moment later.
func passing(err error) bool {
	code := writ.CodeOf(err)
	return code.Passes() || code == writ.CodeReceiptPending
}

// watchFolder proposes what becomes of the folder this replica was started with.
func (d *Daemon) watchFolder() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	tick := time.NewTicker(folderEvery)
	defer tick.Stop()
	var before, done string
	for {
		select {
		case <-d.stopping:
			return
		case <-tick.C:
		}
		now := stampOf(d.cfg.Policies)
		if now == done || now != before {
			before = now
			continue
		}
		b, err := proposal(policies.Directory(d.cfg.Policies))
		switch {
		case stampOf(d.cfg.Policies) != now: // it is being written
		case err != nil:
			d.log.Warn("the policies in the folder cannot be read: nothing is staged, what is in force stays", "folder", d.cfg.Policies, "error", err)
			done = now
		case digestOf(b) == d.proposer.last || d.propose(ctx, b):
			done = now
		}
	}
}

// stampOf changes whenever a file below a folder is written, made, renamed or
// removed. It opens none of them, and nothing outside the folder.
func stampOf(dir string) string {
	h := sha256.New()
	note := func(name string, err error) { fmt.Fprintf(h, "%q %v\n", name, err) }
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err.Error()
	}
	defer root.Close()
	for _, top := range []string{"packs", "roles"} {
		entries := 0
		note(top, fs.WalkDir(root.FS(), top, func(name string, e fs.DirEntry, err error) error {
			if entries++; err != nil || entries > maxEntries {
				return errors.Join(err, fs.SkipAll)
			}
			info, err := e.Info()
			if err != nil {
				note(name, err)
				return nil // gone meanwhile
			}
			fmt.Fprintf(h, "%q %d %d %v\n", name, info.Size(), info.ModTime().UnixNano(), info.Mode())
			return nil
		}))
	}
	return string(h.Sum(nil))
}

// maxEntries bounds a look at a folder that is not one of policies.
const maxEntries = 20_000
