// Parked events: why they failed, and how they are repaired.
import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useLocation } from "preact-iso";
import type { ParkedOutcome, ParkedPage, ParkedReason, ParkedStatus, ParkedSummary } from "../api-types.js";
import { count, counted, moment, shown, zoneName } from "../format.js";
import { type Deed, outcome, withAll, withGroup, withOne, withSubject } from "../parked.js";
import { Code, Dialog, Empty, EventLink, Failure, Pane, PolledMark, say, sayFailed } from "../parts.js";
import { usePoll } from "../polled.js";
import { type Problem, path, problem, read } from "../problem.js";
import { Select } from "../select.js";
import { overview, served } from "../server.js";

export default function ParkedScreen(): JSX.Element {
  const { value } = overview.value;
  return (
    <section aria-labelledby="title">
      <header class="screen">
        <h1 id="title">Parked events</h1>
        <PolledMark of={value} />
      </header>
      <Pane of={value}>
        {({ projections }) => {
          const having = projections.filter((projection) => (served(projection)?.parked ?? 0) > 0);
          if (having.length === 0) {
            return (
              <Empty title="No event is parked">
                <p>An event that a plugin cannot apply is kept here with its reason, and can be applied again.</p>
              </Empty>
            );
          }
          return having.map(({ name }) => (
            <section key={name} aria-label={name}>
              <h2>
                <a href={`/p${path(name)}/parked`}>{name}</a>
              </h2>
              <Summary name={name} />
            </section>
          ));
        }}
      </Pane>
    </section>
  );
}

/** The parked events of a projection: in groups by reason, and one by one. */
export function ParkedOf({ name }: { name: string }): JSX.Element {
  return (
    <>
      <Summary name={name} />
      <Events name={name} />
    </>
  );
}

/**
 * Buttons to retry and to drop events. A drop must be confirmed, because it cannot be undone.
 */
function Deeds({ what, number, run, done }: { what: string; number: number; run: (deed: Deed) => Promise<ParkedOutcome | undefined>; done: () => void }): JSX.Element {
  const asked = useSignal(false);
  const running = useSignal(false);
  const failed = useSignal<Problem | null>(null);
  const act = async (deed: Deed): Promise<void> => {
    running.value = true;
    failed.value = null;
    try {
      const result = await run(deed);
      if (result) say(outcome(deed, result), result.failed > 0);
      asked.value = false;
    } catch (error) {
      failed.value = problem(error);
    }
    running.value = false;
    done();
    void overview.refresh();
  };
  return (
    <span class="actions">
      <button type="button" disabled={running.value} onClick={() => void act("retry")}>
        Retry {what}
      </button>
      <button type="button" class="danger" disabled={running.value} onClick={() => (asked.value = true)}>
        Drop {what}
      </button>
      {failed.value && !asked.value && <Failure error={failed.value} />}
      {asked.value && (
        <Dialog title={`Drop ${what}`} onClose={() => (asked.value = false)}>
          <p>
            Deletes {counted(number, "parked event")} permanently. The tables will never contain {number === 1 ? "it" : "them"}; the log still does.
          </p>
          {failed.value && <Failure error={failed.value} />}
          <p class="actions">
            <button type="button" class="danger" disabled={running.value} onClick={() => void act("drop")}>
              Drop {counted(number, "event")}
            </button>
            <button type="button" onClick={() => (asked.value = false)}>
              Cancel
            </button>
          </p>
        </Dialog>
      )}
    </span>
  );
}

function Summary({ name }: { name: string }): JSX.Element {
  const poll = usePoll(`reasons ${name}`, (signal) => read<ParkedSummary>(`/v1/projections${path(name)}/parked/reasons`, { signal }));
  const refresh = (): void => void poll.refresh();
  return (
    <Pane of={poll.value.value}>
      {(summary) =>
        summary.total === 0 ? (
          <Empty title="No event is parked">
            <a href={`/p${path(name)}`}>See the versions</a>
          </Empty>
        ) : (
          <>
            <div class="bar">
              <p>
                <strong>{count(summary.failed)} failed</strong>, {count(summary.waiting)} wait behind a failed event of their subject
              </p>
              <Deeds what={`all ${count(summary.total)}`} number={summary.total} run={(deed) => withAll(name, deed)} done={refresh} />
            </div>
            <ul class="groups" aria-label="Reasons">
              {summary.reasons.map((group) => (
                <Group key={`${group.partition} ${group.offset} ${group.reason}`} name={name} group={group} done={refresh} />
              ))}
            </ul>
            {summary.more_reasons > 0 && <p class="soft">And {counted(summary.more_reasons, "more reason")}.</p>}
          </>
        )
      }
    </Pane>
  );
}

function Group({ name, group, done }: { name: string; group: ParkedReason; done: () => void }): JSX.Element {
  return (
    <li class="card">
      <p class="reason">{shown(group.reason)}</p>
      <p class="soft">
        {counted(group.failed, "event")} failed, {count(group.waiting)} waiting. The first is{" "}
        <EventLink partition={group.partition} offset={group.offset} />
        .
      </p>
      {group.failed > 0 && <Deeds what={`these ${count(group.failed)}`} number={group.failed} run={(deed) => withGroup(name, deed, group)} done={done} />}
    </li>
  );
}

function Events({ name }: { name: string }): JSX.Element {
  const { path: here, route, query } = useLocation();
  const kind = query.waiting === "true" || query.waiting === "false" ? query.waiting : "";
  const limit = useSignal(100);
  const params = new URLSearchParams({ limit: String(limit.value), ...(kind !== "" && { waiting: kind }) });
  const poll = usePoll(`parked ${name} ${params}`, (signal) => read<ParkedPage>(`/v1/projections${path(name)}/parked?${params}`, { signal }));
  return (
    <>
      <div class="bar">
        <h2>Events</h2>
        <Select label="show" value={kind} options={[["", "all"], ["false", "failed"], ["true", "waiting"]]} onChange={(waiting) => route(waiting === "" ? here : `${here}?waiting=${waiting}`)} />
      </div>
      <Pane of={poll.value.value}>
        {({ parked, total, next }) => (
          <>
            <p class="soft">
              {count(parked.length)} of {count(total)}, times in {zoneName()}
            </p>
            <ul class="groups" aria-label="Parked events">
              {parked.map((event) => (
                <One key={`${event.partition}:${event.offset}:${event.kind}:${event.id}`} name={name} event={event} done={() => void poll.refresh()} />
              ))}
            </ul>
            {next && limit.value < 1000 && (
              <button type="button" onClick={() => (limit.value = 1000)}>
                Show more
              </button>
            )}
          </>
        )}
      </Pane>
    </>
  );
}

function One({ name, event, done }: { name: string; event: ParkedStatus; done: () => void }): JSX.Element {
  return (
    <li class="card">
      <header>
        <h3>
          {shown(event.type || event.kind)} <small>{shown(event.subject)}</small>
        </h3>
        <EventLink partition={event.partition} offset={event.offset} />
        <span class="soft">
          {moment(event.time_us)}, {event.kind}, tried {counted(event.attempts, "time")}
          {event.tenant && `, tenant ${shown(event.tenant)}`}
        </span>
      </header>
      <p class="reason">{shown(event.reason)}</p>
      <Deeds what="this one" number={1} run={(deed) => withOne(name, deed, event)} done={done} />
      {event.subject && event.kind === "event" && (
        <button type="button" onClick={() => void retrySubject(name, event, done)}>
          Retry all of this subject
        </button>
      )}
      <details>
        <summary>Data and backtrace</summary>
        <Code label="The event's data" text={event.data} />
        {event.backtrace && <Code label="The backtrace" text={event.backtrace} />}
      </details>
    </li>
  );
}

async function retrySubject(name: string, event: ParkedStatus, done: () => void): Promise<void> {
  try {
    const result = await withSubject(name, "retry", event);
    if (result) say(outcome("retry", result), result.failed > 0);
  } catch (error) {
    sayFailed("Not retried", error);
  }
  done();
  void overview.refresh();
}
