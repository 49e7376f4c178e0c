// Command asynq is what bench compares the queue with: it enqueues tasks with
// hibiken/asynq and processes them, on a server that is given. It is a module of its
// own, so that nothing of it is in the product's.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
)

func main() {
	socket := flag.String("socket", "", "unix socket of the redis-server")
	n := flag.Int("n", 1000, "tasks")
	callers := flag.Int("callers", 16, "who enqueues at a time")
	workers := flag.Int("workers", 4, "who processes at a time")
	flag.Parse()
	if err := run(asynq.RedisClientOpt{Network: "unix", Addr: *socket, DB: 1}, *n, *callers, *workers); err != nil {
		fmt.Fprintln(os.Stderr, "asynq:", err)
		os.Exit(1)
	}
}

// run prints the seconds it took to enqueue everything, and then to process it.
func run(at asynq.RedisClientOpt, n, callers, workers int) error {
	client := asynq.NewClient(at)
	defer func() { _ = client.Close() }()
	body := []byte(`{"ref":"main"}`)
	var next atomic.Int64
	var failed atomic.Value
	var all sync.WaitGroup
	began := time.Now()
	for range callers {
		all.Go(func() {
			for int(next.Add(1)) <= n {
				if _, err := client.Enqueue(asynq.NewTask("site.build", body)); err != nil {
					failed.Store(err)
					return
				}
			}
		})
	}
	all.Wait()
	if err, _ := failed.Load().(error); err != nil {
		return err
	}
	enqueued := time.Since(began)
	done, left := make(chan struct{}), atomic.Int64{}
	left.Store(int64(n))
	began = time.Now()
	server := asynq.NewServer(at, asynq.Config{Concurrency: workers, LogLevel: asynq.ErrorLevel})
	err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
		if left.Add(-1) == 0 {
			close(done)
		}
		return nil
	}))
	if err != nil {
		return err
	}
	<-done
	fmt.Println(enqueued.Seconds(), time.Since(began).Seconds())
	server.Shutdown()
	return nil
}
