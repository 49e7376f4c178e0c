package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"
)

// printable replaces control characters, so that no agent's words can move the
// cursor of an operator's terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != ' ' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
			return '�'
		}
		return r
	}, s)
}

// render writes a reply as JSON or as a table for people.
func render(w io.Writer, format string, raw json.RawMessage) error {
	if len(bytes.TrimSpace(raw)) == 0 || string(raw) == "null" {
		return nil
	}
	if format == "json" {
		var b bytes.Buffer
		if err := json.Indent(&b, raw, "", "  "); err != nil {
			return err
		}
		b.WriteByte('\n')
		_, err := w.Write(b.Bytes())
		return err
	}
	v, err := ordered(raw)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	if obj, ok := v.(object); ok {
		var scalars object
		for _, f := range obj {
			if rows, ok := f.value.([]any); ok && len(rows) > 0 && isObject(rows[0]) && len(obj) <= 4 {
				if err := table(t, rows); err != nil {
					return err
				}
				continue
			}
			scalars = append(scalars, f)
		}
		for _, f := range scalars {
			if _, err := fmt.Fprintf(t, "%s\t%s\n", printable(f.name), cell(f.value)); err != nil {
				return err
			}
		}
	} else if _, err := fmt.Fprintln(t, cell(v)); err != nil {
		return err
	}
	return t.Flush()
}

// table prints the scalar fields of a list of objects as columns.
func table(t io.Writer, rows []any) error {
	var columns []string
	for _, f := range rows[0].(object) {
		switch f.value.(type) {
		case object, []any:
		default:
			columns = append(columns, f.name)
		}
	}
	if i := slices.Index(columns, "state"); i > 1 { // what one looks for must not be cut off
		columns = slices.Insert(slices.Delete(columns, i, i+1), 1, "state")
	}
	columns = columns[:min(len(columns), 8)]
	fmt.Fprintln(t, strings.ToUpper(strings.Join(columns, "\t")))
	for _, r := range rows {
		obj, ok := r.(object)
		if !ok {
			continue
		}
		var cells []string
		for _, c := range columns {
			cells = append(cells, cell(obj.get(c)))
		}
		if _, err := fmt.Fprintln(t, strings.Join(cells, "\t")); err != nil {
			return err
		}
	}
	return nil
}

func cell(v any) string {
	switch x := v.(type) {
	case nil:
		return ""
	case string:
		return printable(x)
	case json.Number, bool:
		return fmt.Sprint(x)
	case []any:
		var out []string
		for _, e := range x {
			out = append(out, cell(e))
		}
		return strings.Join(out, ", ")
	case object:
		var out []string
		for _, f := range x {
			out = append(out, printable(f.name)+"="+cell(f.value))
		}
		return strings.Join(out, " ")
	}
	return fmt.Sprint(v)
}

// object is a JSON object with its fields in the order of the text.
type object []member

type member struct {
	name  string
	value any
}

func (o object) get(name string) any {
	for _, f := range o {
		if f.name == name {
			return f.value
		}
	}
	return nil
}

func isObject(v any) bool { _, ok := v.(object); return ok }

func ordered(raw []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	return value(d)
}

func value(d *json.Decoder) (any, error) {
	tok, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch tok {
	case json.Delim('{'):
		obj := object{}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, err
			}
			v, err := value(d)
			if err != nil {
				return nil, err
			}
			obj = append(obj, member{fmt.Sprint(name), v})
		}
		_, err := d.Token()
		return obj, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := value(d)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.Token()
		return list, err
	}
	return tok, nil
}
