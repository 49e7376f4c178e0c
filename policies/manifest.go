package policies

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/writ-gateway/writ"
	"go.yaml.in/yaml/v3"
)

// Kinds of pack.
const (
	// KindGuard: a pack somebody added. It narrows what it is routed to.
	KindGuard = "guard"
	// KindMandatory: a pack without which nothing loads.
	KindMandatory = "mandatory"
)

// Stages of a pack.
const (
	// StageEnforce: what it finds decides. The default.
	StageEnforce = "enforce"
	// StageShadow: it is asked after the answer, and what it finds is counted.
	StageShadow = writ.StageShadow
)

// mandatory packs and the least they must be routed to. A source that lacks
// one, or routes it to less, is refused.
var mandatory = map[string][]selector{
	"approvals":      {"approval.*", "task.*"},
	"budgets":        {"*"},
	"classification": {"task.*"},
	"lifecycle":      {"*"},
	"sod":            {"approval.*", "task.*"},
	"write_scopes":   {"task.*"},
}

var (
	packID      = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)
	packVersion = regexp.MustCompile(`^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)$`)
	selectorRE  = regexp.MustCompile(`^(\*|[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*(\.\*)?)$`)
)

// manifest is pack.yaml: who owns the pack and which calls it judges.
type manifest struct {
	ID      string `yaml:"id"`
	Version string `yaml:"version"` // major.minor.patch
	Title   string `yaml:"title"`
	Owner   string `yaml:"owner"`
	Kind    string `yaml:"kind"`
	Stage   string `yaml:"stage"` // enforce, also when it is left out, or shadow
	Match   struct {
		Capabilities []selector `yaml:"capabilities"`
	} `yaml:"match"`
	Effects []writ.Effect `yaml:"effects"` // what its findings may ask for
	Adapts  *adapts       `yaml:"adapts"`  // the package of another host it speaks for, if any
	Memo    *bool         `yaml:"memo"`    // false: evaluated for every call, also when nothing it reads has changed
}

// selector picks capabilities: an id, "prefix.*" for everything below a
// prefix, or "*".
type selector string

func (s selector) matches(c writ.CapabilityID) bool {
	if prefix, ok := strings.CutSuffix(string(s), "*"); ok {
		return strings.HasPrefix(string(c), prefix)
	}
	return string(s) == string(c)
}

func (m *manifest) matches(c writ.CapabilityID) bool {
	return slices.ContainsFunc(m.Match.Capabilities, func(s selector) bool { return s.matches(c) })
}

// shadow says whether the pack is in shadow.
func (m *manifest) shadow() bool { return m.Stage == StageShadow }

// judges says whether what the pack finds about a capability decides.
func (m *manifest) judges(c writ.CapabilityID) bool { return m.matches(c) && !m.shadow() }

// memoised says whether the pack lets itself be remembered.
func (m *manifest) memoised() bool { return m.Memo == nil || *m.Memo }

var (
	unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)
	otherKind    = regexp.MustCompile(`cannot unmarshal !!\w+ .*into .*`)
)

// PlainYAML says what is wrong with a file without naming types of this
// program.
func PlainYAML(err error) error {
	t, ok := errors.AsType[*yaml.TypeError](err)
	if !ok {
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	var all []string
	for _, e := range t.Errors {
		e = unknownField.ReplaceAllString(e, "there is no field $1")
		all = append(all, otherKind.ReplaceAllString(e, "a value of another kind is wanted"))
	}
	return errors.New(strings.Join(all, "; "))
}

// parseManifest reads pack.yaml. Its one top key is manifest, because OPA's
// tools mount the file at data.<id>.
func parseManifest(id string, b []byte) (*manifest, error) {
	var doc struct {
		Manifest *manifest `yaml:"manifest"`
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	switch err := d.Decode(&doc); {
	case b == nil:
		return nil, errors.New("is missing: every pack says in it who owns it and which calls it judges")
	case errors.Is(err, io.EOF):
		return nil, errors.New("is empty: want the one top key manifest, with id, version, title, owner, kind, match and effects")
	case err != nil:
		return nil, PlainYAML(err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("holds more than one document")
	}
	m := doc.Manifest
	if m == nil {
		return nil, errors.New("has no manifest")
	}
	return m, m.check(id)
}

// check finds everything that is wrong with a manifest.
func (m *manifest) check(id string) error {
	var all []error
	note := func(wrong bool, format string, args ...any) {
		if wrong {
			all = append(all, fmt.Errorf(format, args...))
		}
	}
	named := packID.MatchString(id) && id != "packs"
	note(!named, "the directory's name is not a pack id: lower case letters, digits and _, and not \"packs\"")
	note(named && m.ID != id, "id is %q but the directory is %q", m.ID, id)
	note(!packVersion.MatchString(m.Version), "version must be major.minor.patch")
	note(m.Title == "" || m.Owner == "", "title and owner must be given")
	note(m.Kind != KindGuard && m.Kind != KindMandatory, "kind must be %s or %s", KindGuard, KindMandatory)
	note(m.Stage != "" && m.Stage != StageEnforce && m.Stage != StageShadow, "stage must be %s or %s", StageEnforce, StageShadow)
	note(m.Kind == KindMandatory && m.shadow(), "a mandatory pack cannot be in %s: nothing loads without it being enforced", StageShadow)
	note(len(m.Match.Capabilities) == 0, "match.capabilities is empty, so the pack would never be asked")
	note(len(m.Effects) == 0, "effects is empty, so the pack could say nothing")
	for _, s := range m.Match.Capabilities {
		note(!selectorRE.MatchString(string(s)), "match.capabilities: %q is neither an id nor \"prefix.*\" nor \"*\"", s)
	}
	for _, e := range m.Effects {
		note(e.Rank() > writ.EffectDeny.Rank(), "effects: unknown effect %q", e)
	}
	if m.Adapts != nil {
		all = append(all, parts(m.Adapts.check())...)
	}
	return errors.Join(all...)
}
