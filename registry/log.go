package registry

import "github.com/writ-gateway/writ"

// LogHeadArgs say which earlier checkpoint to prove the log by.
type LogHeadArgs struct {
	Since int64 `json:"since,omitempty" doc:"Size of a checkpoint seen before: the reply proves that the log still begins with it." minimum:"1" maximum:"100000000000000"`
}

// LogHead is the transparency log as it is published now.
type LogHead struct {
	Origin      string         `json:"origin" doc:"Name of the log."`
	Size        int64          `json:"size" doc:"Receipts it has: 0 to size - 1, by their sequence."`
	Root        []byte         `json:"root,omitempty" doc:"Hash of them all (RFC 6962), base64."`
	Checkpoint  string         `json:"checkpoint,omitempty" doc:"Both, signed by the log's key: a C2SP tlog-checkpoint. Keep it: with a later one it shows that nothing was taken out or changed."`
	Consistency [][]byte       `json:"consistency,omitempty" doc:"Hashes that prove it of the checkpoint of size since (RFC 6962, 2.1.2), base64."`
	Key         string         `json:"verifier_key" doc:"Key of the log as a note verifier key (C2SP signed-note)."`
	TrustedRoot writ.RawObject `json:"trusted_root" doc:"The key as cosign wants it: the content of its --trusted-root file."`
}

func logHead(cfg Config) *writ.Capability {
	const op = "registry.LogHead"
	return writ.Define[LogHeadArgs, LogHead](writ.Capability{
		ID: "log.head", Safety: writ.SafetyReadOnly, Summary: "Show the latest checkpoint of the transparency log, and prove it against an earlier one.",
	}, writ.Verb[LogHeadArgs]{
		Plan: func(_ *writ.Call, a *LogHeadArgs, _ writ.Snapshot, _ writ.Decision) (tx writ.Tx, r writ.Reply, err error) {
			if cfg.LogHead == nil {
				return tx, r, notReady(op)
			}
			head, err := cfg.LogHead(a.Since)
			if err != nil {
				return tx, r, writ.AsError(op, err)
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: head}, nil
		},
	})
}
