// Calculates the pauses between attempts to connect.

/** The bounds of pauses, in milliseconds. */
export interface Pauses {
  /**
   * The upper limit of the pause after the first failure. It doubles with every further failure.
   */
  minMs: number;
  /** The maximum of this limit. */
  maxMs: number;
}

/**
 * A random pause between 0 and a limit that doubles with every failure, so that clients
 * that failed together do not reconnect together.
 */
export function pause({ minMs, maxMs }: Pauses, failures: number): number {
  return Math.random() * Math.min(maxMs, minMs * 2 ** Math.min(failures, 20));
}

/** A pause of at least half of the longest. */
export function longPause({ maxMs }: Pauses): number {
  return (maxMs * (1 + Math.random())) / 2;
}
