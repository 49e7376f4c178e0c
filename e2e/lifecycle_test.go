package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
)

// Under load, while the rules change back and forth, every call is judged by one
// set of rules and says which; no replica that reported ready turns one away.
func TestRulesChangeUnderLoad(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		w.t, w.op.t = t, t
		_, open := w.op.mayBegin()
		digest := w.op.stage(frozen(t, ""))
		closed := w.settled(digest).Policy
		stop := make(chan struct{})
		var done sync.WaitGroup
		var allowed, denied, reads atomic.Int64
		for i := range 6 {
			c := w.op.at(w.gw[i%len(w.gw)])
			done.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					method, path, body := "POST", "/v1/runs", any(obj{"title": "a run", "budget": obj{"steps": 5}})
					if n%4 == 3 {
						method, path, body = "GET", "/v1/runs?limit=1", nil
					}
					r, err := c.try(method, path, body)
					revision := r.header.Get("Policy-Revision")
					switch {
					case err != nil:
						t.Errorf("%s %s: %v", method, path, err)
						return
					case method == "GET" && r.status == 200 && (revision == open || revision == closed):
						reads.Add(1)
					case r.status == 201 && revision == open:
						allowed.Add(1)
					case r.status == 403 && revision == closed && strings.Contains(string(r.body), "freeze.run"):
						denied.Add(1)
					default:
						t.Errorf("judged wrongly, or not at all: under %s (open %s, closed %s): %s", revision, open, closed, r)
						return
					}
				}
			})
		}
		rounds := 5
		if soak() {
			rounds = 100
		}
		for i := range rounds {
			time.Sleep(150 * time.Millisecond)
			if i == 0 {
				w.activate(digest)
			} else {
				w.op.at(w.gw[i%len(w.gw)]).ok(200, "POST", "/v1/policy/rollback", nil)
			}
		}
		time.Sleep(150 * time.Millisecond)
		close(stop)
		done.Wait()
		t.Logf("%d calls allowed, %d denied, %d reads, %d changes of the rules", allowed.Load(), denied.Load(), reads.Load(), rounds)
		if allowed.Load() == 0 || denied.Load() == 0 {
			t.Error("the load met one set of rules only")
		}
		w.export()
	})
}

// A candidate that does not compile is refused with what the compiler said, and
// what was in force stays.
func TestACandidateIsRefused(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		foreign := withRule(t, "\tinput.run.id == \"x\"")
		foreign["packs/freeze/freeze.rego"] = strings.Replace(foreign["packs/freeze/freeze.rego"], "packs.freeze", "packs.budgets", 1)
		noRoles := frozen(t, "no roles")
		noRoles["roles/policy.csv"] = "p, role:operator, *, run.create, invoke, allow\n"
		lacking := frozen(t, "lacking")
		for name := range lacking {
			if strings.HasPrefix(name, "packs/lifecycle/") {
				delete(lacking, name)
			}
		}
		manifest := frozen(t, "manifest")
		manifest["packs/freeze/pack.yaml"] += "  colour: red\n"
		for _, tc := range []struct {
			name string
			s    sources
			want string
		}{
			{"bad Rego", withRule(t, "\tinput.run.id =="), "packs/freeze/freeze.rego:"},
			{"a typo in the input", withRule(t, "\tinput.run.idd == \"x\""), "packs/freeze/freeze.rego:18"},
			{"the network", withRule(t, "\thttp.send({\"method\": \"get\", \"url\": \"http://x\"}).status_code == 200"), "packs/freeze/freeze.rego:18"},
			{"foreign package", foreign, "packs/freeze/freeze.rego:1: the package must be packs.freeze"},
			{"a loop without an end", withRule(t, "\tsome a in numbers.range(1, 10000)\n\tsome b in numbers.range(1, 10000)\n\tsome c in numbers.range(1, 10000)\n\ta + b + c < 0"), "warm-up"},
			{"the gateway itself locked out", noRoles, "roles/policy.csv: role:system must be allowed every capability"},
			{"a mandatory pack missing", lacking, "packs/lifecycle: this mandatory pack is missing"},
			{"a manifest with a strange field", manifest, "packs/freeze/pack.yaml"},
		} {
			t.Run(tc.name, func(t *testing.T) {
				w := &world{t: t, redis: w.redis, gw: w.gw, op: w.op.in(t)}
				_, before := w.op.mayBegin()
				digest := w.op.stage(tc.s)
				v := w.settled(digest)
				if v.State != "refused" || !strings.Contains(v.Reason, tc.want) || v.Replica == "" {
					t.Errorf("want refused with %q, got %+v", tc.want, v)
				}
				if strings.Contains(v.Reason, w.gw[0].data) || strings.Contains(v.Reason, "/tmp/") {
					t.Errorf("the reason names a place of this machine: %s", v.Reason)
				}
				if r := w.op.do("POST", "/v1/policy/bundles/"+digest+"/activate", obj{"force": true}); r.code() != writ.CodeIllegal {
					t.Errorf("activating it: %s", r)
				}
				for _, g := range w.gw {
					if _, now := w.op.at(g).mayBegin(); now != before {
						t.Errorf("what is in force has changed from %s to %s", before, now)
					}
				}
			})
		}
		w.t, w.op.t = t, t
		w.export()
		text := string(caller{t: t, gw: w.gw[0]}.ok(200, "GET", "/metrics", nil).body)
		if strings.Contains(text, `writ_policy_compiles_total{outcome="refused"} 0`) || !strings.Contains(text, "writ_policy_in_force_held 1\n") ||
			!strings.Contains(text, "writ_policy_staged_bundles 0\n") {
			t.Error("the metrics do not tell of it")
		}
	})
}

// What is no bundle at all is refused at the door and leaves nothing.
func TestWhatIsNoBundle(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		w.t, w.op.t = t, t
		noise := make([]byte, 120<<10)
		x := uint32(1)
		for i := range noise {
			x = x*1664525 + 1013904223
			noise[i] = byte(x >> 24)
		}
		upwards, odd := frozen(t, ""), frozen(t, "")
		upwards["../../etc/cron.d/x"] = "x"
		odd["evil.sh"] = "x"
		var bomb bytes.Buffer
		z := gzip.NewWriter(&bomb)
		if _, err := z.Write(make([]byte, 32<<20)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		send := func(b []byte) obj { return obj{"bundle": base64.StdEncoding.EncodeToString(b)} }
		for name, tc := range map[string]struct {
			body   obj
			status int
		}{
			"not base64":     {obj{"bundle": "%%%"}, 422},
			"nothing":        {obj{"bundle": ""}, 422},
			"noise":          {send(noise[:1000]), 422},
			"a cut file":     {send(frozen(t, "").tar(t)[:3000]), 422},
			"over the limit": {send(noise), 413},
			"a bomb":         {send(bomb.Bytes()), 413},
			"upwards":        {upwards.upload(t), 422},
			"another file":   {odd.upload(t), 422},
		} {
			r := w.op.do("POST", "/v1/policy/bundles", tc.body)
			if r.status != tc.status {
				t.Errorf("%s: want %d, got %s", name, tc.status, r)
			}
			if tc.status == 413 && !strings.ContainsAny(r.str("detail"), "0123456789") {
				t.Errorf("%s: the limit is not named: %s", name, r)
			}
		}
		list, _ := w.op.ok(200, "GET", "/v1/policy/bundles", nil).at("bundles").([]any)
		if len(list) != 1 {
			t.Errorf("want the bundle in force only, got %v", list)
		}
	})
}

// Bindings are part of a bundle: a right taken away is gone for the very next
// commit, on the other replica too.
func TestARightIsRevoked(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		w.t, w.op.t = t, t
		w.agent("planner", "web", "orchestrator", "", []string{}, nil)
		orc := w.session("planner", writ.RoleOrchestrator, "planner")
		begin := func() reply {
			return orc.at(w.last()).do("POST", "/v1/runs", obj{"title": "a run", "budget": obj{"steps": 5}})
		}
		if r := begin(); r.status != 201 {
			t.Fatal(r)
		}
		s := shipped(t)
		s["roles/policy.csv"] = strings.Replace(s["roles/policy.csv"], "p, role:orchestrator, *, run.create, invoke, allow\n", "", 1)
		digest := w.op.stage(s)
		w.settled(digest)
		if r := begin(); r.status != 201 {
			t.Fatalf("staged, not active: %s", r)
		}
		w.activate(digest)
		if r := begin(); r.code() != writ.CodeRBAC {
			t.Errorf("after the commit: %s", r)
		}
		// A bundle without roles keeps the ones in force.
		bare := shipped(t)
		delete(bare, "roles/policy.csv")
		delete(bare, "roles/model.conf")
		bare["packs/budgets/budgets.rego"] += "\n# another version\n"
		digest = w.op.stage(bare)
		w.settled(digest)
		w.activate(digest)
		if r := begin(); r.code() != writ.CodeRBAC {
			t.Errorf("the roles were not kept: %s", r)
		}
	})
}

// An activation waits for every replica that is alive, unless it is forced; a
// replica that was left behind answers 503 until it has caught up.
func TestActivationWaitsForReplicas(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "redis")
	two := w.gw[1]
	if err := two.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	path := func(digest string) string { return "/v1/policy/bundles/" + digest + "/activate" }
	digest := w.op.stage(frozen(t, ""))
	if r := w.op.do("POST", path(digest), obj{"force": true}); r.status == 200 {
		t.Logf("the first replica was ready at once: %s", r)
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if v := w.op.bundle(digest); len(v.Ready) == 1 {
			break
		}
	}
	r := w.op.do("POST", path(digest), nil)
	if r.status != 409 || !strings.HasPrefix(r.str("details", "not_ready"), "r-") || !strings.Contains(r.str("detail"), r.str("details", "not_ready")) {
		t.Errorf("want 409 with the replica that is not ready, got %s", r)
	}
	w.op.ok(200, "POST", path(digest), obj{"force": true})
	if may, _ := w.op.mayBegin(); may {
		t.Error("the ready replica still lets runs begin")
	}
	if err := two.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		r := w.op.at(two).do("POST", "/v1/runs", obj{"title": "a run", "budget": obj{"steps": 5}})
		if r.status == 403 {
			break
		}
		if r.code() != writ.CodePolicyDown || r.header.Get("Retry-After") == "" || time.Now().After(end) {
			t.Fatalf("the replica left behind: %s", r)
		}
	}
	w.export()
}

// A restart serves what was put in force, whatever folder the gateway is started
// with; the folder is only staged. Replicas with different folders never depose
// each other.
func TestTwoFoldersDoNotFlipFlop(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		w.t, w.op.t = t, t
		digest := w.op.stage(frozen(t, ""))
		w.settled(digest)
		w.activate(digest)
		_, want := w.op.mayBegin()
		for i, g := range w.gw {
			g.args = append(g.args, "--policies", frozen(t, fmt.Sprint("folder ", i)).dir(t))
		}
		for range 2 {
			for _, g := range w.gw {
				g.restart()
			}
			w.op = w.operator()
			for _, g := range w.gw {
				if _, got := w.op.at(g).mayBegin(); got != want {
					t.Errorf("after a restart %s is in force, want %s", got, want)
				}
			}
		}
		r := w.op.ok(200, "GET", "/v1/policy/bundles", nil)
		count := map[string]int{}
		list, _ := r.at("bundles").([]any)
		for _, b := range list {
			m := b.(map[string]any)
			count[m["state"].(string)+" "+m["source"].(string)]++
		}
		if count["staged folder"] != len(w.gw) || count["active call"] != 1 || count["retired folder"] != 1 {
			t.Errorf("got %v", count)
		}
		// Whoever starts it may say that the folder counts.
		g := w.gw[0]
		g.args = append(g.args, "--activate-policies")
		g.restart()
		w.op = w.operator()
		if _, got := w.op.mayBegin(); got == want {
			t.Error("--activate-policies changed nothing")
		}
		w.export()
	})
}

// Killed between staging and activation, nothing is lost: the bundle is still
// staged, and the replicas report ready again.
func TestKilledBetweenStagingAndActivation(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		w.t, w.op.t = t, t
		digest := w.op.stage(frozen(t, ""))
		for _, g := range w.gw {
			g.kill()
		}
		for _, g := range w.gw {
			g.start()
		}
		w.op = w.operator()
		var r reply
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			// Replicas that died are waited for until their last beat is old.
			if r = w.op.do("POST", "/v1/policy/bundles/"+digest+"/activate", nil); r.status == 200 {
				break
			}
		}
		if r.status != 200 {
			t.Fatal(r)
		}
		w.everywhere(false, "active")
		for _, g := range w.gw {
			g.restart()
		}
		w.op = w.operator()
		w.everywhere(false, "killed again")
		w.export()
	})
}

// What people type.
func TestStageFromTheCommandLine(t *testing.T) {
	onHosts(t, func(t *testing.T, w *world) {
		w.t, w.op.t = t, t
		bad := withRule(t, "\tinput.run.idd == 1").dir(t)
		if r := command(t, "policy", "stage", bad, "--wait", "--data", w.gw[0].data); r.code != 4 || !strings.Contains(r.String(), "freeze.rego:18") {
			t.Errorf("a bundle that does not compile: %s", r)
		}
		good := frozen(t, "")
		delete(good, "roles/policy.csv")
		delete(good, "roles/model.conf")
		file := filepath.Join(t.TempDir(), "bundle.tar.gz")
		if err := os.WriteFile(file, good.tar(t), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := command(t, "policy", "stage", file, "--activate", "--note", "from a file", "--data", w.gw[0].data); r.code != 0 {
			t.Fatalf("staging a file: %s", r)
		}
		w.everywhere(false, "activated")
		if r := command(t, "policy", "rollback", "--data", w.gw[0].data); r.code != 0 {
			t.Fatalf("rolling back: %s", r)
		}
		w.everywhere(true, "rolled back")
		if r := command(t, "policy", "stage", good.dir(t), "--wait", "--data", w.gw[0].data); r.code != 0 {
			t.Fatalf("staging the same from a directory: %s", r)
		}
		if r := command(t, "policy", "stage", filepath.Join(t.TempDir(), "nothing"), "--data", w.gw[0].data); r.code != 2 {
			t.Errorf("staging nothing: %s", r)
		}
	})
}

// Where a trust file is configured a team's signed pack joins what is in force;
// what is not signed, or by nobody who may ship it, is denied with a receipt.
func TestSignedBundles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := filepath.Join(dir, "team.pem")
	priv, pub := teamKey(t)
	for name, text := range map[string]string{
		"team.pem": priv, "team.pub": pub, "trust.yaml": "keys: {team: {public_key: team.pub, packs: [freeze]}}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t, "bolt", "--policy-trust", filepath.Join(dir, "trust.yaml"))
	src := frozen(t, "").dir(t)
	pack := func(id string) string {
		file := filepath.Join(dir, id+".tar.gz")
		if r := command(t, "policy", "bundle", src, "--pack", id, "-o", file); r.code != 0 {
			t.Fatalf("policy bundle: %s", r)
		}
		return file
	}
	unsigned := pack("freeze")
	stage := func(file string) result {
		return command(t, "policy", "stage", file, "--activate", "--data", w.gw[0].data)
	}
	for _, file := range []string{src, unsigned} {
		if r := stage(file); r.code != 4 || !strings.Contains(r.stderr, "receipt: rcp_") {
			t.Errorf("not signed: %s", r)
		}
	}
	for id, want := range map[string]int{"budgets": 4, "freeze": 0} {
		file := pack(id)
		if r := command(t, "policy", "sign", "--key", key, "--key-id", "team", file); r.code != 0 {
			t.Fatalf("policy sign: %s", r)
		}
		if r := stage(file); r.code != want {
			t.Errorf("signed %s: %s", id, r)
		}
	}
	w.everywhere(false, "the signed pack is active")
	list, _ := w.op.ok(200, "GET", "/v1/policy/bundles?state=active", nil).at("bundles").([]any)
	if len(list) != 1 || list[0].(map[string]any)["signer"] != "team" {
		t.Errorf("got %v", list)
	}
	w.export()
}

func teamKey(t testing.TB) (private, public string) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: a})), string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b}))
}
