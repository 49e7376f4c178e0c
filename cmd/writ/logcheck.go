package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/internal/daemon"
)

// Every command that calls a gateway keeps the checkpoints of its log that replies showed
// until they are proven, and the latest of those, and asks now and then for the proofs
// that the log only grew.

// foundKey is under which a command's context has the place for what is wrong with the
// log of the gateway.
type foundKey struct{}

// seenPath is where what was seen of a gateway's log is kept: beside the data of a gateway
// of this machine, so that it goes where that goes; else in the user's state directory.
func seenPath(url, data string, here bool) string {
	if here {
		return filepath.Join(data, "log-seen.json")
	}
	state := daemon.DefaultData(os.Getenv)
	if state == "" {
		return "" // nowhere to keep it
	}
	name := sha256.Sum256([]byte(url))
	return filepath.Join(state+"-client", "log-"+hex.EncodeToString(name[:8])+".json")
}

// seenFile keeps what was seen in a file of that name, mode 0600. What cannot be read is
// as if there were none: whoever can spoil the file can delete it.
type seenFile string

// Load implements client.LogKeeper.
func (f seenFile) Load() (s client.LogSeen, err error) {
	b, err := os.ReadFile(string(f))
	if err != nil || json.Unmarshal(b, &s) != nil {
		return client.LogSeen{}, nil
	}
	return s, nil
}

// Save implements client.LogKeeper.
func (f seenFile) Save(s client.LogSeen) error {
	if f == "" {
		return nil
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(string(f)), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(string(f)), ".log-seen-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(append(b, '\n'))
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), string(f))
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}

// checkVerdict is the report of log check as JSON.
type checkVerdict struct {
	Verdict    string `json:"verdict"`
	Checkpoint string `json:"checkpoint,omitempty"`
	Key        string `json:"verifier_key,omitempty"`
	Kept       string `json:"kept,omitempty"`
	Shown      string `json:"shown,omitempty"`
	Reason     string `json:"reason,omitempty"`

	Dropped client.LogDropped `json:"dropped,omitzero"`
}

func checkLogCommand() *cobra.Command {
	var connect connection
	var format, logKey string
	cmd := &cobra.Command{
		Use: "check", Short: "Have the gateway prove that its log only grew", Args: noArgs, Annotations: verifies,
		Example: "  writ log check\n  writ log check --log-key log.vkey -o json",
		Long: `Ask the gateway to prove that its log begins with everything it has shown to the
commands run here before. They keep the checkpoints that replies carried until each is proven
(log-seen.json in the data directory of a gateway on this machine, or a file per gateway in the
directory writ-client beside it) and do this by themselves every ten minutes.

After a log was begun anew on purpose, remove that file.

Exit codes: 0 the log only grew, 1 it did not, or another key signed it, 3 all that was kept is
proven, but more was shown while the gateway gave no proofs than is kept: ask who runs it why, and
take "dropped" out of the file, 4 there is no proof: the log is written by another replica, or the
gateway does not answer.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkFormat(c, format); err != nil {
				return err
			}
			if logKey != "" {
				key, err := readLogKey(logKey)
				if err != nil {
					return err
				}
				connect.logKey = key
			}
			var v checkVerdict
			cl, err := connect.open()
			if err == nil {
				err = cl.CheckLog(c.Context())
				seen := cl.LogSeen()
				v = checkVerdict{Verdict: "ok", Checkpoint: seen.Proven, Key: seen.Key}
			}
			if e, ok := errors.AsType[*client.LogError](err); ok {
				if found, ok := c.Context().Value(foundKey{}).(*error); ok {
					*found = nil // said here
				}
				v.Verdict, v.Kept, v.Shown, v.Reason = "tampered", e.Kept, e.Shown, e.Why
				return conclude(c, format, v, 1)
			}
			if d, ok := errors.AsType[client.LogDropped](err); ok {
				v.Verdict, v.Dropped, v.Reason = "incomplete", d, d.Error()
				return conclude(c, format, v, 3)
			}
			if err != nil {
				return err
			}
			return conclude(c, format, v, 0)
		},
	}
	connect.flags(cmd)
	cmd.Flags().StringVar(&logKey, "log-key", "", "note verifier key of the log, or a file with it, kept from when you had reason to trust it")
	outputFlag(cmd, &format)
	return cmd
}
