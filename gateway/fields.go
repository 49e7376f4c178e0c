package gateway

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"github.com/writ-gateway/writ"
)

// maxFields bounds how many places one refusal names.
const maxFields = 32

// JSON pointer escapes (RFC 6901, section 3).
var (
	escapePointer   = strings.NewReplacer("~", "~0", "/", "~1")
	unescapePointer = strings.NewReplacer("~1", "/", "~0", "~")
)

// locate turns the path a checker reported into a JSON pointer (RFC 6901) and
// the schema there. It goes only as far as the path uses words of the schema:
// names a caller made up, unknown members and keys of maps, are cut off.
func (c *catalogue) locate(s *huma.Schema, segments []string) (string, *huma.Schema) {
	var p strings.Builder
	s = c.resolve(s)
	for _, seg := range segments {
		var next *huma.Schema
		switch {
		case s.Type == huma.TypeArray && isIndex(seg):
			next = s.Items
		case s.Type == huma.TypeObject:
			next = s.Properties[seg]
		}
		if next = c.resolve(next); next == nil {
			break
		}
		p.WriteByte('/')
		p.WriteString(escapePointer.Replace(seg))
		s = next
	}
	return p.String(), s
}

func isIndex(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// splitLocation takes Huma's "tools[0].name" apart.
func splitLocation(loc string) []string {
	return strings.FieldsFunc(loc, func(r rune) bool { return r == '.' || r == '[' || r == ']' })
}

// Messages of Huma's validator by what they may hold: constants, constants
// with words of the schema after a prefix, and those that repeat the value.
var (
	plainMessages = []string{
		validation.MsgExpectedRFC3339DateTime, validation.MsgExpectedRFC1123DateTime, validation.MsgExpectedRFC3339Date,
		validation.MsgExpectedRFC3339Time, validation.MsgExpectedRFC5890Hostname, validation.MsgExpectedRFC2673IPv4,
		validation.MsgExpectedRFC2373IPv6, validation.MsgExpectedRFCIPAddr, validation.MsgExpectedRFC6570URITemplate,
		validation.MsgExpectedRFC6901JSONPointer, validation.MsgExpectedRFC6901RelativeJSONPointer,
		validation.MsgExpectedMatchAtLeastOneSchema, validation.MsgExpectedMatchExactlyOneSchema,
		validation.MsgExpectedNotMatchSchema, validation.MsgExpectedBoolean, validation.MsgExpectedNumber,
		validation.MsgExpectedInteger, validation.MsgExpectedString, validation.MsgExpectedBase64String,
		validation.MsgExpectedArray, validation.MsgExpectedObject, validation.MsgExpectedArrayItemsUnique,
	}
	schemaMessages = []string{
		validation.MsgExpectedOneOf, validation.MsgExpectedMinimumNumber, validation.MsgExpectedExclusiveMinimumNumber,
		validation.MsgExpectedMaximumNumber, validation.MsgExpectedExclusiveMaximumNumber,
		validation.MsgExpectedNumberBeMultipleOf, validation.MsgExpectedMinLength, validation.MsgExpectedMaxLength,
		validation.MsgExpectedMatchPattern, validation.MsgExpectedBePattern, validation.MsgExpectedMinItems,
		validation.MsgExpectedMaxItems, validation.MsgExpectedMinProperties, validation.MsgExpectedMaxProperties,
		validation.MsgExpectedDependentRequiredProperty,
	}
	echoingMessages = []string{
		validation.MsgExpectedRFC5322Email, validation.MsgExpectedRFC3986URI, validation.MsgExpectedRFC4122UUID,
		validation.MsgExpectedRegexp, validation.MsgExpectedDuration,
	}
	requiredPrefix, _, _ = strings.Cut(validation.MsgExpectedRequiredProperty, "%")
)

// safeMessage keeps of a validator's message what is certainly not the
// caller's. A message it does not know becomes "not valid".
func safeMessage(msg string) string {
	if slices.Contains(plainMessages, msg) {
		return msg
	}
	for _, m := range echoingMessages {
		if prefix, _, _ := strings.Cut(m, ": %"); strings.HasPrefix(msg, prefix) {
			return prefix
		}
	}
	for _, m := range schemaMessages {
		if prefix, _, _ := strings.Cut(m, "%"); strings.HasPrefix(msg, prefix) {
			return msg
		}
	}
	return "not valid"
}

// findings collects what is wrong with one value.
type findings struct {
	unknown []writ.FieldError // members the schema does not have
	invalid []writ.FieldError
	missing []string
}

// add sorts one error of Huma's validator into the findings.
func (f *findings) add(c *catalogue, s *huma.Schema, d *huma.ErrorDetail) {
	ptr, at := c.locate(s, splitLocation(d.Location))
	switch {
	case d.Message == validation.MsgUnexpectedProperty:
		f.unknown = append(f.unknown, writ.FieldError{Pointer: ptr, Msg: unknownMember(at)})
	case strings.HasPrefix(d.Message, requiredPrefix):
		name := strings.TrimPrefix(d.Message, requiredPrefix)
		name, _, _ = strings.Cut(name, " ")
		ptr += "/" + name
		f.missing = append(f.missing, ptr[1:])
		f.invalid = append(f.invalid, writ.FieldError{Pointer: ptr, Msg: "is required"})
	default:
		f.invalid = append(f.invalid, writ.FieldError{Pointer: ptr, Msg: plainNumber(at, safeMessage(d.Message))})
	}
}

// plainNumber writes the bound of a number without an exponent.
func plainNumber(s *huma.Schema, msg string) string {
	if s == nil {
		return msg
	}
	for format, bound := range map[string]*float64{
		validation.MsgExpectedMinimumNumber: s.Minimum, validation.MsgExpectedExclusiveMinimumNumber: s.ExclusiveMinimum,
		validation.MsgExpectedMaximumNumber: s.Maximum, validation.MsgExpectedExclusiveMaximumNumber: s.ExclusiveMaximum,
		validation.MsgExpectedNumberBeMultipleOf: s.MultipleOf,
	} {
		if prefix, _, _ := strings.Cut(format, "%"); bound != nil && strings.HasPrefix(msg, prefix) && msg == fmt.Sprintf(format, *bound) {
			return prefix + strconv.FormatFloat(*bound, 'f', -1, 64)
		}
	}
	return msg
}

// unknownMember says which names an object may have instead.
func unknownMember(s *huma.Schema) string {
	if s == nil || len(s.Properties) == 0 {
		return "unknown member; none is expected"
	}
	names := make([]string, 0, len(s.Properties))
	for n := range s.Properties {
		names = append(names, n)
	}
	slices.Sort(names)
	return "unknown member; known here (case matters): " + strings.Join(names, ", ")
}

// refusal is the error for the findings; nil when there are none.
func (f *findings) refusal(op string) error {
	switch {
	case len(f.unknown) > 0:
		return &writ.Error{
			Code: writ.CodeMalformed, Op: op, Msg: "the arguments hold unknown members",
			Hint: "send only the members the schema names", Fields: tidy(f.unknown),
		}
	case len(f.invalid) > 0:
		slices.Sort(f.missing)
		return &writ.Error{
			Code: writ.CodeInputInvalid, Op: op, Msg: "the arguments do not meet their schema",
			Hint: "correct the members named in errors", Fields: tidy(f.invalid),
			Missing: bounded(slices.Compact(f.missing)),
		}
	}
	return nil
}

// tidy orders, dedupes and bounds a list of places.
func tidy(fs []writ.FieldError) []writ.FieldError {
	slices.SortFunc(fs, func(a, b writ.FieldError) int {
		if d := strings.Compare(a.Pointer, b.Pointer); d != 0 {
			return d
		}
		return strings.Compare(a.Msg, b.Msg)
	})
	return bounded(slices.Compact(fs))
}

func bounded[T any](s []T) []T { return s[:min(len(s), maxFields)] }
