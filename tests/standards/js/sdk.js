// Sends events in every mode with the CloudEvents SDK, and reads them back. The
// server's address is the only argument.

import assert from "node:assert";
import { CloudEvent, HTTP } from "cloudevents";

const server = process.argv[2];

/** An event whose attributes need every kind of encoding. */
function event(id, datacontenttype, data) {
  return new CloudEvent({
    id,
    source: "/sdk/js",
    type: "sdk.js",
    // The SDK writes headers without percent-encoding. Attributes that need percent-encoding
    // are sent in the other modes only.
    subject: id.startsWith("binary") ? "say 'hi'" : "say \"hi\" \\ 5% €",
    time: "2026-01-31T23:59:59.999Z",
    datacontenttype,
    dataschema: "https://example.org/schema.json#order",
    comexample: "a, b; c=d",
    data,
  });
}

function events(mode) {
  return [
    event(`${mode}-json`, "application/json", { n: 5, t: "ü\n\"\\" }),
    event(`${mode}-text`, "text/plain", "zwei Wörter"),
    event(`${mode}-bytes`, "application/octet-stream", new Uint8Array([0, 255, 13, 10])),
  ];
}

async function post({ headers, body }) {
  const answer = await fetch(`${server}/v1/events`, { method: "POST", headers, body });
  const taken = await answer.json();
  assert.strictEqual(answer.status, 200, JSON.stringify(taken));
  return taken.appended;
}

const bytes = (data) => (typeof data === "string" || !(data instanceof Uint8Array) ? data : [...data]);

const sent = new Map();
for (const mode of ["binary", "structured"]) {
  for (const one of events(mode)) {
    assert.strictEqual(await post(HTTP[mode](one)), 1);
    sent.set(one.id, one);
  }
}
const batch = events("batch");
const body = `[${batch.map((one) => HTTP.structured(one).body).join(",")}]`;
assert.strictEqual(await post({ headers: { "content-type": "application/cloudevents-batch+json" }, body }), 3);
for (const one of batch) sent.set(one.id, one);

const accept = "application/cloudevents-batch+json";
const answer = await fetch(`${server}/v1/events?limit=1000&types=sdk.js`, { headers: { accept } });
assert.strictEqual(answer.headers.get("content-type"), accept);
const read = HTTP.toEvent({ headers: Object.fromEntries(answer.headers), body: await answer.text() });
assert.strictEqual(read.length, sent.size);
for (const one of read) {
  const { data, data_base64: _, ...attributes } = sent.get(one.id);
  const { data: dataRead, data_base64: _read, ...attributesRead } = one;
  assert.deepStrictEqual({ ...attributesRead }, { ...attributes });
  assert.deepStrictEqual(bytes(dataRead), bytes(data), one.id);
}
console.log(`${read.length} events`);
