package daemon

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Sample is a configuration file with every setting: those that were given (by
// YAML name) or differ from their default as they are in c, the others
// commented out at their default. Paths are absolute, so that the file works
// from every directory.
func Sample(c Config, given map[string]string, env func(string) string) (string, error) {
	paths := []*string{&c.Data, &c.Keys, &c.Blobs, &c.Policies, &c.TilesKey}
	c.Webhooks = slices.Clone(c.Webhooks)
	for i := range c.Webhooks {
		paths = append(paths, &c.Webhooks[i].SecretFile)
	}
	for _, p := range paths {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return "", err
		}
		*p = abs
	}
	def := Config{}.withDefaults(env)
	def.Keys, def.Blobs = filepath.Join(c.Data, "keys"), filepath.Join(c.Data, "artifacts")
	var b strings.Builder
	b.WriteString("# Configuration of writ. Every setting is here; uncomment one to change it.\n")
	for _, f := range fields() {
		line, err := f.line(c)
		if err != nil {
			return "", err
		}
		fallback, err := f.line(def)
		if err != nil {
			return "", err
		}
		if _, ok := given[f.name]; !ok && line == fallback {
			line = "# " + line
		}
		fmt.Fprintf(&b, "\n# %s\n%s", f.doc, line)
	}
	return b.String(), nil
}

// line is the setting as a line of the file.
func (f field) line(c Config) (string, error) {
	b, err := yaml.Marshal(map[string]any{f.name: f.value(c)})
	return string(b), err
}

// value is the setting as it is written in the file.
func (f field) value(c Config) any {
	v := reflect.ValueOf(c).Field(f.index)
	if d, ok := v.Interface().(Duration); ok {
		return d.String()
	}
	return v.Interface()
}

// String writes a duration without the zeros of 1m0s.
func (d Duration) String() string {
	if t := time.Duration(d); t%time.Second == 0 {
		return strconv.FormatInt(int64(t/time.Second), 10) + "s"
	}
	return time.Duration(d).String()
}
