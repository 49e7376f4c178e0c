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

// mandatory packs and the least they must be routed to. A source that lacks
// one, or routes it to less, is refused.
var mandatory = map[string]selector{
	"budgets":        "*",
	"classification": "task.*",
	"lifecycle":      "*",
	"write_scopes":   "task.*",
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
	Match   struct {
		Capabilities []selector `yaml:"capabilities"`
	} `yaml:"match"`
	Effects []writ.Effect `yaml:"effects"` // what its findings may ask for
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

var (
	unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)
	otherKind    = regexp.MustCompile(`cannot unmarshal !!\w+ .*into .*`)
)

// plainYAML says what is wrong with a file without naming types of this
// program.
func plainYAML(err error) error {
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
		return nil, plainYAML(err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("holds more than one document")
	}
	m := doc.Manifest
	switch {
	case m == nil:
		return nil, errors.New("has no manifest")
	case !packID.MatchString(id) || id == "packs":
		return nil, errors.New("the directory's name is not a pack id: lower case letters, digits and _, and not \"packs\"")
	case m.ID != id:
		return nil, fmt.Errorf("id is %q but the directory is %q", m.ID, id)
	case !packVersion.MatchString(m.Version):
		return nil, errors.New("version must be major.minor.patch")
	case m.Title == "" || m.Owner == "":
		return nil, errors.New("title and owner must be given")
	case m.Kind != KindGuard && m.Kind != KindMandatory:
		return nil, fmt.Errorf("kind must be %s or %s", KindGuard, KindMandatory)
	case len(m.Match.Capabilities) == 0:
		return nil, errors.New("match.capabilities is empty, so the pack would never be asked")
	case len(m.Effects) == 0:
		return nil, errors.New("effects is empty, so the pack could say nothing")
	}
	for _, s := range m.Match.Capabilities {
		if !selectorRE.MatchString(string(s)) {
			return nil, fmt.Errorf("match.capabilities: %q is neither an id nor \"prefix.*\" nor \"*\"", s)
		}
	}
	for _, e := range m.Effects {
		if e.Rank() > writ.EffectDeny.Rank() {
			return nil, fmt.Errorf("effects: unknown effect %q", e)
		}
	}
	return m, nil
}
