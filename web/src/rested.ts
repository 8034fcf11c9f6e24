// A request that is sent again when its input changes. It is sent when the input has not changed for a
// while. Until its answer arrives, the last answer stays.
import { type Signal, signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import type { Progress } from "./lines.js";
import { type Problem, problem } from "./problem.js";

/** An answer, and what it answers. */
export interface Answered<T> {
  /** The input. */
  readonly of: string;
  readonly data: T;
}

export interface Rested<T> {
  /** The newest answer. It may be of an earlier input. */
  readonly last: Answered<T> | null;
  /** When the present request began, in milliseconds since 1970; `null` if none is running. */
  readonly began: number | null;
  /** How much of the request the server has done, 0 to 100; `null` if that is not known. */
  readonly percent: number | null;
  /** Why the request for the newest input failed. */
  readonly error: Problem | null;
  /** Whether the user has stopped the request for the newest input. */
  readonly stopped: boolean;
}

/** The state without a request. */
const IDLE = { began: null, percent: null, error: null, stopped: false } as const;

/** The code of an answer after which the same request succeeds later: another fold runs. */
const BUSY = "LAN-0440";
/** The maximum number of attempts while the server is busy, and the pause between two of them. */
const BUSY_TRIES = 120;
const BUSY_MS = 500;

/** Sends the request for an input. */
export type Request<T> = (input: string, signal: AbortSignal, tell: Progress) => Promise<T>;

/** Sends a request for the newest input only. */
export class RestedRequest<T> {
  readonly value: Signal<Rested<T>> = signal({ last: null, ...IDLE });
  #request: Request<T>;
  #input: string | null = null;
  #running: AbortController | undefined;

  constructor(request: Request<T>) {
    this.#request = request;
  }

  /** Sends the request for `input` after `restMs`, unless another input comes first. `null` sends none. */
  input(input: string | null, restMs: number): void {
    if (input === this.#input) return;
    this.#end();
    this.#input = input;
    this.#show({});
    if (input !== null) void this.#run(input, restMs);
  }

  /** Sends the request for the newest input again. */
  again(): void {
    this.#end();
    if (this.#input !== null) void this.#run(this.#input, 0);
  }

  /** Ends the request. The server ends its work when the client disconnects. */
  stop(): void {
    this.#end();
    this.#show({ stopped: true });
  }

  /** Ends the request when its component is removed. */
  close(): void {
    this.#end();
    this.#input = null;
  }

  #end(): void {
    this.#running?.abort();
    this.#running = undefined;
  }

  /** Shows a new state, with the last answer if there is no newer one. */
  #show(state: Partial<Rested<T>>): void {
    this.value.value = { last: this.value.peek().last, ...IDLE, ...state };
  }

  async #run(input: string, restMs: number): Promise<void> {
    const running = new AbortController();
    this.#running = running;
    await rest(restMs);
    if (running.signal.aborted) return;
    this.#show({ began: Date.now() });
    try {
      const data = await this.#patiently(input, running.signal);
      if (!running.signal.aborted) this.#show({ last: { of: input, data } });
    } catch (error) {
      if (!running.signal.aborted) this.#show({ error: problem(error) });
    }
  }

  /** The request. While another one folds the log, it waits for its turn. */
  async #patiently(input: string, signal: AbortSignal): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#request(input, signal, (percent) => {
          if (!signal.aborted) this.value.value = { ...this.value.peek(), percent };
        });
      } catch (error) {
        if (signal.aborted || attempt === BUSY_TRIES || problem(error).code !== BUSY) throw error;
      }
      await rest(BUSY_MS);
      signal.throwIfAborted();
    }
  }
}

function rest(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** A request that is sent when `input` has not changed for `restMs`. */
export function useRested<T>(input: string | null, restMs: number, request: Request<T>): RestedRequest<T> {
  const rested = useMemo(() => new RestedRequest(request), []);
  useEffect(() => rested.input(input, restMs), [input]);
  useEffect(() => () => rested.close(), []);
  return rested;
}
