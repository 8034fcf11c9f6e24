// Reads several tables of one projection at the same commit.
import type { Table } from "./table.js";
import type { State } from "./types.js";

/** The states of tables. */
export type States<T extends readonly Table<any>[]> = { readonly [I in keyof T]: T[I] extends Table<infer R> ? State<R> : never };

/** Tables of one projection whose states are read together: all have the same commit. */
export class Together<T extends readonly Table<any>[]> {
  readonly tables: T;
  #states: States<T> | undefined;

  /** @internal */
  constructor(tables: T) {
    const projection = (table: Table<any>): string => table.name.slice(0, table.name.lastIndexOf("/"));
    if (tables.some((table) => projection(table) !== projection(tables[0]!)))
      throw new TypeError("only tables of one projection have the same commits");
    // While events arrive, the server brings roll-ups to later commits than tables.
    if (tables.some(({ query }) => !query.rollup !== !tables[0]!.query.rollup))
      throw new TypeError("roll-ups have the same commits as other roll-ups, and not as tables");
    this.tables = tables;
  }

  /** The states at the newest commit that all tables have had; `null` before there is one. */
  get states(): States<T> | null {
    this.#look();
    return this.#states ?? null;
  }
  readonly getStates = (): States<T> | null => this.states;
  readonly getServerStates = (): States<T> | null => null;

  /** Calls `told` when all tables have reached another commit, or the status of one changes. */
  readonly subscribe = (told: () => void): (() => void) => {
    const look = (): void => {
      if (this.#look()) told();
    };
    const stops = this.tables.map((table) => table.onChange(look));
    return () => {
      for (const stop of stops.splice(0)) stop();
    };
  };

  /** Takes over the tables' states if all have the same commit, otherwise only their statuses. */
  #look(): boolean {
    const [first] = this.tables;
    const same = this.tables.every((t) => t.commit !== null && t.commit === first?.commit && t.epoch === first.epoch);
    const old = this.#states;
    const next = this.tables.map((table, i) => {
      if (same) return table.state;
      const { status, error } = table;
      const before = old?.[i];
      return before && (before.status !== status || before.error !== error) ? { ...before, status, error } : before;
    });
    if (old ? next.every((state, i) => state === old[i]) : !same) return false;
    this.#states = next as unknown as States<T>;
    return true;
  }
}
