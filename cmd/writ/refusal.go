package main

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/gateway"
)

// refusal is a command that failed, as -o json prints it: the problem (RFC 9457) the
// gateway answered with, with its status. What went wrong on this side has none, and the
// code usage or failed where no code of the API fits.
type refusal struct {
	gateway.Problem
	Status     int   `json:"status,omitempty"`
	RetryAfter int64 `json:"retry_after_s,omitempty"` // when the same call may do
	Exit       int   `json:"exit_code"`
}

const (
	codeUsage  writ.Code = "usage"  // the command line, a file or an argument is wrong
	codeFailed writ.Code = "failed" // something else on this side
)

// refusalOf is what there is to say about an error that ends with an exit code.
func refusalOf(err error, exit int) refusal {
	e, ok := errors.AsType[*writ.Error](err)
	if !ok {
		r := refusal{Exit: exit}
		r.Type, r.Title, r.Code, r.Detail = "about:blank", "The command failed", codeFailed, err.Error()
		u, wrong := errors.AsType[usageError](err)
		if wrong {
			r.Hint = u.command + " --help"
		}
		if wrong || exit == exitUsage {
			r.Title, r.Code = "The command line is wrong", codeUsage
		}
		return r
	}
	r := refusal{Problem: *gateway.ProblemOf(e), RetryAfter: (e.RetryMs + 999) / 1000, Exit: exit}
	if e.Op == "gateway" && e.Code != writ.CodeApprovalRequired { // which waits, and is answered as accepted
		r.Status = gateway.StatusOf(e.Code)
	}
	r.RequestID = r.Details["request_id"] // where the client keeps it
	delete(r.Details, "request_id")
	if len(r.Details) == 0 {
		r.Details = nil
	}
	if e.Err != nil && !strings.Contains(e.Msg, e.Err.Error()) { // of what went wrong on this side
		r.Detail = strings.TrimPrefix(e.Msg+": "+e.Err.Error(), ": ")
	}
	return r
}

// printRefusal writes it as one line.
func printRefusal(w io.Writer, r refusal) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err == nil {
		_, _ = w.Write(escaped([]byte(b.String())))
	}
}

// unsound ends a command whose file is wrong in itself. For people that has been said;
// as JSON it is one refusal.
func unsound(c *cobra.Command, format, what string, wrong []writ.FieldError) error {
	if format == "json" {
		e := &writ.Error{Code: writ.CodeInputInvalid, Msg: what, Hint: "mend what errors names", Fields: wrong}
		printRefusal(c.ErrOrStderr(), refusalOf(e, exitError))
	}
	return exitStatus(exitError)
}

// misread says whether an error is that a file is not there that somebody named: that
// is wrong usage, whichever command it is and whatever the file is for.
func misread(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// there refuses a file or directory that is not there, before anything else is said
// about what it holds.
func there(name string) error {
	if _, err := os.Stat(name); misread(err) {
		return err
	}
	return nil
}

// absent is such an error in words of our own.
type absent struct{ error }

func (absent) Is(target error) bool { return target == fs.ErrNotExist }

// wantsJSON says whether a command was asked for JSON. Flags behind one that is wrong
// were not read, so the words themselves are looked at then.
func wantsJSON(c *cobra.Command, words []string) bool {
	if c == nil {
		return false
	}
	f := c.Flags().Lookup("output")
	if f == nil || f.DefValue == "" { // there is none, or it names a file
		return false
	}
	if f.Changed {
		return f.Value.String() == "json"
	}
	if i := slices.Index(words, "--"); i >= 0 {
		words = words[:i]
	}
	for i, w := range words {
		next := ""
		if i+1 < len(words) {
			next = words[i+1]
		}
		if w == "-ojson" || w == "-o=json" || w == "--output=json" || (w == "-o" || w == "--output") && next == "json" {
			return true
		}
	}
	return false
}

// inFile turns pointers into the arguments of run.create into those into the file of a
// workflow they were made of.
func inFile(err error) error {
	e, ok := errors.AsType[*writ.Error](err)
	if !ok {
		return err
	}
	out := *e
	out.Fields = slices.Clone(e.Fields)
	for i := range out.Fields {
		out.Fields[i].Pointer = strings.TrimPrefix(out.Fields[i].Pointer, "/workflow")
	}
	return &out
}
