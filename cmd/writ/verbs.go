package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
	"github.com/writ-gateway/writ/internal/daemon"
)

// The commands of task, agent, run, session, capability and policy are made
// from the capabilities themselves: one command per verb, one flag per
// argument, its documentation as help. They cannot differ from the API.

var nouns = map[string]string{
	"session": "Open and end sessions", "agent": "Register agents", "run": "Create and follow runs",
	"task": "Enqueue, claim and finish tasks", "capability": "See what can be called", "policy": "See the policies in force, and put others in their place",
	"approval": "See and decide what people must agree to", "role": "Bind people to roles, and see who may do what",
	"artifact": "Store and read what tasks make", "scope": "See who writes where", "log": "See the transparency log of all receipts", "key": "Change the keys receipts are signed with", "quota": "Limit how much, and how often",
	"egress": "Say what agents may reach outside",
	"effect": "See what calls did outside, and say what became of it", "secret": "Keep values the gateway puts into requests, and shows to nobody", "evidence": "Destroy what was noted of calls",
}

func verbCommands() []*cobra.Command {
	groups := map[string]*cobra.Command{}
	var out []*cobra.Command
	for _, k := range daemon.Catalog().All() {
		noun, verb, _ := strings.Cut(string(k.ID), ".")
		short, ok := nouns[noun]
		if !ok || k.Internal || k.ID == "capability.invoke" || k.ID == "artifact.put" || k.ID == "artifact.content" || k.ID == "secret.put" {
			continue
		}
		if groups[noun] == nil {
			groups[noun] = &cobra.Command{Use: noun, Short: short, GroupID: "call", Args: noCommand, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
			out = append(out, groups[noun])
		}
		c := verbCommand(k, verb)
		if k.ID == "task.verify" || k.ID == "run.close" {
			verdictFile(c)
		}
		groups[noun].AddCommand(c)
	}
	approvalCommands(groups["approval"])
	groups["task"].AddCommand(watchTasks())
	groups["agent"].AddCommand(runAgent())
	groups["task"].Long = tasksHelp
	groups["log"].AddCommand(verifyLogCommand(), trustedRootCommand(), logConsistencyCommand(), checkLogCommand(), nextLogCommand())
	groups["run"].AddCommand(runVerifyCommand())
	groups["key"].Long = keysHelp
	groups["key"].AddCommand(generateKeyCommand(), rotateKeyCommand(), manifestCommand())
	rosterCommands(groups["agent"])
	artifactCommands(groups["artifact"])
	groups["secret"].Long = secretsHelp
	groups["secret"].AddCommand(putSecretCommand())
	groups["role"].Long = rolesHelp
	return out
}

// argument is one field of a capability's arguments as a flag.
type argument struct {
	name     string // JSON name
	field    reflect.StructField
	required bool
}

func verbCommand(k *writ.Capability, verb string) *cobra.Command {
	args := argumentsOf(k.Args)
	use := verb
	idField := ""
	if len(args) > 0 && (strings.HasSuffix(args[0].name, "_id") || args[0].name == "capability" || args[0].name == "digest" || k.ID == "secret.delete") && k.ID != "task.enqueue" {
		idField = args[0].name
		use += " " + strings.ToUpper(strings.ReplaceAll(idField, "_", "-"))
		if !args[0].required {
			use = verb + " [" + strings.ToUpper(strings.ReplaceAll(idField, "_", "-")) + "]"
		}
	}
	var connect connection
	var format, file, key string
	cmd := &cobra.Command{
		Use: use, Short: strings.TrimSuffix(k.Summary, "."),
		Long:    k.Summary + "\n\nCapability " + string(k.ID) + " (" + string(k.Safety) + ").\n",
		Example: "  " + examples[k.ID],
		Args: func(c *cobra.Command, rest []string) error {
			if idField == "" {
				return noArgs(c, rest)
			}
			return usage(c, cobra.MaximumNArgs(1)(c, rest))
		},
	}
	flags := cmd.Flags()
	for _, a := range args {
		if a.name == idField {
			cmd.Long += "\n" + strings.ToUpper(flagName(a.name)) + ": " + usageOf(a.field) + "\n"
		} else {
			flags.Var(&text{kind: kindOf(a.field.Type)}, flagName(a.name), usageOf(a.field))
		}
	}
	cmd.Long = strings.TrimSuffix(cmd.Long+shapesOf(k.Args), "\n")
	var tokenOut string
	if k.ID == "session.open" {
		flags.StringVar(&tokenOut, "token-out", "", "write the token to this new file, mode 0600, instead of printing it")
	}
	flags.StringVarP(&file, "file", "f", "", "read arguments from a YAML or JSON file; flags win")
	outputFlag(cmd, &format)
	if !k.ReadOnly() {
		flags.StringVar(&key, "idempotency-key", "", "repeat a call safely under the same key; one is made up when left out")
	}
	connect.flags(cmd)
	cmd.RunE = func(c *cobra.Command, rest []string) error {
		if err := checkFormat(c, format); err != nil {
			return err
		}
		body, err := fromFile(file)
		if err != nil {
			return usageError{err, c.CommandPath()}
		}
		if len(rest) == 1 {
			body[idField] = rest[0]
		}
		for _, a := range args {
			if f := flags.Lookup(flagName(a.name)); f != nil && f.Changed {
				v, err := a.parse(f.Value.String())
				if err != nil {
					return usageError{fmt.Errorf("--%s: %w", f.Name, err), c.CommandPath()}
				}
				body[a.name] = v
			}
		}
		for _, a := range args {
			if _, ok := body[a.name]; a.required && !ok {
				return usageError{fmt.Errorf("%s is required", a.name), c.CommandPath()}
			}
		}
		cl, err := connect.open()
		if err != nil {
			return err
		}
		if tokenOut != "" {
			return openSession(c.Context(), c, cl, body, format, key, tokenOut)
		}
		return invoke(c.Context(), c, cl, k.ID, body, format, key)
	}
	return cmd
}

func invoke(ctx context.Context, c *cobra.Command, cl *client.Client, id writ.CapabilityID, body map[string]any, format, key string) error {
	var raw json.RawMessage
	meta, err := cl.Invoke(ctx, id, body, &raw, client.WithIdempotencyKey(key))
	if err != nil {
		return err
	}
	return show(c, format, raw, meta)
}

// show prints a reply, and beside it what is not of the reply.
func show(c *cobra.Command, format string, raw json.RawMessage, meta client.Meta) error {
	if err := render(c.OutOrStdout(), format, raw); err != nil {
		return err
	}
	if meta.Receipt != "" {
		fmt.Fprintf(c.ErrOrStderr(), "writ: receipt: %s\n", meta.Receipt)
	}
	for _, l := range meta.Limited {
		fmt.Fprintf(c.ErrOrStderr(), "writ: policy allows less: %s was taken as %d\n", l.Argument, l.Max)
	}
	if len(meta.Redacted) > 0 {
		fmt.Fprintf(c.ErrOrStderr(), "writ: policy does not show: %s\n", strings.Join(meta.Redacted, " "))
	}
	if len(raw) == 0 || string(raw) == "null" {
		fmt.Fprintln(c.ErrOrStderr(), "writ: nothing to hand out")
		return exitStatus(exitEmpty)
	}
	return nil
}

// openSession opens a session and keeps its token in a file of its own. The
// file is made first: a token that could not be kept would be lost.
func openSession(ctx context.Context, c *cobra.Command, cl *client.Client, body map[string]any, format, key, path string) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("--token-out: %w", err)
	}
	kept := false
	defer func() {
		if cerr := f.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("--token-out: %w", cerr)
		}
		if !kept {
			_ = os.Remove(path)
		}
	}()
	var raw json.RawMessage
	meta, err := cl.Invoke(ctx, "session.open", body, &raw, client.WithIdempotencyKey(key))
	if err != nil {
		return err
	}
	v, err := ordered(raw)
	if err != nil {
		return err
	}
	obj, _ := v.(object)
	token, _ := obj.get("token").(string)
	if token == "" || slices.Contains(meta.Redacted, "/token") {
		return errors.New("the gateway's answer holds no token")
	}
	if _, err := f.WriteString(token + "\n"); err != nil {
		return fmt.Errorf("--token-out: %w", err)
	}
	kept = true
	obj = slices.DeleteFunc(obj, func(m member) bool { return m.name == "token" })
	if raw, err = json.Marshal(append(obj, member{"token_file", path})); err != nil {
		return err
	}
	return show(c, format, raw, meta)
}

// argumentsOf are the members of a struct as JSON has them, those of structs it embeds
// among them.
func argumentsOf(t reflect.Type) []argument {
	var out []argument
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		out = append(out, argument{name, f, !optional(f)})
	}
	return out
}

func flagName(json string) string { return strings.ReplaceAll(json, "_", "-") }

func (a argument) parse(s string) (any, error) {
	t := a.field.Type
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == reflect.TypeFor[writ.RawObject]() {
		return parseJSON(s, exampleOf(t))
	}
	switch t.Kind() {
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("want a whole number")
		}
		return n, nil
	case reflect.Bool:
		b, err := strconv.ParseBool(s)
		if err != nil {
			return nil, fmt.Errorf("want true or false")
		}
		return b, nil
	case reflect.String:
		return s, nil
	case reflect.Slice:
		if t.Elem().Kind() == reflect.String {
			return parseList(s)
		}
	}
	return parseJSON(s, exampleOf(t))
}

// parseList reads words between commas, or the same as a JSON array.
func parseList(s string) ([]string, error) {
	words := []string{}
	if text := strings.TrimSpace(s); text == "" {
		return words, nil
	} else if strings.ContainsAny(text[:1], `[{"`) {
		if err := json.Unmarshal([]byte(text), &words); err != nil || words == nil {
			return nil, errors.New(`want words between commas, as in one,two, or a JSON array of them, as in '["one","two"]'`)
		}
		return words, nil
	}
	for word := range strings.SplitSeq(s, ",") {
		word = strings.TrimSpace(word)
		if word == "" {
			return nil, errors.New("want words between commas, as in one,two: there is none between two of them, or at an end")
		}
		words = append(words, word)
	}
	return words, nil
}

// parseJSON reads JSON of the form of an example, an object or an array, from the
// command line or from a file.
func parseJSON(s, example string) (any, error) {
	want := "want JSON, as in '" + example + "', or @file with it"
	if name, ok := strings.CutPrefix(s, "@"); ok {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		s = string(b)
	}
	if err := json.Unmarshal([]byte(s), new(any)); err != nil {
		if syn, ok := errors.AsType[*json.SyntaxError](err); ok { // the place only: the text may be a secret
			before := s[:min(max(syn.Offset-1, 0), int64(len(s)))]
			return nil, fmt.Errorf("%s: line %d, column %d is not", want,
				1+strings.Count(before, "\n"), 1+utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]))
		}
		return nil, errors.New(want)
	}
	if text := strings.TrimSpace(s); text[0] != example[0] && text != "null" {
		kind := map[byte]string{'[': "an array", '{': "an object"}[example[0]]
		return nil, fmt.Errorf("%s: it is not %s", want, kind)
	}
	return json.RawMessage(s), nil
}

func fromFile(path string) (map[string]any, error) {
	body := map[string]any{}
	if path == "" {
		return body, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if body, err = parseFile(b); err != nil {
		if _, ok := errors.AsType[*yaml.TypeError](err); ok {
			err = errors.New("want arguments, each as name: value")
		}
		return nil, fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	return body, nil
}

// parseFile reads one mapping, of what JSON can say. JSON is YAML.
func parseFile(b []byte) (map[string]any, error) {
	var body map[string]any
	d := yaml.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&body); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	} else if err == nil && !errors.Is(d.Decode(new(yaml.Node)), io.EOF) {
		return nil, errors.New("holds more than one document")
	}
	if body == nil {
		body = map[string]any{}
	}
	if _, err := json.Marshal(body); err != nil {
		return nil, fmt.Errorf("holds what JSON cannot say: %w", err)
	}
	return body, nil
}
