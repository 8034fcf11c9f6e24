// What was done with an event, in Chromium, over a real server.
import { describe, expect, test } from "vitest";
import { accessible, fitsPhone, open, probe, project, Server, setUp, shows, skipped, withOrders } from "./page.js";

describe.skipIf(skipped)("events", () => {
  const running = setUp();

  test("an event shows what each version has done with it, and its rows before and after", async () => {
    const server = (running.server = await Server.start());
    await project(server, "rogue", {});
    await withOrders(server, 50);
    await server.append([probe(1, "good", { text: "one" }), probe(2, "good", { text: "<b>two</b>" }), probe(3, "bad", { do: "fail" })]);
    await server.caughtUp("rogue");
    const { page, errors } = await open(running.browser, `${server.url}/events`);
    await page.getByRole("button", { name: "51", exact: true }).click();
    await page.waitForURL(/event=0%3A51|event=0:51/);
    const sheet = page.getByRole("dialog", { name: "Event 0:51" });
    const step = (name: string) => sheet.getByRole("listitem").filter({ has: page.getByRole("link", { name, exact: true }) });
    await step("rogue").locator(".badge", { hasText: "applied" }).waitFor();
    await step("revenue").locator(".badge", { hasText: "skipped" }).waitFor();
    await step("revenue").getByText("the version does not subscribe to `probe.sent`").waitFor();
    await step("rogue").getByRole("button", { name: "Show the rows that it changed" }).click();
    const changedRow = step("rogue").getByRole("region", { name: "seen, row good" });
    await changedRow.waitFor();
    expect(await changedRow.locator("del", { hasText: "one" }).count()).toBe(1);
    expect(await changedRow.locator("ins", { hasText: "<b>two</b>" }).count()).toBe(1);
    await accessible(page, "event-path");
    // A page that is loaded again shows the same, also on a phone.
    await page.reload();
    await changedRow.waitFor();
    await fitsPhone(page, "event-path");
    await page.keyboard.press("Escape");
    await sheet.waitFor({ state: "detached" });
    expect(page.url()).not.toContain("event=");
    await page.goBack();
    await changedRow.waitFor();
    // A parked event leads to its repair.
    await page.goto(`${server.url}/events?event=0:52`);
    const parked = page.getByRole("dialog", { name: "Event 0:52" });
    await parked.locator(".badge", { hasText: "parked" }).waitFor();
    await accessible(page, "event-parked");
    await parked.getByRole("link", { name: "Repair it in the list of parked events" }).click();
    await page.waitForURL(/\/p\/rogue\/parked$/);
    await page.getByRole("link", { name: "0:52" }).first().click();
    await parked.waitFor();
    await page.goto(`${server.url}/events?event=0:999`);
    await shows(page, "LAN-0442");
    expect(errors).toEqual([]);
  });
});
