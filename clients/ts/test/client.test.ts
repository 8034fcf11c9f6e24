// Tests the connection: tickets, waking up, silence, pauses, and readers that come and go.
import { afterEach, describe, expect, test, vi } from "vitest";
import WebSocket from "ws";
import { longPause, pause } from "../src/backoff.js";
import { type Client, connect, type Diagnostic, type Options } from "../src/index.js";
import { parse } from "../src/json.js";
import { show, sleep, until } from "./patience.js";
import { Scripted, type Session } from "./scripted.js";

const clean: (() => unknown)[] = [];
afterEach(() => {
  for (const step of clean.splice(0).reverse()) step();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

const happened: Diagnostic[] = [];

async function start(options: Options = {}): Promise<{ server: Scripted; client: Client }> {
  happened.length = 0;
  const server = await Scripted.start();
  const client = connect(server.url, {
    WebSocket,
    backoffMinMs: 5,
    backoffMaxMs: 20,
    onDiagnostic: (event) => happened.push(event),
    ...options,
  });
  clean.push(() => server.stop());
  clean.push(() => client.close());
  return { server, client };
}

/** Accepts a subscription and sends a snapshot. */
async function serve(session: Session, ch: number, commit: number, rows: object): Promise<{ [member: string]: unknown }> {
  const sub = await session.receive();
  await session.send({ t: "ok", id: sub.id, ch, fields: [], resumed: false });
  await session.send({ t: "snap", ch, epoch: "e", commit, rows, more: false, offsets: { 0: commit }, tok: `t${commit}` });
  return sub;
}

describe("tickets", () => {
  test("a fresh ticket is awaited before every connect, and is sent", async () => {
    const why: string[] = [];
    const { server, client } = await start({
      ticket: async (reason) => {
        why.push(reason);
        await sleep(5);
        return `ticket ${why.length}`;
      },
    });
    client.table("a/b").onChange(() => {});
    let session = await server.session();
    expect(await session.receive()).toEqual({ t: "hello", token: "ticket 1" });
    session.cut();
    session = await server.session();
    expect(await session.receive()).toEqual({ t: "hello", token: "ticket 2" });
    expect(why).toEqual(["first", "lost"]);
  });

  test("a refused ticket is replaced once, and then it is final", async () => {
    const why: string[] = [];
    const { server, client } = await start({
      ticket: (reason) => {
        why.push(reason);
        return "old";
      },
    });
    const table = client.table("a/b");
    table.onChange(() => {});
    for (let n = 0; n < 2; n += 1) (await server.session()).socket.close(4401, "a new ticket is needed");
    await until(() => table.status === "closed");
    expect(why).toEqual(["first", "refused"]);
    expect(table.error?.code).toBe("refused");
  });

  test("a ticket that fails is tried again", async () => {
    let tries = 0;
    const { server, client } = await start({
      ticket: async () => {
        tries += 1;
        if (tries < 3) throw new Error("the login server is down");
        return null;
      },
    });
    client.table("a/b").onChange(() => {});
    expect(await (await server.session()).receive()).toEqual({ t: "hello" });
    expect(tries).toBe(3);
  });
});

describe("readers", () => {
  test("nothing is opened without a reader, and a second mount keeps the subscription", async () => {
    const { server, client } = await start({ idleMs: 50 });
    const table = client.table("a/b");
    expect(client.table("a/b")).toBe(table);
    expect(client.table("a/b", { rate_ms: 10 })).not.toBe(table);
    await sleep(30);
    expect(server.connections).toBe(0);
    // React's StrictMode does the same.
    table.subscribe(() => {})();
    const stop = table.subscribe(() => {});
    const session = await server.welcomed();
    await serve(session, 1, 1, { x: { n: 1 } });
    await until(() => table.status === "live");
    stop();
    const again = table.subscribe(() => {});
    await sleep(100);
    expect(table.status).toBe("live");
    again();
    await until(() => table.status === "idle");
    expect(await session.receive()).toEqual({ t: "unsub", id: 1 });
    await until(() => session.socket.readyState === WebSocket.CLOSED);
    expect(server.connections).toBe(1);
    // A reader that subscribes later continues from the rows.
    table.subscribe(() => {});
    expect(table.status).toBe("stale");
    const next = await server.welcomed();
    expect(await next.receive()).toMatchObject({ t: "sub", resume: "t1" });
  });

  test("a state stays the same object until a change, and never changes", async () => {
    const { server, client } = await start();
    const table = client.table<"a/b">("a/b");
    table.onChange(() => {});
    const session = await server.welcomed();
    await serve(session, 1, 1, { x: { n: 1 } });
    await until(() => table.status === "live");
    const before = table.state;
    expect(table.state).toBe(before);
    await session.send({ t: "delta", ch: 1, from: 1, to: 2, up: { x: { n: 2 }, y: {} }, del: [], offsets: { 0: 2 }, tok: "t2" });
    await until(() => table.commit === 2);
    expect([before.commit, show(before.rows)]).toEqual([1, '[["x",{"n":1}]]']);
    expect([table.state.commit, show(table.state.rows)]).toEqual([2, '[["x",{"n":2}],["y",{}]]']);
  });

  test("an error of a reader is not the client's", async () => {
    const { server, client } = await start();
    const thrown: unknown[] = [];
    vi.stubGlobal("queueMicrotask", (task: () => void) => {
      try {
        task();
      } catch (error) {
        thrown.push(error);
      }
    });
    const table = client.table("a/b");
    table.onChange(() => {
      throw new Error("of the reader");
    });
    await serve(await server.welcomed(), 1, 1, {});
    await until(() => table.status === "live");
    expect(String(thrown[0])).toContain("of the reader");
    expect(server.connections).toBe(1);
  });

  test("waiting ends with a signal, and iterators end with the client", async () => {
    const { client } = await start();
    const table = client.table("a/b");
    const stop = new AbortController();
    const waiting = table.ready({ signal: stop.signal });
    stop.abort(new Error("enough"));
    await expect(waiting).rejects.toThrow("enough");
    const types: string[] = [];
    const read = (async () => {
      for await (const change of table) types.push(change.type);
    })();
    await sleep(10);
    client.close();
    await read;
    expect(types.at(-1)).toBe("status");
    await expect(table.ready()).rejects.toMatchObject({ code: "closed" });
  });

  test("without a WebSocket the table is closed with a reason that helps", async () => {
    vi.stubGlobal("WebSocket", undefined);
    const table = connect("ws://127.0.0.1:1/v1/feed").table("a/b");
    await expect(table.ready()).rejects.toMatchObject({ code: "no_websocket" });
    expect(table.error?.message).toContain("`ws`");
  });
});

test("what was received is acknowledged at a ping, also if the window is far from full", async () => {
  const { server, client } = await start();
  client.table("a/b").onChange(() => {});
  const session = await server.welcomed();
  await serve(session, 1, 1, {});
  expect(session.acked).toBe(0);
  await session.send({ t: "ping" });
  expect(await session.receive()).toEqual({ t: "pong" });
  expect(session.acked).toBe(1);
});

describe("lost connections", () => {
  test("a silent connection is given up", async () => {
    const { server, client } = await start();
    client.table("a/b").onChange(() => {});
    await serve(await server.welcomed(), 1, 1, {});
    await until(() => client.status === "live");
    const now = Date.now();
    // The clock advances in small steps, so that it does not seem to jump.
    let passed = 0;
    vi.spyOn(Date, "now").mockImplementation(() => now + (passed += 9_000));
    await server.session();
    expect(happened).toContainEqual(expect.objectContaining({ what: "lost", message: expect.stringContaining("nothing for too long") }));
  });

  test("a client that waits does not wait longer after the clock has jumped", async () => {
    const { server, client } = await start({ backoffMinMs: 1e9, backoffMaxMs: 1e9 });
    client.table("a/b").onChange(() => {});
    (await server.welcomed()).cut();
    await until(() => happened.some(({ what }) => what === "retry"));
    expect(server.connections).toBe(1);
    const now = Date.now();
    vi.spyOn(Date, "now").mockImplementation(() => now + 3_600_000);
    await server.session();
    expect(happened.some(({ what }) => what === "wake")).toBe(true);
  }, 20_000);

  test.each(["online", "visibilitychange"])("a client that waits does not wait longer after `%s`", async (event) => {
    const [window, document] = [new EventTarget(), Object.assign(new EventTarget(), { visibilityState: "visible" })];
    vi.stubGlobal("addEventListener", window.addEventListener.bind(window));
    vi.stubGlobal("removeEventListener", window.removeEventListener.bind(window));
    vi.stubGlobal("document", document);
    const { server, client } = await start({ backoffMinMs: 1e9, backoffMaxMs: 1e9 });
    client.table("a/b").onChange(() => {});
    (await server.welcomed()).cut();
    await until(() => happened.some(({ what }) => what === "retry"));
    document.visibilityState = "hidden";
    document.dispatchEvent(new Event("visibilitychange"));
    await sleep(30);
    expect(server.connections).toBe(1);
    document.visibilityState = "visible";
    (event === "online" ? window : document).dispatchEvent(new Event(event));
    await server.welcomed();
  });

  test("pauses are random, grow with failures, and have an end", () => {
    const bounds = { minMs: 100, maxMs: 3_000 };
    for (let failures = 0; failures < 40; failures += 1) {
      const most = Math.min(3_000, 100 * 2 ** failures);
      const pauses = Array.from({ length: 200 }, () => pause(bounds, failures));
      expect(Math.max(...pauses)).toBeLessThanOrEqual(most);
      expect(Math.max(...pauses)).toBeGreaterThan(most / 2);
      expect(Math.min(...pauses)).toBeLessThan(most / 4);
    }
    expect(longPause(bounds)).toBeGreaterThanOrEqual(1_500);
  });
});

describe("integers", () => {
  test.each([
    ['{"a":9007199254740993}', 9007199254740993n],
    ['{"a":-9223372036854775808}', -9223372036854775808n],
    ['{"a":9007199254740991}', 9007199254740991],
    ['{"b":12345678901234567,"a":0.12345678901234567}', 0.12345678901234567],
    ['{"b":12345678901234567,"a":1.5e10}', 1.5e10],
    ['{"b":[12345678901234567],"a":": 12345678901234567 \\" 12345678901234567"}', ': 12345678901234567 " 12345678901234567'],
    ['{"a": [ 12345678901234567, 1]}', [12345678901234567n, 1]],
  ])("%s keeps every digit", (text, a) => expect((parse(text) as { a: unknown }).a).toEqual(a));
});
