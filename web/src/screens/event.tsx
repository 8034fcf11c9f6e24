// An event, and what each version has done with it.
import type { JSX } from "preact";
import type { EventPath, EventStep, EventsPage, LoggedEvent } from "../api-types.js";
import { count, counted, moment, pretty, shown, zoneName } from "../format.js";
import { Badge, Code, Dialog, Empty, Pane, PolledMark } from "../parts.js";
import { usePoll } from "../polled.js";
import { path, Problem, read } from "../problem.js";
import type { Condition } from "../server.js";

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
  readonly onClose: () => void;
}

export function EventSheet({ place, onClose }: SheetProps): JSX.Element {
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
                <Step key={`${step.projection} ${step.version}`} step={step} />
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

/** Versions that do not receive the event come last. */
function byInterest(one: EventStep, other: EventStep): number {
  return Number(one.outcome === "skipped") - Number(other.outcome === "skipped");
}

/** An outcome in words. */
export function outcomeOf({ outcome, next, dropped_at }: EventStep): Condition {
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

function Step({ step }: { step: EventStep }): JSX.Element {
  const { projection, version, state, outcome, reason, attempts } = step;
  const isParked = outcome === "parked" || outcome === "waiting";
  return (
    <li class="card">
      <header>
        <h4>
          <a href={`/p${path(projection)}`}>{projection}</a>{" "}
          <small>
            <code>{version.slice(0, 8)}</code>, {state}
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
    </li>
  );
}
