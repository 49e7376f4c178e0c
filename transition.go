package writ

import "slices"

// Table is a state machine: for each state, the states it may move to. The
// key "" holds the states an object may be born in. A state without successors
// is terminal.
type Table[S ~string] map[S][]S

// May says whether from → to is a legal move. Staying in a state is legal
// exactly when the table says so.
func (t Table[S]) May(from, to S) bool { return slices.Contains(t[from], to) }

// Terminal says whether nothing leaves s.
func (t Table[S]) Terminal(s S) bool { return len(t[s]) == 0 }

// Kinds of object whose moves receipts record.
const (
	ObjectAgent    = "agent"
	ObjectSession  = "session"
	ObjectTask     = "task"
	ObjectRun      = "run"
	ObjectGate     = "gate"
	ObjectApproval = "approval"
	ObjectBundle   = "bundle"
	ObjectEscrow   = "escrow"
	ObjectQuota    = "quota"
	ObjectHealth   = "health"
	ObjectRepair   = "repair"
	ObjectKey      = "key"
	ObjectEvidence = "evidence" // of a run, under its id
	ObjectJail     = "jail"     // of a session, under its id
	ObjectEgress   = "egress"   // a grant to act outside
	ObjectEffect   = "effect"
	ObjectSecret   = "secret"
	ObjectBallot   = "ballot" // on a task or a run, under its id
)

// ObjectKinds lists every kind of object whose moves receipts record. A document
// of an object has the key "<kind>/<id>"; the gate is its own, and all quotas are in one.
func ObjectKinds() []string {
	return []string{ObjectAgent, ObjectSession, ObjectTask, ObjectRun, ObjectGate, ObjectApproval, ObjectBundle, ObjectEscrow, ObjectQuota, ObjectHealth, ObjectRepair, ObjectKey, ObjectEvidence, ObjectEffect, ObjectSecret, ObjectEgress, ObjectJail, ObjectBallot}
}

// LegalMove says whether an object of a kind may move from → to, by the tables
// of this package. It is what verifiers of receipts use.
func LegalMove(kind, from, to string) bool {
	switch kind {
	case ObjectAgent:
		return AgentMoves.May(AgentState(from), AgentState(to))
	case ObjectSession:
		return SessionMoves.May(SessionState(from), SessionState(to))
	case ObjectTask:
		return TaskMoves.May(TaskState(from), TaskState(to))
	case ObjectRun:
		return RunMoves.May(RunState(from), RunState(to))
	case ObjectApproval:
		return ApprovalMoves.May(ApprovalState(from), ApprovalState(to))
	case ObjectBundle:
		return BundleMoves.May(BundleState(from), BundleState(to))
	case ObjectEscrow:
		return EscrowMoves.May(EscrowState(from), EscrowState(to))
	case ObjectQuota:
		return QuotaMoves.May(QuotaState(from), QuotaState(to))
	case ObjectHealth:
		return HealthMoves.May(HealthStatus(from), HealthStatus(to))
	case ObjectRepair:
		return RepairMoves.May(RepairState(from), RepairState(to))
	case ObjectKey:
		return KeyMoves.May(KeyState(from), KeyState(to))
	case ObjectEvidence:
		return EvidenceMoves.May(EvidenceState(from), EvidenceState(to))
	case ObjectJail:
		return JailMoves.May(JailState(from), JailState(to))
	case ObjectEgress:
		return EgressMoves.May(EgressState(from), EgressState(to))
	case ObjectEffect:
		return IntentMoves.May(IntentState(from), IntentState(to))
	case ObjectSecret:
		return SecretMoves.May(SecretState(from), SecretState(to))
	case ObjectBallot:
		return BallotMoves.May(BallotState(from), BallotState(to))
	case ObjectGate:
		return GateMoves.May(GateState(from), GateState(to))
	}
	return false
}
