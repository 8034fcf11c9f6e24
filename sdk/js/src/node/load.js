// Loads a projection from its source. Each load gives a fresh projection.

import { fileURLToPath } from "node:url";
import vm from "node:vm";

import { ProjectionError } from "../errors.js";
import * as sdk from "../index.js";
import { SourceError } from "../guest/modules.js";
import { teller } from "../guest/reason.js";
import { runModules } from "../guest/run.js";
import { Projection, takeProjection } from "../projection.js";
import { takeParameters } from "../parameters.js";
import { takeDeclared } from "../table.js";
import { collectModules } from "./modules.js";

/** A projection's source in a file, compiled once. */
export class Source {
  /**
   * @param {string | URL} file
   * @throws {ProjectionError} with file and line, if the source or one of its imports cannot be compiled
   */
  constructor(file) {
    const path = file instanceof URL || String(file).startsWith("file:") ? fileURLToPath(file) : String(file);
    try {
      const { entry, modules } = collectModules(path, sdk);
      this.entry = entry;
      this.modules = modules;
      this.scripts = new Map([...modules].map(([name, { code }]) => [name, script(name, code)]));
    } catch (error) {
      if (!(error instanceof SourceError)) throw error;
      const texts = this.modules;
      throw new ProjectionError(teller(() => null, (name) => texts?.get(name)?.text ?? null)(error), { cause: error });
    }
    const { modules } = this;
    this.tell = teller((name) => (modules.has(name) ? name : null), (name) => modules.get(name)?.text ?? null);
  }

  /** A fresh projection: the source has run again. */
  load() {
    takeDeclared();
    takeParameters();
    takeProjection();
    const modules = new Map([...this.modules].map(([name, { imports }]) => [name, { run: this.scripts.get(name).runInThisContext(), imports }]));
    const exports = runModules(modules, this.entry, sdk);
    const defined = takeProjection();
    const projection = exports.default instanceof Projection ? exports.default : defined;
    if (projection === null) throw new Error(`${this.entry} defines no projection: add \`export default projection({ … })\``);
    return projection;
  }
}


/**
 * The compiled script of a module. If the engine finds an error that the parser did not find, the
 * error has its line.
 */
function script(name, code) {
  try {
    return new vm.Script(code, { filename: name });
  } catch (error) {
    const place = /:(\d+)$/.exec(String(error.stack).split("\n")[0]);
    throw new SourceError(error.message, { file: name, line: place === null ? null : Number(place[1]) });
  }
}
