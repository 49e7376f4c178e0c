package story

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

// What the story's agent in a jail is told of what lies outside, so that it knows what
// to try: as NAME=value among its arguments.
const (
	outsideToken   = "token-file"    // of the operator, on the host
	outsideGateway = "gateway"       // where the gateway answers on the host
	outsideSession = "other-session" // of another agent
)

// attempt is something an agent in a jail tried, and what came of it.
type attempt struct {
	What    string `json:"what"`
	Reached bool   `json:"reached"`
	Came    string `json:"came"`
}

// Inmate is the agent of the story that runs in a jail: it does the task it is given,
// and before that tries to get out. What came of it is the result of its task: it has
// no other way to tell.
func Inmate(ctx context.Context, told []string) error {
	outside := map[string]string{}
	for _, t := range told {
		name, value, _ := strings.Cut(t, "=")
		outside[name] = value
	}
	c, err := client.New(client.Config{URL: os.Getenv("WRIT_URL"), Jailed: writ.SessionID(os.Getenv("WRIT_SESSION"))})
	if err != nil {
		return err
	}
	defer c.Close()
	var work claim
	for work.Task.TaskID == "" {
		if _, err := c.Invoke(ctx, "task.claim", args{"wait_s": 10}, &work); err != nil {
			return err
		}
	}
	tried := escapes(ctx, c, outside)
	reached := slices.ContainsFunc(tried, func(a attempt) bool { return a.Reached })
	_, err = c.Invoke(ctx, "task.complete", work.hold(args{"result": args{"built": true, "reached": reached, "tried": tried}}), nil)
	return err
}

// escapesTried is how many ways out are tried: a line of the story each.
const escapesTried = 11

// escapes tries what an agent that is not on our side would try first.
func escapes(ctx context.Context, c *client.Client, outside map[string]string) (out []attempt) {
	try := func(what string, f func() error) {
		err := f()
		a := attempt{What: what, Reached: err == nil, Came: "it worked"}
		if err != nil {
			a.Came = short(err)
		}
		out = append(out, a)
	}
	dial := func(network, address string) func() error {
		return func() error {
			conn, err := net.DialTimeout(network, address, 2*time.Second)
			if err == nil {
				_ = conn.Close()
			}
			return err
		}
	}
	read := func(path string) func() error {
		return func() error { _, err := os.ReadFile(path); return err }
	}
	try("read the operator's token on the host", read(outside[outsideToken]))
	try("read /etc/shadow", read("/etc/shadow"))
	try("run a shell", func() error { return exec.CommandContext(ctx, "/bin/sh", "-c", "true").Run() })
	try("connect to the gateway's own address", dial("tcp", outside[outsideGateway]))
	try("connect to a host of the internet", dial("tcp", "93.184.215.14:443"))
	try("connect to the cloud's metadata", dial("tcp", "169.254.169.254:80"))
	try("ask a name server", dial("udp", "8.8.8.8:53"))
	try("see the processes of others", func() error {
		all, err := filepath.Glob("/proc/[0-9]*")
		if err != nil {
			return err
		}
		own := fmt.Sprintf("/proc/%d", os.Getpid())
		if others := slices.DeleteFunc(all, func(p string) bool { return p == own }); len(others) > 0 {
			return nil
		}
		return errors.New("there are none")
	})
	try("write outside of where it works", func() error { return os.WriteFile("/agent/again", nil, 0o600) })
	try("look at the session of another agent", func() error {
		_, err := c.GetSession(ctx, writ.SessionID(outside[outsideSession]))
		return err
	})
	try("be another agent, by a header", func() error { return pretend(ctx, outside[outsideSession]) })
	return out
}

// pretend asks for the other's session with a token that says it is the other's.
func pretend(ctx context.Context, other string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, os.Getenv("WRIT_URL")+"/v1/sessions/"+other, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer default."+other+"."+strings.Repeat("A", 43))
	req.Header.Set("X-Writ-Session", other)
	res, err := (&http.Client{Transport: &http.Transport{}}).Do(req)
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	if res.StatusCode == http.StatusOK {
		return nil
	}
	return fmt.Errorf("%s: it stays who its listener says", strings.ToLower(http.StatusText(res.StatusCode)))
}

// short is the last word of an error: what the kernel or the gateway said.
func short(err error) string {
	if e, ok := errors.AsType[*writ.Error](err); ok {
		return string(e.Code)
	}
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err.Error()
	}
	text := err.Error()
	return strings.TrimSpace(text[strings.LastIndex(text, ": ")+1:])
}
