// Builds a component from a projection's source.

import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { teller } from "../guest/reason.js";
import { Source } from "./load.js";

const packageFolder = fileURLToPath(new URL("../..", import.meta.url));

/** The file of the contract: in a published package a copy, in the repository the original. */
export function witPath() {
  const own = join(packageFolder, "wit", "projection.wit");
  const original = join(packageFolder, "..", "..", "wit", "projection.wit");
  return existsSync(original) ? original : own;
}

/** The module that ties a project's modules to the component's functions. */
function entryText(modules, entry) {
  const files = [...modules.keys()];
  const imports = files.map((_, i) => `import run${i} from "./project/${i}.js";`);
  const names = files.map((file, i) => [`/project/${i}.js`, file]);
  const list = files.map((file, i) => `[${JSON.stringify(file)}, { run: run${i}, imports: new Map(${JSON.stringify([...modules.get(file).imports])}) }]`);
  return `import "./prepare.js";
import * as exported from "./sdk/index.js";
import { projectionOf, projector as projectorOf } from "./sdk/guest/component.js";
import { teller } from "./sdk/guest/reason.js";
import { runModules } from "./sdk/guest/run.js";
${imports.join("\n")}

// An object is faster to read than a module.
const sdk = { ...exported };
const modules = new Map([${list.join(", ")}]);
const names = new Map(${JSON.stringify(names)});
const tell = teller((file) => names.get(file) ?? null, () => null);
let found = null;
let failed = null;
try {
  found = projectionOf(runModules(modules, ${JSON.stringify(entry)}, sdk));
} catch (error) {
  failed = tell(error);
}
export const projector = projectorOf(() => {
  if (failed !== null) throw new Error(failed);
  return found;
}, tell, (error) => failed ?? tell(error));
export const failure = failed;
`;
}

/**
 * Builds the component of a projection.
 * @param {string} entry the source: JavaScript or TypeScript
 * @param {string | ((name: string) => string)} out the component's file, or a function of the projection's name
 * @returns {Promise<{ name: string, bytes: number, file: string }>}
 * @throws an error whose `report` names file and line, if the source is not a projection
 */
export async function buildComponent(entry, out) {
  const { modules, main, name } = check(entry);
  const { componentize } = await import("componentize-qjs");
  const file = typeof out === "function" ? out(name) : out;
  const folder = await mkdtemp(join(tmpdir(), "lantern-build-"));
  try {
    await cp(join(packageFolder, "src"), join(folder, "sdk"), { recursive: true });
    await mkdir(join(folder, "project"));
    for (const [i, { code }] of [...modules.values()].entries()) {
      // On one line with the code, so that every line stays where it was.
      await writeFile(join(folder, "project", `${i}.js`), `export default ${code};`);
    }
    await writeFile(join(folder, "prepare.js"), 'import { prepare } from "./sdk/guest/component.js";\nprepare();\n');
    const path = join(folder, "entry.js");
    await writeFile(path, entryText(modules, main));
    const { component } = await componentize({
      witPath: witPath(),
      world: "projection",
      jsSource: await readFile(path, "utf8"),
      jsPath: path,
      moduleRoot: folder,
      stubWasi: true,
      sync: true,
    });
    await mkdir(dirname(resolve(file)), { recursive: true });
    await writeFile(file, component);
    return { name, bytes: component.length, file };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * The modules of the projection. The projection was run once, so that errors are found before the
 * component is built.
 */
function check(entry) {
  let source = null;
  try {
    source = new Source(entry);
    const { name } = source.load().setup({ log: () => {} }, "");
    return { modules: source.modules, main: source.entry, name };
  } catch (error) {
    const tell = source?.tell ?? teller(() => null, () => null);
    throw Object.assign(error instanceof Error ? error : new Error(String(error)), { report: tell(error) });
  }
}
