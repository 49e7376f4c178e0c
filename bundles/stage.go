package bundles

import (
	"encoding/base64"

	"github.com/writ-gateway/writ"
)

// Upload is a bundle as somebody sends it: base64.
type Upload string

// decode gives the bytes. It refuses by size first.
func (u Upload) decode(op string) ([]byte, error) {
	if len(u) > writ.MaxChunks*writ.ChunkBytes {
		return nil, tooLarge(op)
	}
	b, err := base64.StdEncoding.DecodeString(string(u))
	if err != nil || len(b) == 0 {
		return nil, &writ.Error{
			Code: writ.CodeInputInvalid, Op: op, Msg: "this is not a policy bundle", Hint: "correct every field named in errors",
			Fields: []writ.FieldError{{Pointer: "/bundle", Msg: "is empty, or not base64 (RFC 4648, section 4)"}},
		}
	}
	return b, nil
}

// PolicyStageArgs are a bundle.
type PolicyStageArgs struct {
	Bundle Upload `json:"bundle" writ:"secret" doc:"The bundle in base64: a tar, plain or gzip'd, with packs/<id>/… and perhaps roles/…. Role files it lacks are kept as they are in force." minLength:"1"`
	Add    bool   `json:"add,omitempty" doc:"Keep the packs in force that the bundle does not hold. Signed bundles always do."`
	Note   string `json:"note,omitempty" doc:"What it is for, for those who read it later." maxLength:"500"`

	memo memo
}

// memo keeps what opening the bundle gave: a call opens it for every read and
// plan, and always with the same roles in force.
type memo struct {
	done    bool
	inForce writ.BundleID
	got     Contents
	err     error
}

// Witnessed is what the evidence keeps: the bytes lie in the store, under a
// digest the receipt names.
func (a *PolicyStageArgs) Witnessed() any {
	return struct {
		Add  bool   `json:"add,omitempty"`
		Note string `json:"note,omitempty"`
	}{a.Add, a.Note}
}

func (r Room) stage() *writ.Capability {
	const op = "bundles.Stage"
	return writ.Define[PolicyStageArgs, BundleView](writ.Capability{
		ID: "policy.stage", Safety: writ.SafetyMutating, Summary: "Bring a policy bundle into the gateway, to be compiled by every replica; nothing is put in force.",
		Example: `{"bundle":"H4sIAAAAAAAA/w==","add":true,"note":"freeze changes"}`,
	}, writ.Verb[PolicyStageArgs]{
		Reads: func(_ *writ.Call, a *PolicyStageArgs, s writ.Snapshot) (writ.ReadSet, error) {
			return r.readStage(op, a, s)
		},
		Plan: func(c *writ.Call, a *PolicyStageArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			gate, err := gateOf(s)
			if err != nil {
				return tx, reply, err
			}
			got, err := r.vetted(op, a, s, gate)
			if err != nil {
				return tx, reply, err
			}
			old, _, ok, err := writ.Get[writ.Bundle](s, writ.BundleKey(got.ID))
			if err != nil {
				return tx, reply, err
			}
			if ok && (old.State == writ.BundleStaged || old.State == writ.BundleActive) {
				return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: view(s, old)}, nil
			}
			if len(s.Ranges[staged].Members) >= writ.MaxStaged {
				return tx, reply, writ.Refuse(writ.CodeQuota, op, "as many bundles are staged as replicas can hold compiled", "policy.withdraw one that is not wanted any more")
			}
			source := writ.SourceCall
			if c.Caller.Role == writ.RoleSystem {
				source = writ.SourceFolder
			}
			b, err := r.put(op, c, s, &tx, old, got, a.Note, source)
			if err != nil {
				return tx, reply, err
			}
			v := view(s, b)
			v.Ready, v.Waiting = []string{}, append([]string{}, alive(s)...) // whoever was ready says so again
			reply = writ.Reply{Outcome: writ.OutcomeCreated, Body: v, Versioned: []string{"version"}, ETag: -1}
			if ok {
				reply.Outcome = writ.OutcomeDone
			}
			return tx, reply, nil
		},
	})
}

var staged = writ.Range{Index: writ.IndexStaged, Limit: 100}

// readStage names the gate, then the bundle in force, whose roles may be kept,
// then what is known of the new one.
func (r Room) readStage(op string, a *PolicyStageArgs, s writ.Snapshot) (rs writ.ReadSet, err error) {
	rs.Docs = []writ.Key{writ.GateKey}
	rs.Ranges = []writ.Range{replicas, staged}
	if !s.Has(writ.GateKey) {
		return rs, nil
	}
	gate, _, ok, err := writ.Get[writ.Gate](s, writ.GateKey)
	if err != nil {
		return rs, err
	}
	if ok && gate.Bundle != "" {
		more := withBytes(gate.Bundle)
		rs.Docs = append(rs.Docs, more...)
		if !s.Has(more[0]) {
			return rs, nil
		}
	}
	got, err := r.vetted(op, a, s, gate)
	if err != nil {
		return rs, err
	}
	rs.Docs = append(rs.Docs, withBytes(got.ID)...)
	rs.Ranges = append(rs.Ranges, ready(got.ID))
	return rs, nil
}

// vetted opens what somebody staged, and asks who signed it.
func (r Room) vetted(op string, a *PolicyStageArgs, s writ.Snapshot, gate writ.Gate) (Contents, error) {
	if a.memo.done && a.memo.inForce == gate.Bundle {
		return a.memo.got, a.memo.err
	}
	signer := ""
	sent, err := a.Bundle.decode(op)
	if err == nil && r.cfg.Vet != nil {
		signer, err = r.cfg.Vet(sent)
	}
	var got Contents
	if err == nil {
		got, err = r.open(op, a.Bundle, s, gate, a.Add || r.cfg.Vet != nil)
		got.Signer = signer
	}
	a.memo = memo{done: true, inForce: gate.Bundle, got: got, err: err}
	return got, err
}

// open takes an upload apart.
func (r Room) open(op string, u Upload, s writ.Snapshot, gate writ.Gate, add bool) (Contents, error) {
	sent, err := u.decode(op)
	if err != nil {
		return Contents{}, err
	}
	var inForce []byte
	if gate.Bundle != "" {
		if inForce, err = r.bytesOf(op, s, gate.Bundle); err != nil {
			return Contents{}, err
		}
	}
	got, err := r.cfg.Open(sent, inForce, add)
	if err == nil && len(got.Packs) > writ.MaxBundlePacks {
		err = tooLarge(op)
	}
	return got, err
}

// put writes a bundle as staged, with its bytes.
func (r Room) put(op string, c *writ.Call, s writ.Snapshot, tx *writ.Tx, old writ.Bundle, got Contents, note, source string) (writ.Bundle, error) {
	chunks, err := keep(op, s, tx, got.ID, got.Packed)
	if err != nil {
		return old, err
	}
	b := writ.Bundle{
		ID: got.ID, State: writ.BundleStaged, Packs: got.Packs, Policy: got.Policy, Bindings: got.Bindings, Chunks: chunks, Bytes: got.Bytes,
		Note: note, Source: source, Signer: got.Signer, Replaced: old.Replaced,
		InForce:  old.InForce || old.State == writ.BundleActive || old.State == writ.BundleRetired,
		StagedBy: c.Caller.Principal, StagedRole: c.Caller.Role, CreatedAt: s.Now,
	}
	if old.ID != "" {
		b.CreatedAt = old.CreatedAt
	}
	if b.Packs == nil {
		b.Packs = []writ.PackVer{}
	}
	forget(s, tx, b.ID)
	tx.Index(writ.IndexBundles, string(b.ID), b.CreatedAt)
	return b, move(c, s, tx, &b, old.State)
}

// PolicyWithdrawArgs name a bundle nobody wants any more.
type PolicyWithdrawArgs struct {
	Digest string `json:"digest" doc:"Digest of the bundle." pattern:"^sha256:[0-9a-f]{64}$"`
}

func (r Room) withdraw() *writ.Capability {
	const op = "bundles.Withdraw"
	return writ.Define[PolicyWithdrawArgs, BundleView](writ.Capability{
		ID: "policy.withdraw", Safety: writ.SafetyMutating, Summary: "Take a staged policy bundle back.",
		Example: `{"digest":"sha256:4ca9f4fc0a9cdcf5a4b2bb9f3d8b8b1e6f7d2c0a9e5b4c3d2e1f0a9b8c7d6e5f"}`,
	}, writ.Verb[PolicyWithdrawArgs]{
		Reads: func(_ *writ.Call, a *PolicyWithdrawArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			id := writ.BundleOf(a.Digest)
			return writ.ReadSet{Docs: withBytes(id), Ranges: []writ.Range{replicas, ready(id)}}, nil
		},
		Plan: func(c *writ.Call, a *PolicyWithdrawArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			b, err := load(op, s, a.Digest)
			if err != nil {
				return tx, reply, err
			}
			if b.State == writ.BundleWithdrawn {
				return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: view(s, b)}, nil
			}
			from := b.State
			b.State = writ.BundleWithdrawn
			drop(s, &tx, &b)
			forget(s, &tx, b.ID)
			if err := move(c, s, &tx, &b, from); err != nil {
				return tx, reply, err
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: view(s, b), Versioned: []string{"version"}, ETag: -1}, nil
		},
	})
}
