// A browser that shows the page of a server. The measurements use it as well, without vitest.
import { existsSync, readFileSync, statSync } from "node:fs";
import { extname, join } from "node:path";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import type { Server } from "../../clients/ts/test/server.js";

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

/** Stores a board. */
export async function put(server: Server, name: string, title: string, panes: readonly object[]): Promise<void> {
  const body = JSON.stringify({ format: 1, title, panes });
  const answer = await fetch(`${server.url}/v1/boards/${name}`, { method: "PUT", body, headers: { "content-type": "application/json" } });
  if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
}
