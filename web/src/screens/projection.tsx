// A projection: its versions with what can be done to them, its logs and parked events.
import { useSignal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useLocation, useRoute } from "preact-iso";
import type { Logs, ProjectionStatus, VersionStatus } from "../api-types.js";
import { bytes, count, counted, moment, rate, shortId, shown, zoneName } from "../format.js";
import { comparisonAddress } from "../comparison.js";
import { ActionButton } from "../confirm.js";
import { Badge, behindText, Empty, EventLink, Fact, HoldButton, Pane, PolledMark, Progress, say, sayFailed, Sparkline } from "../parts.js";
import { PlainTable } from "../plain-table.js";
import { usePoll } from "../polled.js";
import { type Problem, path, post, problem, read, send } from "../problem.js";
import { Select } from "../select.js";
import { behind, catchesUp, condition, overview, rates, served, stateBytes, tables, troubles } from "../server.js";
import { Compare } from "./compare.js";
import { backfillText } from "./overview.js";
import { ParkedOf } from "./parked.js";

const TABS = ["versions", "compare", "logs", "parked"] as const;

export default function ProjectionScreen(): JSX.Element {
  const { params } = useRoute();
  const name = params.name ?? "";
  const tab = TABS.find((one) => one === params.tab) ?? "versions";
  const { value } = overview.value;
  return (
    <section aria-labelledby="title">
      <header class="screen">
        <h1 id="title">{name}</h1>
        <PolledMark of={value} />
      </header>
      <Pane of={value}>
        {({ projections }) => {
          const projection = projections.find((one) => one.name === name);
          if (!projection) {
            return (
              <Empty title={`There is no projection ${name}`}>
                <a href="/">See all projections</a>
              </Empty>
            );
          }
          return <Projection projection={projection} tab={tab} />;
        }}
      </Pane>
    </section>
  );
}

function Projection({ projection, tab }: { projection: ProjectionStatus; tab: (typeof TABS)[number] }): JSX.Element {
  const own = `/p${path(projection.name)}`;
  const version = served(projection);
  const parked = version?.parked ?? 0;
  return (
    <>
      <p class="soft about">{version?.description}</p>
      <div class="bar">
        <Badge {...condition(projection)} />
        {version && (
          <dl aria-label="The projection">
            <Fact name="behind">{behindText(behind(version))}</Fact>
            <Fact name="events/s">
              {rate(version.events_per_s)} <Sparkline values={rates.get(projection.name) ?? []} />
            </Fact>
            <Fact name="parked">{count(parked)}</Fact>
          </dl>
        )}
        <ProjectionActions projection={projection} />
      </div>
      {troubles(projection).map((text) => (
        <p class="bad" key={text}>
          {text}
        </p>
      ))}
      <ul class="links" aria-label="Tables">
        {tables(version).map((table) => (
          <li key={table.name}>
            <a href={`/t${path(projection.name, table.name)}`}>{table.name}</a> <span class="soft">{table.description}</span>
          </li>
        ))}
      </ul>
      <nav class="tabs" aria-label="Parts of the projection">
        {TABS.map((one) => (
          <a key={one} href={one === "versions" ? own : `${own}/${one}`} aria-current={tab === one ? "page" : undefined}>
            {{ versions: `Versions (${projection.versions.length})`, compare: "Compare", logs: "Logs", parked: `Parked (${count(parked)})` }[one]}
          </a>
        ))}
      </nav>
      {tab === "versions" && <Versions projection={projection} />}
      {tab === "compare" && <Compare projection={projection} />}
      {tab === "logs" && <LogsOf name={projection.name} />}
      {tab === "parked" && <ParkedOf name={projection.name} key={projection.name} />}
    </>
  );
}

/** Does something that can be undone, without a question. */
async function soon(title: string, run: () => Promise<unknown>): Promise<void> {
  try {
    await run();
    say(`Done: ${title}`);
  } catch (error) {
    sayFailed(title, error);
  }
  void overview.refresh();
}

function ProjectionActions({ projection }: { projection: ProjectionStatus }): JSX.Element {
  const { route } = useLocation();
  const api = `/v1/projections${path(projection.name)}`;
  const toggle = projection.paused ? "resume" : "pause";
  const previous = projection.versions.find((version) => version.id === projection.previous);
  return (
    <span class="actions">
      <button type="button" onClick={() => void soon(toggle === "pause" ? "Pause" : "Resume", () => post(`${api}/${toggle}`))}>
        {toggle === "pause" ? "Pause" : "Resume"}
      </button>
      {previous && (
        <ActionButton
          action={{
            title: "Roll back",
            does: `Activates version ${shortId(previous.id)} again, at once.`,
            touches: [`Readers see the tables of ${shortId(previous.id)}: ${tableNames(previous)}`, "Clients of the feed get a snapshot", "The present version stays, and can be activated again"],
            run: () => post(`${api}/rollback`),
          }}
        />
      )}
      <a class="button" href={`/upload?name=${encodeURIComponent(projection.name)}`}>
        Upload a version
      </a>
      <ActionButton
        tone="danger"
        action={{
          title: "Delete projection",
          does: "Deletes the projection. This cannot be undone; the events stay in the log.",
          touches: [
            `${counted(projection.versions.length, "version")}: ${projection.versions.map(({ id }) => shortId(id)).join(", ")}`,
            `${counted(tables(served(projection)).length, "table")}: ${tableNames(served(projection))}`,
            `${bytes(projection.versions.reduce((sum, version) => sum + stateBytes(version), 0))} of state`,
            `${counted(projection.versions.reduce((sum, version) => sum + (version.parked ?? 0), 0), "parked event")}`,
            "Subscriptions of its tables end",
          ],
          type: projection.name,
          run: () => send(api, { method: "DELETE" }),
          then: () => route("/"),
        }}
      />
    </span>
  );
}

function tableNames(version: VersionStatus | undefined): string {
  return tables(version).map(({ name }) => name).join(", ") || "none";
}

function Versions({ projection }: { projection: ProjectionStatus }): JSX.Element {
  if (projection.versions.length === 0) {
    return (
      <Empty title="No version">
        <a href={`/upload?name=${encodeURIComponent(projection.name)}`}>Upload one</a>
      </Empty>
    );
  }
  return (
    <ul class="versions">
      {[...projection.versions].reverse().map((version) => (
        <Version key={version.id} version={version} projection={projection} />
      ))}
    </ul>
  );
}

function Version({ version, projection }: { version: VersionStatus; projection: ProjectionStatus }): JSX.Element {
  const active = version.id === projection.active;
  const sum = (of: "applied" | "late" | "memory_bytes"): number => version.shards.reduce((total, shard) => total + shard[of], 0);
  return (
    <li class={`card ${active ? "active" : ""}`}>
      <header>
        <h2>
          <code>{shortId(version.id)}</code> <small>{version.plugin_version}</small>
        </h2>
        <Badge tone={active ? "good" : version.state === "backfilling" ? "busy" : "quiet"} text={version.state} />
        <VersionActions version={version} projection={projection} />
      </header>
      {catchesUp(version) && <Progress percent={version.percent} label={backfillText(version)} />}
      <dl>
        <Fact name="uploaded">
          {moment(version.created_us)} {zoneName()}
        </Fact>
        <Fact name="behind">{behindText(behind(version))}</Fact>
        <Fact name="applied">{count(sum("applied"))}</Fact>
        <Fact name="events/s">{rate(version.events_per_s)}</Fact>
        <Fact name="parked">{count(version.parked ?? 0)}</Fact>
        {sum("late") > 0 && <Fact name="late">{count(sum("late"))}</Fact>}
        <Fact name="state">{bytes(stateBytes(version))}</Fact>
        <Fact name="memory">{bytes(sum("memory_bytes"))}</Fact>
      </dl>
      <details>
        <summary>Details</summary>
        <dl class="fields">
          <Fact name="id">
            <code>{version.id}</code>
          </Fact>
          <Fact name="SHA-256 of the plugin">
            <code>{version.sha256}</code>
          </Fact>
          <Fact name="events">{version.subscribes.join(", ")}</Fact>
          <Fact name="parameters">
            <code>{version.parameters || "none"}</code>
          </Fact>
          {version.source && (
            <Fact name="source">
              <a href={`/v1/projections${path(projection.name)}/versions${path(version.id)}/source`}>{version.source.name}</a>, {bytes(version.source.bytes)}
            </Fact>
          )}
          {version.shards.map((shard) => (
            <Fact name={`partition ${shard.partition}`} key={shard.partition}>
              next offset {count(shard.next)}
              {shard.end != null && ` of ${count(shard.end)}`}, {shard.activity}
              {shard.reason && `: ${shown(shard.reason)}`}
            </Fact>
          ))}
        </dl>
      </details>
    </li>
  );
}

function VersionActions({ version, projection }: { version: VersionStatus; projection: ProjectionStatus }): JSX.Element {
  const active = version.id === projection.active;
  const api = `/v1/projections${path(projection.name)}/versions${path(version.id)}`;
  const first = tables(version)[0];
  const parked = version.parked ?? 0;
  return (
    <span class="actions">
      {first && <a class="button" href={`/t${path(projection.name, first.name)}${active ? "" : `?version=${encodeURIComponent(version.id)}`}`}>See rows</a>}
      {!active && projection.active != null && (
        <a class="button" href={comparisonAddress(projection.name, { right: version.id })}>
          Compare
        </a>
      )}
      {!active && (
        <ActionButton
          action={{
            title: "Activate",
            does: `Readers get the tables of version ${shortId(version.id)}.`,
            touches: [
              `Tables: ${tableNames(version)}`,
              "Clients of the feed get a snapshot",
              ...(parked > 0 ? [`It has ${counted(parked, "parked event")}, which its tables lack. It is activated nevertheless`] : []),
              "The present version stays: roll back to return to it",
            ],
            run: () => post(`${api}/activate${parked > 0 ? "?force=true" : ""}`),
          }}
        />
      )}
      <ActionButton
        action={{
          title: "Rebuild",
          does: `Deletes the tables of version ${shortId(version.id)} and folds the log again.`,
          touches: [`Tables: ${tableNames(version)}`, `${bytes(stateBytes(version))} of state`, active ? "Readers see the rows as they are folded" : "Readers see the active version meanwhile"],
          type: shortId(version.id),
          run: () => post(`${api}/rebuild`),
        }}
      />
      {!active && (
        <ActionButton
          tone="danger"
          action={{
            title: "Delete version",
            does: `Deletes version ${shortId(version.id)}. This cannot be undone.`,
            touches: [`Tables: ${tableNames(version)}`, `${bytes(stateBytes(version))} of state`, counted(parked, "parked event")],
            type: shortId(version.id),
            run: () => send(api, { method: "DELETE" }),
          }}
        />
      )}
    </span>
  );
}

const LEVELS = ["all", "error", "warn", "info", "debug"];

function LogsOf({ name }: { name: string }): JSX.Element {
  const poll = usePoll(`logs ${name}`, (signal) => read<Logs>(`/v1/projections${path(name)}/logs?limit=500`, { signal }));
  const level = useSignal("all");
  const text = useSignal("");
  const held = useSignal<Logs | null>(null);
  const { value } = poll.value;
  const waiting = held.value && value.data ? value.data.logs.filter((line) => !held.value!.logs.some((old) => same(old, line))).length : 0;
  return (
    <>
      <div class="bar">
        <PolledMark of={value} />
        <Select label="level" value={level.value} options={LEVELS} onChange={(chosen) => (level.value = chosen)} />
        <label>
          contains <input type="search" value={text.value} onInput={({ currentTarget }) => (text.value = currentTarget.value)} />
        </label>
        <span class="actions">
          <HoldButton held={held.value !== null} waiting={count(waiting)} onClick={() => (held.value = held.value === null ? value.data : null)} />
        </span>
      </div>
      <Pane of={value}>
        {(newest) => {
          const all = (held.value ?? newest).logs;
          const lines = [...all].reverse().filter((line) => (level.value === "all" || line.level === level.value) && line.message.includes(text.value));
          if (all.length === 0) {
            return (
              <Empty title="No messages yet">
                <p>Messages that the plugin logs appear here, the newest 500 of them.</p>
              </Empty>
            );
          }
          return lines.length === 0 ? (
            <Empty title="No message fulfils the filter">
              <button
                type="button"
                onClick={() => {
                  level.value = "all";
                  text.value = "";
                }}
              >
                Remove the filter
              </button>
            </Empty>
          ) : (
            <PlainTable columns={[`Time, ${zoneName()}`, "Level", "Message", "Event"]}>
              {lines.map((line, at) => (
                <tr key={`${line.time_us} ${line.partition} ${line.offset} ${at}`}>
                  <td class="nowrap">{moment(line.time_us)}</td>
                  <td>{line.level}</td>
                  <td class="text">{shown(line.message)}</td>
                  <td class="nowrap">
                    <EventLink partition={line.partition} offset={line.offset} />
                  </td>
                </tr>
              ))}
            </PlainTable>
          );
        }}
      </Pane>
    </>
  );
}

function same(one: Logs["logs"][number], other: Logs["logs"][number]): boolean {
  return one.time_us === other.time_us && one.offset === other.offset && one.partition === other.partition && one.message === other.message;
}
