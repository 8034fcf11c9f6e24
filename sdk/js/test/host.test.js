// Scripts and components in the real host: LANTERN_BIN is the program `lantern`, with the
// interpreter installed. Without it these tests are skipped.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";

import { Harness, readNdjson } from "lantern-sdk/testing";

import { buildComponent } from "../src/node/build.js";

const lantern = process.env.LANTERN_BIN;
if (!lantern && process.env.CI) throw new Error("CI tests with the real host, and LANTERN_BIN is not set");
const skip = lantern ? false : "LANTERN_BIN is not set: the real host is not tried";
// The suite compares the bytes of rows with a script in Python. CI has it.
const python = process.env.CI || spawnSync("python3", ["--version"]).status === 0;
const noPython = python ? false : "python3 is not installed: the conformance suite is not run";
const folder = mkdtempSync(join(tmpdir(), "lantern-host-"));
const repository = new URL("../../../", import.meta.url);
const pathOf = (name) => fileURLToPath(new URL(name, repository));

/** What `lantern test` prints, with the bytes of rows. */
function fold(plugin, events) {
  const { status, stdout, stderr } = spawnSync(lantern, ["test", events, plugin, "--json", "--allow-parked", "--all"], {
    encoding: "utf8", timeout: 900_000, maxBuffer: 2 ** 28,
  });
  assert.equal(status, 0, `${stdout.slice(0, 2_000)}${stderr}`);
  return JSON.parse(stdout);
}

/** The harness and the real host give the same tables. */
function agree(plugin, source, events, name) {
  const folded = fold(plugin, events);
  const host = new Harness(source).feed(readNdjson(readFileSync(events, "utf8")));
  for (const { name: table, public: isPublic } of host.manifest.tables) {
    if (isPublic) assert.deepEqual(folded.tables[table] ?? {}, host.rows(table), `${name}: ${table}`);
  }
  assert.deepEqual(folded.parked.map(({ offset }) => offset), host.parked().map(({ offset }) => offset), name);
}

test("scripts give the same tables in the harness and in the host", { skip }, () => {
  agree(pathOf("plugins/engagement/engagement.js"), pathOf("plugins/engagement/engagement.js"), pathOf("plugins/funnel/events.ndjson"), "engagement");
  agree(pathOf("plugins/rfm/rfm.js"), pathOf("plugins/rfm/rfm.js"), pathOf("plugins/rfm/events.ndjson"), "rfm");
  agree(pathOf("plugins/experiments/src/index.ts"), pathOf("plugins/experiments/src/index.ts"), pathOf("plugins/experiments/events.ndjson"), "experiments");
});

test("a component gives the same tables as its source in the harness", { skip }, async () => {
  const source = pathOf("plugins/conversion/src/index.ts");
  const out = join(folder, "conversion.wasm");
  const { name, bytes } = await buildComponent(source, out);
  assert.equal(name, "conversion");
  assert.ok(bytes < 4_000_000, `${bytes} bytes`);
  agree(out, source, pathOf("plugins/funnel/events.ndjson"), "conversion");
});

test("the conformance projection as a component gives the expected bytes, and is deterministic", { skip: skip || noPython }, async () => {
  const component = join(folder, "conformance.wasm");
  await buildComponent(pathOf("sdk/conformance/js/conformance.js"), component);
  const check = [pathOf("sdk/conformance/check.py"), component, "--lantern", lantern];
  const { status, stdout, stderr, error } = spawnSync("python3", check, { encoding: "utf8" });
  assert.equal(status, 0, `${error ?? ""}${stdout}${stderr}`);
  assert.match(stdout, /15 of 15 files as expected/);
});

test("an endless loop and too much memory park their events with a message", { skip }, () => {
  const events = join(folder, "two.ndjson");
  const line = (id, type) => JSON.stringify({ specversion: "1.0", id, source: "s", type, time: "2026-03-01T12:00:00Z", data: {} });
  writeFileSync(events, `${line("1", "loop")}\n${line("2", "memory")}\n${line("3", "fine")}\n`);
  const script = join(folder, "greedy.js");
  writeFileSync(script, `import { integer, projection, table } from "lantern-sdk";
const rows = table("rows", { n: integer });
export default projection({
  name: "greedy",
  subscribes: ["*"],
  onFailure: "park-event",
  apply(event) {
    if (event.type === "loop") for (;;);
    const kept = [];
    while (event.type === "memory") kept.push(new Uint8Array(2 ** 20));
    rows.row("all").n += 1;
    console.log("applied", event.type);
  },
});
`);
  const { tables, parked, logs } = fold(script, events);
  assert.equal(tables.rows.all.n, 1);
  assert.deepEqual(parked.map(({ offset }) => offset), [0, 1]);
  assert.match(parked[0].reason, /fuel|time|loop/i);
  assert.match(parked[1].reason, /memory/i);
  assert.match(JSON.stringify(logs), /applied fine/);
});
