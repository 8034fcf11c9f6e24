// The server: its log, what it stores, its limits, the clients of its feed, its settings and its metrics.
import type { JSX } from "preact";
import { useLocation, useRoute } from "preact-iso";
import type { BoardList, FeedClient, FeedClients, ProjectionStatus, ServerSettings, Setting } from "../api-types.js";
import { bytes, count, counted, duration, moment, shortId, zoneName } from "../format.js";
import { amount, hasText, type Limit, limitsOf, settingText } from "../limits.js";
import { Badge, Empty, Fact, Pane, PolledMark } from "../parts.js";
import { PlainTable } from "../plain-table.js";
import { usePoll } from "../polled.js";
import { path, read, withParams } from "../problem.js";
import { behind, overview, splitName, stateBytes } from "../server.js";
import { MetricsOf } from "./server-metrics.js";

const TABS = { "": "Status", limits: "Limits", clients: "Feed clients", settings: "Settings", metrics: "Metrics" } as const;
type Tab = keyof typeof TABS;

/** The interval at which data is requested that changes rarely. */
const RARELY_MS = 10_000;

export default function ServerScreen(): JSX.Element {
  const { value } = overview.value;
  const { params } = useRoute();
  const { path: here, query, route } = useLocation();
  const wanted = params.tab ?? "";
  const tab: Tab = Object.hasOwn(TABS, wanted) ? (wanted as Tab) : "";
  /** Changes the filter in the address. Typing a filter adds no entries to the history. */
  const filter = (change: { [name: string]: string }): void => route(withParams(here, { ...query, ...change }), true);
  const text = query.contains ?? "";
  return (
    <section aria-labelledby="title">
      <header class="screen">
        <h1 id="title">Server</h1>
        <PolledMark of={value} />
      </header>
      <nav class="tabs" aria-label="Parts of the server">
        {Object.entries(TABS).map(([name, title]) => (
          <a key={name} href={name === "" ? "/server" : `/server/${name}`} aria-current={name === tab ? "page" : undefined}>
            {title}
          </a>
        ))}
      </nav>
      {tab === "" && <Status />}
      {tab === "limits" && <Limits />}
      {tab === "clients" && <Clients />}
      {tab === "settings" && <Settings text={text} changed={query.changed !== undefined} onFilter={filter} />}
      {tab === "metrics" && <MetricsOf text={text} onText={(contains) => filter({ contains })} />}
    </section>
  );
}

function Status(): JSX.Element {
  return (
    <Pane of={overview.value.value}>
      {({ projections, status, ready }) => (
        <>
          <div class="bar">
            <Badge tone={ready.ready ? "good" : "bad"} text={ready.ready ? "ready" : "not ready"} />
            <dl>
              <Fact name="version">{status.version}</Fact>
              <Fact name="sessions of the feed">{count(status.feed_sessions)}</Fact>
              <Fact name="projections">{count(projections.length)}</Fact>
            </dl>
          </div>
          {[...ready.reasons, ...status.troubles].map((text) => (
            <p class="bad" key={text}>
              {text}
            </p>
          ))}
          {ready.warnings.map((text) => (
            <p class="warn" key={text}>
              {text}
            </p>
          ))}
          <h2>Log</h2>
          <PlainTable columns={["Partition", { number: "Oldest offset" }, { number: "Next offset" }, `Newest event time, ${zoneName()}`]}>
            {status.partitions.map((one) => (
              <tr key={one.partition}>
                <td>{one.name ?? one.partition}</td>
                <td class="number">{one.start == null ? "unknown" : count(one.start)}</td>
                <td class="number">{one.end == null ? "unknown" : count(one.end)}</td>
                <td>{one.event_time_us == null ? "–" : moment(one.event_time_us)}</td>
              </tr>
            ))}
          </PlainTable>
          <h2>Storage and versions</h2>
          <Storage projections={projections} />
        </>
      )}
    </Pane>
  );
}

function Storage({ projections }: { projections: readonly ProjectionStatus[] }): JSX.Element {
  if (projections.length === 0) {
    return (
      <Empty title="Nothing is stored for projections">
        <a href="/upload">Upload a projection</a>
      </Empty>
    );
  }
  return (
    <PlainTable columns={["Projection", "Version", "Stage", { number: "Behind, events" }, { number: "State" }, { number: "Memory of plugins" }]} region="Storage and versions">
      {projections.flatMap(({ name, versions }) =>
        [...versions].reverse().map((version) => (
          <tr key={`${name} ${version.id}`}>
            <td>
              <a href={`/p${path(name)}`}>{name}</a>
            </td>
            <td>
              <code>{shortId(version.id)}</code> {version.plugin_version}
            </td>
            <td>{version.state}</td>
            <td class="number">{behindCount(behind(version))}</td>
            <td class="number">{bytes(stateBytes(version))}</td>
            <td class="number">{bytes(version.shards.reduce((sum, shard) => sum + shard.memory_bytes, 0))}</td>
          </tr>
        )),
      )}
    </PlainTable>
  );
}

function behindCount(lag: { events: number } | null): string {
  return lag === null ? "unknown" : count(lag.events);
}

function useSettings() {
  return usePoll("settings", async (signal) => (await read<ServerSettings>("/v1/settings", { signal })).settings, RARELY_MS).value.value;
}

/** The share of a limit from which its use is marked. */
const NEAR = 0.8;

function Limits(): JSX.Element {
  const settings = useSettings();
  const boards = usePoll("boards", async (signal) => (await read<BoardList>("/v1/boards", { signal })).boards.length, RARELY_MS).value.value;
  const server = overview.value.value;
  return (
    <>
      <div class="bar">
        <PolledMark of={server} />
        <span class="soft">
          Limits whose use is known. All of them are among the <a href="/server/settings?contains=_max">settings</a>.
        </span>
      </div>
      <Pane of={settings} staleMs={3 * RARELY_MS}>
        {(known) => (
          <Pane of={server}>
            {(data) => (
              <PlainTable columns={["Limit", { number: "In use" }, { number: "At most" }, "Share", "Setting"]}>
                {limitsOf(known, data, boards.data ?? 0).map((limit) => (
                  <LimitRow key={limit.key} limit={limit} />
                ))}
              </PlainTable>
            )}
          </Pane>
        )}
      </Pane>
    </>
  );
}

function LimitRow({ limit }: { limit: Limit }): JSX.Element {
  const share = limit.used / limit.most;
  return (
    <tr>
      <td>{limit.name}</td>
      <td class="number">{amount(limit, limit.used)}</td>
      <td class="number">{amount(limit, limit.most)}</td>
      <td class={share >= NEAR ? "bad nowrap" : "nowrap"}>
        {share >= NEAR && <span aria-hidden="true">▲ </span>}
        {share > 0 && share < 0.001 ? "under 0.1 %" : `${Math.floor(share * 1000) / 10} %`}
      </td>
      <td>
        <a href={`/server/settings?contains=${limit.key}`}>
          <code>{limit.key}</code>
        </a>
      </td>
    </tr>
  );
}

/** The most clients that are shown. */
const CLIENTS_MAX = 200;

function Clients(): JSX.Element {
  const { value } = usePoll("clients", (signal) => read<FeedClients>(`/v1/feed/clients?limit=${CLIENTS_MAX}`, { signal })).value;
  return (
    <>
      <div class="bar">
        <PolledMark of={value} />
        <span>{value.data && counted(value.data.open, "open session")}</span>
      </div>
      <Pane of={value}>
        {({ clients, open }) =>
          clients.length === 0 ? (
            <Empty title="No client is connected to the feed">
              <p>A table that is open in a browser is a client. Programs connect with the clients for TypeScript and Rust.</p>
              <a href="/">Open a table</a>
            </Empty>
          ) : (
            <>
              <PlainTable columns={[{ number: "Session" }, "Address", { number: "Open for" }, { number: "Not acknowledged" }, "Subscriptions, and how many commits each is behind"]} region="Clients of the feed">
                {clients.map((client) => (
                  <Client key={client.id} client={client} />
                ))}
              </PlainTable>
              <p class="soft">
                {open > clients.length && `The ${count(clients.length)} clients with the most bytes waiting. `}
                Clients with the most bytes waiting come first. A client that acknowledges too little gets no frames until it acknowledges more. Meanwhile its changes are merged.
              </p>
            </>
          )
        }
      </Pane>
    </>
  );
}

function Client({ client: { id, address, open_ms, frames_waiting, bytes_waiting, waiting_ms, subscriptions } }: { client: FeedClient }): JSX.Element {
  return (
    <tr>
      <td class="number">{count(id)}</td>
      <td>{address ?? "unknown"}</td>
      <td class="number nowrap">{duration(open_ms / 1000)}</td>
      <td class="number nowrap">
        {frames_waiting === 0 ? (
          "nothing"
        ) : (
          <>
            {counted(frames_waiting, "frame")}, {bytes(bytes_waiting)}, for {duration(waiting_ms / 1000)}
          </>
        )}
      </td>
      <td>
        {subscriptions.length === 0 ? (
          <span class="soft">none</span>
        ) : (
          <ul class="inline">
            {subscriptions.map((one) => (
              <li key={one.id}>
                <a href={`/t${path(...splitName(one.table))}`}>{one.table}</a> <LagMark commit={one.commit} lag={one.commits_behind} />
              </li>
            ))}
          </ul>
        )}
      </td>
    </tr>
  );
}

function LagMark({ commit, lag }: { commit: number | null | undefined; lag: number | null | undefined }): JSX.Element {
  if (commit == null) return <Badge tone="busy" text="gets its first snapshot" />;
  if (lag == null) return <Badge tone="quiet" text="lag unknown" />;
  return lag === 0 ? <Badge tone="good" text="up to date" /> : <Badge tone="busy" text={`${counted(lag, "commit")} behind`} />;
}

interface SettingsProps {
  readonly text: string;
  /** Whether only settings are shown that differ from their default. */
  readonly changed: boolean;
  readonly onFilter: (change: { [name: string]: string }) => void;
}

function Settings({ text, changed, onFilter }: SettingsProps): JSX.Element {
  const value = useSettings();
  return (
    <>
      <div class="bar">
        <PolledMark of={value} staleMs={3 * RARELY_MS} />
        <label>
          contains <input type="search" value={text} onInput={({ currentTarget }) => onFilter({ contains: currentTarget.value })} />
        </label>
        <label>
          <input type="checkbox" checked={changed} onChange={({ currentTarget }) => onFilter({ changed: currentTarget.checked ? "1" : "" })} /> only those that differ from their default
        </label>
      </div>
      <Pane of={value} staleMs={3 * RARELY_MS}>
        {(all) => {
          const found = all.filter((setting) => (!changed || setting.changed) && hasText(setting, text));
          if (found.length === 0) {
            return (
              <Empty title={text === "" ? "Every setting has its default" : "No setting fulfils the filter"}>
                <button type="button" onClick={() => onFilter({ contains: "", changed: "" })}>
                  Show all {count(all.length)} settings
                </button>
              </Empty>
            );
          }
          return (
            <>
              <p class="soft">
                {count(found.length)} of {counted(all.length, "setting")}. A setting is changed in the file <code>lantern.toml</code>, in the environment or by a flag, and is read when the server starts.
              </p>
              <PlainTable columns={["Setting", "Value", "Default", "Source"]} region="Settings" frameClass="fits">
                {found.map((setting) => (
                  <SettingRow key={setting.key} setting={setting} />
                ))}
              </PlainTable>
            </>
          );
        }}
      </Pane>
    </>
  );
}

function SettingRow({ setting: { key, value, default: usual, changed } }: { setting: Setting }): JSX.Element {
  return (
    <tr>
      <th scope="row">
        <code>{key}</code>
      </th>
      <td class={changed ? "strong" : ""}>{settingText(value)}</td>
      <td>{settingText(usual)}</td>
      <td class="nowrap">{changed ? <Badge tone="busy" text="configured" /> : <Badge tone="quiet" text="default" />}</td>
    </tr>
  );
}
