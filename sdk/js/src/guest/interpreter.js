// The interpreter: a component that runs the script it is given as its source.

import source from "lantern:projection/source@0.2.0";

import * as exported from "../index.js";
import { prepare, projectionOf, projector as projectorOf } from "./component.js";
import { checkSdkNames, compile, lineOfImport, runModules, SDK, SourceError, specifiersOf } from "./modules.js";
import { teller } from "./reason.js";

prepare();

// An object is faster to read than a module.
const sdk = { ...exported };

const script = { name: "script.js", text: "" };

// QuickJS names code from `eval` so.
const EVALUATED = "<input>";

const evaluate = globalThis.eval;

function find() {
  script.name = source.name();
  script.text = source.text();
  const { name, text } = script;
  const code = compile(name, text);
  const imports = new Map();
  for (const specifier of specifiersOf(code)) {
    if (specifier !== SDK) {
      throw new SourceError(
        `cannot import "${specifier}": a script can import "${SDK}" only; build a component with \`npx lantern-build\` to use other modules`,
        { file: name, line: lineOfImport(text, specifier) },
      );
    }
    imports.set(specifier, SDK);
  }
  checkSdkNames(name, text, code, sdk);
  const run = evaluate(code);
  return projectionOf(runModules(new Map([[name, { run, imports }]]), name, sdk));
}

const tell = teller(
  (file) => (file === EVALUATED ? script.name : null),
  (name) => (name === script.name ? script.text : null),
);

// Every refusal begins with the script's name and a line.
const tellSetup = (error) => {
  const reason = tell(error);
  return reason.startsWith(`${script.name}:`) ? reason : `${script.name}:1: ${reason}`;
};

export const projector = projectorOf(find, tell, tellSetup);
