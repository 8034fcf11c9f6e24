// Tests the package: its size, the generated files, and the examples in the README.
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { build, transform } from "esbuild";
import { expect, test } from "vitest";
import { event } from "./judge.js";
import { until } from "./patience.js";
import { lantern, missing, plugin, Server } from "./server.js";

const path = (of: string): string => fileURLToPath(new URL(`../${of}`, import.meta.url));

/** The most bytes of the bundle, minified and with gzip. */
const BUNDLE_BYTES_MAX = 8 * 1024;

test("the bundle is at most 8 KiB with gzip", async () => {
  const options = { bundle: true, minify: true, format: "esm", write: false } as const;
  const { outputFiles } = await build({ ...options, entryPoints: [path("src/index.ts")] });
  const bytes = gzipSync(outputFiles[0]!.contents, { level: 9 }).length;
  console.log(`${bytes} bytes`);
  expect(bytes).toBeLessThanOrEqual(BUNDLE_BYTES_MAX);
});

test("the types of frames are those of the schema", () => {
  execFileSync(process.execPath, [path("scripts/frames.js"), "--check"], { stdio: "inherit" });
});

test("a module of the client opens nothing and needs no WebSocket", async () => {
  const { connect } = await import("../src/index.js");
  const table = connect("ws://127.0.0.1:1/v1/feed").table("a/b");
  expect(table.state).toBe(table.getServerState());
  expect(table.status).toBe("idle");
});

/** The code blocks of the README in a language. */
function examples(language: string): string[] {
  const text = readFileSync(path("README.md"), "utf8");
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\n([^]*?)^\`\`\``, "gm"))].map(([, code]) => code!);
}

const TABLES = `
export interface Tables {
  "revenue/by_product": { product: string; orders: number; quantity: number; cents: number };
  "revenue/by_minute": { minute: string; orders: number; cents: number };
}
export const shapes = {
  "revenue/by_product": { hash: "", fields: { product: "text", orders: "integer", quantity: "integer", cents: "integer" }, units: {}, per_tenant: false },
};`;

test("the examples in the README have the right types", () => {
  const folder = path("dist-examples");
  try {
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "tables.ts"), TABLES);
    examples("ts").forEach((code, n) => writeFileSync(join(folder, `example-${n}.ts`), code));
    examples("tsx").forEach((code, n) => writeFileSync(join(folder, `example-${n}.tsx`), code));
    const config = {
      extends: "../tsconfig.json",
      compilerOptions: {
        paths: { "lantern-client": ["../src/index.ts"], "lantern-client/*": ["../src/*.ts"] },
      },
      include: ["."],
    };
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(config));
    execFileSync(process.execPath, [path("node_modules/typescript/bin/tsc"), "-p", folder], { stdio: "pipe" });
    expect(examples("ts").length + examples("tsx").length).toBeGreaterThan(3);
  } catch (error) {
    throw new Error(String((error as { stdout?: unknown }).stdout ?? error));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test.skipIf(missing)("the examples in the README run, in the packed package", async () => {
  const server = await Server.start();
  const folder = mkdtempSync(join(tmpdir(), "lantern-package-"));
  try {
    await server.push(plugin("revenue"));
    await server.append(Array.from({ length: 20 }, (_, n) => event(n)));
    const npm = (args: string[], cwd: string): string => execFileSync("npm", args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
    const packed = npm(["pack", "--silent", "--pack-destination", folder], path(".")).trim().split("\n").at(-1)!;
    writeFileSync(join(folder, "package.json"), '{"type":"module"}');
    npm(["install", "--silent", "--offline", "--no-audit", "--no-fund", join(folder, packed)], folder);
    const tables = await lantern("types", "--server", server.url);
    writeFileSync(join(folder, "tables.js"), (await transform(tables, { loader: "ts" })).code);
    for (const [n, code] of examples("ts").entries()) {
      const file = join(folder, `example-${n}.js`);
      const ws = pathToFileURL(path("node_modules/ws/wrapper.mjs")).href;
      const source = `import WebSocket from ${JSON.stringify(ws)};\nglobalThis.WebSocket ??= WebSocket;\n${code}`;
      const { outputFiles } = await build({
        stdin: { contents: source.replaceAll("ws://127.0.0.1:7420", server.feed.replace("/v1/feed", "")), loader: "ts" },
        format: "esm",
        write: false,
      });
      writeFileSync(file, outputFiles[0]!.text);
      let output = "";
      const run = spawn(process.execPath, [file], { cwd: folder });
      run.stdout.on("data", (text) => (output += text));
      run.stderr.on("data", (text) => (output += text));
      await until(
        () => /\d/.test(output) || run.exitCode !== null,
        () => [code, output],
      );
      run.kill();
      expect(output, code).not.toMatch(/Error/);
      expect(output, code).toMatch(/\d/);
    }
  } finally {
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  }
});
