package pack

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// stage is as much of a browser as the page needs: elements by their id, which keep what is
// put into them.
const stage = `
const els = {}, made = () => ({ value: "", checked: false, kids: [], appendChild(k) { this.kids.push(k); return k; }, replaceChildren(...k) { this.kids = k; } });
globalThis.document = { getElementById: (id) => (els[id] ??= made()), createElement: made };
`

// play chooses a file, fills in what is given, presses the button, and prints what is shown.
const play = `
import { readFileSync } from "node:fs";
const say = (n) => (n.textContent ?? "") + n.kids.map(say).join("\n");
for (const line of readFileSync(0, "utf8").trim().split("\n")) {
  const job = JSON.parse(line), bytes = new Uint8Array(readFileSync(job.pack));
  for (const id of ["logkey", "keys", "run", "verifiers"]) document.getElementById(id).value = job[id] ? readFileSync(job[id], "utf8") : "";
  Object.assign(document.getElementById("run"), { value: job.id ?? "" });
  document.getElementById("close").checked = !!job.close;
  await takeTar({ name: "run.tar", arrayBuffer: async () => bytes.buffer });
  Object.assign(document.getElementById("out"), { kids: [], textContent: "" });
  await document.getElementById("go").onclick();
  console.log(say(els.out).replaceAll("\n", " / "));
}
`

// The page says what the programs do, and refuses to ask who closed no run.
func TestThePageChecksAPack(t *testing.T) {
	if node(t) == nil {
		return
	}
	page, err := os.ReadFile(filepath.Join(js, "verify.html"))
	if err != nil {
		t.Fatal(err)
	}
	_, script, _ := strings.Cut(string(page), `<script type="module">`)
	script, _, ok := strings.Cut(script, "</script>")
	if !ok {
		t.Fatal("the page has no script")
	}
	file := filepath.Join(t.TempDir(), "page.mjs")
	if err := os.WriteFile(file, []byte(stage+script+play), 0o600); err != nil {
		t.Fatal(err)
	}
	const dir, run = "../../testdata/vectors/pack/", "run_01KEDVDNA00000000000000001"
	keys := `"pack":"` + dir + `run.tar","logkey":"` + dir + `log.vkey","keys":"` + dir + `receipt.pub"`
	var jobs, wants []string
	for _, x := range [][2]string{
		{keys, "ok / "},
		{keys, "scope / " + run + " / "},
		{keys, "promised / all evidence"},
		{`"pack":"` + dir + `run.tar"`, "ok, but by the keys in the pack only"},
		{keys + `,"close":true`, "could not check: say which run"},
		{keys + `,"close":true,"id":"7"`, "could not check: say which run"},
		{keys + `,"close":true,"id":"` + run + `"`, "the gateway's only"},
		{keys + `,"id":"run_01KEDVDNA00000000000000009"`, "run_unknown"},
		{keys + `,"id":"run_01KEDVDNA00000000000000009"`, "run_scope"},
		{keys + `,"verifiers":"` + dir + `receipt.pub","id":"` + run + `"`, "could not check: a verifier's key"},
		{keys + `,"verifiers":"` + dir + `receipt.pub","id":"` + run + `","close":true`, "verdict_untrusted"},
		{`"pack":"` + dir + `run.tar","keys":"` + dir + `receipt.pub"`, "could not check: give the log's key"},
		{strings.Replace(keys, "run.tar", "receipt.pub", 1), "pack_malformed"},
	} {
		jobs, wants = append(jobs, "{"+x[0]+"}"), append(wants, x[1])
	}
	// A key that cannot be read is not left out.
	pub, err := os.ReadFile(dir + "receipt.pub")
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range []string{
		strings.TrimSuffix(strings.TrimSpace(string(pub)), "-"), "ssh-ed25519 AAAA", strings.ReplaceAll(string(pub), "PUBLIC", "EC PUBLIC"), "SHA256:abc",
		string(pub) + "\nnone", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
	} {
		key := filepath.Join(filepath.Dir(file), fmt.Sprint("key", i))
		if err := os.WriteFile(key, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		jobs = append(jobs, `{`+keys+`,"verifiers":"`+key+`","id":"`+run+`","close":true}`, `{"pack":"`+dir+`run.tar","keys":"`+key+`"}`, `{`+strings.Replace(keys, dir+"receipt.pub", key, 1)+`}`)
		wants = append(wants, "could not check: ", "could not check: ", "could not check: ")
	}
	cmd := exec.Command("node", file)
	cmd.Stdin = strings.NewReader(strings.Join(jobs, "\n"))
	out, err := cmd.Output()
	said := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(said) != len(wants) {
		t.Fatalf("%v: %s", err, out)
	}
	for i, want := range wants {
		if !strings.Contains(said[i], want) {
			t.Errorf("%s: got %s, want %q", jobs[i], said[i], want)
		}
	}
}
