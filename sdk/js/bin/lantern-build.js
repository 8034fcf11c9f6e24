#!/usr/bin/env node
// npx lantern-build [ENTRY] [-o OUT.wasm]: builds a component from a projection.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const USAGE = `usage: lantern-build [ENTRY] [--out OUT.wasm]

Builds a component for Lantern from a projection in JavaScript or TypeScript.

ENTRY is by default src/index.ts, src/index.js, index.ts or index.js, the first that
exists; OUT is build/NAME.wasm, where NAME is the name in package.json.`;

const ENTRIES = ["src/index.ts", "src/index.js", "index.ts", "index.js"];

function fail(message, status = 1) {
  console.error(`error: ${message}`);
  process.exit(status);
}

function options(args) {
  let entry = null;
  let out = null;
  for (let i = 0; i < args.length; i++) {
    const arg = args[i];
    if (arg === "--help" || arg === "-h") {
      console.log(USAGE);
      process.exit(0);
    } else if (arg === "--out" || arg === "-o") {
      out = args[++i] ?? fail(`${arg} needs a file`, 2);
    } else if (arg.startsWith("-")) {
      fail(`there is no option ${arg}\n\n${USAGE}`, 2);
    } else if (entry === null) {
      entry = arg;
    } else {
      fail(`only one entry is possible, not also ${arg}`, 2);
    }
  }
  entry ??= ENTRIES.find((file) => existsSync(file)) ?? fail(`there is none of ${ENTRIES.join(", ")}: name the source`, 2);
  if (!existsSync(entry)) fail(`there is no file ${entry}`, 2);
  return { entry, out };
}

function packageName() {
  try {
    return JSON.parse(readFileSync("package.json", "utf8")).name?.replace(/^@[^/]*\//, "");
  } catch {
    return undefined;
  }
}

for (const name of ["componentize-qjs", "sucrase"]) {
  try {
    await import(name);
  } catch (error) {
    if (error.code !== "ERR_MODULE_NOT_FOUND") throw error;
    const { peerDependencies } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
    fail(`the package ${name} is missing: npm install --save-dev ${name}@${peerDependencies[name]}`);
  }
}

const { buildComponent } = await import("../src/node/build.js");
const { entry, out } = options(process.argv.slice(2));
try {
  const { name, bytes, file } = await buildComponent(entry, out ?? ((own) => join("build", `${packageName() ?? own}.wasm`)));
  console.log(`${file}: ${name}, ${bytes} bytes`);
} catch (error) {
  fail(error.report ?? error.message);
}
