// Answers that the server writes while it works. They are NDJSON: lines with the progress, and then a
// line with the result.
import { parse } from "../../clients/ts/src/json.js";
import { Problem, send } from "./problem.js";

/** How far the work is, 0 to 100. */
export type Progress = (percent: number) => void;

/** A line of such an answer. The object has one member. */
interface Line {
  readonly progress?: { readonly percent: number };
  readonly problem?: { readonly code?: string; readonly title?: string; readonly detail?: string; readonly help?: string; readonly status?: number };
  readonly [result: string]: unknown;
}

/** Splits text that arrives in pieces into its lines. */
export class LineSplitter {
  #rest = "";

  /** The lines that the piece completes. */
  add(piece: string): string[] {
    const lines = (this.#rest + piece).split("\n");
    this.#rest = lines.pop()!;
    return lines.filter((line) => line !== "");
  }
}

/**
 * Sends a request, tells the progress, and returns the member `result` of the last line. A server that
 * answers without lines gives the result at once.
 */
export async function readResult<T>(path: string, init: RequestInit, result: string, tell: Progress): Promise<T> {
  const answer = await send(path, { ...init, headers: { ...init.headers, accept: "application/x-ndjson" } });
  if (!answer.headers.get("content-type")?.startsWith("application/x-ndjson")) return parse(await answer.text()) as T;
  const splitter = new LineSplitter();
  const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      if (init.signal?.aborted) throw error;
      throw new Problem("offline", "The server has stopped answering.", "Check that the server runs, and try again.");
    });
    if (done) throw new Problem("offline", "The answer of the server ended early.", "Try again.");
    for (const text of splitter.add(value)) {
      const line = parse(text) as Line;
      if (line.progress) tell(line.progress.percent);
      if (line.problem) throw new Problem(line.problem.code ?? "", line.problem.detail || line.problem.title || "", line.problem.help ?? "", line.problem.status);
      if (line[result] !== undefined) return line[result] as T;
    }
  }
}
