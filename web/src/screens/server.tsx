// The server: its log, its sessions, what it stores, and its metrics.
import { type Signal, useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { bytes, count, moment, zoneName } from "../format.js";
import { type Metric, parseMetrics } from "../metrics.js";
import { Badge, Empty, Fact, Pane, PolledMark } from "../parts.js";
import { usePoll } from "../polled.js";
import { path, send } from "../problem.js";
import { overview, stateBytes } from "../server.js";

export default function ServerScreen(): JSX.Element {
  const { value } = overview.value;
  return (
    <section aria-labelledby="title">
      <header class="screen">
        <h1 id="title">Server</h1>
        <PolledMark of={value} />
      </header>
      <Pane of={value}>
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
            <table class="plain">
              <thead>
                <tr>
                  <th scope="col">Partition</th>
                  <th scope="col" class="number">
                    Oldest offset
                  </th>
                  <th scope="col" class="number">
                    Next offset
                  </th>
                  <th scope="col">Newest event time, {zoneName()}</th>
                </tr>
              </thead>
              <tbody>
                {status.partitions.map((one) => (
                  <tr key={one.partition}>
                    <td>{one.name ?? one.partition}</td>
                    <td class="number">{one.start == null ? "unknown" : count(one.start)}</td>
                    <td class="number">{one.end == null ? "unknown" : count(one.end)}</td>
                    <td>{one.event_time_us == null ? "–" : moment(one.event_time_us)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
            <h2>Storage</h2>
            {projections.length === 0 ? (
              <Empty title="Nothing is stored for projections">
                <a href="/upload">Upload a projection</a>
              </Empty>
            ) : (
              <table class="plain">
                <thead>
                  <tr>
                    <th scope="col">Projection</th>
                    <th scope="col" class="number">
                      Versions
                    </th>
                    <th scope="col" class="number">
                      State
                    </th>
                    <th scope="col" class="number">
                      Memory of plugins
                    </th>
                  </tr>
                </thead>
                <tbody>
                  {projections.map(({ name, versions }) => {
                    const shards = versions.flatMap((version) => version.shards);
                    return (
                      <tr key={name}>
                        <td>
                          <a href={`/p${path(name)}`}>{name}</a>
                        </td>
                        <td class="number">{count(versions.length)}</td>
                        <td class="number">{bytes(versions.reduce((sum, version) => sum + stateBytes(version), 0))}</td>
                        <td class="number">{bytes(shards.reduce((sum, shard) => sum + shard.memory_bytes, 0))}</td>
                      </tr>
                    );
                  })}
                </tbody>
              </table>
            )}
            <Metrics />
          </>
        )}
      </Pane>
    </section>
  );
}

function Metrics(): JSX.Element {
  const open = useSignal(false);
  const text = useSignal("");
  return (
    <details onToggle={({ currentTarget }) => (open.value = currentTarget.open)}>
      <summary>Metrics</summary>
      {open.value && <MetricsTable text={text} />}
    </details>
  );
}

function MetricsTable({ text }: { text: Signal<string> }): JSX.Element {
  const poll = usePoll("metrics", async (signal) => parseMetrics(await (await send("/metrics", { signal })).text()), 5000);
  return (
    <>
      <p class="soft">
        The server's own measurements, also under <a href="/metrics">/metrics</a> in Prometheus' format.
      </p>
      <label>
        contains <input type="search" value={text.value} onInput={({ currentTarget }) => (text.value = currentTarget.value)} />
      </label>
      <Pane of={poll.value.value}>
        {(metrics) => (
          <table class="plain">
            <thead>
              <tr>
                <th scope="col">Metric</th>
                <th scope="col">Labels</th>
                <th scope="col" class="number">
                  Value
                </th>
              </tr>
            </thead>
            <tbody>
              {metrics.filter((metric) => matches(metric, text.value)).map((metric) => (
                <tr key={`${metric.name} ${metric.labels}`}>
                  <td title={metric.help}>{metric.name}</td>
                  <td class="text">{metric.labels}</td>
                  <td class="number">{metric.value}</td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </Pane>
    </>
  );
}

function matches({ name, labels, help }: Metric, text: string): boolean {
  return `${name} ${labels} ${help}`.toLowerCase().includes(text.toLowerCase());
}
