// What a table screen shows, as the parameters of its address. They are those of
// `GET /v1/tables/{projection}/{table}`, so that an address is also a request.
import type { FieldStatus } from "./api-types.js";

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

/** Another query in the address `search`, whose other parameters stay. */
export function inAddress(search: string, query: TableQuery): string {
  const params = new URLSearchParams(search);
  for (const name of ["where", "order", "cols", "prefix", "version"]) params.delete(name);
  for (const [name, value] of parameters(query)) params.append(name, value);
  const text = params.toString();
  return text === "" ? "" : `?${text}`;
}

/** Whether the feed can show it: it has all rows of the active version, in the order of keys. */
export function isLive(query: TableQuery): boolean {
  return query.where.length === 0 && query.version === "" && ["", "key", "-key"].includes(query.order);
}

/** The operators that a kind of field has. */
export function operators(kind: string): string[] {
  const set = ["= null", "!= null"];
  if (kind === "integer" || kind === "number" || kind === "timestamp") return ["=", "!=", "<", "<=", ">", ">=", "in", ...set];
  if (kind === "text") return ["=", "!=", "prefix", "<", "<=", ">", ">=", "in", ...set];
  return kind === "boolean" ? ["=", "!=", ...set] : set;
}

/** A condition as the server reads it. Text is quoted, so that any text can be looked for. */
export function condition(field: FieldStatus, operator: string, value: string): string {
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
