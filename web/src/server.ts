// The state of the server that every screen shows: its projections and its log.
import { effect, signal } from "@preact/signals";
import type { FieldStatus, ProjectionStatus, Projections, Ready, ServerStatus, TableStatus, VersionStatus } from "./api-types.js";
import { count, shown } from "./format.js";
import { Poll } from "./polled.js";
import { read, send } from "./problem.js";

/** The projections, and the log. */
export interface Overview {
  readonly projections: ProjectionStatus[];
  readonly status: ServerStatus;
  readonly ready: Ready;
}

/** How often the state is requested. */
export const STATUS_MS = 2000;
/** The age from which the state counts as stale. */
export const STALE_MS = 3 * STATUS_MS;

/** Whether the server is ready. The answer 503 is not an error: it contains the reasons. */
async function ready(signal: AbortSignal): Promise<Ready> {
  return (await send("/readyz", { signal }, 503)).json();
}

export const overview = new Poll<Overview>(async (signal) => {
  const [{ projections }, status, health] = await Promise.all([
    read<Projections>("/v1/projections", { signal }),
    read<ServerStatus>("/v1/status", { signal }),
    ready(signal),
  ]);
  return { projections, status, ready: health };
}, STATUS_MS);

/**
 * Events per second in the last minutes, for sparklines: a list for each projection, and one for
 * the log, named `log`.
 */
export const rates = new Map<string, number[]>();
const RATES_MAX = 60;
let before: { at: number; events: number } | undefined;

/** The number of events in all partitions. */
export function eventsOf(status: ServerStatus): number {
  return status.partitions.reduce((sum, partition) => sum + (partition.end ?? 0), 0);
}

function remember(name: string, rate: number): void {
  const list = rates.get(name) ?? [];
  rates.set(name, list);
  list.push(rate);
  if (list.length > RATES_MAX) list.shift();
}

/** Whether the server is of another release than the one that this page was loaded from. */
export const upgraded = signal(false);
let release: string | undefined;

effect(() => {
  const { data } = overview.value.value;
  if (data === null) return;
  release ??= data.status.version;
  upgraded.value = data.status.version !== release;
});

effect(() => {
  const { data, at } = overview.value.value;
  if (data === null || at === before?.at) return;
  const events = eventsOf(data.status);
  if (before && events >= before.events) remember("log", (1000 * (events - before.events)) / (at - before.at));
  before = { at, events };
  for (const projection of data.projections) remember(projection.name, served(projection)?.events_per_s ?? 0);
  for (const name of rates.keys()) {
    if (name !== "log" && !data.projections.some((projection) => projection.name === name)) rates.delete(name);
  }
});

/** The newest state of a projection, if it exists. */
export function projectionNow(name: string): ProjectionStatus | undefined {
  return overview.value.value.data?.projections.find((projection) => projection.name === name);
}

/** The version that a projection's row shows: the active one, otherwise the newest. */
export function served(projection: ProjectionStatus): VersionStatus | undefined {
  return projection.versions.find((version) => version.id === projection.active) ?? projection.versions.at(-1);
}

/** A version's public tables. */
export function tables(version: VersionStatus | undefined): TableStatus[] {
  return (version?.tables ?? []).filter((table) => table.public);
}

/** The fields of a version's public table. Without such a table, there are none. */
export function fieldsOf(version: VersionStatus | undefined, table: string): FieldStatus[] {
  return tables(version).find(({ name }) => name === table)?.fields ?? [];
}

/** The public tables of the served versions with their fields, by `projection/table`. */
export function allTables(projections: readonly ProjectionStatus[]): Map<string, readonly FieldStatus[]> {
  return new Map(projections.flatMap((projection) => tables(served(projection)).map((table) => [`${projection.name}/${table.name}`, table.fields] as const)));
}

/** The projection and the table in `projection/table`. */
export function splitName(name: string): [projection: string, table: string] {
  const [projection = "", ...rest] = name.split("/");
  return [projection, rest.join("/")];
}

/** The bytes that a version stores. */
export function stateBytes(version: VersionStatus): number {
  return version.shards.reduce((sum, shard) => sum + shard.state_bytes, 0);
}

/** How far behind its log a version is; `null` if that is not known. */
export function behind(version: VersionStatus): { events: number; ms: number } | null {
  if (version.shards.some((shard) => shard.lag_events == null)) return null;
  const events = version.shards.reduce((sum, shard) => sum + (shard.lag_events ?? 0), 0);
  return { events, ms: Math.max(0, ...version.shards.map((shard) => shard.lag_ms ?? 0)) };
}

/** Whether a version still has much of the log before it, so that its rows show the past. */
export function catchesUp({ state, percent }: VersionStatus): boolean {
  return state !== "retired" && percent < (state === "backfilling" ? 100 : 99);
}

/** What needs attention, or what a projection does. */
export interface Condition {
  readonly tone: "good" | "busy" | "bad" | "quiet";
  readonly text: string;
}

/** A projection's condition in a word or two. Problems come before the present activity. */
export function condition(projection: ProjectionStatus): Condition {
  const version = served(projection);
  if (!version) return { tone: "quiet", text: "empty" };
  if (version.activity === "halted" || version.activity === "faulted") return { tone: "bad", text: version.activity };
  if (projection.paused) return { tone: "busy", text: "paused" };
  if ((version.differs ?? []).length > 0) return { tone: "bad", text: "differs" };
  if (projection.versions.some((other) => other.not_activated)) return { tone: "bad", text: "not activated" };
  if ((version.parked ?? 0) > 0) return { tone: "bad", text: `${count(version.parked ?? 0)} parked` };
  if (version.state === "backfilling") return { tone: "busy", text: "backfilling" };
  const lag = behind(version);
  if (lag === null) return { tone: "busy", text: "lag unknown" };
  return version.activity === "idle" ? { tone: "good", text: "up to date" } : { tone: "good", text: version.activity };
}

/** Sentences about what is wrong with a projection. */
export function troubles(projection: ProjectionStatus): string[] {
  const found = projection.versions.flatMap((version) => [
    ...(version.reason ? [version.reason] : []),
    ...(version.not_activated ? [`Not activated: ${version.not_activated}`] : []),
    ...(version.differs ?? []).map((why) => `Differs from the log: ${why}`),
  ]);
  // Reasons contain texts of events.
  return found.map(shown);
}

/** A table with its projection's version. */
export interface Place {
  readonly projection: string;
  readonly table: string;
  readonly version: VersionStatus;
  readonly status: TableStatus;
}

/** A table, or why there is none. Without an id, it is the table of the version that is served. */
export function findTable({ projections }: Overview, projection: string, table: string, id: string): Place | string {
  const found = projections.find(({ name }) => name === projection);
  if (!found) return `There is no projection ${projection}.`;
  const version = id === "" ? served(found) : found.versions.find((one) => one.id === id);
  if (!version) return `The projection ${projection} has no version ${id}.`;
  const status = tables(version).find(({ name }) => name === table);
  return status ? { projection, table, version, status } : `The projection ${projection} has no public table ${table}.`;
}
