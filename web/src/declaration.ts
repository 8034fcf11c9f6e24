// A declaration as a form: its text in YAML, and which field of the form a place in it is.
import type { LoggedEvent } from "./api-types.js";

/** A part of a row's key. */
export interface KeyPart {
  readonly name: string;
  readonly of: string;
}

/** What a column of a table is. */
export interface ColumnForm {
  readonly name: string;
  /** An aggregate of `AGGREGATES`, or `expression`. */
  readonly fn: string;
  readonly of: string;
  readonly where: string;
  readonly unit: string;
}

/** The kinds of windows with their keys in a declaration; the empty one is no window. */
export const WINDOWS = ["", "tumbling", "hopping", "session"] as const;

export interface WindowForm {
  readonly kind: (typeof WINDOWS)[number];
  readonly size: string;
  readonly every: string;
  readonly tz: string;
  readonly lateness: string;
  /** Whether a row is written once, when its window is over. */
  readonly final: boolean;
}

/** A declaration with one table. */
export interface DeclarationForm {
  readonly name: string;
  /** Event types, separated by commas. */
  readonly from: string;
  readonly where: string;
  readonly table: string;
  readonly key: readonly KeyPart[];
  readonly window: WindowForm;
  readonly columns: readonly ColumnForm[];
}

/** The aggregates of a column. */
export const AGGREGATES = ["count", "sum", "min", "max", "last", "first", "distinct", "percentiles"] as const;

export const NO_COLUMN: ColumnForm = { name: "", fn: "sum", of: "", where: "", unit: "" };
export const NO_PART: KeyPart = { name: "", of: "" };
export const NEW_FORM: DeclarationForm = {
  name: "",
  from: "",
  where: "",
  table: "totals",
  key: [NO_PART],
  window: { kind: "", size: "1h", every: "15m", tz: "", lateness: "", final: false },
  columns: [{ ...NO_COLUMN, name: "events", fn: "count" }],
};

/** Text of a line, and the field of the form that it is from. */
interface Segment {
  readonly field: string;
  readonly text: string;
}

/** A declaration in YAML. */
export interface Written {
  readonly text: string;
  /** The field of the form at a line and column, both counted from 1; `null` if there is none. */
  fieldAt(line: number, column: number): string | null;
}

/** Whether YAML reads the text as this text, without quotes. */
function isPlain(text: string): boolean {
  if (/^\d+(us|ms|s|m|h|d|w)$/.test(text)) return true;
  return /^[A-Za-z_(]/.test(text) && !/: |:$| #|\s$|[\t\n]/.test(text) && !/^(true|false|null|yes|no|on|off|y|n)$/i.test(text);
}

/** A value of YAML, in quotes if it needs them. */
function scalar(segments: readonly Segment[]): Segment[] {
  if (isPlain(segments.map(({ text }) => text).join(""))) return [...segments];
  const quoted = segments.map(({ field, text }) => ({ field, text: text.replaceAll("'", "''") }));
  return [{ field: "", text: "'" }, ...quoted, { field: "", text: "'" }];
}

/** The name that a part of a key has without one: `product` for `data.product`. */
export function partName({ name, of }: KeyPart): string {
  return name.trim() || (/([A-Za-z_]\w*)\s*(?:\)|"\])*\s*$/.exec(of)?.[1] ?? "key");
}

/** The event types of a form. */
export function typesOf(from: string): string[] {
  return from.split(",").map((type) => type.trim()).filter((type) => type !== "");
}

/** The value of a column: `sum(data.cents) where data.paid unit cent`. */
function columnValue({ fn, of, where, unit }: ColumnForm, field: string): Segment[] {
  const inner = { field: `${field}.of`, text: of.trim() };
  const value = fn === "expression" ? [inner] : [{ field: `${field}.fn`, text: `${fn}(` }, ...(fn === "count" ? [] : [inner]), { field: `${field}.fn`, text: ")" }];
  const after = (name: string, text: string): Segment[] => (text.trim() === "" ? [] : [{ field: `${field}.${name}`, text: ` ${name} ${text.trim()}` }]);
  return [...value, ...after("where", where), ...after("unit", unit)];
}

/** The form as YAML. Rows of the form that are empty are left out. */
export function written(form: DeclarationForm): Written {
  const lines: Segment[][] = [];
  const line = (indent: number, key: Segment | string, value?: readonly Segment[]): void => {
    const name = typeof key === "string" ? [{ field: "", text: key }] : scalar([key]);
    const of = value === undefined ? [] : [{ field: "", text: " " }, ...scalar(value)];
    lines.push([{ field: "", text: "  ".repeat(indent) }, ...name, { field: "", text: ":" }, ...of]);
  };
  const text = (field: string, of: string): Segment[] => [{ field, text: of.trim() }];
  line(0, "name", text("name", form.name));
  const types = typesOf(form.from);
  if (types.length === 1) line(0, "from", text("from", types[0]!));
  else {
    line(0, "from");
    for (const type of types) lines.push([{ field: "", text: "  - " }, ...scalar(text("from", type))]);
  }
  if (form.where.trim() !== "") line(0, "where", text("where", form.where));
  line(0, "tables");
  line(1, { field: "table", text: form.table.trim() });
  const parts = form.key.map((part, at) => ({ part, at })).filter(({ part }) => part.of.trim() !== "" || part.name.trim() !== "");
  if (parts.length > 0) line(2, "key");
  for (const { part, at } of parts) line(3, { field: `key.${at}.name`, text: partName(part) }, text(`key.${at}.of`, part.of));
  const { kind, size, every, tz, lateness, final } = form.window;
  if (kind !== "") {
    line(2, "window");
    line(3, kind, text("window.size", size));
    if (kind === "hopping") line(3, "every", text("window.every", every));
    if (tz.trim() !== "") line(3, "tz", text("window.tz", tz));
    if (lateness.trim() !== "") line(3, "lateness", text("window.lateness", lateness));
    if (final) line(3, "emit", [{ field: "window.final", text: "final" }]);
  }
  line(2, "columns");
  for (const [at, column] of form.columns.entries()) {
    if (column.name.trim() !== "" || column.of.trim() !== "") line(3, { field: `columns.${at}.name`, text: column.name.trim() }, columnValue(column, `columns.${at}`));
  }
  return { text: `${lines.map((segments) => segments.map((one) => one.text).join("")).join("\n")}\n`, fieldAt: (at, column) => fieldAt(lines[at - 1] ?? [], column) };
}

/** The field of the last segment that has a field and begins at or before the column; otherwise the first field of the line. */
function fieldAt(segments: readonly Segment[], column: number): string | null {
  let found: string | null = null;
  let start = 1;
  for (const { field, text } of segments) {
    if (field !== "" && (found === null || start <= column)) found = field;
    start += [...text].length;
  }
  return found;
}

/** What is missing before the server can be asked; `null` if nothing is. */
export function missing({ name, from, table, columns }: DeclarationForm): string | null {
  if (name.trim() === "") return "Give the projection a name.";
  if (typesOf(from).length === 0) return "Name the types of events to read.";
  if (table.trim() === "") return "Give the table a name.";
  return columns.some((column) => column.name.trim() !== "") ? null : "Add a column.";
}

/** Why the server refuses a declaration, and where. */
export interface Refusal {
  readonly line: number;
  readonly column: number;
  readonly message: string;
  readonly help: string;
}

/** The place in the server's message `NAME.yaml:LINE:COLUMN: …`; `null` if it names none. */
export function refusal(message: string): Refusal | null {
  const found = /\.yaml:(\d+):(\d+): ([^\n]*)/.exec(message);
  if (!found) return null;
  const help = /\nhelp: ([^\n]*)/.exec(message)?.[1] ?? "";
  return { line: Number(found[1]), column: Number(found[2]), message: found[3]!, help };
}

/** How deep members of data are suggested, and how many. */
const DEPTH_MAX = 3;
const SUGGESTED_MAX = 200;

/** What expressions can name in events of these types, with `data.` before members of data. */
export function suggested(events: readonly LoggedEvent[], from: string): { types: string[]; members: string[] } {
  const patterns = typesOf(from);
  const types = new Set<string>();
  const members = new Set<string>();
  const walk = (value: unknown, name: string, depth: number): void => {
    if (value !== null && typeof value === "object" && !Array.isArray(value) && depth < DEPTH_MAX) {
      for (const [member, of] of Object.entries(value)) walk(of, /^[A-Za-z_]\w*$/.test(member) ? `${name}.${member}` : `${name}[${JSON.stringify(member)}]`, depth + 1);
    } else if (depth > 0 && members.size < SUGGESTED_MAX) members.add(name);
  };
  for (const { event } of events) {
    const { type, data } = event as { type?: unknown; data?: unknown };
    if (typeof type !== "string") continue;
    types.add(type);
    if (patterns.length === 0 || patterns.some((pattern) => matches(pattern, type))) walk(data, "data", 0);
  }
  return { types: [...types].sort(), members: [...members].sort() };
}

/** Whether an event type fulfils a pattern: `order.placed`, `order.*` or `*`. */
export function matches(pattern: string, type: string): boolean {
  return pattern.endsWith("*") ? type.startsWith(pattern.slice(0, -1)) : pattern === type;
}
