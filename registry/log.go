package registry

import (
	"bytes"
	"encoding/base64"

	"github.com/writ-gateway/writ"
)

// LogHeadArgs say which earlier checkpoint to prove the log by.
type LogHeadArgs struct {
	Since int64 `json:"since,omitempty" doc:"Size of a checkpoint seen before: the reply proves that the log still begins with it." minimum:"1" maximum:"100000000000000"`
	Until int64 `json:"until,omitempty" doc:"Size of a later checkpoint seen before: the proof is that this one begins with the one of size since, and not that the latest does." minimum:"1" maximum:"100000000000000"`
}

// LogHead is the transparency log as it is published now.
type LogHead struct {
	Origin      string         `json:"origin" doc:"Name of the log."`
	Size        int64          `json:"size" doc:"Receipts it has: 0 to size - 1, by their sequence."`
	Root        []byte         `json:"root,omitempty" doc:"Hash of them all (RFC 6962), base64."`
	Checkpoint  string         `json:"checkpoint,omitempty" doc:"Both, signed by the log's key: a C2SP tlog-checkpoint. Keep it: with a later one it shows that nothing was taken out or changed."`
	Consistency [][]byte       `json:"consistency,omitempty" doc:"Hashes that prove it of the checkpoint of size since (RFC 6962, 2.1.2), base64; under the checkpoint of size until if that was named."`
	Witnesses   []LogWitness   `json:"witnesses,omitempty" doc:"Witnesses that cosigned this checkpoint, in lines of it."`
	Key         string         `json:"verifier_key" doc:"Key of the log as a note verifier key (C2SP signed-note)."`
	Second      string         `json:"verifier_key_mldsa,omitempty" doc:"Its second key, of ML-DSA-44, if it has one: 'writ log verify --witness' takes it."`
	TrustedRoot writ.RawObject `json:"trusted_root" doc:"The key as cosign wants it: the content of its --trusted-root file."`
}

// LogWitness is one that cosigned a checkpoint (C2SP tlog-cosignature).
type LogWitness struct {
	Name string `json:"name" doc:"Name of the witness."`
	Key  string `json:"verifier_key" doc:"Its key. Have it from the witness itself: 'writ log verify --witness' takes it."`
	At   string `json:"at" doc:"When it signed, by its own clock." format:"date-time"`
}

// LogPublishArgs say how much of the log is published.
type LogPublishArgs struct {
	Size       int64  `json:"size" doc:"Receipts its latest checkpoint covers." minimum:"1" maximum:"100000000000000"`
	Checkpoint string `json:"checkpoint,omitempty" doc:"The checkpoint, as replies carry it." maxLength:"1024" pattern:"^[A-Za-z0-9+/]+={0,2}$"`
}

// LogPublished is the result of LogPublishArgs.
type LogPublished struct {
	Size int64 `json:"size" doc:"Receipts that are known to be covered."`
}

// checkpoints is all that log.publish has noted and not taken back.
var checkpoints = writ.Range{Index: writ.IndexCheckpoint, Limit: 16}

// logPublish notes for other replicas what the log covers. It changes no document, so it
// leaves no receipt: one would want to be in the log in turn.
func logPublish() *writ.Capability {
	return writ.Define[LogPublishArgs, LogPublished](writ.Capability{
		ID: "log.publish", Safety: writ.SafetyMutating, Class: writ.Mandate, Internal: true, Summary: "Note how many receipts a checkpoint of the transparency log covers.",
	}, writ.Verb[LogPublishArgs]{
		Reads: func(*writ.Call, *LogPublishArgs, writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Counters: []writ.Counter{writ.LogSize()}, Ranges: []writ.Range{checkpoints}}, nil
		},
		Plan: func(_ *writ.Call, a *LogPublishArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			tx.Mandate = true
			known, told := s.Counters[writ.LogSize()], s.Ranges[checkpoints].Members
			// The next shard of a log begins with nothing: what another one covered is not covered.
			another := a.Checkpoint != "" && len(told) > 0 && logOf(told[0].Name) != logOf(a.Checkpoint)
			if a.Size > known || another {
				tx.Within(writ.LogSize(), known, known) // of two that say it at once one is first
				tx.Add(writ.LogSize(), a.Size-known)
				for _, m := range told {
					tx.Unindex(writ.IndexCheckpoint, m.Name)
				}
				if a.Checkpoint != "" {
					tx.Index(writ.IndexCheckpoint, a.Checkpoint, a.Size)
				}
				known = a.Size
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: LogPublished{Size: known}}, nil
		},
	})
}

// logOf is the name of the log that a checkpoint is of, its first line.
func logOf(checkpoint string) string {
	text, _ := base64.StdEncoding.DecodeString(checkpoint)
	name, _, _ := bytes.Cut(text, []byte("\n"))
	return string(name)
}

func logHead(cfg Config) *writ.Capability {
	const op = "registry.LogHead"
	return writ.Define[LogHeadArgs, LogHead](writ.Capability{
		ID: "log.head", Safety: writ.SafetyReadOnly, Summary: "Show the latest checkpoint of the transparency log, and prove it against an earlier one.",
		Example: `{"since":1024}`,
	}, writ.Verb[LogHeadArgs]{
		Plan: func(_ *writ.Call, a *LogHeadArgs, _ writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			if cfg.LogHead == nil {
				return tx, r, notReady(op)
			}
			head, err := cfg.LogHead(a.Since, a.Until)
			if err != nil {
				return tx, r, writ.AsError(op, err)
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: head}, nil
		},
	})
}
