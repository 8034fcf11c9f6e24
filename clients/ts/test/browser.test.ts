// Tests the bundled client in Chromium, which is controlled over WebDriver: rows change on a
// page, even if the server is restarted.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { expect, test } from "vitest";
import { event, Judge } from "./judge.js";
import { show, until } from "./patience.js";
import { missing, plugin, Server, without } from "./server.js";

/** A browser with one window. */
class Browser {
  #driver: ChildProcess;
  #session = "";
  #profile = mkdtempSync(join(tmpdir(), "lantern-ts-chromium-"));

  private constructor(driver: ChildProcess) {
    this.#driver = driver;
  }

  static async open(url: string): Promise<Browser> {
    // The driver has a process group of its own, so that the browser can be ended with it.
    const driver = spawn("chromedriver", ["--port=0"], { detached: true, stdio: ["ignore", "pipe", "ignore"] });
    const browser = new Browser(driver);
    const port = await new Promise<string>((resolve, reject) => {
      driver.once("error", reject);
      // "ChromeDriver was started successfully on port 12345."
      createInterface(driver.stdout).on("line", (line) => {
        const found = /successfully on port (\d+)/.exec(line);
        if (found) resolve(found[1]!);
      });
    });
    const args = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"];
    const quiet = ["--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
    const options = { args: [...args, ...quiet, `--user-data-dir=${browser.#profile}`] };
    const wanted = { capabilities: { alwaysMatch: { browserName: "chrome", "goog:chromeOptions": options } } };
    const sessions = `http://127.0.0.1:${port}/session`;
    const { sessionId } = await post(sessions, wanted);
    browser.#session = `${sessions}/${sessionId}`;
    await post(`${browser.#session}/url`, { url });
    return browser;
  }

  /** Runs a script in the page. */
  run(script: string): Promise<any> {
    return post(`${this.#session}/execute/sync`, { script, args: [] });
  }

  close(): void {
    process.kill(-this.#driver.pid!, "SIGKILL");
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 10 });
  }
}

async function post(url: string, body: object): Promise<any> {
  const answer = await fetch(url, { method: "POST", body: JSON.stringify(body) });
  const { value } = (await answer.json()) as { value: any };
  if (!answer.ok) throw new Error(`${url}: ${JSON.stringify(value)}`);
  return value;
}

/** The page. It checks each state: the orders of all rows add up to the offset. */
const page = (feed: string): string => `<!doctype html><title>rows</title><p id="shown"></p><p id="singles"></p><script type="module">
import { connect } from "/client.js";
window.wrong = [];
window.states = 0;
window.statuses = [];
const client = connect(${JSON.stringify(feed)});
const table = client.table("revenue/by_product");
table.onChange((change) => {
  if (change.type === "status") statuses.push(change.status);
  const orders = [...table.values()].reduce((sum, row) => sum + row.orders, 0);
  if (table.commit !== null && orders !== table.offsets[0]) wrong.push([table.commit, orders, table.offsets]);
  states += 1;
  shown.textContent = table.status + " " + orders;
});
// A product leaves this table when it gets its second order.
const once = client.table("revenue/by_product", { where: [["orders", "=", 1]], cols: ["product"] });
once.onChange(() => {
  singles.textContent = [...once.values()].map((row) => Object.values(row).join()).sort().join(" ");
});
</script>`;

async function site(): Promise<{ server: http.Server; origin: string; serve: (feed: string) => void }> {
  const entry = fileURLToPath(new URL("../src/index.ts", import.meta.url));
  const { outputFiles } = await build({ entryPoints: [entry], bundle: true, minify: true, format: "esm", write: false });
  let html = "";
  const server = http.createServer((request, answer) => {
    const script = request.url === "/client.js";
    answer.setHeader("content-type", script ? "text/javascript" : "text/html");
    answer.end(script ? outputFiles[0]!.text : html);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { server, origin, serve: (feed) => void (html = page(feed)) };
}

const noBrowser = without("chromedriver") || without("chromium");

test.skipIf(missing || noBrowser)("rows change on a page in Chromium, through restarts of the server", async () => {
  const { server: pages, origin, serve } = await site();
  const server = await Server.start(`http.origins=["${origin}"]`, "live.heartbeat_ms=500");
  let browser: Browser | undefined;
  try {
    await server.push(plugin("revenue"));
    serve(server.feed);
    await server.append([0, 1, 2].map(event));
    browser = await Browser.open(origin);
    let seen: unknown;
    const shows = (text: string, orders = Number(/\d+/.exec(text)![0])): Promise<boolean> => {
      const rows = [...new Judge().rows("revenue/by_product", orders)];
      const singles = rows.filter(([, row]) => row.orders === 1).map(([key]) => key);
      const wanted = show([text, singles.sort().join(" ")]);
      return until(
        async () => show((seen = await browser!.run("return [shown.textContent, singles.textContent]"))) === wanted,
        () => [seen, "instead of", wanted],
      );
    };
    await shows("live 3");
    await browser.run("window.still = 'here'");
    await server.append([3, 4].map(event));
    await shows("live 5");
    await server.restart("SIGTERM");
    await server.append([5].map(event));
    await shows("live 6");
    await server.end("SIGKILL");
    await shows("stale 6");
    await server.launch();
    // When the network returns, the page does not wait for the end of its pause.
    await browser.run("dispatchEvent(new Event('online'))");
    // In these events p13 and p33 get a second order.
    await server.append(Array.from({ length: 14 }, (_, n) => event(6 + n)));
    await shows("live 20");
    expect(await browser.run("return [still, wrong, statuses]")).toEqual([
      "here",
      [],
      ["connecting", "live", "stale", "live", "stale", "live"],
    ]);
    console.log(`${await browser.run("return states")} states in Chromium`);
  } finally {
    browser?.close();
    await server.stop();
    pages.close();
  }
});
