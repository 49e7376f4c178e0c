package daemon

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/note"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/checkpoint"
	"github.com/writ-gateway/writ/receipts/ledger"
	"github.com/writ-gateway/writ/receipts/tlog"
)

// NextLogOptions say how a log is frozen and the next shard begun.
type NextLogOptions struct {
	DryRun bool // say what is wrong and what would be done, and change nothing
	NewKey bool // the next shard has another key
	Force  bool // also when nothing is wrong here
}

// LogPart is a shard of the log.
type LogPart struct {
	Log   string `json:"log"`
	Where string `json:"where"`
	Key   string `json:"verifier_key,omitempty"` // none: it is not there, or not made yet
}

// FrozenLog says what was wrong with a log, and what became of it.
type FrozenLog struct {
	Wrong      []string      `json:"wrong"`
	Frozen     LogPart       `json:"frozen"`
	Size       int64         `json:"size"`
	Root       []byte        `json:"root"`
	Checkpoint string        `json:"checkpoint"`
	Common     int64         `json:"common"`
	CommonRoot []byte        `json:"common_root,omitempty"`
	Orphans    []tlog.Orphan `json:"orphans"`
	Incomplete string        `json:"incomplete,omitempty"`
	Next       LogPart       `json:"next"`
	Done       bool          `json:"done"` // the next shard is begun
}

// NextLog freezes the log of a gateway that does not run, and begins its next shard. A
// crash between two steps leaves nothing half done that a second call does not end:
//
//	1 the next shard's own key  it has no meaning before 3
//	2 the list of orphans       neither has that
//	3 what was before           from here on the log is frozen, and no gateway starts
//	4 the number of the shard   from here on one does
func NextLog(ctx context.Context, cfg Config, o NextLogOptions) (r FrozenLog, err error) {
	const op = "daemon.NextLog"
	n, origin, err := shardOf(cfg)
	if err != nil {
		return r, err
	}
	l, err := openToFreeze(cfg, o.DryRun)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	d := New(cfg, slog.New(slog.DiscardHandler))
	all, err := d.openTiles(ctx)
	if err != nil {
		return r, err
	}
	files, next := tlog.Below(all, receipts.ShardDir(n)), tlog.Below(all, receipts.ShardDir(n+1))
	r = FrozenLog{Wrong: []string{}, Orphans: []tlog.Orphan{}}
	r.Frozen = LogPart{Log: receipts.ShardName(origin, n), Where: files.String()}
	r.Next = LogPart{Log: receipts.ShardName(origin, n+1), Where: next.String()}
	text, err := files.Read(tlog.CheckpointPath)
	if errors.Is(err, fs.ErrNotExist) {
		return r, writ.Refuse(writ.CodeNotFound, op, "there is no log to freeze: nothing is published", "start the gateway: it makes the log from the ledger")
	}
	if err != nil {
		return r, err
	}
	cp, err := d.lastOf(&r, n, text)
	if err != nil {
		return r, err
	}
	public, err := leafKeys(cfg.Keys)
	if err != nil {
		return r, err
	}
	p, err := tlog.Part(ctx, files, cp, l, public)
	if err != nil {
		return r, err
	}
	r.parted(p, l.Last()+1)
	_, begun, err := tlog.Frozen(next)
	if err != nil {
		return r, err
	}
	lost, strange := false, false
	if begun {
		r.Wrong = append(r.Wrong, "the next shard is begun, and the keys do not say so yet")
		if strange, err = d.nextKey(&r, next, n+1); err != nil {
			return r, err
		} else if strange {
			r.Wrong = append(r.Wrong, "the checkpoint of the next shard is signed by a key that is not here")
		}
	} else if lost, err = receipts.LogKeyLost(cfg.Keys, cfg.LogKey); err != nil {
		return r, err
	} else if lost {
		r.Wrong = append(r.Wrong, "the private half of the log's key is missing")
	}
	switch {
	case o.DryRun:
		return r, nil
	case strange && !o.Force:
		return r, writ.Refuse(writ.CodeIllegal, op, "the next shard is begun, and its checkpoint is signed by a key that is not here",
			"restore "+receipts.FileLogShard+" and the keys of the log from a backup that is not older; where they are lost say --force, and then freeze that shard, too: --new-key")
	case begun:
		err = receipts.SetLogShard(cfg.Keys, n+1)
		r.Done = err == nil
		return r, err
	case lost && !o.NewKey:
		return r, writ.Refuse(writ.CodeIllegal, op, "the private half of the log's key is missing", "restore it from a backup, or have the next shard begin with another key: --new-key")
	case len(r.Wrong) == 0 && r.Incomplete != "" && !o.NewKey && !o.Force:
		return r, writ.Refuse(writ.CodeIllegal, op, "files of the log are missing or damaged, and nothing shows that the ledger lacks what it published",
			"put the directory of the log aside and start the gateway: it is made again, the same; to freeze it as it is say --force")
	case len(r.Wrong) == 0 && !o.NewKey && !o.Force:
		return r, writ.Refuse(writ.CodeIllegal, op, "the log is the one of its ledger: nothing here is wrong with it",
			"start the gateway; to change the log's key say --new-key; where somebody was shown another log, a witness for example, say --force")
	}
	if o.NewKey {
		_, err = receipts.NewLogKey(ctx, cfg.Keys, cfg.LogKey, keyOptions(cfg), n+1)
	} else {
		err = receipts.NoLogKey(cfg.Keys, n+1)
	}
	if err != nil {
		return r, err
	}
	err = tlog.Freeze(next, tlog.Previous{
		Log: r.Next.Log, Before: r.Frozen.Log, Key: r.Frozen.Key, Checkpoint: r.Checkpoint, Common: r.Common, CommonRoot: r.CommonRoot, Incomplete: r.Incomplete,
	}, r.Orphans)
	if err == nil {
		err = receipts.SetLogShard(cfg.Keys, n+1)
	}
	if err == nil {
		r.Done = true
		_, err = d.nextKey(&r, next, n+1)
	}
	return r, err
}

// shardOf is the shard a gateway's log is at, and the name its receipts give the log.
func shardOf(cfg Config) (n int, origin string, err error) {
	if origin, err = receipts.OriginOf(cfg.Keys); err == nil {
		n, err = receipts.LogShard(cfg.Keys)
	}
	return n, origin, err
}

// openToFreeze takes the ledger, and with it the log, for itself.
func openToFreeze(cfg Config, dry bool) (*ledger.Ledger, error) {
	const op = "daemon.NextLog"
	for _, dir := range []string{ledgerDir, logDir} {
		_, err := os.Stat(filepath.Join(cfg.Data, dir))
		if errors.Is(err, fs.ErrNotExist) && (dir == ledgerDir || cfg.Tiles == "") {
			return nil, writ.Refuse(writ.CodeNotFound, op, "there is no "+dir+" in the data directory", "name the one of the replica that writes the ledger and the log: --data DIR")
		}
	}
	if dir := filepath.Join(cfg.Data, ledgerDir); !dry {
		return ledger.Open(dir)
	}
	return ledger.Read(filepath.Join(cfg.Data, ledgerDir))
}

// lastOf reads the last checkpoint of the log that is frozen, and says which key signed it.
func (d *Daemon) lastOf(r *FrozenLog, n int, text []byte) (cp tlog.Checkpoint, err error) {
	r.Checkpoint = string(text)
	name, cp, err := checkpoint.Unverified(text)
	if err != nil {
		return cp, notReadyTiles("the checkpoint of the log cannot be read", "restore the files of the log from a backup", err)
	}
	r.Size, r.Root = cp.Size, cp.Root[:]
	if name != r.Frozen.Log {
		return cp, notReadyTiles("the checkpoint there is of a log with another name than the keys say", "name the directory of keys that belongs to it: --keys DIR", nil)
	}
	key, err := d.verifier(name, n)
	if errors.Is(err, fs.ErrNotExist) {
		r.Wrong = append(r.Wrong, "the public half of the log's key is missing, so nobody can say here who signed its checkpoint")
		return cp, nil
	}
	if err != nil {
		return cp, err
	}
	if _, err := tlog.ParseCheckpoint(text, key); err != nil {
		r.Wrong = append(r.Wrong, "its checkpoint is not signed by the log's key")
		return cp, nil
	}
	r.Frozen.Key = key
	return cp, nil
}

// leafKeys are the receipt keys of a directory as the entries of the log have them.
func leafKeys(dir string) (func(keyID string) ([]byte, bool), error) {
	texts, err := receipts.PublicKeys(dir)
	if err != nil {
		return nil, err
	}
	ders := map[string][]byte{}
	for id, text := range texts {
		v, err := receipts.NewVerifier(text)
		if err != nil {
			return nil, err
		}
		if ders[id], err = tlog.PublicDER(v.Public()); err != nil {
			return nil, err
		}
	}
	return func(id string) ([]byte, bool) { der, ok := ders[id]; return der, ok }, nil
}

// verifier is the verifier key of shard n under its name.
func (d *Daemon) verifier(name string, n int) (string, error) {
	text, path, err := receipts.ReadShardPublic(d.cfg.Keys, n)
	if err != nil {
		return "", err
	}
	public, err := receipts.ParsePublic(string(text))
	key, ok := public.(ed25519.PublicKey)
	if err != nil || !ok {
		return "", fmt.Errorf("%s is no Ed25519 key: restore it from a backup", path)
	}
	return note.NewEd25519VerifierKey(name, key)
}

// nextKey says which key the next shard, n, has; strange: that is not the one its checkpoint
// is signed with.
func (d *Daemon) nextKey(r *FrozenLog, next tlog.Files, n int) (strange bool, err error) {
	key, err := d.verifier(r.Next.Log, n)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // the first start makes it
		return false, err
	}
	text, err := next.Read(tlog.CheckpointPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err == nil {
		_, err := tlog.ParseCheckpoint(text, key)
		strange = err != nil
	}
	if !strange {
		r.Next.Key = key
	}
	return strange, nil
}

// parted says where log and ledger part.
func (r *FrozenLog) parted(p tlog.Parting, has int64) {
	if r.Size > has {
		r.Wrong = append(r.Wrong, fmt.Sprintf("the log has published %d receipts, the ledger has %d", r.Size, has))
	}
	for _, o := range p.Orphans {
		if o.Other {
			r.Wrong = append(r.Wrong, fmt.Sprintf("log and ledger hold different receipts, from sequence %d on", o.Index))
			break
		}
	}
	r.Common, r.Orphans = p.Common, append(r.Orphans, p.Orphans...)
	if p.Common > 0 {
		r.CommonRoot = p.CommonRoot[:]
	}
	if p.Incomplete != nil {
		r.Incomplete = p.Incomplete.Error()
	}
}
