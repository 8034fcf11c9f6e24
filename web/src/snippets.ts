// The request of a screen as code, with this server's address, table and fields.
import { stringify } from "../../clients/ts/src/json.js";
import type { FieldStatus } from "./api-types.js";
import { feedQuery, parameters, type TableQuery } from "./query.js";
import { path } from "./problem.js";

/** A text in quotes for a shell. */
export function shell(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

export function curl(origin: string, projection: string, table: string, query: TableQuery): string {
  const params = [...parameters(query)].map(([name, value]) => ` \\\n  --data-urlencode ${shell(`${name}=${value}`)}`);
  return `curl -G ${shell(`${origin}/v1/tables${path(projection, table)}`)}${params.join("")}`;
}

/** A value as TypeScript writes it: integers that a double cannot represent end with `n`. */
function literals(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(literals).join(", ")}]`;
  if (typeof value === "bigint") return `${value}n`;
  if (value === null || typeof value !== "object") return stringify(value);
  return `{ ${Object.entries(value).map(([name, of]) => `${name}: ${literals(of)}`).join(", ")} }`;
}

/** TypeScript: with the client if the feed has these rows, otherwise a request. */
export function typescript(origin: string, projection: string, table: string, query: TableQuery, fields: readonly Pick<FieldStatus, "name" | "kind">[]): string {
  const name = query.cols[0] ?? fields[0]?.name;
  const first = name === undefined ? "row" : `row[${JSON.stringify(name)}]`;
  const feed = feedQuery(query, fields);
  if (feed) {
    const selected = Object.keys(feed).length === 0 ? "" : `, ${literals(feed)}`;
    return `import { connect } from "lantern-client";

const client = connect(${JSON.stringify(`${origin.replace(/^http/, "ws")}/v1/feed`)});
const table = client.table(${JSON.stringify(`${projection}/${table}`)}${selected});
for await (const change of table) {
  console.log(change.type, table.size);
  for (const [key, row] of table) console.log(key, ${first});
}
`;
  }
  return `const url = new URL(${JSON.stringify(`${origin}/v1/tables${path(projection, table)}`)});
${[...parameters(query)].map(([name, value]) => `url.searchParams.append(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`).join("")}\
const answer = await fetch(url, { headers: { accept: "application/x-ndjson" } });
if (!answer.ok) throw new Error(await answer.text());
for (const line of (await answer.text()).split("\\n").filter(Boolean)) {
  const { key, value: row } = JSON.parse(line);
  console.log(key, ${first});
}
`;
}

/** Python, with its standard library only. */
export function python(origin: string, projection: string, table: string, query: TableQuery): string {
  const params = [...parameters(query)].map(([name, value]) => `    (${JSON.stringify(name)}, ${JSON.stringify(value)}),\n`).join("");
  return `import json
from urllib.parse import urlencode
from urllib.request import Request, urlopen

params = [
${params}]
url = ${JSON.stringify(`${origin}/v1/tables${path(projection, table)}`)} + "?" + urlencode(params)
with urlopen(Request(url, headers={"accept": "application/x-ndjson"})) as answer:
    for line in answer:
        row = json.loads(line)
        print(row["key"], row["value"])
`;
}
