// What a table screen shows, as the parameters of its address. They are those of
// `GET /v1/tables/{projection}/{table}`, so that an address is also a request.
import type { Condition, Query } from "../../clients/ts/src/index.js";
import type { FieldStatus } from "./api-types.js";
import { isNumber } from "./format.js";

export interface TableQuery {
  /** Conditions such as `cents >= 100`. */
  readonly where: readonly string[];
  /** A field, with `-` before it for the largest first; empty for the order of keys. */
  readonly order: string;
  /** The shown fields; empty for all. */
  readonly cols: readonly string[];
  /** The beginning of the keys. */
  readonly prefix: string;
  /** A version other than the active one. */
  readonly version: string;
}

export function fromAddress(search: string): TableQuery {
  const params = new URLSearchParams(search);
  return {
    where: params.getAll("where").filter((text) => text !== ""),
    order: params.get("order") ?? "",
    cols: (params.get("cols") ?? "").split(",").filter((name) => name !== ""),
    prefix: params.get("prefix") ?? "",
    version: params.get("version") ?? "",
  };
}

/** The parameters of the request, without those that have their default. */
export function parameters(query: TableQuery): URLSearchParams {
  const params = new URLSearchParams();
  for (const condition of query.where) params.append("where", condition);
  if (query.prefix !== "") params.set("prefix", query.prefix);
  if (query.order !== "") params.set("order", query.order);
  if (query.cols.length > 0) params.set("cols", query.cols.join(","));
  if (query.version !== "") params.set("version", query.version);
  return params;
}

/**
 * Puts `query` into the parameters `search` of an address. Parameters that do not belong to a query
 * stay.
 */
export function inAddress(search: string, query: TableQuery): string {
  const params = new URLSearchParams(search);
  for (const name of ["where", "order", "cols", "prefix", "version"]) params.delete(name);
  for (const [name, value] of parameters(query)) params.append(name, value);
  const text = params.toString();
  return text === "" ? "" : `?${text}`;
}

/** A field as far as conditions need it. */
type Kinded = Pick<FieldStatus, "name" | "kind">;

/**
 * The query as the feed takes it; `null` if the feed cannot show it. The feed has rows of
 * the active version in the order of keys. A condition that this page cannot read is left
 * to the server, which knows all forms.
 */
export function feedQuery({ where, order, cols, version }: TableQuery, fields: readonly Kinded[]): Query | null {
  if (version !== "" || !["", "key", "-key"].includes(order)) return null;
  const known = cols.every((name) => fields.some((field) => field.name === name));
  const conditions = where.map((text) => parsed(text, fields));
  if (!known || !conditions.every((one) => one !== null)) return null;
  return { ...(conditions.length > 0 && { where: conditions }), ...(cols.length > 0 && { cols }) };
}

/** The field, the operator and the value in the text of a condition; `null` if it has another form. */
export function conditionParts(text: string): { name: string; operator: string; value: string } | null {
  const found = /^\s*([A-Za-z0-9_-]+)\s*(!=|<=|>=|=|<|>|\sin\s|\sprefix\s)\s*(.*?)\s*$/s.exec(text);
  return found && { name: found[1]!, operator: found[2]!.trim(), value: found[3]! };
}

/** A condition of an address as the feed takes it; `null` if this page cannot read it. */
export function parsed(text: string, fields: readonly Kinded[]): Condition | null {
  const found = conditionParts(text);
  const field = fields.find((one) => one.name === found?.name);
  if (!found || !field || found.value === "") return null;
  const { operator: word, value: of } = found;
  if (of === "null") return word === "=" || word === "!=" ? [field.name, word, null] : null;
  if (!operators(field.kind).includes(word)) return null;
  if (word !== "in") {
    const value = literal(field.kind, of);
    return value === null ? null : ([field.name, word, value] as Condition);
  }
  // Values with commas in quotes are left to the server.
  const parts = of.startsWith("[") ? [] : of.split(",").map((part) => part.trim());
  const values = parts.map((part) => (/^"[^"]*$|^[^"]*"$/.test(part) ? null : literal(field.kind, part)));
  return values.length > 0 && values.every((value) => value !== null) ? [field.name, "in", values] : null;
}

/** A value of a condition as JSON has it. No digit of an integer is lost. */
function literal(kind: string, text: string): string | number | bigint | boolean | null {
  if (kind === "integer") {
    if (!/^-?\d+$/.test(text)) return null;
    return Number.isSafeInteger(Number(text)) ? Number(text) : BigInt(text);
  }
  if (kind === "number") return /^-?\d+(\.\d+)?([eE][+-]?\d+)?$/.test(text) && Number.isFinite(Number(text)) ? Number(text) : null;
  if (kind === "boolean") return text === "true" ? true : text === "false" ? false : null;
  if (kind !== "text" && kind !== "timestamp") return null;
  if (!text.startsWith('"')) return text;
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "string" ? value : null;
  } catch {
    return null;
  }
}

/** The operators that a kind of field has. */
export function operators(kind: string): string[] {
  const set = ["= null", "!= null"];
  if (isNumber(kind) || kind === "timestamp") return ["=", "!=", "<", "<=", ">", ">=", "in", ...set];
  if (kind === "text") return ["=", "!=", "prefix", "<", "<=", ">", ">=", "in", ...set];
  return kind === "boolean" ? ["=", "!=", ...set] : set;
}

/** A condition as the server reads it. Text is quoted, so that any text can be looked for. */
export function condition(field: Kinded, operator: string, value: string): string {
  if (operator.endsWith("null")) return `${field.name} ${operator}`;
  if (field.kind !== "text") return `${field.name} ${operator} ${value.trim()}`;
  const quoted = operator === "in" ? value.split(",").map((one) => JSON.stringify(one.trim())).join(",") : JSON.stringify(value);
  return `${field.name} ${operator} ${quoted}`;
}

/** The order after a click on a column: ascending, descending, then that of the keys again. */
export function nextOrder(order: string, column: string): string {
  const first = column === "key" ? "" : column;
  if (order === first) return `-${column}`;
  return order === `-${column}` ? "" : first;
}
