// @vitest-environment jsdom
// Tests the adapters for React, Solid and Svelte together with these frameworks.
import { StrictMode } from "react";
import { createRoot, hydrateRoot } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { createEffect, createRoot as createSolidRoot, createSignal } from "solid-js/dist/solid.js";
import { get } from "svelte/store";
import { afterEach, expect, test, vi } from "vitest";
import WebSocket from "ws";
import { type Client, connect } from "../src/index.js";
import { useTable, useTogether } from "../src/react.js";
import { tableStore } from "../src/svelte.js";
import { until } from "./patience.js";
import { Scripted, type Session } from "./scripted.js";

Object.assign(globalThis, { IS_REACT_ACT_ENVIRONMENT: false });

interface Tables {
  "a/b": { n: number };
  "a/c": { n: number };
}

const clean: (() => unknown)[] = [];
afterEach(() => {
  for (const step of clean.splice(0).reverse()) step();
  vi.unstubAllGlobals();
});

async function start(): Promise<{ server: Scripted; client: Client<Tables> }> {
  const server = await Scripted.start();
  const client = connect<Tables>(server.url, { WebSocket });
  clean.push(() => server.stop());
  clean.push(() => client.close());
  return { server, client };
}

async function serve(session: Session, ch: number, query: object = {}): Promise<void> {
  const sub = await session.receive();
  expect(sub).toEqual({ t: "sub", id: sub.id, table: sub.table, ...query });
  await session.send({ t: "ok", id: sub.id, ch, fields: [], resumed: false });
  await session.send({ t: "snap", ch, epoch: "e", commit: 1, rows: { x: { n: 1 } }, more: false, offsets: {}, tok: "t" });
}

const delta = { t: "delta", ch: 1, from: 1, to: 2, up: { x: { n: 2 } }, del: [], offsets: {}, tok: "t" };

test("React shows rows as they change, in StrictMode over one subscription, and after server rendering", async () => {
  const { server, client } = await start();
  function Rows() {
    const { rows, status } = useTable(client.table("a/b"));
    return <p>{`${status} ${rows.get("x")?.n}`}</p>;
  }
  const app = (
    <StrictMode>
      <Rows />
    </StrictMode>
  );
  const html = renderToString(app);
  expect(html).toContain("idle undefined");
  expect(server.connections).toBe(0);
  const element = document.createElement("div");
  element.innerHTML = html;
  const root = hydrateRoot(element, app);
  const session = await server.welcomed();
  await serve(session, 1);
  await until(
    () => element.textContent === "live 1",
    () => element.textContent,
  );
  await session.send(delta);
  await until(() => element.textContent === "live 2");
  root.unmount();
  const next = createRoot(element);
  next.render(app);
  await until(() => element.textContent === "live 2");
  next.unmount();
  expect(server.connections).toBe(1);
});

test("React shows the rows of the query of the last render, with its columns", async () => {
  const { server, client } = await start();
  function Rows({ least }: { least: number }) {
    const { rows, status } = useTable(client.table("a/b", { where: [["n", ">=", least]], cols: ["n"] }));
    return <p>{`${status} ${[...rows.values()].map(({ n }) => n)}`}</p>;
  }
  const element = document.createElement("div");
  const root = createRoot(element);
  const shows = (text: string): Promise<boolean> =>
    until(
      () => element.textContent === text,
      () => element.textContent,
    );
  root.render(<Rows least={1} />);
  const session = await server.welcomed();
  await serve(session, 1, { where: [["n", ">=", 1]], cols: ["n"] });
  await shows("live 1");
  // An equal query is no other subscription.
  root.render(<Rows least={1.0} />);
  root.render(<Rows least={0} />);
  await serve(session, 2, { where: [["n", ">=", 0]], cols: ["n"] });
  await shows("live 1");
  await session.send({ ...delta, ch: 2 });
  await shows("live 2");
  // The first table has no reader now, but the client stays subscribed to it for
  // a while.
  expect(client.table("a/b", { where: [["n", ">=", 1]], cols: ["n"] }).status).toBe("live");
  root.unmount();
});

test("React shows several tables at one commit", async () => {
  const { server, client } = await start();
  const both = client.together(client.table("a/b"), client.table("a/c"));
  const shown: string[] = [];
  function Rows() {
    const states = useTogether(both);
    const text = states ? states.map((state) => `${state.commit}:${state.rows.get("x")?.n}`).join(" ") : "none";
    shown.push(text);
    return <p>{text}</p>;
  }
  const element = document.createElement("div");
  const root = createRoot(element);
  root.render(<Rows />);
  const session = await server.welcomed();
  await serve(session, 1);
  await serve(session, 2);
  await until(() => element.textContent === "1:1 1:1");
  await session.send(delta);
  await session.send({ ...delta, ch: 2, up: { x: { n: 3 } } });
  await until(() => element.textContent === "2:2 2:3");
  expect([...new Set(shown)]).toEqual(["none", "1:1 1:1", "2:2 2:3"]);
  expect(() => client.together(client.table("a/b"), connect<any>("ws://x/").table("other/c"))).toThrow(/one projection/);
  root.unmount();
});

test("Solid's signal follows the rows", async () => {
  vi.doMock("solid-js", () => import("solid-js/dist/solid.js"));
  const { fromTable } = await import("../src/solid.js");
  const { server, client } = await start();
  const seen: unknown[] = [];
  const dispose = createSolidRoot((end: () => void) => {
    const state = fromTable(client.table("a/b"));
    createEffect(() => seen.push(state().rows.get("x")?.n));
    return end;
  });
  const session = await server.welcomed();
  await serve(session, 1);
  await until(() => seen.includes(1));
  await session.send(delta);
  await until(() => seen.includes(2));
  dispose();
  expect(client.table("a/b").status).toBe("live");
});

test("Solid's signal follows a query that depends on signals", async () => {
  vi.doMock("solid-js", () => import("solid-js/dist/solid.js"));
  const { fromTable } = await import("../src/solid.js");
  const { server, client } = await start();
  const [least, setLeast] = createSignal(1);
  const seen: unknown[] = [];
  const dispose = createSolidRoot((end: () => void) => {
    const state = fromTable(() => client.table("a/b", { where: [["n", ">=", least()]] }));
    createEffect(() => seen.push(`${state().status} ${state().rows.get("x")?.n}`));
    return end;
  });
  const session = await server.welcomed();
  await serve(session, 1, { where: [["n", ">=", 1]] });
  await until(() => seen.at(-1) === "live 1");
  setLeast(2);
  await serve(session, 2, { where: [["n", ">=", 2]] });
  await session.send({ ...delta, ch: 2 });
  await until(() => seen.at(-1) === "live 2");
  // A change that belongs to the previous query is not shown.
  await session.send({ ...delta, up: { x: { n: 9 } } });
  await until(() => client.table("a/b", { where: [["n", ">=", 1]] }).get("x")?.n === 9);
  expect(seen).not.toContain("live 9");
  dispose();
});

test("Svelte's store follows the rows, and opens nothing while a server renders", async () => {
  const { server, client } = await start();
  const store = tableStore(client.table("a/b", { where: [["n", ">", 0]], cols: ["n"] }));
  vi.stubGlobal("window", undefined);
  expect(get(store).status).toBe("idle");
  expect(client.status).toBe("idle");
  vi.unstubAllGlobals();
  const seen: unknown[] = [];
  const stop = store.subscribe(({ rows }) => seen.push(rows.get("x")?.n));
  const session = await server.welcomed();
  await serve(session, 1, { where: [["n", ">", 0]], cols: ["n"] });
  await session.send(delta);
  await until(() => seen.includes(2));
  stop();
});
