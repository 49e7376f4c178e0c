#!/usr/bin/env node
// Checks an evidence pack, with nothing but Node (20 or later). The same findings and exit
// codes as writ pack verify, run verify and close verify.
import { existsSync } from "node:fs";
import { readFile, readdir, stat } from "node:fs/promises";
import { parseArgs } from "node:util";
import { earlierOf, limit, promisesOf, scopeOf, tarball, verify } from "./verify.mjs";

const help = `usage: node cli.mjs PACK [--log-key KEY --key FILE [--keys FILE [--root FILE]]] [--witness KEY... [--witnesses N]] [--run RUN [--close [--verifier-key FILE...]]] [-o table|json]

PACK is a directory or a .tar that writ export wrote. KEY is the log's note verifier key, or a file
with it; FILE is receipt.pub of the gateway, the key the log began with. Without them the keys in the
pack are taken, which shows no more than that the pack agrees with itself. --keys is a file of keys from outside, and --root a root that must
have signed its manifest; --key is not needed then. --witness is the key of a witness that must have cosigned
the checkpoint, of Ed25519: each that is given, or as many as --witnesses says. --run also checks the chain
of a run, --close who judged and closed it; with --verifier-key it must end by a verdict signed with that
key, or another so given.

Exit codes: 0 ok, 1 tampered, 2 malformed, 3 incomplete, 4 could not verify.`;

// A file, as bytes and not as a Buffer, whose slices are no copies; but not copied once more.
async function bytes(path) {
  const b = await readFile(path);
  return new Uint8Array(b.buffer, b.byteOffset, b.length);
}

// A pack in a directory. What is neither file nor directory is in no pack. Names are bytes, a character
// each, as in an archive: they need not be UTF-8.
async function folder(dir) {
  const names = [], bad = [], at = (name) => Buffer.concat([Buffer.from(dir + "/"), Buffer.from(name, "latin1")]);
  const walk = async (below) => {
    for (const e of await readdir(at(below), { withFileTypes: true, encoding: "buffer" })) {
      const name = (below ? below + "/" : "") + e.name.toString("latin1");
      if (e.isDirectory()) await walk(name);
      else if (e.isFile() && (await stat(at(name))).size <= limit(name)) names.push(name);
      else bad.push("pack_malformed");
    }
  };
  await walk("");
  return { names, bad, read: (name) => bytes(at(name)) };
}

async function open(path) {
  const { size, isDir } = await stat(path).then((s) => ({ size: s.size, isDir: s.isDirectory() }));
  if (!isDir && size > 2 ** 31 - 1) throw new Error("an archive of more than 2 GiB, which is more than can be read at once: unpack it, and give the directory");
  return isDir ? folder(path) : tarball(await bytes(path));
}

// No word of a pack moves the cursor of a terminal, or turns the order of its text.
const printable = (s) => String(s).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "\ufffd");

async function main(argv) {
  const { values: o, positionals } = parseArgs({
    args: argv, allowPositionals: true,
    options: {
      "log-key": { type: "string" }, key: { type: "string", multiple: true }, keys: { type: "string" }, root: { type: "string" }, run: { type: "string" },
      witness: { type: "string", multiple: true, default: [] }, witnesses: { type: "string" },
      close: { type: "boolean" }, "verifier-key": { type: "string", multiple: true }, output: { type: "string", short: "o", default: "table" }, help: { type: "boolean", short: "h" },
    },
  });
  if (o.help) {
    console.log(help);
    return 0;
  }
  if (positionals.length !== 1 || o.run === "" || (o.close && !o.run) || (o["verifier-key"] && !o.close) || !["table", "json"].includes(o.output)) throw new Error(help);
  const read = (files) => Promise.all((files ?? []).map((f) => readFile(f, "latin1")));
  const keys = await read(o.key), verifiers = await read(o["verifier-key"]);
  const [keysFile] = await read(o.keys ? [o.keys] : []), [root] = await read(o.root ? [o.root] : []);
  let logKey = o["log-key"] ?? "";
  if ((logKey === "") !== (keys.length === 0 && !o.root)) throw new Error("give --log-key and --key: one without the other proves nothing");
  if (logKey && (!logKey.includes("+") || existsSync(logKey))) logKey = await readFile(logKey, "latin1");
  const need = Number(o.witnesses ?? o.witness.length);
  if (new Set(o.witness).size < o.witness.length || !Number.isInteger(need) || need > o.witness.length || (o.witnesses !== undefined && need < 1)) throw new Error("--witnesses must be 1 to the number of keys given with --witness, each given once");
  const report = await verify(await open(positionals[0]), { logKey, keys, verifiers, keysFile, root, witnesses: o.witness, need }, { run: o.run, close: o.close });
  if (o.output === "json") console.log(JSON.stringify(report, null, 2));
  else {
    const say = (name, v) => console.log(name.padEnd(10), printable(v));
    say("verdict", report.verdict);
    say("trust", report.trust);
    if (report.log) say("log", `${report.log}, ${report.size} receipts`);
    for (const w of report.witnesses ?? []) say("witness", `${w.name}, ${w.at}`);
    if (report.earlier !== null) say("earlier", earlierOf(report.earlier));
    if (report.scope.kind) say("scope", scopeOf(report.scope));
    say("good", `${report.receipts} receipts, ${report.evidence} of them with evidence, ${report.policies} policy bundles`);
    if (report.scope.kind) say("promised", promisesOf(report.promised));
    if (!report.rules_checked) say("rules", "not looked at: single receipts are bad, or missing");
    const f = report.run;
    if (f?.receipts) {
      say("run", `${f.run}: ${f.receipts} receipts, ${f.tasks} tasks, ${f.state}`);
      for (const v of f.verdicts) say("judged", `${v.object}→${v.to} by ${[v.by.agent, v.by.session, v.key, v.logged === undefined ? "" : `logged at ${v.logged}`].filter(Boolean).join(" ")}`);
      if (f.word) say("word", f.word);
      say("parts", f.tree);
    }
    for (const x of report.findings) say(x.verdict, `${x.code}${x.seq >= 0 ? " at " + x.seq : ""}${x.receipt ? " " + x.receipt : ""}: ${x.text}`);
  }
  return report.exit;
}

// It runs however its path is spelled, and nothing was found until something is.
process.exitCode = 4;
main(process.argv.slice(2)).then((code) => { process.exitCode = code; }, (e) => console.error("error: " + (e.message === help ? help : printable(e.message))));
