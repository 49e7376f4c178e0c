package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/client"
)

// The small world every gateway under measurement gets: a planner that may
// enqueue, an executor that may work, and a run.
const (
	plannerAgent = "planner"
	builderAgent = "site-builder"
	capability   = "site.build"
	domain       = "web"
	writeScope   = "fs:site/"
	taskScope    = "fs:site/dist/"
	runSteps     = 1_000_000
)

// gateway is a running `writ serve` with its host.
type gateway struct {
	*process
	host     string // "bolt" or "Redis"
	data     string // its directory
	url      string
	redis    redisServer
	operator *client.Client
	planner  session
	builder  session
	run      writ.RunID
}

// session is an open session and its token.
type session struct {
	client.Session
	*client.Client
}

// buildWrit builds the command under measurement.
func (b *bench) buildWrit(ctx context.Context) (string, error) {
	path := filepath.Join(b.dir, "writ")
	_, err := output(ctx, b.root, "go", "build", "-trimpath", "-o", path, "./cmd/writ")
	return path, err
}

// serve starts a gateway with default settings on a host of its own.
func (b *bench) serve(ctx context.Context, binary, host string, more ...string) (g *gateway, err error) {
	g = &gateway{host: host}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	dir, err := b.scratch()
	if err != nil {
		return g, err
	}
	g.data = dir
	args := []string{"serve", "--data", dir, "--listen", "127.0.0.1:0"}
	args = append(args, more...)
	if host == "Redis" {
		if g.redis, err = b.startRedis(ctx, "always"); err != nil {
			return g, err
		}
		args = append(args, "--store", g.redis.url())
	}
	g.process, err = spawn(ctx, dir, nil, func() bool {
		text, err := os.ReadFile(filepath.Join(dir, "gateway.url"))
		g.url = strings.TrimSpace(string(text))
		return err == nil && get(ctx, g.url+"/readyz") == nil
	}, nil, binary, args...)
	if err != nil {
		return g, err
	}
	return g, g.populate(ctx, filepath.Join(dir, "operator.token"))
}

func (g *gateway) close() {
	g.stop()
	g.redis.stop()
}

// populate makes the world.
func (g *gateway) populate(ctx context.Context, tokenFile string) (err error) {
	if g.operator, err = client.New(client.Config{URL: g.url, TokenFile: tokenFile}); err != nil {
		return err
	}
	for _, a := range []client.AgentOptions{
		{ID: plannerAgent, Archetypes: []writ.Role{writ.RoleOrchestrator}, Domain: domain, Tools: []writ.Tool{}, WriteScope: []string{}},
		{
			ID: builderAgent, Archetypes: []writ.Role{writ.RoleExecutor}, Domain: domain, WriteScope: []string{writeScope},
			Tools: []writ.Tool{{Name: capability, Safety: writ.SafetyMutating}},
		},
	} {
		if _, err := g.operator.RegisterAgent(ctx, a); err != nil {
			return err
		}
		if _, err := g.operator.ActivateAgent(ctx, a.ID); err != nil {
			return err
		}
	}
	if g.planner, err = g.open(ctx, plannerAgent, writ.RoleOrchestrator); err != nil {
		return err
	}
	if g.builder, err = g.open(ctx, builderAgent, writ.RoleExecutor); err != nil {
		return err
	}
	r, err := g.planner.CreateRun(ctx, client.RunOptions{Budget: map[string]int64{writ.BudgetSteps: runSteps}})
	g.run = r.ID
	return err
}

func (g *gateway) open(ctx context.Context, agent writ.AgentID, role writ.Role) (s session, err error) {
	s.Session, err = g.operator.OpenSession(ctx, client.SessionOptions{
		Principal: writ.PrincipalID(agent), Kind: writ.KindAgent, Role: role, Agent: agent, TTLSeconds: writ.SessionMaxTTLSeconds,
	})
	if err != nil {
		return s, err
	}
	if s.Client, err = client.New(client.Config{URL: g.url, Token: s.Token}); err != nil {
		return s, err
	}
	_, err = s.StartSession(ctx, s.ID)
	return s, err
}

// beat keeps the sessions alive; anything long calls it now and then.
func (g *gateway) beat(ctx context.Context) error {
	_, err1 := g.planner.HeartbeatSession(ctx, g.planner.ID)
	_, err2 := g.builder.HeartbeatSession(ctx, g.builder.ID)
	return errors.Join(err1, err2)
}

// task is the body that enqueues a task under a key.
func (g *gateway) task(key string) []byte {
	return fmt.Appendf(nil, `{"run_id":%q,"key":%q,"capability":%q,"required_domain":%q,"args":{"ref":"main"},"labels":["internal.system"],"write_scopes":[%q]}`,
		g.run, key, capability, domain, taskScope)
}

// settle waits until the ledger holds every fact, so that work put off during
// a turn is charged to it.
func (g *gateway) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		err := get(ctx, g.url+"/readyz", `"0 facts behind"`)
		if err == nil {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return err
		}
	}
}

// get asks for a page and looks for texts in it.
func get(ctx context.Context, url string, want ...string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return errors.Join(err, errors.New(res.Status))
	}
	for _, w := range want {
		if !bytes.Contains(text, []byte(w)) {
			return fmt.Errorf("%s does not say %s", url, w)
		}
	}
	return nil
}

// poster sends JSON over a fixed number of connections that stay open.
type poster struct {
	http  http.Client
	token string
}

func newPoster(connections int, token string) *poster {
	return &poster{
		http: http.Client{Transport: &http.Transport{
			MaxConnsPerHost: connections, MaxIdleConnsPerHost: connections, DisableCompression: true,
		}},
		token: token,
	}
}

func (p *poster) close() { p.http.CloseIdleConnections() }

// errBusy is a refusal that asks to be repeated.
var errBusy = errors.New("busy")

// post sends a body and returns the answer with its headers; any status but
// 2xx is an error.
func (p *poster) post(ctx context.Context, url string, body []byte, headers ...string) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if p.token != "" {
		req.Header.Set("Authorization", "Bearer "+p.token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := p.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return nil, nil, err
	case res.StatusCode == http.StatusTooManyRequests, res.StatusCode == http.StatusServiceUnavailable:
		return nil, nil, fmt.Errorf("%w: %s", errBusy, answer)
	case res.StatusCode < 200 || res.StatusCode > 299:
		return nil, nil, fmt.Errorf("%s: %s: %s", url, res.Status, answer)
	}
	return answer, res.Header, nil
}

// decode reads an answer.
func decode[T any](answer []byte) (v T, err error) {
	err = json.Unmarshal(answer, &v)
	return v, err
}
