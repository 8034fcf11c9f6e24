// The panes of a board: a number, a chart or rows, each with its age.
import { useSignal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useLocation } from "preact-iso";
import { useEffect, useRef } from "preact/hooks";
import { filled, type Pane } from "./board.js";
import { figure } from "./format.js";
import { Grid, useColumns } from "./grid.js";
import { useGroups } from "./groups.js";
import { ConnectedMark, Dialog, Empty, Failure, FreshnessMark } from "./parts.js";
import { path } from "./problem.js";
import { inAddress, nextOrder, type TableQuery } from "./query.js";
import { BARS_MAX, type ChartQuery } from "./rollup.js";
import { Behind, Drawn, GroupsMark, Requested, TooMany } from "./screens/chart.js";
import { findTable, overview, type Place, splitName } from "./server.js";
import { FeedRows, useSource } from "./source.js";

interface PaneProps {
  readonly pane: Pane;
  /** The values of the board's variables. */
  readonly values: ReadonlyMap<string, string>;
  /** Whether the pane is only looked at. */
  readonly kiosk: boolean;
}

/** A pane with its title, its age and its content. */
export function PaneView({ pane, values, kiosk }: PaneProps): JSX.Element {
  const { data } = overview.value.value;
  const [projection, table] = splitName(pane.table);
  const place = data && findTable(data, projection, table, "");
  if (place === null) return <Framed pane={pane} mark={<FreshnessMark state="loading" at={0} />} />;
  if (typeof place === "string") {
    return (
      <Framed pane={pane}>
        <p class="bad">{pane.table === "" ? "Choose a table for this pane." : place}</p>
      </Framed>
    );
  }
  const where = filled(pane.where, values, place.status.fields);
  if (pane.kind === "number") return <NumberPane pane={pane} place={place} where={where} />;
  if (pane.kind === "chart") return <ChartPane pane={pane} place={place} where={where} kiosk={kiosk} />;
  if (pane.kind === "table") return <TablePane pane={pane} place={place} where={where} />;
  return (
    <Framed pane={pane}>
      <p class="bad">This page does not know panes of the kind “{pane.kind}”. A newer one does.</p>
    </Framed>
  );
}

/** The title of a pane: its own, otherwise one that names its content. */
export function titleOf({ title, kind, table, agg, by, time }: Pane): string {
  if (title !== "") return title;
  if (kind === "table") return table;
  const groups = kind === "chart" ? `${by && ` by ${by}`}${time && ` over ${time}`}` : "";
  return `${agg}${groups} of ${table}`;
}

interface FramedProps {
  readonly pane: Pane;
  readonly mark?: JSX.Element;
  /** Where the whole table is. */
  readonly href?: string;
  readonly tools?: ComponentChildren;
  readonly children?: ComponentChildren;
}

function Framed({ pane, mark, href, tools, children }: FramedProps): JSX.Element {
  const title = titleOf(pane);
  return (
    <>
      <header>
        <h2>{href ? <a href={href}>{title}</a> : title}</h2>
        {mark}
        {tools}
      </header>
      <div class="pane-body">{children}</div>
    </>
  );
}

/** The address of a pane's table with what the pane shows of it. */
function addressOf({ projection, table }: Place, pane: Pane, where: readonly string[]): string {
  const query = inAddress("", { where, order: pane.kind === "table" ? pane.order : "", cols: pane.kind === "table" ? pane.cols : [], prefix: "", version: "" });
  const params = new URLSearchParams(query);
  if (pane.kind !== "table") for (const [name, text] of Object.entries({ view: "chart", ...chartOf(pane) })) params.set(name, text);
  return `/t${path(projection, table)}${params.size > 0 ? `?${params}` : ""}`;
}

function chartOf({ kind, agg, time, bucket, by }: Pane): ChartQuery {
  return kind === "number" ? { agg, time: "", bucket: "", by: "" } : { agg, time, bucket, by };
}

interface PlacedProps {
  readonly pane: Pane;
  readonly place: Place;
  readonly where: readonly string[];
}

function NumberPane({ pane, place, where }: PlacedProps): JSX.Element {
  const value = useGroups(place, place.status.fields, chartOf(pane), where);
  const [group] = value.data?.groups ?? [];
  const text = figure(group && Object.values(group)[0]);
  const changes = useRef({ text, count: 0 });
  if (changes.current.text !== text) changes.current = { text, count: changes.current.count + 1 };
  const [, field = ""] = /\((.*)\)$/.exec(pane.agg) ?? [];
  const unit = place.status.fields.find(({ name }) => name === field)?.unit ?? "";
  return (
    <Framed pane={pane} mark={<GroupsMark of={value} />} href={addressOf(place, pane, where)}>
      {value.error && <Failure error={value.error} />}
      {value.data !== null && (
        <p class={`figure ${changes.current.count < 2 ? "" : changes.current.count % 2 === 0 ? "flash-even" : "flash-odd"}`}>
          {text} {unit && !/^(count|distinct)\(/.test(pane.agg) && <small>{unit}</small>}
        </p>
      )}
      <Requested of={value} />
    </Framed>
  );
}

/** How many bars fit a row of the board. */
const BARS_A_ROW = 4;

function ChartPane({ pane, place, where, kiosk }: PlacedProps & { kiosk: boolean }): JSX.Element {
  const query = chartOf(pane);
  const bars = Math.min(BARS_MAX, BARS_A_ROW * pane.height - 2);
  const value = useGroups(place, place.status.fields, query, where);
  const open = useSignal(false);
  const tools = !kiosk && value.data !== null && (
    <button type="button" class="link" onClick={() => (open.value = true)}>
      Values
    </button>
  );
  return (
    <Framed pane={pane} mark={<GroupsMark of={value} />} href={addressOf(place, pane, where)} tools={tools}>
      {value.error && <Failure error={value.error} />}
      {value.data !== null && <Drawn answer={value.data} query={query} fill bars={bars} />}
      {query.time !== "" && <TooMany of={value.data} query={query} />}
      <Requested of={value} />
      {open.value && value.data !== null && (
        <Dialog title={titleOf(pane)} onClose={() => (open.value = false)}>
          <Behind groups={value.data.groups} kinds={value.data.kinds} agg={query.agg} />
        </Dialog>
      )}
    </Framed>
  );
}

function TablePane({ pane, place, where }: PlacedProps): JSX.Element {
  const { route } = useLocation();
  const order = useSignal(pane.order);
  useEffect(() => {
    order.value = pane.order;
  }, [pane.order]);
  const query: TableQuery = { where, order: order.value, cols: pane.cols, prefix: "", version: "" };
  const { source } = useSource(place, query, pane.limit);
  const columns = useColumns(place.status.fields, pane.cols);
  const { rows, state } = source;
  const live = source instanceof FeedRows;
  const falling = live && order.value === "-key";
  const length = Math.min(rows.keys.length, pane.limit);
  const range = falling ? ([rows.keys.length - length, rows.keys.length] as const) : ([0, length] as const);
  const address = addressOf(place, { ...pane, order: order.value }, where);
  return (
    <Framed pane={pane} mark={<ConnectedMark state={state.status} at={state.at} />} href={address}>
      {state.error && <Failure error={state.error} />}
      {state.status !== "loading" && length === 0 && state.error === null ? (
        <Empty title={where.length > 0 ? "No row fulfils the filter" : "No rows yet"} />
      ) : (
        <Grid label={titleOf(pane)} columns={columns} rows={rows} range={range} falling={falling} source={source} order={order.value} onOrder={(column) => (order.value = nextOrder(order.value, column))} onOpen={() => route(address)} />
      )}
    </Framed>
  );
}
