// Live tables in Svelte: `$state` of a store.
import type { State, Table } from "./index.js";

/**
 * The state of a table as a readable store. While a server renders the page, no connection is
 * opened.
 */
export function tableStore<R>(table: Table<R>): { subscribe(run: (state: State<R>) => void): () => void } {
  return {
    subscribe(run) {
      run(table.state);
      return typeof window === "undefined" ? () => {} : table.subscribe(() => run(table.state));
    },
  };
}
