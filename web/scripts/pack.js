// Compresses the built files for the server, and fails if the first load is too large.
//
// The server's build takes them from cargo's target folder: LANTERN_WEB, or target/web.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

/** The most bytes that the first load may transfer. */
const FIRST_LOAD_BYTES_MAX = 120 * 1024;

const root = fileURLToPath(new URL("../..", import.meta.url));
const built = join(root, "web/dist");
const out = process.env.LANTERN_WEB ?? join(root, "target/web");

/** The paths of all files in a folder. */
function files(folder) {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? files(path) : [path];
  });
}

// A file that is the same is not written, so that the server is not built again.
const kept = new Set();
const sizes = new Map();
for (const file of files(built).sort()) {
  const packed = gzipSync(readFileSync(file), { level: 9 });
  const path = relative(built, file);
  sizes.set(`/${path.replaceAll("\\", "/")}`, packed.length);
  const to = `${join(out, path)}.gz`;
  kept.add(to);
  mkdirSync(dirname(to), { recursive: true });
  if (!existsSync(to) || !packed.equals(readFileSync(to))) writeFileSync(to, packed);
}
for (const old of files(out)) if (!kept.has(old)) rmSync(old);

// What a browser requests for the first screen: the page, and what it names. Each other
// screen has files of its own, which are requested with it. So the largest first load is
// less than all files together, and that sum is what the budget limits.
const page = readFileSync(join(built, "index.html"), "utf8");
const named = [...page.matchAll(/(?:src|href)="(\/[^"]+)"/g)].map(([, path]) => path);
const first = ["/index.html", ...named].reduce((sum, path) => {
  if (!sizes.has(path)) throw new Error(`index.html names ${path}, which was not built`);
  return sum + sizes.get(path);
}, 0);
const all = [...sizes.values()].reduce((sum, bytes) => sum + bytes, 0);
for (const [path, bytes] of sizes) console.log(`${String(bytes).padStart(8)} ${path}`);
console.log(`${String(first).padStart(8)} bytes for the first screen`);
console.log(`${String(all).padStart(8)} bytes for all screens, of at most ${FIRST_LOAD_BYTES_MAX}`);
if (all > FIRST_LOAD_BYTES_MAX) {
  console.error("a first load may be too large: leave something out");
  process.exit(1);
}
