package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxColumns is how many columns a table has, and maxCell how wide a list may be in one.
const (
	maxColumns = 8
	maxCell    = 40
)

// preferred are the columns one looks for first, by the name of the list. They may be
// lists of words; what is not named follows as it does in any table.
var preferred = map[string][]string{
	"agents":    {"agent_id", "state", "domain", "archetypes", "owns", "write_scope", "superseded_by", "max_concurrent_tasks"},
	"approvals": {"approval_id", "state", "kind", "capability", "subject", "run_id", "expires_at", "uses"},
	"effects":   {"effect_id", "state", "capability", "attempt", "principal", "run_id", "lease_ends_at", "updated_at"},
	"grants":    {"grant_id", "host", "port", "mode", "methods", "agents", "credential_ref", "expires_at"},
	"keys":      {"key_id", "purpose", "state", "from", "until", "revoked_from", "ready", "waiting"},
	"quotas":    {"quota_id", "metric", "subject", "value", "used", "limit", "action", "window_ends_at"},
	"secrets":   {"name", "secret_version", "host", "header", "secret_id", "key_id", "set_by", "updated_at"},
	"sessions":  {"session_id", "state", "principal", "kind", "role", "agent_id", "expires_at", "heartbeat_ttl_s"},
	"tasks":     {"task_id", "key", "state", "capability", "attempt", "failure", "assignable", "priority"},
}

// columnsOf picks the columns of a list of objects: of all members of all rows, what is
// preferred, then what the object is and where it stands, at the end when and by what it
// was changed. What no row has anything in is no column.
func columnsOf(list string, rows []any) []string {
	want := preferred[list]
	var names []string
	for _, r := range rows {
		obj, _ := r.(object)
		at := 0 // where a member goes that the rows before did not have: after the one it follows here
		for _, f := range obj {
			if i := slices.Index(names, f.name); i >= 0 {
				at = i + 1
			} else if cell(f.value) != "" && (scalar(f.value) || fitsLine(f.value) && slices.Contains(want, f.name)) {
				names = slices.Insert(names, at, f.name)
				at++
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	rank := func(name string) int {
		if i := slices.Index(want, name); i >= 0 {
			return i - len(want)
		}
		return late(name, name == names[0])
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
	return names[:min(len(names), maxColumns)]
}

// late says how far to the right a member stands that nobody prefers: what names the
// object and its state first, how it came to be so last.
func late(name string, first bool) int {
	switch {
	case first:
		return 0
	case name == "state":
		return 1
	case name == "receipt", name == "version":
		return 4
	case strings.HasSuffix(name, "_at"), strings.HasSuffix(name, "_by"), strings.HasSuffix(name, "_digest"), strings.HasSuffix(name, "_revision"):
		return 3
	}
	return 2
}

// narrow is a cell of a table: of a long list the first, and how many there are.
func narrow(v any) string {
	text := cell(v)
	if list, ok := v.([]any); ok && len(list) > 1 && len(text) > maxCell {
		return fmt.Sprintf("%s, … (%d)", cell(list[0]), len(list))
	}
	return text
}
