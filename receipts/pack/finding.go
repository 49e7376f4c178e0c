package pack

import (
	"cmp"
	"slices"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
)

// Code names what is wrong with a pack. Codes never change their meaning.
type Code string

// Codes of findings.
const (
	PackMalformed Code = "pack_malformed"
	FileMissing   Code = "file_missing"
	FileExtra     Code = "file_extra"
	FileTwice     Code = "file_twice"
	SumDiffers    Code = "sum_differs"

	Origin              Code = "origin"
	CheckpointSignature Code = "checkpoint_signature"
	CheckpointDiffers   Code = "checkpoint_differs"
	WitnessSignature    Code = "witness_signature"
	WitnessMissing      Code = "witness_missing"
	Consistency         Code = "consistency"
	TrustedRoot         Code = "trusted_root_differs"
	LogKeyDiffers       Code = "log_key_differs"
	KeyUntrusted        Code = "key_untrusted"
	KeyEvent            Code = "key_event"
	KeysDiffer          Code = "keys_differ"

	BundleMalformed  Code = "bundle_malformed"
	Base64           Code = "base64"
	KeyOther         Code = "key_other"
	KeyDiffers       Code = "key_differs"
	KeyNotThen       Code = "key_not_valid_then"
	HintDiffers      Code = "hint_differs"
	SignatureForm    Code = "signature_form"
	Signature        Code = "signature"
	PayloadMalformed Code = "payload_malformed"
	SeqMoved         Code = "seq_moved"
	IndexDiffers     Code = "index_differs"
	LeafDiffers      Code = "leaf_differs"
	Inclusion        Code = "inclusion"

	ReceiptMissing  Code = "receipt_missing"
	ReceiptExtra    Code = "receipt_extra"
	ListDiffers     Code = "list_differs"
	EvidenceDiffers Code = "evidence_differs"
	EvidenceMissing Code = "evidence_missing"
	PolicyDiffers   Code = "policy_differs"
	PolicyMissing   Code = "policy_missing"
	ReadmeDiffers   Code = "readme_differs"

	ReceiptTwice  Code = "receipt_twice"
	VerdictTwice  Code = "verdict_twice"
	VerdictAlone  Code = "verdict_alone"
	TenantOther   Code = "tenant_other"
	TimeBack      Code = "time_back"
	EpochBack     Code = "epoch_back"
	ParentSelf    Code = "parent_self"
	ParentFuture  Code = "parent_future"
	ParentUnknown Code = "parent_unknown"
	ParentMissing Code = "parent_missing"
	MoveIllegal   Code = "move_illegal"
	MoveFrom      Code = "move_from"
	MoveGap       Code = "move_gap"
	RunGap        Code = "run_gap"
	RunBack       Code = "run_back"

	RunScope     Code = "run_scope"
	RunUnknown   Code = "run_unknown"
	RunBegin     Code = "run_begin"
	RunOpen      Code = "run_open"
	RunTasksOpen Code = "run_tasks_open"
	RunTasksGap  Code = "run_tasks_gap"
	RunAfterEnd  Code = "run_after_end"

	CloseBypassed     Code = "close_bypassed"
	CloseRole         Code = "close_role"
	VerdictMissing    Code = "verdict_missing"
	VerdictStale      Code = "verdict_stale"
	VerdictOther      Code = "verdict_other"
	VerdictGate       Code = "verdict_gate"
	GateMissing       Code = "gate_missing"
	QuorumMissing     Code = "quorum_missing"
	QuorumTwice       Code = "quorum_twice"
	VerdictUnsigned   Code = "verdict_unsigned"
	VerdictSays       Code = "verdict_says"
	VerdictKey        Code = "verdict_key"
	VerdictSignature  Code = "verdict_signature"
	VerdictAbout      Code = "verdict_about"
	VerdictUntrusted  Code = "verdict_untrusted"
	LineageSession    Code = "lineage_session"
	LineageAgent      Code = "lineage_agent"
	LineageKey        Code = "lineage_key"
	LineageController Code = "lineage_controller"
	LineageOpener     Code = "lineage_opener"
	LineageUnknown    Code = "lineage_unknown"
)

// Meaning is what a code says, and how bad it is.
type Meaning struct {
	Verdict receipts.Verdict
	Text    string
}

// Codes are all codes, and what they mean. Whoever checks elsewhere has the same.
var Codes = map[Code]Meaning{
	PackMalformed: {receipts.Malformed, "this is no pack in the form this version knows"},
	FileMissing:   {receipts.Incomplete, "a file that each pack has, or that this one lists, is not there"},
	FileExtra:     {receipts.Tampered, "a file is there that the pack does not list, or that no pack has"},
	FileTwice:     {receipts.Tampered, "two files have one name"},
	SumDiffers:    {receipts.Tampered, "a file is not the one whose sum the pack states"},

	Origin:              {receipts.Tampered, "it is of another log than the key is"},
	CheckpointSignature: {receipts.Tampered, "the checkpoint is not signed by the log's key"},
	CheckpointDiffers:   {receipts.Tampered, "a receipt is proved by another checkpoint than that of the pack"},
	WitnessSignature:    {receipts.Tampered, "the signature of a witness on the checkpoint does not hold"},
	WitnessMissing:      {receipts.Incomplete, "fewer witnesses have cosigned the checkpoint than must have"},
	Consistency:         {receipts.Tampered, "the log does not begin with what the earlier checkpoint covers"},
	TrustedRoot:         {receipts.Tampered, "trusted_root.json is of another log key"},
	LogKeyDiffers:       {receipts.Tampered, "log.vkey is of another log key"},
	KeyUntrusted:        {receipts.Tampered, "a receipt key in the pack is neither trusted, nor introduced by a receipt of one that is"},

	KeyEvent: {receipts.Tampered, "what a receipt says of a key cannot be"},

	BundleMalformed:  {receipts.Malformed, "it is no bundle in the one form a pack has"},
	Base64:           {receipts.Malformed, "base64 that encodes to another text when decoded and encoded again"},
	KeyOther:         {receipts.Tampered, "it is signed by another key than those that are trusted"},
	KeyDiffers:       {receipts.Tampered, "the statement names another key than the one that signed it"},
	KeyNotThen:       {receipts.Tampered, "it is signed by a key that does not sign there: not yet or no more, or of which nothing is to be believed from there on"},
	HintDiffers:      {receipts.Tampered, "the bundle hints at another key than the one that signed it"},
	SignatureForm:    {receipts.Tampered, "the signature is not in the one form it may have"},
	Signature:        {receipts.Tampered, "the signature does not hold"},
	PayloadMalformed: {receipts.Malformed, "the payload is no statement in the form this version knows"},
	SeqMoved:         {receipts.Tampered, "it stands in the place of another receipt"},
	IndexDiffers:     {receipts.Tampered, "it is proved at another index than its own"},
	LeafDiffers:      {receipts.Tampered, "the entry of the log is not of this receipt"},
	Inclusion:        {receipts.Tampered, "the proof that the log has it does not hold"},

	ReceiptMissing:  {receipts.Incomplete, "a receipt is missing"},
	ReceiptExtra:    {receipts.Tampered, "a receipt is there that is not of what the pack says it holds"},
	ListDiffers:     {receipts.Tampered, "receipts.jsonl does not list these receipts"},
	EvidenceDiffers: {receipts.Tampered, "the evidence is not the one whose digest the receipt states"},
	EvidenceMissing: {receipts.Incomplete, "evidence that is needed is not there"},
	KeysDiffer:      {receipts.Tampered, "keys/manifest.json is not what the receipts say of keys"},
	ReadmeDiffers:   {receipts.Tampered, "README.md is not what follows from the pack: do not run what it says"},
	PolicyDiffers:   {receipts.Tampered, "a policy bundle is not the one its name says"},
	PolicyMissing:   {receipts.Incomplete, "a policy bundle is not there that the receipt was judged by, or puts in force"},

	ReceiptTwice:  {receipts.Tampered, "two receipts have one id"},
	VerdictTwice:  {receipts.Tampered, "a signed verdict is used a second time"},
	VerdictAlone:  {receipts.Tampered, "a signed verdict is logged that the receipt after it does not rest on, or a receipt rests on one that is logged elsewhere"},
	TenantOther:   {receipts.Tampered, "it is of another tenant"},
	TimeBack:      {receipts.Tampered, "the time goes back"},
	EpochBack:     {receipts.Tampered, "the epoch goes back"},
	ParentSelf:    {receipts.Tampered, "it is its own parent"},
	ParentFuture:  {receipts.Tampered, "a parent comes after it"},
	ParentUnknown: {receipts.Tampered, "a parent is not in the log"},
	ParentMissing: {receipts.Incomplete, "a parent is not in the pack"},
	MoveIllegal:   {receipts.Tampered, "an object makes a move its states do not have"},
	MoveFrom:      {receipts.Tampered, "an object moves from a state it was not in"},
	MoveGap:       {receipts.Incomplete, "how an object came to the state it moves from is not in the pack"},
	RunGap:        {receipts.Incomplete, "a receipt of a run is missing"},
	RunBack:       {receipts.Tampered, "the sequence of a run goes back"},

	RunScope:     {receipts.Incomplete, "the pack is of another run than the one that is asked for, and says of that one nothing whole"},
	RunUnknown:   {receipts.Incomplete, "the pack has no receipt of the run"},
	RunBegin:     {receipts.Tampered, "something comes before the run is created"},
	RunOpen:      {receipts.Incomplete, "the run has not ended"},
	RunTasksOpen: {receipts.Tampered, "the run is done while a task of it is not over"},
	RunTasksGap:  {receipts.Incomplete, "the run is done, and how a task of it ended is not in the pack"},
	RunAfterEnd:  {receipts.Tampered, "the run, or a task of it, moves on after the end"},

	CloseBypassed:     {receipts.Tampered, "the run asks for a verdict and is done without one"},
	CloseRole:         {receipts.Tampered, "the verdict is not a verifier's"},
	VerdictMissing:    {receipts.Tampered, "a task asks for a verdict and is done without one"},
	VerdictStale:      {receipts.Tampered, "the verdict does not follow from the last change of what it judges"},
	VerdictOther:      {receipts.Tampered, "the verdict names another receipt than the last change of what it judges"},
	VerdictGate:       {receipts.Tampered, "a check that was asked for has not passed"},
	GateMissing:       {receipts.Tampered, "a gate that a result must pass was not passed: no receipt of another's gate, begun after that result, says so last, or the verdict does not name it"},
	QuorumMissing:     {receipts.Tampered, "fewer verdicts accept it than it asks for, on the last change of what they judge and named by the one that ends it"},
	QuorumTwice:       {receipts.Tampered, "two of the verdicts that accept it are of verifiers who are not told apart"},
	VerdictUnsigned:   {receipts.Tampered, "who judges has a key, and has not signed the verdict with it"},
	VerdictSays:       {receipts.Tampered, "the verdict that is signed is not the one the receipt names, or does not say what that does"},
	VerdictKey:        {receipts.Tampered, "the verdict is signed with a key that who judges did not have then"},
	VerdictSignature:  {receipts.Tampered, "the verifier's signature does not hold"},
	VerdictAbout:      {receipts.Tampered, "the verdict that is signed is about something else than what it judges"},
	VerdictUntrusted:  {receipts.Tampered, "the run does not end by a verdict signed with a verifier's key that is trusted"},
	LineageSession:    {receipts.Tampered, "who judges had a part in the run in the same session"},
	LineageAgent:      {receipts.Tampered, "who judges had a part in the run as the same agent"},
	LineageKey:        {receipts.Tampered, "who judges signs with a key of somebody who had a part in the run"},
	LineageController: {receipts.Tampered, "who judges, or answers for that, is behind somebody who had a part in the run"},
	LineageOpener:     {receipts.Tampered, "whoever opened the session of who judges had a part in the run"},
	LineageUnknown:    {receipts.Incomplete, "how a session was opened, or what an agent was registered with, is not in the pack"},
}

// Finding is one thing that is wrong.
type Finding struct {
	Code    Code           `json:"code"`
	Verdict string         `json:"verdict"`
	Seq     int64          `json:"seq"` // -1: of no receipt
	Receipt writ.ReceiptID `json:"receipt,omitempty"`
	Text    string         `json:"text"`
}

// Report is what a check of a pack found.
type Report struct {
	Verdict  string    `json:"verdict"`
	Exit     int       `json:"exit"`
	Trust    string    `json:"trust"`
	Log      string    `json:"log,omitempty"`
	Scope    Scope     `json:"scope"`
	Size     int64     `json:"size"` // of the log, by the checkpoint
	Receipts int64     `json:"receipts"`
	Evidence int64     `json:"evidence"`
	Policies int64     `json:"policies"`
	Promised Promises  `json:"promised"`
	Earlier  *int64    `json:"earlier"`       // size of the earlier checkpoint in the pack, with which the log begins; nil: there is none, or it does not
	Rules    bool      `json:"rules_checked"` // what must hold between receipts; not looked at where single ones are bad
	Run      *RunFacts `json:"run,omitempty"`
	Findings []Finding `json:"findings"`

	Witnesses []Witnessed `json:"witnesses,omitempty"` // who cosigned the checkpoint, of those that were asked for
}

// Promises are what a pack says it has all of. Its word is not signed: what it does not promise may have been left out.
type Promises struct {
	Evidence bool `json:"evidence"`
	Policies bool `json:"policies"`
}

func (p Promises) String() string {
	switch p {
	case Promises{true, true}:
		return "all evidence and all policies"
	case Promises{true, false}:
		return "all evidence; that policies were left out would not show"
	case Promises{false, true}:
		return "all policies; that evidence was left out would not show"
	}
	return "nothing: that evidence or policies were left out would not show"
}

// Witnessed is a witness that cosigned the checkpoint, and when.
type Witnessed struct {
	Name string `json:"name"`
	At   string `json:"at"`
}

// What a report rests on.
const (
	TrustPinned = "pinned keys"
	TrustNone   = "self-consistent only"
)

// MaxFindings bounds a report.
const MaxFindings = 200

func (r *Report) find(c Code, seq int64, id writ.ReceiptID) {
	m := Codes[c]
	if int(m.Verdict) != 0 && len(r.Findings) < MaxFindings {
		r.Findings = append(r.Findings, Finding{Code: c, Verdict: m.Verdict.String(), Seq: seq, Receipt: id, Text: m.Text})
	}
	r.settle(m.Verdict)
}

// settle keeps the worst: tampered, then malformed, then incomplete.
func (r *Report) settle(v receipts.Verdict) {
	if r.Exit == 0 || int(v) < r.Exit {
		r.Exit, r.Verdict = int(v), v.String()
	}
}

// Has says whether a code was found.
func (r *Report) Has(c Code) bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Code == c })
}

// sort puts findings in the order of the log.
func (r *Report) sort() {
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return cmp.Or(cmp.Compare(a.Seq, b.Seq), cmp.Compare(a.Code, b.Code)) })
}
