// Runs the conformance suite of the feed, which is in docs/feed.
import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import WebSocket from "ws";
import { connect } from "../src/index.js";
import { parse } from "../src/json.js";
import type { Table } from "../src/table.js";
import { show, sleep, until } from "./patience.js";
import { Scripted, type Session } from "./scripted.js";

type Frame = { [member: string]: unknown };
type Shows = { table: string; status?: string; epoch?: string; commit?: number; offsets?: object; rows?: object };
type Step = { subscribe?: string; query?: Frame; connects?: boolean; client?: Frame; server?: Frame; shows?: Shows; cut?: true; close?: number; why?: string };
type Exchange = { about: string; unlisted?: true; steps: Step[] };

const FOLDER = new URL("../../../docs/feed/", import.meta.url);
const QUICK = { WebSocket, backoffMinMs: 5, backoffMaxMs: 20, shutdownSpreadMs: 5, idleMs: 0 };

/** Rows as comparable text. */
const rowsText = (rows: Iterable<readonly [string, unknown]>): string => show([...rows].sort(([a], [b]) => (a < b ? -1 : 1)));
const identity = (epoch: unknown, commit: unknown, rows: string): string => `${epoch} ${commit} ${rows}`;

/** Compares a client's message, and binds the variables in it. */
function matches(sent: Frame, wanted: Frame, variables: Map<string, number>): void {
  const left = Object.fromEntries(Object.entries(sent).filter(([name, v]) => v !== null && !(name === "mode" && v === "state") && !(name === "rate_ms" && v === 0)));
  for (const [name, value] of Object.entries(wanted)) {
    if (typeof value !== "string" || !value.startsWith("$")) continue;
    if (!variables.has(value)) variables.set(value, sent[name] as number);
  }
  expect(left).toEqual(bound(wanted, variables));
}

function bound(frame: Frame, variables: Map<string, number>): Frame {
  const id = typeof frame.id === "string" ? { id: variables.get(frame.id) } : {};
  return { ...frame, ...id };
}

/** The text of a frame, with integers as in the file. */
function text(frame: Frame): string {
  const big = /"#(-?\d+)#"/g;
  return JSON.stringify(frame, (_, of) => (typeof of === "bigint" ? `#${of}#` : of)).replace(big, "$1");
}

const files = readdirSync(FOLDER).filter((name) => name.endsWith(".json"));

test("there are exchanges", () => expect(files.length).toBeGreaterThan(10));

test.each(files)("the exchange %s is followed", async (file) => {
  const exchange = parse(readFileSync(new URL(file, FOLDER), "utf8")) as Exchange;
  const server = await Scripted.start();
  const written = exchange.steps.filter(({ query }) => query?.shape).map(({ subscribe, query }) => [subscribe, query!.shape]);
  const client = connect(server.url, { ...QUICK, shapes: Object.fromEntries(written) });
  const tables = new Map<string, Table<any>>();
  const seen: [table: string, state: string][] = [];
  const listed = new Set<string>();
  const variables = new Map<string, number>();
  let session: Session | undefined;
  try {
    for (const step of exchange.steps) {
      if (step.subscribe) {
        const name = step.subscribe;
        const { rollup, where, shape: _, ...query } = step.query ?? {};
        const table: Table<any> = rollup ? client.rollup(name, { ...rollup, where } as never) : client.table(name, { ...query, where } as never);
        tables.set(name, table);
        table.onChange(() => {
          if (table.commit !== null) seen.push([name, identity(table.epoch, table.commit, rowsText(table))]);
        });
      } else if (step.connects) {
        session = await server.session();
      } else if (step.connects === false) {
        const before = server.connections;
        await sleep(500);
        expect(server.connections).toBe(before);
      } else if (step.client) {
        matches(await session!.receive(), step.client, variables);
      } else if (step.server) {
        const frame = bound(step.server, variables);
        await session!.send(frame, text(frame));
      } else if (step.cut) {
        session!.cut();
      } else if (step.close) {
        session!.socket.close(step.close, step.why);
      } else if (step.shows) {
        const wanted = step.shows;
        const table = tables.get(wanted.table)!;
        const rows = wanted.rows && rowsText(Object.entries(wanted.rows));
        listed.add(wanted.table + identity(wanted.epoch ?? table.epoch, wanted.commit ?? table.commit, rows ?? "[]"));
        const state = (): unknown => {
          const { name, status, epoch, commit, offsets } = table;
          const now: Frame = { table: name, status, epoch, commit, offsets, rows: rowsText(table) };
          return Object.fromEntries(Object.keys(wanted).map((member) => [member, now[member]]));
        };
        const expected = show({ ...wanted, ...(rows && { rows }) });
        await until(
          () => show(state()) === expected,
          () => [state(), "instead of", expected],
        );
        if (rows) expect(rowsText(table.state.rows)).toBe(rows);
      } else {
        throw new Error(`an unknown step: ${show(step)}`);
      }
    }
    if (!exchange.unlisted) for (const [table, state] of seen) expect(listed).toContain(table + state);
  } finally {
    client.close();
    server.stop();
  }
});
