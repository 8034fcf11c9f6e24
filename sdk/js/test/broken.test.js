// Broken scripts: each is refused or parks its event, with a message that names file and
// line. The same through the real host, if LANTERN_BIN is its program and an interpreter is
// installed.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";

import { event, Harness } from "lantern-sdk/testing";

const folder = mkdtempSync(join(tmpdir(), "lantern-broken-"));
const lantern = process.env.LANTERN_BIN;
if (!lantern && process.env.CI) throw new Error("CI tests with the real host, and LANTERN_BIN is not set");
const skip = lantern ? false : "LANTERN_BIN is not set: the real host is not tried";

const IMPORT = 'import { integer, parameters, projection, table, text } from "lantern-sdk";\n';
const good = (body = "", spec = "") => `${IMPORT}const rows = table("rows", { n: integer, name: text });
export default projection({
  name: "broken",
  subscribes: ["x"],
  onFailure: "park-event",${spec}
  apply(event) {
${body}
  },
});
`;

/** Scripts that are refused: the line in the message, and what it contains. */
const refused = [
  ["unclosed brace", `${IMPORT}const a = {\n`, 3, ""],
  ["no expression", "const a = ;\n", 1, "Unexpected token"],
  ["unclosed text", 'const a = "x;\n', 1, ""],
  ["unclosed template", "const a = `x;\n", 1, ""],
  ["unclosed comment", "const a = 1;\n/* x\n", 2, ""],
  ["stray bracket", "const a = 1;\n)\n", 2, ""],
  ["bad number", "const a = 1__0;\n", 1, ""],
  ["bad regular expression", "const a = 1;\nconst b = /(/;\n", 2, ""],
  ["keyword as a name", "const class = 1;\n", 1, ""],
  ["twice the same name", "const a = 1;\nconst a = 2;\n", 2, ""],
  ["return outside of a function is no projection", "const a = 1;\n", 1, "projection"],
  ["await", 'const a = 1;\nconst b = await a;\n', 2, "await"],
  ["import in the middle", "const a = 1;\nimport from;\n", 2, ""],
  ["import of another module", '\nimport lodash from "lodash-not-there";\nlodash();\n', 2, "lodash-not-there"],
  ["import of a file", 'import { a } from "./other.js";\na();\n', 1, "./other.js"],
  ["import of Node", '\n\nimport fs from "node:fs";\nfs.x();\n', 3, "node:fs"],
  ["unknown name of the SDK", 'import { tabel } from "lantern-sdk";\ntabel("x");\n', 1, "did you mean `table`"],
  ["unknown name among several", 'import {\n  table,\n  integr,\n} from "lantern-sdk";\ntable("x", { n: integr });\n', 3, "did you mean `integer`"],
  ["undefined name", `${IMPORT}foo();\n`, 2, "foo is not defined"],
  ["exception at the top", `${IMPORT}throw new Error("no");\n`, 2, "no"],
  ["thrown text", `${IMPORT}throw "no";\n`, 1, "threw"],
  ["null member", `${IMPORT}const a = null;\na.b;\n`, 3, "TypeError"],
  ["constant assigned", `${IMPORT}const a = 1;\na = 2;\n`, 3, ""],
  ["recursion", `${IMPORT}function f() { return f() + 1; }\nf();\n`, 2, ""],
  ["fetch", `${IMPORT}fetch("http://x");\n`, 2, "fetch"],
  ["require", `${IMPORT}const fs = globalThis.require("fs");\n`, 2, ""],
  ["bad table name", `${IMPORT}table("No Name", {});\n`, 2, "table name"],
  ["fields are a list", `${IMPORT}table("rows", [integer]);\n`, 2, "object of fields"],
  ["field of no kind", `${IMPORT}table("rows", { n: "integer" });\n`, 2, "not a kind of field"],
  ["unknown merge", `${IMPORT}table("rows", { n: integer("add") });\n`, 2, "not a merge"],
  ["unknown option of a field", `${IMPORT}table("rows", { n: integer({ units: "s" }) });\n`, 2, "did you mean `unit`"],
  ["unknown option of a table", `${IMPORT}table("rows", { n: integer }, { keys: "n" });\n`, 2, "did you mean `key`"],
  ["key that is no field", `${IMPORT}table("rows", { n: integer }, { key: "m" });\n`, 2, "not declared"],
  ["parameters twice", `${IMPORT}parameters({});\nparameters({});\n`, 3, "twice"],
  ["parameters of no object", `${IMPORT}parameters(5);\n`, 2, "defaults"],
  ["projection of nothing", `${IMPORT}projection();\n`, 2, "not an object"],
  ["projection without apply", `${IMPORT}projection({ name: "x", subscribes: ["x"] });\n`, 2, "no function `apply`"],
  ["apply is no function", `${IMPORT}projection({ name: "x", subscribes: ["x"], apply: 5 });\n`, 2, "not a function"],
  ["unknown option", `${IMPORT}projection({ name: "x", subscribe: ["x"], apply() {} });\n`, 2, "did you mean `subscribes`"],
  ["no projection", `${IMPORT}table("rows", { n: integer });\n`, 1, "projection"],
  ["bad name", `${IMPORT}projection({ name: "No", subscribes: ["x"], apply() {} });\n`, 1, "the name"],
  ["no name", `${IMPORT}projection({ subscribes: ["x"], apply() {} });\n`, 1, "`name`"],
  ["no types", `${IMPORT}projection({ name: "x", subscribes: [], apply() {} });\n`, 1, "subscribes to no event type"],
  ["types of no text", `${IMPORT}projection({ name: "x", subscribes: [5], apply() {} });\n`, 1, "list of texts"],
  ["unknown attribute", `${IMPORT}projection({ name: "x", subscribes: ["x"], attributes: ["tennant"], apply() {} });\n`, 1, "did you mean `tenant`"],
  ["unknown policy", `${IMPORT}projection({ name: "x", subscribes: ["x"], onFailure: "stop", apply() {} });\n`, 1, "choose one of"],
  ["bad duration", `${IMPORT}projection({ name: "x", subscribes: ["x"], eventTime: { tick: "1 s" }, apply() {} });\n`, 1, "not a duration"],
  ["bad event time", `${IMPORT}projection({ name: "x", subscribes: ["x"], eventTime: { every: "1s" }, apply() {} });\n`, 1, "no option `every`"],
  ["two tables of a name", `${IMPORT}table("rows", { n: integer });\ntable("rows", { n: integer });\nprojection({ name: "x", subscribes: ["x"], apply() {} });\n`, 1, "two tables"],
  ["setup fails", good("", '\n  setup() {\n    throw new Error("wrong parameters");\n  },'), 8, "wrong parameters"],
  ["async setup", good("", "\n  async setup() {},"), 1, "async"],
];

/** Scripts whose event is parked: the line in the reason, and what it contains. */
const parked = [
  ["exception", '    throw new Error("negative");', 8, "negative"],
  ["thrown object", "    throw { a: 1 };", null, "threw"],
  ["undefined name in apply", "    foo();", 8, "foo is not defined"],
  ["member of undefined", "    event.data.a.b;", 8, "TypeError"],
  ["unknown field", "    rows.row('k').m = 1;", 8, "TypeError"],
  ["not a number", "    rows.row('k').n += event.data.missing;", null, "field `n` is NaN"],
  ["text for an integer", "    rows.row('k').n = '1';", null, "field `n` is \"1\", not an integer"],
  ["undefined field", "    rows.row('k').name = event.data.missing;", null, "field `name` has no value"],
  ["number as a key", "    rows.row(5);", 8, "cannot be part of a key"],
  ["undefined key", "    rows.row(event.data.missing);", 8, "cannot be part of a key"],
  ["empty key", "    rows.row('');", 8, "cannot be empty"],
  ["key with U+0000", "    rows.row('a\\0b');", 8, "U+0000"],
  ["attribute not requested", "    event.subject;", 8, "was not requested"],
  ["members not declared", "    event.members;", 8, "declares no members"],
  ["timer without event time", "    event.setTimer(5, 'k');", 8, "eventTime"],
  ["event type not declared", "    event.emit('y', {});", 8, "`emits`"],
  ["clock", "    Date.now();", 8, ""],
  ["randomness", "    Math.random();", 8, ""],
  ["fetch in apply", "    fetch('http://x');", 8, ""],
  ["timeout", "    setTimeout(() => {}, 5);", 8, ""],
  ["recursion in apply", "    const f = () => f() + 1;\n    f();", 8, ""],
];

const PLAIN = new Set(["fetch", "clock", "randomness", "fetch in apply", "timeout"]);

const fileOf = (name, code) => {
  const file = join(folder, `${name.replaceAll(/[^a-z0-9]+/gi, "_")}.js`);
  writeFileSync(file, code);
  return { file, base: file.slice(folder.length + 1) };
};

for (const [name, code, line, contains] of refused) {
  // What only the sandbox of the component refuses is tried with the real host.
  if (PLAIN.has(name)) continue;
  test(`refused: ${name}`, () => {
    const { file, base } = fileOf(name, code);
    assert.throws(() => new Harness(file), (error) => {
      const message = String(error.message);
      const place = line === 1 && !message.startsWith(base) ? "" : `${base}:${line}`;
      assert.ok(message.startsWith(place) && message.includes(contains), message);
      return true;
    });
  });
}

for (const [name, body, line, contains] of parked) {
  if (PLAIN.has(name)) continue;
  test(`parked: ${name}`, () => {
    const { file, base } = fileOf(name, good(body));
    const [only] = new Harness(file).feed([event("x", {})]).parked();
    assert.ok(only.reason.includes(line === null ? contains : `${base}:${line}:`), only.reason);
    assert.ok(only.reason.includes(contains), only.reason);
  });
}

test("at least 70 scripts are broken", () => assert.ok(refused.length + parked.length >= 70, `${refused.length + parked.length}`));

const run = (...args) => spawnSync(lantern, args, { encoding: "utf8", timeout: 600_000 });

test("the real host refuses each broken script with file and line", { skip }, () => {
  for (const [name, code, line, contains] of refused) {
    const { file, base } = fileOf(name, code);
    const { status, stderr } = run("plugin", "check", file);
    assert.equal(status, 5, `${name}: ${stderr}`);
    if (name === "recursion") {
      // It exhausts the stack of the interpreter itself, which ends the call.
      assert.match(stderr, /LAN-0121[^]*call stack exhausted/, `${name}: ${stderr}`);
      continue;
    }
    assert.match(stderr, /LAN-0129/, `${name}: ${stderr}`);
    if (line !== null) assert.ok(new RegExp(`${base}:\\d+`).test(stderr), `${name}: ${stderr}`);
    if (name.startsWith("unknown")) assert.ok(stderr.includes(contains), `${name}: ${stderr}`);
  }
});

test("the real host parks the event of each script that fails, with file and line", { skip }, () => {
  const events = join(folder, "events.ndjson");
  writeFileSync(events, '{"specversion":"1.0","id":"1","source":"s","type":"x","time":"2026-03-01T12:00:00Z","data":{}}\n');
  for (const [name, body, line] of parked) {
    const { file, base } = fileOf(name, good(body));
    const { stdout, stderr } = run("test", events, file, "--json", "--allow-parked", "--check-events", "0");
    const [only] = JSON.parse(stdout || "{}").parked ?? [];
    assert.ok(only !== undefined, `${name}: ${stdout}${stderr}`);
    if (line !== null && !name.startsWith("recursion")) assert.ok(only.reason.includes(`${base}:${line}:`), `${name}: ${only.reason}`);
    assert.doesNotMatch(only.reason, /unreachable/, name);
  }
});
