// How rows differ between two versions: which cells, and which part of a long text.
import { stringify } from "../../clients/ts/src/json.js";
import type { FieldChange, RowDifference } from "./api-types.js";
import { cell } from "./format.js";

/** The counts of a comparison, and its first differences, as the server answers them. */
export interface Differences {
  readonly same: number;
  readonly added: number;
  readonly removed: number;
  readonly changed: number;
  readonly fields: readonly FieldChange[];
  readonly differences: readonly RowDifference[];
  /** Whether there are more differences than `differences` contains. */
  readonly more: boolean;
}

/** What happened to a row, or to a declared field. */
export type DifferenceKind = "added" | "gone" | "changed";

export function kindOfDifference({ left, right }: Pick<RowDifference | FieldChange, "left" | "right">): DifferenceKind {
  return left == null ? "added" : right == null ? "gone" : "changed";
}

/** Whether no row and no declared field differs. */
export function areEqual({ added, removed, changed, fields }: Differences): boolean {
  return added + removed + changed + fields.length === 0;
}

/** A cell of a row that differs: its value, or its two values if they differ. */
export type CellDifference = { readonly same: string } | { readonly before: string | null; readonly after: string | null };

/** How many characters of a text are shown before the first one that differs. */
const CONTEXT_CHARS = 20;

/**
 * Compares a field of a row that both sides have. If a side lacks the field, its value is `null`. If two
 * long texts differ only after the part that a cell shows, the values are the parts that differ.
 */
export function changedCell(kind: string, field: string, { left, right }: RowDifference): CellDifference {
  const [before, after] = [left, right].map((row) => row?.[field]);
  const isSame = before === after || stringify(before ?? null) === stringify(after ?? null);
  // A field without a value is not the same as no field.
  if (isSame && (before === undefined) === (after === undefined)) return { same: cell(kind, after) };
  const texts = [before, after].map((value) => (value === undefined ? null : cell(kind, value)));
  if (texts[0] !== texts[1]) return { before: texts[0]!, after: texts[1]! };
  const [from, to] = [before, after].map((value) => [...(typeof value === "string" ? value : stringify(value))]);
  let at = 0;
  while (at < from!.length && from![at] === to![at]) at += 1;
  const start = Math.max(0, at - CONTEXT_CHARS);
  const part = (text: string[]): string => `…${cell("text", text.slice(start).join(""))}`;
  return { before: part(from!), after: part(to!) };
}

/** A field as far as differences need it. */
export interface NamedField {
  readonly name: string;
  readonly kind: string;
}

/**
 * The columns of a table of differences: the declared fields, and then the other fields of the rows. Fields
 * that differ in a row come first, so that a small screen shows them.
 */
export function columnsOf(declared: readonly NamedField[], rows: readonly RowDifference[]): NamedField[] {
  const columns = new Map(declared.map((field) => [field.name, field]));
  for (const { left, right } of rows) {
    for (const name of Object.keys({ ...left, ...right })) if (!columns.has(name)) columns.set(name, { name, kind: "" });
  }
  const both = rows.filter((row) => kindOfDifference(row) === "changed");
  const differs = ({ name, kind }: NamedField): boolean => both.some((row) => !("same" in changedCell(kind, name, row)));
  const all = [...columns.values()].map((field) => ({ field, first: differs(field) }));
  return [...all.filter(({ first }) => first), ...all.filter(({ first }) => !first)].map(({ field }) => field);
}

/** The fields of both sides. If both sides have a field, it is taken from the first side. */
export function allFields(first: readonly NamedField[], second: readonly NamedField[]): NamedField[] {
  return [...first, ...second.filter(({ name }) => !first.some((field) => field.name === name))];
}

/** What has become of a declared field, in words. */
export function fieldText({ name, left, right }: FieldChange): string {
  if (left == null) return `${name} (${right}) is new`;
  if (right == null) return `${name} (${left}) is gone`;
  return `${name} is ${right} instead of ${left}`;
}
