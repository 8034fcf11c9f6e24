// Waits for conditions in tests.

/** The maximum time that a test waits for anything. */
export const PATIENCE_MS = 120_000;

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until `reached` returns a value; fails with what `seen` returns. */
export async function until<T>(reached: () => T | Promise<T>, seen: () => unknown = () => ""): Promise<NonNullable<T>> {
  const start = Date.now();
  for (;;) {
    const value = await reached();
    if (value) return value as NonNullable<T>;
    if (Date.now() - start > PATIENCE_MS) throw new Error(`it did not happen in time: ${show(seen())}`);
    await sleep(5);
  }
}

/** A value as text, also with integers beyond 2^53. */
export function show(value: unknown): string {
  return JSON.stringify(value, (_, of) => (typeof of === "bigint" ? `${of}n` : of instanceof Map ? [...of] : of));
}
