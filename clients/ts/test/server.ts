// Runs the real server as a process, on a free port and with a folder of its own.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { until } from "./patience.js";

const root = (path: string): string => fileURLToPath(new URL(`../../../${path}`, import.meta.url));

/** The binary `lantern`, as `cargo xtask test` builds it. */
export const LANTERN = process.env.LANTERN_BIN ?? root("target/debug/lantern");
const PLUGINS = process.env.LANTERN_PLUGINS ?? root("target/plugins");

/** The folder of the interpreters, which run declarations. */
export const INTERPRETERS = process.env.LANTERN_INTERPRETERS ?? root("target/interpreters");

/** Compiled plugins, which servers share: compiling one takes seconds. */
const CACHE = root("target/tests-cache/servers");

/** Why tests with the real server cannot run; in CI they must. */
export const missing: string | undefined =
  existsSync(LANTERN) || process.env.CI ? undefined : `${LANTERN} is missing: run \`cargo xtask test\``;

/** Whether a program is missing that a test starts. `cargo xtask test` sets the list. */
export const without = (program: string): boolean => (process.env.LANTERN_WITHOUT ?? "").split(",").includes(program);

/** An example plugin, as `cargo xtask test` builds it. */
export const plugin = (name: string): string => join(PLUGINS, `${name}.wasm`);

/**
 * Writes the plugin with one more custom section at its end, and returns the file. So the file is
 * another version with the same tables.
 */
export function changed(name: string, version: number): string {
  const text = Buffer.from(`v${version}`);
  const section = Buffer.from([0, text.length + 1, text.length, ...text]);
  const file = join(mkdtempSync(join(tmpdir(), "lantern-ts-plugin-")), `${name}.wasm`);
  writeFileSync(file, Buffer.concat([readFileSync(plugin(name)), section]));
  return file;
}

/** Runs `lantern` to its end, and returns its output. */
export async function lantern(...args: string[]): Promise<string> {
  return (await promisify(execFile)(LANTERN, args, { maxBuffer: 1 << 26 })).stdout;
}

/** A running server. */
export class Server {
  url = "";
  readonly #folder = mkdtempSync(join(tmpdir(), "lantern-ts-"));
  readonly #settings: string[];
  #process: ChildProcess | undefined;

  private constructor(settings: string[]) {
    this.#settings = settings;
  }

  /** Starts a server with settings such as `live.tick_ms=50`. */
  static async start(...settings: string[]): Promise<Server> {
    mkdirSync(CACHE, { recursive: true });
    const server = new Server(settings);
    await server.launch();
    return server;
  }

  /** The address of the feed. */
  get feed(): string {
    return `${this.url.replace("http", "ws")}/v1/feed`;
  }

  /** Starts the process. If it ran before, it starts again with the same folder and port. */
  async launch(): Promise<void> {
    const listen = this.url ? new URL(this.url).host : "127.0.0.1:0";
    const args = ["serve", "--data", join(this.#folder, "data"), "--listen", listen, "--log-filter", "error"];
    const settings = [`plugin.cache_dir=${CACHE}`, "plugin.compile_interpreters=false", ...this.#settings].flatMap((setting) => ["--set", setting]);
    const process = spawn(LANTERN, [...args, ...settings], { cwd: this.#folder, stdio: ["ignore", "pipe", "inherit"] });
    this.#process = process;
    const lines = createInterface(process.stdout);
    const output: string[] = [];
    this.url = await new Promise((resolve, reject) => {
      lines.on("line", (line) => {
        output.push(line);
        const found = /https?:\/\/[^\s/,]+/.exec(line);
        if (found) resolve(found[0]);
      });
      process.once("error", reject);
      process.once("exit", (code) => reject(new Error(`the server ended with ${code}: ${output.join("\n")}`)));
    });
  }

  /** Ends the process: with SIGTERM cleanly, with SIGKILL as a crash does. */
  async end(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    const process = this.#process;
    if (!process || process.exitCode !== null || process.signalCode !== null) return;
    const ended = once(process, "exit");
    process.kill(signal);
    await ended;
  }

  /** Sends the process a signal: after SIGSTOP it keeps its connections, and answers nothing until SIGCONT. */
  signal(signal: "SIGSTOP" | "SIGCONT"): void {
    this.#process?.kill(signal);
  }

  async restart(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    await this.end(signal);
    await this.launch();
  }

  async stop(): Promise<void> {
    await this.end("SIGKILL");
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 5 });
  }

  async get(path: string): Promise<any> {
    const answer = await fetch(this.url + path, { headers: { accept: "application/json" } });
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  }

  /** Pushes a plugin, and waits until this version is active. */
  async push(file: string, ...args: string[]): Promise<void> {
    await lantern("plugin", "push", file, "--wait", "--server", this.url, ...args);
  }

  /** Appends events, one JSON text a line. Returns how many events the log's first partition then has. */
  async append(lines: string[]): Promise<number> {
    const answer = await fetch(`${this.url}/v1/events`, {
      method: "POST",
      headers: { "content-type": "application/x-ndjson" },
      body: lines.join("\n"),
    });
    if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
    const { partitions } = (await answer.json()) as { partitions: { [partition: string]: { last: number } } };
    return partitions[0]!.last + 1;
  }

  /** All rows of a table. */
  async rows(table: string): Promise<Map<string, any>> {
    const page = await this.get(`/v1/tables/${table}?limit=10000`);
    return new Map(Object.entries(page.rows));
  }

  /** Waits until the projection has folded the whole log. */
  async caughtUp(projection: string): Promise<void> {
    let status: any;
    await until(
      async () => {
        status = await this.get(`/v1/projections/${projection}`);
        const active = status.versions.find((version: any) => version.id === status.active);
        return active?.shards.every((shard: any) => shard.lag_events === 0);
      },
      () => status,
    );
  }
}
