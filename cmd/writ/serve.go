package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ/internal/daemon"
)

// settings adds a flag for every configuration key and reads them back.
type settings struct {
	file  string
	given map[string]string // by flags, by YAML name
}

func (s *settings) flags(c *cobra.Command) {
	c.Flags().StringVarP(&s.file, "config", "c", "", "configuration file (YAML)")
	for _, set := range daemon.Settings() {
		c.Flags().String(flagName(set.Name), "", strings.TrimSuffix(set.Doc, "."))
	}
}

func (s *settings) load(c *cobra.Command) (daemon.Config, error) {
	s.given = map[string]string{}
	for _, set := range daemon.Settings() {
		if f := c.Flags().Lookup(flagName(set.Name)); f.Changed {
			s.given[set.Name] = f.Value.String()
		}
	}
	cfg, err := daemon.Load(s.file, os.Getenv, s.given)
	if err != nil {
		return cfg, usageError{err, c.CommandPath()}
	}
	return cfg, nil
}

// repeat is the flags that were given, as they are given again.
func (s *settings) repeat() string {
	var b strings.Builder
	for _, set := range daemon.Settings() {
		if v, ok := s.given[set.Name]; ok {
			fmt.Fprintf(&b, " --%s='%s'", flagName(set.Name), strings.ReplaceAll(v, "'", `'\''`))
		}
	}
	return b.String()
}

func logger(cfg daemon.Config) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.Log)) // Config.Validate admits the four names only
	o := &slog.HandlerOptions{Level: level}
	if cfg.LogForm == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}

func serveCommand() *cobra.Command {
	var set settings
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the gateway", GroupID: "operate", Args: noArgs,
		Long: `Run the gateway until it is told to stop (SIGINT, SIGTERM).

Without any configuration it keeps everything in one directory, in an embedded
store, with keys it makes on the first start, and listens on loopback.`,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := set.load(c)
			if err != nil {
				return err
			}
			d := daemon.New(cfg, logger(cfg))
			if err := d.Start(c.Context()); err != nil {
				return err
			}
			w := c.ErrOrStderr()
			fmt.Fprintf(w, "writ: serving %s\n", d.URL())
			fmt.Fprintf(w, "writ: operator token in %s\n", daemon.OperatorToken(cfg.Data))
			select {
			case <-c.Context().Done():
			case err := <-d.Served():
				return fmt.Errorf("serving: %w", err)
			}
			fmt.Fprintln(w, "writ: stopping")
			return stop(d)
		},
	}
	set.flags(cmd)
	return cmd
}

func stop(d *daemon.Daemon) error {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	return d.Stop(ctx)
}
