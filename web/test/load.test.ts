// The page under load, for a short time each. `npm run bench` measures for longer.
import { describe, expect, test } from "vitest";
import { charts, latency, percentile, scroll, slope, soak } from "./load.js";
import { setUp, skipped } from "./page.js";

test("percentiles and slopes of samples", () => {
  const values = Array.from({ length: 100 }, (_, n) => 99 - n);
  expect([0.5, 0.99, 1].map((share) => percentile(values, share))).toEqual([50, 99, 99]);
  expect(slope([5, 7, 9, 11])).toBeCloseTo(2);
  expect(slope([3, 3, 3])).toBe(0);
});

// Machines that run tests do other things as well, so the limits here are far above the goals:
// they find a page that has become slow by a factor, or that no longer follows.
describe.skipIf(skipped)("under load", () => {
  const running = setUp();

  test("a cell follows 1,000 events per second", async () => {
    const result = await latency(running.browser, { seconds: 4, warmUp: 1 });
    console.log(JSON.stringify(result));
    expect(result.requests).toBeGreaterThan(50);
    expect(result.p99).toBeLessThan(2000);
  });

  test("100,000 rows scroll by wheel and by keys to the last one, while rows change", async () => {
    const result = await scroll(running.browser, { rows: 100_000, seconds: 3 });
    console.log(JSON.stringify(result));
    expect(result.keysRow).toBe(result.rows - 1);
    expect(result.wheelRow).toBeGreaterThan(100);
    for (const { median } of [result.wheel, result.keys]) expect(median).toBeLessThan(200);
  });

  test("100 different charts on a board are all live", async () => {
    const result = await charts(running.browser, { seconds: 4 });
    console.log(JSON.stringify(result));
    expect(result.requests).toBe(0);
    expect(result.frames.median).toBeLessThan(500);
  });

  test("a tab that takes 100 changes per second does not grow", async () => {
    const result = await soak(running.browser, { minutes: 0.5, samples: 6 });
    console.log(JSON.stringify(result));
    expect(result.last.heapBytes - result.first.heapBytes).toBeLessThan(2 * 2 ** 20);
    expect(result.last.nodes - result.first.nodes).toBeLessThan(500);
    expect(result.last.listeners - result.first.listeners).toBeLessThan(50);
  });
});
