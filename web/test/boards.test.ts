// Boards in Chromium, over a real server.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Page } from "playwright-core";
import { describe, expect, test } from "vitest";
import { LANTERN } from "../../clients/ts/test/server.js";
import { accessible, event, fitsWindow, open, plugin, put, Server, setUp, shownRows, shows, skipped, until, withOrders } from "./page.js";

/** A server with 400 orders, and a board of them. */
async function withBoard(...settings: string[]): Promise<Server> {
  const server = await Server.start(...settings);
  await withOrders(server, 400);
  const panes = [
    { kind: "number", title: "Orders", table: "revenue/by_product", agg: "sum(orders)", where: ["product = $product"], width: 3, height: 2 },
    { kind: "chart", title: "Orders by minute", table: "revenue/by_minute", agg: "sum(orders)", time: "minute", width: 9, height: 3 },
    { kind: "table", title: "Products", table: "revenue/by_product", where: ["product = $product"], cols: ["product", "orders"], width: 12, height: 3 },
  ];
  const board = { format: 1, title: "Shop", variables: [{ name: "product", value: "", table: "revenue/by_product", field: "product" }], panes };
  const answer = await fetch(`${server.url}/v1/boards/shop`, { method: "PUT", body: JSON.stringify(board), headers: { "content-type": "application/json" } });
  expect(answer.status, await answer.text()).toBe(201);
  return server;
}

/** The number that the pane of a title shows. */
async function numberOf(page: Page, title: string): Promise<string> {
  return (await page.getByRole("article", { name: title, exact: true }).locator(".figure").textContent())!.trim();
}

/** Waits until the number pane has the sum of all orders, or of those of a product. */
async function showsSum(page: Page, server: Server, product?: string): Promise<void> {
  const where = product === undefined ? "" : `&where=product%20%3D%20${product}`;
  let texts: unknown;
  await until(
    async () => {
      const { rows } = await server.get(`/v1/tables/revenue/by_product?agg=sum(orders)%20as%20n${where}`);
      texts = [rows[0].n.toLocaleString("en"), await numberOf(page, "Orders")];
      return (texts as string[])[0] === (texts as string[])[1];
    },
    () => texts,
  );
}

describe.skipIf(skipped)("boards", () => {
  const running = setUp();

  test("a board is created, filled, arranged, stored and deleted", async () => {
    const server = (running.server = await Server.start());
    await withOrders(server, 400);
    const { page, errors } = await open(running.browser, `${server.url}/boards`);
    await shows(page, "No board yet");
    await accessible(page, "boards-empty");
    await page.getByLabel("Title of a new board").fill("Our shop");
    await page.getByRole("button", { name: "Create board" }).click();
    await page.waitForURL(/\/boards\/our-shop\?edit=1$/);
    // It begins with a pane for each of the two tables.
    await page.getByRole("article").nth(1).waitFor();
    await page.getByRole("button", { name: "Add a pane" }).click();
    const form = page.getByRole("dialog");
    await form.getByRole("combobox", { name: "Table" }).selectOption("revenue/by_product");
    await form.getByRole("combobox", { name: "shows" }).selectOption("number");
    await form.getByRole("combobox", { name: "show", exact: true }).selectOption("sum");
    await form.getByLabel("Title (optional)").fill("Orders");
    await accessible(page, "board-pane");
    await form.getByRole("button", { name: "Done" }).click();
    const titles = async (): Promise<string[]> => page.getByRole("article").evaluateAll((panes) => panes.map((pane) => pane.getAttribute("aria-label") ?? ""));
    const before = await titles();
    expect(before).toHaveLength(3);
    await page.getByRole("button", { name: "Move back: Orders" }).click();
    await page.getByRole("button", { name: "Move back: Orders" }).click();
    const arranged = [before[2]!, before[0]!, before[1]!];
    await until(
      async () => JSON.stringify(await titles()) === JSON.stringify(arranged),
      () => titles(),
    );
    await page.getByRole("button", { name: "Narrower: Orders" }).click();
    await page.getByRole("button", { name: "Lower: Orders" }).click();
    await accessible(page, "board-edit");
    // What is not stored yet survives a reload of the page, and nothing else has it.
    await page.reload();
    await page.getByRole("button", { name: "Move back: Orders" }).waitFor();
    expect((await server.get("/v1/boards/our-shop")).panes).toHaveLength(2);
    // Another user stores meanwhile: this change does not disappear silently.
    const other = await fetch(`${server.url}/v1/boards/our-shop`, { method: "PUT", body: JSON.stringify({ format: 1, title: "Theirs", panes: [], colour: "red" }) });
    expect(other.status).toBe(200);
    await page.getByRole("button", { name: "Store" }).click();
    await shows(page, "LAN-0437");
    await page.getByRole("button", { name: "Replace the other version by this one" }).click();
    await page.waitForURL(/\/boards\/our-shop$/);
    const { panes, title } = await server.get("/v1/boards/our-shop");
    expect([title, panes.map((pane: any) => [pane.kind, pane.width, pane.height])]).toEqual(["Our shop", [["number", 5, 2], ["chart", 6, 3], ["chart", 6, 3]]]);
    await showsSum(page, server);
    await page.goto(`${server.url}/boards`);
    await shows(page, "Our shop");
    await accessible(page, "boards");
    await page.getByRole("button", { name: "Delete board" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Delete board" }).click();
    await shows(page, "No board yet");
    expect(errors).toEqual([]);
  });

  test("a board moves within five seconds of an event, and its variables are in the address", async () => {
    const server = (running.server = await withBoard());
    const { page, errors } = await open(running.browser, `${server.url}/boards/shop`);
    await showsSum(page, server);
    await page.locator(".plot canvas").waitFor();
    await accessible(page, "board");
    const before = await numberOf(page, "Orders");
    const began = Date.now();
    await server.append(Array.from({ length: 100 }, (_, n) => event(400 + n)));
    await until(
      async () => (await numberOf(page, "Orders")) !== before,
      () => before,
    );
    console.log(`the board has changed ${Date.now() - began} ms after the append`);
    await showsSum(page, server);
    await page.getByRole("combobox", { name: "product" }).selectOption("p3");
    await page.waitForURL(/var-product=p3/);
    await showsSum(page, server, "p3");
    await until(
      async () => JSON.stringify([...(await shownRows(page)).keys()]) === '["p3"]',
      () => shownRows(page),
    );
    // A shared link shows the same.
    const shared = await open(running.browser, page.url());
    await showsSum(shared.page, server, "p3");
    expect(await shared.page.getByRole("combobox", { name: "product" }).inputValue()).toBe("p3");
    await shared.page.context().close();
    await page.goBack();
    await showsSum(page, server);
    await page.getByRole("article", { name: "Orders by minute" }).getByRole("button", { name: "Values" }).click();
    await page.getByRole("dialog", { name: "Orders by minute" }).getByText("The values as a table").click();
    await page.getByRole("dialog").getByRole("cell").first().waitFor();
    await page.keyboard.press("Escape");
    // A board that has another form is not shown wrongly.
    await fetch(`${server.url}/v1/boards/later`, { method: "PUT", body: JSON.stringify({ format: 2, title: "Later" }) });
    await page.goto(`${server.url}/boards/later`);
    await shows(page, "this page knows forms up to 1");
    await page.goto(`${server.url}/boards/nothing`);
    await shows(page, "LAN-0433");
    await page.setViewportSize({ width: 390, height: 844 });
    for (const [name, address] of Object.entries({ board: "/boards/shop", "board-edit": "/boards/shop?edit=1", boards: "/boards" })) {
      await page.goto(server.url + address);
      await page.waitForFunction(() => !/Loading|loading/.test(document.querySelector("main")!.textContent!));
      await fitsWindow(page, name);
    }
    expect(errors).toEqual([]);
  });

  test("equal panes share one roll-up of the feed, and nothing is requested", async () => {
    const server = (running.server = await withBoard());
    const number = { kind: "number", table: "revenue/by_product", agg: "sum(orders)", where: ["orders >= 0"], width: 4, height: 2 };
    await put(server, "equal", "Equal panes", [{ ...number, title: "Orders" }, { ...number, title: "The same" }, { ...number, title: "Others", where: ["orders >= 1"] }]);
    const { page, errors } = await open(running.browser, "about:blank");
    const subscribed: string[] = [];
    const requested: string[] = [];
    page.on("websocket", (socket) => socket.on("framesent", ({ payload }) => void (String(payload).includes('"rollup"') && subscribed.push(String(payload)))));
    page.on("request", (request) => void (request.url().includes("/v1/tables/") && requested.push(request.url())));
    await page.goto(`${server.url}/boards/equal`);
    await showsSum(page, server);
    await server.append(Array.from({ length: 100 }, (_, n) => event(400 + n)));
    await showsSum(page, server);
    expect(await numberOf(page, "The same")).toBe(await numberOf(page, "Orders"));
    await page.locator(".badge.good").nth(3).waitFor();
    expect(subscribed.map((text) => JSON.parse(text).where[0][2]).sort()).toEqual([0, 1]);
    expect(requested).toEqual([]);
    // A server that is killed and started again: offline in between, and the sum afterwards.
    await server.end("SIGKILL");
    await page.getByRole("article", { name: "Orders", exact: true }).locator(".badge", { hasText: "offline for" }).waitFor();
    await server.launch();
    await page.evaluate(() => dispatchEvent(new Event("online")));
    await server.append(Array.from({ length: 100 }, (_, n) => event(500 + n)));
    await showsSum(page, server);
    await page.getByRole("article", { name: "Orders", exact: true }).locator(".badge", { hasText: "live" }).waitFor();
    expect(requested).toEqual([]);
    expect(errors).toEqual([]);
  });

  test("a roll-up that the server refuses is requested, with the reason, until it is not refused", async () => {
    const server = (running.server = await withBoard("live.roll_ups_max=1"));
    const number = { kind: "number", table: "revenue/by_product", width: 6, height: 2 };
    await put(server, "refused", "Refused", [{ ...number, title: "Orders", agg: "sum(orders)" }, { ...number, title: "Others", agg: "sum(cents)" }]);
    const { page, errors } = await open(running.browser, `${server.url}/boards/refused`);
    const reason = page.locator(".requested");
    await reason.waitFor();
    expect(await reason.allTextContents()).toEqual([expect.stringMatching(/^Requested every 3 s, because .*1/)]);
    await page.locator(".badge.good").nth(2).waitFor();
    await accessible(page, "board-requested");
    await server.append(Array.from({ length: 100 }, (_, n) => event(400 + n)));
    await server.caughtUp("revenue");
    await showsSum(page, server);
    const { rows } = await server.get("/v1/tables/revenue/by_product?agg=sum(cents)%20as%20n");
    await until(
      async () => (await numberOf(page, "Others")).replace(/ cent$/, "") === rows[0].n.toLocaleString("en"),
      () => rows,
    );
    // A filter that only the server can read is requested as well.
    await page.goto(`${server.url}/t/revenue/by_product?view=chart&where=product%20in%20%5B%22p1%22%5D`);
    await page.locator(".requested, .failure").first().waitFor();
    expect(errors).toEqual([]);
  });

  test("what a table and a chart show is added to a board", async () => {
    const server = (running.server = await withBoard());
    const { page, errors } = await open(running.browser, `${server.url}/t/revenue/by_product?where=orders%20%3E%3D%2012&order=-orders`);
    await page.getByRole("button", { name: "Add to a board" }).click();
    const dialog = page.getByRole("dialog", { name: "Add to a board" });
    await dialog.getByRole("combobox", { name: "Board" }).waitFor();
    await accessible(page, "add-to-board");
    await dialog.getByRole("button", { name: "Add", exact: true }).click();
    await shows(page, "Added to the board shop");
    await page.getByRole("link", { name: "Chart", exact: true }).click();
    await page.getByRole("combobox", { name: "show", exact: true }).selectOption("count");
    await page.getByRole("button", { name: "Add to a board" }).click();
    await dialog.getByRole("combobox", { name: "Board" }).selectOption("");
    await dialog.getByRole("textbox", { name: "Title" }).fill("Second");
    await dialog.getByRole("button", { name: "Add", exact: true }).click();
    await shows(page, "Added to the board second");
    const pane = (board: any): unknown[] => ["kind", "table", "where", "order", "agg", "by"].map((name) => board.panes.at(-1)[name]);
    expect(pane(await server.get("/v1/boards/shop"))).toEqual(["table", "revenue/by_product", ["orders >= 12"], "-orders", "count()", ""]);
    expect((await server.get("/v1/boards/shop")).panes).toHaveLength(4);
    expect(pane(await server.get("/v1/boards/second"))).toEqual(["chart", "revenue/by_product", ["orders >= 12"], "", "count()", "product"]);
    // Rows in the order of a field are requested: a pane that may have more of them gets them.
    const largest = [{ kind: "table", table: "revenue/by_product", order: "-orders", limit: 2, width: 12, height: 4 }];
    await fetch(`${server.url}/v1/boards/largest`, { method: "PUT", body: JSON.stringify({ format: 1, title: "Largest", panes: largest }) });
    await page.goto(`${server.url}/boards/largest?edit=1`);
    const rows = (number: number): Promise<unknown> =>
      until(
        async () => (await shownRows(page)).size === number,
        () => shownRows(page),
      );
    await rows(2);
    await page.getByRole("button", { name: "Change: revenue/by_product" }).click();
    await page.getByRole("spinbutton", { name: "at most" }).fill("5");
    await page.getByRole("button", { name: "Done" }).click();
    await rows(5);
    expect(errors).toEqual([]);
  });

  test("a kiosk goes on after its server was killed without a reload, and reloads for another release", async () => {
    const server = (running.server = await withBoard());
    const { page, errors } = await open(running.browser, `${server.url}/boards/shop?kiosk=1`);
    await showsSum(page, server);
    await accessible(page, "kiosk");
    expect(await page.locator(".rail, .top, .board-screen > header button").count()).toBe(0);
    await page.evaluate(() => Object.assign(globalThis, { still: "here" }));
    const still = (): Promise<unknown> => page.evaluate(() => (globalThis as any).still);
    for (let round = 0; round < 2; round += 1) {
      await server.end("SIGKILL");
      await page.locator(".badge", { hasText: /^. offline/ }).first().waitFor();
      await server.launch();
      await server.append(Array.from({ length: 50 }, (_, n) => event(400 + 50 * round + n)));
      await server.caughtUp("revenue");
      await showsSum(page, server);
      await until(
        async () => (await page.locator(".badge").allTextContents()).every((text) => /live$/.test(text)),
        () => page.locator(".badge").allTextContents(),
      );
    }
    // A board that is changed elsewhere is shown as it is now.
    await fetch(`${server.url}/v1/boards/shop`, { method: "PUT", body: JSON.stringify({ ...(await server.get("/v1/boards/shop")), title: "Another title" }) });
    await shows(page, "Another title");
    expect(await still()).toBe("here");
    // The same server says that it is of another release.
    await page.route(/\/v1\/status$/, async (route) => {
      const answer = await route.fetch().catch(() => null);
      // The page goes on asking after the test has stopped its server.
      if (!answer) return route.abort();
      await route.fulfill({ response: answer, json: { ...(await answer.json()), version: "99.0.0" } });
    });
    await until(
      async () => (await still().catch(() => "loading")) === undefined,
      () => still(),
    );
    await showsSum(page, server);
    await page.evaluate(() => Object.assign(globalThis, { still: "again" }));
    // It does not load again and again.
    await page.waitForResponse(/\/v1\/status$/);
    await page.waitForResponse(/\/v1\/status$/);
    expect(await still()).toBe("again");
    expect(errors).toEqual([]);
  });

  test("the demo opens on a board without an error, which moves within five seconds", async () => {
    const root = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));
    const folder = mkdtempSync(join(tmpdir(), "lantern-demo-"));
    const args = ["demo", "--data", join(folder, "data"), "--listen", "127.0.0.1:0", "--log-filter", "error", "--plugins", dirname(plugin("revenue")), "--flights", root("tests/data/flights-2013-h1.ndjson.zst")];
    const settings = [`plugin.cache_dir=${root("target/tests-cache/servers")}`, "plugin.compile_interpreters=false"].flatMap((setting) => ["--set", setting]);
    const demo = spawn(LANTERN, [...args, ...settings], { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
    try {
      // It compiles the plugins first.
      const address = await new Promise<string>((resolve, reject) => {
        let output = "";
        const read = (text: Buffer): void => {
          output += text;
          const found = /http\S+\/boards\/demo/.exec(output);
          if (found) resolve(found[0]);
        };
        demo.stdout.on("data", read);
        demo.stderr.on("data", read);
        demo.once("exit", () => reject(new Error(output)));
      });
      // Without animations: a flash that runs while the test changes the theme has colours of both.
      const { page, errors } = await open(running.browser, address, { reducedMotion: "reduce" });
      const panes = page.getByRole("article");
      await panes.nth(9).waitFor();
      // The first flight departs four hours of the demo's clock later; the shop has orders at once.
      await until(
        async () => (await page.locator(".figure").count()) === 4 && (await page.locator(".plot canvas, .bars").count()) >= 2,
        () => panes.allTextContents(),
      );
      expect(await page.locator(".pane-frame .bad, .failure").allTextContents()).toEqual([]);
      const before = await numberOf(page, "Orders");
      const began = Date.now();
      await until(
        async () => (await numberOf(page, "Orders")) !== before,
        () => before,
      );
      expect(Date.now() - began).toBeLessThan(5000);
      console.log(`the board of the demo has moved after ${Date.now() - began} ms`);
      await accessible(page, "demo");
      // The shop takes no orders for a while, and an alert is raised.
      await until(
        async () => Number(await numberOf(page, "Alerts about orders")) > 0,
        () => panes.allTextContents(),
      );
      await page.getByRole("article", { name: "Alerts when orders stop, the newest first" }).getByRole("gridcell", { name: "drop", exact: true }).first().waitFor();
      // One order has no price: it is parked, and a drop repairs its projection.
      await page.getByRole("link", { name: "Parked 1" }).click();
      await shows(page, "missing field `cents`");
      await page.getByRole("link", { name: "revenue", exact: true }).click();
      await page.getByRole("button", { name: "Drop this one" }).click();
      await page.getByRole("dialog").getByRole("button", { name: "Drop 1 event" }).click();
      await shows(page, "1 event dropped");
      expect(errors).toEqual([]);
    } finally {
      demo.kill("SIGKILL");
      rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
    }
  });
});
