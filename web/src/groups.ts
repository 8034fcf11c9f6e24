// The groups of charts and numbers: over the feed as they change, or requested if the server
// refuses that.
import { type Signal, signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import type { Row, RollUpQuery } from "../../clients/ts/src/index.js";
import type { FieldStatus, QueryPage } from "./api-types.js";
import { perFrame, Subscription } from "./feed.js";
import { type Freshness, Poll, type Polled } from "./polled.js";
import { path, problem, read } from "./problem.js";
import { parsed } from "./query.js";
import { aggregateParts, BARS_MAX, bucketFor, type ChartQuery, coarser, type Group, ordered } from "./rollup.js";
import type { Place } from "./server.js";

/** The interval at which groups are requested that do not come over the feed, and the age from which they are stale. */
const REQUEST_MS = 3000;
export const REQUESTED_STALE_MS = 3 * REQUEST_MS;
/** The minimum time between two changes from the feed, in milliseconds. */
const RATE_MS = 100;
/** The time after a refusal until the page tries to subscribe again, in milliseconds. */
const AGAIN_MS = 60_000;
/** The column of the aggregate. */
export const VALUE = "chart_value";

/** The groups of a chart. Over time they are in the order of time, otherwise the largest come first. */
export interface Answer {
  readonly groups: readonly Group[];
  /** The kinds of the columns. */
  readonly kinds: ReadonlyMap<string, string>;
  readonly bucket: string;
  /** Whether the server has more groups. */
  readonly more: boolean;
}

/** The groups, and how current they are. */
export interface Groups extends Polled<Answer> {
  /** How current groups of the feed are; `null` if they are requested. */
  readonly status: Freshness | null;
  /** Why the groups are requested again and again; `null` if they come over the feed. */
  readonly requested: string | null;
}

const NO_GROUPS: Groups = { data: null, at: 0, error: null, status: "loading", requested: null };

/** What a chart asks for. */
interface Wanted {
  readonly place: Pick<Place, "projection" | "table">;
  readonly fields: readonly Pick<FieldStatus, "name" | "kind">[];
  readonly query: ChartQuery;
  readonly where: readonly string[];
}

function kindsOf(fields: readonly Pick<FieldStatus, "name" | "kind">[]): ReadonlyMap<string, string> {
  return new Map(fields.map(({ name, kind }) => [name, kind]));
}

/** The size of buckets: the chosen one, otherwise one that fits the times of the rows. */
async function bucketOf({ place, query, where }: Wanted, stop: AbortSignal): Promise<string> {
  if (query.time === "" || query.bucket !== "") return query.bucket;
  const range = new URLSearchParams(where.map((text) => ["where", text]));
  range.set("agg", `min(${query.time}) as first,max(${query.time}) as last`);
  const { rows } = await read<QueryPage>(`${addressOf(place)}?${range}`, { signal: stop });
  const [found] = rows as unknown as Group[];
  return bucketFor((Date.parse(String(found?.last)) - Date.parse(String(found?.first))) / 1000 || 60);
}

function addressOf({ projection, table }: Wanted["place"]): string {
  return `/v1/tables${path(projection, table)}`;
}

async function request(wanted: Wanted, stop: AbortSignal): Promise<Answer> {
  const { place, query, where } = wanted;
  const bucket = await bucketOf(wanted, stop);
  const params = new URLSearchParams(where.map((text) => ["where", text]));
  params.set("agg", `${query.agg} as ${VALUE}`);
  if (query.by !== "") params.set("by", query.by);
  if (query.time !== "") {
    params.set("time", query.time);
    params.set("bucket", bucket);
    params.set("limit", "10000");
  } else {
    params.set("order", `-${VALUE}`);
    params.set("limit", String(BARS_MAX));
  }
  const page = await read<QueryPage>(`${addressOf(place)}?${params}`, { signal: stop });
  return { groups: page.rows as unknown as Group[], kinds: kindsOf(page.fields), bucket, more: (page.next ?? null) !== null };
}

/** The roll-up of a chart as the feed takes it, without its bucket; `null` if this page cannot write it. */
export function rollUpOf({ fields, query, where }: Pick<Wanted, "fields" | "query" | "where">): RollUpQuery | null {
  const aggregate = aggregateParts(query.agg);
  const conditions = where.map((text) => parsed(text, fields));
  if (aggregate === null || !conditions.every((one) => one !== null)) return null;
  const { name, of } = aggregate;
  const agg = { [VALUE]: of === "" ? [name] : [name, of] } as NonNullable<RollUpQuery["agg"]>;
  return { agg, ...(conditions.length > 0 && { where: conditions }), ...(query.by !== "" && { by: [query.by] }), ...(query.time !== "" && { time: query.time }) };
}

/** The groups of one query. All panes with an equal query share them. */
class LiveGroups {
  readonly value: Signal<Groups> = signal(NO_GROUPS);
  #wanted: Wanted;
  #rollUp: RollUpQuery | null;
  #readers = 0;
  #poll: Poll<Answer>;
  #stopPoll: (() => void) | undefined;
  #subscription: Subscription | undefined;
  #unsubscribe: (() => void) | undefined;
  #again: ReturnType<typeof setTimeout> | undefined;
  #running: AbortController | undefined;
  #bucket = "";

  constructor(wanted: Wanted) {
    this.#wanted = wanted;
    this.#rollUp = rollUpOf(wanted);
    this.#poll = new Poll((stop) => request(wanted, stop), REQUEST_MS);
  }

  /** Whether a pane shows these groups. */
  get used(): boolean {
    return this.#readers > 0;
  }

  /** Begins, until the returned function is called. */
  start(): () => void {
    this.#readers += 1;
    if (this.#readers === 1) {
      this.#running = new AbortController();
      void this.#begin(this.#running.signal);
    }
    return () => {
      this.#readers -= 1;
      if (this.#readers > 0) return;
      this.#running?.abort();
      this.#close();
    };
  }

  /** Ends the subscription and the requests. */
  #close(): void {
    this.#unsubscribe?.();
    this.#unsubscribe = undefined;
    this.#stopPoll?.();
    this.#stopPoll = undefined;
    clearTimeout(this.#again);
  }

  /** Chooses the size of buckets, and subscribes. */
  async #begin(stop: AbortSignal): Promise<void> {
    this.#close();
    const rollUp = this.#rollUp;
    if (rollUp === null) return this.#ask("the feed does not know this form of a filter");
    try {
      const bucket = await bucketOf(this.#wanted, stop);
      if (!stop.aborted) this.#subscribe(rollUp, bucket, stop);
    } catch (error) {
      if (stop.aborted) return undefined;
      const failed = problem(error);
      if (!failed.offline) return this.#ask(failed.message);
      this.value.value = { ...this.value.peek(), status: "offline", error: failed };
      this.#again = setTimeout(() => void this.#begin(stop), REQUEST_MS);
    }
    return undefined;
  }

  #subscribe(rollUp: RollUpQuery, bucket: string, stop: AbortSignal): void {
    const { place } = this.#wanted;
    this.#bucket = bucket;
    const query = { ...rollUp, ...(bucket !== "" && { bucket }), rate_ms: RATE_MS };
    this.#subscription = new Subscription((client) => client.rollup(`${place.projection}/${place.table}`, query));
    this.#unsubscribe = this.#subscription.start(() => {
      const { table } = this.#subscription!;
      if (table.status === "closed") {
        this.#refused(table.error?.code ?? "", table.error?.message ?? "the subscription has ended", stop);
      } else if (table.status === "live") {
        this.#stopPoll?.();
        this.#stopPoll = undefined;
      } else if (table.error !== null) {
        // The client tries again by itself.
        this.#ask(table.error.message);
      }
      this.#draw();
    });
    this.#draw();
  }

  /** The server does not send these groups. Later it may: other roll-ups have ended, or the rows are fewer. */
  #refused(code: string, message: string, stop: AbortSignal): void {
    this.#unsubscribe?.();
    this.#unsubscribe = undefined;
    this.#ask(`${message}${code.startsWith("LAN-") ? ` (${code})` : ""}`);
    clearTimeout(this.#again);
    this.#again = setTimeout(() => void this.#begin(stop), AGAIN_MS);
  }

  /** Requests the groups from now on, for this reason. */
  #ask(why: string): void {
    this.value.value = { ...this.value.peek(), status: null, requested: why };
    if (this.#stopPoll) return;
    const stop = this.#poll.start();
    const unsubscribe = this.#poll.value.subscribe((polled) => {
      // The groups of the feed stay until the first answer.
      const { data, at, requested } = this.value.peek();
      this.value.value = { ...polled, ...(polled.data === null && { data, at }), status: null, requested };
    });
    this.#stopPoll = () => {
      stop();
      unsubscribe();
    };
  }

  /** Shows all changes since the last animation frame together. */
  #draw = perFrame(() => {
    if (this.#unsubscribe && !this.#stopPoll) this.#show();
  });

  #show(): void {
    const { table } = this.#subscription!;
    const { data, at, requested } = this.value.peek();
    if (table.commit === null) {
      // This attempt follows a refusal, and may be refused too.
      if (requested !== null) return;
      const status = data === null ? "loading" : "stale";
      this.value.value = { data, at, error: null, status, requested: null };
      return;
    }
    const { query } = this.#wanted;
    const groups = ordered([...table.values()] as readonly Row[], query, VALUE);
    const larger = query.time !== "" && query.bucket === "" ? coarser(groups, query.time, this.#bucket) : null;
    const live = table.status === "live";
    const answer: Answer = { groups, kinds: kindsOf(table.fields), bucket: this.#bucket, more: false };
    this.value.value = { data: answer, at: live ? Date.now() : at, error: null, status: live ? "live" : "stale", requested: null };
    if (larger === null || this.#rollUp === null || !this.#running) return;
    // The rows now span more time than the buckets were chosen for.
    this.#unsubscribe?.();
    this.#subscribe(this.#rollUp, larger, this.#running.signal);
  }
}

const shared = new Map<string, LiveGroups>();

/** The groups of a chart, as they change. */
export function useGroups(place: Wanted["place"], fields: Wanted["fields"], query: ChartQuery, where: readonly string[]): Groups {
  const key = JSON.stringify([place.projection, place.table, [...kindsOf(fields)], query, where]);
  const groups = useMemo(() => {
    const found = shared.get(key) ?? new LiveGroups({ place: { projection: place.projection, table: place.table }, fields, query, where });
    shared.set(key, found);
    return found;
  }, [key]);
  useEffect(() => {
    const stop = groups.start();
    shared.set(key, groups);
    return () => {
      stop();
      if (!groups.used) shared.delete(key);
    };
  }, [groups]);
  return groups.value.value;
}
