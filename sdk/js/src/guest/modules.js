// Converts source files to functions: removes TypeScript's types and replaces `import` and `export`
// by calls. Every line keeps its number.

import { transform } from "sucrase";

import { suggestion } from "../errors.js";
import { SDK } from "./run.js";

export { runModules, SDK } from "./run.js";

const HEAD = "(function (exports, require, module) {";

/** An error in a source file, with its place. */
export class SourceError extends Error {
  /**
   * @param {string} message
   * @param {{ file: string, line?: number | null, column?: number | null }} place
   */
  constructor(message, { file, line = null, column = null }) {
    super(message);
    this.file = file;
    this.line = line;
    this.column = column;
  }

  get name() {
    return "SyntaxError";
  }
}

const isTypeScript = (file) => /\.[cm]?ts$/.test(file);

/**
 * The function of a source file, as text: `(function (exports, require, module) {…})`.
 * @param {string} file the name, for messages; `.ts` means TypeScript
 * @param {string} text
 */
export function compile(file, text) {
  const transforms = isTypeScript(file) ? ["typescript", "imports"] : ["imports"];
  let code;
  try {
    ({ code } = transform(text, { transforms, disableESTransforms: true, production: true }));
  } catch (error) {
    const [, message, line, column] = /^(?:Error transforming [^:]*: )?([^]*?)(?: \((\d+):(\d+)\))?$/.exec(error.message);
    throw new SourceError(plain(message, text, Number(line)), { file, line: line ? Number(line) : null, column: column ? Number(column) : null });
  }
  return `${HEAD}${withDirectCalls(code)}\n})`;
}

/** Calls functions of the SDK directly: they do not use `this`, and its exports never change. */
const withDirectCalls = (code) => code.replaceAll(/\b_lanternsdk\.([A-Za-z_$][\w$]*)\.call\(void 0, /g, "_lanternsdk.$1(");

/** The parser's message, in words that help. */
function plain(message, text, line) {
  const own = message.replace(/^Error parsing[^:]*: /, "");
  const source = text.split("\n")[line - 1] ?? "";
  if (/\bawait\b/.test(source) && /Unexpected token/.test(own)) return `${own}: \`await\` is not possible; a projection has nothing to wait for`;
  return own;
}

/** The modules that a compiled file asks for, in order. */
export function specifiersOf(code) {
  const found = new Set();
  for (const [, , specifier] of code.matchAll(/\brequire\((['"])([^'"\n]+)\1\)/g)) found.add(specifier);
  return [...found];
}

/** The line of the first import of `specifier` (and of `name`, if given) in a source. */
export function lineOfImport(text, specifier, name) {
  const lines = text.split("\n");
  const of = (test) => lines.findIndex(test) + 1;
  const quoted = (line) => line.includes(`"${specifier}"`) || line.includes(`'${specifier}'`);
  const last = of((line) => quoted(line) && /\b(from|import|export|require)\b/.test(line)) || of(quoted);
  if (name === undefined || last === 0) return last || null;
  const word = new RegExp(`(^|[^\\w$.])${name.replaceAll("$", "\\$")}(?![\\w$])`);
  for (let line = last; line > 0 && line > last - 50; line--) {
    if (word.test(lines[line - 1])) return line;
    if (line < last && /\bimport\b/.test(lines[line - 1])) break;
  }
  return last;
}

/**
 * Throws if the compiled file uses a name of the SDK that does not exist.
 * @param {string} code what {@link compile} returned
 * @param {object} sdk the SDK's exports
 */
export function checkSdkNames(file, text, code, sdk) {
  for (const [, name] of code.matchAll(/\b_lanternsdk\.([A-Za-z_$][\w$]*)/g)) {
    if (name in sdk || name === "default") continue;
    throw new SourceError(`"${SDK}" has no export \`${name}\`${suggestion(name, Object.keys(sdk))}`, {
      file, line: lineOfImport(text, SDK, name),
    });
  }
}
