package guard

import (
	"context"
	"reflect"
	"strconv"
	"strings"

	"github.com/writ-gateway/writ"
)

// limit puts smaller values in place of those arguments that policy limits, for
// the rest of this try: the plan, what people are asked about and what they
// agreed to are of the call that would run. The arguments as they were asked
// come back with unlimit; evidence is of them.
func (t *try) limit(ctx context.Context) error {
	if len(t.dec.Duties.Limits) == 0 {
		return nil
	}
	var smaller []writ.Limit
	args := reflect.New(t.k.Args)
	args.Elem().Set(reflect.ValueOf(t.call.Args).Elem())
	for _, l := range t.dec.Duties.Limits {
		a, ok := integer(args.Elem(), l.Argument)
		switch {
		case !ok:
			t.d.cfg.Log.ErrorContext(ctx, "policy limits what is no integer argument of the call, so the call is denied; mend the pack",
				"argument", l.Argument, "capability", t.k.ID, "rules", t.dec.Rules())
			return t.owes("policy limits an argument that this call does not have", "operators see in the log which; nobody can make this call until the pack is mended")
		case !a.known:
			return t.owes("policy limits an argument that is left out", "send it: "+l.Argument+", at most "+strconv.FormatInt(l.Max, 10)).With("argument", l.Argument)
		case a.value.Int() <= l.Max:
		case a.bounded && l.Max < a.least:
			t.d.cfg.Log.ErrorContext(ctx, "policy limits an argument to less than its schema allows, so the call is denied",
				"argument", l.Argument, "max", l.Max, "minimum", a.least, "capability", t.k.ID, "rules", t.dec.Rules())
			return t.owes("policy limits an argument to less than it may be at all", "operators see in the log which rule does").With("argument", l.Argument)
		default:
			a.set(l.Max)
			smaller = append(smaller, l)
		}
	}
	if len(smaller) > 0 {
		if t.asked == nil {
			t.asked = t.call.Args
		}
		t.limited = smaller
		t.call.Args, t.call.Memo = args.Interface(), nil
	}
	return nil
}

// unlimit brings back the arguments as they were asked.
func (t *try) unlimit() {
	if t.asked != nil {
		t.call.Args, t.call.Memo = t.asked, nil
	}
	t.asked, t.limited = nil, nil
}

// argument is an integer argument of a call.
type argument struct {
	field   reflect.Value
	value   reflect.Value // the field, or what it points to
	known   bool          // the caller, or the schema's default, says what it is
	least   int64         // the schema's minimum
	bounded bool          // there is one
}

// integer finds an argument by its name in JSON. One that is left out and has no
// default in the schema is not known: what its absence means is the
// capability's to say, and it may mean more than any limit.
func integer(args reflect.Value, name string) (a argument, ok bool) {
	for _, f := range reflect.VisibleFields(args.Type()) {
		got, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if got != name || !f.IsExported() || f.Anonymous {
			continue
		}
		kind := f.Type
		if kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		if !reflect.Zero(kind).CanInt() {
			return a, false
		}
		var err error
		if a.field, err = args.FieldByIndexErr(f.Index); err != nil {
			return a, false // of a part that was left out
		}
		a.least, err = strconv.ParseInt(f.Tag.Get("minimum"), 10, 64)
		a.bounded = err == nil
		if f.Type.Kind() == reflect.Pointer {
			a.value, a.known = a.field.Elem(), !a.field.IsNil()
			return a, true
		}
		_, defaulted := f.Tag.Lookup("default")
		zeroIsValue := defaulted || !strings.Contains(options, "omitempty") || a.bounded && a.least <= 0
		a.value, a.known = a.field, !a.field.IsZero() || zeroIsValue
		return a, true
	}
	return a, false
}

// set gives the argument another value. What a pointer points to is shared with
// the arguments as they were asked, so it is not written to.
func (a argument) set(v int64) {
	if a.field.Kind() == reflect.Pointer {
		a.field.Set(reflect.New(a.field.Type().Elem()))
		a.field.Elem().SetInt(v)
		return
	}
	a.field.SetInt(v)
}
