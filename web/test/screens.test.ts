// The screens in Chromium, over a real server.
import { existsSync, mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { describe, expect, test } from "vitest";
import { changed } from "../../clients/ts/test/server.js";
import { accessible, drop, event, fitsPhone, fitsWindow, GUESTS, INTERPRETERS, open, plugin, probe, project, Server, setUp, shownRows, shows, skipped, storedRows, until, withOrders } from "./page.js";

describe.skipIf(skipped)("the page", () => {
  const running = setUp();

  test("the overview shows what is parked and not activated, and hostile text as text", async () => {
    const server = (running.server = await Server.start());
    const { page, errors } = await open(running.browser, server.url);
    await shows(page, "No projection yet");
    await accessible(page, "overview-empty");
    const hostile = "<img src=x onerror=\"document.title='owned'\">";
    await project(server, "rogue", { fixed: true });
    await project(server, "strict", { by_subject: true });
    await server.append([probe(1, hostile, { text: hostile }), probe(2, "s", { do: "fail" }), probe(3, "s", {})]);
    await shows(page, "2 parked");
    await shows(page, "1 failed, 1 waiting");
    await accessible(page, "overview");
    // A version that would park events that the active one has applied does not become active.
    const form = new FormData();
    form.append("parameters", JSON.stringify({ by_subject: true }));
    form.append("plugin", new Blob([readFileSync(join(GUESTS, "rogue.wasm"))]), "rogue.wasm");
    await fetch(`${server.url}/v1/projections/rogue/versions`, { method: "POST", body: form });
    await shows(page, "Not activated: version");
    await page.getByRole("row", { name: /^rogue/ }).getByRole("link", { name: "seen" }).click();
    await shows(page, hostile);
    expect(await page.locator("main img").count()).toBe(0);
    expect(await page.title()).toBe("rogue/seen – Lantern");
    // The list fits a window of any width, also while the server is away.
    await page.goto(server.url);
    await shows(page, "2 parked");
    await server.end("SIGKILL");
    await shows(page, "Shown as it was");
    for (const width of [1400, 1290, 1100, 1030, 700, 390]) {
      await page.setViewportSize({ width, height: 900 });
      const wide = await page.evaluate(() => [...document.querySelectorAll("main, .list, .list .row, .list .row > *")].filter((one) => one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 0).map((one) => one.className || one.tagName));
      expect(wide, String(width)).toEqual([]);
    }
    expect(errors).toEqual([]);
  });

  test("rows change as they are written, and equal the server's after it was killed; until then they are offline", async () => {
    const server = (running.server = await Server.start());
    await withOrders(server, 200);
    const { page, errors } = await open(running.browser, `${server.url}/t/revenue/by_product`);
    const equal = async (): Promise<void> => {
      await server.caughtUp("revenue");
      const stored = await storedRows(server, "revenue/by_product");
      const first = [...stored].slice(0, 10);
      let shown = new Map<string, string[]>();
      await until(
        async () => {
          shown = await shownRows(page);
          return first.every(([key, cells]) => JSON.stringify(shown.get(key)) === JSON.stringify(cells));
        },
        () => ({ first, shown: [...shown].slice(0, 10) }),
      );
      expect(await page.getByRole("grid").getAttribute("aria-rowcount")).toBe(String(stored.size + 1));
    };
    await equal();
    await accessible(page, "table");
    await page.evaluate(() => Object.assign(globalThis, { still: "here", flashes: 0 }));
    await page.evaluate(() => document.addEventListener("animationstart", ({ animationName }) => ((globalThis as any).flashes += animationName.startsWith("flash") ? 1 : 0)));
    await server.append(Array.from({ length: 100 }, (_, n) => event(200 + n)));
    await equal();
    expect(await page.evaluate(() => (globalThis as any).flashes)).toBeGreaterThan(0);
    await server.end("SIGKILL");
    await page.locator(".status", { hasText: /offline for \d+ s/ }).waitFor();
    await server.launch();
    await page.evaluate(() => dispatchEvent(new Event("online")));
    await server.append(Array.from({ length: 100 }, (_, n) => event(300 + n)));
    await equal();
    await page.locator(".status", { hasText: "live" }).waitFor();
    expect(await page.evaluate(() => (globalThis as any).still)).toBe("here");
    expect(errors).toEqual([]);
  });

  test("a server that stops answering, with its connections open, is stale on the table and on the events", async () => {
    const server = (running.server = await Server.start());
    await withOrders(server, 20);
    const { page, errors } = await open(running.browser, `${server.url}/t/revenue/by_product`);
    const mark = page.locator(".bar .badge").first();
    const says = (word: string): Promise<unknown> =>
      until(
        async () => new RegExp(`^\\W*${word}`).test((await mark.textContent()) ?? ""),
        () => mark.textContent(),
      );
    for (const address of ["/t/revenue/by_product", "/events"]) {
      await page.goto(server.url + address);
      await says("live");
      server.signal("SIGSTOP");
      const began = Date.now();
      await says("stale");
      // The feed itself notices it after twice its heartbeat of 15 s at the latest.
      expect(Date.now() - began, address).toBeLessThan(14_000);
      server.signal("SIGCONT");
      await says("live");
    }
    expect(errors).toEqual([]);
  });

  test("a table is held still, filtered, ordered, opened, downloaded and shared by its address", async () => {
    const server = (running.server = await Server.start());
    await withOrders(server, 400);
    const { page, errors } = await open(running.browser, `${server.url}/t/revenue/by_product`);
    await page.locator(".status", { hasText: "live" }).waitFor();
    await page.getByRole("button", { name: "Hold still" }).click();
    const before = await shownRows(page);
    await server.append(Array.from({ length: 50 }, (_, n) => event(400 + n)));
    await page.getByRole("button", { name: /Go on, [1-9]\d* waiting/ }).waitFor();
    expect(await shownRows(page)).toEqual(before);
    await page.getByRole("button", { name: /Go on/ }).click();
    await until(
      async () => JSON.stringify([...(await shownRows(page))]) !== JSON.stringify([...before]),
      () => "the rows did not go on",
    );
    // Filter and order are the server's, and are in the address.
    await page.getByLabel("Field").selectOption("cents");
    await page.getByLabel("Operator").selectOption(">=");
    await page.getByLabel("Value").fill("50000");
    await page.getByRole("button", { name: "Add filter" }).click();
    await page.getByRole("button", { name: /^cents/ }).click();
    await page.getByRole("button", { name: /^cents/ }).click();
    const answer = await fetch(`${server.url}/v1/tables/revenue/by_product?where=cents%20%3E%3D%2050000&order=-cents`, { headers: { accept: "application/x-ndjson" } });
    const keys = (await answer.text()).trim().split("\n").map((line) => JSON.parse(line).key);
    const ordered = async (on: Page): Promise<void> =>
      void (await until(
        async () => JSON.stringify([...(await shownRows(on)).keys()]) === JSON.stringify(keys.slice(0, (await shownRows(on)).size)) && (await shownRows(on)).size > 5,
        async () => ({ keys, shown: [...(await shownRows(on)).keys()] }),
      ));
    await ordered(page);
    expect(new URL(page.url()).searchParams.getAll("where")).toEqual(["cents >= 50000"]);
    const shared = await open(running.browser, page.url());
    await ordered(shared.page);
    await shared.page.context().close();
    await page.goBack();
    await page.goForward();
    await ordered(page);
    // By keyboard alone: the second row, and its sheet.
    await page.getByRole("grid").focus();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    const sheet = page.getByRole("dialog", { name: keys[1] });
    await sheet.waitFor();
    expect(await sheet.getByLabel("The row as JSON").textContent()).toContain(`"product": "${keys[1]}"`);
    await accessible(page, "row");
    await page.keyboard.press("Escape");
    await sheet.waitFor({ state: "detached" });
    await page.getByRole("button", { name: "Code" }).click();
    expect(await page.getByLabel("curl").textContent()).toContain(`curl -G '${server.url}/v1/tables/revenue/by_product'`);
    await accessible(page, "code");
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Download" }).click();
    const [saved] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: /^CSV/ }).click()]);
    const csv = readFileSync(await saved.path(), "utf8").trim().split(/\r?\n/);
    expect(csv.slice(1).map((line) => line.split(",")[0])).toEqual(keys);
    await shows(page, "all rows are of one commit");
    // A filter that the server refuses is an error with its code.
    await page.goto(`${server.url}/t/revenue/by_product?where=nothing%20%3D%201`);
    await shows(page, "LAN-0426");
    expect(errors).toEqual([]);
  });

  test("an integer of 19 digits is shown whole, and a product whose name reverses the text is shown by code point", async () => {
    const server = (running.server = await Server.start());
    await server.push(plugin("revenue"));
    const order = (n: number, product: string, cents: string): string => `{"specversion":"1.0","id":"big-${n}","source":"/test","type":"order.placed","time":"2026-01-01T00:00:00Z","data":{"product":${JSON.stringify(product)},"quantity":1,"cents":${cents}}}`;
    await server.append([order(1, "large", "-9223372036854775807"), order(2, "\u202Eevil", "1")]);
    await server.caughtUp("revenue");
    const { page, errors } = await open(running.browser, `${server.url}/t/revenue/by_product`);
    const cell = page.getByRole("gridcell", { name: "-9,223,372,036,854,775,807", exact: true });
    await cell.waitFor();
    await until(
      () => cell.evaluate((element) => element.scrollWidth <= element.clientWidth),
      () => cell.evaluate((element) => [element.scrollWidth, element.clientWidth]),
    );
    await page.getByRole("gridcell", { name: "⟨U+202E⟩evil", exact: true }).first().waitFor();
    expect(await page.locator("main").textContent()).not.toContain("\u202E");
    await project(server, "rogue", {});
    await server.append([probe(1, "\u202Elive", { do: "fail" })]);
    await page.goto(`${server.url}/p/rogue/parked`);
    await shows(page, "⟨U+202E⟩live");
    expect(await page.locator("main").textContent()).not.toContain("\u202E");
    expect(errors).toEqual([]);
  });

  test("filtered rows with chosen columns come over the feed, and times are in the chosen zone", async () => {
    const server = (running.server = await Server.start());
    await withOrders(server, 400);
    const where = "where=orders%20%3E%3D%2010&cols=product,orders";
    const { page, errors } = await open(running.browser, `${server.url}/t/revenue/by_product?${where}`, { timezoneId: "Asia/Kolkata" });
    const requests: string[] = [];
    page.on("request", (request) => requests.push(request.url()));
    const equal = async (): Promise<number> => {
      await server.caughtUp("revenue");
      const { rows } = await server.get(`/v1/tables/revenue/by_product?${where}&limit=10000`);
      const wanted = Object.entries<any>(rows).map(([key, row]) => [key, [row.product, String(row.orders)]]);
      await until(
        async () => JSON.stringify([...(await shownRows(page))]) === JSON.stringify(wanted.slice(0, (await shownRows(page)).size)) && (await page.getByRole("grid").getAttribute("aria-rowcount")) === String(wanted.length + 1),
        async () => ({ wanted, shown: [...(await shownRows(page))] }),
      );
      return wanted.length;
    };
    const before = await equal();
    expect(before).toBeGreaterThan(0);
    const [first] = await shownRows(page);
    await page.getByRole("gridcell", { name: first![0], exact: true }).first().click();
    await shows(page, /more fields are left out/);
    await server.append(Array.from({ length: 300 }, (_, n) => event(400 + n)));
    const change = page.getByRole("dialog").locator("time").first();
    await change.waitFor();
    const shown = async (): Promise<[string, string]> => [(await change.getAttribute("datetime"))!, (await change.textContent())!];
    const [utc, text] = await shown();
    expect(text).toBe(utc.slice(11, 19));
    await page.keyboard.press("Escape");
    expect(await equal()).toBeGreaterThan(before);
    await page.getByRole("button", { name: "Theme and time zone" }).click();
    await page.getByLabel("this browser's zone").check();
    await page.keyboard.press("Escape");
    await page.getByRole("gridcell", { name: first![0], exact: true }).first().click();
    await shows(page, /times in Asia/);
    const [moment, local] = await shown();
    expect(local).toBe(new Date(moment).toLocaleTimeString("en-GB", { timeZone: "Asia/Kolkata" }));
    // No request asked for the rows.
    expect(requests.filter((url) => url.includes("/v1/tables/"))).toEqual([]);
    expect(errors).toEqual([]);
  });

  test("a version is uploaded by a drop, activated and rolled back, and a projection is paused and deleted", async () => {
    const server = (running.server = await Server.start());
    await server.append(Array.from({ length: 100 }, (_, n) => event(n)));
    const { page, errors } = await open(running.browser, server.url);
    await shows(page, "No projection yet");
    await drop(page, join(mkdtempSync(join(tmpdir(), "lantern-web-")), "broken.wasm"), Buffer.from("not a component"));
    await shows(page, /LAN-\d{4}/);
    await accessible(page, "upload-refused");
    await drop(page, "notes.txt", Buffer.from("notes"));
    await shows(page, "Choose a file that ends with .wasm, .py, .js, .mjs, .ts, .yaml, .yml, .json.");
    await drop(page, "revenue.wasm", readFileSync(plugin("revenue")));
    await shows(page, "The check passed");
    await accessible(page, "upload-checked");
    await page.getByRole("button", { name: "Upload and start" }).click();
    await page.waitForURL(/\/t\/revenue\//);
    await page.locator(".status", { hasText: "live" }).waitFor();
    // The second version is not activated by itself.
    await page.goto(`${server.url}/p/revenue`);
    await drop(page, "revenue.wasm", readFileSync(changed("revenue", 2)));
    await shows(page, "A new version of revenue");
    await page.getByLabel("Activate it when it has caught up").uncheck();
    await page.getByRole("button", { name: "Upload and start" }).click();
    await shows(page, "Versions (2)");
    const states = async (): Promise<string[]> => (await page.locator(".versions .badge").allTextContents()).map((text) => text.replace(/^\W+/, ""));
    const become = (wanted: string[]): Promise<unknown> =>
      until(
        async () => JSON.stringify(await states()) === JSON.stringify(wanted),
        () => states(),
      );
    await become(["ready", "active"]);
    await accessible(page, "projection");
    await page.getByRole("button", { name: "Activate", exact: true }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Activate" }).click();
    await become(["active", "retired"]);
    await page.getByRole("button", { name: "Roll back" }).click();
    await accessible(page, "dialog");
    await page.getByRole("dialog").getByRole("button", { name: "Roll back" }).click();
    await until(
      async () => (await states())[1] === "active",
      () => states(),
    );
    await page.getByRole("button", { name: "Pause" }).click();
    await shows(page, "paused");
    await page.getByRole("button", { name: "Resume" }).click();
    await shows(page, "up to date");
    await page.getByRole("link", { name: "Logs" }).click();
    await shows(page, "No messages yet");
    await page.getByRole("button", { name: "Delete projection" }).click();
    const confirm = page.getByRole("dialog").getByRole("button", { name: "Delete projection" });
    expect(await confirm.isDisabled()).toBe(true);
    await page.getByRole("dialog").getByText(/2 tables/).waitFor();
    await page.getByRole("dialog").getByRole("textbox").fill("revenue");
    await confirm.click();
    await shows(page, "No projection yet");
    expect(errors).toEqual([]);
  });

  test("parked events are retried one by one, by reason and all, and dropped", async () => {
    const server = (running.server = await Server.start());
    await project(server, "rogue", {});
    const needs = Array.from({ length: 5 }, (_, n) => probe(n, `s${n}`, { do: "need", text: `text ${n}` }));
    await server.append([...needs, probe(8, "f", { do: "fail" }), probe(9, "g", { do: "fail" })]);
    const { page, errors } = await open(running.browser, `${server.url}/p/rogue/parked`);
    await shows(page, "7 failed");
    await accessible(page, "parked");
    // Still not possible: the event stays, and the page shows it.
    await page.getByRole("button", { name: "Retry this one" }).first().click();
    await shows(page, "1 event failed again");
    await server.append([probe(10, "needed", {})]);
    await server.caughtUp("rogue");
    await page.getByRole("button", { name: "Retry this one" }).first().click();
    await shows(page, "6 failed");
    await page.getByRole("button", { name: "Retry these 4" }).click();
    await shows(page, "2 failed");
    await page.getByRole("link", { name: /Parked/ }).first().click();
    await page.getByRole("button", { name: "Drop all 2" }).click();
    await page.getByRole("dialog").getByText("Deletes 2 parked events permanently").waitFor();
    await page.getByRole("button", { name: "Drop 2 events" }).click();
    await shows(page, "No event is parked");
    expect((await server.rows("rogue/seen")).size).toBe(6);
    expect(errors).toEqual([]);
  });

  test("charts have the values of the server's roll-ups, and events appear as they are appended", async () => {
    const server = (running.server = await Server.start());
    await withOrders(server, 600);
    const { page, errors } = await open(running.browser, `${server.url}/t/revenue/by_minute?view=chart`);
    await page.locator(".plot canvas").waitFor();
    await page.getByLabel("in buckets of").selectOption("5m");
    await page.getByText("The values as a table").click();
    const answer = await server.get("/v1/tables/revenue/by_minute?bucket=5m&agg=sum(orders)");
    const sums = answer.rows.map((row: any) => String(row.sum_orders)).reverse();
    let cells: string[] = [];
    await until(
      async () => {
        cells = await page.locator("table.plain tbody tr td:last-child").allTextContents();
        return JSON.stringify(cells) === JSON.stringify(sums);
      },
      () => ({ cells, sums }),
    );
    await accessible(page, "chart");
    await page.goto(`${server.url}/t/revenue/by_product?view=chart`);
    await page.locator(".bars .name").first().waitFor();
    const top = await server.get("/v1/tables/revenue/by_product?by=product&agg=sum(orders)&order=-sum_orders&limit=30");
    expect(await page.locator(".bars .number").allTextContents()).toEqual(top.rows.map((row: any) => String(row.sum_orders)));
    await accessible(page, "bars");
    await page.goto(`${server.url}/events?types=order.*`);
    await page.locator("td", { hasText: "order.placed" }).first().waitFor();
    await server.append([event(600)]);
    await page.getByRole("button", { name: "600", exact: true }).click();
    await page.getByRole("dialog", { name: "Event 0:600" }).getByText('"type": "order.placed"').waitFor();
    await accessible(page, "event");
    await page.keyboard.press("Escape");
    await page.goto(`${server.url}/server`);
    await shows(page, "sessions of the feed");
    await page.getByRole("link", { name: "Metrics", exact: true }).click();
    await page.getByLabel("contains").fill("lantern_build_info");
    await shows(page, "lantern_build_info");
    await accessible(page, "server");
    expect(errors).toEqual([]);
  });

  test("any of 30,000 rows is reached by keys and by scrolling, while few of them exist as elements", async () => {
    const server = (running.server = await Server.start());
    await project(server, "rogue", { fixed: true });
    const name = (n: number): string => `row-${String(n).padStart(5, "0")}`;
    await server.append(Array.from({ length: 30_000 }, (_, n) => probe(n, name(n), { text: `text ${n}` })));
    await server.caughtUp("rogue");
    const { page, errors } = await open(running.browser, `${server.url}/t/rogue/seen`);
    await page.getByRole("gridcell", { name: name(0), exact: true }).waitFor();
    const grid = page.getByRole("grid");
    expect(await grid.getAttribute("aria-rowcount")).toBe("30001");
    await grid.focus();
    await page.keyboard.press("End");
    await page.getByRole("gridcell", { name: name(29_999), exact: true }).waitFor();
    await page.keyboard.press("Home");
    await page.getByRole("gridcell", { name: name(0), exact: true }).waitFor();
    const frames = await grid.evaluate(async (element) => {
      const times: number[] = [];
      for (let step = 1; step <= 100; step += 1) {
        element.scrollTop = (element.scrollHeight * step) / 200;
        times.push(await new Promise((resolve) => requestAnimationFrame(resolve)));
      }
      return times.slice(1).map((time, at) => time - times[at]!);
    });
    frames.sort((a, b) => a - b);
    console.log(`scrolling 30,000 rows: ${frames[50]!.toFixed(1)} ms a frame (median), ${frames[94]!.toFixed(1)} ms (p95)`);
    await page.getByRole("gridcell", { name: /row-150/ }).first().waitFor();
    expect(await page.locator(".grid .line").count()).toBeLessThan(60);
    // A prefix selects rows, and they stay live.
    await page.getByLabel("key begins with").fill("row-2999");
    await page.keyboard.press("Enter");
    await until(
      async () => (await grid.getAttribute("aria-rowcount")) === "11",
      () => grid.getAttribute("aria-rowcount"),
    );
    await server.append([probe(40_000, name(29_990), { text: "written again" })]);
    await shows(page, "written again");
    expect(errors).toEqual([]);
  });

  test("a table that is too large for the feed is requested instead, and this is shown", async () => {
    const server = (running.server = await Server.start("live.snapshot_rows_max=10"));
    await withOrders(server, 400);
    const { page, errors } = await open(running.browser, `${server.url}/t/revenue/by_product`);
    await shows(page, "too many rows for the feed");
    const stored = await storedRows(server, "revenue/by_product");
    await until(
      async () => {
        const shown = await shownRows(page);
        return shown.size > 10 && [...shown].every(([key, cells]) => JSON.stringify(stored.get(key)) === JSON.stringify(cells));
      },
      async () => ({ stored: [...stored], shown: [...(await shownRows(page))] }),
    );
    expect(errors).toEqual([]);
  });

  test.skipIf(!existsSync(join(INTERPRETERS, "declare.wasm")))("a declaration is uploaded by a drop, after its mistake was named", async () => {
    const server = (running.server = await Server.start(`plugin.interpreters_dir=${INTERPRETERS}`));
    await server.append(Array.from({ length: 100 }, (_, n) => event(n)));
    const { page, errors } = await open(running.browser, server.url);
    await shows(page, "No projection yet");
    const text = "name: by-type\nfrom: order.placed\ntables:\n  totals:\n    key: { type: type }\n    columns:\n      orders: COUNT\n";
    await drop(page, "by-type.yaml", Buffer.from(text.replace("COUNT", "cout()")));
    // The first time, the server compiles the interpreter.
    await page.getByText(/cout/).first().waitFor({ timeout: 250_000 });
    await drop(page, "by-type.yaml", Buffer.from(text.replace("COUNT", "count()")));
    await shows(page, "The check passed");
    expect(await page.getByRole("textbox", { name: "Projection" }).inputValue()).toBe("by-type");
    await page.getByRole("button", { name: "Upload and start" }).click();
    await page.waitForURL(/\/t\/by-type\/totals/);
    await page.getByRole("gridcell", { name: "100", exact: true }).waitFor();
    expect(errors).toEqual([]);
  });

  test.skipIf(!existsSync(join(INTERPRETERS, "declare.wasm")))("a declaration is written in a form, refused at a field, corrected, and fills its table", async () => {
    const server = (running.server = await Server.start(`plugin.interpreters_dir=${INTERPRETERS}`));
    await server.append(Array.from({ length: 100 }, (_, n) => event(n)));
    const { page, errors } = await open(running.browser, `${server.url}/upload`);
    await page.getByRole("link", { name: "From a form" }).click();
    await shows(page, "Give the projection a name");
    await accessible(page, "form-empty");
    await page.getByLabel("Projection", { exact: true }).fill("by-product");
    await page.getByLabel("Types, with commas").fill("order.placed");
    await shows(page, /The newest events have: .*data\.product/);
    await page.getByLabel("Table", { exact: true }).fill("products");
    await page.getByLabel("One row for each").fill("data.product");
    await page.getByRole("button", { name: "Add a column" }).click();
    const second = page.getByRole("group", { name: "Column 2" });
    await second.getByLabel("Column", { exact: true }).fill("cents");
    await second.getByLabel("of", { exact: true }).fill("lenght(data.product)");
    // The first time, the server compiles the interpreter.
    const refused = page.getByText("Refused at line 9, column 18");
    await refused.waitFor({ timeout: 250_000 });
    const field = second.getByLabel("of", { exact: true });
    expect(await field.getAttribute("aria-invalid")).toBe("true");
    expect(await page.locator(`#${await field.getAttribute("aria-describedby")}`).textContent()).toContain("did you mean `length`?");
    expect(await page.locator(".yaml .wrong mark").textContent()).toBe("lenght(data.product))");
    await accessible(page, "form-refused");
    await fitsPhone(page, "form");
    // A page that is loaded again has the same form.
    await page.reload();
    await field.fill("data.cents");
    await shows(page, "The server accepts it");
    expect(await page.locator("[aria-invalid=true]").count()).toBe(0);
    await accessible(page, "form");
    await page.getByRole("button", { name: "Upload and start" }).click();
    await page.waitForURL(/\/t\/by-product\/products/);
    await page.locator(".status", { hasText: "live" }).waitFor();
    await server.caughtUp("by-product");
    const stored = await storedRows(server, "by-product/products");
    await until(
      async () => JSON.stringify([...(await shownRows(page))].slice(0, 5)) === JSON.stringify([...stored].slice(0, 5)) && stored.size > 0,
      async () => ({ stored: [...stored], shown: [...(await shownRows(page))] }),
    );
    expect(errors).toEqual([]);
  });

  test("no screen is wider than a phone, in light and in dark", async () => {
    const server = (running.server = await Server.start());
    await server.push(plugin("revenue"));
    await project(server, "a-projection-with-a-very-long-name-that-does-not-fit-a-phone", {});
    await server.append([...Array.from({ length: 50 }, (_, n) => event(n)), probe(1, `long${"g".repeat(300)}`, { do: "fail", text: "x".repeat(500) })]);
    const { page, errors } = await open(running.browser, server.url, { viewport: { width: 390, height: 844 } });
    const name = "a-projection-with-a-very-long-name-that-does-not-fit-a-phone";
    const screens = { overview: "/", table: "/t/revenue/by_product", chart: "/t/revenue/by_minute?view=chart", versions: `/p/${name}`, parked: `/p/${name}/parked`, all: "/parked", events: "/events", upload: "/upload", server: "/server", settings: "/server/settings", limits: "/server/limits", clients: "/server/clients", compare: `/p/${name}/compare` };
    for (const [screen, address] of Object.entries(screens)) {
      await page.goto(server.url + address);
      await page.locator("h1").waitFor();
      await page.waitForFunction(() => !document.querySelector("main")!.textContent!.includes("Loading …"));
      await fitsWindow(page, screen);
    }
    expect(errors).toEqual([]);
  });
});
