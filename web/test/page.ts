// The page in Chromium, over a real server.
import { existsSync, readFileSync, statSync } from "node:fs";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { expect } from "vitest";
import { event } from "../../clients/ts/test/judge.js";
import { missing, plugin, Server, without } from "../../clients/ts/test/server.js";

export { event, plugin, Server };
export { lantern } from "../../clients/ts/test/server.js";
export { until } from "../../clients/ts/test/patience.js";

/** Why tests with a browser cannot run. */
export const skipped: boolean = missing !== undefined || without("chromium");

/** Files of the page to show in place of those in the binary: `LANTERN_PAGE=web/dist`, while the page is worked on. */
const FILES = process.env.LANTERN_PAGE;
const MEDIA: { [extension: string]: string } = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };

export async function launch(): Promise<Browser> {
  const args = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--disable-background-networking"];
  // Files that do not come from the server itself may not open its feed otherwise.
  if (FILES !== undefined) args.push("--disable-features=LocalNetworkAccessChecks");
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args });
}

/** A page that collects errors of its scripts and violations of its policy. */
export interface Opened {
  readonly page: Page;
  readonly errors: string[];
}

export async function open(browser: Browser, url: string, options: BrowserContextOptions = {}): Promise<Opened> {
  const context = await browser.newContext({ viewport: { width: 1400, height: 900 }, reducedMotion: "no-preference", acceptDownloads: true, ...options });
  // A machine that does other things as well is slow, and not broken.
  context.setDefaultTimeout(120_000);
  const page = await context.newPage();
  const errors: string[] = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => {
    // A server that is down is not an error of the page.
    if (message.type() === "error" && !/ERR_CONNECTION|WebSocket|status of [45]\d\d/.test(message.text())) errors.push(message.text());
  });
  if (FILES !== undefined) {
    await page.route((url) => !/^\/(v1\/|readyz|metrics)/.test(url.pathname), async (route) => {
      const file = join(FILES, new URL(route.request().url()).pathname);
      const found = existsSync(file) && statSync(file).isFile() ? file : join(FILES, "index.html");
      const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
      await route.fulfill({ body: readFileSync(found), headers: { "content-type": MEDIA[extname(found)] ?? "text/plain", "content-security-policy": policy } });
    });
  }
  await page.goto(url);
  return { page, errors };
}

const AXE = readFileSync(fileURLToPath(new URL("../node_modules/axe-core/axe.min.js", import.meta.url)), "utf8");

/** What axe-core finds wrong with the page, one sentence each. */
export async function violations(page: Page): Promise<string[]> {
  // The policy of the page allows no other scripts; the debugging protocol is not subject to it.
  await page.evaluate(AXE);
  return page.evaluate(async () => {
    const { violations } = await (globalThis as any).axe.run(document, { resultTypes: ["violations"] });
    return violations.flatMap(({ id, help, nodes }: any) => nodes.map((node: any) => `${id}: ${help}: ${node.html.slice(0, 200)} ${node.any[0]?.message ?? ""}`));
  });
}

/** Uploads `revenue`, and appends orders that its tables then contain. */
export async function withOrders(server: Server, orders: number): Promise<void> {
  await server.push(plugin("revenue"));
  await server.append(Array.from({ length: orders }, (_, n) => event(n)));
  await server.caughtUp("revenue");
}

/** Where pictures of the screens are kept. */
const PICTURES = process.env.LANTERN_PICTURES;

/** Waits until the page contains a text. */
export function shows(page: Page, text: string | RegExp): Promise<void> {
  return page.getByText(text).first().waitFor();
}

/** The rows of a table as the page shows them: the text of each cell, by key. */
export async function shownRows(page: Page): Promise<Map<string, string[]>> {
  const rows = await page.locator("[role=grid] .line:not(.head)").evaluateAll((lines) => lines.map((line) => [...line.children].map((cell) => cell.textContent ?? "")));
  return new Map(rows.map(([key = "", ...cells]) => [key, cells]));
}

/** The rows of a table as the server has them, as a page shows them. */
export async function storedRows(server: Server, table: string): Promise<Map<string, string[]>> {
  const rows = await server.rows(table);
  return new Map([...rows].sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, row]) => [key, Object.values(row).map((value) => (typeof value === "number" ? value.toLocaleString("en") : String(value)))]));
}

/** No violation of axe-core in light and in dark, and a picture of each. */
export async function accessible(page: Page, name: string): Promise<void> {
  for (const colorScheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme });
    expect(await violations(page), `${name} in ${colorScheme}`).toEqual([]);
    if (PICTURES) await page.screenshot({ path: join(PICTURES, `${name}-${colorScheme}.png`) });
  }
}
