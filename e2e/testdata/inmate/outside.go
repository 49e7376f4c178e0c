package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
)

// outside tries every way there is to a host, and every place of the machine, and
// completes its task with what came of each. where are ports of 127.0.0.1: of a host
// that speaks HTTP, of one that speaks TLS, and of another that does.
func outside(where string) {
	port := strings.Split(where, ",")
	got := claim()
	door := os.Getenv("WRIT_URL")
	me := "/v1/sessions/" + os.Getenv("WRIT_SESSION")
	socket := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", "/run/gateway.sock")
	}}}
	through := &http.Client{Transport: &http.Transport{
		Proxy:           http.ProxyURL(&url.URL{Scheme: "http", Host: "127.0.0.1:80"}),
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // the host is one of the test
	}}
	host := "http://127.0.0.1:" + port[0]
	result := map[string]any{
		"tcp":       ask(http.DefaultClient, "GET", door+me, ""),
		"socket":    ask(socket, "GET", door+me, ""),
		"reverse":   ask(http.DefaultClient, "POST", door+"/egress/site-api/v1/x?y=z", "hello"),
		"forward":   ask(through, "GET", host+"/v1/y", ""),
		"path":      ask(http.DefaultClient, "GET", door+"/egress/site-api/v2", ""),
		"ungranted": ask(through, "GET", "http://127.0.0.1:1/", ""),
		"tunnel":    ask(through, "GET", "https://localhost:"+port[1]+"/small", ""),
		"too much":  ask(through, "GET", "https://localhost:"+port[1]+"/large", ""),
		"no tunnel": ask(through, "GET", "https://localhost:"+port[2]+"/small", ""),
		"around":    ask(&http.Client{Transport: &http.Transport{}}, "GET", host+"/v1/y", ""),
		"machine":   machine(),
	}
	var put struct {
		Digest string `json:"digest"`
	}
	artifact := fmt.Sprintf("/v1/artifacts?task_id=%s&lease_id=%s&fence=%d&name=report", got.Task.TaskID, got.Lease.ID, got.Lease.Fence)
	call("PUT", artifact, map[string]any{"pages": 3}, &put)
	if err := os.WriteFile("/tmp/draft", []byte("nobody put this"), 0o600); err != nil { // so it goes with the jail
		panic(err)
	}
	got.complete(result, map[string]any{"artifacts": []map[string]any{{"name": "report", "digest": put.Digest}}})
}

// ask makes a request and says what came of it, in a line.
func ask(c *http.Client, method, to, body string) string {
	req, err := http.NewRequest(method, to, bytes.NewReader([]byte(body)))
	if err != nil {
		panic(err)
	}
	res, err := c.Do(req)
	if err != nil {
		return "failed: " + err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Sprintf("%d, cut off", res.StatusCode)
	}
	return fmt.Sprintf("%d %.600s", res.StatusCode, b)
}

// machine is what an agent finds of the machine it runs on.
func machine() map[string]any {
	names := func(dir string) (out []string) {
		all, _ := os.ReadDir(dir)
		for _, e := range all {
			out = append(out, e.Name())
		}
		return out
	}
	processes := slices.DeleteFunc(names("/proc"), func(name string) bool { return strings.Trim(name, "0123456789") != "" })
	var environ []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		environ = append(environ, name)
	}
	slices.Sort(environ)
	return map[string]any{"root": names("/"), "etc": names("/etc"), "processes": len(processes), "environ": environ}
}
