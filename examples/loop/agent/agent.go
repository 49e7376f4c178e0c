// Package agent is what the three agents of this example have in common: all they
// know is where the gateway is and the token of their session.
package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

// Run connects with WRIT_URL and WRIT_TOKEN_FILE, starts the session, keeps it
// alive and does the work until it is done or somebody interrupts it. Then it
// closes the session.
func Run(work func(context.Context, *client.Client) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, work); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, work func(context.Context, *client.Client) error) error {
	file := os.Getenv("WRIT_TOKEN_FILE")
	token, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("WRIT_TOKEN_FILE names the file with the token of a session: %w", err)
	}
	// A token is <tenant>.<session>.<secret>.
	parts := strings.Split(string(token), ".")
	if len(parts) != 3 {
		return fmt.Errorf("%s holds no token", file)
	}
	session := writ.SessionID(parts[1])
	c, err := client.New(client.Config{URL: os.Getenv("WRIT_URL"), TokenFile: file})
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := c.StartSession(ctx, session)
	if err != nil {
		return err
	}
	beating, enough := context.WithCancel(ctx)
	defer enough()
	go func() {
		for Wait(beating, time.Duration(max(1, s.TTLSeconds/3))*time.Second) {
			_, _ = c.HeartbeatSession(beating, session) // the next one is soon
		}
	}()
	err = work(ctx, c)
	enough()
	bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_, cerr := c.CloseSession(bye, session)
	return errors.Join(err, cerr)
}

// Wait says false once there is nothing more to wait for.
func Wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
