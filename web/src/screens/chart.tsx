// A chart of a table's groups, which the server computes.
import type { JSX } from "preact";
import { useLocation } from "preact-iso";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { FieldStatus } from "../api-types.js";
import { axisNumbers, cell, count, figure, isNumber, moment, shown, zone, zoneName } from "../format.js";
import { type Answer, type Groups, REQUESTED_STALE_MS, useGroups, VALUE } from "../groups.js";
import { ConnectedMark, Empty, Missing, PolledMark } from "../parts.js";
import { PlainTable } from "../plain-table.js";
import { aggregateParts, BARS_MAX, BUCKETS, type ChartQuery, chartQuery, drawn, FUNCTIONS, type Group, overTime, type Series } from "../rollup.js";
import { Select } from "../select.js";

interface ChartProps {
  readonly projection: string;
  readonly table: string;
  readonly fields: readonly FieldStatus[];
}

export default function Chart({ projection, table, fields }: ChartProps): JSX.Element {
  const { url, path: here, query: search, route } = useLocation();
  const query = chartQuery(search, fields);
  const where = new URLSearchParams(url.split("?")[1] ?? "").getAll("where");
  const groups = useGroups({ projection, table }, fields, query, where);
  const go = (change: Partial<ChartQuery>): void => {
    const params = new URLSearchParams(url.split("?")[1] ?? "");
    for (const [name, text] of Object.entries({ ...query, ...change })) params.set(name, text);
    route(`${here}?${params}`);
  };
  return (
    <>
      <Choose query={query} fields={fields} go={go} bucket={groups.data?.bucket ?? ""} />
      <div class="bar">
        <GroupsMark of={groups} />
        {where.map((text) => (
          <code key={text}>{text}</code>
        ))}
        <TooMany of={groups.data} query={query} />
      </div>
      <Requested of={groups} />
      <Missing of={groups} />
      {groups.data !== null && <Drawn answer={groups.data} query={query} />}
    </>
  );
}

/** How current the groups are. */
export function GroupsMark({ of }: { of: Groups }): JSX.Element {
  return of.status === null ? <PolledMark of={of} staleMs={REQUESTED_STALE_MS} /> : <ConnectedMark state={of.status} at={of.at} />;
}

/** Why the groups are requested again and again, if the feed does not send them. */
export function Requested({ of: { requested, error } }: { of: Groups }): JSX.Element | null {
  if (requested === null || error !== null) return null;
  return <p class="soft requested">Requested every 3 s, because {requested}</p>;
}

/** That the chart does not show all groups. */
export function TooMany({ of, query }: { of: Answer | null; query: ChartQuery }): JSX.Element | null {
  if (of === null || !(of.more || (query.time === "" && of.groups.length > BARS_MAX))) return null;
  return <span class="warn">{query.time === "" ? `The ${Math.min(BARS_MAX, of.groups.length)} largest groups` : "More groups than one answer has: choose larger buckets"}</span>;
}

interface ChooseProps {
  readonly query: ChartQuery;
  readonly fields: readonly FieldStatus[];
  readonly go: (change: Partial<ChartQuery>) => void;
  /** The size of buckets that the server has used. */
  readonly bucket: string;
  /** Whether only the value is chosen, and no groups. */
  readonly single?: boolean;
}

/** The parts of a chart's query. */
export function Choose({ query, fields, go, bucket, single = false }: ChooseProps): JSX.Element {
  const numbers = fields.filter(({ kind }) => isNumber(kind));
  const { name, of } = aggregateParts(query.agg) ?? { name: "count", of: "" };
  const named = (...kinds: string[]): string[] => fields.filter(({ kind }) => kinds.includes(kind)).map((field) => field.name);
  const aggregate = (next: string, field: string): string => (next === "count" ? "count()" : `${next}(${field || (next === "distinct" ? (fields[0]?.name ?? "") : (numbers[0]?.name ?? ""))})`);
  const functions = ["count", ...(numbers.length > 0 ? FUNCTIONS : ["distinct"])];
  const offered = name === "distinct" ? fields.filter(({ kind }) => kind !== "json") : numbers;
  return (
    <div class="filters">
      <Select label="show" value={name} options={functions} onChange={(next) => go({ agg: aggregate(next, next === "distinct" || numbers.some((field) => field.name === of) ? of : "") })} />
      {name !== "count" && <Select label="of" value={of} options={offered.map((field) => field.name)} onChange={(next) => go({ agg: aggregate(name, next) })} />}
      {!single && <Select label="by" value={query.by} options={[["", "nothing"], ...named("text", "boolean", "integer")]} onChange={(by) => go({ by })} />}
      {!single && <Select label="over" value={query.time} options={[["", "no time"], ...named("timestamp")]} onChange={(time) => go({ time })} />}
      {!single && query.time !== "" && <Select label="in buckets of" value={query.bucket} options={[["", bucket === "" ? "fitting size" : `fitting size (${bucket})`], ...BUCKETS.map(([one]) => one)]} onChange={(next) => go({ bucket: next })} />}
    </div>
  );
}

interface DrawnProps {
  readonly answer: Answer;
  readonly query: ChartQuery;
  /** Whether it fills the height of its place; then its values are not shown as a table. */
  readonly fill?: boolean;
  /** How many bars are shown. */
  readonly bars?: number;
}

export function Drawn({ answer: { groups, kinds }, query, fill = false, bars = BARS_MAX }: DrawnProps): JSX.Element {
  if (groups.length === 0) {
    return (
      <Empty title="No rows to draw">
        <p>The chart fills when the table has rows with a value.</p>
      </Empty>
    );
  }
  const label = `${query.agg}${query.by && ` by ${query.by}`}${query.time && ` over ${query.time}`}`;
  if (query.time !== "") {
    const { moments, series, left } = overTime(groups, query, VALUE);
    return (
      <>
        <Line moments={moments} series={query.by === "" ? series.map((one) => ({ ...one, name: query.agg })) : series} label={label} fill={fill} />
        {left > 0 && <p class="soft">{count(left)} more series with smaller values are left out.</p>}
        {!fill && <Behind groups={groups} kinds={kinds} agg={query.agg} />}
      </>
    );
  }
  if (groups.length === 1 && query.by === "") return <p class="figure">{figure(groups[0]![VALUE])}</p>;
  return (
    <>
      <Bars groups={groups.slice(0, bars)} by={query.by} label={label} />
      {!fill && <Behind groups={groups} kinds={kinds} agg={query.agg} />}
    </>
  );
}

/** The height of a line chart that does not fill its place. */
const HEIGHT_PX = 360;
const COLORS = 8;

/** The colours of the theme, as a canvas needs them. */
function colours(element: HTMLElement): { text: string; line: string; series: string[] } {
  const probe = document.createElement("span");
  element.append(probe);
  const of = (name: string): string => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
  const result = { text: of("--soft"), line: of("--line"), series: Array.from({ length: COLORS }, (_, at) => of(`--series-${at + 1}`)) };
  probe.remove();
  return result;
}

/** The label of a moment on an axis whose labels are `step` seconds apart. */
function tick(seconds: number, step: number): string {
  const text = moment(seconds * 1e6);
  return step >= 86_400 ? text.slice(0, 10) : step >= 60 ? text.slice(5, 16) : text.slice(11);
}

function Line({ moments, series, label, fill }: { moments: number[]; series: readonly Series[]; label: string; fill: boolean }): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  // A board may have many charts outside of the window: they are drawn when they come into it.
  const drawnUp = useRef({ inWindow: true, late: false });
  const names = series.map(({ name }) => name).join("\u0000");
  const data: uPlot.AlignedData = [moments, ...series.map(({ values }) => values)];
  const newest = useRef(data);
  useEffect(() => {
    const element = box.current!;
    // The legend is below the height that uPlot is given.
    const height = (): number => (fill ? Math.max(80, element.clientHeight - (element.querySelector(".u-legend")?.clientHeight ?? 30) - 4) : HEIGHT_PX);
    const draw = (): void => {
      plot.current?.destroy();
      const { text, line, series: strokes } = colours(element);
      const local = zone.value === "local";
      const axis = { stroke: text, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
      plot.current = new uPlot(
        {
          width: element.clientWidth,
          height: height(),
          padding: [16, 40, 0, 0],
          ...(!local && { tzDate: (seconds: number) => uPlot.tzDate(new Date(seconds * 1000), "UTC") }),
          // The axis begins at zero, so that heights are proportional to
          // values.
          scales: { y: { range: (_, min, max) => uPlot.rangeNum(Math.min(0, min ?? 0), Math.max(0, max ?? 1), 0.1, true) } },
          axes: [{ ...axis, space: 90, values: (_, splits, __, ___, step) => splits.map((seconds) => tick(seconds, step)) }, { ...axis, size: 80, values: (_, splits) => axisNumbers(splits) }],
          series: [{ label: zoneName(), value: (_, seconds) => (seconds == null ? "–" : moment(seconds * 1e6)) }, ...series.map(({ name }, at) => ({ label: shown(name), value: (_: uPlot, value: number | null) => (value == null ? "–" : figure(value)), stroke: strokes[at % COLORS]!, width: 2, points: { show: moments.length < 60 }, dash: at % 2 === 0 ? [] : [8, 4] }))],
        },
        data,
        element,
      );
    };
    draw();
    const observer = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: height() }));
    observer.observe(element);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", draw);
    const themes = new MutationObserver(draw);
    themes.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    const watcher = new IntersectionObserver((entries) => {
      const now = drawnUp.current;
      now.inWindow = entries.at(-1)!.isIntersecting;
      if (now.inWindow && now.late) plot.current?.setData(newest.current);
      if (now.inWindow) now.late = false;
    });
    watcher.observe(element);
    return () => {
      watcher.disconnect();
      observer.disconnect();
      themes.disconnect();
      dark.removeEventListener("change", draw);
      plot.current?.destroy();
      plot.current = null;
    };
  }, [names, zone.value, fill]);
  useEffect(() => {
    newest.current = data;
    if (drawnUp.current.inWindow) plot.current?.setData(data);
    else drawnUp.current.late = true;
  });
  return <div class={fill ? "plot fill" : "plot"} ref={box} role="img" aria-label={`Line chart: ${label}.${fill ? "" : " The values are in the table below."}`} />;
}

function Bars({ groups, by, label }: { groups: readonly Group[]; by: string; label: string }): JSX.Element {
  const most = Math.max(...groups.map((group) => Math.abs(drawn(group[VALUE]) ?? 0)), 1e-9);
  return (
    <ol class="bars" aria-label={`Bar chart: ${label}`}>
      {groups.map((group) => (
        <li key={String(group[by])}>
          <span class="name">{group[by] == null ? "no value" : shown(String(group[by]))}</span>
          <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
            <rect width={(100 * Math.abs(drawn(group[VALUE]) ?? 0)) / most} height="10" />
          </svg>
          <span class="number">{figure(group[VALUE])}</span>
        </li>
      ))}
    </ol>
  );
}

/** The values of a chart as a table. */
export function Behind({ groups, kinds, agg }: Pick<Answer, "groups" | "kinds"> & { agg: string }): JSX.Element {
  const columns = Object.keys(groups[0] ?? {});
  const last = groups.slice(-200).reverse();
  return (
    <details>
      <summary>The values as a table</summary>
      {groups.length > last.length && <p class="soft">The last {count(last.length)} of {count(groups.length)} groups.</p>}
      <PlainTable columns={columns.map((name) => (name === VALUE ? agg : name))}>
        {last.map((group, at) => (
          <tr key={at}>
            {columns.map((name) => (
              <td key={name}>{cell(kinds.get(name) ?? "number", group[name])}</td>
            ))}
          </tr>
        ))}
      </PlainTable>
    </details>
  );
}
