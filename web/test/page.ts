// The page in Chromium, over a real server.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect } from "vitest";
import { event } from "../../clients/ts/test/judge.js";
import { missing, plugin, Server, without } from "../../clients/ts/test/server.js";
import { launch } from "./browser.js";

export { event, plugin, Server };
export { open, put } from "./browser.js";
export { INTERPRETERS } from "../../clients/ts/test/server.js";
export { until } from "../../clients/ts/test/patience.js";

/** Why tests with a browser cannot run. */
export const skipped: boolean = missing !== undefined || without("chromium");

/** The browser of a file's tests, and the server of a test. */
interface Running {
  browser: Browser;
  /** The server of the present test, if it has one. It is stopped after the test. */
  server?: Server;
}

/** Starts a browser before the tests of a file and closes it after them, and stops the server of each test. */
export function setUp(): Running {
  const running = {} as Running;
  beforeAll(async () => {
    running.browser = await launch();
  });
  afterAll(() => running.browser?.close());
  afterEach(() => running.server?.stop());
  return running;
}

const AXE = readFileSync(fileURLToPath(new URL("../node_modules/axe-core/axe.min.js", import.meta.url)), "utf8");

/** What axe-core finds wrong with the page, one sentence each. */
async function violations(page: Page): Promise<string[]> {
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

/** The folder of the guests of tests. */
export const GUESTS = process.env.LANTERN_GUESTS ?? fileURLToPath(new URL("../../target/guests", import.meta.url));

/** An event that the plugin `rogue` applies, parks, or repeats. */
export function probe(n: number, subject: string, data: object): string {
  return JSON.stringify({ specversion: "1.0", id: String(n), source: "/test", type: "probe.sent", subject, time: "2026-01-01T00:00:00Z", data });
}

/** Uploads a guest with parameters, and waits until the projection has folded the log. */
export async function project(server: Server, name: string, parameters: object): Promise<void> {
  const form = new FormData();
  form.append("parameters", JSON.stringify(parameters));
  form.append("plugin", new Blob([readFileSync(join(GUESTS, "rogue.wasm"))]), "rogue.wasm");
  const answer = await fetch(`${server.url}/v1/projections/${name}/versions`, { method: "POST", body: form });
  expect(answer.ok, await answer.text()).toBe(true);
  await server.caughtUp(name);
}

/** Drops a file on the page, as a user does. */
export async function drop(page: Page, name: string, content: Buffer): Promise<void> {
  const transfer = await page.evaluateHandle(
    ({ name: file, base64 }) => {
      const data = new DataTransfer();
      data.items.add(new File([Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))], file));
      return data;
    },
    { name: name.split("/").at(-1)!, base64: content.toString("base64") },
  );
  await page.dispatchEvent(".frame", "dragenter", { dataTransfer: transfer });
  await page.dispatchEvent(".frame", "drop", { dataTransfer: transfer });
}

/** Nothing is wider than the window, which has the size of a phone. */
export async function fitsWindow(page: Page, name: string): Promise<void> {
  await accessible(page, `phone-${name}`);
  const [wide, window] = await page.evaluate(() => [document.querySelector("main")!.scrollWidth, document.querySelector("main")!.clientWidth]);
  expect(wide, name).toBe(window);
}

/** Nothing is wider than the screen of a phone. The window then has its former size again. */
export async function fitsPhone(page: Page, name: string): Promise<void> {
  await page.setViewportSize({ width: 390, height: 844 });
  await fitsWindow(page, name);
  await page.setViewportSize({ width: 1400, height: 900 });
}
