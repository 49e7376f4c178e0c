// Package guard is the one door. Door.Do takes every call through the same
// steps (authenticate, read, judge, plan, commit, seal); nothing else in the
// program commits. The sweeper and the dispatcher live here too, because they
// are the only other code that touches the store, and they act by making calls.
package guard
