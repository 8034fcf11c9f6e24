// The server's own measurements.
import type { JSX } from "preact";
import { type Metric, parseMetrics } from "../metrics.js";
import { Empty, Pane, PolledMark } from "../parts.js";
import { PlainTable } from "../plain-table.js";
import { usePoll } from "../polled.js";
import { send } from "../problem.js";

const METRICS_MS = 5000;

export function MetricsOf({ text, onText }: { text: string; onText: (text: string) => void }): JSX.Element {
  const { value } = usePoll("metrics", async (signal) => parseMetrics(await (await send("/metrics", { signal })).text()), METRICS_MS).value;
  return (
    <>
      <div class="bar">
        <PolledMark of={value} staleMs={3 * METRICS_MS} />
        <label>
          contains <input type="search" value={text} onInput={({ currentTarget }) => onText(currentTarget.value)} />
        </label>
      </div>
      <p class="soft">
        The server's own measurements, also under <a href="/metrics">/metrics</a> in Prometheus' format.
      </p>
      <Pane of={value} staleMs={3 * METRICS_MS}>
        {(metrics) => {
          const found = metrics.filter((metric) => matches(metric, text));
          if (found.length === 0) {
            return (
              <Empty title="No metric contains this text">
                <button type="button" onClick={() => onText("")}>
                  Show all
                </button>
              </Empty>
            );
          }
          return (
            <PlainTable columns={["Metric", "Labels", { number: "Value" }]} region="Metrics">
              {found.map((metric) => (
                <tr key={`${metric.name} ${metric.labels}`}>
                  <td title={metric.help}>{metric.name}</td>
                  <td class="text">{metric.labels}</td>
                  <td class="number">{metric.value}</td>
                </tr>
              ))}
            </PlainTable>
          );
        }}
      </Pane>
    </>
  );
}

function matches({ name, labels, help }: Metric, text: string): boolean {
  return `${name} ${labels} ${help}`.toLowerCase().includes(text.toLowerCase());
}
