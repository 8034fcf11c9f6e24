// Comparing two versions of a projection, as the parameters of an address.
import type { ProjectionStatus, TableDiff, VersionStatus } from "./api-types.js";
import { count } from "./format.js";
import { path, read, withParams } from "./problem.js";
import { tables } from "./server.js";

export interface Comparison {
  /** The ids of the versions, or the first characters of the ids. */
  readonly left: string;
  readonly right: string;
  /** The shown table; empty for all. */
  readonly table: string;
  /** The beginning of the keys. */
  readonly prefix: string;
}

export function comparisonOf(query: { readonly [name: string]: string }): Comparison {
  const text = (name: string): string => query[name] ?? "";
  return { left: text("left"), right: text("right"), table: text("table"), prefix: text("prefix") };
}

/** The address of a comparison, without the parameters that are empty. */
export function comparisonAddress(projection: string, of: Partial<Comparison>): string {
  return withParams(`/p${path(projection)}/compare`, { ...of });
}

/** The version whose id begins with `id`. */
function named(versions: readonly VersionStatus[], id: string): VersionStatus | undefined {
  return id === "" ? undefined : versions.find((version) => version.id.startsWith(id));
}

/**
 * The two versions of a comparison. Without a choice, the active version is on the left, and the newest
 * other version is on the right. If there are no two such versions, returns the reason as a sentence.
 */
export function sides({ name, versions, active }: ProjectionStatus, { left, right }: Comparison): { left: VersionStatus; right: VersionStatus } | string {
  for (const id of [left, right]) if (id !== "" && !named(versions, id)) return `${name} has no version ${id}.`;
  const chosen = named(versions, right);
  const first = named(versions, left) ?? versions.find(({ id }) => id === active && id !== chosen?.id) ?? versions.find(({ id }) => id !== chosen?.id);
  const second = chosen ?? [...versions].reverse().find(({ id }) => id !== first?.id);
  if (!first || !second) return `${name} has only one version.`;
  return first.id === second.id ? "Choose two different versions." : { left: first, right: second };
}

/** A table of two versions, and which of them have it. */
export interface ComparedTable {
  readonly name: string;
  readonly in: "both" | "left" | "right";
}

export function comparedTables(left: VersionStatus, right: VersionStatus): ComparedTable[] {
  const names = (version: VersionStatus): string[] => tables(version).map(({ name }) => name);
  const [first, second] = [names(left), names(right)];
  const all = [...first, ...second.filter((name) => !first.includes(name))];
  return all.map((name) => ({ name, in: !second.includes(name) ? "left" : !first.includes(name) ? "right" : "both" }));
}

/** The maximum number of differences of a table, if all tables are compared and if only one is. */
const DIFFERENCES = 20;
const DIFFERENCES_ALONE = 500;
/** How long the server waits for both versions to fold the same offsets. */
const WAIT = "5s";

export function tableDiff(projection: string, table: string, { left, right, prefix, table: alone }: Comparison, signal: AbortSignal): Promise<TableDiff> {
  const limit = String(alone === table ? DIFFERENCES_ALONE : DIFFERENCES);
  return read(withParams(`/v1/tables${path(projection, table)}/diff`, { left, right, wait: WAIT, limit, prefix }), { signal });
}

/** The offsets before which the events of two versions were compared, in words. */
export function offsetsText({ offsets }: Pick<TableDiff, "offsets">): string {
  return Object.entries(offsets)
    .map(([partition, next]) => `partition ${partition} before offset ${count(next)}`)
    .join(", ");
}
