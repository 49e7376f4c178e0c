package daemon

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/gateway"
	"github.com/writ-gateway/writ/guard"
	"github.com/writ-gateway/writ/store/blobs"
)

// artifactStore is the directory of artifacts as the gateway wants it.
type artifactStore struct{ *blobs.Dir }

func (a artifactStore) Stage(ctx context.Context, r io.Reader, max int64) (gateway.Staged, error) {
	s, err := a.Dir.Stage(ctx, r, max)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// openArtifacts opens the directory of artifacts and counts what is in it.
func (d *Daemon) openArtifacts(ctx context.Context) error {
	dir, err := blobs.OpenDir(d.cfg.Blobs, writ.MaxArtifactBytes)
	if err != nil {
		return fmt.Errorf("blobs: %w", err)
	}
	dir.Limit(int64(d.cfg.ArtifactTotal) << 20)
	if _, err := dir.Sweep(ctx, math.MaxInt64, nil); err != nil { // nothing is as old
		return fmt.Errorf("blobs: %w", err)
	}
	d.artifacts = dir
	return nil
}

// attachArtifacts makes sure that all replicas of the store use the same
// directory: its name is in the store, and in the directory. Of replicas that are
// first at the same time one is.
func (d *Daemon) attachArtifacts(ctx context.Context) error {
	id, err := d.artifacts.Mark()
	if err != nil {
		return fmt.Errorf("blobs: %w", err)
	}
	if id == "" {
		var b [16]byte
		_, _ = rand.Read(b[:]) // never fails on the platforms Go supports
		fresh := hex.EncodeToString(b[:])
		if theirs, err := d.attached(ctx); err != nil {
			return err
		} else if theirs != "" {
			return d.otherArtifacts(theirs)
		}
		if id, err = d.artifacts.SetMark(fresh); err != nil {
			return fmt.Errorf("blobs: %w", err)
		}
	}
	_, _, err = d.door.System(ctx, shard, "artifact.attach", map[string]any{"store": id}, nil)
	if writ.CodeOf(err) == writ.CodeExists {
		theirs, err := d.attached(ctx)
		if err != nil {
			return err
		}
		return d.otherArtifacts(theirs)
	}
	if err != nil {
		return fmt.Errorf("blobs: %w", err)
	}
	return nil
}

// attached is the name of the directory that goes with the store; "" before there
// is one.
func (d *Daemon) attached(ctx context.Context) (string, error) {
	r := writ.Range{Index: writ.IndexBlobStore, Limit: 1}
	s, err := d.store.Read(ctx, shard, writ.ReadSet{Ranges: []writ.Range{r}})
	if err != nil {
		return "", fmt.Errorf("store: %w", err)
	}
	if m := s.Ranges[r].Members; len(m) > 0 {
		return m[0].Name, nil
	}
	return "", nil
}

func (d *Daemon) otherArtifacts(theirs string) error {
	hint := "restore it, or, if its artifacts are lost for good, write " + theirs + " into the file id in this one"
	if d.cfg.Store != "bolt" {
		hint = "give every replica of this store the same directory with --blobs, on a file system they share; " + hint
	}
	return &writ.Error{
		Code: writ.CodeNotReady, Op: "daemon.blobs", Msg: "the directory " + d.cfg.Blobs + " is not the directory of artifacts that goes with this store", Hint: hint,
	}
}

// Unreferenced bytes are kept for an hour: somebody may just be about to refer to
// them, which takes no longer than the commit after they were stored; and they count
// against what all may keep, so not for longer.
const (
	unreferencedFor = time.Hour
	sweepEvery      = time.Hour
)

// sweepArtifacts removes the bytes nobody refers to any more.
func (d *Daemon) sweepArtifacts() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	every := time.NewTicker(sweepEvery)
	defer every.Stop()
	var trouble guard.Trouble
	for {
		select {
		case <-d.stopping:
			return
		case <-every.C:
			n, err := d.artifacts.Sweep(ctx, unreferencedFor, d.wanted)
			d.let.Add(int64(n))
			trouble.Note(d.log, err, "artifacts nobody refers to are not removed until store and directory answer", "artifacts nobody refers to are removed again")
		}
	}
}

// wanted says whether a task or a run refers to a digest.
func (d *Daemon) wanted(ctx context.Context, digest string) (bool, error) {
	r := writ.Range{Index: writ.BlobHolders(strings.TrimPrefix(digest, "sha256:")), Limit: 1}
	s, err := d.store.Read(ctx, shard, writ.ReadSet{Ranges: []writ.Range{r}})
	return len(s.Ranges[r].Members) > 0, err
}
