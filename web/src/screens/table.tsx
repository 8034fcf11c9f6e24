// A table: its rows as they change, or those that a filter and an order select.
import { signal, useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { lazy, useLocation, useRoute } from "preact-iso";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { AddToBoard } from "../add-to-board.js";
import { NEW_PANE, type Pane as BoardPane } from "../board.js";
import { download, FORMATS, type Format, save } from "../download.js";
import { count, keyText, moment, pretty, rate, shortId, shown as visible, zoneName } from "../format.js";
import { type Column, ColumnChoice, Grid, member, rowsText, useColumns } from "../grid.js";
import { behindText, Badge, Code, ConnectedMark, Dialog, Empty, Fact, Failure, HoldButton, Pane, percentText, Progress, say, sayFailed } from "../parts.js";
import { now } from "../polled.js";
import { path } from "../problem.js";
import { condition, fromAddress, inAddress, nextOrder, operators, type TableQuery } from "../query.js";
import { type ChartQuery, chartQuery } from "../rollup.js";
import { withPrefix } from "../rows.js";
import { behind, catchesUp, findTable, overview, type Place } from "../server.js";
import { curl, python, typescript } from "../snippets.js";
import { FeedRows, type Rows, type Source, useSource } from "../source.js";

const Chart = lazy(() => import("./chart.js"));

export default function TableScreen(): JSX.Element {
  const { params } = useRoute();
  const { query: search } = useLocation();
  const [projection, table] = [params.projection ?? "", params.table ?? ""];
  const { value } = overview.value;
  const place = value.data && findTable(value.data, projection, table, search.version ?? "");
  if (place === null || typeof place === "string") {
    return (
      <section>
        <h1>{`${projection}/${table}`}</h1>
        <Pane of={value}>
          {() => (
            <Empty title={String(place)}>
              <a href="/">See all projections</a>
            </Empty>
          )}
        </Pane>
      </section>
    );
  }
  return <TableOf key={`${projection}/${table}`} place={place} />;
}

function TableOf({ place }: { place: Place }): JSX.Element {
  const { projection, table, version, status } = place;
  const { url, path: here, route, query: search } = useLocation();
  const address = url.includes("?") ? url.slice(url.indexOf("?")) : "";
  const query = useMemo(() => fromAddress(address), [address]);
  const go = (next: TableQuery): void => route(here + inAddress(address, next));
  const view = (name: string): string => {
    const params = new URLSearchParams(address);
    if (name === "rows") params.delete("view");
    else params.set("view", name);
    return `${here}${params.size > 0 ? `?${params}` : ""}`;
  };
  const views = ["rows", "chart"];
  const shown = views.includes(search.view ?? "") ? search.view! : "rows";
  const old = search.version !== undefined && search.version !== "" && version.state !== "active";
  return (
    <section class="table-screen" aria-labelledby="title">
      <header class="screen">
        <h1 id="title">
          <a href={`/p${path(projection)}`}>{projection}</a>/{table}
        </h1>
        <nav class="tabs" aria-label="Views of the table">
          {views.map((name) => (
            <a key={name} href={view(name)} aria-current={shown === name ? "page" : undefined}>
              {name === "rows" ? "Rows" : "Chart"}
            </a>
          ))}
        </nav>
        {!old && <AddToBoard pane={paneOf(place, query, shown === "chart" ? chartQuery(search, status.fields) : null)} />}
        <p class="soft about">{status.description}</p>
      </header>
      {old && (
        <p class="past">
          You see version {shortId(version.id)}, which is {version.state}. <a href={here}>See the active version</a>
        </p>
      )}
      {catchesUp(version) && (
        <div class="past">
          <Progress percent={version.percent} label={`The rows show the past: ${percentText(version.percent)} of the log is folded`} />
        </div>
      )}
      {shown === "chart" ? <Chart projection={projection} table={table} fields={status.fields} /> : <RowsView place={place} query={query} go={go} />}
    </section>
  );
}

/** Rows that stay as they are, while changes are counted. */
interface Held {
  readonly rows: Rows;
  readonly waiting: Set<string>;
}

/** What the screen shows, as a pane of a board. */
function paneOf({ projection, table }: Place, { where, order, cols }: TableQuery, chart: ChartQuery | null): BoardPane {
  return { ...NEW_PANE, table: `${projection}/${table}`, where, ...(chart === null ? { kind: "table", order, cols } : { kind: "chart", ...chart }) };
}

function RowsView({ place, query, go }: { place: Place; query: TableQuery; go: (query: TableQuery) => void }): JSX.Element {
  const { source, refused } = useSource(place, query);
  const held = useSignal<Held | null>(null);
  const open = useSignal<string | null>(null);
  const history = useMemo(() => new Map<string, Seen[]>(), [source]);
  useEffect(() => {
    held.value = null;
    source.onChanged = (keys) => {
      for (const key of keys) {
        held.peek()?.waiting.add(key);
        if (key === open.peek()) remember(history, key, source);
      }
    };
    return () => {
      source.onChanged = null;
    };
  }, [source]);
  const fields: readonly Column[] = place.status.fields;
  const columns = useColumns(fields, query.cols);
  const rows = held.value?.rows ?? source.rows;
  const live = source instanceof FeedRows;
  const range = live ? withPrefix(rows.keys, query.prefix) : ([0, rows.keys.length] as const);
  const total = range[1] - range[0];
  const { state } = source;
  const waiting = held.value?.waiting.size ?? 0;
  const hold = (): void => {
    held.value = held.value === null ? { rows: source.still(), waiting: new Set() } : null;
  };
  return (
    <>
      <Filters place={place} query={query} go={go} />
      <div class="bar">
        <span role="status" class="status">
          {held.value === null ? <ConnectedMark state={state.status} at={state.at} /> : <Badge tone="busy" text="held still" />}
        </span>
        <dl aria-label="The rows">
          <Fact name="rows">{rowsText(total, state.more)}</Fact>
          <Fact name="commit">{state.commit === null ? "–" : count(state.commit)}</Fact>
          <Fact name="behind">{behindText(behind(place.version))}</Fact>
          {source.changes.value !== null && <Fact name="changes/s">{rate(source.changes.value)}</Fact>}
        </dl>
        <span class="actions">
          <HoldButton held={held.value !== null} waiting={count(waiting)} onClick={hold} />
          <Columns fields={fields} query={query} go={go} />
          <CodeButton place={place} query={query} />
          <Download place={place} query={query} />
        </span>
      </div>
      {state.error && <Failure error={state.error} />}
      {refused && <p class="soft">The table has too many rows for the feed: it is requested again every 2 seconds. A filter or a prefix selects other rows.</p>}
      {state.more && rows.keys.length >= 10_000 && <p class="soft">Only the first 10,000 rows are loaded. A filter selects others; a download has all.</p>}
      {state.status !== "loading" && total === 0 && state.error === null ? (
        <NoRows place={place} query={query} go={go} />
      ) : (
        <Grid
          label={`Rows of ${place.projection}/${place.table}`}
          columns={columns}
          rows={rows}
          range={range}
          falling={live && query.order === "-key"}
          source={source}
          order={query.order}
          onOrder={(column) => go({ ...query, order: nextOrder(query.order, column) })}
          onOpen={(key) => {
            open.value = key;
          }}
        />
      )}
      {open.value !== null && (
        <RowSheet name={open.value} fields={live ? columns : fields} left={live ? fields.length - columns.length : 0} source={source} seen={history.get(open.value) ?? []} onClose={() => (open.value = null)} />
      )}
    </>
  );
}

function NoRows({ place, query, go }: { place: Place; query: TableQuery; go: (query: TableQuery) => void }): JSX.Element {
  const filtered = query.where.length > 0 || query.prefix !== "";
  return filtered ? (
    <Empty title="No row fulfils the filter">
      <button type="button" onClick={() => go({ ...query, where: [], prefix: "" })}>
        Remove the filter
      </button>
    </Empty>
  ) : (
    <Empty title="No rows yet">
      <p>
        The projection writes rows when the log gets events of these types: {place.version.subscribes.join(", ") || "all"}. <a href="/events">See the events</a>
      </p>
    </Empty>
  );
}

function Filters({ place, query, go }: { place: Place; query: TableQuery; go: (query: TableQuery) => void }): JSX.Element {
  const { fields } = place.status;
  const field = useSignal(fields[0]?.name ?? "");
  const chosen = fields.find(({ name }) => name === field.value) ?? fields[0];
  const offered = chosen ? operators(chosen.kind) : [];
  const operator = useSignal("=");
  const usual = offered.includes(operator.value) ? operator.value : (offered[0] ?? "=");
  const value = useRef<HTMLInputElement>(null);
  return (
    <div class="filters">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          const input = event.currentTarget.elements.namedItem("prefix") as HTMLInputElement;
          go({ ...query, prefix: input.value });
        }}
      >
        <label>
          key begins with <input name="prefix" type="search" value={query.prefix} autocomplete="off" spellcheck={false} onSearch={({ currentTarget }) => go({ ...query, prefix: currentTarget.value })} />
        </label>
      </form>
      {chosen && (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            const text = value.current?.value ?? "";
            if (text === "" && !usual.endsWith("null") && chosen.kind !== "text") return;
            go({ ...query, where: [...query.where, condition(chosen, usual, text)] });
            if (value.current) value.current.value = "";
          }}
        >
          <label>
            where{" "}
            <select aria-label="Field" value={chosen.name} onChange={({ currentTarget }) => (field.value = currentTarget.value)}>
              {fields.map(({ name }) => (
                <option key={name}>{name}</option>
              ))}
            </select>
          </label>
          <select aria-label="Operator" value={usual} onChange={({ currentTarget }) => (operator.value = currentTarget.value)}>
            {offered.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
          {!usual.endsWith("null") && <input ref={value} aria-label="Value" autocomplete="off" spellcheck={false} placeholder={usual === "in" ? "a, b, c" : ""} />}
          <button type="submit">Add filter</button>
        </form>
      )}
      {query.where.map((text, at) => (
        <button type="button" class="chip" key={text} aria-label={`Remove the filter ${text}`} onClick={() => go({ ...query, where: query.where.filter((_, other) => other !== at) })}>
          {text} <span aria-hidden="true">✕</span>
        </button>
      ))}
    </div>
  );
}

function Columns({ fields, query, go }: { fields: readonly Column[]; query: TableQuery; go: (query: TableQuery) => void }): JSX.Element {
  return (
    <>
      <button type="button" popovertarget="columns">
        Columns
      </button>
      <div id="columns" popover="auto" class="menu">
        <ColumnChoice fields={fields} cols={query.cols} change={(cols) => go({ ...query, cols })} kinds />
      </div>
    </>
  );
}

function CodeButton({ place: { projection, table, status }, query }: { place: Place; query: TableQuery }): JSX.Element {
  const open = useSignal(false);
  const { origin } = location;
  return (
    <>
      <button type="button" onClick={() => (open.value = true)}>
        Code
      </button>
      {open.value && (
        <Dialog title="These rows in code" onClose={() => (open.value = false)}>
          <p class="soft">
            A request returns at most 1,000 rows; with <code>limit</code> up to 10,000, and with <code>export=1</code> all.
          </p>
          <h3>curl</h3>
          <Code label="curl" text={curl(origin, projection, table, query)} />
          <h3>TypeScript</h3>
          <Code label="TypeScript" text={typescript(origin, projection, table, query, status.fields)} />
          <h3>Python</h3>
          <Code label="Python" text={python(origin, projection, table, query)} />
        </Dialog>
      )}
    </>
  );
}

function Download({ place: { projection, table }, query }: { place: Place; query: TableQuery }): JSX.Element {
  const pages = useSignal<number | null>(null);
  const start = async (format: Format): Promise<void> => {
    pages.value = 0;
    try {
      const { text, commits } = await download(projection, table, query, format, (done) => (pages.value = done));
      save(`${projection}-${table}.${format}`, text, FORMATS[format]);
      say(commits.size === 1 ? "Downloaded: all rows are of one commit" : `Downloaded: the rows changed meanwhile, and are of ${commits.size} commits`);
    } catch (error) {
      sayFailed("Not downloaded", error);
    }
    pages.value = null;
  };
  return (
    <>
      <button type="button" popovertarget="download" disabled={pages.value !== null}>
        {pages.value === null ? "Download" : `${count(pages.value)} pages …`}
      </button>
      <div id="download" popover="auto" class="menu">
        {(["csv", "ndjson"] as const).map((format) => (
          <button type="button" key={format} popovertarget="download" popovertargetaction="hide" onClick={() => void start(format)}>
            {format.toUpperCase()}, with this filter and order
          </button>
        ))}
      </div>
    </>
  );
}

/** A row at one moment while its sheet (the panel with its details) was open. */
interface Seen {
  readonly at: number;
  readonly row: object | undefined;
}
const SEEN_MAX = 20;
const seenChanges = signal(0);

function remember(history: Map<string, Seen[]>, key: string, source: Source): void {
  const list = history.get(key) ?? [];
  list.unshift({ at: Date.now(), row: source.rows.get(key) });
  history.set(key, list.slice(0, SEEN_MAX));
  seenChanges.value += 1;
}

interface SheetProps {
  readonly name: string;
  readonly fields: readonly Column[];
  /** How many fields the row has that are not among these. */
  readonly left: number;
  readonly source: Source;
  readonly seen: readonly Seen[];
  readonly onClose: () => void;
}

function RowSheet({ name, fields, left, source, seen, onClose }: SheetProps): JSX.Element {
  const row = source.rows.get(name);
  void seenChanges.value;
  void now.value;
  return (
    <Dialog title={keyText(name)} onClose={onClose} sheet>
      {row === undefined ? (
        <p class="bad">The row no longer exists.</p>
      ) : (
        <>
          <dl class="fields">
            {fields.map((field) => {
              const value = member(row, field.name);
              return (
                <Fact key={field.name} name={`${field.name}${field.unit ? `, ${field.unit}` : ""}`}>
                  {value == null ? "no value" : typeof value === "string" ? visible(value) : pretty(value)}
                </Fact>
              );
            })}
          </dl>
          {left > 0 && <p class="soft">{left === 1 ? "One more field is" : `${left} more fields are`} left out: choose them under “Columns”.</p>}
          <h3>As JSON</h3>
          <Code label="The row as JSON" text={pretty(row)} />
        </>
      )}
      <h3>Changes since this row was opened, times in {zoneName()}</h3>
      {seen.length === 0 && <p class="soft">None so far.</p>}
      <ol class="seen">
        {seen.map(({ at, row: was }) => (
          <li key={at}>
            <time dateTime={new Date(at).toISOString()}>{moment(at * 1000).slice(11)}</time> <code>{was === undefined ? "deleted" : pretty(was)}</code>
          </li>
        ))}
      </ol>
    </Dialog>
  );
}
