// Writes src/zones.js: the table of time zones of the Rust SDK, as base64.
import { readFileSync, writeFileSync } from "node:fs";

const table = readFileSync(new URL("../../rust/zones.bin", import.meta.url)).toString("base64");
const lines = table.match(/.{1,120}/g).map((line) => `  "${line}",`);
const text = `// The time zones since 1970, from the IANA database: sdk/rust/zones.bin as base64.
// Written by scripts/zones.js.

export const ZONES = [
${lines.join("\n")}
].join("");
`;
writeFileSync(new URL("../src/zones.js", import.meta.url), text);
