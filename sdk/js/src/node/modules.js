// The modules of a project: the entry, and all files and packages that it imports.

import { existsSync, readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, relative, resolve } from "node:path";

import { checkSdkNames, compile, lineOfImport, SDK, SourceError, specifiersOf } from "../guest/modules.js";

const EXTENSIONS = ["", ".ts", ".js", ".mts", ".mjs", ".cjs", ".json", "/index.ts", "/index.js"];

/**
 * The compiled modules of a project.
 * @param {string} entry the path of the entry
 * @param {object} sdk the SDK's exports
 * @returns {{ entry: string, root: string, modules: Map<string, { text: string, code: string, imports: Map<string, string> }> }}
 * files are named relative to the folder of the entry's package, or of the entry
 */
export function collectModules(entry, sdk) {
  const start = resolve(entry);
  const root = packageFolder(dirname(start));
  const nameOf = (path) => relative(root, path).replaceAll("\\", "/");
  const modules = new Map();
  const wanted = [start];
  while (wanted.length > 0) {
    const path = wanted.pop();
    const name = nameOf(path);
    if (modules.has(name)) continue;
    const text = readFileSync(path, "utf8");
    const code = path.endsWith(".json")
      ? `(function (exports, require, module) { module.exports = { __esModule: true, default: ${JSON.stringify(JSON.parse(text))} };\n})`
      : compile(name, text);
    checkSdkNames(name, text, code, sdk);
    const imports = new Map();
    for (const specifier of specifiersOf(code)) {
      if (specifier === SDK) {
        imports.set(specifier, SDK);
        continue;
      }
      const target = find(specifier, path);
      if (target === null) {
        const help = specifier.startsWith(".") ? "there is no such file" : `\`npm install ${specifier}\` may help; modules of Node cannot be used`;
        throw new SourceError(`cannot import "${specifier}": ${help}`, { file: name, line: lineOfImport(text, specifier) });
      }
      imports.set(specifier, nameOf(target));
      wanted.push(target);
    }
    modules.set(name, { text, code, imports });
  }
  return { entry: nameOf(start), root, modules };
}

function packageFolder(folder) {
  for (let at = folder; ; at = dirname(at)) {
    if (existsSync(join(at, "package.json"))) return at;
    if (dirname(at) === at) return folder;
  }
}

function find(specifier, from) {
  if (specifier.startsWith(".") || specifier.startsWith("/")) {
    const base = resolve(dirname(from), specifier);
    // TypeScript names the file that its compiler would write.
    const bases = /\.[cm]?js$/.test(base) ? [base, base.replace(/js$/, "ts")] : [base];
    for (const candidate of bases) {
      for (const extension of EXTENSIONS) {
        const path = candidate + extension;
        if (existsSync(path) && statSync(path).isFile()) return path;
      }
    }
    return null;
  }
  try {
    const found = createRequire(from).resolve(specifier);
    return found.startsWith("/") || /^[A-Za-z]:/.test(found) ? found : null;
  } catch {
    return null;
  }
}
