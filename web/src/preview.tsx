// What an upload would write, next to what the active version writes for the same events.
import type { JSX } from "preact";
import type { DryFold, DryRun, DryTable, ParkedStatus, VersionStatus } from "./api-types.js";
import { allFields, areEqual } from "./differences.js";
import { count, counted, shortId, shown } from "./format.js";
import { Badge, Empty, EventLink } from "./parts.js";
import type { RestedRequest } from "./rested.js";
import { RestedState } from "./rested-state.js";
import { DifferencesView } from "./row-differences.js";
import { fieldsOf, projectionNow, tables } from "./server.js";
import { manifestOf } from "./upload.js";

/** How many parked events and messages are shown. */
const SHOWN_MAX = 5;

interface PreviewProps {
  readonly rested: RestedRequest<DryRun>;
  /** What the user sees now; `null` if the server has not accepted it. */
  readonly input: string | null;
}

/** The newest preview with its state. A preview of an earlier input stays, and is marked. */
export function Preview({ rested, input }: PreviewProps): JSX.Element {
  const { last, began } = rested.value.value;
  const stale = last !== null && last.of !== input;
  return (
    <section class="preview" aria-label="What it would write" aria-busy={began !== null}>
      <RestedState of={rested} what="Folding the newest events" again="Preview again" />
      {last === null && input === null && <p class="soft">The rows appear here as soon as the server accepts the text.</p>}
      {last !== null && (
        <div class={stale ? "pane old" : "pane"}>
          {stale && (
            <p role="status">
              <Badge tone="busy" text="stale: from before the last change" />
            </p>
          )}
          <Result run={last.data} />
        </div>
      )}
    </section>
  );
}

function Result({ run }: { run: DryRun }): JSX.Element {
  const { events, projection, active } = run;
  if (events === 0) {
    return (
      <Empty title="None of the events in the log is of a type that it reads">
        <p>So the tables would be empty now. They fill when such events arrive.</p>
        <a href="/events">See the types of the newest events</a>
      </Empty>
    );
  }
  return (
    <>
      <p class="soft">
        The newest {counted(events, "event")} that {active ? "one of the two versions reads" : "it reads"} ({rangesText(run)}), folded into empty tables.{" "}
        {active ? `The active version of ${projection} is ${shortId(active.version)}.` : `${projection} has no active version to compare with.`}
      </p>
      <Folds run={run} />
      <Troubles fold={run.new} />
      {run.tables.map((table) => (
        <Table key={table.name} table={table} run={run} />
      ))}
      <GoneTables run={run} />
      {run.new.logs.length > 0 && (
        <details>
          <summary>Messages of the plugin</summary>
          <ul class="seen">
            {run.new.logs.slice(0, SHOWN_MAX).map((line, at) => (
              <li key={at}>
                {line.level} <EventLink partition={line.partition} offset={line.offset} /> <code>{shown(line.message)}</code>
              </li>
            ))}
          </ul>
        </details>
      )}
    </>
  );
}

/** Which events were folded: `0:17 to 0:4,812`. */
function rangesText({ sample }: Pick<DryRun, "sample">): string {
  const ranges = sample.filter(({ from, to }) => to > from).map(({ partition, from, to }) => `${partition}:${count(from)} to ${partition}:${count(to - 1)}`);
  return ranges.length > 3 ? `${ranges.slice(0, 3).join(", ")}, …` : ranges.join(", ");
}

const COUNTS: readonly (readonly [name: string, of: "applied" | "parked" | "emitted"])[] = [
  ["events applied", "applied"],
  ["events parked", "parked"],
  ["events emitted", "emitted"],
];

/** The counts of both folds. Rows without parked or emitted events are left out. */
function Folds({ run: { new: fresh, active } }: { run: DryRun }): JSX.Element {
  const counts = COUNTS.filter(([, of]) => of === "applied" || fresh[of] + (active?.[of] ?? 0) > 0);
  return (
    <table class="plain" aria-label="The folds">
      <thead>
        <tr>
          <td />
          <th scope="col" class="number">
            this upload
          </th>
          {active && (
            <th scope="col" class="number">
              active version
            </th>
          )}
        </tr>
      </thead>
      <tbody>
        {counts.map(([name, of]) => (
          <tr key={of}>
            <th scope="row">{name}</th>
            <td class={`number ${of === "parked" && fresh[of] > 0 ? "bad" : ""}`}>{count(fresh[of])}</td>
            {active && <td class="number">{count(active[of])}</td>}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** Why the fold stopped, and which events it would park. */
function Troubles({ fold: { halted, parked, first_parked } }: { fold: DryFold }): JSX.Element {
  return (
    <>
      {halted && <p class="bad">The fold stopped before the end of the sample: {shown(halted)}</p>}
      {parked > 0 && (
        <>
          <p class="bad">{counted(parked, "event")} would be parked:</p>
          <ul class="seen">
            {first_parked.slice(0, SHOWN_MAX).map((event) => (
              <Parked key={`${event.partition}:${event.offset}`} event={event} />
            ))}
          </ul>
          {parked > SHOWN_MAX && <p class="soft">And {counted(parked - SHOWN_MAX, "more event")}.</p>}
        </>
      )}
    </>
  );
}

function Parked({ event }: { event: ParkedStatus }): JSX.Element {
  return (
    <li>
      <EventLink partition={event.partition} offset={event.offset} /> <span class="reason">{shown(event.reason)}</span>
    </li>
  );
}

function Table({ table, run }: { table: DryTable; run: DryRun }): JSX.Element {
  const fresh = manifestOf(run.check).tables?.find(({ name }) => name === table.name)?.fields ?? [];
  const fields = allFields(fresh, fieldsOf(activeOf(run), table.name));
  const rows = table.added + table.changed + table.same;
  const label = run.active ? `Differences of ${table.name}` : `Rows of ${table.name}`;
  return (
    <>
      <h3>
        {table.name} <small>{counted(rows, "row")}</small>
      </h3>
      {run.active && areEqual(table) ? <p>No difference: {counted(table.same, "row")} of both versions are the same.</p> : <DifferencesView of={table} fields={fields} label={label} sides={run.active != null} />}
      {!run.active && rows === 0 && <p class="soft">The sample writes no row.</p>}
    </>
  );
}

/** Tables that readers would no longer have. */
function GoneTables({ run }: { run: DryRun }): JSX.Element | null {
  const gone = tables(activeOf(run)).filter(({ name }) => !run.tables.some((table) => table.name === name));
  if (gone.length === 0) return null;
  return <p class="warn">The active version has tables that this upload lacks: {gone.map(({ name }) => name).join(", ")}. Their readers and subscriptions end when it is activated.</p>;
}

/** The version that the preview was compared with, if it still exists. */
function activeOf({ projection, active }: DryRun): VersionStatus | undefined {
  return projectionNow(projection)?.versions.find(({ id }) => id === active?.version);
}
