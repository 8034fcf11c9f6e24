// Live tables in React.
import { useSyncExternalStore } from "react";
import type { State, States, Table, Together } from "./index.js";

/** The state of a table. The component renders again after every change. */
export function useTable<R>(table: Table<R>): State<R> {
  return useSyncExternalStore(table.subscribe, table.getState, table.getServerState);
}

/** The states of tables of one projection, all at one commit; `null` before there are any. */
export function useTogether<T extends readonly Table<any>[]>(together: Together<T>): States<T> | null {
  return useSyncExternalStore(together.subscribe, together.getStates, together.getServerStates);
}
