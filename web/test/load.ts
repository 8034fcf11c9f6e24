// Measures the page under load in Chromium, over a real server: the time until a cell shows an
// event, the frames while a large table scrolls, many charts, and the memory of a tab.
import type { Browser, CDPSession, Page } from "playwright-core";
import { sleep, until } from "../../clients/ts/test/patience.js";
import { plugin, Server } from "../../clients/ts/test/server.js";
import { open, put } from "./browser.js";

/** An order as a line of NDJSON. Its event time is within one hour, so that the table of minutes stays small. */
function order(id: string, product: string, n: number): string {
  const time = new Date(Date.UTC(2026, 0, 1) + (n % 3600) * 1000).toISOString();
  return JSON.stringify({ specversion: "1.0", id, source: "load", type: "order.placed", time, data: { product, quantity: 1, cents: n % 5000 } });
}

/** The value below which a share of the values is. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

/** The clock of the page and of this process, in milliseconds since 1970 with a fraction. */
const clock = (): number => performance.timeOrigin + performance.now();

/** Calls `step` every `everyMs`, one call after another, until it is stopped. Calls that are late are made up for. */
function regularly(everyMs: number, step: (n: number) => Promise<void>): () => Promise<void> {
  let stopped = false;
  const done = (async () => {
    const began = clock();
    for (let n = 0; !stopped; n += 1) {
      await step(n);
      const wait = began + (n + 1) * everyMs - clock();
      if (wait > 0) await sleep(wait);
    }
  })();
  return () => {
    stopped = true;
    return done;
  };
}

async function revenue(): Promise<Server> {
  const server = await Server.start();
  await server.push(plugin("revenue"));
  return server;
}

export interface Latency {
  /** Events per second that were acknowledged. */
  readonly rate: number;
  /** How many requests were measured, and in how many steps the cell showed their events. */
  readonly requests: number;
  readonly shown: number;
  /** Milliseconds from the acknowledgement to the start of the first frame after the cell has changed. */
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
  /** The same up to the frame in which the cell changes. */
  readonly changedP50: number;
  readonly changedP99: number;
  /** The same up to a WebSocket client in the same browser that shows nothing: what the page cannot be faster than. */
  readonly clientP50: number;
  readonly clientP99: number;
}

const BATCHES_PER_S = 100;
const WATCHED = "a-watched";

/** Subscribes to the watched row in a tab that shows nothing, and notes when each of its values arrives. */
async function listen(browser: Browser, server: Server): Promise<Page> {
  const { page } = await open(browser, `${server.url}/`);
  await page.evaluate(
    ({ url, product }) => {
      const arrived: [number, number][] = [];
      Object.assign(globalThis, { arrived });
      const socket = new WebSocket(url, ["lantern.v1.json"]);
      let frames = 0;
      const send = (message: object): void => socket.send(JSON.stringify(message));
      socket.onopen = () => send({ t: "hello" });
      socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if (message.t === "welcome") send({ t: "sub", id: 1, table: "revenue/by_product", where: [["product", "=", product]], rate_ms: 10 });
        if (message.t === "ping") send({ t: "pong" });
        if (!["snap", "delta", "tick"].includes(message.t)) return;
        send({ t: "ack", n: (frames += 1) });
        const row = (message.rows ?? message.up)?.[product];
        if (row) arrived.push([row.orders, performance.timeOrigin + performance.now()]);
      };
    },
    { url: server.feed, product: WATCHED },
  );
  await until(() => page.evaluate(() => (globalThis as any).arrived.length > 0));
  return page;
}

/** From the acknowledgement of an event to the cell that shows it. */
export async function latency(browser: Browser, { rate = 1000, seconds = 20, warmUp = 3 } = {}): Promise<Latency> {
  const server = await revenue();
  try {
    await server.append([order("first", WATCHED, 0)]);
    const { page } = await open(browser, `${server.url}/t/revenue/by_product`);
    const row = page.getByRole("row", { name: WATCHED });
    await row.waitFor();
    await row.evaluate((element) => {
      const seen: [number, number, number][] = [];
      Object.assign(globalThis, { seen });
      const cell = element.children[2]!;
      const clock = (): number => performance.timeOrigin + performance.now();
      new MutationObserver(() => {
        const value = Number(cell.textContent!.replaceAll(",", ""));
        const changed = clock();
        // The frame in which the cell changes is painted before the next one starts.
        requestAnimationFrame(() => seen.push([value, changed, clock()]));
      }).observe(cell, { characterData: true, childList: true, subtree: true });
    });
    const client = await listen(browser, server);
    // A tab in the background has fewer frames.
    await page.bringToFront();
    const acknowledged: number[] = [];
    const size = Math.round(rate / BATCHES_PER_S);
    const began = clock();
    const stop = regularly(1000 / BATCHES_PER_S, async (n) => {
      const lines = Array.from({ length: size }, (_, at) => order(`${n}-${at}`, at === size - 1 ? WATCHED : `p${(n * size + at) % 200}`, n));
      await server.append(lines);
      acknowledged.push(clock());
    });
    await sleep((seconds + warmUp) * 1000);
    await stop();
    const actual = (acknowledged.length * size) / ((clock() - began) / 1000);
    const read = (): Promise<[number, number, number][]> => page.evaluate(() => (globalThis as any).seen);
    await until(async () => ((await read()).at(-1)?.[0] ?? 0) >= acknowledged.length + 1);
    const seen = await read();
    const arrived: [number, number][] = await client.evaluate(() => (globalThis as any).arrived);
    await page.context().close();
    await client.context().close();
    const [frames, changes, arrivals]: [number[], number[], number[]] = [[], [], []];
    let at = 0;
    let came = 0;
    acknowledged.forEach((time, n) => {
      // The first event counts as well.
      while (seen[at]![0] < n + 2) at += 1;
      while (arrived[came]![0] < n + 2) came += 1;
      if (time - began < warmUp * 1000) return;
      changes.push(Math.max(0, seen[at]![1] - time));
      frames.push(Math.max(0, seen[at]![2] - time));
      arrivals.push(Math.max(0, arrived[came]![1] - time));
    });
    const of = (values: readonly number[]): [number, number] => [percentile(values, 0.5), percentile(values, 0.99)];
    const [[p50, p99], [changedP50, changedP99], [clientP50, clientP99]] = [of(frames), of(changes), of(arrivals)];
    return { rate: actual, requests: frames.length, shown: seen.length, p50, p99, max: Math.max(...frames), changedP50, changedP99, clientP50, clientP99 };
  } finally {
    await server.stop();
  }
}

export interface Frames {
  readonly frames: number;
  /** Milliseconds. */
  readonly median: number;
  readonly p95: number;
}

/** The times between animation frames of a page while something happens. */
async function framesOf(page: Page, during: () => Promise<void>): Promise<Frames> {
  await page.evaluate(() => {
    const times: number[] = [];
    Object.assign(globalThis, { frameTimes: times, framesEnd: false });
    const next = (time: number): void => {
      times.push(time);
      if (!(globalThis as any).framesEnd) requestAnimationFrame(next);
    };
    requestAnimationFrame(next);
  });
  await during();
  const times: number[] = await page.evaluate(() => {
    (globalThis as any).framesEnd = true;
    return (globalThis as any).frameTimes;
  });
  const between = times.slice(1).map((time, at) => time - times[at]!);
  return { frames: between.length, median: percentile(between, 0.5), p95: percentile(between, 0.95) };
}

export interface Scrolled {
  readonly rows: number;
  /** Seconds until the table shows that it has all rows. */
  readonly loadS: number;
  readonly wheel: Frames;
  readonly keys: Frames;
  /** The number of the row at the end of each. */
  readonly wheelRow: number;
  readonly keysRow: number;
  /** Memory of the page after it has loaded all rows, in bytes. */
  readonly heapBytes: number;
}

const PIECE = 20_000;
const productName = (n: number): string => `p${String(n).padStart(7, "0")}`;

/** A table with many rows, which change while it is scrolled by wheel and by keys. */
export async function scroll(browser: Browser, { rows = 1_000_000, seconds = 10, changesPerS = 100 } = {}): Promise<Scrolled> {
  const server = await revenue();
  try {
    for (let from = 0; from < rows; from += PIECE) {
      await server.append(Array.from({ length: Math.min(PIECE, rows - from) }, (_, at) => order(`${from + at}`, productName(from + at), from + at)));
    }
    await server.caughtUp("revenue");
    const { page } = await open(browser, `${server.url}/t/revenue/by_product`);
    const began = clock();
    const grid = page.getByRole("grid");
    await until(
      async () => (await grid.getAttribute("aria-rowcount").catch(() => "")) === String(rows + 1),
      () => page.locator("main").textContent(),
    );
    const loadS = (clock() - began) / 1000;
    const session = await page.context().newCDPSession(page);
    const { heapBytes } = await memory(session);
    const stop = regularly(1000 / 10, async (n) => {
      // Half of the changes are of the first rows.
      const lines = Array.from({ length: changesPerS / 10 }, (_, at) => order(`change-${n}-${at}`, productName(at % 2 === 0 ? (n + at) % 100 : (n * 7919 + at) % rows), n));
      await server.append(lines);
    });
    const box = (await grid.boundingBox())!;
    await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
    const lasting = (step: () => Promise<void>) => async () => {
      for (const end = clock() + seconds * 1000; clock() < end; ) await step();
    };
    const wheel = await framesOf(page, lasting(async () => {
      await page.mouse.wheel(0, 400);
      await sleep(8);
    }));
    const wheelRow = await rightRow(page);
    await grid.focus();
    let presses = 0;
    const keys = await framesOf(page, lasting(async () => {
      presses += 1;
      await page.keyboard.press(presses % 50 === 0 ? "End" : presses % 50 === 25 ? "Home" : presses % 2 === 0 ? "PageDown" : "ArrowDown");
      await sleep(8);
    }));
    await page.keyboard.press("End");
    await sleep(300);
    const keysRow = await rightRow(page);
    await stop();
    await page.context().close();
    return { rows, loadS, wheel, keys, wheelRow, keysRow, heapBytes };
  } finally {
    await server.stop();
  }
}

/** The number of the last shown row. Fails if a shown row is not the one that has this number. */
async function rightRow(page: Page): Promise<number> {
  const lines = await page.locator("[role=grid] .line:not(.head)").evaluateAll((all) => all.map((line) => [Number(line.getAttribute("aria-rowindex")) - 2, line.children[0]!.textContent] as const));
  for (const [index, key] of lines) if (key !== productName(index)) throw new Error(`the row ${index} is shown as ${key}`);
  return lines.at(-1)![0];
}

interface Memory {
  readonly heapBytes: number;
  readonly nodes: number;
  readonly listeners: number;
}

/** The memory that the page uses after its garbage was collected. */
async function memory(session: CDPSession): Promise<Memory> {
  await session.send("Performance.enable");
  // Some objects are released only after what refers to them.
  for (let times = 0; times < 2; times += 1) await session.send("HeapProfiler.collectGarbage");
  const { metrics } = await session.send("Performance.getMetrics");
  const of = (name: string): number => metrics.find((metric) => metric.name === name)?.value ?? Number.NaN;
  return { heapBytes: of("JSHeapUsedSize"), nodes: of("Nodes"), listeners: of("JSEventListeners") };
}

export interface Charts {
  readonly charts: number;
  /** Seconds until every chart is live and drawn. */
  readonly loadS: number;
  readonly connections: number;
  readonly requests: number;
  readonly frames: Frames;
  /** The share of a core that the page uses. */
  readonly cpu: number;
}

/** A board with many charts, all different, which change ten times a second. */
export async function charts(browser: Browser, { charts: number = 100, seconds = 10 } = {}): Promise<Charts> {
  const server = await revenue();
  try {
    await server.append(Array.from({ length: 4000 }, (_, n) => order(`${n}`, `p${n % 40}`, n)));
    await server.caughtUp("revenue");
    const panes = Array.from({ length: number }, (_, n) => ({ kind: "chart", title: `Chart ${n}`, table: "revenue/by_minute", agg: "sum(orders)", time: "minute", bucket: "1m", where: [`cents > ${n}`], width: 3, height: 2 }));
    await put(server, "many", "Many charts", panes);
    const began = clock();
    const { page } = await open(browser, "about:blank");
    let connections = 0;
    let requests = 0;
    page.on("websocket", () => (connections += 1));
    page.on("request", (request) => (requests += /\/v1\/tables\//.test(request.url()) ? 1 : 0));
    await page.goto(`${server.url}/boards/many`);
    const live = page.getByRole("article").filter({ has: page.locator(".badge.good") }).filter({ has: page.locator("canvas") });
    await until(
      async () => (await live.count()) === number,
      async () => [await live.count(), await page.locator(".pane-frame .badge").allTextContents()],
    );
    const loadS = (clock() - began) / 1000;
    const session = await page.context().newCDPSession(page);
    await session.send("Performance.enable");
    const busy = async (): Promise<number> => (await session.send("Performance.getMetrics")).metrics.find(({ name }) => name === "TaskDuration")!.value;
    const stop = regularly(100, async (n) => {
      await server.append(Array.from({ length: 10 }, (_, at) => order(`change-${n}-${at}`, `p${at}`, n * 10 + at)));
    });
    const [before, from] = [await busy(), clock()];
    const frames = await framesOf(page, () => sleep(seconds * 1000));
    const cpu = ((await busy()) - before) / ((clock() - from) / 1000);
    await stop();
    await page.context().close();
    return { charts: number, loadS, connections, requests, frames, cpu };
  } finally {
    await server.stop();
  }
}

export interface Soak {
  readonly minutes: number;
  /** Rows that were changed per second. */
  readonly rate: number;
  readonly first: Memory;
  readonly last: Memory;
  /** The heap at each sample, in bytes. */
  readonly heaps: readonly number[];
  /** By how many bytes a minute the heap grows, from the samples' straight line. */
  readonly growth: number;
}

/** The slope of the straight line through values at equal distances, per step. */
export function slope(values: readonly number[]): number {
  const middle = (values.length - 1) / 2;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, _, at) => sum + (at - middle) ** 2, 0);
  return values.reduce((sum, value, at) => sum + (at - middle) * (value - mean), 0) / squares;
}

/** A tab with a board of rows, a chart, bars and a number, which takes changes for a long time. */
export async function soak(browser: Browser, { minutes = 1, rate = 100, warmUp = 15, samples = 20 } = {}, told: (text: string) => void = () => {}): Promise<Soak> {
  const server = await revenue();
  try {
    await put(server, "day", "All day", [
      { kind: "number", title: "Orders", table: "revenue/by_product", agg: "sum(orders)", width: 3, height: 2 },
      { kind: "chart", title: "Orders by minute", table: "revenue/by_minute", agg: "sum(orders)", time: "minute", width: 6, height: 2 },
      { kind: "chart", title: "Products", table: "revenue/by_product", agg: "sum(cents)", by: "product", width: 3, height: 2 },
      { kind: "table", title: "Rows", table: "revenue/by_product", limit: 500, width: 12, height: 4 },
    ]);
    let changes = 0;
    const stop = regularly(100, async (n) => {
      await server.append(Array.from({ length: rate / 10 }, (_, at) => order(`${n}-${at}`, `p${(n * 10 + at) % 200}`, n * 10 + at)));
      changes += rate / 10;
    });
    const { page, errors } = await open(browser, `${server.url}/boards/day?kiosk=1`);
    await page.locator("canvas").waitFor();
    await sleep(warmUp * 1000);
    const session = await page.context().newCDPSession(page);
    const first = await memory(session);
    const heaps = [first.heapBytes];
    const [began, before] = [clock(), changes];
    let last = first;
    for (let sample = 1; sample <= samples; sample += 1) {
      await sleep(Math.max(0, began + (sample * minutes * 60_000) / samples - clock()));
      last = await memory(session);
      heaps.push(last.heapBytes);
      told(`${((sample * minutes) / samples).toFixed(1)} min: heap ${(last.heapBytes / 2 ** 20).toFixed(2)} MiB, ${last.nodes} nodes, ${last.listeners} listeners`);
    }
    const actual = (changes - before) / ((clock() - began) / 1000);
    await stop();
    // The page has followed until the end.
    const { rows } = await server.get("/v1/tables/revenue/by_product?agg=sum(orders)%20as%20n");
    const figure = page.locator(".figure");
    await until(
      async () => (await figure.textContent())!.trim() === rows[0].n.toLocaleString("en"),
      () => figure.textContent(),
    );
    if (errors.length > 0) throw new Error(errors.join("\n"));
    await page.context().close();
    return { minutes, rate: actual, first, last, heaps, growth: (slope(heaps) * samples) / minutes };
  } finally {
    await server.stop();
  }
}
