package daemon

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/writ-gateway/writ"
	"github.com/writ-gateway/writ/receipts"
	"github.com/writ-gateway/writ/receipts/ledger"
	"github.com/writ-gateway/writ/receipts/tlog"
	"github.com/writ-gateway/writ/store"
	"github.com/writ-gateway/writ/store/redisstore/redistest"
)

// Where a gateway of these tests kills itself on its way from a commit to the log.
const (
	afterCommit     = "after the commit, before its answer"
	afterRead       = "after the fact was read, before it is sealed"
	afterSeal       = "after it was sealed, before the keys of its evidence are on disk"
	afterKeys       = "after these are on disk, before it is in the ledger"
	afterLedger     = "after it is in the ledger, before anything else"
	beforeTiles     = "before the first tile that covers it"
	betweenTiles    = "between two files of the log"
	afterTiles      = "after the tiles, before the checkpoint"
	afterCheckpoint = "after the checkpoint"
	beforeTrim      = "before the outbox is trimmed"
	afterTrim       = "after it was trimmed"
)

var killPoints = []string{afterCommit, afterRead, afterSeal, afterKeys, afterLedger, beforeTiles, betweenTiles, afterTiles, afterCheckpoint, beforeTrim, afterTrim}

const killedEnv = "WRIT_TEST_KILLED" // data directory, store and point, a line each

// killer ends the process at a point, as kill -9 does, once a file is there.
type killer struct{ point, armed string }

func (k killer) at(point string) {
	if _, err := os.Stat(k.armed); point != k.point || err != nil {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // nothing happens any more
}

type killingStore struct {
	store.Store
	killer
	d *Daemon
}

func (s killingStore) Commit(ctx context.Context, of writ.Tenant, tx writ.Tx) (writ.Committed, error) {
	c, err := s.Store.Commit(ctx, of, tx)
	if err == nil && tx.Fact != nil {
		s.at(afterCommit)
	}
	return c, err
}

func (s killingStore) Facts(ctx context.Context, of writ.Tenant, after int64, n int, wait time.Duration) ([]writ.StoredFact, error) {
	facts, err := s.Store.Facts(ctx, of, after, n, wait)
	if len(facts) > 0 && facts[len(facts)-1].Commit.Seq > s.d.ledger.Last() {
		s.at(afterRead)
	}
	return facts, err
}

func (s killingStore) Trim(ctx context.Context, of writ.Tenant, upto int64) error {
	s.at(beforeTrim)
	err := s.Store.Trim(ctx, of, upto)
	s.at(afterTrim)
	return err
}

// recovering is what only a store on another machine has.
type recovering interface {
	Recover(context.Context, writ.Tenant, int64, writ.ReceiptID, string) error
}

type killingSealer struct {
	*receipts.Sealer
	killer
}

func (s killingSealer) Seal(f writ.StoredFact) (writ.Receipt, error) {
	r, err := s.Sealer.Seal(f)
	s.at(afterSeal)
	return r, err
}

type killingKeeper struct {
	ledger.Keeper
	killer
}

func (k killingKeeper) Keep(facts []writ.StoredFact, entries []ledger.Entry) error {
	err := k.Keeper.Keep(facts, entries)
	k.at(afterKeys)
	return err
}

func (k killingKeeper) Filed() error {
	k.at(afterLedger)
	return k.Keeper.Filed()
}

type killingFiles struct {
	tlog.Files
	killer
}

func (f killingFiles) Swap(path string, old, data []byte) error {
	switch {
	case path == tlog.CheckpointPath:
		f.at(afterTiles)
	case strings.HasPrefix(path, "tile/entries/"): // written after the tile of level 0
		f.at(betweenTiles)
	default:
		f.at(beforeTiles)
	}
	err := f.Files.Swap(path, old, data)
	if path == tlog.CheckpointPath {
		f.at(afterCheckpoint)
	}
	return err
}

func killedConfig(data, at string) (Config, error) {
	return Load("", noEnv, map[string]string{"data": data, "store": at, "listen": "127.0.0.1:0", "outage_grace": "1ms", "checkpoint_every": "100ms"})
}

// serveToDie is a gateway that kills itself, until its standard input ends.
func serveToDie(t *testing.T, data, at, point string) {
	cfg, err := killedConfig(data, at)
	if err != nil {
		t.Fatal(err)
	}
	d, k := New(cfg, slog.New(slog.NewTextHandler(os.Stderr, nil))), killer{point, filepath.Join(filepath.Dir(data), "armed")}
	openStore := func(ctx context.Context) error {
		if err := d.openStore(ctx); err != nil {
			return err
		}
		s := killingStore{d.store, k, d}
		if r, ok := d.store.(recovering); ok {
			d.store = struct {
				killingStore
				recovering
			}{s, r}
		} else {
			d.store = s
		}
		return nil
	}
	openLedger := func(ctx context.Context) error {
		if err := d.takeLedger(ctx); err != nil {
			return err
		}
		files, name, err := d.openShard(ctx)
		if err == nil {
			err = d.openLog(ctx, killingFiles{files, k}, name)
		}
		if err != nil {
			return err
		}
		return d.integrate(ctx, killingSealer{d.sealer, k}, killingKeeper{d.shred, k})
	}
	if err := d.start(t.Context(), openStore, openLedger); err != nil {
		t.Fatal(err)
	}
	fmt.Println("serves " + d.URL())
	_, _ = io.Copy(io.Discard, os.Stdin)
	stopDaemon(t, d)
}

// victim is the parent's side of such a gateway.
type victim struct {
	t     *testing.T
	data  string
	store string

	url   string
	cmd   *exec.Cmd
	stdin io.Closer
	ended chan struct{}
	stuff bytes.Buffer // what it logged

	acked map[writ.ReceiptID]string // agents by the receipts of their registration
	open  []string                  // agents whose registration was not answered
	made  int
}

func (v *victim) arm(armed bool) {
	v.t.Helper()
	path := filepath.Join(filepath.Dir(v.data), "armed")
	err := os.WriteFile(path, nil, 0o600)
	if !armed {
		err = os.Remove(path)
	}
	if err != nil {
		v.t.Fatal(err)
	}
}

// start runs it until it serves, or dies.
func (v *victim) start(point string) (serves bool) {
	v.t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledBetweenTwoSteps$")
	cmd.Env = append(os.Environ(), killedEnv+"="+v.data+"\n"+v.store+"\n"+point)
	v.cmd = cmd
	v.stuff.Reset()
	cmd.Stderr = &v.stuff
	out, err := cmd.StdoutPipe()
	if err != nil {
		v.t.Fatal(err)
	}
	if v.stdin, err = cmd.StdinPipe(); err != nil {
		v.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	ready, ended := make(chan string, 1), make(chan struct{})
	v.ended = ended
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if url, ok := strings.CutPrefix(lines.Text(), "serves "); ok {
				ready <- url
			}
		}
		_ = cmd.Wait()
		close(ended)
	}()
	select {
	case v.url = <-ready:
		return true
	case <-ended:
		v.died(point, true)
		return false
	case <-time.After(60 * time.Second):
		v.t.Fatalf("%s: it does not serve\n%s", point, &v.stuff)
		return false
	}
}

// died waits for its end, by kill -9 or of itself.
func (v *victim) died(point string, killed bool) {
	v.t.Helper()
	select {
	case <-v.ended:
		if strings.Contains(v.cmd.ProcessState.String(), "killed") != killed {
			v.t.Fatalf("%s: it ended with %v\n%s", point, v.cmd.ProcessState, &v.stuff)
		}
	case <-time.After(30 * time.Second):
		v.t.Fatalf("it did not come to the point %q\n%s", point, &v.stuff)
	}
}

// register registers an agent, under a key that is the agent's, and says whether that was answered.
func (v *victim) register(agent string) bool {
	v.t.Helper()
	body := `{"archetypes":["executor"],"domain":"web","tools":[{"name":"site.build","safety":"mutating"}],"write_scope":["fs:` + agent + `/"]}`
	req, err := http.NewRequestWithContext(v.t.Context(), "PUT", v.url+"/v1/agents/"+agent, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	token, err := os.ReadFile(OperatorToken(v.data))
	if err != nil {
		v.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	req.Header.Set("Idempotency-Key", agent)
	req.Header.Set("Content-Type", "application/json")
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	var reply struct{ Receipt writ.ReceiptID }
	if err != nil || res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests {
		return false
	}
	if err := json.Unmarshal(text, &reply); err != nil || res.StatusCode != 201 || reply.Receipt == "" {
		v.t.Fatalf("%s: HTTP %d, %s, %v", agent, res.StatusCode, text, err)
	}
	v.acked[reply.Receipt] = agent
	return true
}

// held checks what there is while no gateway runs: every receipt is in the ledger or still
// in the outbox, under its sequence and once, and the log is the ledger as far as it goes.
// all says that all of it must be published.
func (v *victim) held(point string, all bool) {
	v.t.Helper()
	ctx := v.t.Context()
	cfg, err := killedConfig(v.data, v.store)
	if err != nil {
		v.t.Fatal(err)
	}
	l, err := ledger.Read(filepath.Join(v.data, ledgerDir))
	if err != nil {
		v.t.Fatal(err)
	}
	defer l.Close()
	if err := l.Check(); err != nil {
		v.t.Fatalf("%s: %v", point, err)
	}
	there, made := map[writ.ReceiptID]int64{}, map[string]int{}
	note := func(id writ.ReceiptID, seq int64, payload []byte) {
		rec, err := receipts.Decode(payload)
		if err != nil || rec.Commit.Seq != seq {
			v.t.Fatalf("%s: receipt %d says it is %d, %v", point, seq, rec.Commit.Seq, err)
		}
		if was, twice := there[id]; twice {
			v.t.Errorf("%s: %s is there twice, under %d and %d", point, id, was, seq)
		}
		there[id] = seq
		for _, c := range rec.Statement.Changes {
			if c.Kind == writ.ObjectAgent && c.From == "" {
				made[c.ID]++
			}
		}
	}
	for r, err := range l.All(-1, l.Last()) {
		if err != nil {
			v.t.Fatal(err)
		}
		note(r.ID, r.Seq, r.Payload)
	}
	st, err := openStore(ctx, cfg)
	if err != nil {
		v.t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	facts, err := st.Facts(ctx, shard, -1, 10_000, 0)
	if err != nil {
		v.t.Fatal(err)
	}
	for _, f := range facts {
		if filed, ok, err := l.Get(f.Commit.Seq); err != nil {
			v.t.Fatal(err)
		} else if !ok {
			note(f.ID, f.Commit.Seq, f.Payload())
		} else if filed.ID != f.ID || !bytes.Equal(filed.Payload, f.Payload()) {
			v.t.Errorf("%s: ledger and outbox differ under %d", point, f.Commit.Seq)
		}
	}
	for seq, n := int64(0), int64(len(there)); seq < n; seq++ {
		found := false
		for _, at := range there {
			found = found || at == seq
		}
		if !found {
			v.t.Errorf("%s: nothing has the sequence %d of %d", point, seq, n)
		}
	}
	for id, agent := range v.acked {
		if _, ok := there[id]; !ok || made[agent] != 1 {
			v.t.Errorf("%s: %s was acknowledged with %s, which is there: %v; made %d times", point, agent, id, ok, made[agent])
		}
	}
	public, err := leafKeys(cfg.Keys)
	if err != nil {
		v.t.Fatal(err)
	}
	files := tlog.Dir(filepath.Join(v.data, logDir))
	text, err := files.Read(tlog.CheckpointPath)
	if errors.Is(err, fs.ErrNotExist) && !all {
		return
	}
	if err != nil {
		v.t.Fatal(err)
	}
	d := New(cfg, slog.New(slog.DiscardHandler))
	key, err := d.verifier("writ.local", 1)
	if err != nil {
		v.t.Fatal(err)
	}
	cp, err := tlog.Verify(ctx, string(files), tlog.Trust{Log: key}, nil)
	if err != nil || !bytes.Equal(cp.Text, text) {
		v.t.Fatalf("%s: %v", point, err)
	}
	p, err := tlog.Part(ctx, files, cp, l, public)
	if err != nil || p.Incomplete != nil || len(p.Orphans) > 0 || p.Common != cp.Size || all && cp.Size != l.Last()+1 {
		t := fmt.Sprintf("%d of %d in common, the ledger ends at %d", p.Common, cp.Size, l.Last())
		v.t.Errorf("%s: log and ledger differ: %s, %v, %v", point, t, p.Incomplete, err)
	}
}

// Killed between any two steps from a commit to the log, a gateway has lost nothing it
// acknowledged, has nothing twice, and its log is the ledger's at every index.
func TestKilledBetweenTwoSteps(t *testing.T) {
	if said := os.Getenv(killedEnv); said != "" {
		words := strings.Split(said, "\n")
		serveToDie(t, words[0], words[1], words[2])
		return
	}
	for _, host := range []string{"bolt", "redis"} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			v := &victim{t: t, data: filepath.Join(t.TempDir(), "data"), store: "bolt", acked: map[writ.ReceiptID]string{}}
			if host == "redis" {
				v.store = redistest.Start(t).URL()
			}
			for _, point := range killPoints {
				early := point == beforeTrim || point == afterTrim // a start trims what lies there
				if early {
					v.arm(true)
				}
				serves := v.start(point)
				for _, agent := range v.open { // nobody knows: the same call again
					if serves && !v.register(agent) && !early {
						t.Fatalf("%s: %s is not answered\n%s", point, agent, &v.stuff)
					}
				}
				if !early {
					v.open = nil
					v.arm(true)
				}
				for n := 0; serves && n < 3; n++ {
					v.made++
					if agent := fmt.Sprintf("agent-%d", v.made); !v.register(agent) {
						v.open = append(v.open, agent)
					}
				}
				v.died(point, true)
				v.arm(false)
				v.held(point, false)
			}
			if !v.start("") {
				t.Fatal("it does not serve")
			}
			for _, agent := range v.open {
				if !v.register(agent) {
					t.Fatalf("%s is not answered\n%s", agent, &v.stuff)
				}
			}
			_ = v.stdin.Close()
			v.died("at the end", false)
			v.held("at the end", true)
			if len(v.acked) < v.made {
				t.Errorf("%d of %d are acknowledged", len(v.acked), v.made)
			}
		})
	}
}
