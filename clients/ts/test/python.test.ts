// Tests the client in Python, docs/feed/client.py, which was written from docs/feed.md
// alone.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { event, Judge } from "./judge.js";
import { show, sleep, until } from "./patience.js";
import { Proxy, random } from "./proxy.js";
import { changed, missing, plugin, Server, without } from "./server.js";

const FILE = fileURLToPath(new URL("../../../docs/feed/client.py", import.meta.url));

test("the client in Python has at most 110 lines of code", () => {
  const lines = readFileSync(FILE, "utf8").split("\n");
  expect(lines.filter((line) => !/^\s*($|#|""")/.test(line)).length).toBeLessThanOrEqual(110);
});

test.skipIf(missing || without("python3"))("the client in Python shows only committed states, also through cuts, a kill and another version", async () => {
  const seed = Number(process.env.LANTERN_SEED ?? Date.now() % 1e9);
  const rng = random(seed);
  const server = await Server.start("live.heartbeat_ms=500", "live.tick_ms=20");
  const proxy = await Proxy.start(Number(new URL(server.url).port), { cutAfter: () => 2 ** (9 + rng(9)), delay: () => rng(4) });
  // The test makes the pauses short without changing the file.
  const quick = "import sys, runpy; sys.argv = sys.argv[1:]; import time; s = time.sleep; time.sleep = lambda t: s(t / 50); runpy.run_path(sys.argv[0], run_name='__main__')";
  await server.push(plugin("revenue"));
  const python = spawn("python3", ["-c", quick, FILE, `127.0.0.1:${proxy.port}`, "revenue/by_product"], { stdio: ["ignore", "pipe", "inherit"] });
  try {
    const judge = new Judge();
    const errors: unknown[] = [];
    const epochs = new Set<string>();
    let [sent, offset, last] = [0, 0, ""];
    createInterface(python.stdout).on("line", (line) => {
      const { epoch, commit, offsets, rows } = JSON.parse(line);
      const state = { table: "revenue/by_product", epoch, commit, offset: offsets[0], rows: new Map(Object.entries<any>(rows)) };
      epochs.add(epoch);
      [offset, last] = [state.offset, show([...state.rows].sort())];
      try {
        judge.check(python, state);
      } catch (error) {
        errors.push(error);
      }
    });
    for (let round = 0; judge.states < 150 || proxy.cuts < 10 || round <= 60; round += 1) {
      const count = 1 + rng(5);
      await server.append(Array.from({ length: count }, (_, n) => event(sent + n)));
      sent += count;
      await sleep(rng(30));
      if (round === 30) await server.restart("SIGKILL");
      if (round === 60) await server.push(changed("revenue", 1));
      expect(python.exitCode).toBeNull();
    }
    await until(
      () => (offset === sent && epochs.size === 2) || errors.length > 0,
      () => [offset, sent, [...epochs]],
    );
    expect(errors).toEqual([]);
    expect(last).toBe(show([...(await server.rows("revenue/by_product"))].sort()));
    console.log(`seed ${seed}: ${judge.states} states of the client in Python, ${proxy.cuts} cuts`);
  } finally {
    python.kill();
    proxy.stop();
    await server.stop();
  }
});
