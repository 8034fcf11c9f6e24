// Measures the page in Chromium: `npm run bench -- --help`.
import { parseArgs } from "node:util";
import { fileURLToPath } from "node:url";
import { runnerImport } from "vite";

const HELP = `npm run bench -- [WHAT …] [--minutes N] [--rows N] [--seconds N] [--json]
  latency   from the acknowledgement of an event to the changed cell, at 1,000 events per second
  scroll    the frames of a table with --rows (1000000) live rows that is scrolled by wheel and by keys
  charts    a board with 100 different charts
  soak      the memory of a tab that takes 100 changes per second for --minutes (1)
Without WHAT, all four. LANTERN_BIN is the binary, LANTERN_PLUGINS the folder with revenue.wasm, and
LANTERN_PAGE=dist shows the built files in place of those in the binary.`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { minutes: { type: "string", default: "1" }, rows: { type: "string", default: "1000000" }, seconds: { type: "string" }, json: { type: "boolean" }, help: { type: "boolean" } },
});
const file = (path) => fileURLToPath(new URL(`../test/${path}`, import.meta.url));
const seconds = values.seconds === undefined ? {} : { seconds: Number(values.seconds) };
const note = (text) => values.json || console.error(text);
const ALL = {
  latency: ({ latency }, browser) => latency(browser, seconds),
  scroll: ({ scroll }, browser) => scroll(browser, { rows: Number(values.rows), ...seconds }),
  charts: ({ charts }, browser) => charts(browser, seconds),
  soak: ({ soak }, browser) => soak(browser, { minutes: Number(values.minutes) }, note),
};

if (values.help) {
  console.log(HELP);
} else {
  const unknown = positionals.filter((what) => !Object.hasOwn(ALL, what));
  if (unknown.length > 0) throw new Error(`there is no measurement \`${unknown.join("`, `")}\`; there are ${Object.keys(ALL).join(", ")}`);
  const { module: load } = await runnerImport(file("load.ts"));
  const { module: browsers } = await runnerImport(file("browser.ts"));
  const results = {};
  for (const what of positionals.length > 0 ? positionals : Object.keys(ALL)) {
    const browser = await browsers.launch();
    try {
      results[what] = await ALL[what](load, browser);
    } finally {
      await browser.close();
    }
    if (!values.json) console.log(what, results[what]);
  }
  if (values.json) console.log(JSON.stringify(results));
}
