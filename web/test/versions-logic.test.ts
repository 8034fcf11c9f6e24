// The logic of comparisons, previews, paths of events and limits, without a browser.
import { describe, expect, test, vi } from "vitest";
import type { ProjectionStatus, RowDifference, Setting, VersionStatus } from "../src/api-types.js";
import { comparedTables, comparisonAddress, comparisonOf, offsetsText, sides } from "../src/comparison.js";
import { areEqual, changedCell, columnsOf, fieldText, kindOfDifference } from "../src/differences.js";
import { limitsOf, hasText, settingText } from "../src/limits.js";
import { LineSplitter, readResult } from "../src/lines.js";
import { Problem } from "../src/problem.js";
import { RestedRequest } from "../src/rested.js";
import type { Overview } from "../src/server.js";

const row = (left: object | null, right: object | null): RowDifference => ({ key: "k", left, right }) as RowDifference;

describe("rows that differ", () => {
  test("a row is added, gone or changed, and only its cells that differ have two values", () => {
    expect([row(null, {}), row({}, null), row({}, {})].map(kindOfDifference)).toEqual(["added", "gone", "changed"]);
    const change = row({ a: 1, b: "x", c: null }, { a: 2, b: "x", d: 9007199254740993n });
    expect(changedCell("integer", "a", change)).toEqual({ before: "1", after: "2" });
    expect(changedCell("text", "b", change)).toEqual({ same: "x" });
    // A field that is missing is another thing than one without a value.
    expect(changedCell("text", "c", change)).toEqual({ before: "–", after: null });
    expect(changedCell("integer", "d", change)).toEqual({ before: null, after: "9,007,199,254,740,993" });
  });

  test("a change far behind in a long text is shown with what is before it", () => {
    const same = "y".repeat(500);
    const found = changedCell("text", "t", row({ t: `${same}old` }, { t: `${same}new` }));
    expect(found).toEqual({ before: `…${"y".repeat(20)}old`, after: `…${"y".repeat(20)}new` });
    const hostile = changedCell("text", "t", row({ t: "a" }, { t: "\u202Eb" }));
    expect(hostile).toEqual({ before: "a", after: "⟨U+202E⟩b" });
  });

  test("columns are the declared fields, and then those that rows have in addition", () => {
    const columns = columnsOf([{ name: "b", kind: "integer" }], [row(null, { a: 1, b: 2, c: 3 })]);
    expect(columns.map(({ name, kind }) => `${name} ${kind}`)).toEqual(["b integer", "a ", "c "]);
    // Those that differ come first.
    const declared = ["a", "b", "c"].map((name) => ({ name, kind: "integer" }));
    expect(columnsOf(declared, [row({ a: 1, b: 2, c: 3 }, { a: 1, b: 2, c: 4 }), row(null, { a: 5, b: 5, c: 5 })]).map(({ name }) => name)).toEqual(["c", "a", "b"]);
  });

  test("what became of a field is a sentence, and nothing that differs is equal", () => {
    expect(fieldText({ name: "n", left: null, right: "text" })).toBe("n (text) is new");
    expect(fieldText({ name: "n", left: "text", right: null })).toBe("n (text) is gone");
    expect(fieldText({ name: "n", left: "text", right: "integer" })).toBe("n is integer instead of text");
    const none = { same: 5, added: 0, removed: 0, changed: 0, fields: [], differences: [], more: false };
    expect(areEqual(none)).toBe(true);
    expect(areEqual({ ...none, fields: [{ name: "n", right: "text" }] })).toBe(false);
  });
});

describe("a comparison", () => {
  const version = (id: string, ...names: string[]): VersionStatus => ({ id, tables: names.map((name) => ({ name, public: true })) }) as unknown as VersionStatus;
  const projection = { name: "p", active: "bb2", versions: [version("aa1", "t"), version("bb2", "t", "u"), version("cc3", "u", "v")] } as unknown as ProjectionStatus;
  const found = (query: { [name: string]: string }): unknown => {
    const two = sides(projection, comparisonOf(query));
    return typeof two === "string" ? two : [two.left.id, two.right.id];
  };

  test("begins with the active version and the newest other one, and the address chooses others", () => {
    expect(found({})).toEqual(["bb2", "cc3"]);
    expect(found({ right: "bb2" })).toEqual(["aa1", "bb2"]);
    expect(found({ left: "cc3" })).toEqual(["cc3", "bb2"]);
    expect(found({ left: "aa", right: "cc" })).toEqual(["aa1", "cc3"]);
    expect(found({ left: "aa1", right: "aa1" })).toBe("Choose two different versions.");
    expect(found({ right: "dd" })).toBe("p has no version dd.");
  });

  test("names tables that only one version has", () => {
    expect(comparedTables(projection.versions[1]!, projection.versions[2]!)).toEqual([
      { name: "t", in: "left" },
      { name: "u", in: "both" },
      { name: "v", in: "right" },
    ]);
  });

  test("is read back from its address", () => {
    const of = { left: "a", right: "b", table: "", prefix: "x/ä&" };
    const address = comparisonAddress("a b", of);
    expect(address).toContain("/p/a%20b/compare?");
    expect(comparisonOf(Object.fromEntries(new URL(address, "http://h").searchParams))).toEqual(of);
    expect(offsetsText({ offsets: { 0: 1200, 1: 5 } })).toBe("partition 0 before offset 1,200, partition 1 before offset 5");
  });
});

describe("a request that follows its input", () => {
  const rest = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

  test("is sent for the last of several inputs only, and the answer before it stays", async () => {
    const sent: string[] = [];
    const rested = new RestedRequest(async (input, signal) => {
      sent.push(input);
      await rest(20);
      signal.throwIfAborted();
      return input.toUpperCase();
    });
    rested.input("a", 0);
    await rest(40);
    expect(rested.value.value.last).toEqual({ of: "a", data: "A" });
    for (const input of ["ab", "abc", "abcd"]) rested.input(input, 10);
    expect(rested.value.value.last?.of).toBe("a");
    await rest(80);
    expect(sent).toEqual(["a", "abcd"]);
    expect(rested.value.value).toMatchObject({ last: { of: "abcd", data: "ABCD" }, began: null, error: null });
    // Without an input the last answer stays, and nothing is sent.
    rested.input(null, 0);
    await rest(20);
    expect(rested.value.value.last?.of).toBe("abcd");
    expect(sent).toHaveLength(2);
  });

  test("ends when it is cancelled, waits while the server is busy, and shows why it failed", async () => {
    const aborted = vi.fn();
    let tries = 0;
    const rested = new RestedRequest(async (input, signal, tell) => {
      signal.addEventListener("abort", aborted);
      tell(50);
      if (input === "slow") await rest(1000);
      if (input === "busy" && (tries += 1) < 2) throw new Problem("LAN-0440", "busy", "", 503);
      if (input === "bad") throw new Problem("LAN-0110", "bad");
      return input;
    });
    rested.input("slow", 0);
    await rest(20);
    expect(rested.value.value.percent).toBe(50);
    rested.stop();
    expect(aborted).toHaveBeenCalledOnce();
    expect(rested.value.value).toMatchObject({ last: null, began: null, stopped: true });
    rested.input("busy", 0);
    await rest(700);
    expect(rested.value.value.last?.data).toBe("busy");
    expect(tries).toBe(2);
    rested.input("bad", 0);
    await rest(20);
    expect(rested.value.value).toMatchObject({ last: { of: "busy" }, error: { code: "LAN-0110" } });
  });
});

describe("an answer in lines", () => {
  const answer = (pieces: string[]): Response => {
    const body = new ReadableStream({
      start(controller) {
        for (const piece of pieces) controller.enqueue(new TextEncoder().encode(piece));
        controller.close();
      },
    });
    return new Response(body, { headers: { "content-type": "application/x-ndjson" } });
  };
  const readFrom = async (pieces: string[], tell = vi.fn()): Promise<unknown> => {
    vi.stubGlobal("fetch", async () => answer(pieces));
    try {
      return await readResult("/v1/x", {}, "changes", tell);
    } finally {
      vi.unstubAllGlobals();
    }
  };

  test("tells the progress, and gives the last line, wherever its pieces end", async () => {
    const tell = vi.fn();
    expect(await readFrom(['{"progress":{"events":1,"per', 'cent":12.5}}\n{"chan', 'ges":{"n":9007199254740993}}\n'], tell)).toEqual({ n: 9007199254740993n });
    expect(tell.mock.calls).toEqual([[12.5]]);
    expect(new LineSplitter().add("a\nb\nc")).toEqual(["a", "b"]);
  });

  test("that has a problem, or ends early, is an error", async () => {
    await expect(readFrom(['{"problem":{"code":"LAN-0443","title":"t","detail":"too long","help":"less"}}\n'])).rejects.toMatchObject({ code: "LAN-0443", message: "too long", help: "less" });
    await expect(readFrom(['{"progress":{"events":1,"percent":1}}\n'])).rejects.toMatchObject({ code: "offline" });
  });
});

describe("limits and settings", () => {
  test("the limit that is nearest to its end comes first, and the fullest shard counts", () => {
    const setting = (key: string, value: unknown): Setting => ({ key, value, default: value, changed: false });
    const shard = (state_bytes: number, parked: number): object => ({ state_bytes, parked, unsent: 0 });
    const data = { projections: [{ versions: [{ shards: [shard(10, 0), shard(30, 9)] }] }], status: { feed_sessions: 2 } } as unknown as Overview;
    const limits = limitsOf([setting("live.sessions_max", 100), setting("engine.parked_max", 10), setting("engine.state_bytes_max", 100)], data, 1);
    expect(limits.map(({ key, used, most }) => [key, used, most])).toEqual([
      ["engine.parked_max", 9, 10],
      ["engine.state_bytes_max", 30, 100],
      ["live.sessions_max", 2, 100],
    ]);
  });

  test("a setting is found by its key and by its value", () => {
    const setting = { key: "http.listen", value: "127.0.0.1:7420", default: null, changed: true };
    expect([hasText(setting, " LISTEN"), hasText(setting, "7420"), hasText(setting, "live")]).toEqual([true, true, false]);
    expect([settingText(null), settingText(1_000_000), settingText("a"), settingText(["a"])]).toEqual(["not set", "1,000,000", '"a"', '["a"]']);
  });
});
