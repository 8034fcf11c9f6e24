// Requests to the server, and what goes wrong with them.
import { parse, stringify } from "../../clients/ts/src/json.js";

/** Why a request failed, in words for people. */
export class Problem extends Error {
  override name = "Problem";
  /** The server's code, such as `LAN-0401`; `offline` if the server did not answer. */
  readonly code: string;
  /** What to do about it. */
  readonly help: string;
  readonly status: number;

  constructor(code: string, message: string, help = "", status = 0) {
    super(message);
    this.code = code;
    this.help = help;
    this.status = status;
  }

  get offline(): boolean {
    return this.code === "offline";
  }
}

/** What went wrong, as a `Problem`. */
export function problem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  return new Problem("page", error instanceof Error ? error.message : String(error), "Reload the page.");
}

/**
 * Sends a request. Throws a `Problem` if there is no answer, or if the answer has the status of
 * an error. An answer with the status `also` is returned and not thrown.
 */
export async function send(path: string, init: RequestInit = {}, also?: number): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(path, init);
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new Problem("offline", "The server does not answer.", "Check that the server runs. The page tries again by itself.");
  }
  if (answer.ok || answer.status === also) return answer;
  const text = await answer.text();
  try {
    const { code, title, detail, help } = JSON.parse(text);
    throw new Problem(code ?? String(answer.status), detail || title || answer.statusText, help ?? "", answer.status);
  } catch (error) {
    if (error instanceof Problem) throw error;
    throw new Problem(String(answer.status), text.slice(0, 300) || answer.statusText, "", answer.status);
  }
}

/** Reads JSON. Integers that a double cannot represent become a `bigint`. */
export async function read<T>(path: string, init: RequestInit = {}): Promise<T> {
  const answer = await send(path, { ...init, headers: { accept: "application/json", ...init.headers } });
  return parse(await answer.text()) as T;
}

/** Posts JSON, and reads the answer if it has one. A `bigint` is sent as the integer that it is. */
export async function post<T = unknown>(path: string, body?: unknown): Promise<T | undefined> {
  const init: RequestInit = { method: "POST" };
  if (body !== undefined) {
    init.body = stringify(body);
    init.headers = { "content-type": "application/json" };
  }
  const text = await (await send(path, init)).text();
  return text === "" ? undefined : (parse(text) as T);
}

/** Adds parameters to a path, without those that are empty. */
export function withParams(path: string, params: { readonly [name: string]: string }): string {
  const given = new URLSearchParams(Object.entries(params).filter(([, text]) => text !== ""));
  return given.size > 0 ? `${path}?${given}` : path;
}

/** Builds a path from segments, which may contain any text. */
export function path(...segments: string[]): string {
  return segments.map((segment) => `/${encodeURIComponent(segment)}`).join("");
}
