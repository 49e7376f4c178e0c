// Runs many changed packs through the module, for the tests that compare the verifiers: each
// line of standard input is {files?, base, set, drop, trust, ask}, or {tar, trust, ask}, each of
// output what was found.
import { createInterface } from "node:readline";
import { tarball, verify } from "./verify.mjs";

const bases = new Map(), bytes = (s) => new Uint8Array(Buffer.from(s ?? "", "base64"));

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  const job = JSON.parse(line);
  if (job.files) bases.set(job.base, new Map(Object.entries(job.files).map(([k, v]) => [k, bytes(v)])));
  const files = new Map(bases.get(job.base));
  for (const name of job.drop ?? []) files.delete(name);
  for (const [name, v] of Object.entries(job.set ?? {})) files.set(name, bytes(v));
  const pack = job.tar ? tarball(bytes(job.tar)) : { names: [...files.keys()], read: async (n) => files.get(n) };
  let r;
  try { r = await verify(pack, job.trust ?? {}, job.ask ?? {}); } catch (e) { r = { exit: 4, trust: e.message, findings: [], receipts: 0, evidence: 0, rules_checked: false }; }
  const codes = [...new Set(r.findings.map((f) => `${f.code}@${f.seq}`))].sort();
  process.stdout.write(JSON.stringify({ exit: r.exit, trust: r.trust, codes, receipts: r.receipts, evidence: r.evidence, rules: r.rules_checked, run: r.run ?? null, witnesses: r.witnesses ?? null, earlier: r.earlier ?? null, policies: r.policies ?? 0, promised: r.promised ?? null }) + "\n");
}
