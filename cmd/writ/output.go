package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/writ-gateway/writ/internal/printable"
)

// commonFormats are what most commands can print: for people, and as JSON.
var commonFormats = []string{"table", "json"}

// outputFlag is -o of a command that prints in some formats, the first unless told
// otherwise; none named are the common ones.
func outputFlag(c *cobra.Command, format *string, formats ...string) {
	if len(formats) == 0 {
		formats = commonFormats
	}
	c.Flags().StringVarP(format, "output", "o", formats[0], oneOf(formats))
}

// checkFormat refuses what -o does not know.
func checkFormat(c *cobra.Command, format string, formats ...string) error {
	if len(formats) == 0 {
		formats = commonFormats
	}
	if slices.Contains(formats, format) {
		return nil
	}
	return usageError{errors.New("-o wants " + oneOf(formats)), c.CommandPath()}
}

func oneOf(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// shown is a line of a table or a message as a terminal may have it.
func shown(s string) string { return printable.Text(s, "") }

// escaped writes characters that could move the cursor of a terminal, or turn the
// order of its text, as JSON's own escapes: the value stays the same.
func escaped(text []byte) []byte {
	var out []byte
	for _, r := range string(text) {
		switch {
		case r == '\n' || printable.Rune(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			a, b := utf16.EncodeRune(r)
			out = fmt.Appendf(out, "\\u%04x\\u%04x", a, b)
		default:
			out = fmt.Appendf(out, "\\u%04x", r)
		}
	}
	return out
}

// conclude prints what a verification found, and exits with the code of that.
func conclude(c *cobra.Command, format string, verdict any, code int) error {
	b, err := json.Marshal(verdict)
	if err != nil {
		return err
	}
	if err := render(c.OutOrStdout(), format, b); err != nil {
		return err
	}
	return exitWith(code)
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
		_, err := w.Write(escaped(b.Bytes()))
		return err
	}
	v, err := ordered(raw)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	obj, ok := v.(object)
	if !ok {
		fmt.Fprintln(t, cell(v))
		return t.Flush()
	}
	var plain, nested object
	for _, f := range obj {
		rows, isList := f.value.([]any)
		switch {
		case isList && len(rows) == 0 && len(obj) <= 4:
			fmt.Fprintf(t, "no %s\n", shown(strings.ReplaceAll(f.name, "_", " ")))
		case isList && len(rows) > 0 && isObject(rows[0]) && len(obj) <= 4:
			table(t, f.name, rows)
			changes(t, rows)
		case fitsLine(f.value):
			plain = append(plain, f)
		default:
			nested = append(nested, f)
		}
	}
	if err := t.Flush(); err != nil { // what follows is no row of the table
		return err
	}
	for _, f := range plain {
		if text, ok := f.value.(string); ok && len(text) > maxWord && json.Valid([]byte(text)) {
			f.value = fmt.Sprintf("(%d bytes of JSON; -o json shows them)", len(text))
		}
		fmt.Fprintf(t, "%s\t%s\n", shown(f.name), cell(f.value))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, f := range nested {
		if _, err := fmt.Fprintf(w, "\n%s:\n%s", shown(f.name), indented(f.value)); err != nil {
			return err
		}
	}
	return nil
}

// maxLine is how wide a nested value may be that is shown in the line of its
// name, and maxWord how long a word in an indented one.
const (
	maxLine = 100
	maxWord = 160
)

// fitsLine says whether a value is shown beside its name.
func fitsLine(v any) bool {
	switch x := v.(type) {
	case []any:
		return !slices.ContainsFunc(x, func(e any) bool { return !scalar(e) }) && len(cell(v)) <= maxLine
	case object:
		return !slices.ContainsFunc(x, func(f member) bool { return !scalar(f.value) }) && len(cell(v)) <= maxLine
	}
	return true
}

func scalar(v any) bool {
	switch v.(type) {
	case object, []any:
		return false
	}
	return true
}

// indented is a nested value as indented JSON. Words nobody reads, such as the
// payload of an envelope, are cut; -o json has them.
func indented(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("  ", "  ")
	if err := e.Encode(shortened(v)); err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	for i := range lines {
		lines[i] = shown(lines[i])
	}
	return "  " + strings.Join(lines, "\n") + "\n"
}

func shortened(v any) any {
	switch x := v.(type) {
	case string:
		if len(x) > maxWord && !strings.Contains(x, " ") {
			return fmt.Sprintf("%s… (%d bytes; -o json shows them)", strings.ToValidUTF8(x[:40], ""), len(x))
		}
	case []any:
		out := make([]any, len(x))
		for i, e := range x {
			out[i] = shortened(e)
		}
		return out
	case object:
		out := make(object, len(x))
		for i, f := range x {
			out[i] = member{f.name, shortened(f.value)}
		}
		return out
	}
	return v
}

// changes prints below a table what its rows say in detail about changes, each
// with the id of its row.
func changes(t io.Writer, rows []any) {
	var all []any
	for _, r := range rows {
		obj, _ := r.(object)
		list, _ := obj.get("changes").([]any)
		for _, c := range list {
			if change, ok := c.(object); ok {
				row := append(object{{"id", obj.get("id")}}, change...)
				if samples, _ := change.get("samples").([]any); len(samples) > 0 {
					row = append(row, member{"sample", samples[0]})
				}
				all = append(all, row)
			}
		}
	}
	if len(all) > 0 {
		fmt.Fprintln(t)
		table(t, "changes", all)
	}
}

// table prints a list of objects, of which its columns show most of what one looks for.
func table(t io.Writer, list string, rows []any) {
	rows = slices.Clone(rows)
	for i, r := range rows {
		if obj, ok := r.(object); ok && isObject(obj.get("statement")) {
			rows[i] = receiptRow(obj)
		}
	}
	columns := columnsOf(list, rows)
	var heads []string
	for _, c := range columns {
		heads = append(heads, shown(strings.ToUpper(c)))
	}
	fmt.Fprintln(t, strings.Join(heads, "\t"))
	for _, r := range rows {
		obj, ok := r.(object)
		if !ok {
			continue
		}
		var cells []string
		for _, c := range columns {
			cells = append(cells, narrow(obj.get(c)))
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
}

// receiptRow is what one looks for in a list of receipts.
func receiptRow(r object) object {
	at := func(path ...string) any {
		var v any = r
		for _, name := range path {
			o, ok := v.(object)
			if !ok {
				return nil
			}
			v = o.get(name)
		}
		return v
	}
	p := func(path ...string) any { return at(append([]string{"statement", "predicate"}, path...)...) }
	rule := p("code") // of a refusal that no rule made
	if rules, ok := p("decision", "rules").([]any); ok && len(rules) > 0 {
		rule = rules[0]
	}
	return object{
		{"seq", at("seq")},
		{"time", p("commit", "at")},
		{"capability", p("call", "capability")},
		{"outcome", p("outcome")},
		{"effect", p("decision", "effect")},
		{"rule", rule},
		{"run", p("run")},
		{"receipt_id", at("receipt_id")},
	}
}

func cell(v any) string {
	switch x := v.(type) {
	case nil:
		return ""
	case string:
		return shown(x)
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
			out = append(out, shown(f.name)+"="+cell(f.value))
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

// MarshalJSON keeps the order of the fields.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(f.name)
		if err != nil {
			return nil, err
		}
		var v bytes.Buffer
		e := json.NewEncoder(&v)
		e.SetEscapeHTML(false)
		if err := e.Encode(f.value); err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(v.Bytes())
	}
	b.WriteByte('}')
	return b.Bytes(), nil
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
