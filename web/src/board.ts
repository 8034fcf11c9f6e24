// Boards: panes of tables, numbers and charts, stored on the server as JSON.
import { parse, stringify } from "../../clients/ts/src/json.js";
import type { FieldStatus, ProjectionStatus } from "./api-types.js";
import { Problem, path, read, send } from "./problem.js";
import { condition, conditionParts, operators } from "./query.js";
import { usual } from "./rollup.js";
import { allTables } from "./server.js";

/** The version of the document's form. A page refuses documents of a later form. */
export const FORMAT = 1;

/** The columns of a board, and the largest height of a pane in rows of the board. */
export const COLUMNS = 12;
export const HEIGHT_MAX = 8;
/** How many rows a pane of rows has at most. */
export const ROWS_MAX = 1000;

export const KINDS = ["number", "chart", "table"] as const;

/** A part of a board. It has the members of all kinds, so that no member is lost if its kind is changed and changed back. */
export interface Pane {
  /** One of `KINDS`; another text is of a later page. */
  readonly kind: string;
  readonly title: string;
  /** Projection, `/`, table. */
  readonly table: string;
  /** Conditions such as `cents >= 100`, or `product = $product` with a variable. */
  readonly where: readonly string[];
  readonly width: number;
  readonly height: number;
  /** Of rows: a field, with `-` before it for the largest first; empty for the order of keys. */
  readonly order: string;
  readonly cols: readonly string[];
  readonly limit: number;
  /** Of numbers and charts: `sum(cents)`. */
  readonly agg: string;
  /** Of charts, as in `ChartQuery`. */
  readonly time: string;
  readonly bucket: string;
  readonly by: string;
}

/** A value that conditions of panes name as `$name`. It is chosen on the board. */
export interface Variable {
  readonly name: string;
  /** The value before another one is chosen; empty for all rows. */
  readonly value: string;
  /** The table and field whose values are offered; empty for a free text. */
  readonly table: string;
  readonly field: string;
}

export interface Board {
  readonly format: number;
  readonly title: string;
  readonly variables: readonly Variable[];
  readonly panes: readonly Pane[];
}

export const NEW_PANE: Pane = { kind: "table", title: "", table: "", where: [], width: 6, height: 3, order: "", cols: [], limit: 100, agg: "count()", time: "", bucket: "", by: "" };
export const NEW_VARIABLE: Variable = { name: "", value: "", table: "", field: "" };

/** An object with the defaults in place of members that are missing or of another type. Other members are kept. */
function withDefaults<T extends object>(value: unknown, defaults: T): T {
  const given = value !== null && typeof value === "object" && !Array.isArray(value) ? (value as { [name: string]: unknown }) : {};
  const wrong = Object.entries(defaults).filter(([name, usual]) => !Object.hasOwn(given, name) || !sameType(given[name], usual));
  return { ...given, ...Object.fromEntries(wrong) } as T;
}

function sameType(value: unknown, usual: unknown): boolean {
  if (Array.isArray(usual)) return Array.isArray(value) && value.every((one) => typeof one === "string");
  return typeof value === typeof usual && value !== null;
}

function within(value: number, least: number, most: number): number {
  return Math.min(most, Math.max(least, Math.round(value)));
}

/** The board in a document. Members that this page does not know are kept. */
export function boardOf(document: unknown): Board {
  const board = withDefaults(document, { format: FORMAT, title: "" }) as { format: number; title: string; variables?: unknown; panes?: unknown };
  if (board.format > FORMAT) throw new Problem("page", `The board has the form ${board.format}, and this page knows forms up to ${FORMAT}.`, "Update the server, whose page is then newer.");
  const list = (of: unknown): unknown[] => (Array.isArray(of) ? of : []);
  const panes = list(board.panes).map((pane) => sized(withDefaults(pane, NEW_PANE)));
  return { ...board, variables: list(board.variables).map((variable) => withDefaults(variable, NEW_VARIABLE)), panes };
}

/** The pane with a size and a number of rows within their limits. */
export function sized(pane: Pane): Pane {
  return { ...pane, width: within(pane.width, 2, COLUMNS), height: within(pane.height, 1, HEIGHT_MAX), limit: within(pane.limit, 1, ROWS_MAX) };
}

/** The list with the element at `from` at the place `to`. */
export function moved<T>(list: readonly T[], from: number, to: number): T[] {
  const rest = list.filter((_, at) => at !== from);
  return [...rest.slice(0, to), ...list.slice(from, from + 1), ...rest.slice(to)];
}

/** The prefix of variables in an address: `?var-product=p1`. */
const IN_ADDRESS = "var-";

/** The parameter of the address that has a variable's value. */
export function parameterOf(name: string): string {
  return IN_ADDRESS + name;
}

/** The values of variables: those in the address, otherwise those of the board. */
export function valuesOf(variables: readonly Variable[], search: { readonly [name: string]: string | undefined }): ReadonlyMap<string, string> {
  return new Map(variables.map(({ name, value }) => [name, search[parameterOf(name)] ?? value]));
}

/**
 * Conditions with values in place of variables. A condition with a variable that has no
 * value is left out, so that it selects all rows.
 */
export function filled(where: readonly string[], values: ReadonlyMap<string, string>, fields: readonly Pick<FieldStatus, "name" | "kind">[]): string[] {
  return where.flatMap((text) => {
    const parts = conditionParts(text);
    const variable = parts && /^\$(\w+)$/.exec(parts.value)?.[1];
    const value = variable ? values.get(variable) : undefined;
    if (!parts || value === undefined) return [text];
    if (value === "") return [];
    const { name, operator } = parts;
    const kind = fields.find((field) => field.name === name)?.kind ?? "text";
    return [operators(kind).includes(operator) ? condition({ name, kind }, operator, value) : `${name} ${operator} ${value}`];
  });
}

/** A pane that fits a table: a chart over time, otherwise bars, otherwise its rows. */
export function paneFor(table: string, fields: readonly FieldStatus[]): Pane {
  const chart = usual(fields);
  const kind = chart.time !== "" || chart.by !== "" ? "chart" : "table";
  return { ...NEW_PANE, ...chart, kind, table };
}

const FIRST_PANES_MAX = 4;

/** The first panes of a new board: one for each of the first tables. */
export function firstPanes(projections: readonly ProjectionStatus[]): Pane[] {
  return [...allTables(projections)].slice(0, FIRST_PANES_MAX).map(([name, fields]) => paneFor(name, fields));
}

/** A board as the server lists it. */
export interface BoardSummary {
  readonly name: string;
  readonly title?: string;
  readonly changed_us: number;
  readonly etag: string;
}

/** A board with the tag of its document. */
export interface Stored {
  readonly board: Board;
  readonly etag: string;
}

const BOARDS = "/v1/boards";

export async function listBoards(signal: AbortSignal): Promise<readonly BoardSummary[]> {
  return (await read<{ boards: BoardSummary[] }>(BOARDS, { signal })).boards;
}

/** Reads a board. If it is still the one before, that one is returned. */
export async function loadBoard(name: string, signal?: AbortSignal, before: Stored | null = null): Promise<Stored> {
  const headers: HeadersInit = before ? { "if-none-match": before.etag } : {};
  const answer = await send(BOARDS + path(name), { headers, ...(signal && { signal }) }, 304);
  if (answer.status === 304 && before) return before;
  return { board: boardOf(parse(await answer.text())), etag: answer.headers.get("etag") ?? "" };
}

/** Stores a board in place of the one with the tag `etag`; without a tag as a new one. */
export async function storeBoard(name: string, board: Board, etag: string | null): Promise<Stored> {
  const condition: HeadersInit = etag === null ? { "if-none-match": "*" } : { "if-match": etag };
  const answer = await send(BOARDS + path(name), { method: "PUT", body: stringify(board, 1), headers: { "content-type": "application/json", ...condition } });
  return { board, etag: answer.headers.get("etag") ?? "" };
}

export async function deleteBoard({ name, etag }: BoardSummary): Promise<void> {
  await send(BOARDS + path(name), { method: "DELETE", headers: { "if-match": etag } });
}

/** A name for a board with a title: letters, digits, `-` and `_`. */
export function boardName(title: string): string {
  const name = title.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").toLowerCase().replace(/[^a-z0-9_]+/g, "-");
  return name.replace(/^-+|-+$/g, "").slice(0, 64) || "board";
}
