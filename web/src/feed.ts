// The connections to the feed, which all live tables and roll-ups share.
import { computed, type ReadonlySignal } from "@preact/signals";
import { type Change, type Client, connect, type Row, type Table } from "../../clients/ts/src/index.js";
import { now } from "./polled.js";

/** How many connections there are at most. The server limits the subscriptions of one connection. */
const CONNECTIONS_MAX = 8;

const clients: Client[] = [];
const lost = new Set<Client>();

/** The connection number `at`, which is opened when it has a subscription. */
function connection(at: number): Client {
  for (let next = clients.length; next <= at; next += 1) {
    const client: Client = connect("/v1/feed", {
      // A server that was restarted should be shown again soon.
      backoffMaxMs: 5000,
      onDiagnostic: ({ what }) => {
        if (what === "open") lost.delete(client);
        if (what === "lost") lost.add(client);
      },
    });
    clients.push(client);
  }
  return clients[at]!;
}

/** Whether a connection is lost, and its client tries to connect again. A connection without a reader does not count. */
export const feedLost: ReadonlySignal<boolean> = computed(() => now.value > 0 && [...lost].some((client) => client.status === "connecting"));

/**
 * Returns a function that calls `draw` in the next animation frame, once for all its calls until then.
 * A hidden page has no animation frames, so nothing is drawn.
 */
export function perFrame(draw: () => void): () => void {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  };
}

/**
 * A table or a roll-up of the feed. If the server allows no more subscriptions on a connection,
 * it moves to the next one.
 */
export class Subscription {
  #open: (client: Client) => Table<Row>;
  #at = 0;
  #table: Table<Row>;

  constructor(open: (client: Client) => Table<Row>) {
    this.#open = open;
    this.#table = open(connection(0));
  }

  get table(): Table<Row> {
    return this.#table;
  }

  /** Calls `told` after every change, until the returned function is called. */
  start(told: (change: Change<Row>) => void): () => void {
    let stop = (): void => {};
    const listen = (): void => {
      const unlisten = this.#table.onChange((change) => {
        const full = change.type === "status" && change.status === "closed" && change.error?.code === "too_many_subs";
        if (!full || this.#at + 1 >= CONNECTIONS_MAX) return told(change);
        unlisten();
        this.#at += 1;
        this.#table = this.#open(connection(this.#at));
        listen();
        return undefined;
      });
      stop = unlisten;
    };
    listen();
    return () => stop();
  }
}
