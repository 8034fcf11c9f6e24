// The first screen: what each projection does, and what needs attention.
import type { JSX } from "preact";
import type { ProjectionStatus, VersionStatus } from "../api-types.js";
import { count, duration, rate, shortId } from "../format.js";
import { Badge, behindText, Code, Empty, Pane, percentText, PolledMark, Progress, Sparkline } from "../parts.js";
import { path } from "../problem.js";
import { behind, catchesUp, condition, overview, rates, served, tables, troubles } from "../server.js";

export default function OverviewScreen(): JSX.Element {
  const { value } = overview.value;
  return (
    <section aria-labelledby="title">
      <header class="screen">
        <h1 id="title">Projections</h1>
        <PolledMark of={value} />
        <a class="button primary" href="/upload">
          Upload a projection
        </a>
      </header>
      <Pane of={value}>
        {({ projections, status, ready }) => (
          <>
            {[...ready.reasons, ...status.troubles].map((trouble) => (
              <p class="failure" role="alert" key={trouble}>
                {trouble}
              </p>
            ))}
            {projections.length === 0 ? <FirstRun /> : <List projections={projections} />}
          </>
        )}
      </Pane>
    </section>
  );
}

function FirstRun(): JSX.Element {
  return (
    <Empty title="No projection yet">
      <p>
        A projection folds the events of the log into tables. <a href="/upload">Upload one</a>: drop a .wasm, .py, .js, .ts or .yaml file anywhere on this
        page, or push it from a terminal:
      </p>
      <Code label="Command" text={`lantern plugin push totals.yaml --server ${location.origin}`} />
    </Empty>
  );
}

function List({ projections }: { projections: readonly ProjectionStatus[] }): JSX.Element {
  return (
    <div class="list" role="table" aria-label="Projections" aria-rowcount={projections.length + 1}>
      <div class="row head" role="row">
        {["Projection", "State", "Behind", "Events/s", "Parked", "Tables"].map((name) => (
          <span role="columnheader" key={name}>
            {name}
          </span>
        ))}
      </div>
      {projections.map((projection) => (
        <Line projection={projection} key={projection.name} />
      ))}
    </div>
  );
}

function Line({ projection }: { projection: ProjectionStatus }): JSX.Element {
  const version = served(projection);
  const own = `/p${path(projection.name)}`;
  const failed = (version?.parked ?? 0) - (version?.waiting ?? 0);
  return (
    <div class="row" role="row">
      <span role="cell" class="name">
        <a href={own}>{projection.name}</a>
        <small>{version?.description}</small>
      </span>
      <span role="cell" data-label="State">
        <Badge {...condition(projection)} />
      </span>
      <span role="cell" data-label="Behind" class="number">
        {version ? behindText(behind(version)) : "–"}
      </span>
      <span role="cell" data-label="Events/s" class="number rate">
        {rate(version?.events_per_s ?? 0)} <Sparkline values={rates.get(projection.name) ?? []} />
      </span>
      <span role="cell" data-label="Parked" class="number">
        {(version?.parked ?? 0) > 0 ? (
          <a href={`${own}/parked`}>
            {count(failed)} failed{(version?.waiting ?? 0) > 0 && `, ${count(version?.waiting ?? 0)} waiting`}
          </a>
        ) : (
          "none"
        )}
      </span>
      <span role="cell" data-label="Tables" class="tables">
        {tables(version).map((table) => (
          <a key={table.name} title={table.description} href={`/t${path(projection.name, table.name)}`}>
            {table.name}
          </a>
        ))}
        {tables(version).length === 0 && "none"}
      </span>
      <More projection={projection} own={own} />
    </div>
  );
}

/** The problems of a projection, and its versions that catch up. */
function More({ projection, own }: { projection: ProjectionStatus; own: string }): JSX.Element | null {
  const catching = projection.versions.filter(catchesUp);
  const found = troubles(projection);
  if (catching.length === 0 && found.length === 0) return null;
  return (
    <div class="more" role="cell">
      {catching.map((version) => (
        <Progress key={version.id} percent={version.percent} label={backfillText(version)} />
      ))}
      {found.map((text) => (
        <p class="bad" key={text}>
          {text}
        </p>
      ))}
      {found.length > 0 && <a href={own}>Open the projection</a>}
    </div>
  );
}

/** How far a version is, and when it will be ready. */
export function backfillText(version: VersionStatus): string {
  const left = version.eta_s == null ? falling(version) : version.eta_s > 0 ? `, ${duration(version.eta_s)} left` : "";
  return `version ${shortId(version.id)}: ${percentText(version.percent)}${left}`;
}

function falling(version: VersionStatus): string {
  const intake = version.intake_per_s ?? 0;
  if (version.events_per_s <= 0 || intake <= version.events_per_s) return "";
  return `, falls behind by ${rate(intake - version.events_per_s)} events/s`;
}
