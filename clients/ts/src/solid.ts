// Live tables in Solid.
import { type Accessor, createSignal, onCleanup, onMount } from "solid-js";
import type { State, Table } from "./index.js";

/** The state of a table as a signal. Nothing is opened while a server renders. */
export function fromTable<R>(table: Table<R>): Accessor<State<R>> {
  const [state, set] = createSignal(table.state);
  const update = (): void => void set(() => table.state);
  onMount(() => onCleanup(table.subscribe(update)));
  return state;
}
