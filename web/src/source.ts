// Where a table screen gets its rows from: the feed, or requests if the rows are in the order
// of a field.
import { type ReadonlySignal, type Signal, signal, useSignal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { parse, stringify } from "../../clients/ts/src/json.js";
import type { Query, Row, Table } from "../../clients/ts/src/index.js";
import type { FieldStatus } from "./api-types.js";
import { perFrame, Subscription } from "./feed.js";
import { type Freshness, freshness, type Polled, Poll } from "./polled.js";
import { Problem, path, send } from "./problem.js";
import { feedQuery, parameters, type TableQuery } from "./query.js";
import { merged } from "./rows.js";
import type { Place } from "./server.js";

/** Rows in an order, at one commit. */
export interface Rows {
  readonly keys: readonly string[];
  get(key: string): Row | undefined;
}

/** How current the rows are. */
export interface RowsState {
  readonly status: Freshness;
  /** When the rows were known to be current, in milliseconds since 1970. */
  readonly at: number;
  readonly error: Problem | null;
  readonly commit: number | null;
  /** Whether the server has more rows than are loaded here. */
  readonly more: boolean;
}

/** The rows of a screen. */
export interface Source {
  readonly fields: readonly Pick<FieldStatus, "name" | "kind">[];
  readonly rows: Rows;
  readonly state: RowsState;
  /** Changes when any member above changes, at most once per animation frame. */
  readonly frame: ReadonlySignal<number>;
  /** Keys that were added in the last change. */
  readonly added: ReadonlySet<string>;
  /** Keys with a change, as they arrive. */
  onChanged: ((keys: Iterable<string>) => void) | null;
  /** The present rows, in an object that later changes do not affect. */
  still(): Rows;
  /** The number of changed rows in the last second; `null` if it is not known. */
  readonly changes: ReadonlySignal<number | null>;
  start(): () => void;
  /** Loads more rows. */
  loadMore(): void;
}

/** The minimum time between two changes from the feed, in milliseconds. */
const RATE_MS = 10;

/** Rows that fulfil conditions, or all, over the feed. */
export class FeedRows implements Source {
  readonly frame: Signal<number> = signal(0);
  readonly changes: Signal<number | null> = signal(0);
  added: ReadonlySet<string> = new Set();
  onChanged: ((keys: Iterable<string>) => void) | null = null;
  #subscription: Subscription;
  #keys: readonly string[] = [];
  #new = new Set<string>();
  #gone = new Set<string>();
  #known = new Set<string>();
  #at = 0;
  #changed = 0;

  constructor(name: string, query: Query = {}) {
    this.#subscription = new Subscription((client) => client.table(name, { ...query, rate_ms: RATE_MS }));
  }

  get #table(): Table<Row> {
    return this.#subscription.table;
  }

  get fields(): readonly Pick<FieldStatus, "name" | "kind">[] {
    return this.#table.fields;
  }

  get rows(): Rows {
    return { keys: this.#keys, get: (key) => this.#table.get(key) };
  }

  get state(): RowsState {
    const { status, error, commit } = this.#table;
    const failed = error === null ? null : new Problem(error.code, error.message);
    const at = status === "live" ? Date.now() : this.#at;
    if (status === "live") return { status, at, error: null, commit, more: false };
    if (failed !== null) return { status: "error", at, error: failed, commit, more: false };
    return { status: commit === null ? "loading" : "stale", at, error: null, commit, more: false };
  }

  start(): () => void {
    if (this.#table.commit !== null) this.#replace(this.#table.keys());
    const stop = this.#subscription.start((change) => {
      if (change.type === "snapshot") {
        this.#replace(change.rows.keys());
        this.onChanged?.(change.rows.keys());
      } else if (change.type === "delta") {
        for (const key of change.up.keys()) {
          this.#gone.delete(key);
          if (!this.#known.has(key)) this.#new.add(key);
          this.#known.add(key);
        }
        for (const key of change.del) {
          this.#new.delete(key);
          if (this.#known.delete(key)) this.#gone.add(key);
        }
        this.#changed += change.up.size + change.del.length;
        this.onChanged?.(change.up.keys());
        this.onChanged?.(change.del);
      }
      if (this.#table.status === "live" || change.type === "delta" || change.type === "tick") this.#at = Date.now();
      this.#draw();
    });
    const second = setInterval(() => {
      this.changes.value = this.#changed;
      this.#changed = 0;
    }, 1000);
    this.#draw();
    return () => {
      stop();
      clearInterval(second);
    };
  }

  #replace(keys: Iterable<string>): void {
    this.#keys = [...keys].sort();
    this.#known = new Set(this.#keys);
    this.#new.clear();
    this.#gone.clear();
  }

  /** Shows all changes since the last animation frame together. */
  #draw = perFrame(() => {
    this.#sort();
    this.frame.value += 1;
  });

  #sort(): void {
    this.added = this.#new;
    if (this.#new.size > 0 || this.#gone.size > 0) this.#keys = merged(this.#keys, [...this.#new], this.#gone);
    this.#new = new Set();
    this.#gone = new Set();
  }

  still(): Rows {
    this.#sort();
    const { rows } = this.#table.state;
    return { keys: this.#keys, get: (key) => rows.get(key) };
  }

  loadMore(): void {
    // The feed sends all rows.
  }
}

/** How many rows the first request asks for, and how many one request can get. */
const PAGE_ROWS = 200;
const PAGE_ROWS_MAX = 10_000;

interface Loaded {
  readonly keys: readonly string[];
  readonly rows: ReadonlyMap<string, Row>;
  readonly commit: number;
  readonly next: string | null;
  readonly etag: string | null;
}

/** Rows that the server selects or orders, requested again while the screen is open. */
export class QueriedRows implements Source {
  readonly frame: Signal<number> = signal(0);
  readonly changes: Signal<number | null> = signal(null);
  added: ReadonlySet<string> = new Set();
  onChanged: ((keys: Iterable<string>) => void) | null = null;
  #poll: Poll<Loaded>;
  #want: number;
  #limited: boolean;
  #address: string;
  #params: URLSearchParams;

  readonly fields: readonly FieldStatus[];

  constructor(projection: string, table: string, fields: readonly FieldStatus[], query: TableQuery, limit?: number) {
    this.fields = fields;
    this.#want = limit ?? PAGE_ROWS;
    this.#limited = limit !== undefined;
    this.#address = `/v1/tables${path(projection, table)}`;
    this.#params = parameters({ ...query, cols: [] });
    this.#poll = new Poll((signal, before) => this.#request(signal, before), 2000);
  }

  get #polled(): Polled<Loaded> {
    return this.#poll.value.peek();
  }

  get rows(): Rows {
    const { data } = this.#polled;
    return { keys: data?.keys ?? [], get: (key) => data?.rows.get(key) };
  }

  get state(): RowsState {
    const { data, at, error } = this.#polled;
    const status = freshness(this.#polled, Date.now(), 3 * this.#poll.everyMs);
    return { status, at, error, commit: data?.commit ?? null, more: (data?.next ?? null) !== null };
  }

  start(): () => void {
    const stop = this.#poll.start();
    const unsubscribe = this.#poll.value.subscribe(() => {
      this.frame.value = this.frame.peek() + 1;
    });
    return () => {
      stop();
      unsubscribe();
    };
  }

  still(): Rows {
    return this.rows;
  }

  loadMore(): void {
    const loaded = this.#polled.data;
    if (this.#limited || !loaded?.next || this.#want > loaded.keys.length) return;
    this.#want = Math.min(PAGE_ROWS_MAX, this.#want * 4);
    void this.#poll.refresh();
  }

  async #request(signal: AbortSignal, before: Loaded | null): Promise<Loaded> {
    const params = new URLSearchParams(this.#params);
    params.set("limit", String(this.#want));
    // NDJSON keeps the order of the rows; a JSON object does not.
    const headers: Record<string, string> = { accept: "application/x-ndjson" };
    if (before?.etag) headers["if-none-match"] = before.etag;
    const answer = await send(`${this.#address}?${params}`, { signal, headers }, 304);
    if (answer.status === 304 && before) return before;
    const rows = rowsOf(await answer.text());
    const { headers: said } = answer;
    const loaded: Loaded = {
      keys: [...rows.keys()],
      rows,
      commit: Number(said.get("lantern-commit")),
      next: said.get("lantern-next"),
      etag: said.get("etag"),
    };
    if (before) {
      const changed = loaded.keys.filter((key) => stringify(before.rows.get(key) ?? null) !== stringify(loaded.rows.get(key)));
      if (changed.length > 0) this.onChanged?.(changed);
    }
    return loaded;
  }
}

/** The rows in `text`, which is NDJSON, in their order. The keys are the same as in the feed. */
export function rowsOf(text: string): Map<string, Row> {
  const rows = new Map<string, Row>();
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const { tenant, key, value } = parse(line) as { tenant?: string; key: string; value: Row };
    rows.set(tenant === undefined ? key : `${tenant}\u0000${key}`, value);
  }
  return rows;
}

/** The source of the rows that a query selects; at most `limit` rows if they are requested. */
export function useSource({ projection, table, status }: Place, query: TableQuery, limit?: number): { source: Source; refused: boolean } {
  const refused = useSignal(false);
  const feed = refused.value ? null : feedQuery(query, status.fields);
  const text = stringify(feed ?? { ...query, cols: [], limit });
  const source = useMemo<Source>(
    () => (feed ? new FeedRows(`${projection}/${table}`, feed) : new QueriedRows(projection, table, status.fields, query, limit)),
    [projection, table, feed === null, text],
  );
  useEffect(() => source.start(), [source]);
  // The feed does not send more rows than its limit.
  if (feed && source.state.error?.code === "too_large") refused.value = true;
  void source.frame.value;
  return { source, refused: refused.value };
}
