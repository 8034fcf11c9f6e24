// How much of the server's limits is in use.
import type { Setting } from "./api-types.js";
import { bytes, count } from "./format.js";
import type { Overview } from "./server.js";

/** A limit, and how much of it is in use. */
export interface Limit {
  readonly name: string;
  /** The setting that raises it. */
  readonly key: string;
  readonly used: number;
  readonly most: number;
  readonly unit: "bytes" | "count";
}

/** The value of a setting that is a number. */
function numberOf(settings: readonly Setting[], key: string): number | null {
  const found = settings.find((setting) => setting.key === key);
  return typeof found?.value === "number" ? found.value : null;
}

/**
 * The limits whose use the page knows. The limit with the largest share in use comes first. If each shard
 * has a limit of its own, the largest use of a shard counts.
 */
export function limitsOf(settings: readonly Setting[], { projections, status }: Overview, boards: number): Limit[] {
  const shards = projections.flatMap(({ versions }) => versions.flatMap((version) => version.shards));
  const largest = (of: (shard: (typeof shards)[number]) => number): number => Math.max(0, ...shards.map(of));
  const all: [name: string, key: string, used: number, unit: Limit["unit"]][] = [
    ["sessions of the feed", "live.sessions_max", status.feed_sessions, "count"],
    ["largest state of a shard", "engine.state_bytes_max", largest((shard) => shard.state_bytes), "bytes"],
    ["parked events of a shard", "engine.parked_max", largest((shard) => shard.parked), "count"],
    ["emitted events of a shard that are not in the log yet", "engine.emit_unsent_max", largest((shard) => shard.unsent), "count"],
    ["boards", "boards.count_max", boards, "count"],
  ];
  const limits = all.flatMap(([name, key, used, unit]) => {
    const most = numberOf(settings, key);
    return most === null ? [] : [{ name, key, used, most, unit }];
  });
  return limits.sort((one, other) => other.used / other.most - one.used / one.most);
}

/** An amount of a limit in its unit. */
export function amount({ unit }: Limit, value: number): string {
  return unit === "bytes" ? bytes(value) : count(value);
}

/** A value of a setting as it is written in the configuration. */
export function settingText(value: unknown): string {
  if (value === null || value === undefined) return "not set";
  return typeof value === "number" ? count(value) : JSON.stringify(value);
}

/** Whether a setting contains a text, in its key or in a value. */
export function hasText({ key, value, default: usual }: Setting, text: string): boolean {
  return `${key} ${settingText(value)} ${settingText(usual)}`.toLowerCase().includes(text.trim().toLowerCase());
}
