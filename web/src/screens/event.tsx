// An event, what each version has done with it, and the rows that it has changed.
import type { JSX } from "preact";
import type { ChangedRow, EventChanges, EventPath, EventStep, EventsPage, LoggedEvent, RowDifference } from "../api-types.js";
import { columnsOf, kindOfDifference, type NamedField } from "../differences.js";
import { count, counted, keyText, moment, pretty, shortId, shown, zoneName } from "../format.js";
import { readResult } from "../lines.js";
import { Badge, Code, Dialog, Empty, Fact, Pane, PolledMark } from "../parts.js";
import { usePoll } from "../polled.js";
import { path, Problem, read } from "../problem.js";
import { useRested } from "../rested.js";
import { RestedState } from "../rested-state.js";
import { Value } from "../row-differences.js";
import { type Condition, fieldsOf, projectionNow } from "../server.js";

/** The place of an event in the log. */
export interface EventPlace {
  readonly partition: number;
  readonly offset: number;
}

/** The place in an address, such as `0:4812`; `null` if it is none. */
export function placeOf(text: string | undefined): EventPlace | null {
  const found = /^(\d{1,10}):(\d{1,15})$/.exec(text ?? "");
  return found && { partition: Number(found[1]), offset: Number(found[2]) };
}

interface SheetProps {
  readonly place: EventPlace;
  /** The version whose changed rows are shown, as `PROJECTION:VERSION`. */
  readonly rows: string;
  readonly onRows: (rows: string) => void;
  readonly onClose: () => void;
}

export function EventSheet({ place, rows, onRows, onClose }: SheetProps): JSX.Element {
  const { partition, offset } = place;
  const event = usePoll(`event ${partition}:${offset}`, async (signal, before: LoggedEvent | null) => before ?? eventAt(place, signal), 10_000);
  const steps = usePoll(`path ${partition}:${offset}`, (signal) => read<EventPath>(`/v1/events/${partition}/${offset}/path`, { signal }));
  return (
    <Dialog sheet title={`Event ${partition}:${offset}`} onClose={onClose}>
      <Pane of={event.value.value}>
        {(found) => (
          <>
            {found.appended && (
              <p class="soft">
                Appended {moment(Date.parse(found.appended) * 1000)} {zoneName()}
              </p>
            )}
            <Code label="The event" text={pretty(found.event)} />
          </>
        )}
      </Pane>
      <header class="screen">
        <h3>What was done with it</h3>
        <PolledMark of={steps.value.value} />
      </header>
      <Pane of={steps.value.value}>
        {({ versions }) =>
          versions.length === 0 ? (
            <Empty title="There is no projection">
              <a href="/upload">Upload one</a>
            </Empty>
          ) : (
            <ul class="groups" aria-label="Versions">
              {[...versions].sort(byInterest).map((step) => (
                <Step key={`${step.projection} ${step.version}`} step={step} place={place} open={rows === nameOf(step)} onRows={onRows} />
              ))}
            </ul>
          )
        }
      </Pane>
    </Dialog>
  );
}

/** The event at an offset. */
async function eventAt({ partition, offset }: EventPlace, signal: AbortSignal): Promise<LoggedEvent> {
  const { events } = await read<EventsPage>(`/v1/events?partition=${partition}&from=${offset}&limit=1`, { signal });
  const found = events.find((one) => one.offset === offset);
  if (!found) throw new Problem("LAN-0442", `Partition ${partition} has no event at offset ${offset}.`, "See the newest events.");
  return found;
}

/** A version as the address names it. */
function nameOf({ projection, version }: EventStep): string {
  return `${projection}:${version}`;
}

/** Versions that do not receive the event come last. */
function byInterest(one: EventStep, other: EventStep): number {
  return Number(one.outcome === "skipped") - Number(other.outcome === "skipped");
}

/** An outcome in words. */
function outcomeOf({ outcome, next, dropped_at }: EventStep): Condition {
  switch (outcome) {
    case "applied":
      return { tone: "good", text: "applied" };
    case "skipped":
      return { tone: "quiet", text: "skipped" };
    case "parked":
      return { tone: "bad", text: "parked" };
    case "waiting":
      return { tone: "busy", text: "waits behind a parked event of its subject" };
    case "pending":
      return { tone: "busy", text: `not reached yet: the next offset is ${count(next)}` };
    case "applied-or-dropped":
      return { tone: "quiet", text: `applied, or dropped at offset ${count(dropped_at ?? 0)}` };
    case "unreadable":
      return { tone: "bad", text: "unreadable" };
    default:
      return { tone: "quiet", text: outcome };
  }
}

function Step({ step, place, open, onRows }: { step: EventStep; place: EventPlace; open: boolean; onRows: (rows: string) => void }): JSX.Element {
  const { projection, version, state, outcome, reason, attempts } = step;
  const isParked = outcome === "parked" || outcome === "waiting";
  return (
    <li class="card">
      <header>
        <h4>
          <a href={`/p${path(projection)}`}>{projection}</a>{" "}
          <small>
            <code>{shortId(version)}</code>, {state}
          </small>
        </h4>
        <Badge {...outcomeOf(step)} />
      </header>
      {reason && <p class="reason">{shown(reason)}</p>}
      {isParked && (
        <p class="soft">
          {attempts != null && `Tried ${counted(attempts, "time")}. `}
          <a href={`/p${path(projection)}/parked`}>Repair it in the list of parked events</a>
        </p>
      )}
      {(outcome === "applied" || outcome === "applied-or-dropped") && (
        <button type="button" aria-expanded={open} onClick={() => onRows(open ? "" : nameOf(step))}>
          {open ? "Hide the rows" : "Show the rows that it changed"}
        </button>
      )}
      {open && <Rows step={step} place={place} />}
    </li>
  );
}

/** The rows that the event has changed. To find them, the server folds the log again. */
function Rows({ step: { projection, version }, place: { partition, offset } }: { step: EventStep; place: EventPlace }): JSX.Element {
  const params = new URLSearchParams({ projection, version });
  const rested = useRested<EventChanges>(`${params}`, 0, (input, signal, tell) => readResult(`/v1/events/${partition}/${offset}/changes?${input}`, { signal }, "changes", tell));
  const { last, began } = rested.value.value;
  return (
    <div class="preview" aria-busy={began !== null}>
      <RestedState of={rested} what="Folding the log again up to this event" again="Look again" />
      {last && <Changes of={last.data} />}
    </div>
  );
}

function Changes({ of: { projection, version, complete, reason, applied, changed, rows } }: { of: EventChanges }): JSX.Element {
  const found = projectionNow(projection)?.versions.find(({ id }) => id === version);
  const retried = rows.find(({ retried_at }) => retried_at != null)?.retried_at;
  return (
    <>
      {!complete && <p class="bad">Not found: {shown(reason ?? "the fold ended early")}</p>}
      {complete && changed === 0 && <p>{applied ? "It has changed no row of a public table." : "The fold has not applied it."}</p>}
      {retried != null && <p class="soft">It was parked at first, and applied by a retry before offset {count(retried)}.</p>}
      {rows.map((row) => (
        <OneRow key={`${row.table} ${row.key}`} projection={projection} row={row} fields={fieldsOf(found, row.table)} />
      ))}
      {changed > rows.length && <p class="soft">The first {count(rows.length)} of {counted(changed, "row")}.</p>}
    </>
  );
}

/** A row before and after the event. */
function OneRow({ projection, row, fields }: { projection: string; row: ChangedRow; fields: readonly NamedField[] }): JSX.Element {
  const of: RowDifference = { key: row.key, left: row.before ?? null, right: row.after ?? null };
  const kind = kindOfDifference(of);
  return (
    <section class="changed-row" aria-label={`${row.table}, row ${keyText(row.key)}`}>
      <p>
        <a href={`/t${path(projection, row.table)}?prefix=${encodeURIComponent(row.key)}`}>{row.table}</a>, row <code>{keyText(row.key)}</code>{" "}
        <Badge tone={kind === "added" ? "good" : kind === "gone" ? "bad" : "busy"} text={{ added: "new row", gone: "deleted", changed: "changed" }[kind]} />
      </p>
      <dl class="fields">
        {columnsOf(fields, [of]).map((field) => (
          <Fact key={field.name} name={field.name}>
            <Value row={of} field={field} />
          </Fact>
        ))}
      </dl>
    </section>
  );
}
