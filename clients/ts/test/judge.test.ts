// Tests that the judge of the randomised experiment finds states that were never committed.
import { expect, test } from "vitest";
import { Judge, type Seen } from "./judge.js";

test("the judge accepts states of the log and refuses others", () => {
  const judge = new Judge();
  const state = (offset: number, commit: number, rows?: Map<string, any>): Seen => ({
    table: "revenue/by_product",
    epoch: "e",
    commit,
    offset,
    rows: rows ?? new Map(new Judge().rows("revenue/by_product", offset)),
  });
  const reader = {};
  judge.check(reader, state(0, 1));
  judge.check(reader, state(20, 2));
  judge.check({}, state(7, 1));
  expect(() => judge.check(reader, state(7, 1))).toThrow(/went back/);
  expect(() => judge.check({}, state(20, 2, state(21, 2).rows as Map<string, any>))).toThrow(/have 21 events/);
  const wrong = new Map(state(20, 2).rows);
  const [key, row] = [...wrong][3]!;
  wrong.set(key, { ...row, cents: row.cents + 1 });
  expect(() => judge.check({}, state(20, 2, wrong))).toThrow(/never were/);
  expect(judge.states).toBe(3);
});
