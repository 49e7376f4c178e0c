package boltstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/boltstore"
)

// A test that wants its process killed or limited runs this binary again with
// these set: what to do, and with which file.
const (
	envChild = "WRIT_BOLTSTORE_CHILD"
	envPath  = "WRIT_BOLTSTORE_PATH"
	envRound = "WRIT_BOLTSTORE_ROUND"
)

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(envChild) {
	case "":
		goleak.VerifyTestMain(m) // and exits
	case "work":
		err = workForEver(os.Getenv(envPath), os.Getenv(envRound))
	case "fill":
		err = fillDisk(os.Getenv(envPath))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func child(ctx context.Context, what, path, round string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), envChild+"="+what, envPath+"="+path, envRound+"="+round)
	cmd.Stderr = os.Stderr
	return cmd
}

const (
	workShard          = writ.Tenant("default")
	workLane           = writ.Lane("5/a.b/c")
	workList           = writ.Index("list/tasks")
	queued, claimed    = "queued", "claimed"
	fillBody, fillSize = 60 << 10, 24 << 20
)

func taskKey(call writ.CallID) writ.Key { return writ.Key("task/" + string(call)) }

// enqueue makes a task named like the call and queues it.
func enqueue(call writ.CallID) writ.Tx {
	tx := writ.Tx{Call: call, Fact: &writ.Fact{ID: writ.ReceiptID("rcp_" + string(call)), Head: []byte(call), Tail: []byte("}")}}
	tx.Put(taskKey(call), []byte(queued))
	tx.Index(workList, string(call), 0)
	tx.Push(workLane, string(call))
	return tx
}

// workForEver enqueues and claims tasks from many goroutines and prints "call
// seq" for every acknowledged commit, until it is killed.
func workForEver(path, round string) error {
	s, err := boltstore.Open(path, boltstore.Options{})
	if err != nil {
		return err
	}
	ctx := context.Background()
	var n atomic.Int64
	next := func() writ.CallID { return writ.CallID(fmt.Sprintf("c%s-%06d", round, n.Add(1))) }
	failed := make(chan error)
	for i := range 8 {
		go func() {
			for {
				tx := enqueue(next())
				if i%2 == 0 {
					ds, err := s.Receive(ctx, workShard, []writ.Lane{workLane}, "worker", 1)
					if err != nil {
						failed <- err
						return
					}
					if len(ds) == 1 {
						task := writ.CallID(ds[0].Entry)
						tx.Put(taskKey(task), []byte(claimed))
						tx.Ack(ds[0])
					}
				}
				c, err := s.Commit(ctx, workShard, tx)
				if err != nil {
					failed <- err
					return
				}
				fmt.Printf("%s %d\n", tx.Call, c.Seq) // one write: lines do not mix
			}
		}()
	}
	return <-failed
}

// fillDisk commits until the file may not grow, and checks that a refusal
// costs nothing; then lets it grow and commits again. It prints the number of
// each acknowledged document.
func fillDisk(path string) error {
	signal.Ignore(syscall.SIGXFSZ)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	tight := limit
	tight.Cur = fillSize
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &tight); err != nil {
		return err
	}
	s, err := boltstore.Open(path, boltstore.Options{})
	if err != nil {
		return err
	}
	ctx := context.Background()
	acked := 0
	commit := func() error {
		tx := enqueue(writ.CallID(fmt.Sprintf("f-%06d", acked)))
		tx.Put(writ.Key(fmt.Sprintf("fill/%d", acked)), []byte(strings.Repeat("x", fillBody)))
		if _, err := s.Commit(ctx, workShard, tx); err != nil {
			return err
		}
		fmt.Println(acked)
		acked++
		return nil
	}
	for err == nil {
		err = commit()
	}
	for range 3 { // it stays an error that can be repeated
		if !errors.Is(err, store.ErrFull) {
			return fmt.Errorf("after %d commits: got %w, want ErrFull", acked, err)
		}
		err = commit()
	}
	for i := range acked {
		k := writ.Key(fmt.Sprintf("fill/%d", i))
		snap, err := s.Read(ctx, workShard, writ.ReadSet{Docs: []writ.Key{k}})
		if err != nil || len(snap.Docs[k].Body) != fillBody {
			return fmt.Errorf("with a full disk %s has %d bytes: %w", k, len(snap.Docs[k].Body), err)
		}
	}
	if h, err := s.Head(ctx, workShard); err != nil || h.Seq != int64(acked)-1 {
		return fmt.Errorf("with a full disk the head is %+v after %d commits: %w", h, acked, err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	for range 5 {
		if err := commit(); err != nil {
			return fmt.Errorf("after space came back: %w", err)
		}
	}
	return s.Close()
}
