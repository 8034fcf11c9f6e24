// Previews of uploads, comparisons of versions and the server's screen in Chromium, over a real server.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { describe, expect, test } from "vitest";
import { changed } from "../../clients/ts/test/server.js";
import { accessible, drop, event, fitsPhone, INTERPRETERS, open, plugin, Server, setUp, shows, skipped, until, withOrders } from "./page.js";

/** A declaration of the sums of orders by product. */
function declaration(columns: string): Buffer {
  return Buffer.from(`name: sums\nfrom: order.placed\ntables:\n  products:\n    key:\n      product: data.product\n    columns:\n${columns.replace(/^/gm, "      ")}\n`);
}

/** Uploads a declaration of the projection `sums`, and returns the version. */
async function declare(server: Server, columns: string, activate: boolean): Promise<string> {
  const answer = await fetch(`${server.url}/v1/projections/sums/versions?activate=${activate}&source_name=sums.yaml`, { method: "POST", body: declaration(columns) as BodyInit, headers: { "content-type": "application/yaml" } });
  const body: any = await answer.json();
  expect(answer.ok, JSON.stringify(body)).toBe(true);
  return body.version;
}

/** Waits until every version of a projection has folded the whole log. */
async function allCaughtUp(server: Server, name: string): Promise<void> {
  let status: any;
  await until(
    async () => {
      status = await server.get(`/v1/projections/${name}`);
      return status.versions.every((version: any) => ["active", "ready", "retired"].includes(version.state) && version.shards.every((shard: any) => shard.lag_events === 0));
    },
    () => status,
  );
}

describe.skipIf(skipped)("versions", () => {
  const running = setUp();

  test("an upload is previewed with its rows, cancelled, and previewed again next to the active version", async () => {
    const server = (running.server = await Server.start());
    const { page, errors } = await open(running.browser, server.url);
    await shows(page, "No projection yet");
    // The log is empty: this is no error, and the upload may go on.
    await drop(page, "revenue.wasm", readFileSync(plugin("revenue")));
    await shows(page, "None of the events in the log is of a type that it reads");
    await accessible(page, "preview-empty");
    await server.append(Array.from({ length: 100 }, (_, n) => event(n)));
    // A slow fold is cancelled: nothing is shown in its place, and it can be asked for again.
    await page.route(/dry-run/, (route) => setTimeout(() => void route.continue().catch(() => null), 3000));
    await page.reload();
    await drop(page, "revenue.wasm", readFileSync(plugin("revenue")));
    const preview = page.getByRole("region", { name: "What it would write" });
    await preview.getByText("Folding the newest events").waitFor();
    await accessible(page, "preview-running");
    await preview.getByRole("button", { name: "Cancel" }).click();
    await preview.getByText("cancelled").waitFor();
    await page.unroute(/dry-run/);
    await preview.getByRole("button", { name: "Preview again" }).click();
    await preview.getByText("The newest 100 events that it reads").waitFor();
    await shows(page, "revenue has no active version to compare with");
    // The shown rows are those that the server writes once it is uploaded.
    const rows = preview.getByRole("region", { name: "Rows of by_product" });
    const first = (await rows.locator("tbody tr").first().locator("th, td").allTextContents()).map((text) => text.trim());
    await accessible(page, "preview");
    await fitsPhone(page, "preview");
    await page.getByRole("button", { name: "Upload and start" }).click();
    await page.waitForURL(/\/t\/revenue\//);
    await server.caughtUp("revenue");
    const stored = (await server.rows("revenue/by_product")).get(first[0]!);
    expect(first.slice(1)).toEqual(Object.values<any>(stored).map((value) => (typeof value === "number" ? value.toLocaleString("en") : value)));
    // Another version with the same tables gives the same rows.
    await drop(page, "revenue.wasm", readFileSync(changed("revenue", 2)));
    await preview.getByText(/No difference: \d+ rows of both versions are the same/).first().waitFor();
    // A name without an active version has nothing to compare with. Until it is known, the preview is stale.
    await page.getByRole("textbox", { name: "Projection" }).fill("revenue-2");
    await preview.getByText("stale: from before the last change").waitFor();
    await shows(page, "revenue-2 has no active version to compare with");
    expect(await preview.getByText("stale").count()).toBe(0);
    expect(errors).toEqual([]);
  });

  test("a preview that the server refuses is an error with its code, and the next one replaces it", async () => {
    const server = (running.server = await Server.start());
    await withOrders(server, 100);
    const { page, errors } = await open(running.browser, `${server.url}/upload`);
    await drop(page, "revenue.wasm", readFileSync(changed("revenue", 2)));
    const preview = page.getByRole("region", { name: "What it would write" });
    await preview.getByText(/No difference/).first().waitFor();
    await page.getByRole("textbox", { name: "Projection" }).fill("Not a name");
    await preview.getByText(/LAN-\d{4}/).waitFor();
    // The rows of the name before it stay, and are marked.
    await preview.getByText("stale: from before the last change").waitFor();
    await accessible(page, "preview-refused");
    await page.getByRole("textbox", { name: "Projection" }).fill("revenue");
    await preview.getByText(/LAN-\d{4}/).waitFor({ state: "detached" });
    await preview.getByText("stale").waitFor({ state: "detached" });
    expect(errors).toEqual([]);
  });

  test.skipIf(!existsSync(join(INTERPRETERS, "declare.wasm")))("a form is previewed as it is written, and its last preview stays, marked as stale, while a field is refused", async () => {
    const server = (running.server = await Server.start(`plugin.interpreters_dir=${INTERPRETERS}`));
    await server.append(Array.from({ length: 100 }, (_, n) => event(n)));
    await declare(server, "orders: count()\ncents: sum(data.cents)", true);
    await server.caughtUp("sums");
    const { page, errors } = await open(running.browser, `${server.url}/upload/declaration`);
    const preview = page.getByRole("region", { name: "What it would write" });
    await preview.getByText("as soon as the server accepts the text").waitFor();
    await page.getByLabel("Projection", { exact: true }).fill("sums");
    await page.getByLabel("Types, with commas").fill("order.placed");
    await page.getByLabel("Table", { exact: true }).fill("products");
    await page.getByLabel("One row for each").fill("data.product");
    const column = page.getByRole("group", { name: "Column 1" });
    await column.getByLabel("Column", { exact: true }).fill("orders");
    await preview.getByText("cents (integer) is gone").waitFor({ timeout: 250_000 });
    await page.getByRole("button", { name: "Add a column" }).click();
    const second = page.getByRole("group", { name: "Column 2" });
    await second.getByLabel("Column", { exact: true }).fill("cents");
    await second.getByLabel("of", { exact: true }).fill("data.cents");
    await preview.getByText(/No difference: \d+ rows of both versions are the same/).waitFor();
    await second.getByLabel("where (optional)").fill("data.quantity > 1");
    await preview.getByText("stale: from before the last change").waitFor();
    const row = preview.getByRole("row", { name: /changed/ }).first();
    await row.waitFor();
    const [before, after] = [await row.locator("del").textContent(), await row.locator("ins").textContent()];
    expect(Number(before!.replaceAll(",", ""))).toBeGreaterThan(Number(after!.replaceAll(",", "")));
    await accessible(page, "form-preview");
    // A refusal is at its field, and the preview before it stays.
    await second.getByLabel("of", { exact: true }).fill("lenght(data.product)");
    await shows(page, /Refused at line/);
    expect(await second.getByLabel("of", { exact: true }).getAttribute("aria-invalid")).toBe("true");
    await preview.getByText("stale: from before the last change").waitFor();
    await row.waitFor();
    await accessible(page, "form-stale");
    await fitsPhone(page, "form-preview");
    expect(errors).toEqual([]);
  });

  test.skipIf(!existsSync(join(INTERPRETERS, "declare.wasm")))("two versions are compared at one offset, with fields, rows and cells that differ, and the address has the choice", async () => {
    const server = (running.server = await Server.start(`plugin.interpreters_dir=${INTERPRETERS}`));
    const hostile = `{"specversion":"1.0","id":"hostile","source":"/test","type":"order.placed","time":"2026-01-01T00:00:00Z","data":{"product":${JSON.stringify("<img src=x onerror=\"document.title='owned'\">\u202E")},"quantity":1,"cents":1}}`;
    await server.append([...Array.from({ length: 100 }, (_, n) => event(n)), hostile]);
    const one = await declare(server, "orders: count()\ncents: sum(data.cents)", true);
    await server.caughtUp("sums");
    const { page, errors } = await open(running.browser, `${server.url}/p/sums/compare`);
    await shows(page, "There is only one version");
    await accessible(page, "compare-one");
    const two = await declare(server, "orders: count()\ncents: sum(data.cents)\nitems: sum(data.quantity)", false);
    await allCaughtUp(server, "sums");
    await page.goto(`${server.url}/p/sums`);
    await page.getByRole("link", { name: "Compare", exact: true }).last().click();
    await page.waitForURL(new RegExp(`right=${two}`));
    await shows(page, "items (integer) is new");
    await shows(page, "partition 0 before offset 101");
    const diff = await server.get(`/v1/tables/sums/products/diff?right=${two}`);
    const counts = page.getByLabel("Counts: Differences of products");
    expect((await counts.locator("dd").allTextContents()).map(Number)).toEqual([diff.added, diff.changed, diff.removed, diff.same]);
    expect(diff.changed).toBeGreaterThan(5);
    // Hostile text is text, and it does not change the direction of other text.
    await page.getByRole("rowheader", { name: /<img src=x/ }).waitFor();
    expect(await page.locator("main img").count()).toBe(0);
    expect(await page.locator("main").textContent()).not.toContain("\u202E");
    expect(await page.locator("tr.changed").first().locator("ins").textContent()).toMatch(/^\d+$/);
    await accessible(page, "compare");
    await fitsPhone(page, "compare");
    // The address has the versions, the table and the beginning of the keys; a shared link shows the same.
    await page.getByRole("combobox", { name: "table", exact: true }).selectOption("products");
    await page.getByLabel("key begins with").fill("p1");
    await page.keyboard.press("Enter");
    await page.waitForURL(/prefix=p1/);
    const keys = async (on: Page): Promise<string[]> => on.locator("tr.changed th").allTextContents();
    await until(
      async () => (await keys(page)).length > 0 && (await keys(page)).every((key) => key.startsWith("p1")),
      () => keys(page),
    );
    const shared = await open(running.browser, page.url());
    await until(
      async () => JSON.stringify(await keys(shared.page)) === JSON.stringify(await keys(page)),
      () => keys(shared.page),
    );
    await shared.page.context().close();
    await page.getByRole("button", { name: "Swap" }).click();
    await page.waitForURL(new RegExp(`left=${two}`));
    await shows(page, "items (integer) is gone");
    await page.goBack();
    await shows(page, "items (integer) is new");
    // The same rows are no difference, at an offset that is shown.
    const three = await declare(server, "orders: count()\ncents: sum(data.cents) ", false);
    await allCaughtUp(server, "sums");
    await page.goto(`${server.url}/p/sums/compare?left=${one}&right=${three}`);
    await shows(page, three === one ? "Choose two different versions" : /No difference: \d+ rows of both versions are the same/);
    await page.goto(`${server.url}/p/sums/compare?right=nothing`);
    await shows(page, "sums has no version nothing");
    await accessible(page, "compare-unknown");
    // A server that is gone: the comparison stays, with an error.
    await page.goto(`${server.url}/p/sums/compare?left=${one}&right=${two}`);
    await shows(page, "items (integer) is new");
    await server.end("SIGKILL");
    await page.getByRole("button", { name: "Compare again" }).click();
    await shows(page, "The server does not answer");
    await shows(page, "items (integer) is new");
    expect(errors).toEqual([]);
  });

  test("the server's screen lists settings, clients with their lag, and limits", async () => {
    const server = (running.server = await Server.start("live.sessions_max=1"));
    await withOrders(server, 50);
    const { page, errors } = await open(running.browser, `${server.url}/server/clients`);
    await shows(page, "No client is connected to the feed");
    await accessible(page, "clients-empty");
    const other = await open(running.browser, `${server.url}/t/revenue/by_product`);
    await other.page.locator(".status", { hasText: "live" }).waitFor();
    await page.getByRole("link", { name: "revenue/by_product" }).waitFor();
    await shows(page, "up to date");
    await shows(page, "1 open session");
    await accessible(page, "clients");
    await fitsPhone(page, "clients");
    // A limit that is reached is marked, and names its setting.
    await page.getByRole("link", { name: "Limits" }).click();
    const limit = page.getByRole("row", { name: /sessions of the feed/ });
    await limit.getByText("100 %").waitFor();
    await accessible(page, "limits");
    await limit.getByRole("link", { name: "live.sessions_max" }).click();
    const row = page.getByRole("row", { name: /live\.sessions_max/ });
    await row.getByText("configured").waitFor();
    expect(await row.locator("td").allTextContents()).toEqual(expect.arrayContaining(["1", "20,000"]));
    expect(await page.locator("tbody tr").count()).toBe(1);
    await page.getByLabel("contains").fill("");
    await page.getByLabel("only those that differ from their default").check();
    await until(
      async () => (await page.locator("tbody tr").count()) > 1 && (await page.locator("tbody .badge", { hasText: "configured" }).count()) === (await page.locator("tbody tr").count()),
      () => page.locator("tbody tr").allTextContents(),
    );
    expect(page.url()).toContain("changed=1");
    await accessible(page, "settings");
    await fitsPhone(page, "settings");
    await page.getByLabel("contains").fill("no such setting");
    await shows(page, "No setting fulfils the filter");
    await other.page.close();
    await page.goto(`${server.url}/server/clients`);
    await shows(page, "No client is connected to the feed");
    await server.end("SIGKILL");
    await shows(page, "Shown as it was");
    expect(errors).toEqual([]);
  });
});
