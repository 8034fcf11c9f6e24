// Requests that read, retry and drop parked events.
import type { ParkedOutcome, ParkedPage, ParkedReason, ParkedStatus } from "./api-types.js";
import { path, post, read } from "./problem.js";
import { counted } from "./format.js";

/**
 * Events are grouped by the first characters of their reasons, up to this number. The server groups
 * in the same way.
 */
const REASON_CHARS_MAX = 400;

/** A reason with each number replaced: reasons that differ only in numbers are the same. */
export function alike(reason: string): string {
  return [...reason].slice(0, REASON_CHARS_MAX).join("").replace(/[0-9]+/g, "#");
}

export type Deed = "retry" | "drop";

function api(name: string): string {
  return `/v1/projections${path(name)}/parked`;
}

/** Retries or drops all parked events. */
export function withAll(name: string, deed: Deed): Promise<ParkedOutcome | undefined> {
  return post(`${api(name)}/${deed}`, { all: true });
}

/** Retries or drops one event. */
export function withOne(name: string, deed: Deed, event: ParkedStatus): Promise<ParkedOutcome | undefined> {
  return post(`${api(name)}/${deed}`, { partition: event.partition, offsets: [event.offset] });
}

/** Retries or drops an event and the events that wait behind it. */
export function withSubject(name: string, deed: Deed, { subject, tenant }: ParkedStatus): Promise<ParkedOutcome | undefined> {
  return post(`${api(name)}/${deed}`, { subject, tenant });
}

const PAGE = 1000;

/** The offsets of the events that failed for a reason, by partition. */
export async function offsetsOf(name: string, group: ParkedReason): Promise<Map<number, number[]>> {
  const wanted = alike(group.reason);
  const found = new Map<number, number[]>();
  const params = new URLSearchParams({ waiting: "false", limit: String(PAGE) });
  for (;;) {
    const { parked, next } = await read<ParkedPage>(`${api(name)}?${params}`);
    for (const event of parked) {
      if (alike(event.reason) !== wanted) continue;
      found.set(event.partition, [...(found.get(event.partition) ?? []), event.offset]);
    }
    if (!next) return found;
    params.set("cursor", next);
  }
}

/** How many offsets one request names. */
const OFFSETS_MAX = 1000;

/** Retries or drops the events that failed for a reason. */
export async function withGroup(name: string, deed: Deed, group: ParkedReason): Promise<ParkedOutcome> {
  const total: ParkedOutcome = { selected: 0, done: 0, failed: 0, waiting: 0 };
  for (const [partition, offsets] of await offsetsOf(name, group)) {
    for (let at = 0; at < offsets.length; at += OFFSETS_MAX) {
      const part = await post<ParkedOutcome>(`${api(name)}/${deed}`, { partition, offsets: offsets.slice(at, at + OFFSETS_MAX) });
      total.selected += part?.selected ?? 0;
      total.done += part?.done ?? 0;
      total.failed += part?.failed ?? 0;
      total.waiting += part?.waiting ?? 0;
    }
  }
  return total;
}

/** The result in words. */
export function outcome(deed: Deed, { done, failed, waiting }: ParkedOutcome): string {
  if (deed === "drop") return `${counted(done, "event")} dropped`;
  const parts = [`${counted(done, "event")} applied`];
  if (failed > 0) parts.push(`${counted(failed, "event")} failed again`);
  if (waiting > 0) parts.push(`${counted(waiting, "event")} still waiting`);
  return parts.join(", ");
}
