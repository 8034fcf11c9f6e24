// The connection to a server. All tables of a client share it.
import { longPause, pause } from "./backoff.js";
import type { ClientMessage, Delta, ServerMessage, Snapshot, Tick } from "./frames.js";
import { parse, stringify } from "./json.js";
import { GAP } from "./mirror.js";
import type { Aggregates, Columns, FieldOf, Fill, Group, Query, RollUpQuery, SentQuery } from "./query.js";
import { type Host, Table } from "./table.js";
import { Together } from "./together.js";
import {
  type AnyTables,
  type Change,
  type Diagnostic,
  LanternError,
  type Options,
  type Saved,
  type Status,
  type TicketReason,
  type WebSocketLike,
} from "./types.js";

const SUBPROTOCOL = "lantern.v1.json";
/**
 * The interval at which the client checks whether the connection is silent or the clock has jumped.
 */
const LOOK_MS = 1_000;
/**
 * If the clock moves further than this between two checks, it has jumped, because the machine
 * slept.
 */
const JUMP_MS = 10_000;
/** A connection counts as lost after a silence of two heartbeats plus this time. */
const GRACE_MS = 5_000;
/**
 * If a connection lasts this long and brings a table up to date, the failures before it no longer
 * count.
 */
const STEADY_MS = 5_000;
/** Close codes. */
const UNAUTHORIZED = 4401;
const TOO_MANY = 4429;
const SHUTTING_DOWN = 4501;

/** Where a subscription continues. */
interface Resume<R> {
  /**
   * The state of an earlier subscription, from `Table.saved`. It is used only if the table has no
   * rows yet and the state belongs to the same query.
   */
  resume?: Saved<R> | null | undefined;
}

/** Options of a table: what to subscribe to, and where to continue. */
export interface TableOptions<R, C extends readonly string[] = readonly FieldOf<R>[]> extends Query<R, C>, Resume<Columns<R, C>> {}

/** Options of a roll-up. */
export type RollUpOptions<
  R,
  T extends string,
  B extends readonly string[],
  A extends Aggregates<R>,
  L extends string | undefined,
  F extends Fill | undefined,
> = RollUpQuery<R, T, B, A, L, F> & Resume<Group<R, T, B, A, L, F>>;

/** A subscription on the present connection. */
interface Subscription {
  id: number;
  table: Table<any>;
}

/** The socket, and the state of its connection. */
interface Connection {
  socket: WebSocketLike | undefined;
  openedAt: number;
  receivedAt: number;
  heartbeatMs: number;
  welcome: boolean;
  useful: boolean;
  /**
   * The number of data frames after which the client acknowledges them. `received` and `acked`
   * count the frames so far.
   */
  ackEvery: number;
  received: number;
  acked: number;
  subs: Map<number, Subscription>;
  channels: Map<number, Subscription>;
}

/**
 * A connection to a Lantern server. It is opened when a table gets its first reader, and
 * closed when no table has a reader. It reconnects by itself and continues where it
 * stopped.
 */
export class Client<S extends object = AnyTables> implements AsyncDisposable {
  readonly url: string;
  #options: Options;
  #host: Host;
  #tables = new Map<string, Table<any>>();
  /** The tables to subscribe to. */
  #wanted = new Set<Table<any>>();
  /**
   * Tables that the server refused temporarily: the timer of the next try, and the number of tries
   * so far.
   */
  #later = new Map<Table<any>, { timer: ReturnType<typeof setTimeout>; failures: number }>();
  #connection: Connection | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #looks: ReturnType<typeof setInterval> | undefined;
  #lookedAt = 0;
  #failures = 0;
  #why: TicketReason = "first";
  #id = 0;
  /**
   * Whether the page or machine was asleep and no message has arrived since. The connection then
   * counts as lost after a shorter silence.
   */
  #doubted = false;
  #closed: LanternError | undefined;

  /** @internal */
  constructor(url: string, options: Options) {
    this.url = url;
    this.#options = options;
    this.#host = {
      idleMs: options.idleMs ?? 5_000,
      changesMax: Math.max(1, options.changesMax ?? 1_024),
      open: (table) => this.#open(table),
      release: (table) => this.#release(table),
    };
  }

  /**
   * The table `projection/table`, or only the rows that fulfil `where`, with the fields `cols`.
   * This call opens no connection: the client subscribes to the table when the table gets its first
   * reader. While a table has readers, the same name and an equal query give the same object. The
   * order of conditions does not matter.
   */
  table<T extends FieldOf<S>, const C extends readonly FieldOf<S[T]>[] = readonly FieldOf<S[T]>[]>(
    name: T,
    { resume, ...query }: TableOptions<S[T], C> = {},
  ): Table<Columns<S[T], C>> {
    return this.#table(name, query as SentQuery, resume);
  }

  /**
   * Groups of the rows of the table `projection/table`, which change as the rows do. The result is
   * a table. Its keys are the JSON texts of arrays, with the start of the bucket and the values of
   * `by`. Everything else is as in `table`.
   */
  rollup<
    T extends FieldOf<S>,
    Time extends FieldOf<S[T]> = never,
    const By extends readonly FieldOf<S[T]>[] = readonly [],
    const Agg extends Aggregates<S[T]> = {},
    const Bucket extends string | undefined = undefined,
    const Filled extends Fill | undefined = undefined,
  >(
    name: T,
    { resume, where, rate_ms, ...rollup }: RollUpOptions<S[T], Time, By, Agg, Bucket, Filled>,
  ): Table<Group<S[T], Time, By, Agg, Bucket, Filled>> {
    return this.#table(name, { where, rate_ms, rollup } as SentQuery, resume);
  }

  /** Returns the table with this query. If there is no such table yet, creates it. */
  #table<R>(name: string, query: SentQuery, resume: Saved<R> | null | undefined): Table<R> {
    const fresh = new Table<R>(this.#host, name, query);
    const table: Table<R> = this.#tables.get(fresh.key) ?? fresh;
    this.#tables.set(table.key, table);
    if (resume && table.commit === null) table.restore(resume);
    return table;
  }

  /** Tables of one projection whose states are read together: all at one commit. */
  together<const T extends readonly Table<any>[]>(...tables: T): Together<T> {
    return new Together(tables);
  }

  /** Whether there is a connection: `live` after the server's `welcome`. */
  get status(): Status {
    if (this.#closed) return "closed";
    if (this.#connection?.welcome) return "live";
    return this.#wanted.size > 0 ? "connecting" : "idle";
  }

  /** Why the client is closed. */
  get error(): LanternError | null {
    return this.#closed ?? null;
  }

  /** Closes the connection and all tables, which keep their rows. */
  close(): void {
    this.#end(new LanternError("closed", "the client was closed"));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  // ------------------------------------------------------------ tables

  #open(table: Table<any>): void {
    if (this.#closed) return table.set("closed", this.#closed);
    if (this.#wanted.has(table)) return;
    this.#wanted.add(table);
    if (!this.#tables.has(table.key)) this.#tables.set(table.key, table);
    table.behind();
    if (this.#connection?.welcome) this.#subscribe(table);
    else this.#start();
  }

  #release(table: Table<any>): void {
    this.#drop(table);
    if (this.#tables.get(table.key) === table) this.#tables.delete(table.key);
    table.set("idle");
    if (this.#wanted.size === 0) this.#stop();
  }

  /** Ends a table's subscription, if it has one. */
  #drop(table: Table<any>): void {
    this.#wanted.delete(table);
    clearTimeout(this.#later.get(table)?.timer);
    this.#later.delete(table);
    const sub = this.#subscription(table);
    if (sub) this.#unsubscribe(sub);
  }

  /** A table gets no more changes. */
  #finish(table: Table<any>, error: LanternError): void {
    this.#drop(table);
    table.set("closed", error);
    if (this.#wanted.size === 0) this.#stop();
  }

  #subscription(table: Table<any>): Subscription | undefined {
    for (const sub of this.#connection?.subs.values() ?? []) if (sub.table === table) return sub;
    return undefined;
  }

  #subscribe(table: Table<any>): void {
    const id = (this.#id += 1);
    table.mirror.interrupt();
    table.behind(table.error);
    this.#connection?.subs.set(id, { id, table });
    const resume = table.mirror.token;
    const shape = this.#options.shapes?.[table.name];
    const further = { ...(shape && { shape }), ...(resume !== undefined && { resume }) };
    this.#send({ t: "sub", id, table: table.name, ...(table.query as object), ...further });
  }

  #unsubscribe({ id }: Subscription): void {
    this.#forget(id);
    this.#send({ t: "unsub", id });
  }

  /** Forgets a subscription; frames of its channel may still arrive. */
  #forget(id: number): Subscription | undefined {
    const connection = this.#connection;
    const sub = connection?.subs.get(id);
    connection?.subs.delete(id);
    for (const [ch, other] of connection?.channels ?? []) if (other === sub) connection?.channels.delete(ch);
    return sub;
  }

  // -------------------------------------------------------- connection

  /** Connects, unless that is already in progress. */
  #start(): void {
    if (this.#connection || this.#retry !== undefined) return;
    if (this.#looks === undefined) {
      this.#lookedAt = Date.now();
      this.#looks = setInterval(() => this.#look(), LOOK_MS);
      globalThis.addEventListener?.("online", this.#wake);
      globalThis.document?.addEventListener("visibilitychange", this.#wake);
    }
    const now = Date.now();
    this.#connection = {
      socket: undefined,
      openedAt: now,
      receivedAt: now,
      heartbeatMs: 15_000,
      welcome: false,
      useful: false,
      ackEvery: 1,
      received: 0,
      acked: 0,
      subs: new Map(),
      channels: new Map(),
    };
    void this.#connect(this.#connection);
  }

  async #connect(connection: Connection): Promise<void> {
    let ticket: string | null | undefined;
    try {
      ticket = await this.#options.ticket?.(this.#why);
    } catch (error) {
      return this.#lost(connection, `no ticket: ${error}`);
    }
    // In the meantime, the client may have been closed, or may have begun another attempt.
    if (connection !== this.#connection) return;
    const Socket = this.#options.WebSocket ?? (globalThis.WebSocket as Options["WebSocket"]);
    if (!Socket) {
      const help = "there is no WebSocket here: give the one of the package `ws` as the option `WebSocket`";
      return this.#end(new LanternError("no_websocket", help));
    }
    let socket: WebSocketLike;
    try {
      socket = connection.socket = new Socket(this.url, [SUBPROTOCOL]);
    } catch (error) {
      return this.#end(new LanternError("refused", `the address ${this.url} cannot be used: ${error}`));
    }
    socket.onopen = () => {
      const hello: ClientMessage = { t: "hello", ...(ticket != null && { token: ticket }) };
      if (connection === this.#connection) this.#send(hello);
    };
    socket.onmessage = ({ data }: { data: unknown }) => {
      if (connection !== this.#connection) return;
      connection.receivedAt = Date.now();
      this.#doubted = false;
      try {
        this.#take(connection, parse(data as string) as ServerMessage);
      } catch (error) {
        this.#lost(connection, `a message that cannot be read: ${error}`);
      }
    };
    // `onclose` is called next.
    socket.onerror = () => {};
    socket.onclose = ({ code, reason }: { code: number; reason: string }) => this.#lost(connection, reason, code);
  }

  #send(message: ClientMessage): void {
    try {
      this.#connection?.socket?.send(stringify(message));
    } catch {
      // The socket is closing, and `onclose` is called next.
    }
  }

  /**
   * Ends a connection that has failed, or that the client does not need any more. `why` is the
   * reason.
   */
  #lost(connection: Connection, why: string, code?: number): void {
    if (connection !== this.#connection) return;
    this.#hangUp();
    this.#diagnose({ what: "lost", message: why, ...(code !== undefined && { code }) });
    const lasted = Date.now() - connection.openedAt;
    if (connection.useful && lasted >= STEADY_MS) this.#failures = 0;
    // If the server refuses a ticket, the client requests a new one. If the server refuses this one
    // as well, the error is final.
    const again = code === UNAUTHORIZED && this.#options.ticket !== undefined && this.#why !== "refused";
    if (code !== undefined && isFinal(code) && !again) {
      return this.#end(new LanternError("refused", `the server closed the connection with ${code}: ${why}`));
    }
    this.#why = again ? "refused" : "lost";
    for (const table of this.#wanted) table.behind(table.error);
    const waitMs = this.#pause(code);
    this.#failures += 1;
    this.#diagnose({ what: "retry", waitMs });
    this.#retry = setTimeout(() => this.#reconnect(), waitMs);
  }

  #pause(code?: number): number {
    const { backoffMinMs: minMs = 250, backoffMaxMs: maxMs = 30_000, shutdownSpreadMs = 2_000 } = this.#options;
    if (code === SHUTTING_DOWN && this.#failures === 0) return Math.random() * shutdownSpreadMs;
    return code === TOO_MANY ? longPause({ minMs, maxMs }) : pause({ minMs, maxMs }, this.#failures);
  }

  #reconnect(): void {
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#start();
  }

  /** Drops the socket, and all that belongs to it. */
  #hangUp(): void {
    const socket = this.#connection?.socket;
    this.#connection = undefined;
    for (const { timer } of this.#later.values()) clearTimeout(timer);
    this.#later.clear();
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(1000);
  }

  /** No table has a reader. */
  #stop(): void {
    this.#hangUp();
    clearTimeout(this.#retry);
    clearInterval(this.#looks);
    this.#retry = this.#looks = undefined;
    globalThis.removeEventListener?.("online", this.#wake);
    globalThis.document?.removeEventListener("visibilitychange", this.#wake);
  }

  #end(error: LanternError): void {
    if (this.#closed) return;
    this.#closed = error;
    this.#stop();
    for (const table of [...this.#wanted]) table.set("closed", error);
    this.#wanted.clear();
    this.#tables.clear();
  }

  // ------------------------------------------------------------- clock

  #look(): void {
    const now = Date.now();
    const passed = now - this.#lookedAt;
    this.#lookedAt = now;
    if (passed < 0 || passed > LOOK_MS + JUMP_MS) this.#wake();
    const connection = this.#connection;
    if (!connection) return;
    if (!connection.welcome && now - connection.openedAt > (this.#options.connectMs ?? 10_000)) {
      return this.#lost(connection, "no welcome in time");
    }
    const silence = now - connection.receivedAt;
    const most = connection.heartbeatMs * (this.#doubted ? 1 : 2) + GRACE_MS;
    if (connection.welcome && silence > most) this.#lost(connection, "the server sent nothing for too long");
  }

  /**
   * Is called when the page is visible again, the network is back, or the machine has slept. Ends
   * the wait before the next attempt.
   */
  #wake = (): void => {
    if (globalThis.document?.visibilityState === "hidden") return;
    this.#diagnose({ what: "wake" });
    const now = Date.now();
    this.#lookedAt = now;
    const connection = this.#connection;
    if (connection) {
      // If the clock was set back, these times are in the future.
      connection.openedAt = Math.min(connection.openedAt, now);
      connection.receivedAt = Math.min(connection.receivedAt, now);
      this.#doubted = connection.welcome;
      if (!connection.welcome || now - connection.receivedAt <= connection.heartbeatMs + GRACE_MS) return;
      this.#lost(connection, "the server sent nothing for too long");
    }
    if (this.#retry !== undefined) this.#reconnect();
  };

  // ---------------------------------------------------------- messages

  #take(connection: Connection, message: ServerMessage): void {
    switch (message.t) {
      case "welcome":
        if (connection.welcome) return;
        connection.welcome = true;
        connection.heartbeatMs = Math.max(1, message.heartbeat_ms);
        connection.ackEvery = Math.max(1, message.limits.window >> 2);
        this.#why = "lost";
        this.#diagnose({ what: "open" });
        for (const table of this.#wanted) this.#subscribe(table);
        return;
      case "ping":
        this.#acknowledge(connection);
        return this.#send({ t: "pong" });
      case "ok": {
        const sub = connection.subs.get(message.id);
        if (!sub) return;
        connection.channels.set(message.ch, sub);
        const change = sub.table.mirror.accepted(message);
        if (message.resumed) this.#diagnose({ what: "resume", table: sub.table.name });
        return change && sub.table.notify(change);
      }
      case "err": {
        const sub = this.#forget(message.id);
        if (!sub) return;
        const error = new LanternError(message.code, message.msg, message);
        return message.retry ? this.#tryLater(sub.table, error) : this.#finish(sub.table, error);
      }
      case "end": {
        const sub = this.#forget(message.id);
        return sub && this.#finish(sub.table, new LanternError(message.code ?? "ended", message.why, message));
      }
      case "reset": {
        const table = connection.channels.get(message.ch)?.table;
        if (!table) return;
        table.mirror.interrupt();
        table.mirror.described(message);
        this.#diagnose({ what: "reset", table: table.name, message: message.why });
        table.notify({ type: "reset", why: message.why });
        return table.behind();
      }
      case "snap":
      case "delta":
      case "tick":
        return this.#data(connection, message);
    }
  }

  #tryLater(table: Table<any>, error: LanternError): void {
    const { backoffMinMs: minMs = 250, backoffMaxMs: maxMs = 30_000 } = this.#options;
    const failures = this.#later.get(table)?.failures ?? 0;
    const timer = setTimeout(() => this.#subscribe(table), pause({ minMs, maxMs }, failures));
    this.#later.set(table, { timer, failures: failures + 1 });
    table.behind(error);
  }

  #data(connection: Connection, frame: { t: string } & (Snapshot | Delta | Tick)): void {
    connection.received += 1;
    const sub = connection.channels.get(frame.ch);
    if (sub) this.#apply(connection, sub, frame);
    // A reader may have closed the client in the meantime.
    if (connection === this.#connection && connection.received - connection.acked >= connection.ackEvery)
      this.#acknowledge(connection);
  }

  #apply(connection: Connection, sub: Subscription, frame: { t: string } & (Snapshot | Delta | Tick)): void {
    const { table } = sub;
    const { mirror } = table;
    const changed: Change<any> | typeof GAP | undefined =
      frame.t === "snap"
        ? mirror.snap(frame as Snapshot)
        : frame.t === "delta"
          ? mirror.delta(frame as Delta)
          : mirror.tick(frame as Tick);
    if (changed === GAP) {
      // Only a snapshot is safe in this case.
      this.#diagnose({ what: "gap", table: table.name });
      mirror.token = undefined;
      this.#unsubscribe(sub);
      return this.#subscribe(table);
    }
    if (!changed) return;
    connection.useful = true;
    this.#later.delete(table);
    table.notify(changed);
    // A reader may have closed the table in the meantime.
    if (this.#wanted.has(table) && mirror.current) table.set("live");
  }

  #acknowledge(connection: Connection): void {
    if (connection.acked === connection.received) return;
    connection.acked = connection.received;
    this.#send({ t: "ack", n: connection.received });
  }

  #diagnose(event: Diagnostic): void {
    this.#options.onDiagnostic?.(event);
  }
}

/** Whether the server would also close another connection with the same request. */
function isFinal(code: number): boolean {
  return [1002, 1003, 1007].includes(code) || (code >= 4400 && code < 4500 && code !== TOO_MANY);
}

/**
 * A client of the feed at `url`: `ws://host:port/v1/feed`, or in a browser also a path such as
 * `/v1/feed`. This call opens no connection. `S` is the type of the server's tables;
 * `lantern types` writes it.
 */
export function connect<S extends object = AnyTables>(url: string, options: Options = {}): Client<S> {
  const base = globalThis.location?.href;
  const full = base ? new URL(url, base).href : url;
  return new Client<S>(full.replace(/^http/, "ws"), options);
}
