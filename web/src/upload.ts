// Uploads of plugins, scripts and declarations.
import { signal } from "@preact/signals";
import type { CheckResult, DryRun, Uploaded } from "./api-types.js";
import { type Progress, readResult } from "./lines.js";
import { path, read, withParams } from "./problem.js";

/** The parts of a manifest that the page shows. */
export interface Manifest {
  readonly name?: string;
  readonly version?: string;
  readonly description?: string;
  readonly subscribes?: readonly unknown[];
  readonly tables?: readonly { readonly name: string; readonly description?: string; readonly public?: boolean; readonly fields?: readonly { readonly name: string; readonly kind: string; readonly unit?: string }[] }[];
}

export function manifestOf({ manifest }: Pick<CheckResult, "manifest">): Manifest {
  return manifest as Manifest;
}

/** The file that was dropped on the page, until the upload screen takes it. */
export const dropped = signal<File | null>(null);

/** The kinds of files, by the end of their names. */
const KINDS: readonly { readonly ends: string; readonly media: string; readonly name: string }[] = [
  { ends: ".wasm", media: "application/wasm", name: "WebAssembly component" },
  { ends: ".py", media: "text/x-python", name: "Python script" },
  { ends: ".js", media: "text/javascript", name: "JavaScript script" },
  { ends: ".mjs", media: "text/javascript", name: "JavaScript script" },
  { ends: ".ts", media: "text/typescript", name: "TypeScript script" },
  { ends: ".yaml", media: "application/yaml", name: "declaration" },
  { ends: ".yml", media: "application/yaml", name: "declaration" },
  { ends: ".json", media: "application/json", name: "declaration" },
];

/** What kind of file it is; `null` if the server takes no such file. */
export function kindOf(name: string): { media: string; name: string } | null {
  return KINDS.find(({ ends }) => name.toLowerCase().endsWith(ends)) ?? null;
}

/** The endings of the file names that the server accepts. */
export const ACCEPTED = KINDS.map(({ ends }) => ends).join(",");

/** A name for a projection, made of a file's name: small letters, digits and `-`. */
export function nameOf(file: string): string {
  const base = file.replace(/\.[^.]*$/, "").toLowerCase();
  return base.replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 63);
}

/** The request that carries a file: its text alone, or a form if it has parameters. */
function body(file: File, parameters: string): RequestInit {
  const kind = kindOf(file.name);
  if (parameters.trim() === "") return { method: "POST", body: file, headers: { "content-type": kind?.media ?? "application/octet-stream" } };
  const form = new FormData();
  form.append(kind?.media === "application/wasm" ? "plugin" : "source", file, file.name);
  form.append("parameters", parameters);
  return { method: "POST", body: form };
}

function address(base: string, file: File, params: Record<string, string> = {}): string {
  return withParams(base, { ...params, source_name: kindOf(file.name)?.media === "application/wasm" ? "" : file.name });
}

/** Compiles and checks a file, without storing it. */
export function check(file: File, parameters: string, signal?: AbortSignal): Promise<CheckResult> {
  return read(address("/v1/plugins/check", file), { ...body(file, parameters), ...(signal && { signal }) });
}

/**
 * Folds the newest events with a file and with the active version of the projection `name`, and compares
 * the tables. Nothing is stored.
 */
export function dryRun(file: File, name: string, parameters: string, signal: AbortSignal, tell: Progress): Promise<DryRun> {
  return readResult(address("/v1/versions/dry-run", file, { name }), { ...body(file, parameters), signal }, "dry_run", tell);
}

/** Uploads a file as a version of a projection. */
export function push(file: File, name: string, parameters: string, activate: boolean): Promise<Uploaded> {
  return read(address(`/v1/projections${path(name)}/versions`, file, { activate: String(activate) }), body(file, parameters));
}
