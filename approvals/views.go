package approvals

import "github.com/writ-gateway/writ"

// ApprovalView is an approval as people see it.
type ApprovalView struct {
	ID         writ.ApprovalID    `json:"approval_id" doc:"Id of the approval."`
	State      writ.ApprovalState `json:"state" doc:"Where it stands." enum:"pending,approved,consumed,denied,expired,superseded,revoked"`
	Kind       writ.ApprovalKind  `json:"kind" doc:"What is asked for." enum:"effect,budget_extension,human_action,policy_exception,http_host,skill_enable,secret_write,channel_connection"`
	Scope      writ.ApprovalScope `json:"scope" doc:"What it holds for." enum:"call,task,run,session"`
	Capability writ.CapabilityID  `json:"capability" doc:"Capability of the call that needs it."`
	Subject    writ.CapabilityID  `json:"subject,omitempty" doc:"What the task in question asks an agent to do."`
	Args       writ.RawObject     `json:"args,omitempty" doc:"Arguments of the call."`
	Labels     []writ.Label       `json:"labels,omitempty" doc:"What kinds of data the call carries."`
	Run        writ.RunID         `json:"run_id,omitempty" doc:"Run the call works in."`
	Task       writ.TaskID        `json:"task_id,omitempty" doc:"Task that waits for it."`
	Request    string             `json:"request_digest" doc:"What it is bound to (SHA-256): another call does not use it."`
	Requester  writ.Requester     `json:"requester" doc:"Who asked."`
	Needs      []writ.Need        `json:"needs" doc:"What each rule asks for. All of it must be met."`
	Votes      []ApprovalVote     `json:"votes" doc:"Decisions so far, oldest first."`
	MaxUses    int64              `json:"max_uses" doc:"How often it may be used."`
	Uses       int64              `json:"uses" doc:"How often it was."`
	Remembered writ.ApprovalScope `json:"remembered,omitempty" doc:"Wider scope a decider let it hold for." enum:"run,session"`
	Response   writ.RawObject     `json:"response,omitempty" doc:"Answer to a human_action."`
	Successor  writ.ApprovalID    `json:"superseded_by,omitempty" doc:"The approval that took its place."`
	Modified   writ.ApprovalID    `json:"modified_from,omitempty" doc:"The approval whose place it took: a person agreed to that call only with the arguments of this one."`
	ExpiresAt  string             `json:"expires_at" doc:"From when on it counts for nothing."`
	CreatedAt  string             `json:"created_at" doc:"When it was asked for."`
	UpdatedAt  string             `json:"updated_at" doc:"When it last changed."`
	Receipt    writ.ReceiptID     `json:"receipt" doc:"Receipt of the last change."`
	Version    int64              `json:"version" doc:"Version of the approval, for If-Match."`
}

// ApprovalVote is one decision.
type ApprovalVote struct {
	Principal writ.PrincipalID `json:"principal" doc:"Who decided."`
	Role      writ.Role        `json:"role" doc:"In which role."`
	Decision  string           `json:"decision" doc:"What was decided; modify: agreed to with other arguments, see superseded_by." enum:"approve,deny,modify"`
	Reason    string           `json:"reason,omitempty" doc:"Why."`
	At        string           `json:"at" doc:"When."`
	Receipt   writ.ReceiptID   `json:"receipt" doc:"Receipt of the decision."`
}

// view shows an approval at a time: one past its end is shown as expired even
// before a sweep says so.
func view(a writ.Approval, version, now int64) ApprovalView {
	v := ApprovalView{
		ID: a.ID, State: a.State, Kind: a.Needs[0].Kind, Scope: a.Scope, Capability: a.Capability, Subject: a.Subject, Args: a.Args,
		Labels: a.Labels, Run: a.Run, Task: a.Task, Request: a.Request, Requester: a.Requester, Needs: a.Needs, Votes: []ApprovalVote{},
		MaxUses: a.MaxUses, Uses: a.Uses, Remembered: a.Remembered, Response: a.Response, Successor: a.Successor, Modified: a.Modified,
		ExpiresAt: writ.FormatTime(a.ExpiresAt), CreatedAt: writ.FormatTime(a.CreatedAt), UpdatedAt: writ.FormatTime(a.UpdatedAt),
		Receipt: a.Receipt, Version: version,
	}
	if !writ.ApprovalMoves.Terminal(a.State) && a.Dead(now) {
		v.State = writ.ApprovalExpired
	}
	for _, vote := range a.Votes {
		word := "deny"
		switch {
		case vote.Modify:
			word = "modify"
		case vote.Approve:
			word = "approve"
		}
		v.Votes = append(v.Votes, ApprovalVote{
			Principal: vote.Principal, Role: vote.Role, Decision: word, Reason: vote.Reason, At: writ.FormatTime(vote.At), Receipt: vote.Receipt,
		})
	}
	return v
}

// ApprovalGetArgs name the approval to show.
type ApprovalGetArgs struct {
	Approval writ.ApprovalID `json:"approval_id" doc:"The approval." pattern:"^apr_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
}

func (r Room) get() *writ.Capability {
	const op = "approvals.Get"
	return writ.Define[ApprovalGetArgs, ApprovalView](writ.Capability{
		ID: "approval.get", Safety: writ.SafetyReadOnly, Summary: "Show one approval: what is asked, by whom, and who decided what.",
		Example: `{"approval_id":"apr_01M85DS6ADY7YHVBWVGXH347C2"}`,
	}, writ.Verb[ApprovalGetArgs]{
		Reads: func(_ *writ.Call, a *ApprovalGetArgs, _ writ.Snapshot) (writ.ReadSet, error) {
			return writ.ReadSet{Docs: []writ.Key{writ.ApprovalKey(a.Approval)}}, nil
		},
		Describe: func(c *writ.Call, args *ApprovalGetArgs, s writ.Snapshot) (writ.Subject, error) {
			a, _, err := load(op, c, s, args.Approval)
			return writ.Subject{Labels: a.Labels}, err
		},
		Plan: func(c *writ.Call, args *ApprovalGetArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			a, version, err := load(op, c, s, args.Approval)
			if err != nil {
				return tx, reply, err
			}
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: view(a, version, s.Now), ETag: version}, nil
		},
	})
}

// ApprovalListArgs page through approvals.
type ApprovalListArgs struct {
	State writ.ApprovalState `json:"state,omitempty" doc:"Only approvals in this state." enum:"pending,approved,consumed,denied,expired,superseded,revoked"`
	After writ.ApprovalID    `json:"after,omitempty" doc:"Approval the last page ended with." pattern:"^apr_[0-7][0-9A-HJKMNP-TV-Z]{25}$"`
	Limit int64              `json:"limit,omitempty" doc:"Approvals looked at per page." default:"50" minimum:"1" maximum:"200"`
}

// ApprovalList is a page of approvals.
type ApprovalList struct {
	Approvals []ApprovalView `json:"approvals" doc:"Approvals, oldest first. A page can be short or empty though more follow."`
	Next      string         `json:"next,omitempty" doc:"Value of after for the next page; absent on the last one."`
}

// pageOf is the page a caller asks for.
func pageOf(a *ApprovalListArgs) writ.Page {
	p := writ.Page{Index: writ.IndexApprovals, After: string(a.After), Limit: a.Limit}
	if a.State != "" {
		p.Index = writ.ApprovalsIn(a.State)
	}
	return p
}

func (r Room) list() *writ.Capability {
	return writ.Define[ApprovalListArgs, ApprovalList](writ.Capability{
		ID: "approval.list", Safety: writ.SafetyReadOnly, Summary: "List approvals, oldest first: all to those who decide, their own to others.",
		Example: `{"state":"pending"}`,
	}, writ.Verb[ApprovalListArgs]{
		Reads: func(_ *writ.Call, a *ApprovalListArgs, s writ.Snapshot) (rs writ.ReadSet, err error) {
			page := pageOf(a)
			rs.Ranges = append(rs.Ranges, page.Range())
			ids, _ := page.Of(s)
			for _, id := range ids {
				rs.Docs = append(rs.Docs, writ.ApprovalKey(writ.ApprovalID(id)))
			}
			return rs, nil
		},
		Describe: func(c *writ.Call, args *ApprovalListArgs, s writ.Snapshot) (sub writ.Subject, err error) {
			_, err = eachListed(c, args, s, func(a writ.Approval, _ int64) { sub.Labels = writ.JoinLabels(sub.Labels, a.Labels) })
			return sub, err
		},
		Plan: func(c *writ.Call, args *ApprovalListArgs, s writ.Snapshot, _ writ.Decision) (tx writ.Tx, reply writ.Reply, err error) {
			out := ApprovalList{Approvals: []ApprovalView{}}
			out.Next, err = eachListed(c, args, s, func(a writ.Approval, version int64) {
				out.Approvals = append(out.Approvals, view(a, version, s.Now))
			})
			return tx, writ.Reply{Outcome: writ.OutcomeDone, Body: out}, err
		},
	})
}

// eachListed calls f for every approval of a page that the caller may see, and
// returns where the next page begins.
func eachListed(c *writ.Call, args *ApprovalListArgs, s writ.Snapshot, f func(a writ.Approval, version int64)) (next string, err error) {
	ids, next := pageOf(args).Of(s)
	for _, id := range ids {
		a, version, ok, err := writ.Get[writ.Approval](s, writ.ApprovalKey(writ.ApprovalID(id)))
		if err != nil {
			return "", err
		}
		if ok && maySee(c.Caller, a) {
			f(a, version)
		}
	}
	return next, nil
}
