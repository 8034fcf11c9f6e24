// A declaration as a form: the server checks it as it is written.
import { effect, signal, useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useLocation } from "preact-iso";
import { useEffect, useMemo } from "preact/hooks";
import type { CheckResult, EventsPage, LoggedEvent } from "../api-types.js";
import { AGGREGATES, type ColumnForm, type DeclarationForm, type KeyPart, missing, NEW_FORM, NO_COLUMN, NO_PART, partName, type Refusal, refusal, suggested, WINDOWS, type WindowForm, type Written, written } from "../declaration.js";
import { save } from "../download.js";
import { Badge, copy, Failure, say } from "../parts.js";
import { Preview } from "../preview.js";
import { type Problem, path, problem, read } from "../problem.js";
import { useRested } from "../rested.js";
import { overview } from "../server.js";
import { check, dryRun, push } from "../upload.js";
import { About, existing, Kinds } from "./upload.js";

/** How long the form rests before the server is asked. */
const REST_MS = 400;
/** How many of the newest events of a partition are looked at for suggestions. */
const LOOKED_AT = 200;
const STORED = "declaration";

/** The form as it was before the page was loaded again. */
function stored(): DeclarationForm {
  try {
    return { ...NEW_FORM, ...JSON.parse(sessionStorage.getItem(STORED) ?? "{}") };
  } catch {
    return NEW_FORM;
  }
}
const form = signal<DeclarationForm>(stored());
effect(() => sessionStorage.setItem(STORED, JSON.stringify(form.value)));

/** What the server says of the present text. */
type Verdict =
  | { readonly is: "none" }
  | { readonly is: "checking" }
  | { readonly is: "refused"; readonly error: Problem }
  | { readonly is: "passed"; readonly text: string; readonly result: CheckResult };

function fileOf(text: string): File {
  return new File([text], "form.yaml", { type: "application/yaml" });
}

/** Asks the server about the text when it has rested. */
function useVerdict(text: string, complete: boolean): Verdict {
  const verdict = useSignal<Verdict>({ is: "none" });
  useEffect(() => {
    if (!complete) {
      verdict.value = { is: "none" };
      return;
    }
    const stop = new AbortController();
    const timer = setTimeout(async () => {
      if (verdict.value.is !== "refused") verdict.value = { is: "checking" };
      try {
        const result = await check(fileOf(text), "", stop.signal);
        if (!stop.signal.aborted) verdict.value = { is: "passed", text, result };
      } catch (error) {
        if (!stop.signal.aborted) verdict.value = { is: "refused", error: problem(error) };
      }
    }, REST_MS);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [text, complete]);
  return verdict.value;
}

/** The newest events, for suggestions. Without them, the form has none. */
function useEvents(): readonly LoggedEvent[] {
  const events = useSignal<readonly LoggedEvent[]>([]);
  const partitions = overview.value.value.data?.status.partitions ?? [];
  useEffect(() => {
    const stop = new AbortController();
    const pages = partitions.slice(0, 4).map(async ({ partition, start = 0, end }) => {
      const from = Math.max(start ?? 0, (end ?? 0) - LOOKED_AT);
      const page = await read<EventsPage>(`/v1/events?partition=${partition}&from=${from}&limit=${LOOKED_AT}`, { signal: stop.signal });
      events.value = [...events.value, ...page.events];
    });
    void Promise.allSettled(pages);
    return () => stop.abort();
  }, [partitions.length]);
  return events.value;
}

export default function DeclareScreen(): JSX.Element {
  const { query } = useLocation();
  const now = form.value;
  const text = useMemo(() => written(now), [now]);
  const lacks = missing(now);
  const verdict = useVerdict(text.text, lacks === null);
  const found = verdict.is === "refused" ? refusal(verdict.error.message) : null;
  const events = useEvents();
  // What the server has accepted is previewed. Until then, the preview before it stays.
  const input = verdict.is === "passed" && verdict.text === text.text ? text.text : null;
  const rested = useRested(input, 0, (accepted, signal, tell) => dryRun(fileOf(accepted), "", "", signal, tell));
  useEffect(() => {
    if (query.name) form.value = { ...form.value, name: query.name };
  }, [query.name]);
  return (
    <section aria-labelledby="title">
      <header class="screen">
        <h1 id="title">Declare a projection</h1>
        <Kinds here="declaration" />
        <p class="soft about">A projection without code: which events change which rows. The file can do more than this form: several tables, parameters, kinds of fields.</p>
      </header>
      <div class="form-columns">
        <Fields form={now} events={events} wrong={found && wrongField(text, found)} />
        <div class="form-text">
          <Text text={text.text} lacks={lacks} verdict={verdict} found={found} name={now.name} />
          <h2>What it would write</h2>
          <Preview rested={rested} input={input} />
          <Upload form={now} verdict={verdict} text={text.text} />
        </div>
      </div>
    </section>
  );
}

/** A field with what is wrong with it. */
interface Wrong {
  readonly field: string;
  readonly text: string;
}

function wrongField(text: Written, found: Refusal): Wrong {
  const help = found.help === "" ? "" : ` (${found.help})`;
  return { field: text.fieldAt(found.line, found.column) ?? "", text: `Line ${found.line}, column ${found.column}: ${found.message}${help}` };
}

interface FieldProps {
  readonly id: string;
  readonly label: string;
  readonly value: string;
  readonly wrong: Wrong | null;
  readonly onText: (text: string) => void;
  readonly list?: string;
  readonly placeholder?: string;
}

/** A text of the form, with the server's refusal under it. */
function Field({ id, label, value, wrong, onText, list, placeholder }: FieldProps): JSX.Element {
  const bad = wrong?.field === id;
  return (
    <div class="field">
      <label>
        {label}
        <input
          value={value}
          list={list}
          placeholder={placeholder}
          autocomplete="off"
          spellcheck={false}
          aria-invalid={bad}
          aria-describedby={bad ? "wrong" : undefined}
          onInput={({ currentTarget }) => onText(currentTarget.value)}
        />
      </label>
      <Reason wrong={wrong} id={id} />
    </div>
  );
}

/** Why the server refuses a field, which names this text as its description. */
function Reason({ wrong, id }: { wrong: Wrong | null; id: string }): JSX.Element | null {
  if (wrong?.field !== id) return null;
  return (
    <p id="wrong" class="bad">
      {wrong.text}
    </p>
  );
}

function Fields({ form: now, events, wrong }: { form: DeclarationForm; events: readonly LoggedEvent[]; wrong: Wrong | null }): JSX.Element {
  const { types, members } = useMemo(() => suggested(events, now.from), [events, now.from]);
  const set = (change: Partial<DeclarationForm>): void => {
    form.value = { ...form.value, ...change };
  };
  return (
    <form class="declare" onSubmit={(event) => event.preventDefault()}>
      <datalist id="types">{types.map((type) => <option key={type} value={type} />)}</datalist>
      <datalist id="members">{["time", "subject", "type", "source", "tenant", ...members].map((name) => <option key={name} value={name} />)}</datalist>
      <fieldset>
        <legend>Events</legend>
        <div class="fields-row">
          <Field id="name" label="Projection" value={now.name} wrong={wrong} placeholder="revenue" onText={(name) => set({ name })} />
          <Field id="from" label="Types, with commas" value={now.from} wrong={wrong} list="types" placeholder="order.placed, cart.*" onText={(from) => set({ from })} />
        </div>
        <Field id="where" label="Only where (optional)" value={now.where} wrong={wrong} list="members" placeholder='data.country in ["DE", "FR"]' onText={(where) => set({ where })} />
        {members.length > 0 && <p class="soft">The newest events have: {members.join(", ")}</p>}
      </fieldset>
      <fieldset>
        <legend>Rows</legend>
        <Field id="table" label="Table" value={now.table} wrong={wrong} placeholder="by_product" onText={(table) => set({ table })} />
        <Keys parts={now.key} wrong={wrong} set={(key) => set({ key })} />
      </fieldset>
      <WindowFields window={now.window} wrong={wrong} set={(window) => set({ window })} />
      <Columns columns={now.columns} wrong={wrong} set={(columns) => set({ columns })} />
      <Reason wrong={wrong} id="" />
      <p class="actions">
        <button type="button" onClick={() => (form.value = NEW_FORM)}>
          Clear the form
        </button>
      </p>
    </form>
  );
}

/** The list with one element replaced, or removed if there is no new one. */
function replaced<T>(list: readonly T[], at: number, by?: T): T[] {
  return list.flatMap((one, index) => (index !== at ? [one] : by === undefined ? [] : [by]));
}

function Keys({ parts, wrong, set }: { parts: readonly KeyPart[]; wrong: Wrong | null; set: (parts: readonly KeyPart[]) => void }): JSX.Element {
  return (
    <>
      {parts.map((part, at) => (
        <div class="fields-row removable" key={at} role="group" aria-label={`Part ${at + 1} of the key`}>
          <Field id={`key.${at}.of`} label="One row for each" value={part.of} wrong={wrong} list="members" placeholder="data.product" onText={(of) => set(replaced(parts, at, { ...part, of }))} />
          <Field id={`key.${at}.name`} label="named" value={part.name} wrong={wrong} placeholder={part.of === "" ? "" : partName(part)} onText={(name) => set(replaced(parts, at, { ...part, name }))} />
          <button type="button" class="plain" aria-label={`Remove part ${at + 1} of the key`} onClick={() => set(replaced(parts, at))}>
            ✕
          </button>
        </div>
      ))}
      {parts.length === 0 && <p class="soft">Without a key, the table has one row.</p>}
      <p class="actions">
        <button type="button" onClick={() => set([...parts, NO_PART])}>
          Add a part of the key
        </button>
      </p>
    </>
  );
}

const WINDOW_NAMES = { "": "none: one row for all time", tumbling: "adjacent (tumbling)", hopping: "overlapping (hopping)", session: "sessions" } as const;

function WindowFields({ window, wrong, set }: { window: WindowForm; wrong: Wrong | null; set: (window: WindowForm) => void }): JSX.Element {
  const text = (name: "size" | "every" | "tz" | "lateness", label: string, placeholder: string): JSX.Element => (
    <Field id={`window.${name}`} label={label} value={window[name]} wrong={wrong} placeholder={placeholder} onText={(value) => set({ ...window, [name]: value })} />
  );
  return (
    <fieldset>
      <legend>Window of time</legend>
      <div class="fields-row">
        <div class="field">
          <label>
            Windows
            <select value={window.kind} onChange={({ currentTarget }) => set({ ...window, kind: currentTarget.value as WindowForm["kind"] })}>
              {WINDOWS.map((kind) => (
                <option key={kind} value={kind}>
                  {WINDOW_NAMES[kind]}
                </option>
              ))}
            </select>
          </label>
        </div>
        {window.kind !== "" && text("size", window.kind === "session" ? "end after a pause of" : "of", "1h")}
        {window.kind === "hopping" && text("every", "one every", "15m")}
      </div>
      {window.kind !== "" && (
        <>
          <div class="fields-row">
            {window.kind === "tumbling" && text("tz", "Time zone (optional)", "Europe/Berlin")}
            {text("lateness", "Late after (optional)", "1m")}
          </div>
          <label>
            <input type="checkbox" checked={window.final} onChange={({ currentTarget }) => set({ ...window, final: currentTarget.checked })} /> Write a row once, when its window is over
          </label>
          <Reason wrong={wrong} id="window.final" />
        </>
      )}
    </fieldset>
  );
}

function Columns({ columns, wrong, set }: { columns: readonly ColumnForm[]; wrong: Wrong | null; set: (columns: readonly ColumnForm[]) => void }): JSX.Element {
  return (
    <fieldset>
      <legend>Columns</legend>
      {columns.map((column, at) => {
        const change = (by: Partial<ColumnForm>): void => set(replaced(columns, at, { ...column, ...by }));
        const id = `columns.${at}`;
        const bad = wrong?.field === `${id}.fn`;
        return (
          <div class="fields-row column-row removable" key={at} role="group" aria-label={`Column ${at + 1}`}>
            <Field id={`${id}.name`} label="Column" value={column.name} wrong={wrong} placeholder="cents" onText={(name) => change({ name })} />
            <div class="field">
              <label>
                is
                <select value={column.fn} aria-invalid={bad} aria-describedby={bad ? "wrong" : undefined} onChange={({ currentTarget }) => change({ fn: currentTarget.value })}>
                  {[...AGGREGATES, "expression"].map((fn) => (
                    <option key={fn} value={fn}>
                      {fn === "expression" ? "an expression" : fn}
                    </option>
                  ))}
                </select>
              </label>
              <Reason wrong={wrong} id={`${id}.fn`} />
            </div>
            {column.fn !== "count" && <Field id={`${id}.of`} label="of" value={column.of} wrong={wrong} list="members" placeholder="data.cents" onText={(of) => change({ of })} />}
            {column.fn !== "expression" && <Field id={`${id}.where`} label="where (optional)" value={column.where} wrong={wrong} list="members" onText={(where) => change({ where })} />}
            <Field id={`${id}.unit`} label="unit (optional)" value={column.unit} wrong={wrong} onText={(unit) => change({ unit })} />
            <button type="button" class="plain" aria-label={`Remove column ${at + 1}`} onClick={() => set(replaced(columns, at))}>
              ✕
            </button>
          </div>
        );
      })}
      <p class="actions">
        <button type="button" onClick={() => set([...columns, NO_COLUMN])}>
          Add a column
        </button>
      </p>
    </fieldset>
  );
}

/** The declaration with numbered lines, and what the server says of it. */
function Text({ text, lacks, verdict, found, name }: { text: string; lacks: string | null; verdict: Verdict; found: Refusal | null; name: string }): JSX.Element {
  return (
    <>
      <p role="status">
        {lacks !== null && <Badge tone="quiet" text={lacks} />}
        {verdict.is === "checking" && <Badge tone="busy" text="The server checks it …" />}
        {verdict.is === "passed" && <Badge tone="good" text="The server accepts it" />}
        {found && <Badge tone="bad" text={`Refused at line ${found.line}, column ${found.column}`} />}
      </p>
      {found && <p class="bad">{found.help === "" ? found.message : `${found.message}: ${found.help}`}</p>}
      {verdict.is === "refused" && !found && <Failure error={verdict.error} />}
      <ol class="yaml" tabIndex={0} aria-label="The declaration in YAML">
        {text.trimEnd().split("\n").map((line, at) => (
          <li key={at} class={found?.line === at + 1 ? "wrong" : ""}>
            <code>{found?.line === at + 1 ? marked(line, found.column) : line}</code>
          </li>
        ))}
      </ol>
      <p class="actions">
        <button type="button" onClick={() => void copy(text)}>
          Copy
        </button>
        <button type="button" onClick={() => save(`${name || "declaration"}.yaml`, [text], "application/yaml")}>
          Save as a file
        </button>
      </p>
    </>
  );
}

/** A line with a mark from a column on. */
function marked(line: string, column: number): JSX.Element {
  const characters = [...line];
  return (
    <>
      {characters.slice(0, column - 1).join("")}
      <mark>{characters.slice(column - 1).join("") || " "}</mark>
    </>
  );
}

function Upload({ form: { name, table }, verdict, text }: { form: DeclarationForm; verdict: Verdict; text: string }): JSX.Element | null {
  const { route } = useLocation();
  const running = useSignal(false);
  const failed = useSignal<Problem | null>(null);
  if (verdict.is !== "passed" || verdict.text !== text) return null;
  const upload = async (): Promise<void> => {
    running.value = true;
    failed.value = null;
    try {
      const { projection, existed } = await push(fileOf(text), name.trim(), "", true);
      await overview.refresh();
      say(existed ? "This version existed before: nothing was changed" : `Uploaded: ${projection}`);
      route(`/t${path(projection, table.trim())}`);
    } catch (error) {
      failed.value = problem(error);
    }
    running.value = false;
  };
  return (
    <>
      <h2>What it is</h2>
      <About result={verdict.result} />
      <p class="soft">{existing(name.trim())}</p>
      {failed.value && <Failure error={failed.value} />}
      <p class="actions">
        <button type="button" class="primary" disabled={running.value} onClick={() => void upload()}>
          {running.value ? "Uploading …" : "Upload and start"}
        </button>
      </p>
    </>
  );
}
