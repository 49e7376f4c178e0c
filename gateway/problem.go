package gateway

import (
	"maps"
	"net/http"
	"strconv"

	stdjson "encoding/json"

	"github.com/danielgtaylor/huma/v2"

	"github.com/writ-gateway/writ"
)

// ProblemType is the URI a code's problem type begins with (RFC 9457, 3.1.1).
const ProblemType = "https://writ-gateway.github.io/writ/problems/"

const problemJSON = "application/problem+json"

// kindOf is the one table from codes to HTTP: every status of a refusal is
// decided here and nowhere else.
var kindOf = map[writ.Code]struct {
	Status int
	Title  string
}{
	writ.CodeMalformed:        {http.StatusBadRequest, "The request is not well formed"},
	writ.CodeUnauthenticated:  {http.StatusUnauthorized, "No valid credential"},
	writ.CodeRBAC:             {http.StatusForbidden, "The role may not do this"},
	writ.CodePolicy:           {http.StatusForbidden, "Denied by policy"},
	writ.CodeScope:            {http.StatusForbidden, "Outside the agent's write scope"},
	writ.CodeBudget:           {http.StatusForbidden, "The budget is used up"},
	writ.CodeClassification:   {http.StatusForbidden, "The data may not flow there"},
	writ.CodeEgress:           {http.StatusForbidden, "The call may not go there"},
	writ.CodeSoD:              {http.StatusForbidden, "Nobody judges what they had a part in"},
	writ.CodeApprovalRequired: {http.StatusForbidden, "A person must agree first"},
	writ.CodeApprovalDenied:   {http.StatusForbidden, "A person has not agreed"},
	writ.CodeNotHolder:        {http.StatusForbidden, "Somebody else holds the lease"},
	writ.CodeNotEligible:      {http.StatusForbidden, "This agent may not take the task"},
	writ.CodeNotFound:         {http.StatusNotFound, "Not found"},
	writ.CodeIllegal:          {http.StatusConflict, "The state does not allow this"},
	writ.CodeVersion:          {http.StatusConflict, "The version has changed"},
	writ.CodeClaimed:          {http.StatusConflict, "Already claimed"},
	writ.CodeLeaseLost:        {http.StatusConflict, "The lease is lost"},
	writ.CodeScopeConflict:    {http.StatusConflict, "An overlapping scope is held"},
	writ.CodeVerdict:          {http.StatusForbidden, "The signature of a verdict is missing or does not count"},
	writ.CodePredicate:        {http.StatusConflict, "What must be shown is missing or out of date"},
	writ.CodeHandoffLoop:      {http.StatusConflict, "The work was handed on too often"},
	writ.CodeArtifact:         {http.StatusConflict, "An artifact is not what its digest says"},
	writ.CodeDeps:             {http.StatusConflict, "The task depends on others that have not ended"},
	writ.CodePreflight:        {http.StatusConflict, "An agent the work needs is not healthy"},
	writ.CodeExists:           {http.StatusConflict, "Already exists"},
	writ.CodeUnavailable:      {http.StatusConflict, "The capability is not callable now"},
	writ.CodeTokenIssued:      {http.StatusConflict, "The token was shown once already"},
	writ.CodeInFlight:         {http.StatusConflict, "The request of this key is being carried out"},
	writ.CodeEffectUnknown:    {http.StatusConflict, "Nobody knows whether it has happened"},
	writ.CodeEffectStopped:    {http.StatusConflict, "It was stopped before its end"},
	writ.CodeEffectFailed:     {http.StatusBadGateway, "What was to be done outside did not succeed"},
	writ.CodeShredded:         {http.StatusGone, "The evidence was shredded"},
	writ.CodeTooLarge:         {http.StatusRequestEntityTooLarge, "The body is too large"},
	writ.CodeInputInvalid:     {http.StatusUnprocessableEntity, "The arguments are not valid"},
	writ.CodeNoAgent:          {http.StatusUnprocessableEntity, "No agent could ever run this"},
	writ.CodeIdempotency:      {http.StatusUnprocessableEntity, "The key belongs to another request"},
	writ.CodePaused:           {http.StatusLocked, "The run is paused"},
	writ.CodeQuota:            {http.StatusTooManyRequests, "Over a quota"},
	writ.CodeBackpressure:     {http.StatusTooManyRequests, "Too busy"},
	writ.CodeContention:       {http.StatusServiceUnavailable, "Too many conflicting changes"},
	writ.CodeStore:            {http.StatusServiceUnavailable, "The store is unavailable"},
	writ.CodePolicyDown:       {http.StatusServiceUnavailable, "Policy cannot answer"},
	writ.CodeReceiptPending:   {http.StatusServiceUnavailable, "Committed, but not yet sealed"},
	writ.CodeUpgrade:          {http.StatusServiceUnavailable, "Written by a newer version"},
	writ.CodeNotReady:         {http.StatusServiceUnavailable, "Not ready"},
	writ.CodeInternal:         {http.StatusInternalServerError, "Internal error"},
}

// StatusOf is the HTTP status a code is answered with; 500 for one it does not
// know. A condition of the caller that does not hold (If-Match) is 412 instead
// (RFC 9110, 13.1.1).
func StatusOf(c writ.Code) int {
	if k, ok := kindOf[c]; ok {
		return k.Status
	}
	return http.StatusInternalServerError
}

// Statuses are all HTTP statuses a code may be answered with.
func Statuses(c writ.Code) []int {
	if c == writ.CodeVersion {
		return []int{StatusOf(c), http.StatusPreconditionFailed}
	}
	return []int{StatusOf(c)}
}

// Problem is the body of every refusal (RFC 9457).
type Problem struct {
	Type       string            `json:"type" doc:"URI of the kind of problem; ends in the code." format:"uri"`
	Title      string            `json:"title" doc:"What the code means."`
	Status     int               `json:"status" doc:"HTTP status." minimum:"400" maximum:"599"`
	Code       writ.Code         `json:"code" doc:"Stable name of the failure."`
	Detail     string            `json:"detail,omitempty" doc:"What went wrong this time. Never repeats what was sent."`
	Hint       string            `json:"hint,omitempty" doc:"What the caller can do next."`
	RequestID  string            `json:"request_id,omitempty" doc:"Id of the call, for the operator's log."`
	RuleIDs    []string          `json:"rule_ids,omitempty" doc:"Policy rules that held, strongest first."`
	Receipt    writ.ReceiptID    `json:"receipt,omitempty" doc:"Receipt of the denial."`
	Aggregated bool              `json:"aggregated,omitempty" doc:"The denial is counted in an aggregate receipt instead of one of its own."`
	Errors     []writ.FieldError `json:"errors,omitempty" doc:"Places in the arguments that are wrong."`
	Missing    []string          `json:"missing,omitempty" doc:"Required arguments that were absent."`
	Probes     []writ.Probe      `json:"probes,omitempty" doc:"Endpoints of the agents that are not healthy."`
	Details    map[string]string `json:"details,omitempty" doc:"Ids and states that explain the refusal, for example from and to."`
}

func (p *Problem) Error() string           { return string(p.Code) }
func (p *Problem) GetStatus() int          { return p.Status }
func (*Problem) ContentType(string) string { return problemJSON }

var _ huma.StatusError = (*Problem)(nil)

// ProblemOf renders a refusal for somebody who is told of it in another way than by
// HTTP, in the same form. What went wrong inside is said as it is.
func ProblemOf(e *writ.Error) *Problem {
	p := problemOf(e, "")
	if e.Code == writ.CodeInternal {
		p.Detail, p.Hint = e.Msg, e.Hint
		p.Details = maps.Clone(e.Details)
	}
	return p
}

// bareProblem is a problem that says nothing but its status.
func bareProblem(status int) *Problem {
	p := problemOf(&writ.Error{Code: codeOfStatus(status)}, "")
	p.Status = status
	return p
}

func codeOfStatus(status int) writ.Code {
	switch {
	case status == http.StatusUnauthorized:
		return writ.CodeUnauthenticated
	case status == http.StatusNotFound:
		return writ.CodeNotFound
	case status == http.StatusRequestEntityTooLarge:
		return writ.CodeTooLarge
	case status >= 400 && status < 500:
		return writ.CodeMalformed
	}
	return writ.CodeInternal
}

// problemOf renders an error for the caller. Of an internal error nothing is
// shown but the id under which the log has it.
func problemOf(e *writ.Error, id writ.CallID) *Problem {
	code := e.Code
	k, ok := kindOf[code]
	if !ok {
		code = writ.CodeInternal
		k = kindOf[code]
	}
	p := &Problem{Type: ProblemType + string(code), Title: k.Title, Status: k.Status, Code: code, RequestID: string(id)}
	if code == writ.CodeInternal {
		p.Detail, p.Hint = "something went wrong inside the gateway", "give the operator the request_id"
		return p
	}
	p.Detail, p.Hint = e.Msg, e.Hint
	p.RuleIDs, p.Receipt, p.Aggregated = e.Rules, e.Receipt, e.Aggregated
	p.Errors, p.Missing = e.Fields, e.Missing
	p.Probes = e.Probes
	p.Details = maps.Clone(e.Details)
	return p
}

// retryAfter is the value of Retry-After in seconds (RFC 9110, 10.2.3),
// rounded up; "" when repeating the call would not help.
func retryAfter(e *writ.Error) string {
	switch status := StatusOf(e.Code); {
	case e.RetryMs > 0:
		return strconv.FormatInt((e.RetryMs+999)/1000, 10)
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		return "1"
	}
	return ""
}

// writeProblem answers with an error.
func writeProblem(w http.ResponseWriter, e *writ.Error, id writ.CallID) {
	status := StatusOf(e.Code)
	if e.Precondition && status < 500 {
		status = http.StatusPreconditionFailed
	}
	writeProblemAs(w, status, e, id)
}

// writeProblemAs answers with a status that HTTP itself asks for.
func writeProblemAs(w http.ResponseWriter, status int, e *writ.Error, id writ.CallID) {
	p := problemOf(e, id)
	p.Status = status
	body, err := stdjson.Marshal(p)
	if err != nil { // a map of strings and strings: cannot happen
		body = []byte(`{"code":"internal","status":500}`)
	}
	h := w.Header()
	h.Set("Content-Type", problemJSON)
	if s := retryAfter(e); s != "" {
		h.Set("Retry-After", s)
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="writ"`) // RFC 6750, section 3
	}
	if p.Receipt != "" {
		h.Set("Receipt-Id", string(p.Receipt))
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n'))
}
