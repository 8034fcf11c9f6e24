// The conformance projection in the harness gives the expected rows, byte for byte.
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import test from "node:test";

import { Harness, iso, readNdjson } from "lantern-sdk/testing";

const suite = new URL("../../conformance/", import.meta.url);
const source = new URL("js/conformance.js", suite);

/** The text of a fold as `sdk/conformance/README.md` defines it. */
function linesOf(host) {
  const lines = [];
  for (const { name, public: isPublic } of host.manifest.tables) {
    if (!isPublic) continue;
    for (const [key, row] of host.rawRows(name)) lines.push(`${name}\t${JSON.stringify(key)}\t${row}`);
  }
  for (const { subject, time, data } of host.emitted()) {
    lines.push(`emitted\t${JSON.stringify(subject)}\t${iso(time)}\t${JSON.stringify(data)}`);
  }
  for (const { event } of host.parked()) lines.push(`parked\t${JSON.stringify(event.id)}`);
  return lines;
}

for (const file of readdirSync(new URL("events/", suite)).filter((name) => name.endsWith(".ndjson"))) {
  const name = file.replace(".ndjson", "");
  test(`${name} gives the expected rows in batches of 1, 7 and 16,384, with and without dropped instances`, () => {
    const events = readNdjson(readFileSync(new URL(`events/${file}`, suite), "utf8"));
    const given = new URL(`events/${name}.parameters.json`, suite);
    const parameters = existsSync(given) ? JSON.parse(readFileSync(given, "utf8")) : null;
    const expected = readFileSync(new URL(`expected/${name}.txt`, suite), "utf8").split("\n").slice(0, -1);
    for (const batchSize of [1, 7, 16_384]) {
      for (const dropInstances of [false, true]) {
        if (dropInstances && batchSize === 1) continue;
        const host = new Harness(source, { parameters, batchSize, dropInstances }).feed(events);
        assert.deepEqual(host.timerFailures, []);
        assert.deepEqual(linesOf(host), expected, `batches of ${batchSize}, dropped: ${dropInstances}`);
      }
    }
  });
}
