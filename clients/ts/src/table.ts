// A table, as a reader sees it.
import type { Field } from "./frames.js";
import { Mirror } from "./mirror.js";
import { type SentQuery, selection } from "./query.js";
import { type Change, LanternError, type Offsets, type Saved, type State, type Status } from "./types.js";

/** The functions of the client that a table needs. */
export interface Host {
  readonly idleMs: number;
  readonly changesMax: number;
  /** Subscribes to the table, if the client has not done so already. */
  open(table: Table<any>): void;
  /** Ends the table's subscription. */
  release(table: Table<any>): void;
}

const NEVER: State<any> = {
  status: "idle",
  rows: new Map(),
  epoch: null,
  commit: null,
  offsets: {},
  lag: null,
  error: null,
};

/**
 * A table of the server. It is kept up to date while it has readers, which `onChange`, `subscribe`,
 * `changes`, `ready` and `waitFor` create. It is a read-only map of its rows, in no particular
 * order. All values that you read without an `await` in between belong to one committed state.
 */
export class Table<R> implements ReadonlyMap<string, Readonly<R>>, AsyncIterable<Change<R>> {
  /** Projection, `/`, table. */
  readonly name: string;
  /** `where`, `cols` and all other members of the subscription that are set. */
  readonly query: Readonly<SentQuery>;
  /** @internal */
  readonly mirror = new Mirror<R>();
  /** @internal Identifies the rows: the name with `where`, `cols` and the roll-up. */
  readonly selection: string;
  /** @internal Identifies the rows and how they are delivered. */
  readonly key: string;
  #host: Host;
  #status: Status = "idle";
  #error: LanternError | null = null;
  #state: State<R> | undefined = NEVER;
  #listeners = new Set<(change: Change<R>) => void>();
  #idle: ReturnType<typeof setTimeout> | undefined;

  /** @internal */
  constructor(host: Host, name: string, query: SentQuery) {
    this.#host = host;
    this.selection = selection(name, query);
    this.key = JSON.stringify([this.selection, query.mode ?? "state", query.rate_ms ?? 0]);
    this.name = name;
    // A copy, because the caller may change its arrays later.
    this.query = structuredClone(query);
  }

  get status(): Status {
    return this.#status;
  }
  /** Why the table is closed, or why the server refuses it for now. */
  get error(): LanternError | null {
    return this.#error;
  }
  get epoch(): string | null {
    return this.mirror.epoch;
  }
  /** The commit of the rows; `null` before the first snapshot. */
  get commit(): number | null {
    return this.mirror.commit;
  }
  get offsets(): Offsets {
    return this.mirror.offsets;
  }
  /** The fields of the rows; empty before the server has sent them. */
  get fields(): readonly Field[] {
    return this.mirror.fields;
  }
  /**
   * The hash of the table's shape, also of a roll-up; `null` before the server has sent it. If it
   * is not the `hash` that `lantern types` wrote, the server has a version with other fields.
   */
  get shape(): string | null {
    return this.mirror.shape;
  }

  /**
   * The present state, as an object that never changes. Until the next change of the table, each
   * read returns the same object. After you have read it, the next change must first copy the map
   * of the rows. So if a large table changes often, read its rows with `get` or in `onChange`
   * instead.
   */
  get state(): State<R> {
    const { mirror } = this;
    const { epoch, commit, offsets, lag } = mirror;
    this.#state ??= { status: this.#status, rows: mirror.lend(), epoch, commit, offsets, lag, error: this.#error };
    return this.#state;
  }

  /** `state`, as a function for `useSyncExternalStore`. */
  readonly getState = (): State<R> => this.state;
  /**
   * The state without rows, for `useSyncExternalStore`. It is used when a page is rendered on a
   * server, and for the first render in the browser.
   */
  readonly getServerState = (): State<R> => NEVER;

  get size(): number {
    return this.mirror.rows.size;
  }
  get(key: string): Readonly<R> | undefined {
    return this.mirror.rows.get(key);
  }
  has(key: string): boolean {
    return this.mirror.rows.has(key);
  }
  keys(): MapIterator<string> {
    return this.mirror.rows.keys();
  }
  values(): MapIterator<Readonly<R>> {
    return this.mirror.rows.values();
  }
  entries(): MapIterator<[string, Readonly<R>]> {
    return this.mirror.rows.entries();
  }
  [Symbol.iterator](): MapIterator<[string, Readonly<R>]> {
    return this.entries();
  }
  forEach(of: (row: Readonly<R>, key: string, rows: ReadonlyMap<string, Readonly<R>>) => void): void {
    this.mirror.rows.forEach((row, key) => of(row, key, this));
  }

  /** Calls `told` after every change, until the returned function is called. */
  onChange(told: (change: Change<R>) => void): () => void {
    // Each call creates a function of its own, because `told` may be registered twice.
    const listener = (change: Change<R>): void => told(change);
    this.#listeners.add(listener);
    clearTimeout(this.#idle);
    this.#host.open(this);
    return () => {
      if (!this.#listeners.delete(listener) || this.#listeners.size > 0) return;
      clearTimeout(this.#idle);
      if (this.#status === "closed") return;
      this.#idle = setTimeout(() => this.#host.release(this), this.#host.idleMs);
    };
  }

  /** `onChange` without the change, for frameworks. */
  readonly subscribe = (told: () => void): (() => void) => this.onChange(() => told());

  /**
   * The changes from now on. If there are rows, the first item is a snapshot of them. If a reader
   * is more than `changesMax` changes behind, it gets one snapshot instead of these changes. When
   * the client is closed, the sequence ends. If the table is closed for another reason, the
   * sequence throws the error.
   */
  async *changes({ signal }: { signal?: AbortSignal } = {}): AsyncGenerator<Change<R>, void, undefined> {
    let buffer: Change<R>[] = [];
    let missed = 0;
    let wake = (): void => {};
    const stop = this.onChange((change) => {
      if (buffer.length >= this.#host.changesMax) {
        missed += buffer.length;
        buffer = [];
      }
      if (missed > 0) missed += 1;
      else buffer.push(change);
      wake();
    });
    const abort = (): void => wake();
    signal?.addEventListener("abort", abort);
    try {
      const first = this.#snapshot(0);
      if (first) yield first;
      while (!signal?.aborted) {
        let next = buffer.shift();
        if (!next && missed > 0) {
          next = this.#snapshot(missed);
          missed = 0;
        }
        if (next) {
          yield next;
        } else if (this.#status === "closed") {
          if (this.#error && this.#error.code !== "closed") throw this.#error;
          return;
        } else {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
    } finally {
      signal?.removeEventListener("abort", abort);
      stop();
    }
  }

  [Symbol.asyncIterator](): AsyncGenerator<Change<R>, void, undefined> {
    return this.changes();
  }

  #snapshot(missed: number): Change<R> | undefined {
    const { epoch, commit, offsets } = this.mirror;
    if (epoch === null || commit === null) return;
    return { type: "snapshot", epoch, commit, offsets, rows: this.mirror.lend(), missed };
  }

  /** Waits until the rows are live. Throws the error if the table is closed. */
  ready(options?: { signal?: AbortSignal }): Promise<State<R>> {
    return this.#until(() => this.#status === "live", options);
  }

  /**
   * Waits until the rows contain the event at `offset` of `partition`, so that a reader
   * sees what it has written. The append of the event returned these two
   * numbers.
   */
  waitFor(event: { partition: number; offset: number }, options?: { signal?: AbortSignal }): Promise<State<R>> {
    return this.#until(() => (this.offsets[event.partition] ?? 0) > event.offset, options);
  }

  #until(reached: () => boolean, { signal }: { signal?: AbortSignal } = {}): Promise<State<R>> {
    let stop = (): void => {};
    const done = new Promise<State<R>>((resolve, reject) => {
      const look = (): void => {
        if (signal?.aborted) reject(signal.reason);
        else if (reached()) resolve(this.state);
        else if (this.#status === "closed") reject(this.#error);
      };
      const unlisten = this.onChange(look);
      signal?.addEventListener("abort", look);
      stop = () => {
        unlisten();
        signal?.removeEventListener("abort", look);
      };
      look();
    });
    return done.finally(() => stop());
  }

  /** The token with the rows that belong to it, for `TableOptions.resume`; `null` before the first snapshot. */
  saved(): Saved<R> | null {
    const { token, epoch, commit, offsets } = this.mirror;
    if (token === undefined || epoch === null || commit === null) return null;
    return { token, selection: this.selection, epoch, commit, offsets, rows: this.mirror.lend() };
  }

  /** @internal Continues from saved rows, if they are those of the same query. */
  restore(saved: Saved<R>): void {
    if ((saved.selection ?? selection(this.name, {})) !== this.selection) return;
    this.mirror.restore(saved);
    this.#state = undefined;
  }

  /** @internal Tells readers of a change that the mirror already contains. */
  notify(change: Change<R>): void {
    this.#state = undefined;
    for (const listener of this.#listeners) {
      try {
        listener(change);
      } catch (error) {
        // An error of a reader must not stop the client.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  /** @internal */
  set(status: Status, error: LanternError | null = null): void {
    if (status === this.#status && error === this.#error) return;
    this.#status = status;
    this.#error = error;
    this.notify({ type: "status", status, error });
  }

  /**
   * @internal Notes that the table is not current: it is `stale` if it has rows, otherwise
   * `connecting`.
   */
  behind(error: LanternError | null = null): void {
    this.set(this.mirror.commit === null ? "connecting" : "stale", error);
  }
}
