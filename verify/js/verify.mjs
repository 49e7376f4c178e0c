// Checks evidence packs of writ, from docs/verify.md and docs/receipt-format.md alone: it
// shares no code with the gateway, and needs nothing but WebCrypto (Node 20, browsers).
//
//   const report = await verify(pack, {logKey, keys: [pem, …], witnesses: [key, …], need}, {run, close})
//
// pack is {names, read(name), bad}: see folder, tarball in cli.mjs and page.html. Nothing in
// it is trusted because it lies there.

// What the reference lists: moves of objects, closed lists of words, and findings with
// what they mean for the verdict. Tests hold this to the gateway's own.
const TABLES = /* tables */ {
  moves: {"agent":{"":["planned"],"active":["suspended","superseded","retired"],"planned":["planned","active","suspended","retired"],"retired":[],"superseded":[],"suspended":["suspended","planned","active","superseded","retired"]},"approval":{"":["pending"],"approved":["approved","consumed","expired","superseded","revoked"],"consumed":[],"denied":[],"expired":[],"pending":["pending","approved","denied","expired","superseded","revoked"],"revoked":[],"superseded":[]},"ballot":{"":["open"],"carried":[],"open":["open","carried","void"],"void":["open"]},"bundle":{"":["staged"],"active":["active","retired"],"refused":["staged"],"retired":["active","staged"],"staged":["active","refused","withdrawn"],"withdrawn":["staged"]},"effect":{"":["intended"],"error":[],"intended":["ok","error","unknown"],"ok":[],"unknown":["intended","unknown","ok","error"]},"egress":{"":["active"],"active":["active","revoked"],"revoked":["active"]},"escrow":{"":["held"],"held":["settled"],"settled":[]},"evidence":{"":["shredded"],"shredded":["shredded"]},"gate":{"":["open"],"open":["open"]},"health":{"":["healthy","degraded","unhealthy"],"degraded":["healthy","degraded","unhealthy"],"healthy":["healthy","degraded","unhealthy"],"unhealthy":["healthy","degraded","unhealthy"]},"jail":{"":["wanted"],"ended":[],"running":["starting","ended"],"starting":["running","ended"],"wanted":["starting","ended"]},"key":{"":["introduced","active"],"active":["retired"],"introduced":["active","retired"],"retired":["revoked"],"revoked":[]},"quota":{"":["active"],"active":["active","deleted"],"deleted":[]},"repair":{"":["done"],"done":[]},"run":{"":["active"],"active":["active","paused_approval","verifying","done","failed","cancelled"],"cancelled":[],"done":[],"failed":[],"paused_approval":["paused_approval","active","verifying","done","failed","cancelled"],"verifying":["active","done","failed","cancelled"]},"secret":{"":["stored"],"deleted":[],"stored":["stored","deleted"]},"session":{"":["opened"],"active":["suspended","closed","expired","revoked"],"closed":[],"expired":[],"opened":["active","closed","expired","revoked"],"revoked":[],"suspended":["active","closed","expired","revoked"]},"task":{"":["queued","blocked"],"blocked":["blocked","queued","failed","cancelled"],"cancelled":[],"dead":[],"done":[],"failed":[],"parked":["parked","queued","running","failed","dead","cancelled"],"queued":["queued","running","parked","failed","cancelled"],"running":["running","queued","parked","verifying","done","failed","dead","cancelled"],"verifying":["queued","done","failed","cancelled"]}},
  principals: ["human","agent","service","connector","system"],
  roles: ["operator","orchestrator","executor","verifier","approver","auditor","connector","system"],
  effects: ["allow","redact","require_approval","deny"],
  codes: ["already_claimed","already_exists","approval_denied","approval_required","artifact_digest","backpressure","budget_exceeded","capability_unavailable","classification_denied","contention","deps_unmet","effect_failed","effect_stopped","effect_unknown","egress_denied","evidence_shredded","handoff_loop","idempotency_mismatch","illegal_transition","in_flight","input_invalid","internal","lease_lost","malformed","no_eligible_agent","not_eligible","not_found","not_holder","not_ready","policy_denied","policy_unavailable","predicate_unsatisfied","preflight_unhealthy","quota_exceeded","rbac_denied","receipt_pending","run_paused","scope_conflict","scope_denied","sod_violation","store_unavailable","token_already_issued","too_large","unauthenticated","upgrade","verdict_refused","version_conflict"],
  labels: ["external.untrusted","internal.system","pii.attachment","pii.chat.message","pii.chat.metadata","pii.redacted","public","secret.credential","secret.token"],
  dimensions: ["children","cost_microusd","llm_tokens","net_egress_bytes","net_ingress_bytes","retries","retries_per_step","sandbox_cpu_ms","sandbox_mem_peak_bytes","steps","storage_write_bytes","wall_ms"],
  quorum: 5,
  keys: 4,
  findings: {"base64":[2,"base64 that encodes to another text when decoded and encoded again"],"bundle_malformed":[2,"it is no bundle in the one form a pack has"],"checkpoint_differs":[1,"a receipt is proved by another checkpoint than that of the pack"],"checkpoint_signature":[1,"the checkpoint is not signed by the log's key"],"close_bypassed":[1,"the run asks for a verdict and is done without one"],"close_role":[1,"the verdict is not a verifier's"],"consistency":[1,"the log does not begin with what the earlier checkpoint covers"],"epoch_back":[1,"the epoch goes back"],"evidence_differs":[1,"the evidence is not the one whose digest the receipt states"],"evidence_missing":[3,"evidence that is needed is not there"],"file_extra":[1,"a file is there that the pack does not list, or that no pack has"],"file_missing":[3,"a file that each pack has, or that this one lists, is not there"],"file_twice":[1,"two files have one name"],"gate_missing":[1,"a gate that a result must pass was not passed: no receipt of another's gate, begun after that result, says so last, or the verdict does not name it"],"hint_differs":[1,"the bundle hints at another key than the one that signed it"],"inclusion":[1,"the proof that the log has it does not hold"],"index_differs":[1,"it is proved at another index than its own"],"key_differs":[1,"the statement names another key than the one that signed it"],"key_event":[1,"what a receipt says of a key cannot be"],"key_not_valid_then":[1,"it is signed by a key that does not sign there: not yet or no more, or of which nothing is to be believed from there on"],"key_other":[1,"it is signed by another key than those that are trusted"],"key_untrusted":[1,"a receipt key in the pack is neither trusted, nor introduced by a receipt of one that is"],"keys_differ":[1,"keys/manifest.json is not what the receipts say of keys"],"leaf_differs":[1,"the entry of the log is not of this receipt"],"lineage_agent":[1,"who judges had a part in the run as the same agent"],"lineage_controller":[1,"who judges, or answers for that, is behind somebody who had a part in the run"],"lineage_key":[1,"who judges signs with a key of somebody who had a part in the run"],"lineage_opener":[1,"whoever opened the session of who judges had a part in the run"],"lineage_session":[1,"who judges had a part in the run in the same session"],"lineage_unknown":[3,"how a session was opened, or what an agent was registered with, is not in the pack"],"list_differs":[1,"receipts.jsonl does not list these receipts"],"log_key_differs":[1,"log.vkey is of another log key"],"move_from":[1,"an object moves from a state it was not in"],"move_gap":[3,"how an object came to the state it moves from is not in the pack"],"move_illegal":[1,"an object makes a move its states do not have"],"origin":[1,"it is of another log than the key is"],"pack_malformed":[2,"this is no pack in the form this version knows"],"parent_future":[1,"a parent comes after it"],"parent_missing":[3,"a parent is not in the pack"],"parent_self":[1,"it is its own parent"],"parent_unknown":[1,"a parent is not in the log"],"payload_malformed":[2,"the payload is no statement in the form this version knows"],"policy_differs":[1,"a policy bundle is not the one its name says"],"policy_missing":[3,"a policy bundle is not there that the receipt was judged by, or puts in force"],"quorum_missing":[1,"fewer verdicts accept it than it asks for, on the last change of what they judge and named by the one that ends it"],"quorum_twice":[1,"two of the verdicts that accept it are of verifiers who are not told apart"],"readme_differs":[1,"README.md is not what follows from the pack: do not run what it says"],"receipt_extra":[1,"a receipt is there that is not of what the pack says it holds"],"receipt_missing":[3,"a receipt is missing"],"receipt_twice":[1,"two receipts have one id"],"run_after_end":[1,"the run, or a task of it, moves on after the end"],"run_back":[1,"the sequence of a run goes back"],"run_begin":[1,"something comes before the run is created"],"run_gap":[3,"a receipt of a run is missing"],"run_open":[3,"the run has not ended"],"run_scope":[3,"the pack is of another run than the one that is asked for, and says of that one nothing whole"],"run_tasks_gap":[3,"the run is done, and how a task of it ended is not in the pack"],"run_tasks_open":[1,"the run is done while a task of it is not over"],"run_unknown":[3,"the pack has no receipt of the run"],"seq_moved":[1,"it stands in the place of another receipt"],"signature":[1,"the signature does not hold"],"signature_form":[1,"the signature is not in the one form it may have"],"sum_differs":[1,"a file is not the one whose sum the pack states"],"tenant_other":[1,"it is of another tenant"],"time_back":[1,"the time goes back"],"trusted_root_differs":[1,"trusted_root.json is of another log key"],"verdict_about":[1,"the verdict that is signed is about something else than what it judges"],"verdict_alone":[1,"a signed verdict is logged that the receipt after it does not rest on, or a receipt rests on one that is logged elsewhere"],"verdict_gate":[1,"a check that was asked for has not passed"],"verdict_key":[1,"the verdict is signed with a key that who judges did not have then"],"verdict_missing":[1,"a task asks for a verdict and is done without one"],"verdict_other":[1,"the verdict names another receipt than the last change of what it judges"],"verdict_says":[1,"the verdict that is signed is not the one the receipt names, or does not say what that does"],"verdict_signature":[1,"the verifier's signature does not hold"],"verdict_stale":[1,"the verdict does not follow from the last change of what it judges"],"verdict_twice":[1,"a signed verdict is used a second time"],"verdict_unsigned":[1,"who judges has a key, and has not signed the verdict with it"],"verdict_untrusted":[1,"the run does not end by a verdict signed with a verifier's key that is trusted"],"witness_missing":[3,"fewer witnesses have cosigned the checkpoint than must have"],"witness_signature":[1,"the signature of a witness on the checkpoint does not hold"]},
  readme: {"":"# Receipts of {origin}\n\n{scope} each with the proof that the file `checkpoint` covers it.\n\nThe keys in here are for reading only. Check with those you were given by somebody you trust: `receipt.pub` and the log's\nverifier key, here `{key}`.\n\n## With writ\n\n```\nwrit pack verify . --log-key LOG-KEY --key receipt.pub\n```\n\n{commands}Without it: `node cli.mjs . --log-key LOG-KEY --key receipt.pub`, or `verify.html` in a browser; both are in `verify/js` of the sources.\n\n## With cosign\n\nA receipt's signature, and that the log has it. `trusted_root.json` is the log's key: compare it with the one you have.\n\n```\n{shown}```\n\nThe digest of any other receipt is `subject[0].digest.sha256` of its payload.\n\n## Files\n\n| | |\n|---|---|\n| `pack.json` | what the pack says it holds |\n| `checkpoint` | size and root of the log, signed (C2SP tlog-checkpoint) |\n| `receipts/` | one Sigstore bundle each, by sequence; `receipts.jsonl` lists them |\n{evidence}| `policies/` | policy bundles with the packs that receipts name; the name is their SHA-256 |\n| `keys/`, `log.vkey`, `trusted_root.json` | the keys it was made with; `keys/manifest.json` says which receipt key signs from where in the log, and until where |\n{earlier}| `SHA256SUMS` | `sha256sum -c SHA256SUMS` shows damage; it is not signed |\n","commands":"```\nwrit run verify . --run {run} --log-key LOG-KEY --key receipt.pub\nwrit close verify . --run {run} --log-key LOG-KEY --key receipt.pub\n```\n\n","earlier":"| `earlier/` | an earlier checkpoint, and the proof that the log still begins with it |\n","ended":"how {run} became {to}","evidence":"| `evidence/` | what a receipt's `evidence` digest stands for: arguments of calls, which may hold personal data |\n","first":"the first one","later":", signed with a later receipt key: only `writ pack verify` shows that it is the gateway's","log":"All receipts of the log, 0 to {end},","range":"Receipts {first} to {last} of {size}","run":"The receipts of {run}, and those before it that it rests on,","shown":"# {what}{later}\ncosign verify-blob-attestation --key {key} --bundle {file} --trusted-root trusted_root.json \\\n  --type https://writ-gateway.github.io/writ/attestation/transition/v1 --digest {digest} --digestAlg sha256\n"},
} /* end */;

const subtle = globalThis.crypto.subtle;
const TYPE = {
  bundle: "application/vnd.dev.sigstore.bundle.v0.3+json",
  payload: "application/vnd.in-toto+json",
  root: "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
  statement: "https://in-toto.io/Statement/v1",
  manifest: "https://writ-gateway.github.io/writ/attestation/key-manifest/v1",
  verdict: "https://in-toto.io/attestation/svr/v0.2",
  transition: "https://writ-gateway.github.io/writ/attestation/transition/v1",
};

// ---- bytes -------------------------------------------------------------------

// One character a byte, so that a pattern sees bytes. Of ASCII, which nearly all is, a decoder
// makes the same, and faster; so it is asked piece by piece.
const ascii = new TextDecoder(), strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
function latin(bytes) {
  let s = "";
  for (let i = 0; i < bytes.length; i += 512) {
    const some = bytes.subarray(i, i + 512), text = ascii.decode(some);
    const good = text.length === some.length && !text.includes("\ufffd"); // each byte was a character, and a good one
    s += good ? text : String.fromCharCode.apply(null, some);
  }
  return s;
}
function bytesOf(s) {
  const out = new Uint8Array(s.length);
  for (let i = 0; i < s.length; i++) out[i] = s.charCodeAt(i);
  return out;
}
const encoder = new TextEncoder(), utf8 = (s) => encoder.encode(s);
const join = (...parts) => joined(parts);
function joined(parts) {
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) { out.set(p, at); at += p.length; }
  return out;
}
function same(a, b) {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
// A member of a table of ours, and nothing that tables inherit.
const own = (table, name) => (Object.hasOwn(table, name) ? table[name] : undefined);
const HEX = Array.from({ length: 256 }, (_, x) => x.toString(16).padStart(2, "0"));
const hex = (b) => Array.from(b, (x) => HEX[x]).join("");
const base64 = (b) => btoa(latin(b));
// Strict: null unless encoding again gives the same text, which is where no bit is left over but zeros.
const unbase64 = (s) => (s.length % 4 === 0 && /^[A-Za-z0-9+/]*([AQgw]==|[AEIMQUYcgkosw048]=)?$/.test(s) ? bytesOf(atob(s)) : null);
// The one spelling of a whole number, -1 for any other.
function number(s) {
  const n = /^[0-9]+$/.test(s) ? Number(s) : -1;
  return Number.isSafeInteger(n) && String(n) === s ? n : -1;
}

// SHA-256. To ask WebCrypto takes longer than to work out what is short.
export const sha256 = async (b) => (b.length > 2048 ? new Uint8Array(await subtle.digest("SHA-256", b)) : short256(b));

// FIPS 180-4. It begins with the first bits behind the point of the square roots of eight primes, and
// goes on with those of the cube roots of 64.
const PRIMES = Array.from({ length: 310 }, (_, i) => i + 2).filter((n, _, all) => !all.some((d) => d < n && n % d === 0));
const roots = (n, of) => Int32Array.from(PRIMES.slice(0, n), (p) => (of(p) % 1) * 2 ** 32);
const START = roots(8, Math.sqrt), ROUND = roots(64, Math.cbrt), words = new Int32Array(64);

function short256(bytes) {
  const all = new Uint8Array(Math.ceil((bytes.length + 9) / 64) * 64), view = new DataView(all.buffer), state = START.slice();
  all.set(bytes);
  all[bytes.length] = 0x80;
  view.setUint32(all.length - 4, bytes.length * 8);
  for (let at = 0; at < all.length; at += 64) {
    for (let i = 0; i < 16; i++) words[i] = view.getInt32(at + 4 * i);
    for (let i = 16; i < 64; i++) {
      const x = words[i - 15], y = words[i - 2];
      words[i] = (words[i - 16] + words[i - 7] + ((x >>> 7 | x << 25) ^ (x >>> 18 | x << 14) ^ x >>> 3) + ((y >>> 17 | y << 15) ^ (y >>> 19 | y << 13) ^ y >>> 10)) | 0;
    }
    let a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
    for (let i = 0; i < 64; i++) {
      const x = (h + ((e >>> 6 | e << 26) ^ (e >>> 11 | e << 21) ^ (e >>> 25 | e << 7)) + (g ^ (e & (f ^ g))) + ROUND[i] + words[i]) | 0;
      const y = (((a >>> 2 | a << 30) ^ (a >>> 13 | a << 19) ^ (a >>> 22 | a << 10)) + ((a & b) | (c & (a | b)))) | 0;
      h = g; g = f; f = e; e = (d + x) | 0; d = c; c = b; b = a; a = (x + y) | 0;
    }
    state[0] += a; state[1] += b; state[2] += c; state[3] += d; state[4] += e; state[5] += f; state[6] += g; state[7] += h;
  }
  state.forEach((v, i) => view.setInt32(4 * i, v));
  return all.slice(0, 32);
}

// ---- keys and signatures -----------------------------------------------------

const P256 = bytesOf("\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00");
const ED25519 = bytesOf("\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00");

function ssh(...fields) {
  const out = [];
  for (const f of fields) {
    const n = f.length;
    out.push(new Uint8Array([n >>> 24, n >>> 16, n >>> 8, n]), f);
  }
  return join(...out);
}

const p256 = (der) => subtle.importKey("spki", der, { name: "ECDSA", namedCurve: "P-256" }, false, ["verify"]);

// The one spelling of a key.
const pemOf = (der) => `-----BEGIN PUBLIC KEY-----\n${base64(der).replace(/.{1,64}/g, "$&\n")}-----END PUBLIC KEY-----\n`;

// A public key in PEM, with or without lines before it and headers in it: {id, der, kind, raw, key}, null where it is none of the
// two kinds there are, or in another DER than the one its key has.
async function publicKey(pem) {
  const m = /^(?:(?!-----BEGIN )[^\n]*\n)*-----BEGIN PUBLIC KEY-----[ \t\r]*\n(?:[^\n:]*:[^\n]*\n)*([A-Za-z0-9+/= \t\r\n]+?)\n-----END PUBLIC KEY-----[ \t\v\f\r\n]*$/.exec(pem);
  const der = m && unbase64(m[1].replace(/[ \t\r\n]/g, ""));
  return der ? keyOf(der) : null;
}

// The same of a key as DER.
async function keyOf(der) {
  let kind, wire, raw, key;
  if (der.length === P256.length + 65 && same(der.subarray(0, P256.length), P256) && der[P256.length] === 4) {
    raw = der.subarray(P256.length);
    kind = "p256";
    try { key = await p256(der); } catch { return null; } // no point of the curve
    wire = ssh(utf8("ecdsa-sha2-nistp256"), utf8("nistp256"), raw);
  } else if (der.length === ED25519.length + 32 && same(der.subarray(0, ED25519.length), ED25519)) {
    raw = der.subarray(ED25519.length);
    kind = "ed25519";
    wire = ssh(utf8("ssh-ed25519"), raw);
  } else return null;
  return { id: "SHA256:" + base64(await sha256(wire)).replace(/=+$/, ""), der, kind, raw, key };
}

const ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;

// An ECDSA signature in DER: null if it is not in the one form it may have, else {r, s},
// which are null where a value cannot be one of a signature. Of the two values of s receipts
// have the lower; other programs make either.
function der(sig, either = false) {
  let at = 0;
  const length = () => (at < sig.length && sig[at] < 0x80 ? sig[at++] : -1);
  if (sig[at++] !== 0x30 || length() !== sig.length - 2) return null;
  const values = [];
  for (let i = 0; i < 2; i++) {
    if (at >= sig.length || sig[at++] !== 0x02) return null;
    const n = length();
    if (n < 1 || at + n > sig.length) return null;
    const b = sig.subarray(at, at + n);
    at += n;
    if (n > 1 && ((b[0] === 0 && b[1] < 0x80) || (b[0] === 0xff && b[1] >= 0x80))) return null; // not the shortest
    values.push(b[0] >= 0x80 ? null : BigInt("0x" + hex(b))); // null: negative
  }
  if (at !== sig.length) return null;
  const [r, s] = values;
  if (!either && s !== null && s > ORDER / 2n) return null; // of two forms the one nobody makes
  return { r, s };
}

async function signed(key, text, { r, s }) {
  if (r === null || s === null || r < 1n || s < 1n || r >= ORDER || s >= ORDER) return false;
  const pad = (v) => v.toString(16).padStart(64, "0");
  const raw = new Uint8Array((pad(r) + pad(s)).match(/../g).map((x) => parseInt(x, 16)));
  return subtle.verify({ name: "ECDSA", hash: "SHA-256" }, key, raw, text);
}

// Whether everybody reads the 32 bytes of a point of Ed25519 in one way: programs differ about points
// of small order, by which anybody can sign anything, and about coordinates that are not below the prime.
const PRIME = 2n ** 255n - 19n, EIGHT = 0x05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826n;
function plainPoint(b) {
  const y = BigInt("0x" + hex(b.slice().reverse())) & (2n ** 255n - 1n);
  return y < PRIME && ![0n, 1n, PRIME - 1n, EIGHT, PRIME - EIGHT].includes(y);
}

// Whether a key of either kind signed a payload.
async function signedBy(k, payload, sig) {
  if (k.kind === "ed25519" && !(sig.length === 64 && plainPoint(k.raw) && plainPoint(sig.subarray(0, 32)))) return false;
  if (k.kind === "ed25519") {
    k.key ??= await subtle.importKey("raw", k.raw, { name: "Ed25519" }, false, ["verify"]);
    return subtle.verify({ name: "Ed25519" }, k.key, sig, pae(payload));
  }
  const values = der(sig, true);
  return values !== null && signed(k.key, pae(payload), values);
}

function pae(payload) {
  return join(utf8(`DSSEv1 ${TYPE.payload.length} ${TYPE.payload} ${payload.length} `), payload);
}

// ---- the log -----------------------------------------------------------------

// A note verifier key: name+hash+key.
async function logKeyOf(text) {
  const m = /^([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)$/.exec(text.replace(/^[ \t-\r]+|[ \t-\r]+$/g, ""));
  const raw = m && unbase64(m[3]);
  if (!raw || raw.length !== 33 || raw[0] !== 1 || !origin(m[1])) throw new Error("not a note verifier key of an Ed25519 key");
  const id = await sha256(join(utf8(m[1] + "\n"), raw));
  if (hex(id.subarray(0, 4)) !== m[2]) throw new Error("a note verifier key whose hash is not its own");
  return { text: m[0], name: m[1], id, raw: raw.subarray(1), key: await subtle.importKey("raw", raw.subarray(1), { name: "Ed25519" }, false, ["verify"]) };
}

// The key of a witness: name+hash+key, of an Ed25519 cosignature (C2SP tlog-cosignature).
async function witnessKeyOf(text) {
  const m = /^([^\s+]+)\+([0-9A-Fa-f]{8})\+([A-Za-z0-9+/=]+)$/.exec(text), raw = m && unbase64(m[3]);
  if (!raw || raw.length !== 33 || raw[0] !== 4) throw new Error("not the key of a witness of a kind that is checked here: Ed25519 cosignatures");
  const id = await sha256(join(utf8(m[1] + "\n"), raw));
  if (hex(id.subarray(0, 4)) !== m[2].toLowerCase()) throw new Error("the key of a witness whose hash is not its own");
  return { text: m[1] + "+" + m[2].toLowerCase() + "+" + m[3], name: m[1], id, key: await subtle.importKey("raw", raw.subarray(1), { name: "Ed25519" }, false, ["verify"]) };
}

// The body of a note, and what somebody's key signed of it, if it did; null where it is no note.
function note(bytes, key) {
  if (bytes.length > 16384) return null;
  let all;
  try { all = strict.decode(bytes); } catch { return null; }
  const text = latin(bytes);
  if (/[\x00-\x09\x0b-\x1f]/.test(text)) return null;
  const cut = text.lastIndexOf("\n\n");
  if (cut < 0 || !text.endsWith("\n")) return null;
  const mark = "— ", lines = all.slice(all.lastIndexOf("\n\n") + 2, -1).split("\n"); // lengths differ, places of line ends do not
  if (lines.length > 100) return null;
  let sig = null;
  for (const line of lines) {
    const m = line.startsWith(mark) && /^([^\p{White_Space}+]+) ([A-Za-z0-9+/=]+)$/u.exec(line.slice(mark.length)), of = m && unbase64(m[2]);
    if (!of || of.length < 5) return null;
    if (!sig && m[1] === key.name && same(of.subarray(0, 4), key.id.subarray(0, 4))) sig = of.subarray(4); // else somebody else's
  }
  return { body: bytes.subarray(0, cut + 1), sig };
}

// A checkpoint: {size, root}; null where the key did not sign it.
async function checkpoint(bytes, key) {
  const n = note(bytes, key);
  if (!n?.sig || !(await subtle.verify({ name: "Ed25519" }, key.key, n.sig, n.body))) return null;
  const lines = latin(n.body).split("\n");
  const root = unbase64(lines[2] ?? "");
  const size = number(lines[1] ?? "");
  if (lines.length < 4 || lines[0] !== key.name || size < 0 || !root || root.length !== 32) return null;
  return { size, root };
}

// When a witness cosigned a checkpoint, in seconds; undefined where it did not, null where what
// names its key is not by it.
async function cosigned(bytes, key) {
  const n = note(bytes, key);
  if (!n) return null;
  if (!n.sig) return undefined;
  if (n.sig.length !== 72) return null;
  const at = new DataView(n.sig.slice(0, 8).buffer).getBigInt64(0);
  if (at < 0n || at > 253402300799n) return null; // no time anybody can write down
  return (await subtle.verify({ name: "Ed25519" }, key.key, n.sig.subarray(8), join(utf8(`cosignature/v1\ntime ${at}\n`), n.body))) ? Number(at) : null;
}

const leafHash = (leaf) => sha256(join(new Uint8Array([0]), leaf));
const nodeHash = (a, b) => sha256(join(new Uint8Array([1]), a, b));

// RFC 9162, 2.1.3.2, for many leaves of one tree: nodes that a proof went through are known, by
// level and place, each with its sibling and the node above. Who comes to one need not go on where all
// of that is the same, and is not in the tree where it is not.
class Tree {
  constructor(size, root) {
    this.size = size;
    this.root = root;
    this.known = new Map();
  }

  async has(index, hash, proof) {
    if (index >= this.size || proof.some((p) => p.length !== 32)) return false;
    let fn = BigInt(index), sn = BigInt(this.size - 1), r = hash, level = 0;
    const up = () => { fn >>= 1n; sn >>= 1n; level++; }, fresh = [];
    for (let i = 0; i < proof.length; i++) {
      const node = `${level}/${fn}`, is = this.known.get(node);
      if (is) return same(is.r, r) && this.leads(is, proof, i) && this.keep(fresh, is);
      if (level > 0) fresh.push({ node, r, sibling: proof[i] }); // a leaf is asked for once
      if (sn === 0n) return false;
      if (fn & 1n || fn === sn) {
        r = await nodeHash(proof[i], r);
        while (!(fn & 1n) && fn !== 0n) up();
      } else r = await nodeHash(r, proof[i]);
      up();
    }
    return sn === 0n && same(r, this.root) && this.keep(fresh, null);
  }

  // Whether the rest of a proof is the way from a known node to the root.
  leads(is, proof, i) {
    for (; is; is = is.above, i++) if (i >= proof.length || !same(is.sibling, proof[i])) return false;
    return i === proof.length;
  }

  keep(fresh, above) {
    for (const is of fresh.reverse()) {
      is.above = above;
      this.known.set(is.node, is);
      above = is;
    }
    return true;
  }
}

// RFC 9162, 2.1.4.2; every log begins with nothing.
export async function consistent(old, now, proof) {
  if (old.size === 0) return proof.length === 0;
  if (old.size > now.size || proof.some((p) => p.length !== 32)) return false;
  if (old.size === now.size) return proof.length === 0 && same(old.root, now.root);
  let path = proof.slice();
  if ((BigInt(old.size) & (BigInt(old.size) - 1n)) === 0n) path.unshift(old.root);
  if (path.length === 0) return false;
  let fn = BigInt(old.size - 1), sn = BigInt(now.size - 1);
  while (fn & 1n) { fn >>= 1n; sn >>= 1n; }
  let fr = path[0], sr = path[0];
  for (const c of path.slice(1)) {
    if (sn === 0n) return false;
    if (fn & 1n || fn === sn) {
      fr = await nodeHash(c, fr);
      sr = await nodeHash(c, sr);
      while (!(fn & 1n) && fn !== 0n) { fn >>= 1n; sn >>= 1n; }
    } else sr = await nodeHash(sr, c);
    fn >>= 1n;
    sn >>= 1n;
  }
  return sn === 0n && same(fr, old.root) && same(sr, now.root);
}

// How an entry of the log names the algorithms of a key. Of an Ed25519 key, which only verifiers
// have, it says what stock verifiers work out, though what is signed is the text itself.
const algorithms = (der) => (same(der.subarray(0, ED25519.length), ED25519) ? ["SHA2_512", "SHA-512", "PKIX_ED25519_PH", 64] : ["SHA2_256", "SHA-256", "PKIX_ECDSA_P256_SHA_256", 32]);
const LEAF = /^\{"apiVersion":"0\.0\.2","kind":"hashedrekord","spec":\{"hashedRekordV002":\{"data":\{"algorithm":"([^"]*)","digest":"([^"]*)"\},"signature":\{"content":"([^"]*)","verifier":\{"keyDetails":"([^"]*)","publicKey":\{"rawBytes":"([^"]*)"\}\}\}\}\}\}$/;

async function leafOf(payload, sig, der) {
  const [name, hash, details] = algorithms(der), text = pae(payload), digest = hash === "SHA-256" ? await sha256(text) : new Uint8Array(await subtle.digest(hash, text));
  return utf8(`{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":"${name}","digest":"${base64(digest)}"},"signature":{"content":"${base64(sig)}","verifier":{"keyDetails":"${details}","publicKey":{"rawBytes":"${base64(der)}"}}}}}}`);
}

// The public key in an entry of the log, as DER; null where that is in no form this version knows.
function leafKey(leaf) {
  const m = LEAF.exec(latin(leaf)), [digest, content, der] = m ? [m[2], m[3], m[5]].map(unbase64) : [];
  if (!digest || !content || !der) return null;
  const [name, , details, size] = algorithms(der);
  return m[1] === name && m[4] === details && digest.length === size ? der : null;
}

function trustedRoot(key) {
  const root = {
    mediaType: TYPE.root,
    tlogs: [{
      baseUrl: "https://" + key.name, hashAlgorithm: "SHA2_256",
      publicKey: { rawBytes: base64(join(ED25519, key.raw)), keyDetails: "PKIX_ED25519", validFor: { start: "1970-01-01T00:00:00Z" } },
      logId: { keyId: base64(key.id) },
    }],
  };
  return utf8(JSON.stringify(root, null, 2) + "\n");
}

// ---- a receipt ---------------------------------------------------------------

const literal = (s) => s.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
const WORDS = "([!#-\\[\\]-~]*)", DIGITS = "([0-9]+)", B64 = "([A-Za-z0-9+/=]*)";
const HASHES = '((?:"[A-Za-z0-9+/=]*"(?:,"[A-Za-z0-9+/=]*")*)?)', LINES = '((?:[^"\\\\]|\\\\n)*)';
const BUNDLE = new RegExp("^" + [
  `{"mediaType":"${TYPE.bundle}","verificationMaterial":{"publicKey":{"hint":"`, WORDS, '"},"tlogEntries":[{"logIndex":"', DIGITS, '","logId":{"keyId":"', B64,
  '"},"kindVersion":{"kind":"hashedrekord","version":"0.0.2"},"inclusionProof":{"logIndex":"', DIGITS, '","rootHash":"', B64, '","treeSize":"', DIGITS, '","hashes":[', HASHES,
  '],"checkpoint":{"envelope":"', LINES, '"}},"canonicalizedBody":"', B64, '"}]},"dsseEnvelope":{"payload":"', B64, `","payloadType":"${TYPE.payload}","signatures":[{"sig":"`, B64,
  '","keyid":"', WORDS, '"}]}}\n',
].map((part, i) => (i % 2 ? part : literal(part))).join("") + "$");

// The payload of a bundle, where nothing else matters.
function peek(text) {
  const m = BUNDLE.exec(latin(text));
  return m && unbase64(m[10]);
}

function parse(text) {
  const m = BUNDLE.exec(latin(text));
  if (!m) return { code: "bundle_malformed" };
  const b = {
    hint: m[1], index: m[2], logId: unbase64(m[3]), proofIndex: m[4], root: unbase64(m[5]), size: m[6],
    hashes: m[7] ? m[7].split(",").map((h) => unbase64(h.slice(1, -1))) : [],
    checkpoint: bytesOf(m[8].replaceAll("\\n", "\n")), leaf: unbase64(m[9]), payload: unbase64(m[10]), sig: unbase64(m[11]), keyId: m[12],
  };
  return [b.logId, b.root, b.leaf, b.payload, b.sig, ...b.hashes].includes(null) ? { code: "base64" } : b;
}

const ulid = (prefix) => new RegExp(`^${prefix}_[0-7][0-9A-HJKMNP-TV-Z]{25}$`);
const ID = { rcp: ulid("rcp"), cll: ulid("cll"), ses: ulid("ses"), run: ulid("run"), tsk: ulid("tsk"), eff: ulid("eff"), sec: ulid("sec"), slug: /^[a-z][a-z0-9-]{1,62}$/, tenant: /^[a-z][a-z0-9-]{0,31}$/ };
const HOST = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/;

const origin = (s) => s.length <= 200 && HOST.test(s);

// Whether a log of this name is one of the origin that its receipts name: the first shard, or a later one.
const ofLog = (name, from) => name === from || (name.endsWith("." + from) && /^s([2-9]|[1-9][0-9]{1,3})$/.test(name.slice(0, -from.length - 1)));

// Canonical JSON of the closed alphabet, or null.
function canonical(v) {
  if (typeof v === "string") return /^[A-Za-z0-9._:/@+-]{0,200}$/.test(v) ? `"${v}"` : null;
  if (typeof v === "number") return Number.isSafeInteger(v) ? String(v) : null;
  if (Array.isArray(v)) return within("[", v.map(canonical), "]");
  if (v === null || typeof v !== "object") return null;
  return within("{", Object.keys(v).sort().map((k) => {
    const name = canonical(k), value = canonical(v[k]);
    return name === null || value === null ? null : name + ":" + value;
  }), "}");
}
const within = (open, parts, close) => (parts.includes(null) ? null : open + parts.join(",") + close);

// The shape of a statement: for each member how it must be; a "?" before the name where it
// may be left out.
const is = {
  word: (v) => typeof v === "string", full: (v) => typeof v === "string" && v !== "",
  positive: (v) => typeof v === "number" && v > 0, whole: (v) => typeof v === "number" && v >= 0, int: (v) => typeof v === "number",
  like: (p) => (v) => typeof v === "string" && p.test(v), one: (list) => (v) => list.includes(v),
  list: (of) => (v) => Array.isArray(v) && v.length > 0 && v.every(of),
  single: (of) => (v) => Array.isArray(v) && v.length === 1 && of(v[0]),
  map: (of) => (v) => plain(v) && Object.keys(v).length > 0 && Object.keys(v).every((k) => k !== "") && Object.values(v).every(of),
  object: (members) => {
    const known = new Map(Object.entries(members).map(([name, of]) => [name.replace("?", ""), of]));
    const needed = Object.keys(members).filter((name) => !name.startsWith("?"));
    return (v) => plain(v) && needed.every((k) => Object.hasOwn(v, k)) && Object.keys(v).every((k) => known.get(k)?.(v[k]));
  },
  some: (of) => (v) => of(v) && Object.keys(v).length > 0,
};
const plain = (v) => v !== null && typeof v === "object" && !Array.isArray(v);
const HEX32 = is.like(/^[0-9a-f]{32}$/), HEX64 = is.like(/^[0-9a-f]{64}$/), KEY_ID = is.like(/^SHA256:[A-Za-z0-9+/]{43}$/);
const AMOUNTS = (v) => is.map(is.whole)(v) && Object.keys(v).every((k) => TABLES.dimensions.includes(k));
let shape;
const statementShape = () => (shape ??= is.object({
  _type: is.one([TYPE.statement]), predicateType: is.one([TYPE.transition]),
  subject: is.single(is.object({ digest: is.object({ sha256: HEX64 }), name: is.full })),
  predicate: is.object({
    "?actor": is.some(is.object({ "?agent": is.like(ID.slug), "?kind": is.one(TABLES.principals), "?role": is.one(TABLES.roles), "?session": is.like(ID.ses) })),
    "?budget": is.map(is.int),
    call: is.object({ capability: is.full, "?id": is.like(ID.cll), "?version": is.full }),
    "?changes": is.list(is.object({ from: is.word, id: is.full, kind: is.one(Object.keys(TABLES.moves)), to: is.full })),
    "?code": is.one(TABLES.codes),
    commit: is.object({ at: is.full, epoch: is.full, "?runSeq": is.positive, seq: is.whole }),
    "?count": is.positive,
    "?decision": is.some(is.object({ "?bindings": is.full, "?effect": is.one(TABLES.effects), "?input": is.full, "?packs": is.list(is.object({ digest: is.word, id: is.full })), "?policy": is.full, "?rules": is.list(is.full) })),
    "?effect": is.object({ attempt: is.positive, "?code": is.one(TABLES.codes), "?held": AMOUNTS, "?late": (v) => v === true, "?secrets": is.list(is.object({ id: is.like(ID.sec), version: is.positive })), "?settled": AMOUNTS }),
    "?evidence": HEX64, "?fence": is.positive, "?key": is.object({ id: KEY_ID, purpose: is.one(["receipt"]), "?since": is.positive, spki: HEX64 }), keyId: is.full, "?labels": is.list(is.one(TABLES.labels)), log: is.object({ origin: is.like(HOST) }), nonce: HEX32,
    outcome: is.full, "?parents": is.list(is.like(ID.rcp)), receiptId: is.like(ID.rcp), "?run": is.like(ID.run), "?task": is.like(ID.tsk), tenant: is.like(ID.tenant), transition: is.full,
    "?verdict": is.object({ digest: HEX64, keyId: KEY_ID }),
  }),
}));

// Whether a bundle may have a statement of a key: as base64 has it, from any of three places.
const AS_BASE64 = ["", " ", "  "].map((before) => btoa(before + '"transition":"key.').slice(before ? 4 : 0, 24));
const hasKeyEvent = (text) => AS_BASE64.some((part) => text.includes(part));
const KEY_TRANSITIONS = ["key.introduce", "key.activate", "key.retire", "key.revoke"];

// The predicate of a payload; null if it is not in its form.
async function statement(payload) {
  let s;
  const text = latin(payload);
  try { s = JSON.parse(text); } catch { return null; }
  if (canonical(s) !== text || !statementShape()(s)) return null;
  const p = s.predicate, first = p.changes?.[0];
  const at = new Date(p.commit.at);
  if (!/^\d{4}-/.test(p.commit.at) || Number.isNaN(at.getTime()) || at.toISOString() !== p.commit.at) return null; // of other years it has six digits
  if (("runSeq" in p.commit) !== ("run" in p) || p.call.capability !== p.transition) return null;
  if (s.subject[0].name !== (first ? first.kind + "/" + first.id : "receipt/" + p.receiptId)) return null;
  if (s.subject[0].digest.sha256 !== (p.evidence ?? hex(await sha256(utf8(p.receiptId))))) return null;
  const ofKey = p.outcome === "transition" && KEY_TRANSITIONS.includes(p.transition);
  if (ofKey !== ("key" in p)) return null;
  if (ofKey && (("since" in p.key && p.transition !== "key.revoke") || !(p.changes ?? []).some((c) => c.kind === "key" && c.id === p.key.spki))) return null;
  if ("verdict" in p && p.outcome !== "transition") return null;
  const moved = (p.changes ?? []).filter((c) => c.kind === "effect"), e = p.effect;
  if (moved.length > 1 || (moved.length === 1) !== ("effect" in p)) return null;
  if (e && (p.outcome !== "transition" || !ID.eff.test(moved[0].id) || ("code" in e && !["error", "unknown"].includes(moved[0].to)))) return null;
  if (e && (("late" in e && moved[0].from !== "unknown") || (("held" in e || "secrets" in e) && moved[0].to !== "intended"))) return null;
  const opens = (p.changes ?? []).some((c) => c.kind === "approval" && c.from === "" && c.to === "pending");
  const fits = {
    transition: !p.code && !p.count, request: !p.code && !p.count && !p.budget && opens,
    denial: p.code && !p.count && !p.changes, aggregate: p.count && !p.changes,
  };
  return own(fits, p.outcome) ? p : null;
}

// ---- a verdict its verifier signed ----------------------------------------------

// Whether a JSON text is read one way: no object has a member twice, in whatever spelling
// (JSON.parse would take the last one and not tell), no word is no text, and nothing is deeper
// than anybody reads.
function once(text) {
  const open = [];
  for (const [token, word, colon] of text.matchAll(/("(?:[^"\\]|\\.)*")\s*(:?)|[[\]{}]/g)) {
    if (token === "{" || token === "[") open.push(new Set());
    else if (token === "}" || token === "]") open.pop();
    else {
      const name = JSON.parse(word), names = open.at(-1);
      if (!name.isWellFormed() || (colon && names.has(name))) return false;
      if (colon) names.add(name);
    }
    if (open.length > 10000) return false;
  }
  return true;
}

// JSON in UTF-8 that is read one way; undefined where it is none.
function json(bytes) {
  try {
    const text = strict.decode(bytes), v = JSON.parse(text);
    return once(text) ? v : undefined;
  } catch { return undefined; }
}

const resource = is.object({ "?name": is.word, "?uri": is.word, digest: is.object({ sha256: is.word }) });
const many = (of) => (v) => Array.isArray(v) && v.every(of);
const VERDICT = is.object({
  _type: is.one([TYPE.statement, "https://in-toto.io/Statement/v0.1"]), predicateType: is.one([TYPE.verdict]), subject: many(resource),
  predicate: is.object({ verifier: is.object({ id: is.word, policies: many(resource) }), timeCreated: is.word, properties: many(is.word) }),
});
const ENVELOPE = is.object({ payloadType: is.one([TYPE.payload]), payload: is.full, signatures: is.single(is.object({ keyid: is.full, sig: is.full })) });
const OF_KEYS = (v) => ENVELOPE(v) && KEY_ID(v.signatures[0].keyid);
const KEYS_FILE = is.object({ format: is.one(["writ-keys/v1"]), manifest: OF_KEYS, receipts: many(OF_KEYS) });
// Whether a payload is a verdict, and so no receipt's.
const OF_RECEIPT = `"predicateType":"${TYPE.transition}"`;
const isVerdict = (payload) => !latin(payload).includes(OF_RECEIPT) && VERDICT(json(payload));

// Under which id the log has a verdict: it follows from the digest.
function verdictId(digest) {
  let n = BigInt("0x" + digest.slice(0, 32)), id = "";
  for (let i = 0; i < 26; i++, n >>= 5n) id = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"[Number(n & 31n)] + id;
  return "rcp_" + id;
}

// The verdict that a receipt says is logged directly before it; "" for none.
function restsOn(p) {
  const id = p.verdict ? verdictId(p.verdict.digest) : "";
  return (p.parents ?? []).includes(id) ? id : "";
}
const equal = (a, b) => a.length === b.length && a.every((x, i) => x === b[i]);
const digests = (list) => (list.every((r) => /^[0-9a-f]{64}$/.test(r.digest.sha256)) ? list.map((r) => r.digest.sha256).sort() : []);
const unique = (list) => [...new Set(list)].sort();

// A time in whole seconds or milliseconds, NaN for any other text.
function time(s) {
  const at = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z$/.test(s) ? new Date(s) : null;
  return at && !Number.isNaN(at.getTime()) && at.toISOString() === s.replace(/(:\d\d)Z$/, "$1.000Z") ? at.getTime() : NaN;
}

// What evidence keeps of a signed verdict, if it is the one the receipt names and one of the keys signed it: the payload, or
// what is wrong.
async function openVerdict(kept, named, keys) {
  const e = plain(kept) ? kept.envelope : null;
  if (!ENVELOPE(e)) return { code: "verdict_says" };
  const { keyid, sig } = e.signatures[0], payload = unbase64(e.payload), signature = unbase64(sig);
  if (!payload || !signature || keyid !== named.keyId || hex(await sha256(payload)) !== named.digest || JSON.stringify(e).length > 49152) return { code: "verdict_says" };
  const key = keys.find((k) => k.id === keyid);
  if (!key) return { code: "verdict_key" };
  return (await signedBy(key, payload, signature)) ? { payload } : { code: "verdict_signature" };
}

// Holds what evidence keeps of a signed verdict to what it must say. The finding, or none.
async function signedVerdict(kept, named, want) {
  const { payload, code } = await openVerdict(kept, named, want.keys);
  if (code) return code;
  const s = json(payload);
  if (!VERDICT(s)) return "verdict_says";
  const p = s.predicate, policies = digests(p.verifier.policies), at = time(p.timeCreated);
  if (p.verifier.id !== "agent:" + want.agent || policies.length !== 1 || "sha256:" + policies[0] !== want.policy || !equal([...p.properties].sort(), want.properties)) return "verdict_says";
  if (!equal(digests(s.subject), want.subjects)) return "verdict_about";
  return at <= want.now + 60e3 && at >= want.now - 3600e3 ? "" : "verdict_says";
}

// ---- the pack ----------------------------------------------------------------

const SINGLE = ["pack.json", "checkpoint", "trusted_root.json", "log.vkey", "receipts.jsonl", "README.md", "SHA256SUMS", "keys/manifest.json", "earlier/checkpoint", "earlier/consistency"];
const RECEIPT = /^receipts\/([0-9]{12})\.sigstore\.json$/, EVIDENCE = /^evidence\/([0-9]{12})\.json$/;
const POLICY = /^policies\/([0-9a-f]{64})\.tar$/, KEY = /^keys\/receipt-[1-9][0-9]{0,3}\.pub$/;
const seqOf = (name) => Number((RECEIPT.exec(name) ?? EVIDENCE.exec(name) ?? [0, -1])[1]);
const place = (seq) => String(seq).padStart(12, "0");

const fill = (part, holes = {}) => TABLES.readme[part].replace(/\{([a-z]+)\}/g, (hole, name) => own(holes, name) ?? hole);

// How large a file of a pack may be.
export const limit = (name) => (["receipts.jsonl", "SHA256SUMS"].includes(name) ? 400 * 2 ** 20 : POLICY.test(name) ? 2 ** 25 : 2 ** 20);

class Stop extends Error {}
const CHANGED = "the pack is not what it was a moment ago: copy it, and check the copy";

// What a pack says it is of, in words.
const SCOPES = { log: () => "the whole log", range: (s) => `receipts ${s.first ?? 0} to ${s.last ?? 0}`, run: (s) => s.run };
export const scopeOf = (s) => own(SCOPES, s.kind)?.(s) ?? "";

// What the earlier checkpoint in a pack proves.
export const earlierOf = (size) => `the log begins with the ${size} receipts of earlier/checkpoint: compare that with the one you kept`;

// What a pack says it has all of. Its word is not signed.
export function promisesOf({ evidence, policies }) {
  if (evidence && policies) return "all evidence and all policies";
  if (evidence) return "all evidence; that policies were left out would not show";
  return policies ? "all policies; that evidence was left out would not show" : "nothing: that evidence or policies were left out would not show";
}

export const VERDICTS = ["ok", "tampered", "malformed", "incomplete"];

// Checks a pack. It throws for a key that cannot be used, and for a run that none can be; what is wrong with the pack
// stands in the report.
export async function verify(pack, trust = {}, ask = {}) {
  if (ask.run ? !ID.run.test(ask.run) : ask.close) throw new Error("say which run: run_ and 26 letters and digits");
  const c = new Check(pack, ask);
  try { await c.run(trust); } catch (e) { if (!(e instanceof Stop)) throw e; }
  c.report.findings.sort((a, b) => a.seq - b.seq || (a.code < b.code ? -1 : a.code > b.code ? 1 : 0));
  return c.report;
}

// What is worked out of each of many, in their order, some at a time: most of it is waiting for the
// cryptography. Only so many are in memory.
const AHEAD = 32;
async function* ahead(list, work) {
  const begun = [];
  for (let i = 0; i < list.length; i++) {
    while (i + begun.length < list.length && begun.length < AHEAD) {
      const one = work(list[i + begun.length]);
      one.catch(() => {}); // whoever awaits it hears of it
      begun.push(one);
    }
    yield begun.shift();
  }
}

class Check {
  constructor(pack, ask) {
    this.names = [...pack.names].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
    this.set = new Set(this.names);
    this.source = pack;
    this.ask = ask;
    this.ids = new Map(); // by sequence
    this.seqs = [];
    this.foreign = new Map(); // verdicts that are logged themselves, by sequence
    this.verdictIds = new Set(); // theirs
    this.payloads = new Map(); // their digests, by sequence
    this.used = []; // ids of receipt keys as they come: the files of keys are in this order
    this.shown = []; // receipts that the README shows: the first, and those that end a run
    this.keys = new Map(); // receipt keys: those that are trusted, and those that receipts introduce
    this.others = new Map(); // keys of verifiers, by their DER: each is worked out once
    this.ofKeys = new Set(); // receipts that say something of one
    this.fromFile = null; // the ring of a file of keys that was given
    this.lives = null; // while the key the log began with is not trusted
    this.verifiers = []; // keys one of which must have signed
    this.wants = new Map(); // policy packs and files of bundles that receipts want, each with the first of them
    this.report = { verdict: "ok", exit: 0, trust: "pinned keys", scope: {}, size: 0, receipts: 0, evidence: 0, policies: 0, promised: { evidence: false, policies: false }, earlier: null, rules_checked: false, findings: [] };
  }

  find(code, seq = -1) {
    const [exit, text] = TABLES.findings[code], r = this.report;
    if (r.findings.length < 200) r.findings.push({ code, verdict: VERDICTS[exit], seq, ...(this.ids.has(seq) ? { receipt: this.ids.get(seq) } : {}), text });
    if (r.exit === 0 || exit < r.exit) { r.exit = exit; r.verdict = VERDICTS[exit]; }
  }
  stop(code) { this.find(code); throw new Stop(); }
  has(name) { return this.set.has(name); }
  read(name) { return this.source.read(name); }
  async sum(name) { return hex(await sha256(await this.read(name))); }
  async file(name) { return this.has(name) ? this.read(name) : this.stop("file_missing"); }

  async run(trust) {
    for (const code of this.source.bad ?? []) this.find(code);
    await this.manifest();
    await this.sums();
    await this.trust(trust);
    await this.checkpoint();
    await this.earlier();
    await this.ring();
    await this.each();
    this.scope();
    await this.manifestOfKeys();
    await this.list();
    await this.policies();
    await this.rules();
    await this.cosignatures();
  }

  async manifest() {
    const text = latin(await this.file("pack.json"));
    let m;
    try { m = JSON.parse(text); } catch { this.stop("pack_malformed"); }
    const s = m?.scope;
    const size = (v) => Number.isSafeInteger(v);
    const good = plain(m) && plain(s) && typeof s.kind === "string" && typeof m.evidence === "boolean" && (m.policies === undefined || m.policies === true) && m.format === "writ-pack/v1" && typeof m.origin === "string" && origin(m.origin) && size(m.size) && m.size >= 1 && own({
      log: s.first === undefined && s.last === undefined && s.run === undefined,
      range: s.run === undefined && (s.first === undefined || size(s.first)) && (s.last === undefined || size(s.last)) && (s.first ?? 0) >= 0 && (s.first ?? 0) <= (s.last ?? 0),
      run: s.first === undefined && s.last === undefined && ID.run.test(s.run),
    }, s.kind);
    const again = () => JSON.stringify({
      evidence: m.evidence, format: m.format, origin: m.origin, ...(m.policies ? { policies: true } : {}),
      scope: { ...(s.first ? { first: s.first } : {}), kind: s.kind, ...(s.last ? { last: s.last } : {}), ...(s.run ? { run: s.run } : {}) }, size: m.size,
    }) + "\n";
    if (!good || again() !== text) this.stop("pack_malformed");
    this.m = m;
    this.report.scope = s;
    this.report.promised = { evidence: m.evidence, policies: m.policies === true };
  }

  // The sums are not signed: they show damage, and what else is checked shows the rest.
  async sums() {
    const text = latin(await this.file("SHA256SUMS")), stated = new Set();
    const lines = ahead(text.match(/[^\n]*\n|[^\n]+$/g) ?? [], async (line) => {
      const [, sum, name] = /^([0-9a-f]{64})  ([!-~]+)\n$/.exec(line) ?? [];
      if (name === undefined || stated.has(name)) return null;
      stated.add(name);
      return { name, sum, is: this.has(name) && limit(name) <= 2 ** 20 ? await this.sum(name) : undefined };
    });
    for await (const line of lines) {
      const { name, sum, is } = line ?? this.stop("pack_malformed");
      if (this.has(name)) {
        if ((is ?? await this.sum(name)) !== sum) this.find("sum_differs", seqOf(name)); // large ones one by one
      } else if (!RECEIPT.test(name) || this.m.scope.kind === "run") this.find("file_missing", seqOf(name));
    }
    for (const name of this.names) {
      const known = SINGLE.includes(name) || [RECEIPT, EVIDENCE, POLICY, KEY].some((p) => p.test(name));
      if (!known || (name !== "SHA256SUMS" && !stated.has(name))) this.find("file_extra", seqOf(name));
    }
  }

  async trust({ logKey = "", keys = [], keysFile = "", root = "", verifiers = [], witnesses = [], need = 0 }) {
    const mine = this.names.filter((n) => KEY.test(n));
    keys = [...keys];
    const inPack = await Promise.all(mine.map(async (n) => {
      const pem = latin(await this.read(n)), k = await publicKey(pem);
      return k?.kind === "p256" && pemOf(k.der) === pem ? k : null;
    }));
    if (!logKey && keys.length === 0 && !root) {
      if (keysFile) throw new Error("a file of keys says more of keys that are trusted: give the log's key, and a receipt key or a root, too");
      this.report.trust = "self-consistent only";
      logKey = latin(await this.file("log.vkey"));
      try { await logKeyOf(logKey); } catch { this.stop("pack_malformed"); }
      if (inPack.includes(null)) this.stop("pack_malformed");
      for (const k of inPack) keys.push(pemOf(k.der));
    }
    for (const pem of keys) {
      const k = await publicKey(pem);
      if (k?.kind !== "p256") throw new Error("a receipt key that is no P-256 public key in PEM");
      this.trusts(k);
    }
    this.inPack = inPack;
    if (root && !keysFile) throw new Error("a root vouches for keys in a manifest: give the file of keys too");
    if (keysFile) {
      this.fromFile = await ringOf(keysFile, root || keys.length === 0 ? null : await publicKey(keys[0]), root);
      for (const { half } of this.fromFile.lives) this.trusts(half);
    }
    for (const pem of verifiers) {
      const k = await publicKey(pem);
      if (!k) throw new Error("a verifier's key that is no public key in PEM, P-256 or Ed25519");
      this.verifiers.push(k);
    }
    const given = await Promise.all(witnesses.map(witnessKeyOf));
    this.witnesses = [...new Map(given.map((w) => [w.text, w])).values()];
    this.need = need || this.witnesses.length;
    this.logKey = await logKeyOf(logKey);
    this.report.log = this.logKey.name;
  }

  trusts(k) {
    this.keys.set(k.id, k);
  }

  // Learns what receipts say of receipt keys, which every pack has whatever its scope, of those
  // that are good by themselves. With the key the log began with, which is trusted, they say which
  // may have signed where.
  async ring() {
    const said = [];
    let first = null; // who says the first of keys is the first that signs
    for (const name of this.names) {
      if (!RECEIPT.test(name)) continue;
      const text = await this.read(name), ofKey = hasKeyEvent(latin(text));
      if (first !== null && !ofKey) continue;
      const b = parse(text);
      if (b.code || isVerdict(b.payload)) continue;
      const p = ofKey ? await statement(b.payload) : null;
      if (first === null || (p?.key && said.length === 0)) first = b.keyId;
      if (!p?.key) continue;
      this.ofKeys.add(seqOf(name));
      said.push(name);
    }
    this.first = first; // the key the log began with
    if (this.fromFile || this.keys.has(first)) await this.learn(first, said);
    for (const k of this.inPack) if (!k || !this.keys.has(k.id)) this.find("key_untrusted");
  }

  async halves() {
    const halves = new Map();
    for (const k of [...this.keys.values(), ...this.inPack]) if (k?.kind === "p256") halves.set(hex(await sha256(k.der)), k);
    return halves;
  }

  async learn(first, said) {
    const halves = await this.halves(), ring = this.fromFile ?? new Ring(this.keys.get(first), await spkiOf(this.keys.get(first)), halves);
    const told = this.fromFile?.payloads ?? new Map(), until = Math.max(-1, ...told.keys());
    ring.halves = halves;
    for (const name of said) {
      const { code, p, payload } = await this.one(seqOf(name), await this.read(name));
      if (code) continue;
      if (p.commit.seq <= until) { // the file has it
        if (told.get(p.commit.seq) !== latin(payload)) this.find("key_event", p.commit.seq);
        continue;
      }
      const wrong = ring.learn(p), half = ring.get(p.key.id)?.half;
      if (wrong) this.find(wrong, p.commit.seq);
      if (half) this.trusts(half);
    }
    if (this.m.scope.kind !== "log") for (const seq of told.keys()) if (seq < this.cp.size && !this.ofKeys.has(seq)) this.find("receipt_missing", seq); // of the whole log scope finds it
    this.lives = ring;
  }

  // What keys/manifest.json says must follow from the receipts in the pack, and from nothing outside.
  async manifestOfKeys() {
    const text = latin(await this.file("keys/manifest.json")), first = this.keys.get(this.first);
    if (this.report.findings.length || !first) return;
    const ring = new Ring(first, await spkiOf(first), await this.halves());
    for (const seq of this.seqs) if (this.ofKeys.has(seq) && ring.learn(await this.again(seq))) break;
    const keys = ring.lives.map((k) => lifeOf(k));
    if (JSON.stringify({ keys, origin: this.m.origin, size: this.m.size }) + "\n" !== text) this.find("keys_differ");
  }

  async checkpoint() {
    this.cpText = await this.file("checkpoint");
    if (latin(this.cpText).split("\n")[0] !== this.logKey.name || this.m.origin !== this.logKey.name) this.stop("origin");
    this.cp = await checkpoint(this.cpText, this.logKey);
    if (!this.cp) this.stop("checkpoint_signature");
    this.report.size = this.cp.size;
    this.tree = new Tree(this.cp.size, this.cp.root);
    if (this.cp.size !== this.m.size || (this.m.scope.last ?? 0) >= this.cp.size) this.stop("pack_malformed");
    if (!same(await this.file("trusted_root.json"), trustedRoot(this.logKey))) this.find("trusted_root_differs");
    if (latin(await this.file("log.vkey")) !== this.logKey.text + "\n") this.find("log_key_differs");
  }

  // Whether those cosigned the checkpoint that must have. It comes last: it is no matter for what
  // the receipts say.
  async cosignatures() {
    const signed = [];
    for (const w of this.witnesses) {
      const at = await cosigned(this.cpText, w);
      if (at === null) return this.find("witness_signature");
      if (at !== undefined) signed.push({ name: w.name, at: new Date(at * 1000).toISOString().replace(".000Z", "Z") });
    }
    if (signed.length > 0) this.report.witnesses = signed;
    if (signed.length < this.need) this.find("witness_missing");
  }

  async earlier() {
    if (!this.has("earlier/checkpoint") && !this.has("earlier/consistency")) return;
    const text = await this.file("earlier/checkpoint"), proof = latin(await this.file("earlier/consistency"));
    const old = await checkpoint(text, this.logKey);
    if (!old) return this.find("checkpoint_signature");
    const lines = proof === "" ? [] : proof.endsWith("\n") ? proof.slice(0, -1).split("\n").map(unbase64) : [null];
    if (lines.includes(null) || !(await consistent(old, this.cp, lines))) return this.find("consistency");
    this.report.earlier = old.size;
  }

  // Every receipt by itself.
  async each() {
    const shreds = new Map(), absent = []; // the last shredding of each run; evidence that is not there
    for await (const { seq, code, p, theirs, sum, evidence } of ahead(this.names.filter((name) => RECEIPT.test(name)), (name) => this.byItself(name))) {
      this.seqs.push(seq);
      if (p) this.ids.set(seq, p.receiptId);
      if (theirs) { this.foreign.set(seq, theirs); this.verdictIds.add(theirs.id); this.ids.set(seq, theirs.id); }
      if (code) { this.find(code, seq); continue; }
      this.payloads.set(seq, sum);
      if (theirs) {
        this.report.receipts++;
        if (evidence) this.find("evidence_differs", seq); // what is not the gateway's has none
        continue;
      }
      if (!this.used.includes(p.keyId)) this.used.push(p.keyId);
      const end = (p.changes ?? []).find((c) => c.kind === "run" && over("run", c.to));
      if ((end || this.shown.length === 0) && this.shown.length < 20) this.shown.push({ seq, p, end });
      this.report.receipts++;
      this.judged(seq, p);
      const shred = (p.changes ?? []).find((c) => c.kind === "evidence" && c.to === "shredded");
      if (shred) shreds.set(shred.id, seq);
      if (evidence) {
        if (evidence !== p.evidence) this.find("evidence_differs", seq);
        else this.report.evidence++;
      } else if (this.m.evidence && p.evidence) absent.push({ seq, run: p.transition === "evidence.shred" ? "" : p.run }); // what is known of a shredding stays
    }
    for (const { seq, run } of absent) if (!run || !(seq < shreds.get(run))) this.find("evidence_missing", seq);
    for (const name of this.names) {
      const m = EVIDENCE.exec(name);
      if (m && !this.has(`receipts/${m[1]}.sigstore.json`) && !this.missed(seqOf(name))) this.find("file_extra", seqOf(name));
    }
  }

  // What there is to say of a receipt and of the evidence beside it, which depends on no other.
  async byItself(name) {
    const seq = seqOf(name), beside = `evidence/${RECEIPT.exec(name)[1]}.json`;
    const { code, p, theirs, payload } = await this.one(seq, await this.read(name));
    if (code) return { seq, code, p, theirs };
    return { seq, p, theirs, sum: hex(await sha256(payload)), evidence: this.has(beside) ? await this.sum(beside) : "" };
  }

  async one(seq, text) {
    const b = parse(text);
    if (b.code) return b;
    if (isVerdict(b.payload)) return this.theirs(seq, b);
    const key = this.keys.get(b.keyId);
    if (!key) return { code: "key_other" };
    if (b.hint !== b.keyId) return { code: "hint_differs" };
    const sig = der(b.sig);
    if (!sig) return { code: "signature_form" };
    if (!(await signed(key.key, pae(b.payload), sig))) return { code: "signature" };
    const p = await statement(b.payload);
    if (!p) return { code: "payload_malformed" };
    const is = (code) => ({ code, p });
    if (p.keyId !== b.keyId) return is("key_differs");
    if (!ofLog(this.m.origin, p.log.origin)) return is("origin");
    if (p.commit.seq !== seq) return is("seq_moved");
    if (this.lives && !this.lives.may(b.keyId, seq)) return is("key_not_valid_then");
    const code = await this.logged(seq, b, key.der);
    return code ? is(code) : { p, payload: b.payload };
  }

  // Whether the log has an entry by a key.
  async logged(seq, b, der) {
    if (number(b.index) !== seq || number(b.proofIndex) !== seq) return "index_differs";
    if (!same(b.logId, this.logKey.id) || !same(b.root, this.cp.root) || number(b.size) !== this.cp.size || !same(b.checkpoint, this.cpText)) return "checkpoint_differs";
    if (!same(b.leaf, await leafOf(b.payload, b.sig, der))) return "leaf_differs";
    return (await this.tree.has(seq, await leafHash(b.leaf), b.hashes)) ? "" : "inclusion";
  }

  keyIn(der) {
    const name = latin(der);
    if (!this.others.has(name)) this.others.set(name, keyOf(der));
    return this.others.get(name);
  }

  // Proves a verdict that is logged as its verifier signed it, by the key in its entry. Whose that
  // is, the receipt after it says, and where it is, the proof alone.
  async theirs(seq, b) {
    const spki = leafKey(b.leaf), key = spki && (await this.keyIn(spki));
    if (!spki) return { code: "leaf_differs" };
    if (b.hint !== b.keyId) return { code: "hint_differs" };
    if (!key) return { code: "signature" };
    if (key.id !== b.keyId) return { code: "key_differs" };
    if (key.kind === "p256" && !der(b.sig, true)) return { code: "signature_form" };
    if (!(await signedBy(key, b.payload, b.sig))) return { code: "signature" };
    const digest = hex(await sha256(b.payload)), theirs = { id: verdictId(digest), digest, keyId: b.keyId };
    return { code: await this.logged(seq, b, spki), theirs, payload: b.payload };
  }

  // The first and the last receipt of a log or a range.
  bounds() {
    const s = this.m.scope;
    return s.kind === "log" ? [0, this.cp.size - 1] : [s.first ?? 0, s.last ?? 0];
  }

  // Of a sequence: whether the pack must have its receipt, so that scope says where it has not.
  missed(seq) {
    const [first, last] = this.bounds();
    return this.m.scope.kind !== "run" && first <= seq && seq <= last;
  }

  scope() {
    if (this.m.scope.kind === "run") return;
    const [first, last] = this.bounds();
    let want = first;
    for (const seq of this.seqs) {
      if (seq < first || seq > last) {
        if (!this.ofKeys.has(seq)) this.find("receipt_extra", seq);
        continue;
      }
      if (seq > want) this.find("receipt_missing", want);
      want = seq + 1;
    }
    if (want <= last) this.find("receipt_missing", want);
  }

  // The statement of a receipt that was good, read a second time.
  async again(seq) {
    const payload = peek(await this.read(`receipts/${place(seq)}.sigstore.json`));
    if (!payload || hex(await sha256(payload)) !== this.payloads.get(seq)) throw new Error(CHANGED);
    return JSON.parse(latin(payload)).predicate;
  }

  async list() {
    const text = latin(await this.file("receipts.jsonl"));
    if (this.report.findings.length) return;
    const readme = latin(await this.file("README.md"));
    const want = this.seqs.map((seq) => JSON.stringify({ payload: this.payloads.get(seq), receipt: this.ids.get(seq), seq }) + "\n").join("");
    const shown = await Promise.all(this.shown.map(async ({ seq, p, end }) => {
      const what = end ? fill("ended", { run: end.id, to: end.to }) : fill("first");
      const known = p.keyId === this.first; // whoever checks was given the key the log began with
      return fill("shown", { what, later: known ? "" : fill("later"), key: known ? "receipt.pub" : `keys/receipt-${this.used.indexOf(p.keyId) + 1}.pub`, file: `receipts/${place(seq)}.sigstore.json`, digest: p.evidence ?? hex(await sha256(utf8(p.receiptId))) });
    }));
    if (want !== text) this.find("list_differs");
    if (this.readme(shown.join("")) !== readme) this.find("readme_differs");
  }

  // README.md as it follows from the pack: whoever was handed one runs what it says.
  readme(shown) {
    const s = this.m.scope, size = this.cp.size;
    const about = { run: s.run ?? "", first: s.first ?? 0, last: s.last ?? 0, size, end: size - 1 };
    const part = (name, there) => (there ? fill(name, about) : "");
    return fill("", {
      origin: this.logKey.name, key: this.logKey.text, scope: fill(s.kind, about), shown, commands: part("commands", s.kind === "run"),
      evidence: part("evidence", this.names.some((n) => EVIDENCE.test(n))), earlier: part("earlier", this.has("earlier/checkpoint")),
    });
  }

  // What a receipt says of the bundles a pack must have that promises its policies: one with each policy
  // pack it was judged by, and those it puts in force.
  judged(seq, p) {
    const wants = [...(p.decision?.packs ?? []).map((pack) => "pack " + pack.digest), ...(p.changes ?? []).filter((c) => c.kind === "bundle" && c.to === "active").map((c) => `policies/${c.id}.tar`)];
    for (const x of wants) if (!this.wants.has(x)) this.wants.set(x, seq);
  }

  async policies() {
    const there = new Set();
    for (const name of this.names) {
      const m = POLICY.exec(name), text = m && (await this.read(name));
      if (!m) continue;
      if (hex(await sha256(text)) !== m[1]) {
        this.find("policy_differs");
        continue;
      }
      this.report.policies++;
      for (const x of [name, ...(await packsIn(text))]) there.add(x);
    }
    if (!this.m.policies) return;
    for (const seq of new Set([...this.wants].filter(([x]) => !there.has(x)).map(([, seq]) => seq))) this.find("policy_missing", seq);
  }

  // What must hold between receipts says something only once each is sound and none missing.
  async rules() {
    const sound = this.report.findings.length === 0, { kind, run } = this.m.scope;
    if (kind === "run" && this.ask.run && run !== this.ask.run) this.find("run_scope");
    if (!sound) return;
    const h = new History(this);
    const chain = this.ask.run ? new Chain(this, this.ask.run) : null;
    for (const [i, seq] of this.seqs.entries()) {
      if (this.foreign.has(seq)) {
        if (this.alone(i)) return this.find("verdict_alone", seq);
        continue;
      }
      const p = await this.again(seq);
      const code = h.add(p);
      if (code) {
        this.find(code, seq);
        if (TABLES.findings[code][0] === 1) return;
      }
      if (chain) await chain.add({ p, seq, sum: this.payloads.get(seq), ...(await this.told(seq, p.evidence)) });
    }
    this.report.rules_checked = true;
    if (chain) chain.end();
    else if (kind === "run" && this.report.findings.length === 0 && !h.own.has("run " + run)) this.find(h.runs.has(run) ? "run_begin" : "run_unknown"); // asked for or not
  }

  // Of a verdict that is logged itself: whether the receipt after it, which is in the pack unless that
  // ends there, is none that could rest on it.
  alone(i) {
    const seq = this.seqs[i], s = this.m.scope;
    return !(s.kind === "range" && seq === (s.last ?? 0)) && (this.seqs[i + 1] !== seq + 1 || this.foreign.has(seq + 1));
  }

  // Of a receipt: whether the verdict before it is not the one it rests on. Where that is not in the
  // pack, parents say so.
  restsElsewhere(p) {
    const id = restsOn(p), f = this.foreign.get(p.commit.seq - 1);
    if (f) return !(id === f.id && p.verdict.digest === f.digest && p.verdict.keyId === f.keyId);
    return id !== "" && this.verdictIds.has(id);
  }

  // What the evidence says of a call: its arguments, null where nobody says, and the verdict that
  // somebody signed.
  async told(seq, digest) {
    const name = `evidence/${place(seq)}.json`, text = this.has(name) ? await this.read(name) : null;
    if (text && hex(await sha256(text)) !== digest) throw new Error(CHANGED);
    const of = text ? json(text)?.object : null;
    return plain(of) && LIMITED(of.limited) ? { args: plain(of.args) ? of.args : null, verdict: of.verdict, limited: of.limited ?? [] } : { args: null };
  }
}

// ---- the life of receipt keys ----------------------------------------------------

// What a manifest says of a key, and of one outside of a pack its public half.
const at = (n) => (n < 0 ? undefined : n);
const lifeOf = (k, pem, purpose) => ({
  activated: k.activated, from: at(k.from), introduced: k.introduced, keyId: k.id, pem, purpose, retired: k.retired, revoked: k.revokedBy, revokedFrom: at(k.revoked), spki: k.spki, state: k.state, until: at(k.until),
});

const spkiOf = async (half) => hex(await sha256(half.der));

// Which receipt key may have signed at which index, from the one the log began with on, by what
// receipts say: each counts if its key was the signing one there.
class Ring {
  constructor(half, spki, halves) {
    this.halves = halves; // by the SHA-256 of their DER
    this.now = { id: half.id, spki, half, state: "active", since: -1, from: 0, until: -1, revoked: -1, rests: [] };
    this.lives = [this.now];
    this.last = null; // what was learned last
  }

  get(id) { return this.lives.find((k) => k.id === id); }

  signs(id, seq) {
    const k = this.get(id);
    return k !== undefined && seq >= k.since && k.from >= 0 && seq >= k.from && (k.until < 0 || seq <= k.until);
  }

  // Who made a key the signing one must be believed there, and so must who made that one, unless a
  // root vouches for it.
  fallen(k) {
    return (k.fallen ??= !k.rooted && k.rests.some(({ by, seq }) => (by.revoked >= 0 && seq >= by.revoked) || this.fallen(by)));
  }
  may(id, seq) {
    const k = this.get(id);
    return this.signs(id, seq) && !(k.revoked >= 0 && seq >= Math.max(k.from, k.revoked)) && !this.fallen(k);
  }

  learn(p) {
    const { id, spki, since } = p.key, seq = p.commit.seq, by = this.get(p.keyId), receipt = p.receiptId, moves = (k, from, to) => (p.changes ?? []).some((c) => c.kind === "key" && c.id === k.spki && c.from === from && c.to === to);
    if (this.last && (seq <= this.last.commit.seq || p.log.origin !== this.last.log.origin || p.tenant !== this.last.tenant)) return "key_event";
    if (!this.signs(p.keyId, seq)) return ""; // it is found where each is looked at
    const k = this.lives.find((x) => x.spki === spki);
    if (k ? k.id !== id : this.get(id)) return "key_event";
    if (p.transition === "key.introduce") {
      const half = this.halves.get(spki);
      if (k || this.lives.length >= 100 || (half && half.id !== id)) return "key_event";
      this.lives.push({ id, spki, half, state: "introduced", introduced: receipt, since: seq, from: -1, until: -1, revoked: -1, rests: [{ by, seq }] });
    } else if (p.transition === "key.activate") {
      const old = this.now;
      if (k?.state !== "introduced" || !moves(k, "introduced", "active") || !moves(old, "active", "retired")) return "key_event";
      old.state = "retired";
      old.until = seq;
      old.retired = k.activated = receipt;
      k.state = "active";
      k.from = seq + 1;
      k.rests.push({ by, seq });
      this.now = k;
    } else if (p.transition === "key.retire") {
      if (k?.state !== "introduced") return "key_event";
      k.state = "retired";
      k.retired = receipt;
    } else {
      if (k?.state !== "retired") return "key_event";
      k.state = "revoked";
      k.revokedBy = receipt;
      k.revoked = since ? Math.min(seq, since) : seq;
    }
    this.last = p;
    return "";
  }
}

// The ring of a file of keys, which does not come with the pack. It throws for one that cannot be
// believed: not signed by the root, or with another manifest than follows from its receipts, byte by byte.
async function ringOf(text, first, root) {
  const bad = (why) => new Error("the file of keys " + why);
  const f = text.length <= 8 << 20 ? json(bytesOf(text)) : undefined;
  const plainly = ({ payloadType, payload, signatures: [{ keyid, sig }] }) => ({ payloadType, payload, signatures: [{ keyid, sig }] });
  const again = () => JSON.stringify({ format: f.format, manifest: plainly(f.manifest), receipts: f.receipts.map(plainly) });
  if (!KEYS_FILE(f) || again() !== text.replace(/[ \t\r\n]/g, "")) throw bad("is in no form this version knows");
  const open = (e) => ({ payload: unbase64(e.payload), sig: unbase64(e.signatures[0].sig), keyId: e.signatures[0].keyid });
  const m = open(f.manifest), s = m.payload && m.sig ? json(m.payload) : undefined, p = s?.predicate;
  if (!Array.isArray(p?.keys) || !p.keys.every(plain) || p.keys[0]?.purpose !== "receipt") throw bad("has no manifest");
  const halves = new Map(), others = [];
  for (const k of p.keys) {
    const half = await publicKey(String(k.pem)), spki = half && (await spkiOf(half));
    if (!half || (k.purpose === "receipt" ? half.kind !== "p256" : !["log", "root"].includes(k.purpose))) throw bad("has a key that cannot be read");
    if (k.purpose === "receipt") halves.set(spki, half);
    else others.push({ keyId: half.id, pem: pemOf(half.der), purpose: k.purpose, spki, state: "active" });
  }
  const begins = halves.get(p.keys[0].spki);
  if (root) {
    const r = await publicKey(root);
    if (!r || r.id !== m.keyId || !(await signedBy(r, m.payload, m.sig))) throw bad("is not signed by the root");
  } else if (!begins || first?.id !== begins.id) throw bad("is of a log that begins with another key: trust that, or a root");
  if (!begins) throw bad("has a key that cannot be read");
  const ring = new Ring(begins, p.keys[0].spki, halves);
  ring.payloads = new Map();
  let chain = new Uint8Array(32);
  for (const e of f.receipts) {
    const { payload, sig, keyId } = open(e), said = payload && sig ? await statement(payload) : null, half = ring.get(keyId)?.half, values = said && der(sig);
    if (!said?.key || !half || said.keyId !== keyId || !values || !(await signed(half.key, pae(payload), values))) throw bad("has a receipt that is not good");
    if (!ring.signs(keyId, said.commit.seq) || ring.learn(said)) throw bad("has a receipt that says what cannot be");
    ring.payloads.set(said.commit.seq, latin(payload));
    chain = await sha256(join(chain, await sha256(payload)));
  }
  const log = ring.last?.log.origin ?? String(p.log?.origin), tenant = ring.last?.tenant ?? p.tenant;
  const follows = () => JSON.stringify({
    _type: TYPE.statement,
    predicate: { keys: [...ring.lives.map((k) => lifeOf(k, pemOf(k.half.der), "receipt")), ...others], log: { origin: log }, size: ring.last ? ring.last.commit.seq + 1 : 0, tenant },
    predicateType: TYPE.manifest, subject: [{ digest: { sha256: hex(chain) }, name: "keys/" + log }],
  });
  if (!origin(log) || !ID.tenant.test(tenant) || !ring.lives.every((k) => k.half) || follows() !== latin(m.payload)) throw bad("states other keys, or another life of them, than its receipts do");
  const signer = ring.get(m.keyId);
  if (root) for (const k of ring.lives) k.rooted = true;
  else if (signer && (signer !== ring.now || !(await signedBy(signer.half, m.payload, m.sig)))) throw bad("is not signed by the key that signs");
  return ring;
}

// ---- rules between receipts --------------------------------------------------

class History {
  constructor(c) {
    const s = c.m.scope;
    this.c = c;
    this.scope = s;
    this.whole = s.kind === "log" || (s.kind === "range" && !s.first);
    this.partial = s.kind === "run"; // and has all of these
    this.isWhole = (run) => !!run && (run === s.run || run === c.ask.run);
    this.known = new Map([...c.ids].reverse().map(([seq, id]) => [id, seq])); // of two with one id the first
    this.left = new Set();
    this.runs = new Map();
    this.objects = new Map();
    this.own = new Set();
    this.used = new Set(); // digests of signed verdicts
    this.seen = new Set();
  }

  add(p) {
    const { at, epoch, seq, runSeq } = p.commit;
    this.at ??= at; this.epoch ??= epoch; this.tenant ??= p.tenant;
    if (p.tenant !== this.tenant) return "tenant_other";
    if (this.seen.has(p.receiptId)) return "receipt_twice";
    if (at < this.at) return "time_back";
    if (epoch !== this.epoch && this.left.has(epoch)) return "epoch_back";
    let missing = "";
    if (p.run) {
      const last = this.runs.get(p.run);
      this.runs.set(p.run, runSeq);
      if (last !== undefined && runSeq <= last) return "run_back";
      const complete = !this.partial || this.isWhole(p.run);
      if (complete && (last !== undefined ? runSeq > last + 1 : (this.whole || this.partial) && runSeq !== 1)) missing = "run_gap";
    }
    if (this.c.restsElsewhere(p)) return "verdict_alone";
    // In the pack of a range for what it says of a key: of other things there are receipts missing in between.
    const beside = this.scope.kind === "range" && (seq < (this.scope.first ?? 0) || seq > (this.scope.last ?? 0));
    for (const parent of p.parents ?? []) {
      if (parent === p.receiptId) return "parent_self";
      const where = this.known.get(parent);
      if (where > seq) return "parent_future";
      if (where !== undefined) continue;
      if (this.whole && !beside) return "parent_unknown";
      if (this.partial && this.isWhole(p.run)) missing = "parent_missing";
    }
    if (p.verdict) {
      if (this.used.has(p.verdict.digest)) return "verdict_twice";
      this.used.add(p.verdict.digest);
    }
    for (const m of p.changes ?? []) {
      const key = m.kind + " " + m.id, state = this.objects.get(key);
      if (!moves(m.kind, m.from).includes(m.to)) return "move_illegal";
      if (beside && m.kind !== "key") continue;
      if (state && m.from === "") return "move_from"; // whatever the pack has of it, it is made once
      if (!((state ?? "") === m.from || (state === undefined && !this.whole))) {
        if (!this.partial) return "move_from";
        if (this.own.has(key)) missing = "move_gap"; // of others the pack of a run has moves here and there
      }
      this.objects.set(key, m.to);
      if (m.from === "" && ((m.kind === "task" && this.isWhole(p.run)) || (m.kind === "run" && this.isWhole(m.id)))) this.own.add(key);
    }
    if (epoch !== this.epoch) this.left.add(this.epoch);
    this.at = at;
    this.epoch = epoch;
    this.seen.add(p.receiptId);
    return missing;
  }
}

// What is read of arguments, each where it is there: of any other kind nobody says what they are.
const some = (of) => (v) => v === undefined || v === null || of(v);
const members = (list) => (v) => plain(v) && Object.keys(list).every((name) => !Object.hasOwn(v, name) || some(list[name])(v[name]));
const each = (of) => many(some(of));
const WANTS = members({ required: (v) => typeof v === "boolean", gates: each(is.word), quorum: Number.isFinite });
const ASKED = members({ key: is.word, capability: is.word, depends_on: each(members({ key: is.word, when: is.word })), consumes: each(plain), verify: WANTS });
const ARGS = {
  run: members({ close_policy: is.word, close_quorum: Number.isFinite }),
  "task.enqueue": ASKED,
  "agent.delegate": members({ task_id: is.word, task: ASKED }),
  "task.handoff": members({ task_id: is.word, to: members({ task: ASKED }) }),
  "task.revive": members({ task_id: is.word, key: is.word }),
  gate: members({ gate: is.word }),
  agent: members({ keys: each(is.word), tools: each(members({ name: is.word, gate: (v) => typeof v === "boolean" })), work_gates: each(is.word) }),
  verdict: members({ receipt_id: is.word, reasons: each(is.word), gates: each(members({ gate: is.word, status: is.word, receipt_id: is.word })), tasks: each(members({ task_id: is.word, receipt_id: is.word })) }),
  made: members({ artifacts: each(members({ digest: is.word })) }),
  session: members({ principal: is.word, kind: is.word, controller: is.word }),
};

// Of which arguments policy took no more, and what was taken of a number that one asks for.
const LIMITED = some(each(members({ argument: is.word, max: Number.isFinite })));
const taken = (limited, argument, n) => limited.filter((l) => n !== null && (l?.argument ?? "") === argument).reduce((n, l) => ((l?.max ?? 0) < n ? l?.max ?? 0 : n), n);

// Whether as many verdicts can be asked for, if it is said.
const isQuorum = (n) => n === undefined || n === null || (Number.isInteger(n) && 1 <= n && n <= TABLES.quorum);

// Where an object may go from a state; nowhere from one its kind does not have.
const moves = (kind, state) => own(own(TABLES.moves, kind) ?? {}, state) ?? [];
const over = (kind, state) => moves(kind, state).length === 0;

// A run, and who had a part in it.
class Chain {
  constructor(c, run) {
    this.c = c;
    this.run = run;
    this.facts = c.report.run = { run, receipts: 0, tasks: 0, state: "", begun: 0, links: 0, tree: c.m.scope.kind === "log" ? "every run of its tree" : "this run only", verdicts: [] };
    this.tasks = new Map();
    this.others = new Map(); // tasks of other runs: what they ask for
    this.keys = new Map(); // tasks by their names in the run
    this.unread = false; // somebody does not say what there is to say of a task
    this.votes = new Map(); // on a task or the run that wants several, those before the last
    this.child = -1; // sequence of the last run that was made in this one
    this.runOf = new Map();
    this.reported = new Set();
    this.lineage = new Lineage(c.m.scope.kind === "run");
  }

  once(code, seq) {
    if (this.reported.has(code)) return;
    this.reported.add(code);
    this.c.find(code, seq);
  }
  judged(code, seq) { if (this.c.ask.close) this.once(code, seq); }

  async add(x) {
    const { p, seq, args } = x;
    if ((this.cut ||= this.beginsBehind(p))) {
      this.once("run_gap", seq);
      if (this.creates(p)) this.once("run_begin", seq); // others came before
      return;
    }
    this.lineage.names(p);
    for (const m of p.changes ?? []) {
      if (m.kind === "run" && m.id === this.run) await this.runMoves(x, m);
      else if (m.kind === "run" && m.from === "" && p.run === this.run) this.child = seq;
      else if (m.kind === "task" && (this.tasks.has(m.id) || (m.from === "" && p.run === this.run))) await this.taskMoves(x, m); // a sweep filed under a run can move tasks of others
      else if (m.kind === "task" && m.from === "") this.elsewhere(p, m, args);
      else if (m.kind === "ballot" && m.to === "open" && (m.id === this.run || this.tasks.has(m.id))) await this.voted(x, m);
    }
    if (this.ended && this.facts.ended === seq) this.left();
    if (p.run === this.run) {
      if (!this.begun) this.once("run_begin", seq);
      this.facts.receipts++;
      for (const parent of p.parents ?? []) if (parent !== restsOn(p) && parent !== this.lineage.agents.get(p.actor?.agent)?.last && this.runOf.get(parent) !== this.run) this.facts.links++;
    }
    this.runOf.set(p.receiptId, p.run ?? "");
    await this.lineage.note(p, args);
  }

  // Of a receipt: whether others of the run came before it that are not to be in the pack: it is of a range of
  // the log from behind them, or of another run.
  beginsBehind(p) {
    const s = this.c.m.scope;
    if (s.kind === "log" || (s.kind === "range" && !s.first) || (s.kind === "run" && s.run === this.run)) return false;
    const behind = !this.begun && !this.creates(p);
    if (p.run === this.run && !this.filed) { // a run that is made in another one is filed under that first
      this.filed = true;
      return p.commit.runSeq !== 1 || behind;
    }
    return behind && (p.changes ?? []).some((m) => m.kind === "run" && m.id === this.run);
  }

  creates(p) { return (p.changes ?? []).some((m) => m.kind === "run" && m.id === this.run && m.from === ""); }

  async runMoves(x, m) {
    const { p, seq, args } = x, before = this.last;
    if (m.from === "") {
      this.begun = true;
      this.facts.begun = seq;
      const quorum = args && taken(x.limited, "close_quorum", args.close_quorum);
      if (args && ARGS.run(args) && isQuorum(quorum)) {
        this.closing = args.close_policy || "auto";
        this.quorum = quorum ?? 1;
      } else this.judged("evidence_missing", seq);
    }
    if (this.ended) this.once("run_after_end", seq);
    if (p.transition === "run.close" || (m.from === "verifying" && m.to === "done")) {
      const v = { id: m.id, to: m.to, accept: m.to === "done", of: { ...before, made: this.madeOfRun() } };
      await this.verdict(x, v);
      this.carried(x, v, this.quorum);
    }
    if (m.to === "done" && m.from !== "verifying" && this.closing === "verifier") this.judged("close_bypassed", seq);
    this.last = lastOf(x, m);
    this.state = this.facts.state = m.to;
    if (over("run", m.to)) {
      this.ended = true;
      this.facts.ended = seq;
      this.facts.ended_by = { transition: p.transition, ...p.actor };
    }
  }

  // With what a task is made, and at which others it would look as a gate; null where nobody says.
  // What comes out of another task asks for what that does.
  asked(p, m, args) {
    const shape = own(ARGS, p.transition);
    if (m.from !== "" || !args || !shape || !shape(args)) return null;
    const known = this.tasks.get(args.task_id ?? "") ?? this.others.get(args.task_id ?? "");
    const from = known?.run === (p.run ?? "") || p.transition === "task.revive" ? known : undefined; // nothing else leaves its run
    const but = (of) => ({ key: of?.key ?? "", capability: of?.capability ?? "", on: of?.depends_on ?? [], consumes: of?.consumes ?? [], verify: of?.verify ?? {} });
    let a, looks = [];
    switch (p.transition) {
      case "task.enqueue":
        a = but(args);
        break;
      case "agent.delegate":
        if (args.task_id && !from) return null;
        a = but(args.task);
        if (from?.verify.required) a.verify = from.verify;
        break;
      case "task.handoff":
        if (!from) return null;
        a = { ...but(args.to?.task), on: [], verify: from.verify };
        looks = [from];
        break;
      case "task.revive": // it depends on nothing, unless it is given what others made
        if (!from) return null;
        a = { key: args.key ?? "", capability: from.capability, on: [], consumes: from.consumes, verify: from.verify };
        if (a.consumes.length > 0) looks = from.looks;
        break;
      default:
        return null;
    }
    for (const d of a.on) if (d?.when !== "failed" && this.keys.has(d?.key)) looks.push(this.keys.get(d.key));
    return isQuorum(a.verify.quorum) ? { ...a, looks: [...new Set(looks)] } : null;
  }

  // Keeps of a task of another run what it asks for: one of this run may be it, revived. It is no task of
  // this run, and what others made was given to it there only.
  elsewhere(p, m, args) {
    const asked = this.others.has(m.id) ? null : this.asked(p, m, args);
    if (asked) this.others.set(m.id, { run: p.run ?? "", capability: asked.capability, verify: asked.verify, consumes: [], looks: [] });
  }

  // The artifacts a task was completed with, or handed on with; null where nobody says.
  made({ p, args }, m) {
    if (!["task.complete", "task.handoff"].includes(p.transition)) return works(m) ? null : []; // nothing else gives a result
    return args && ARGS.made(args) ? (args.artifacts ?? []).map((a) => (a?.digest ?? "").replace(/^sha256:/, "")) : null;
  }
  madeOfRun() {
    const done = [...this.tasks.values()].filter((t) => t.state === "done").map((t) => t.made);
    return done.includes(null) ? null : done.flat();
  }

  async taskMoves(x, m) {
    const { p, seq, args } = x;
    let t = this.tasks.get(m.id);
    if (!t) {
      const asked = this.asked(p, m, args);
      if (!asked) {
        this.unread = true;
        this.judged("evidence_missing", seq);
      }
      t = { run: this.run, capability: "", consumes: [], looks: [], verify: {}, made: null, claimed: 0, given: null, ...asked };
      this.tasks.set(m.id, t);
      if (asked?.key) this.keys.set(asked.key, t);
      this.facts.tasks++;
    }
    if (this.ended && (m.from === "" || works(m))) this.once("run_after_end", seq); // what was under way is told to stop, and stops
    const from = m.from === "verifying", done = m.to === "done";
    if (p.transition === "task.verify" && from) {
      const v = { id: m.id, to: m.to, accept: done, of: { ...t.last, made: t.made }, task: t };
      await this.verdict(x, v);
      this.carried(x, v, t.verify.quorum ?? 1);
    } else if (done && (from || t.verify.required)) this.judged("verdict_missing", seq);
    t.state = m.to;
    t.last = lastOf(x, m);
    if (m.from === "queued" && m.to === "running") t.claimed = seq;
    if (m.from !== "running") return;
    t.made = this.made(x, m);
    if (!done && m.to !== "verifying") return;
    this.looked(x, t);
    this.gave(x, t);
  }

  // A result, which has passed nothing yet: what it must pass is what its task names, and its agent.
  gave({ p, seq }, t) {
    const { gate, work, known } = this.lineage.gates(p.actor?.agent, t.capability), owes = (t.verify.required ? t.verify.gates ?? [] : []).filter((g) => g?.includes("."));
    t.given = { seq, by: this.lineage.acting(p.actor), unknown: !known, shown: new Map(), owes: new Set(gate ? owes : [...owes, ...work].map((g) => g ?? "")) }; // a gate need pass none of its agent's
  }

  // What a gate says, with each result it was to look at that it began after, and that is not of its own.
  looked({ p, seq, args }, t) {
    if (p.transition !== "task.complete") return;
    if (!args || !ARGS.gate(args)) { // it may have said that one it looked at does not pass
      this.unread = true;
      for (const { given } of t.looks) given?.shown.delete(t.capability);
      return;
    }
    const { gate, known } = this.lineage.gates(p.actor?.agent, t.capability);
    if (!["pass", "fail"].includes(args.gate) || (known && !gate)) return;
    for (const { state, given } of t.looks) {
      if (!given || !["verifying", "done"].includes(state) || !given.owes.has(t.capability) || t.claimed <= given.seq) continue;
      const one = this.lineage.own(given.by, this.lineage.acting(p.actor));
      if (!known || !one.known) this.judged("lineage_unknown", seq);
      if (!one.own) given.shown.set(t.capability, { receipt: p.receiptId, pass: args.gate === "pass" });
    }
  }

  // Holds a result to the gates it must pass, when somebody accepts it, or the run it is of.
  passed(seq, { given }, cited) {
    if (!given) return;
    if (given.unknown) this.judged("lineage_unknown", seq);
    for (const g of given.owes) {
      const shown = given.shown.get(g);
      if (!shown?.pass || !cited(g, shown.receipt)) this.judged(this.unread ? "evidence_missing" : "gate_missing", seq);
    }
  }

  // Holds somebody's word on a task or the run to what it is about, and to who it is. It gives the
  // receipt that it says it is about.
  async verdict(x, v) {
    const { p, seq, args } = x, judged = v.of.receipt, fact = { seq, object: v.id, to: v.to, judged: judged ?? "", by: { transition: p.transition, ...p.actor } };
    this.facts.verdicts.push(fact);
    if (!this.c.ask.close) return "";
    if (p.actor?.role !== "verifier" || !["run.close", "task.verify"].includes(p.transition)) this.judged("close_role", seq);
    // No task of a run moves, and none is made in it, while it waits for its verdict.
    const moved = !v.task && (this.child > v.of.seq || (p.changes ?? []).some((m) => m.kind === "task") || [...this.tasks.values()].some((t) => t.last.seq > v.of.seq));
    if (!(p.parents ?? []).includes(judged) || moved) this.judged("verdict_stale", seq);
    for (const code of this.lineage.conflicts(this.run, this.lineage.acting(p.actor))) this.judged(code, seq);
    const told = !!args && ARGS.verdict(args), { key, unread } = told ? await this.signature(x, v) : { key: "", unread: true };
    const word = { key: unread ? p.verdict?.keyId ?? "" : key, unread, seq };
    const forged = unread && p.verdict ? await this.forged(x) : "";
    if (forged) this.judged(forged, seq);
    if (!v.task) this.word = forged ? { key: "", unread: false, seq } : word;
    if (!told) {
      this.judged("evidence_missing", seq);
      return "";
    }
    if ((args.receipt_id ?? "") !== (judged ?? "")) this.judged("verdict_other", seq);
    for (const t of args.tasks ?? []) if (!t?.receipt_id || this.tasks.get(t.task_id)?.last?.receipt !== t.receipt_id) this.judged("verdict_other", seq);
    if (key) fact.key = key;
    if (key && this.c.foreign.has(seq - 1)) fact.logged = seq - 1;
    const cites = (check, by) => {
      const results = (args.gates ?? []).filter((r) => (r?.gate ?? "") === check);
      return results.length > 0 && results.every((r) => r?.status === "pass" && (!by || r.receipt_id === by));
    };
    if (v.accept && v.task) {
      for (const g of v.task.verify.gates ?? []) if (!g?.includes(".") && !cites(g ?? "")) this.judged("verdict_gate", seq);
      this.passed(seq, v.task, cites);
    } else if (v.accept) for (const t of this.tasks.values()) if (t.state === "done") this.passed(seq, t, () => true);
    return args.receipt_id ?? "";
  }

  // A verdict that accepts where more are wanted: it moves the ballot beside what is judged, and is
  // held to what each is.
  async voted(x, m) {
    const task = this.tasks.get(m.id), of = task ? { ...task.last, made: task.made } : { ...this.last, made: this.madeOfRun() };
    const about = await this.verdict(x, { id: m.id, to: m.to, accept: true, of, task });
    this.votes.set(m.id, [...(this.votes.get(m.id) ?? []), { receipt: x.p.receiptId, about, by: this.lineage.acting(x.p.actor) }]);
  }

  // Counts the verdicts when the last one accepts: those it names, on the same receipt, of verifiers
  // who are told apart and still had no part.
  carried({ p, seq }, v, want) {
    if (!v.accept || !(want > 1)) return;
    const counted = [this.lineage.acting(p.actor)];
    for (const o of this.votes.get(v.id) ?? []) {
      if (o.about !== (v.of.receipt ?? "") || !(p.parents ?? []).includes(o.receipt)) continue;
      for (const code of this.lineage.conflicts(this.run, o.by)) this.judged(code, seq); // a part may have been taken since
      if (counted.some((by) => this.oneVoter(by, o.by, seq))) this.judged("quorum_twice", seq);
      else counted.push(o.by);
    }
    if (counted.length < want) this.judged("quorum_missing", seq);
  }

  // Whether two who voted are not told apart. Where nobody says, that is found.
  oneVoter(a, b, seq) {
    const codes = [...this.lineage.meets(a, b), ...this.lineage.meets(b, a)];
    if (codes.includes("lineage_unknown")) this.judged("lineage_unknown", seq);
    return codes.some((code) => code !== "lineage_unknown");
  }

  // Holds a verdict to the signature of the verifier's own key, which the gateway never has, and
  // gives the key. An agent that has keys must have signed. Where nobody can say whether it holds, it is
  // unread.
  async signature({ p, seq, args, verdict }, { id, accept, of, task }) {
    const keys = this.lineage.keysNow(p.actor?.agent), fail = (code) => { this.judged(code, seq); return { key: "", unread: TABLES.findings[code][0] === 3 }; };
    if (!keys) return fail("lineage_unknown");
    if (!p.verdict) return keys.length > 0 ? fail("verdict_unsigned") : { key: "", unread: false };
    if (!of.made || !of.sum) return fail("evidence_missing");
    const passed = new Map();
    for (const g of task ? args.gates ?? [] : []) passed.set(g?.gate ?? "", g?.status === "pass" && (passed.get(g?.gate ?? "") ?? true));
    const properties = ["WRIT_VERDICT_" + (accept ? "ACCEPT" : "REJECT"), ...(args.reasons ?? []).map((r) => "WRIT_REASON:" + (r ?? ""))];
    for (const [gate, pass] of passed) properties.push((pass ? "WRIT_GATE_PASS:" : "WRIT_GATE_FAIL:") + gate);
    const says = (...on) => signedVerdict(verdict, p.verdict, {
      agent: p.actor?.agent ?? "", keys, properties: unique([...on, ...properties]), subjects: unique([of.sum, ...of.made]), policy: p.decision?.policy ?? "", now: Date.parse(p.commit.at),
    });
    let code = await says(`WRIT_VERDICT_ON:${task ? "task" : "run"}/${id}`);
    if (code === "verdict_says") { // those of before do not say on what they are
      code = await says();
      if (!code && of.shared) code = "evidence_missing"; // so this one could be on the other, which nobody says
    }
    return code ? fail(code) : { key: p.verdict.keyId, unread: false };
  }

  // Of a verdict that cannot be read whole, and whose receipt names a verifier's key that was given: what is wrong
  // with its envelope, where that is there. Whether the signature holds needs no more than the key.
  async forged({ p, verdict }) {
    const key = this.c.verifiers.find((k) => k.id === p.verdict.keyId);
    return key && verdict !== undefined ? (await openVerdict(verdict, p.verdict, [key])).code ?? "" : "";
  }

  // Whose word the end of the run rests on: a verdict on a task says nothing of its run.
  settled() {
    if (!this.c.ask.close) return;
    const { key, unread } = this.word?.seq === this.facts.ended ? this.word : { key: "", unread: false };
    if (this.state === "done") this.facts.word = !key ? "the gateway's only: no verifier's own key signed it" : unread ? "not to be said: what one needs to check the verdict that ends it is not there" : "a verdict signed with " + key;
    if (this.c.verifiers.length > 0 && !this.c.verifiers.some((k) => k.id === key)) this.judged("verdict_untrusted", this.facts.ended);
  }

  end() {
    if (this.cut) return;
    if (!this.begun && this.facts.receipts === 0) return this.once("run_unknown", -1);
    if (!this.ended) return this.once("run_open", -1);
    this.settled();
  }

  // Which tasks are not over when the run is done. What ended one may be filed under no run, so of the pack of
  // a run nothing tells that it was left out.
  left() {
    if (this.state === "done" && [...this.tasks.values()].some((t) => !over("task", t.state))) this.once(this.c.m.scope.kind === "run" ? "run_tasks_gap" : "run_tasks_open", this.facts.ended);
  }
}

// A receipt as the last change of a task or of the run.
const lastOf = ({ p, seq, sum }, of) => ({ receipt: p.receiptId, seq, sum, shared: (p.changes ?? []).some((m) => ["task", "run"].includes(m.kind) && m.to === "verifying" && (m.kind !== of.kind || m.id !== of.id)) });

const PARTS = ["run.create", "task.enqueue", "task.claim", "task.complete", "task.fail", "task.release", "task.handoff", "task.heartbeat", "agent.delegate", "task.revive"];
const MACHINE_OPERATOR = "operator";

// Who opened which session for whom, and who had a part in which run.
// Whose a part is: of one session an honest gateway never says that it acts as two agents.
const partOf = (actor) => `${actor?.session ?? ""} ${actor?.agent ?? ""}`;

// By a verdict nobody has a part: neither by asking whether one may judge, nor by saying how.
const judges = (p) => ["task.verify", "run.close"].includes(p.transition);
const worked = (p) => (p.outcome === "transition" && PARTS.includes(p.transition)) || (p.outcome === "request" && !judges(p));

// Whoever takes a task to work on it, or gives its result, has a part in its run, whatever the call is
// named, and wherever it is filed.
const works = (m) => m.kind === "task" && ((m.from === "queued" && m.to === "running") || (m.from === "running" && ["verifying", "done"].includes(m.to)));

// A call is somebody's word on one that waits for it, whatever it is named, if it puts another request in the
// place of one.
const decides = (p) => {
  const approvals = (p.changes ?? []).filter((m) => m.kind === "approval");
  return p.transition === "approval.decide" || (p.outcome === "transition" && approvals.some((m) => m.from === "") && approvals.some((m) => m.to === "superseded"));
};

class Lineage {
  constructor(gaps) {
    this.gaps = gaps; // of what is outside of a run there may be receipts missing
    this.sessions = new Map();
    this.agents = new Map(); // of each of whose entry a receipt is there
    this.parents = new Map();
    this.runs = new Map(); // of tasks
    this.parts = new Map();
    this.said = new Map(); // who said how a call is to be made, by the approval of that, which is there
    this.unsaid = new Set(); // runs where a call was made whose approval is not there
  }

  // By the name of the last change of the entry of who acts, which a receipt that counts has, it is
  // known in the pack of a run that no later one was left out.
  names(p) {
    const a = this.agents.get(p.actor?.agent);
    if (this.gaps && a && this.counts(p) && !(p.parents ?? []).includes(a.last)) a.now = null;
  }

  // Whether a receipt says something of who acts: that it comes to have a part in a run, gives a
  // result, says how a call is to be made, or judges. A refusal says nothing, and may have come before
  // anybody looked who calls.
  counts(p) {
    if (!["transition", "request"].includes(p.outcome)) return false;
    const had = this.parts.get(p.run)?.has(partOf(p.actor));
    return (p.changes ?? []).some((m) => works(m) || (m.kind === "task" && m.from === "" && !had)) || (worked(p) && (!had || p.transition === "run.create")) || ["task.complete", "task.handoff"].includes(p.transition) || decides(p) || judges(p);
  }

  // Who acts now, with the keys its agent has: what it was registered with before, or comes to be, says
  // nothing of who that was. sure is false where nobody says.
  acting(who) {
    const keys = this.keysNow(who?.agent);
    return { ...who, keys: new Set((keys ?? []).map((k) => k.id)), sure: keys !== null };
  }

  // A change of an agent's entry names the one before it. Until one that registers it is there nobody
  // knows what it is registered with.
  changed(id, p) {
    const a = this.agents.get(id);
    if (!a) this.agents.set(id, { now: null, last: p.receiptId });
    else {
      if (this.gaps && !(p.parents ?? []).includes(a.last)) a.now = null;
      a.last = p.receiptId;
    }
  }

  async note(p, args) {
    const counts = this.counts(p);
    for (const m of p.changes ?? []) {
      if (m.kind === "session" && m.from === "" && args) this.opened(m.id, p, args);
      else if (m.kind === "run" && m.from === "") {
        if (p.run !== m.id) this.parents.set(m.id, p.run ?? "");
        this.took(m.id, this.acting(p.actor));
      } else if (m.kind === "task" && m.from === "") {
        this.runs.set(m.id, p.run ?? "");
        if (counts) this.took(p.run, this.acting(p.actor));
      } else if (works(m)) this.took(this.runs.get(m.id) || p.run, this.acting(p.actor));
      else if (m.kind === "agent") {
        this.changed(m.id, p);
        if (m.from === "" || p.transition === "agent.register") await this.registered(this.agents.get(m.id), args);
      } else if (m.kind === "approval" && m.from === "") this.said.set(m.id, this.authors(p));
      else if (m.kind === "approval" && m.from === "approved" && ["approved", "consumed"].includes(m.to) && !judges(p)) {
        for (const a of this.said.get(m.id) ?? []) this.took(p.run, a);
        if (!this.said.get(m.id)) this.unsaid.add(p.run ?? "");
      }
    }
    if (worked(p) && counts) this.took(p.run, this.acting(p.actor));
  }

  // Who said how the call of a new approval is to be made: whoever agreed to another with other
  // arguments, and before that whoever had said how that was to be made; null where nobody says who had.
  authors(p) {
    if (!decides(p)) return [];
    const before = (p.changes ?? []).filter((m) => m.kind === "approval" && m.to === "superseded").map((m) => this.said.get(m.id));
    return before.every(Boolean) ? [...before.flat(), this.acting(p.actor)] : null;
  }

  // An agent whose last registration cannot be read may have any keys.
  async registered(a, args) {
    a.now = null; // of the last registration, while nobody says
    if (!args || !ARGS.agent(args) || (args.keys ?? []).length > TABLES.keys) return;
    a.work = args.work_gates ?? [];
    a.tools = new Map((args.tools ?? []).map((t) => [t?.name ?? "", t?.gate ?? false]));
    const now = await Promise.all((args.keys ?? []).map((pem) => publicKey(pem ?? "")));
    if (!now.includes(null)) a.now = now;
  }

  // Whether the tool of an agent for a capability is a gate, and which gates its work must pass;
  // known is false where nobody says.
  gates(agent, capability) {
    const a = agent ? this.agents.get(agent) : { now: [], tools: new Map(), work: [] };
    return a?.now ? { gate: a.tools.get(capability) ?? false, work: a.work, known: true } : { gate: false, work: [], known: false };
  }

  // Whether two who gave a result and who looked at it are one, or one stands behind the other; known
  // is false where nobody says.
  own(a, b) {
    const x = this.sessions.get(a.session), y = this.sessions.get(b.session), shared = [...a.keys].some((k) => b.keys.has(k));
    if (!x || !y) return { own: false, known: false };
    const behind = (p, s) => p === s.controller || s.openers.includes(p);
    const one = a.session === b.session || (!!a.agent && a.agent === b.agent) || x.principal === y.principal || behind(x.principal, y) || behind(y.principal, x) || shared;
    return { own: one, known: one || (a.sure && b.sure) };
  }

  // The keys an agent has, null where nobody says.
  keysNow(agent) { return agent ? this.agents.get(agent)?.now ?? null : []; }

  took(run, actor) {
    if (!run || (actor.kind === "system" && !actor.session && !actor.agent)) return; // the gateway itself takes none
    if (!this.parts.has(run)) this.parts.set(run, new Map());
    const had = this.parts.get(run).get(partOf(actor));
    this.parts.get(run).set(partOf(actor), had ? { ...actor, keys: new Set([...had.keys, ...actor.keys]), sure: had.sure && actor.sure } : actor);
  }

  opened(id, p, args) {
    if (!ARGS.session(args) || !args.principal) return;
    const s = { principal: args.principal, controller: args.controller || "", openers: [] };
    if (p.actor?.kind === "system") {
      s.controller ||= args.principal;
      this.sessions.set(id, s);
      return;
    }
    const opener = this.sessions.get(p.actor?.session);
    if (!opener) return; // who is behind it nobody knows
    s.controller ||= args.kind === "human" ? args.principal : opener.controller;
    s.openers = [...new Set([opener.principal, opener.controller, ...opener.openers].filter(Boolean))];
    this.sessions.set(id, s);
  }

  // Which run is at the root of the tree of one. Runs that are said to be in each other are one tree.
  root(run, known) {
    const way = new Set();
    let at = run;
    while (!known.has(at) && !way.has(at)) { // back where one was it is a circle
      way.add(at);
      if (!this.parents.has(at)) break;
      at = this.parents.get(at);
    }
    at = known.get(at) ?? at;
    for (const of of way) known.set(of, at);
    return at;
  }

  // In which ways whoever judges a run had a part in its tree until now.
  conflicts(run, judge) {
    const found = new Set(this.sessions.has(judge.session) ? [] : ["lineage_unknown"]), known = new Map(), root = this.root(run, known);
    for (const other of this.unsaid) if (this.root(other, known) === root) found.add("lineage_unknown");
    for (const [other, parts] of this.parts) {
      if (this.root(other, known) !== root) continue;
      for (const part of parts.values()) for (const code of this.meets(judge, part)) found.add(code);
    }
    return [...found].sort();
  }

  // In which ways one who judges is behind one who had a part, or may be.
  meets(judge, part) {
    const found = [], j = this.sessions.get(judge.session), x = this.sessions.get(part.session), shared = [...judge.keys].some((k) => part.keys.has(k));
    if (part.session === judge.session) found.push("lineage_session");
    if (judge.agent && part.agent === judge.agent) found.push("lineage_agent");
    if (shared) found.push("lineage_key");
    if (judge.agent && part.agent !== judge.agent && !(judge.sure && part.sure)) found.push("lineage_unknown");
    if (!j || !x) return [...found, "lineage_unknown"];
    const behind = [x.principal, x.controller, ...x.openers];
    if (behind.includes(j.principal) || behind.includes(j.controller)) found.push("lineage_controller");
    if (j.openers.some((o) => o !== MACHINE_OPERATOR && o === x.principal)) found.push("lineage_opener");
    return found;
  }
}

// The policy packs in a bundle, by their digests: of each the files below packs/<id>/, in order of their
// names. An archive that is read in more ways than one has none.
async function packsIn(bundle) {
  const { names, bad, read } = tarball(bundle), packs = new Map();
  if (bad.length > 0) return [];
  for (const name of names.sort()) {
    const [, id, base] = /^packs\/([^/]*)\/(.*)$/s.exec(name) ?? [], text = await read(name);
    if (id === undefined) continue;
    if (!packs.has(id)) packs.set(id, []);
    packs.get(id).push(bytesOf(`${base.length}:${base}${text.length}:`), text);
  }
  return Promise.all([...packs.values()].map(async (parts) => "pack sha256:" + hex(await sha256(joined(parts)))));
}

// ---- archives ----------------------------------------------------------------

// A pack out of an archive that is in memory: ustar as POSIX has it, with what other forms of
// tar add refused. It ends with its last file, or with two blocks of zeros and zeros behind them.
export function tarball(bytes) {
  const files = new Map(), bad = [], block = 512;
  const text = (s) => s.replace(/\0.*$/s, "");
  const octal = (s) => { const m = /^ *([0-7]+)[ \0]*$/.exec(s); return m ? parseInt(m[1], 8) : NaN; };
  const zero = (b) => b.every((x) => x === 0);
  // What a header says of its file, null where it is none.
  const header = (b) => {
    const sum = b.reduce((n, x, i) => n + (i >= 148 && i < 156 ? 32 : x), 0), s = latin(b), size = octal(s.slice(124, 136)), kind = s[156];
    const prefix = text(s.slice(345, 500)), name = ((prefix ? prefix + "/" : "") + text(s.slice(0, 100))).replace(/^\.\//, "");
    const good = octal(s.slice(148, 156)) === sum && s.slice(257, 265) === "ustar\x0000" && (kind === "0" || (kind === "5" && size === 0));
    return good && size <= limit(name) ? { name, size, kind } : null;
  };
  for (let at = 0; at < bytes.length;) {
    const b = bytes.subarray(at, at + block);
    if (b.length === block && zero(b) && bytes.length - at >= 2 * block && zero(bytes.subarray(at))) break;
    const h = b.length === block ? header(b) : null, end = at + block + (h ? Math.ceil(h.size / block) * block : 0);
    if (!h || end > bytes.length || !zero(bytes.subarray(at + block + h.size, end))) { bad.push("pack_malformed"); break; }
    if (h.kind === "0") {
      if (files.has(h.name)) bad.push("file_twice");
      else files.set(h.name, bytes.subarray(at + block, at + block + h.size));
    }
    at = end;
  }
  return { names: [...files.keys()], read: async (name) => files.get(name), bad };
}
