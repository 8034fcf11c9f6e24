// The rows of a table in the order of their keys, and the part of them that is visible.

/** The first index from `low` on for which `before` does not hold; it holds for all indices before that one. */
function partition(low: number, high: number, before: (index: number) => boolean): number {
  while (low < high) {
    const middle = (low + high) >> 1;
    if (before(middle)) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The first index in sorted `keys` whose key is not before `key`. */
export function lowerBound(keys: readonly string[], key: string): number {
  return partition(0, keys.length, (index) => keys[index]! < key);
}

/** The range of sorted `keys` that begin with `prefix`. */
export function withPrefix(keys: readonly string[], prefix: string): [number, number] {
  const from = lowerBound(keys, prefix);
  return [from, partition(from, keys.length, (index) => keys[index]!.startsWith(prefix))];
}

/** The sorted keys after some were added and some removed. Costs one pass, not a sort. */
export function merged(keys: readonly string[], added: readonly string[], removed: ReadonlySet<string>): string[] {
  const fresh = [...added].sort();
  const result: string[] = [];
  let at = 0;
  for (const key of keys) {
    while (at < fresh.length && fresh[at]! < key) result.push(fresh[at++]!);
    if (at < fresh.length && fresh[at] === key) at += 1;
    if (!removed.has(key)) result.push(key);
  }
  while (at < fresh.length) result.push(fresh[at++]!);
  return result;
}

/** Browsers limit the height of an element: Firefox to 17.8 million pixels. */
export const HEIGHT_MAX = 8_000_000;

/** What is visible of a list with rows of one height. */
export interface Visible {
  /** The height of the scrolled area. */
  readonly height: number;
  /** The first visible row, and how many pixels of it are above the window. */
  readonly first: number;
  readonly hidden: number;
  /** How many rows are at least partly visible. */
  readonly shown: number;
}

/**
 * The visible rows of `rows` rows at a scroll position. If the list is too high for the browser,
 * its scroll area is lower than the list, and each scrolled pixel moves the rows by more than one
 * pixel.
 */
export function visible(rows: number, rowPx: number, scrolledPx: number, windowPx: number): Visible {
  const full = rows * rowPx;
  const height = Math.min(full, Math.max(HEIGHT_MAX, windowPx));
  const movable = height - windowPx;
  const top = movable <= 0 ? 0 : (Math.min(Math.max(scrolledPx, 0), movable) / movable) * (full - windowPx);
  const first = Math.min(Math.floor(top / rowPx), Math.max(0, rows - 1));
  const hidden = top - first * rowPx;
  return { height, first, hidden, shown: Math.min(rows - first, Math.ceil((windowPx + hidden) / rowPx)) };
}

/** The scroll position at which row `row` is at the top of the window. */
export function scrollTo(row: number, rows: number, rowPx: number, windowPx: number): number {
  const { height } = visible(rows, rowPx, 0, windowPx);
  const full = rows * rowPx;
  if (full <= windowPx) return 0;
  return (Math.min(row * rowPx, full - windowPx) / (full - windowPx)) * (height - windowPx);
}
