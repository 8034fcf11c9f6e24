// The logic of the page, without a browser.
import { describe, expect, test, vi } from "vitest";
import { boardName, boardOf, filled, firstPanes, moved, NEW_PANE, storeBoard, valuesOf } from "../src/board.js";
import { type DeclarationForm, missing, NEW_FORM, NO_COLUMN, partName, refusal, suggested, written } from "../src/declaration.js";
import { withoutHead } from "../src/download.js";
import { stringify } from "../../clients/ts/src/json.js";
import { axisNumbers, cell, figure, keyText, pretty } from "../src/format.js";
import { parseMetrics } from "../src/metrics.js";
import { alike } from "../src/parked.js";
import { rollUpOf } from "../src/groups.js";
import { freshness, Poll } from "../src/polled.js";
import { post, Problem } from "../src/problem.js";
import { condition, feedQuery, fromAddress, inAddress, nextOrder, parsed } from "../src/query.js";
import { bucketFor, coarser, ordered, overTime, usual } from "../src/rollup.js";
import { HEIGHT_MAX, lowerBound, merged, scrollTo, visible, withPrefix } from "../src/rows.js";
import { overview } from "../src/server.js";
import { curl, python, shell, typescript } from "../src/snippets.js";
import { kindOf, nameOf } from "../src/upload.js";

/** Random numbers that a seed repeats. */
function random(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}
const SEED = Number(process.env.LANTERN_SEED ?? Date.now() % 1_000_000);
console.log(`LANTERN_SEED=${SEED}`);

describe("rows", () => {
  test("keys that are added and removed give the same order as sorting all keys", () => {
    const next = random(SEED);
    let keys: string[] = [];
    const all = new Set<string>();
    for (let round = 0; round < 300; round += 1) {
      const added = Array.from({ length: next(20) }, () => `k${next(500)}`).filter((key) => !all.has(key));
      const removed = new Set([...all].filter(() => next(10) === 0));
      for (const key of added) all.add(key);
      for (const key of removed) all.delete(key);
      keys = merged(keys, [...new Set(added)], removed);
      expect(keys).toEqual([...all].sort());
      const prefix = `k${next(50)}`;
      const [from, to] = withPrefix(keys, prefix);
      expect(keys.slice(from, to)).toEqual(keys.filter((key) => key.startsWith(prefix)));
      expect(lowerBound(keys, prefix)).toBe(keys.filter((key) => key < prefix).length);
    }
  });

  test("every row of a million can be reached, and the area is no higher than browsers allow", () => {
    const rows = 1_000_000;
    const windowPx = 700;
    expect(visible(rows, 32, 0, windowPx)).toMatchObject({ height: HEIGHT_MAX, first: 0, hidden: 0 });
    const end = visible(rows, 32, HEIGHT_MAX, windowPx);
    expect(end.first + end.shown).toBe(rows);
    const next = random(SEED);
    for (const row of [0, 1, 499_999, ...Array.from({ length: 100 }, () => next(rows - 30))]) {
      const at = visible(rows, 32, scrollTo(row, rows, 32, windowPx), windowPx);
      expect(Math.abs(at.first + at.hidden / 32 - row)).toBeLessThan(0.01);
    }
  });

  test("a short list is not scaled, and an empty one shows nothing", () => {
    expect(visible(100, 32, 320, 640)).toEqual({ height: 3200, first: 10, hidden: 0, shown: 20 });
    expect(visible(3, 32, 0, 640)).toMatchObject({ first: 0, shown: 3 });
    expect(visible(0, 32, 0, 640)).toMatchObject({ height: 0, shown: 0 });
  });
});

describe("values", () => {
  test("integers keep every digit, in cells and in JSON", () => {
    expect(cell("integer", 9007199254740993n)).toBe("9,007,199,254,740,993");
    expect(stringify({ a: [9007199254740993n, 1], b: "x" })).toBe('{"a":[9007199254740993,1],"b":"x"}');
    expect(pretty({ a: 1, b: [] })).toBe('{\n  "a": 1,\n  "b": []\n}');
    expect(cell("number", JSON.parse("1e400"))).toBe("beyond a double");
    expect(cell("number", 0.30000000000000004)).toBe("0.30000000000000004");
  });

  test("a text that reverses the text after it is shown with this character's name, and its JSON stays the same value", () => {
    const hostile = "\u202Eevil\u2069";
    expect(cell("text", hostile)).toBe("⟨U+202E⟩evil⟨U+2069⟩");
    expect(keyText(`a\u0000${hostile}`)).toBe("a · ⟨U+202E⟩evil⟨U+2069⟩");
    expect(pretty({ a: hostile })).not.toContain("\u202E");
    expect(JSON.parse(pretty({ a: hostile }))).toEqual({ a: hostile });
    // Letters that are written from right to left stay.
    expect(cell("text", "שלום\u200F")).toBe("שלום\u200F");
  });

  test("a missing value is a dash, and a long text is cut", () => {
    expect(cell("text", null)).toBe("–");
    expect(cell("text", "x".repeat(300))).toHaveLength(201);
  });
});

describe("what a pane says", () => {
  const offline = new Problem("offline", "The server does not answer.");
  test("data is stale when it is old, and offline when the server does not answer", () => {
    expect(freshness({ data: null, at: 0, error: null }, 1000, 100)).toBe("loading");
    expect(freshness({ data: 1, at: 950, error: null }, 1000, 100)).toBe("live");
    expect(freshness({ data: 1, at: 800, error: null }, 1000, 100)).toBe("stale");
    expect(freshness({ data: 1, at: 950, error: offline }, 1000, 100)).toBe("offline");
    expect(freshness({ data: null, at: 0, error: new Problem("LAN-0401", "no") }, 1000, 100)).toBe("error");
  });

  test("a server that is not ready is an answer with reasons, which takes one request", async () => {
    const ready = { ready: false, reasons: ["the log is down"], warnings: [] };
    const answers: { [path: string]: Response } = {
      "/v1/projections": Response.json({ projections: [] }),
      "/v1/status": Response.json({ partitions: [] }),
      "/readyz": Response.json(ready, { status: 503 }),
    };
    const requests = vi.fn(async (path: string) => answers[path]!);
    vi.stubGlobal("fetch", requests);
    await overview.refresh();
    vi.unstubAllGlobals();
    expect(overview.value.value.error).toBeNull();
    expect(overview.value.value.data?.ready).toEqual(ready);
    expect(requests).toHaveBeenCalledTimes(3);
  });
});

describe("the address of a table", () => {
  test("what an address shows can be written to the address again", () => {
    const query = { where: ["cents >= 100", 'name = "a&b"'], order: "-cents", cols: ["cents", "name"], prefix: "p/", version: "" };
    const search = inAddress("?view=chart", query);
    expect(fromAddress(search)).toEqual(query);
    expect(new URLSearchParams(search).get("view")).toBe("chart");
  });

  test("the feed shows conditions and columns; orders by a field and other versions are requested", () => {
    const all = fromAddress("");
    const fields = [{ name: "cents", kind: "integer" }, { name: "country", kind: "text" }];
    expect(feedQuery(all, fields)).toEqual({});
    expect(feedQuery({ ...all, order: "-key", prefix: "p" }, fields)).toEqual({});
    expect(feedQuery({ ...all, where: ["cents >= 100"], cols: ["cents"] }, fields)).toEqual({ where: [["cents", ">=", 100]], cols: ["cents"] });
    for (const change of [{ order: "cents" }, { version: "1" }, { where: ["nothing = 1"] }, { where: ["cents = x"] }, { cols: ["nothing"] }]) {
      expect(feedQuery({ ...all, ...change }, fields), JSON.stringify(change)).toBeNull();
    }
  });

  test("a condition of any kind keeps its value on the feed, and one in a form that only the server knows is left to it", () => {
    const fields = ["integer", "number", "text", "boolean", "timestamp", "json"].map((kind) => ({ name: kind, kind }));
    const read = (text: string): unknown => parsed(text, fields);
    expect(read("integer = 9007199254740993")).toEqual(["integer", "=", 9007199254740993n]);
    expect(read("number<=1.5e3")).toEqual(["number", "<=", 1500]);
    expect(read("text prefix a b")).toEqual(["text", "prefix", "a b"]);
    expect(read("boolean != true")).toEqual(["boolean", "!=", true]);
    expect(read("timestamp >= 2026-01-01T00:00:00Z")).toEqual(["timestamp", ">=", "2026-01-01T00:00:00Z"]);
    expect(read("json = null")).toEqual(["json", "=", null]);
    expect(read("integer in 1, 2")).toEqual(["integer", "in", [1, 2]]);
    for (const text of ['text in "a,b"', 'text in ["a"]', "integer in", "integer = 1.5", "boolean > true", "json = 1", 'text = "a', "text <", "integer < null", "textprefix a"]) {
      expect(read(text), text).toBeNull();
    }
    // What the form of filters writes is read again, whatever text it is.
    for (const value of ["null", 'a "b"', "", " x ", "ä\\n"]) {
      expect(read(condition({ name: "text", kind: "text" }, "=", value)), value).toEqual(["text", "=", value]);
    }
  });

  test("what is posted keeps every digit of an integer", async () => {
    const sent = vi.fn(async (_: string, __: RequestInit) => new Response(null, { status: 204 }));
    vi.stubGlobal("fetch", sent);
    await post("/v1/parked/retry", { ids: [9007199254740993n] });
    vi.unstubAllGlobals();
    expect(sent.mock.calls[0]![1].body).toBe('{"ids":[9007199254740993]}');
  });

  test("a column is ordered ascending, descending, and then no more", () => {
    expect(["", "cents", "-cents"].map((order) => nextOrder(order, "cents"))).toEqual(["cents", "-cents", ""]);
    expect(["", "-key"].map((order) => nextOrder(order, "key"))).toEqual(["-key", ""]);
  });

  test("any text can be looked for", () => {
    const text = { name: "name", kind: "text", unit: "" };
    expect(condition(text, "=", 'null, "x"')).toBe('name = "null, \\"x\\""');
    expect(condition(text, "in", "a, b")).toBe('name in "a","b"');
    expect(condition({ ...text, kind: "integer" }, ">=", " 5 ")).toBe("name >= 5");
    expect(condition(text, "!= null", "x")).toBe("name != null");
  });
});

describe("code", () => {
  const fields = [{ name: "cents", kind: "integer" }, { name: "name", kind: "text" }];
  const query = { where: ["name = \"it's\""], order: "-cents", cols: [], prefix: "", version: "" };
  test("a shell reads back what was quoted", () => {
    expect(shell("it's")).toBe("'it'\\''s'");
    expect(curl("http://h:1", "a b", "t", query)).toBe(
      "curl -G 'http://h:1/v1/tables/a%20b/t' \\\n  --data-urlencode 'where=name = \"it'\\''s\"' \\\n  --data-urlencode 'order=-cents'",
    );
  });

  test("live rows use the client, others a request, with the same parameters in each language", () => {
    expect(typescript("http://h:1", "a", "t", { ...query, where: [], order: "" }, fields)).toContain('connect("ws://h:1/v1/feed")');
    expect(typescript("http://h:1", "a", "t", { ...query, where: ["cents > 9007199254740993"], order: "" }, fields)).toContain('table("a/t", { where: [["cents", ">", 9007199254740993n]] })');
    expect(typescript("http://h:1", "a", "t", query, fields)).toContain('append("order", "-cents")');
    expect(python("http://h:1", "a", "t", query)).toContain('("where", "name = \\"it\'s\\"")');
  });
});

describe("downloads, uploads, parked events, metrics", () => {
  test("a line break in quotes does not end the first line", () => {
    expect(withoutHead('"a\nb",c\n1,2\n')).toBe("1,2\n");
    expect(withoutHead("a,b")).toBe("");
  });

  test("the end of a name selects the kind, and the name gives a projection's name", () => {
    expect(kindOf("Totals.PY")?.media).toBe("text/x-python");
    expect(kindOf("notes.txt")).toBeNull();
    expect(nameOf("My Totals_v2.py")).toBe("my-totals-v2");
  });

  test("reasons that differ only in numbers are alike", () => {
    expect(alike("no product 17 in row 4")).toBe(alike("no product 3 in row 12345"));
    expect(alike("no product")).not.toBe(alike("no user"));
  });

  test("metrics are read with their labels, without the buckets of histograms", () => {
    const text = '# HELP a_total Things.\n# TYPE a_total counter\na_total{x="1"} 5\nb_bucket{le="1"} 3\nb_sum 2.5\n';
    expect(parseMetrics(text)).toEqual([
      { name: "a_total", labels: 'x="1"', value: "5", help: "Things." },
      { name: "b_sum", labels: "", value: "2.5", help: "" },
    ]);
  });
});

describe("charts", () => {
  test("groups become series, the largest first, and the rest is counted", () => {
    const groups = ["a", "b"].flatMap((by, at) => [0, 1].map((hour) => ({ hour: `2026-01-01T0${hour}:00:00Z`, by, v: at * 10 + hour })));
    const { moments, series, left } = overTime([...groups, { hour: "2026-01-01T02:00:00Z", by: "b", v: null }], { time: "hour", bucket: "", by: "by", agg: "" }, "v");
    expect(moments).toHaveLength(3);
    expect(series).toEqual([
      { name: "b", values: [10, 11, null] },
      { name: "a", values: [0, 1, null] },
    ]);
    expect(left).toBe(0);
    const many = Array.from({ length: 20 }, (_, at) => ({ hour: "2026-01-01T00:00:00Z", by: String(at), v: at }));
    expect(overTime(many, { time: "hour", bucket: "", by: "by", agg: "" }, "v").left).toBe(12);
  });

  test("the first chart and the size of buckets fit the fields and the time", () => {
    const of = (name: string, kind: string) => ({ name, kind, unit: "" });
    expect(usual([of("product", "text"), of("cents", "integer"), of("minute", "timestamp")])).toEqual({ time: "minute", bucket: "", by: "product", agg: "sum(cents)" });
    expect(usual([of("data", "json")])).toEqual({ time: "", bucket: "", by: "", agg: "count()" });
    expect([60, 3600, 86_400, 86_400 * 365].map((seconds) => bucketFor(seconds))).toEqual(["1s", "1m", "5m", "1w"]);
  });

  test("labels of an axis are grouped as in tables, and large ones have one unit for the whole axis", () => {
    expect(axisNumbers([0, 20_000, 40_000])).toEqual(["0", "20,000", "40,000"]);
    expect(axisNumbers([0, 0.25, 0.5])).toEqual(["0", "0.25", "0.5"]);
    expect(axisNumbers([0, 50_000, 100_000])).toEqual(["0", "50\u00a0k", "100\u00a0k"]);
    expect(axisNumbers([-500_000, 0, 1_250_000])).toEqual(["-0.5\u00a0M", "0", "1.25\u00a0M"]);
    expect(axisNumbers([3e9, 6e9])).toEqual(["3\u00a0G", "6\u00a0G"]);
    expect(axisNumbers([])).toEqual([]);
  });

  test("buckets of a live chart become larger when the rows span too many, and never smaller", () => {
    const at = (...times: string[]) => times.map((time) => ({ time }));
    expect(coarser(at("2026-01-01T00:00:00Z", "2026-01-01T00:09:00Z"), "time", "1s")).toBeNull();
    expect(coarser(at("2026-01-01T00:00:00Z", "2026-01-01T00:11:00Z"), "time", "1s")).toBe("10s");
    expect(coarser(at("2026-01-01T00:00:00Z", "2026-07-01T00:00:00Z"), "time", "1s")).toBe("1d");
    expect(coarser(at("2026-01-01T00:00:00Z", "2026-01-01T00:11:00Z"), "time", "1d")).toBeNull();
    expect(coarser([], "time", "1s")).toBeNull();
    expect(coarser(at("0001-01-01T00:00:00Z", "9999-01-01T00:00:00Z"), "time", "1y")).toBeNull();
  });

  test("groups are in the order of time, and bars in that of their size", () => {
    const none = { bucket: "", agg: "" };
    const bars = [{ by: "b", v: 1 }, { by: "a", v: 1 }, { by: "c", v: null }, { by: "d", v: 9007199254740993n }];
    expect(ordered(bars, { ...none, time: "", by: "by" }, "v").map(({ by }) => by)).toEqual(["d", "a", "b", "c"]);
    const times = [{ t: "2026-01-01T02:00:00Z", by: "a" }, { t: "2026-01-01T01:00:00Z", by: "b" }, { t: "2026-01-01T01:00:00Z", by: "a" }];
    expect(ordered(times, { ...none, time: "t", by: "by" }, "v").map(({ t, by }) => String(t).slice(11, 13) + by)).toEqual(["01a", "01b", "02a"]);
  });

  test("a chart is a roll-up of the feed, unless the feed does not know a form of its filter", () => {
    const fields = [{ name: "minute", kind: "timestamp" }, { name: "cents", kind: "integer" }, { name: "product", kind: "text" }];
    const query = { time: "minute", bucket: "", by: "product", agg: "sum(cents)" };
    expect(rollUpOf({ fields, query, where: ["cents >= 5"] })).toEqual({ agg: { chart_value: ["sum", "cents"] }, where: [["cents", ">=", 5]], by: ["product"], time: "minute" });
    expect(rollUpOf({ fields, query: { time: "", bucket: "", by: "", agg: "count()" }, where: [] })).toEqual({ agg: { chart_value: ["count"] } });
    expect(rollUpOf({ fields, query, where: ["nothing = 1"] })).toBeNull();
    expect(rollUpOf({ fields, query: { ...query, agg: "nonsense" }, where: [] })).toBeNull();
  });
});

describe("the form of a declaration", () => {
  const form: DeclarationForm = {
    ...NEW_FORM,
    name: "revenue",
    from: "order.placed, cart.*",
    where: 'data.country in ["DE", "FR"]',
    table: "by_product",
    key: [{ name: "", of: "data.product" }, { name: "", of: "" }],
    window: { ...NEW_FORM.window, kind: "tumbling", tz: "Europe/Berlin", final: true },
    columns: [{ ...NO_COLUMN, name: "orders", fn: "count" }, { ...NO_COLUMN, name: "cents", of: "data.cents", where: "data.note == 'a: b'", unit: "cent" }],
  };
  const text = written(form);

  test("is written as YAML, with quotes only around text that needs them", () => {
    expect(text.text).toBe(`name: revenue
from:
  - order.placed
  - cart.*
where: data.country in ["DE", "FR"]
tables:
  by_product:
    key:
      product: data.product
    window:
      tumbling: 1h
      tz: Europe/Berlin
      emit: final
    columns:
      orders: count()
      cents: 'sum(data.cents) where data.note == ''a: b'' unit cent'
`);
    expect(written({ ...form, from: "*", where: "" }).text).toContain("from: '*'\ntables:");
    expect(written({ ...form, name: "true" }).text).toContain("name: 'true'\n");
  });

  test("knows which of its fields a place in the text is from", () => {
    const lines = text.text.split("\n");
    const at = (part: string, after = 0): string | null => {
      const line = lines.findIndex((one) => one.includes(part));
      return text.fieldAt(line + 1, lines[line]!.indexOf(part) + 1 + after);
    };
    expect([at("revenue"), at("cart.*"), at("country"), at("by_product")]).toEqual(["name", "from", "where", "table"]);
    expect([at(" product:", 1), at("data.product"), at("1h"), at("Berlin"), at("final")]).toEqual(["key.0.name", "key.0.of", "window.size", "window.tz", "window.final"]);
    expect([at("orders"), at("count()"), at("cents:"), at("data.cents"), at("data.note"), at("unit cent", 5)]).toEqual(["columns.0.name", "columns.0.fn", "columns.1.name", "columns.1.of", "columns.1.where", "columns.1.unit"]);
    expect(text.fieldAt(99, 1)).toBeNull();
  });

  test("asks the server only when it is complete, and reads the place of a refusal", () => {
    expect(missing(form)).toBeNull();
    expect([missing(NEW_FORM), missing({ ...form, from: " , " }), missing({ ...form, columns: [] })]).toEqual(["Give the projection a name.", "Name the types of events to read.", "Add a column."]);
    expect(refusal("the source is refused: form.yaml:7:10: unknown function `cout`\n7 | n: cout()\n  |  ^^^^\nhelp: did you mean `count`?")).toEqual({ line: 7, column: 10, message: "unknown function `cout`", help: "did you mean `count`?" });
    expect(refusal("the log is full")).toBeNull();
  });

  test("suggests the members of the events that it reads", () => {
    const logged = (type: string, data: unknown) => ({ offset: 0, event: { specversion: "1.0" as const, id: "1", source: "s", type, data } });
    const events = [logged("order.placed", { cents: 1, cart: { items: 2 }, "odd name": 3, list: [1] }), logged("page.viewed", { page: "x" })];
    expect(suggested(events, "order.*")).toEqual({ types: ["order.placed", "page.viewed"], members: ["data.cart.items", "data.cents", "data.list", 'data["odd name"]'] });
    expect(suggested(events, "").members).toContain("data.page");
    expect(["data.product", "hour(time)", 'data["odd name"]', "1"].map((of) => partName({ name: "", of }))).toEqual(["product", "time", "name", "key"]);
  });
});

describe("boards", () => {
  const fields = [{ name: "product", kind: "text" }, { name: "cents", kind: "integer" }];

  test("a document keeps what this page does not know, gets defaults, and stays within its limits", async () => {
    const document = { format: 1, title: "Shop", colour: "red", panes: [{ kind: "table", table: "a/b", width: 99, height: 0, limit: 1e9, where: "x", zoom: 2 }, "nonsense"], variables: [{ name: "p" }] };
    const board = boardOf(document);
    expect(board).toMatchObject({ title: "Shop", colour: "red", variables: [{ name: "p", value: "", table: "", field: "" }] });
    expect(board.panes[0]).toEqual({ ...NEW_PANE, table: "a/b", width: 12, height: 1, limit: 1000, zoom: 2 });
    expect(board.panes[1]).toEqual(NEW_PANE);
    expect(boardOf(JSON.parse(JSON.stringify(board)))).toEqual(board);
    expect(boardOf(null)).toEqual({ format: 1, title: "", variables: [], panes: [] });
    expect(() => boardOf({ format: 2 })).toThrow("forms up to 1");
  });

  test("a variable's value is that of the address, otherwise the board's; without one its condition selects all", () => {
    const variables = [{ name: "p", value: "p1", table: "", field: "" }, { name: "least", value: "", table: "", field: "" }];
    const values = valuesOf(variables, { "var-p": 'a "b", c', kiosk: "1" });
    expect(filled(["product = $p", "cents >= $least", "product != $other", "product = x$p"], values, fields)).toEqual(['product = "a \\"b\\", c"', "product != $other", "product = x$p"]);
    expect(filled(["product in $p", "cents >= $p"], valuesOf(variables, { "var-p": "1,2" }), fields)).toEqual(['product in "1","2"', "cents >= 1,2"]);
    expect(valuesOf(variables, {}).get("p")).toBe("p1");
    // An empty value in the address is chosen, and is not the board's.
    expect(filled(["product = $p"], valuesOf(variables, { "var-p": "" }), fields)).toEqual([]);
    // A variable that has no name yet changes no condition.
    expect(filled(["cents >= 100"], valuesOf([{ name: "", value: "" } as never], {}), fields)).toEqual(["cents >= 100"]);
  });

  test("panes are moved, figures keep every digit, and titles give names", () => {
    expect([moved(["a", "b", "c"], 0, 1), moved(["a", "b", "c"], 2, 0)]).toEqual([["b", "a", "c"], ["c", "a", "b"]]);
    expect([9007199254740993n, 1234, 1234567.891, 12.3456, 0.001234, null, "x"].map(figure)).toEqual(["9,007,199,254,740,993", "1,234", "1,234,567.89", "12.35", "0.00123", "–", "x"]);
    expect([Infinity, "\u202Eevil"].map(figure)).toEqual(["beyond a double", "⟨U+202E⟩evil"]);
    expect(["Umsatz für Ü & Co.", "   ", "日本"].map(boardName)).toEqual(["umsatz-fur-u-co", "board", "board"]);
    const table = (name: string, of: object[], hidden = false): object => ({ name, public: !hidden, fields: of });
    const projection = { name: "shop", active: "1", versions: [{ id: "1", tables: [table("by_product", fields), table("raw", [{ name: "data", kind: "json" }]), table("own", fields, true)] }] };
    expect(firstPanes([projection as never]).map(({ kind, table: of, agg, by }) => [kind, of, agg, by])).toEqual([["chart", "shop/by_product", "sum(cents)", "product"], ["table", "shop/raw", "count()", ""]]);
  });

  test("a new board does not replace one, and a changed one replaces only the one it began with", async () => {
    const sent = vi.fn(async (_: string, __: RequestInit) => new Response("{}", { headers: { etag: '"2"' } }));
    vi.stubGlobal("fetch", sent);
    const board = boardOf({});
    await storeBoard("a", board, null);
    expect((await storeBoard("a", board, '"1"')).etag).toBe('"2"');
    vi.unstubAllGlobals();
    expect(sent.mock.calls.map(([, init]) => init.headers)).toMatchObject([{ "if-none-match": "*" }, { "if-match": '"1"' }]);
  });
});

describe("polling", () => {
  test("a request that is never answered ends after a minute, and the next one follows", async () => {
    vi.useFakeTimers();
    vi.stubGlobal("document", { hidden: false, addEventListener: () => {}, removeEventListener: () => {} });
    const requests: AbortSignal[] = [];
    const poll = new Poll((signal) => {
      requests.push(signal);
      return new Promise<number>((resolve, reject) => {
        if (requests.length === 2) resolve(5);
        signal.addEventListener("abort", () => reject(signal.reason));
      });
    }, 1000);
    const stop = poll.start();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(poll.value.value.error?.offline).toBe(true);
    await vi.advanceTimersByTimeAsync(1000);
    expect(poll.value.value).toMatchObject({ data: 5, error: null });
    // One that was stopped is no error.
    await vi.advanceTimersByTimeAsync(1000);
    stop();
    await vi.advanceTimersByTimeAsync(120_000);
    expect(poll.value.value.error).toBeNull();
    expect(requests).toHaveLength(3);
    vi.unstubAllGlobals();
    vi.useRealTimers();
  });
});
