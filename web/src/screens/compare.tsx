// Two versions of a projection, table by table at the same offsets.
import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useLocation } from "preact-iso";
import { useEffect } from "preact/hooks";
import type { ProjectionStatus, TableDiff, VersionStatus } from "../api-types.js";
import { type Comparison, comparedTables, comparisonAddress, comparisonOf, offsetsText, sides, tableDiff } from "../comparison.js";
import { allFields, areEqual, type NamedField } from "../differences.js";
import { counted, duration, shortId, shown } from "../format.js";
import { Badge, Empty, Failure } from "../parts.js";
import { now } from "../polled.js";
import { type Problem, problem } from "../problem.js";
import { DifferencesView } from "../row-differences.js";
import { Select } from "../select.js";
import { fieldsOf } from "../server.js";

export function Compare({ projection }: { projection: ProjectionStatus }): JSX.Element {
  const { query, route } = useLocation();
  const asked = comparisonOf(query);
  const found = sides(projection, asked);
  if (projection.versions.length < 2) {
    return (
      <Empty title="There is only one version">
        <p>Two versions of {projection.name} can be compared before the second one is activated.</p>
        <a href={`/upload?name=${encodeURIComponent(projection.name)}`}>Upload another version</a>
      </Empty>
    );
  }
  const wanted = typeof found === "string" ? asked : { ...asked, left: found.left.id, right: found.right.id };
  const go = (change: Partial<Comparison>): void => route(comparisonAddress(projection.name, { ...wanted, ...change }));
  return (
    <>
      <Choice projection={projection} found={found} wanted={wanted} go={go} />
      {typeof found === "string" ? (
        <Empty title={found}>
          <a href={comparisonAddress(projection.name, {})}>Compare with the active version</a>
        </Empty>
      ) : (
        <Compared key={comparisonAddress(projection.name, wanted)} projection={projection.name} {...found} wanted={wanted} />
      )}
    </>
  );
}

interface ChoiceProps {
  readonly projection: ProjectionStatus;
  readonly found: { readonly left: VersionStatus; readonly right: VersionStatus } | string;
  /** The comparison, with the whole ids of the versions if they are found. */
  readonly wanted: Comparison;
  readonly go: (change: Partial<Comparison>) => void;
}

/** Which versions, tables and keys are compared. */
function Choice({ projection, found, wanted, go }: ChoiceProps): JSX.Element {
  const versions = [...projection.versions].reverse();
  const pick = (side: "left" | "right"): JSX.Element => {
    const unknown = versions.some(({ id }) => id === wanted[side]) ? [] : [[wanted[side], wanted[side] || "choose one"] as const];
    const known = versions.map((version) => [version.id, `${shortId(version.id)}, ${version.plugin_version}, ${version.id === projection.active ? "active" : version.state}`] as const);
    return <Select label={side} value={wanted[side]} options={[...unknown, ...known]} onChange={(id) => go({ [side]: id })} />;
  };
  const names = typeof found === "string" ? [] : comparedTables(found.left, found.right).filter((table) => table.in === "both");
  return (
    <div class="filters">
      {pick("left")}
      {pick("right")}
      <button type="button" disabled={typeof found === "string"} onClick={() => go({ left: wanted.right, right: wanted.left })}>
        Swap
      </button>
      <Select label="table" value={wanted.table} options={[["", "all"], ...names.map(({ name }) => name)]} onChange={(table) => go({ table })} />
      <form
        onSubmit={(event) => {
          event.preventDefault();
          go({ prefix: (event.currentTarget.elements.namedItem("prefix") as HTMLInputElement).value });
        }}
      >
        <label>
          key begins with <input name="prefix" value={wanted.prefix} autocomplete="off" spellcheck={false} />
        </label>
        <button type="submit">Compare</button>
      </form>
    </div>
  );
}

/** The answer for a table, or why there is none. */
interface Answer {
  readonly diff: TableDiff | null;
  readonly error: Problem | null;
  readonly at: number;
}

/**
 * The answers for tables, one request after the other. `done` is how many of the requests have ended, and
 * `null` after the last one. While a comparison lets a version fold, the active one waits, so the requests are
 * not repeated by themselves.
 */
function useAnswers(projection: string, names: readonly string[], wanted: Comparison): { answers: ReadonlyMap<string, Answer>; again: () => void; done: number | null } {
  const answers = useSignal<ReadonlyMap<string, Answer>>(new Map());
  const round = useSignal(0);
  const done = useSignal<number | null>(0);
  useEffect(() => {
    const stop = new AbortController();
    const run = async (): Promise<void> => {
      for (const [at, name] of names.entries()) {
        done.value = at;
        const old = answers.value.get(name);
        const answer = await tableDiff(projection, name, wanted, stop.signal).then(
          (diff): Answer => ({ diff, error: null, at: Date.now() }),
          (error): Answer => ({ diff: old?.diff ?? null, error: problem(error), at: old?.at ?? 0 }),
        );
        if (stop.signal.aborted) return;
        answers.value = new Map(answers.value).set(name, answer);
      }
      done.value = null;
    };
    void run();
    return () => stop.abort();
  }, [round.value]);
  return { answers: answers.value, again: () => (round.value += 1), done: done.value };
}

interface ComparedProps {
  readonly projection: string;
  readonly left: VersionStatus;
  readonly right: VersionStatus;
  readonly wanted: Comparison;
}

function Compared({ projection, left, right, wanted }: ComparedProps): JSX.Element {
  const all = comparedTables(left, right);
  const shownTables = all.filter((table) => wanted.table === "" || table.name === wanted.table);
  const both = shownTables.filter((table) => table.in === "both").map(({ name }) => name);
  const { answers, again, done } = useAnswers(projection, both, wanted);
  return (
    <>
      <div class="bar">
        <span role="status">{done !== null ? <Badge tone="busy" text={`comparing ${done + 1} of ${counted(Math.max(both.length, 1), "table")} …`} /> : <Badge tone="good" text="compared" />}</span>
        <span>
          Left is <code>{shortId(left.id)}</code>, right is <code>{shortId(right.id)}</code>
        </span>
        <span class="actions">
          <button type="button" disabled={done !== null} onClick={again}>
            Compare again
          </button>
        </span>
      </div>
      {shownTables.length === 0 && (
        <Empty title={wanted.table === "" ? "Neither version has a public table" : `Neither version has a public table ${wanted.table}`}>
          <a href={comparisonAddress(projection, { ...wanted, table: "" })}>Compare all tables</a>
        </Empty>
      )}
      {shownTables.map((table) => (
        <section class="card compared" key={table.name} aria-label={table.name}>
          <header>
            <h2>{table.name}</h2>
            {table.in !== "both" && <Badge tone="busy" text={table.in === "left" ? `gone: only ${shortId(left.id)} has it` : `new: only ${shortId(right.id)} has it`} />}
            {table.in === "both" && <Age of={answers.get(table.name)} running={done !== null} />}
          </header>
          {table.in === "both" && <TableOf name={table.name} answer={answers.get(table.name)} fields={allFields(fieldsOf(right, table.name), fieldsOf(left, table.name))} all={comparisonAddress(projection, { ...wanted, table: table.name })} alone={wanted.table !== ""} />}
        </section>
      ))}
    </>
  );
}

/** How long ago a table was compared. A comparison does not follow the versions. */
function Age({ of, running }: { of: Answer | undefined; running: boolean }): JSX.Element {
  if (!of) return <Badge tone="busy" text={running ? "loading" : "not compared"} />;
  if (of.error) return <Badge tone="bad" text={of.error.offline ? "offline" : "error"} />;
  return <Badge tone="quiet" text={`compared ${duration(Math.max(1, Math.round((now.value - of.at) / 1000)))} ago`} />;
}

interface TableOfProps {
  readonly name: string;
  readonly answer: Answer | undefined;
  readonly fields: readonly NamedField[];
  /** Where more differences of the table are. */
  readonly all: string;
  readonly alone: boolean;
}

function TableOf({ name, answer, fields, all, alone }: TableOfProps): JSX.Element {
  if (!answer) {
    return (
      <p class="soft" role="status">
        Comparing …
      </p>
    );
  }
  const { diff, error } = answer;
  return (
    <>
      {error && <Failure error={error} />}
      {diff && (
        <div class={error ? "pane old" : "pane"}>
          <p class="soft">Both versions at the same offsets: {shown(offsetsText(diff)) || "the log has no events"}.</p>
          {areEqual(diff) ? (
            <p class="good">
              <span aria-hidden="true">✓</span> No difference: {counted(diff.same, "row")} of both versions are the same.
            </p>
          ) : (
            <DifferencesView of={diff} fields={fields} label={`Differences of ${name}`} />
          )}
          {diff.more && !alone && <a href={all}>See more differences of {name}</a>}
        </div>
      )}
    </>
  );
}
