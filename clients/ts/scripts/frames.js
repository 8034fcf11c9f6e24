// Writes src/frames.ts: the types of the feed's messages, from docs/feed.schema.json. With --check
// it writes nothing, and fails if the content of the file is not up to date.
//
// `node frames.js SCHEMA OUT` writes the types of another JSON Schema, or of an OpenAPI
// document.
import { readFileSync, writeFileSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";

const paths = process.argv.slice(2).filter((argument) => argument !== "--check");
const SCHEMA = paths[0] ?? fileURLToPath(new URL("../../../docs/feed.schema.json", import.meta.url));
const OUT = paths[1] ?? fileURLToPath(new URL("../src/frames.ts", import.meta.url));

/** The lines of a description as a doc comment. */
function comment(description, indent) {
  if (!description) return "";
  const lines = description.split("\n");
  if (lines.length === 1) return `${indent}/** ${lines[0]} */\n`;
  return `${indent}/**\n${lines.map((line) => `${indent} * ${line}`).join("\n")}\n${indent} */\n`;
}

/** The TypeScript type of a schema without a name. */
function type(schema, indent = "") {
  if (schema === true || Object.keys(schema).length === 0) return "unknown";
  if (schema.$ref && !schema.properties) return schema.$ref.split("/").at(-1);
  if (schema.$ref) return `${schema.$ref.split("/").at(-1)} & ${object(schema, indent)}`;
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices) return choices.map((choice) => type(choice, indent)).join(" | ");
  const kinds = [schema.type ?? "unknown"].flat();
  return kinds.map((kind) => one(kind, schema, indent)).join(" | ");
}

/** The TypeScript type of one of a schema's JSON types. */
function one(kind, schema, indent) {
  switch (kind) {
    case "integer":
    case "number":
      return "number";
    case "array": {
      if (schema.prefixItems) return `[${schema.prefixItems.map((item) => type(item, indent)).join(", ")}]`;
      const item = type(schema.items ?? true, indent);
      return / [|&] /.test(item) ? `(${item})[]` : `${item}[]`;
    }
    case "object":
      if (schema.properties) return object(schema, indent);
      return `{ [key: string]: ${type(schema.additionalProperties ?? true, indent)} }`;
    case "string":
    case "boolean":
    case "null":
    case "unknown":
      return kind;
    default:
      throw new Error(`no type for ${JSON.stringify(schema)}`);
  }
}

/** The members of an object. */
function object(schema, indent) {
  const required = new Set(schema.required ?? []);
  const inner = `${indent}  `;
  const members = Object.entries(schema.properties).map(([name, member]) => {
    const mark = required.has(name) ? "" : "?";
    return `${comment(member.description, inner)}${inner}${name}${mark}: ${type(member, inner)};\n`;
  });
  return `{\n${members.join("")}${indent}}`;
}

function definition(name, schema) {
  const about = comment(schema.description, "");
  if (schema.type === "object") return `${about}export interface ${name} ${object(schema, "")}\n`;
  const choices = schema.oneOf ?? schema.anyOf;
  if (!choices) return `${about}export type ${name} = ${type(schema)};\n`;
  const lines = choices.map((choice) => `${comment(choice.description, "  ")}  | ${type(choice, "  ")}`);
  return `${about}export type ${name} =\n${lines.join("\n")};\n`;
}

const schema = JSON.parse(readFileSync(SCHEMA, "utf8"));
const from = paths[0] ? `${basename(SCHEMA)} by \`npm run types\`` : "docs/feed.schema.json by `npm run frames`";
const head = `// Generated from ${from}; do not edit.\n`;
const text = [head, ...Object.entries(schema.$defs ?? schema.components.schemas).map(([name, of]) => definition(name, of))].join("\n");

if (process.argv.includes("--check")) {
  if (readFileSync(OUT, "utf8") !== text) {
    console.error("src/frames.ts is not up to date: run `npm run frames` in clients/ts");
    process.exit(1);
  }
} else {
  writeFileSync(OUT, text);
}
