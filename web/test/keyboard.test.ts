// The main path by keyboard alone: no mouse event, and no element is focused by a script.
import type { Locator, Page } from "playwright-core";
import { describe, expect, test } from "vitest";
import { event, open, plugin, probe, project, Server, setUp, shownRows, shows, skipped, until } from "./page.js";

/** The most presses of Tab to reach a control. */
const TABS_MAX = 120;

/** Whether the focused element shows that it is focused, and a text that names it. */
function focused(page: Page): Promise<{ visible: boolean; text: string }> {
  return page.evaluate(() => {
    const element = document.activeElement!;
    const { outlineStyle, outlineWidth, outlineColor } = getComputedStyle(element);
    const box = element.getBoundingClientRect();
    const seen = box.width > 0 && box.height > 0 && box.bottom > 0 && box.right > 0 && box.top < innerHeight && box.left < innerWidth;
    const visible = element === document.body || (seen && outlineStyle !== "none" && parseFloat(outlineWidth) >= 2 && !/, 0\)$/.test(outlineColor));
    return { visible, text: element.outerHTML.slice(0, 200) };
  });
}

/** Presses Tab until the control is focused. Every control on the way shows its focus, and none keeps it. */
async function tabTo(page: Page, control: Locator): Promise<void> {
  await control.first().waitFor();
  const way: string[] = [];
  for (let presses = 0; presses < TABS_MAX; presses += 1) {
    await page.keyboard.press("Tab");
    const { visible, text } = await focused(page);
    expect(visible, `the focus of ${text} is not visible`).toBe(true);
    if (await control.first().evaluate((element) => element === document.activeElement)) return;
    way.push(text);
  }
  throw new Error(`${control} was not reached:\n${way.slice(-20).join("\n")}`);
}

/** Goes to a control, and presses Enter. */
async function enter(page: Page, control: Locator): Promise<void> {
  await tabTo(page, control);
  await page.keyboard.press("Enter");
}

/** Waits until a control has the focus. */
async function hasFocus(page: Page, control: Locator): Promise<void> {
  let now = "";
  await until(
    async () => {
      now = (await focused(page)).text;
      return control.evaluate((element) => element === document.activeElement);
    },
    () => now,
  );
}

describe.skipIf(skipped)("by keyboard alone", () => {
  const running = setUp();

  test("a plugin is uploaded, its rows are filtered, ordered and opened, a chart is put on a board, and a parked event is repaired", async () => {
    const server = (running.server = await Server.start());
    await server.append(Array.from({ length: 200 }, (_, n) => event(n)));
    const { page, errors } = await open(running.browser, server.url);
    await shows(page, "No projection yet");

    // The first Tab offers to skip the navigation.
    await page.keyboard.press("Tab");
    await hasFocus(page, page.getByRole("link", { name: "Skip to the content" }));

    // Upload.
    const rail = page.getByRole("navigation", { name: "Screens" });
    await enter(page, rail.getByRole("link", { name: "Upload" }));
    await page.waitForURL(/\/upload$/);
    const file = page.locator("input[type=file]");
    await tabTo(page, file);
    const [chooser] = await Promise.all([page.waitForEvent("filechooser"), page.keyboard.press("Space")]);
    await chooser.setFiles(plugin("revenue"));
    await shows(page, "The check passed");
    await enter(page, page.getByRole("button", { name: "Upload and start" }));
    await page.waitForURL(/\/t\/revenue\/by_product$/);
    await page.locator(".status", { hasText: "live" }).waitFor();

    // Filter: the choices are made with the keys of a list.
    await tabTo(page, page.getByLabel("Field"));
    await page.keyboard.type("orders");
    await tabTo(page, page.getByLabel("Operator"));
    await page.keyboard.type(">=");
    await tabTo(page, page.getByLabel("Value"));
    await page.keyboard.type("5");
    await page.keyboard.press("Enter");
    await until(() => new URL(page.url()).searchParams.get("where") === "orders >= 5", () => page.url());

    // Order, the largest first.
    const column = page.getByRole("columnheader", { name: /^cents/ }).getByRole("button");
    await enter(page, column);
    await until(() => new URL(page.url()).searchParams.get("order") === "cents", () => page.url());
    await hasFocus(page, column);
    await page.keyboard.press("Enter");
    await until(() => new URL(page.url()).searchParams.get("order") === "-cents", () => page.url());
    const answer = await server.get("/v1/tables/revenue/by_product?where=orders%20%3E%3D%205&order=-cents&limit=3");
    const keys: string[] = answer.rows.map((row: any) => row.key);
    await until(async () => JSON.stringify([...(await shownRows(page)).keys()].slice(0, 3)) === JSON.stringify(keys), () => shownRows(page));

    // The sheet of a row returns the focus to the table.
    const grid = page.getByRole("grid");
    await page.keyboard.press("Shift+Tab");
    for (let back = 0; back < 10 && !(await grid.evaluate((element) => element === document.activeElement)); back += 1) await page.keyboard.press("Shift+Tab");
    await hasFocus(page, grid);
    expect((await focused(page)).visible).toBe(true);
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    const sheet = page.getByRole("dialog", { name: keys[1]! });
    await sheet.waitFor();
    // Within a dialog Tab stays in it.
    for (let presses = 0; presses < 6; presses += 1) {
      await page.keyboard.press("Tab");
      expect(await page.evaluate(() => document.activeElement === document.body || document.activeElement!.closest("dialog") !== null)).toBe(true);
    }
    await page.keyboard.press("Escape");
    await sheet.waitFor({ state: "detached" });
    await hasFocus(page, grid);

    // The chart, and a new board with it.
    await enter(page, page.getByRole("link", { name: "Chart", exact: true }));
    await page.locator(".bars").waitFor();
    const add = page.getByRole("button", { name: "Add to a board" });
    await enter(page, add);
    const dialog = page.getByRole("dialog", { name: "Add to a board" });
    await tabTo(page, dialog.getByRole("textbox", { name: "Title" }));
    await page.keyboard.type("By keys");
    await page.keyboard.press("Enter");
    await shows(page, "Added to the board by-keys");
    await dialog.waitFor({ state: "detached" });
    await hasFocus(page, add);
    await enter(page, rail.getByRole("link", { name: "Boards" }));
    await enter(page, page.getByRole("main").getByRole("link", { name: "By keys" }));
    await page.waitForURL(/\/boards\/by-keys$/);
    await page.getByRole("article").locator(".bars").waitFor();
    const pane = (await server.get("/v1/boards/by-keys")).panes[0];
    expect([pane.kind, pane.where, pane.by]).toEqual(["chart", ["orders >= 5"], "product"]);
    // The values of a pane are in a dialog.
    const values = page.getByRole("button", { name: "Values", exact: true });
    await enter(page, values);
    await page.getByRole("dialog").waitFor();
    await enter(page, page.getByRole("dialog").getByRole("button", { name: "Close" }));
    await page.getByRole("dialog").waitFor({ state: "detached" });
    await hasFocus(page, values);

    // A parked event is repaired, and another one dropped.
    await project(server, "rogue", {});
    await server.append([probe(1, "s", { do: "need", text: "text" }), probe(2, "f", { do: "fail" })]);
    await enter(page, rail.getByRole("link", { name: /^Parked/ }));
    await page.waitForURL(/\/parked$/);
    await shows(page, "2 failed");
    await enter(page, page.getByRole("main").getByRole("link", { name: "rogue" }));
    await page.waitForURL(/\/p\/rogue\/parked$/);
    await server.append([probe(3, "needed", {})]);
    await server.caughtUp("rogue");
    const one = (subject: string): Locator => page.getByRole("list", { name: "Parked events" }).getByRole("listitem").filter({ has: page.getByRole("heading", { name: `probe.sent ${subject}` }) });
    await enter(page, one("s").getByRole("button", { name: "Retry this one" }));
    await shows(page, "1 event applied");
    await one("s").waitFor({ state: "detached" });
    await enter(page, one("f").getByRole("button", { name: "Drop this one" }));
    const confirm = page.getByRole("dialog");
    await confirm.waitFor();
    await page.keyboard.press("Escape");
    await confirm.waitFor({ state: "detached" });
    const drop = one("f").getByRole("button", { name: "Drop this one" });
    await hasFocus(page, drop);
    await page.keyboard.press("Enter");
    await enter(page, confirm.getByRole("button", { name: /^Drop/ }));
    await one("f").waitFor({ state: "detached" });
    const { parked } = await server.get("/v1/projections/rogue/parked");
    expect(parked).toEqual([]);
    expect(errors).toEqual([]);
  });
});
