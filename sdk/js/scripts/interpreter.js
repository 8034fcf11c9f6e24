// Builds the interpreter: `npm run interpreter -- OUT.wasm`.
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { componentize } from "componentize-qjs";
import { build } from "esbuild";

import { witPath } from "../src/node/build.js";

const out = process.argv[2];
if (out === undefined) {
  console.error("usage: npm run interpreter -- OUT.wasm");
  process.exit(2);
}

const folder = await mkdtemp(join(tmpdir(), "lantern-interpreter-"));
try {
  const bundle = join(folder, "interpreter.js");
  await build({
    entryPoints: [fileURLToPath(new URL("../src/guest/interpreter.js", import.meta.url))],
    outfile: bundle,
    bundle: true,
    format: "esm",
    platform: "neutral",
    mainFields: ["module", "main"],
    target: "es2023",
    external: ["lantern:*"],
    legalComments: "none",
  });
  const { readFile } = await import("node:fs/promises");
  const { component } = await componentize({
    witPath: witPath(),
    world: "interpreter",
    jsSource: await readFile(bundle, "utf8"),
    jsPath: bundle,
    moduleRoot: folder,
    stubWasi: true,
    sync: true,
  });
  const target = resolve(process.env.INIT_CWD ?? ".", out);
  await mkdir(dirname(target), { recursive: true });
  await writeFile(target, component);
  console.log(`${target}: ${component.length} bytes`);
} finally {
  await rm(folder, { recursive: true, force: true });
}
