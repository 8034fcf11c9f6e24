// Values that the page requests again and again.
import { computed, type Signal, signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { Problem, problem } from "./problem.js";

/** The last answer, and how the last request ended. */
export interface Polled<T> {
  readonly data: T | null;
  /** When the last answer arrived, in milliseconds since 1970; 0 before the first. */
  readonly at: number;
  /** Why the last request failed; `null` if it succeeded. */
  readonly error: Problem | null;
}

/** What a pane says about its data. */
export type Freshness = "loading" | "live" | "stale" | "offline" | "error";

/** The time now, updated every second. */
export const now: Signal<number> = signal(Date.now());
setInterval(() => {
  now.value = Date.now();
}, 1000);

/** How current a polled value is. Data older than `staleMs` is stale. */
export function freshness({ data, at, error }: Polled<unknown>, time: number, staleMs: number): Freshness {
  if (data === null) return error === null ? "loading" : error.offline ? "offline" : "error";
  if (error !== null) return error.offline ? "offline" : "error";
  return time - at > staleMs ? "stale" : "live";
}

/**
 * How current a polled value is. As time passes, the component is drawn again only when its
 * freshness changes.
 */
export function useFreshness(of: Polled<unknown>, staleMs: number): Freshness {
  return useMemo(() => computed(() => freshness(of, now.value, staleMs)), [of, staleMs]).value;
}

/** How long a request may take. */
const ANSWER_MS_MAX = 60_000;
const LATE = new Problem("offline", "The server has not answered for a minute.", "Check the network. The page tries again by itself.");

/** Requests a value every `everyMs` while the page is visible. */
export class Poll<T> {
  readonly value: Signal<Polled<T>> = signal({ data: null, at: 0, error: null });
  readonly everyMs: number;
  #request: (signal: AbortSignal, before: T | null) => Promise<T>;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #running: AbortController | undefined;
  #readers = 0;

  constructor(request: (signal: AbortSignal, before: T | null) => Promise<T>, everyMs: number) {
    this.#request = request;
    this.everyMs = everyMs;
  }

  /** Begins, until the returned function is called. */
  start(): () => void {
    this.#readers += 1;
    if (this.#readers === 1) {
      document.addEventListener("visibilitychange", this.#visible);
      void this.refresh();
    }
    return () => {
      this.#readers -= 1;
      if (this.#readers > 0) return;
      document.removeEventListener("visibilitychange", this.#visible);
      clearTimeout(this.#timer);
      this.#running?.abort();
    };
  }

  #visible = (): void => {
    if (!document.hidden) void this.refresh();
  };

  /** Requests the value now. */
  async refresh(): Promise<void> {
    this.#running?.abort();
    clearTimeout(this.#timer);
    const running = new AbortController();
    this.#running = running;
    // A network that loses packets silently would keep the request for ever.
    const late = setTimeout(() => running.abort(LATE), ANSWER_MS_MAX);
    try {
      const data = await this.#request(running.signal, this.value.peek().data);
      if (running.signal.aborted) return;
      this.value.value = { data, at: Date.now(), error: null };
    } catch (error) {
      if (running.signal.aborted && running.signal.reason !== LATE) return;
      this.value.value = { ...this.value.peek(), error: problem(error) };
    } finally {
      clearTimeout(late);
    }
    if (this.#readers > 0 && !document.hidden) this.#timer = setTimeout(() => void this.refresh(), this.everyMs);
  }
}

/** Polls while the component is shown. With a different `key` it starts again without data. */
export function usePoll<T>(key: string, request: (signal: AbortSignal, before: T | null) => Promise<T>, everyMs = 2000): Poll<T> {
  const poll = useMemo(() => new Poll(request, everyMs), [key, everyMs]);
  useEffect(() => poll.start(), [poll]);
  return poll;
}
