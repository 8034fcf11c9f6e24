// Parts that several screens use.
import { signal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { counted, duration } from "./format.js";
import { type Freshness, now, type Polled, useFreshness } from "./polled.js";
import { type Problem, problem } from "./problem.js";
import { type Condition, overview, STALE_MS } from "./server.js";

/**
 * A word with a mark. Each tone has its own form of the mark, so that its meaning does not depend
 * on colour alone.
 */
export function Badge({ tone, text }: Condition): JSX.Element {
  const mark = { good: "●", busy: "◐", bad: "▲", quiet: "○" }[tone];
  return (
    <span class={`badge ${tone}`}>
      <span aria-hidden="true">{mark}</span> {text}
    </span>
  );
}

/** A freshness in words, with the age of old data. */
function freshnessText(state: Freshness, at: number, time: number): string {
  const age = at === 0 ? "" : ` for ${duration(Math.max(0, Math.round((time - at) / 1000)))}`;
  return state === "stale" || state === "offline" ? state + age : state;
}

/** The freshness of a pane. */
export function FreshnessMark({ state, at }: { state: Freshness; at: number }): JSX.Element {
  const tone = state === "live" ? "good" : state === "loading" || state === "stale" ? "busy" : "bad";
  return <Badge tone={tone} text={freshnessText(state, at, now.value)} />;
}

/** The freshness of data that arrives over a connection. If the server has stopped answering, the connection may notice it much later. */
export function ConnectedMark({ state, at }: { state: Freshness; at: number }): JSX.Element {
  const { value } = overview.value;
  const server = useFreshness(value, STALE_MS);
  const silent = state === "live" && server !== "live" && server !== "loading";
  const old = silent || state === "stale";
  return <FreshnessMark state={old ? (server === "offline" ? "offline" : "stale") : state} at={silent ? value.at : at} />;
}

/** The freshness of a polled value. */
export function PolledMark({ of, staleMs = STALE_MS }: { of: Polled<unknown>; staleMs?: number }): JSX.Element {
  return <FreshnessMark state={useFreshness(of, staleMs)} at={of.at} />;
}

/** An error in words, with its code and what to do. */
export function Failure({ error }: { error: Problem }): JSX.Element {
  return (
    <div class="failure" role="alert">
      <p>
        {error.message} <code>{error.code}</code>
      </p>
      {error.help && <p class="soft">{error.help}</p>}
    </div>
  );
}

/** Shows why the last request failed, or that there is no answer yet. */
export function Missing({ of: { data, error } }: { of: Polled<unknown> }): JSX.Element | null {
  if (error !== null) return <Failure error={error} />;
  if (data !== null) return null;
  return (
    <p class="soft" role="status">
      Loading …
    </p>
  );
}

/** Shows polled data. If the data is not live, it also shows how old the data is. */
export function Pane<T>({ of, staleMs = STALE_MS, children }: { of: Polled<T>; staleMs?: number; children: (data: T) => ComponentChildren }): JSX.Element {
  const state = useFreshness(of, staleMs);
  return (
    <>
      <Missing of={of} />
      {of.data !== null && (
        <div class={state === "live" ? "pane" : "pane old"}>
          {state !== "live" && (
            <p class="soft">
              Shown as it was <FreshnessMark state={state} at={of.at} />
            </p>
          )}
          {children(of.data)}
        </div>
      )}
    </>
  );
}

/** A pane without content, and the one thing to do next. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }): JSX.Element {
  return (
    <div class="empty">
      <p class="strong">{title}</p>
      {children}
    </div>
  );
}

/** Text that a click copies. */
export function Code({ text, label }: { text: string; label: string }): JSX.Element {
  return (
    <div class="code">
      <pre tabIndex={0} aria-label={label}>
        {text}
      </pre>
      <button type="button" onClick={() => void copy(text)}>
        Copy
      </button>
    </div>
  );
}

/** A short message at the edge of the page. */
export const notice = signal<{ text: string; bad: boolean } | null>(null);
let ends: ReturnType<typeof setTimeout> | undefined;

export function say(text: string, bad = false): void {
  clearTimeout(ends);
  notice.value = { text, bad };
  ends = setTimeout(() => {
    notice.value = null;
  }, bad ? 12_000 : 4000);
}

/** Tells that something failed, and why. */
export function sayFailed(what: string, error: unknown): void {
  const { message, code } = problem(error);
  say(`${what}: ${message} (${code})`, true);
}

/** Copies text, also on a page without a secure context. */
export async function copy(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied");
  } catch {
    say("The browser did not allow to copy: select the text instead", true);
  }
}

/** A dialog that is open while it exists. */
export function Dialog({ title, onClose, sheet = false, children }: { title: string; onClose: () => void; sheet?: boolean; children: ComponentChildren }): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  const removed = useRef(false);
  useEffect(() => {
    const element = dialog.current!;
    const before = document.activeElement;
    element.showModal();
    // Closing a dialog gives the focus back to where it was. Removing an open one does not.
    return () => {
      removed.current = true;
      element.close();
      if (before instanceof HTMLElement && (document.activeElement === null || document.activeElement === document.body)) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={dialog}
      class={sheet ? "sheet" : ""}
      aria-label={title}
      onClose={() => {
        // The event comes late: if a link in the dialog was followed, another screen is open by then.
        if (!removed.current) onClose();
      }}
      onClick={(event) => {
        // A click whose target is the dialog itself, and not its content, is a click on the
        // backdrop.
        if (event.target === dialog.current) dialog.current?.close();
      }}
    >
      <div class="inside">
        <header>
          <h2>{title}</h2>
          <button type="button" class="plain" aria-label="Close" onClick={() => dialog.current?.close()}>
            ✕
          </button>
        </header>
        {children}
      </div>
    </dialog>
  );
}

/** A button that freezes the shown data, and tells how many changes are waiting meanwhile. */
export function HoldButton({ held, waiting, onClick }: { held: boolean; waiting: string; onClick: () => void }): JSX.Element {
  return (
    <button type="button" aria-pressed={held} onClick={onClick}>
      {held ? `Go on, ${waiting} waiting` : "Hold still"}
    </button>
  );
}

/** A link to an event. Its text is the event's place in the log. */
export function EventLink({ partition, offset }: { partition: number; offset: number }): JSX.Element {
  return (
    <a href={`/events?partition=${partition}&from=${offset}&event=${partition}:${offset}`}>
      {partition}:{offset}
    </a>
  );
}

/** A fact with its name. */
export function Fact({ name, children, tone = "" }: { name: string; children: ComponentChildren; tone?: string }): JSX.Element {
  return (
    <div class={tone}>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

/** The minimum number of values for a sparkline: a line of two or three values says nothing. */
const SPARKLINE_MIN = 10;

/** The last values as a small line. The newest value is in the text next to it. */
export function Sparkline({ values }: { values: readonly number[] }): JSX.Element | null {
  if (values.length < SPARKLINE_MIN) return null;
  const most = Math.max(...values, 1e-9);
  const points = values.map((value, at) => `${(at / (values.length - 1)) * 100},${20 - (value / most) * 18}`).join(" ");
  return (
    <svg class="spark" viewBox="0 0 100 21" preserveAspectRatio="none" aria-hidden="true">
      <polyline points={points} />
    </svg>
  );
}

/** A bar with its text. */
export function Progress({ percent, label }: { percent: number; label: string }): JSX.Element {
  return (
    <div class="progress">
      <progress max={100} value={percent} aria-label={label} />
      <span>{label}</span>
    </div>
  );
}

/** How much of the log is folded. It is rounded down: 99.9 % is not all. */
export function percentText(percent: number): string {
  return `${Math.floor(percent * 10) / 10} %`;
}

/** How far behind its log a version is, in words. */
export function behindText(lag: { events: number; ms: number } | null): string {
  if (lag === null) return "unknown";
  return lag.events === 0 ? "nothing" : `${counted(lag.events, "event")}, ${duration(lag.ms / 1000)}`;
}
