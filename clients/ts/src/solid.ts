// Live tables in Solid.
import { type Accessor, createEffect, createSignal, onCleanup, untrack } from "solid-js";
import type { State, Table } from "./index.js";

/**
 * The state of a table as a signal. `table` may be a function that reads signals, such as
 * `() => client.table("shop/orders", { where: [["country", "=", country()]] })`. While a server
 * renders the page, no connection is opened.
 */
export function fromTable<R>(table: Table<R> | (() => Table<R>)): Accessor<State<R>> {
  const current = typeof table === "function" ? table : () => table;
  const [state, set] = createSignal(untrack(current).state);
  createEffect(() => {
    const shown = current();
    const update = (): void => void set(() => shown.state);
    onCleanup(shown.subscribe(update));
    update();
  });
  return state;
}
