// The newest events of the log, as they arrive.
import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useLocation } from "preact-iso";
import { useEffect } from "preact/hooks";
import { stringify } from "../../../clients/ts/src/json.js";
import type { EventsPage, LoggedEvent } from "../api-types.js";
import { count, moment, shown, zoneName } from "../format.js";
import { Badge, Code, ConnectedMark, Empty, HoldButton, Missing, Pane } from "../parts.js";
import { PlainTable } from "../plain-table.js";
import { type Polled, useFreshness } from "../polled.js";
import { type Problem, problem, read, withParams } from "../problem.js";
import { Select } from "../select.js";
import { overview } from "../server.js";
import { EventSheet, placeOf } from "./event.js";

/** How many events are kept on the screen, and how many it begins with. */
const KEPT = 500;
const BEGIN = 100;
/** How long a request waits for the next event. */
const WAIT = "10s";
/** The pause after a failed request. */
const RETRY_MS = 2000;
/** The least time between two requests, so that a busy log does not keep the browser busy. */
const PAUSE_MS = 250;

/** Whether the same request would fail again. */
function isFinal({ status }: Problem): boolean {
  return status >= 400 && status < 500 && status !== 429;
}

/** The age from which the events count as stale: the time of three requests without an event. */
const TAIL_STALE_MS = 30_000;

/** The newest events, the newest first. */
type Tail = Polled<readonly LoggedEvent[]>;

export default function EventsScreen(): JSX.Element {
  const { path: here, query, route } = useLocation();
  const { value } = overview.value;
  const partition = Number(query.partition ?? 0) || 0;
  const from = /^\d+$/.test(query.from ?? "") ? Number(query.from) : null;
  const types = query.types ?? "";
  const opened = placeOf(query.event);
  const go = (change: { [name: string]: string }): void => route(withParams(here, { ...query, ...change }));
  return (
    <section aria-labelledby="title">
      <header class="screen">
        <h1 id="title">Events</h1>
      </header>
      <div class="filters">
        <Select
          label="partition"
          value={String(partition)}
          options={(value.data?.status.partitions ?? []).map((one) => [String(one.partition), one.name ?? String(one.partition)])}
          onChange={(chosen) => go({ partition: chosen, from: "" })}
        />
        <form
          onSubmit={(event) => {
            event.preventDefault();
            const field = (name: string): string => (event.currentTarget.elements.namedItem(name) as HTMLInputElement).value.trim();
            go({ types: field("types"), from: field("from") });
          }}
        >
          <label>
            types <input name="types" value={types} placeholder="order.*, payment.failed" autocomplete="off" spellcheck={false} />
          </label>
          <label>
            from offset <input name="from" inputMode="numeric" value={from ?? ""} placeholder="the newest" autocomplete="off" />
          </label>
          <button type="submit">Show</button>
        </form>
        {from !== null && (
          <button type="button" onClick={() => go({ from: "" })}>
            Back to the newest
          </button>
        )}
      </div>
      <Pane of={value}>
        {({ status }) => {
          const found = status.partitions.find((one) => one.partition === partition);
          const [start, end] = [found?.start ?? 0, found?.end ?? 0];
          if (end === 0) {
            return (
              <Empty title="The log has no events yet">
                <p>Send one:</p>
                <Code
                  label="Command"
                  text={`curl ${location.origin}/v1/events -H 'content-type: application/cloudevents+json' \\\n  -d '{"specversion":"1.0","id":"1","source":"/me","type":"hello.said","data":{"text":"hello"}}'`}
                />
              </Empty>
            );
          }
          return <Events key={`${partition} ${from} ${types}`} partition={partition} from={from ?? Math.max(start, end - BEGIN)} types={types} onOpen={(offset) => go({ event: `${partition}:${offset}` })} />;
        }}
      </Pane>
      {opened && <EventSheet key={query.event} place={opened} rows={query.rows ?? ""} onRows={(rows) => go({ rows })} onClose={() => go({ event: "", rows: "" })} />}
    </section>
  );
}

function Events({ partition, from, types, onOpen }: { partition: number; from: number; types: string; onOpen: (offset: number) => void }): JSX.Element {
  const tail = useSignal<Tail>({ data: null, at: 0, error: null });
  const held = useSignal<readonly LoggedEvent[] | null>(null);
  useEffect(() => {
    const stopping = new AbortController();
    void follow(stopping.signal, { partition, from, types }, (change) => (tail.value = change(tail.value)));
    return () => stopping.abort();
  }, []);
  const { data } = tail.value;
  const events = data ?? [];
  const listed = held.value ?? events;
  const last = held.value?.[0]?.offset ?? -1;
  const waiting = held.value === null ? 0 : events.filter(({ offset }) => offset > last).length;
  return (
    <>
      <div class="bar">
        {held.value === null ? <TailMark of={tail.value} /> : <Badge tone="busy" text="held still" />}
        <span>
          {count(listed.length)} events, the newest first, times in {zoneName()}
        </span>
        <span class="actions">
          <HoldButton held={held.value !== null} waiting={`${count(waiting)}${waiting >= KEPT ? " or more" : ""}`} onClick={() => (held.value = held.value === null ? events : null)} />
        </span>
      </div>
      <Missing of={tail.value} />
      {data !== null && listed.length === 0 ? (
        <Empty title="No such event from here on">
          <p>New events with these types appear here when they arrive.</p>
        </Empty>
      ) : (
        <PlainTable columns={["Offset", "Time", "Type", "Subject", "Tenant", "Data"]} region="The newest events">
          {listed.map((one) => {
            const event = one.event as { [name: string]: unknown };
            return (
              <tr key={one.offset}>
                <td class="nowrap">
                  <button type="button" class="link" onClick={() => onOpen(one.offset)}>
                    {count(one.offset)}
                  </button>
                </td>
                <td class="nowrap">{timeText(event.time)}</td>
                <td class="nowrap">{text(event.type)}</td>
                <td>{text(event.subject)}</td>
                <td>{text(event.tenant)}</td>
                <td class="text cut">{event.data === undefined ? text(event.data_base64) : shown(stringify(event.data).slice(0, 200))}</td>
              </tr>
            );
          })}
        </PlainTable>
      )}
    </>
  );
}

/** The freshness of events: a request that waits for the next one may be waiting for a server that is gone. */
function TailMark({ of }: { of: Tail }): JSX.Element {
  return <ConnectedMark state={useFreshness(of, TAIL_STALE_MS)} at={of.at} />;
}

function text(of: unknown): string {
  return of === undefined || of === null ? "–" : shown(String(of));
}

function timeText(of: unknown): string {
  const ms = Date.parse(String(of));
  return Number.isNaN(ms) ? text(of) : moment(ms * 1000);
}

/** Reads events from an offset on, until it is stopped. */
async function follow(signal: AbortSignal, { partition, from, types }: { partition: number; from: number; types: string }, tell: (change: (tail: Tail) => Tail) => void): Promise<void> {
  const params = new URLSearchParams({ partition: String(partition), from: String(from), limit: String(BEGIN), ...(types !== "" && { types }) });
  while (!signal.aborted) {
    let pause = PAUSE_MS;
    try {
      const page = await read<EventsPage>(`/v1/events?${params}`, { signal });
      params.set("from", String(page.next));
      params.set("wait", WAIT);
      const fresh = [...page.events].reverse();
      tell(({ data }) => ({ data: [...fresh, ...(data ?? [])].slice(0, KEPT), at: Date.now(), error: null }));
    } catch (error) {
      if (signal.aborted) return;
      const why = problem(error);
      tell((tail) => ({ ...tail, error: why }));
      if (isFinal(why)) return;
      pause = RETRY_MS;
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}
