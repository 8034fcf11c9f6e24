// The upload screen: turns a file into a projection with tables.
import { signal, useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useLocation } from "preact-iso";
import { useEffect } from "preact/hooks";
import type { CheckResult } from "../api-types.js";
import { bytes, count, counted, shortId } from "../format.js";
import { Failure, say } from "../parts.js";
import { Preview } from "../preview.js";
import { Problem, path, problem } from "../problem.js";
import { useRested } from "../rested.js";
import { overview, projectionNow } from "../server.js";
import { ACCEPTED, check, dropped, dryRun, kindOf, manifestOf, nameOf, push } from "../upload.js";

type Step =
  | { readonly at: "choose" }
  | { readonly at: "checking" }
  | { readonly at: "refused"; readonly error: Problem }
  | { readonly at: "checked" | "uploading"; readonly result: CheckResult; readonly parameters: string };

/** How long the name rests before the preview is requested. */
const REST_MS = 400;

/** The chosen file. It is kept while the user visits another screen. */
const file = signal<File | null>(null);

export default function UploadScreen(): JSX.Element {
  const { query, route } = useLocation();
  const parameters = useSignal("");
  const step = useSignal<Step>({ at: "choose" });
  const name = useSignal(query.name ?? "");
  const activate = useSignal(true);
  const failed = useSignal<Problem | null>(null);

  const start = async (): Promise<void> => {
    const chosen = file.value;
    if (!chosen) return;
    failed.value = null;
    if (!kindOf(chosen.name)) {
      step.value = { at: "refused", error: new Problem("page", `${chosen.name} is not a kind of file that Lantern folds events with.`, `Choose a file that ends with ${ACCEPTED.replaceAll(",", ", ")}.`) };
      return;
    }
    step.value = { at: "checking" };
    try {
      const used = parameters.value;
      const result = await check(chosen, used);
      if (file.value !== chosen) return;
      step.value = { at: "checked", result, parameters: used };
      if (name.value === "") name.value = manifestOf(result).name ?? nameOf(chosen.name);
    } catch (error) {
      if (file.value === chosen) step.value = { at: "refused", error: problem(error) };
    }
  };
  const take = (chosen: File): void => {
    file.value = chosen;
    void start();
  };
  useEffect(() => {
    if (dropped.value) {
      const chosen = dropped.value;
      dropped.value = null;
      take(chosen);
    } else if (file.value) void start();
  }, [dropped.value]);

  const upload = async (result: CheckResult): Promise<void> => {
    const chosen = file.value;
    if (!chosen) return;
    const checked = step.value.at === "checked" ? step.value : { result, parameters: parameters.value };
    step.value = { ...checked, at: "uploading" };
    failed.value = null;
    try {
      const { projection, existed } = await push(chosen, name.value, parameters.value, activate.value);
      await overview.refresh();
      say(existed ? "This version existed before: nothing was changed" : `Uploaded: ${projection}`);
      file.value = null;
      const first = manifestOf(result).tables?.find((table) => table.public !== false);
      route(first && activate.value ? `/t${path(projection, first.name)}` : `/p${path(projection)}`);
    } catch (error) {
      failed.value = problem(error);
      step.value = { ...checked, at: "checked" };
    }
  };

  const now = step.value;
  const checked = now.at === "checked" || now.at === "uploading" ? now : null;
  const result = checked?.result ?? null;
  // Parameters that were not checked yet have no preview.
  const input = checked?.parameters === parameters.value ? JSON.stringify([checked.result.version, parameters.value, name.value]) : null;
  const rested = useRested(input, REST_MS, (_, signal, tell) => dryRun(file.value!, name.value, parameters.value, signal, tell));
  return (
    <section class="upload" aria-labelledby="title">
      <header class="screen">
        <h1 id="title">Upload a projection</h1>
        <Kinds here="file" />
      </header>
      <ol class="steps">
        <li>
          <h2>File</h2>
          <label class="drop">
            <span class="strong">{file.value ? file.value.name : "Drop a file anywhere on this page, or choose one"}</span>
            <span class="soft">
              {file.value ? `${kindOf(file.value.name)?.name ?? "unknown kind of file"}, ${bytes(file.value.size)}` : "A component (.wasm), a script (.py, .js, .ts) or a declaration (.yaml, .json)"}
            </span>
            <input type="file" accept={ACCEPTED} onChange={({ currentTarget }) => currentTarget.files?.[0] && take(currentTarget.files[0])} />
          </label>
          {now.at === "checking" && (
            <p role="status" class="soft">
              Checking: the server compiles it, asks for its manifest, and folds a sample of the log several times …
            </p>
          )}
          {now.at === "refused" && <Failure error={now.error} />}
        </li>
        {file.value && (
          <li>
            <h2>Parameters</h2>
            <details open={parameters.value !== "" || now.at === "refused"}>
              <summary>Text that is passed to its setup</summary>
              <label>
                Parameters <textarea rows={4} spellcheck={false} value={parameters.value} onInput={({ currentTarget }) => (parameters.value = currentTarget.value)} />
              </label>
              <button type="button" disabled={now.at === "checking"} onClick={() => void start()}>
                Check again
              </button>
            </details>
          </li>
        )}
        {result && (
          <>
            <li>
              <h2>What it is</h2>
              <About result={result} />
            </li>
            <li class="wide">
              <h2>What it would write</h2>
              <Preview rested={rested} input={input} />
            </li>
            <li>
              <h2>Name</h2>
              <form
                onSubmit={(event) => {
                  event.preventDefault();
                  void upload(result);
                }}
              >
                <label>
                  Projection{" "}
                  <input required value={name.value} autocomplete="off" spellcheck={false} maxLength={63} onInput={({ currentTarget }) => (name.value = currentTarget.value)} />
                </label>
                <p class="soft">{existing(name.value)}</p>
                <label>
                  <input type="checkbox" checked={activate.value} onChange={({ currentTarget }) => (activate.value = currentTarget.checked)} /> Activate it when it has caught up
                </label>
                {failed.value && <Failure error={failed.value} />}
                <p class="actions">
                  <button type="submit" class="primary" disabled={now.at === "uploading"}>
                    {now.at === "uploading" ? "Uploading …" : "Upload and start"}
                  </button>
                </p>
              </form>
            </li>
          </>
        )}
      </ol>
    </section>
  );
}

/** The two ways to a projection: a file, or a form. */
export function Kinds({ here }: { here: "file" | "declaration" }): JSX.Element {
  const { query } = useLocation();
  const search = query.name ? `?name=${encodeURIComponent(query.name)}` : "";
  return (
    <nav class="tabs" aria-label="Kinds of uploads">
      <a href={`/upload${search}`} aria-current={here === "file" ? "page" : undefined}>
        From a file
      </a>
      <a href={`/upload/declaration${search}`} aria-current={here === "declaration" ? "page" : undefined}>
        From a form
      </a>
    </nav>
  );
}

/** What an upload under this name does. */
export function existing(name: string): string {
  const found = projectionNow(name);
  if (!found) return name === "" ? "" : "A new projection.";
  return `A new version of ${name}, next to its ${counted(found.versions.length, "version")}. Readers keep the present tables until it is active.`;
}

export function About({ result }: { result: CheckResult }): JSX.Element {
  const { description, version, subscribes = [], tables = [] } = manifestOf(result);
  return (
    <>
      <p class="good">
        <span aria-hidden="true">✓</span> The check passed:{" "}
        {result.checked_events === 0 ? "the log has no events yet, so nothing could be folded." : `${count(result.checked_events)} events of the log, folded several times, gave the same rows.`}
      </p>
      {description && <p>{description}</p>}
      <p class="soft">
        Version {version ?? "–"}, id {shortId(result.version)}. It reads events: {subscribes.map(eventName).join(", ") || "none"}
      </p>
      {(result.warnings ?? []).map((warning) => (
        <p class="warn" key={warning}>
          {warning}
        </p>
      ))}
      {tables
        .filter((table) => table.public !== false)
        .map((table) => (
          <div key={table.name}>
            <h3>{table.name}</h3>
            <p class="soft">{table.description}</p>
            <ul class="inline">
              {(table.fields ?? []).map((field) => (
                <li key={field.name}>
                  {field.name} <small>{field.unit ? `${field.kind}, ${field.unit}` : field.kind}</small>
                </li>
              ))}
            </ul>
          </div>
        ))}
    </>
  );
}

function eventName(of: unknown): string {
  return typeof of === "string" ? of : String((of as { type?: string }).type ?? "");
}
