package writ

import (
	"bytes"
	"maps"
	"slices"
	"sync"
)

// DocCache remembers documents in their decoded form, so that those that
// hardly ever change (gate, sessions, agents, runs) are not parsed again in
// every call. What is remembered under a key counts only for the very bytes it
// was decoded from, so it is never out of date, and every reader gets a copy.
// The zero DocCache is ready; it is safe for concurrent use.
type DocCache struct {
	mu sync.Mutex
	m  map[Key]decoded
}

type decoded struct {
	body []byte
	doc  any // *T, shared and never changed
}

// copied is a document that can be remembered: Copy shares no memory with it.
type copied[T any] interface{ Copy() T }

// Bounds of a cache. A full one is emptied: what is in use is soon back.
const (
	cacheDocs  = 1024
	cacheBytes = 16 << 10 // of one document; so much are all quotas there can be
)

// recall finds the document decoded from these bytes.
func recall[T any](c *DocCache, k Key, body []byte) (doc T, ok bool) {
	if _, can := any((*T)(nil)).(copied[T]); c == nil || !can {
		return doc, false
	}
	c.mu.Lock()
	d := c.m[k]
	c.mu.Unlock()
	if p, is := d.doc.(*T); is && bytes.Equal(d.body, body) {
		return any(p).(copied[T]).Copy(), true
	}
	return doc, false
}

// remember keeps a copy of a document decoded from body.
func remember[T any](c *DocCache, k Key, body []byte, doc T) {
	if _, can := any((*T)(nil)).(copied[T]); c == nil || !can || len(body) > cacheBytes {
		return
	}
	own := any(&doc).(copied[T]).Copy()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil || len(c.m) >= cacheDocs {
		c.m = map[Key]decoded{}
	}
	c.m[k] = decoded{body: bytes.Clone(body), doc: &own}
}

// Copy returns the gate.
func (g Gate) Copy() Gate { return g }

// Copy returns a session that shares no memory with s.
func (s Session) Copy() Session {
	s.Openers, s.Behind, s.WriteClaims = slices.Clone(s.Openers), slices.Clone(s.Behind), slices.Clone(s.WriteClaims)
	return s
}

// Copy returns a run that shares no memory with r.
func (r Run) Copy() Run {
	r.Budget, r.Grants = maps.Clone(r.Budget), slices.Clone(r.Grants)
	if r.Workflow != nil {
		w := *r.Workflow
		w.Wrong, w.Outputs, w.Counted = slices.Clone(w.Wrong), slices.Clone(w.Outputs), slices.Clone(w.Counted)
		r.Workflow = &w
	}
	return r
}

// Copy returns an agent that shares no memory with a.
func (a Agent) Copy() Agent {
	a.Archetypes = slices.Clone(a.Archetypes)
	a.Keys = slices.Clone(a.Keys)
	a.WriteScope = slices.Clone(a.WriteScope)
	a.Owns, a.Defers, a.Gates, a.WorkGates = slices.Clone(a.Owns), slices.Clone(a.Defers), slices.Clone(a.Gates), slices.Clone(a.WorkGates)
	if a.Halt != nil {
		h := *a.Halt
		a.Halt = &h
	}
	if a.Jail != nil {
		j := *a.Jail
		j.Args = slices.Clone(j.Args)
		a.Jail = &j
	}
	if a.Routing != nil {
		a.Routing = &Routing{Keywords: slices.Clone(a.Routing.Keywords), Priority: a.Routing.Priority}
	}
	a.Endpoints = slices.Clone(a.Endpoints)
	for i := range a.Endpoints {
		a.Endpoints[i].Codes = slices.Clone(a.Endpoints[i].Codes)
	}
	if a.Health != nil {
		rule := *a.Health
		a.Health = &rule
	}
	a.Tools = slices.Clone(a.Tools)
	for i := range a.Tools {
		a.Tools[i].Sinks = slices.Clone(a.Tools[i].Sinks)
		a.Tools[i].Costs = a.Tools[i].Costs.Copy()
		a.Tools[i].InputSchema = slices.Clone(a.Tools[i].InputSchema)
	}
	return a
}
