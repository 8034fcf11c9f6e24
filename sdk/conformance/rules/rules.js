// A projection that breaks the rules, in JavaScript: README.md of the suite lists its events.

import { integer, projection, table, text } from "lantern-sdk";

const counts = table("counts", { events: integer("sum") });
const read = table("read", { value: text });

function spin() {
  for (;;);
}

function recurse(depth) {
  return recurse(depth + 1) + 1;
}

function eat() {
  const kept = [];
  for (;;) kept.push(new Uint8Array(1 << 20).fill(1));
}

const breaches = {
  "r.loop": spin,
  "r.trap": () => null.member,
  "r.recursion": () => recurse(0),
  "r.memory": eat,
  "r.file": () => std.open("/etc/passwd", "r"),
  "r.socket": () => fetch("http://127.0.0.1:9/"),
  "r.thread": () => new Worker("worker.js"),
  "r.process": () => process.exit(3),
  "r.later": () => setTimeout(spin, 0),
  "r.pattern": () => /^(a+)+$/.test("a".repeat(60) + "b"),
};
const reads = {
  "r.clock": () => `${Date.now()} ${new Date().getTimezoneOffset()} ${globalThis.performance?.now()}`,
  "r.random": () => `${Math.random()} ${Math.random()}`,
  "r.environment": () => `${typeof process} ${typeof crypto} ${typeof navigator}`,
};

export default projection({
  name: "rules",
  version: "1.0.0",
  subscribes: ["r.*"],
  onFailure: "park-event",

  apply(event) {
    counts.row(event.type).events += 1;
    if (event.type === "r.error") throw new Error("refused by the projection");
    if (event.type in reads) read.row(event.type).value = reads[event.type]();
    if (event.type in breaches) breaches[event.type]();
  },
});
