// Downloads of a table's rows.
import { path, send } from "./problem.js";
import { parameters, type TableQuery } from "./query.js";

/** How many rows a request gets. */
const PAGE_ROWS = 10_000;

export const FORMATS = { csv: "text/csv", ndjson: "application/x-ndjson" } as const;
export type Format = keyof typeof FORMATS;

/** Rows as text, and the commits of their pages. */
export interface Downloaded {
  readonly text: string[];
  readonly commits: ReadonlySet<string>;
}

/** Reads all pages. `onPage` is called with the number of pages so far. */
export async function download(projection: string, table: string, query: TableQuery, format: Format, onPage: (pages: number) => void): Promise<Downloaded> {
  const text: string[] = [];
  const commits = new Set<string>();
  const params = parameters(query);
  params.set("limit", String(PAGE_ROWS));
  for (;;) {
    const answer = await send(`/v1/tables${path(projection, table)}?${params}`, { headers: { accept: FORMATS[format] } });
    commits.add(`${answer.headers.get("lantern-epoch")} ${answer.headers.get("lantern-commit")}`);
    const page = await answer.text();
    // In CSV, the first line of every page has the names of the columns. Only that of the
    // first page is kept.
    text.push(format === "csv" && text.length > 0 ? withoutHead(page) : page);
    onPage(text.length);
    const next = answer.headers.get("lantern-next");
    if (next === null) return { text, commits };
    params.set("cursor", next);
  }
}

/** A page without its first line. A name of a column may contain a line break in quotes. */
export function withoutHead(page: string): string {
  let quoted = false;
  for (let at = 0; at < page.length; at += 1) {
    if (page[at] === '"') quoted = !quoted;
    else if (page[at] === "\n" && !quoted) return page.slice(at + 1);
  }
  return "";
}

/** Gives the browser a file to save. */
export function save(name: string, parts: string[], media: string): void {
  const url = URL.createObjectURL(new Blob(parts, { type: media }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
