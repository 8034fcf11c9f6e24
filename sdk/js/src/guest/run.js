// Runs the modules of a projection.

/** The name by which a projection imports this SDK. */
export const SDK = "lantern-sdk";

/**
 * Runs the module `entry` and those it imports.
 * @param {Map<string, { run: Function, imports: Map<string, string> }>} modules by file; the
 * target of an import is a file or {@link SDK}
 * @param {string} entry
 * @param {object} sdk
 * @returns {object} the exports of `entry`
 */
export function runModules(modules, entry, sdk) {
  const loaded = new Map();
  const load = (file) => {
    const known = loaded.get(file);
    if (known !== undefined) return known.exports;
    const module = { exports: {} };
    loaded.set(file, module);
    const { run, imports } = modules.get(file);
    const require = (specifier) => {
      const target = imports.get(specifier);
      return target === SDK ? sdk : load(target);
    };
    run.call(undefined, module.exports, require, module);
    return module.exports;
  };
  return load(entry);
}
