package main

import (
	"context"
	"fmt"
	"io"
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
		if doc := strings.TrimSuffix(set.Doc, "."); set.Bool {
			c.Flags().Bool(flagName(set.Name), false, doc)
		} else {
			c.Flags().String(flagName(set.Name), "", doc)
		}
	}
}

func (s *settings) load(c *cobra.Command) (daemon.Config, error) {
	s.given = map[string]string{}
	for _, set := range daemon.Settings() {
		if f := c.Flags().Lookup(flagName(set.Name)); f.Changed {
			s.given[set.Name] = f.Value.String()
		}
	}
	if err := daemon.CheckEnv(os.Environ()); err != nil {
		return daemon.Config{}, usageError{err, c.CommandPath()}
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
store, with keys it makes on the first start, and listens on loopback.

Every flag can also be given in the environment, as WRIT_ and its name in upper
case with _ for - (WRIT_LISTEN, WRIT_MAX_INFLIGHT), or in the file named with -c.
A flag wins over the environment, the environment over the file. The password of
the receipt key is in WRIT_KEY_PASSWORD, if it has one.`,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := set.load(c)
			if err != nil {
				return err
			}
			if cfg.Policies != "" {
				if err := there(cfg.Policies); err != nil {
					return fmt.Errorf("policies: %w", err)
				}
			}
			log := logger(cfg)
			d := daemon.New(cfg, log)
			if err := d.Start(c.Context()); err != nil {
				return err
			}
			announce(c.ErrOrStderr(), log, cfg, d.URL())
			select {
			case <-c.Context().Done():
			case err := <-d.Served():
				return fmt.Errorf("serving: %w", err)
			}
			say(c.ErrOrStderr(), log, cfg, "stopping")
			return stop(d)
		},
	}
	set.flags(cmd)
	return cmd
}

// announce says where the gateway answers, whatever the log's level: who starts
// it waits for that line.
func announce(w io.Writer, log *slog.Logger, cfg daemon.Config, url string) {
	token := daemon.OperatorToken(cfg.Data)
	if cfg.LogForm == "json" {
		say(w, log, cfg, "serving", slog.String("url", url), slog.String("operator_token", token))
		return
	}
	fmt.Fprintf(w, "writ: serving %s\nwrit: operator token in %s\n", url, token)
}

// say writes one line in the form of the log and past its level.
func say(w io.Writer, log *slog.Logger, cfg daemon.Config, msg string, attrs ...slog.Attr) {
	if cfg.LogForm != "json" {
		fmt.Fprintf(w, "writ: %s\n", msg)
		return
	}
	r := slog.NewRecord(time.Now(), slog.LevelInfo, msg, 0)
	r.AddAttrs(attrs...)
	_ = log.Handler().Handle(context.Background(), r)
}

func stop(d *daemon.Daemon) error {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	return d.Stop(ctx)
}
