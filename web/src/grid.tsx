// A table with any number of rows, of which only the visible ones exist as elements.
import { Component, type ComponentChildren, type JSX } from "preact";
import { useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { cell, count, counted, isNumber, keyText } from "./format.js";
import type { Row } from "../../clients/ts/src/index.js";
import type { FieldStatus } from "./api-types.js";
import { type Rows, type Source } from "./source.js";
import { scrollTo, visible } from "./rows.js";

/** The height of a row in pixels: it is a line, or a card on a phone. */
const ROW_PX = 32;
const CARD_PX = 88;
/** How many fields a card shows. */
const CARD_FIELDS = 3;
const phone = matchMedia("(max-width: 40rem)");

export type Column = Pick<FieldStatus, "name" | "kind"> & { unit?: string };

/**
 * The fields that are shown: those in `cols`, or all. It is the same list until its content
 * changes, because rows are drawn again for another one.
 */
export function useColumns(fields: readonly Column[], cols: readonly string[]): readonly Column[] {
  return useMemo(() => (cols.length === 0 ? fields : fields.filter(({ name }) => cols.includes(name))), [JSON.stringify([fields, cols])]);
}

interface ColumnChoiceProps {
  readonly fields: readonly Column[];
  /** The shown fields; empty for all. */
  readonly cols: readonly string[];
  readonly change: (cols: string[]) => void;
  /** Whether each field is shown with its kind. */
  readonly kinds?: boolean;
}

/** A choice of the shown fields. The last one stays shown. */
export function ColumnChoice({ fields, cols, change, kinds = false }: ColumnChoiceProps): JSX.Element {
  const shown = cols.length === 0 ? fields.map(({ name }) => name) : cols;
  const choose = (name: string, on: boolean): void => {
    const wanted = fields.map((field) => field.name).filter((other) => (other === name ? on : shown.includes(other)));
    if (wanted.length > 0) change(wanted.length === fields.length ? [] : wanted);
  };
  return (
    <fieldset>
      <legend>Columns</legend>
      {fields.map(({ name, kind }) => (
        <label key={name}>
          <input type="checkbox" checked={shown.includes(name)} onChange={({ currentTarget }) => choose(name, currentTarget.checked)} /> {name} {kinds && <small>{kind}</small>}
        </label>
      ))}
    </fieldset>
  );
}

interface GridProps {
  readonly label: string;
  readonly columns: readonly Column[];
  readonly rows: Rows;
  /** The indices of the shown keys in `rows.keys`; backwards if `falling`. */
  readonly range: readonly [number, number];
  readonly falling: boolean;
  readonly source: Source;
  readonly order: string;
  readonly onOrder: (column: string) => void;
  readonly onOpen: (key: string) => void;
}

/** The minimum width of a column of a kind, and the share of the remaining width that it gets. */
function width(kind: string): readonly [rem: number, share: number] {
  if (isNumber(kind)) return [7, 1];
  return kind === "timestamp" ? [12, 1] : [8, 1.4];
}

/** The width of a digit, and of the space at both sides of a cell. */
const DIGIT_REM = 0.53;
const SIDES_REM = 1.6;

/** The longest number of each column that was visible so far: a column becomes wider for it, and never narrower again. */
function longest(before: ReadonlyMap<string, number>, columns: readonly Column[], rows: readonly Row[]): ReadonlyMap<string, number> {
  let result = before;
  for (const { name, kind } of columns) {
    if (!isNumber(kind)) continue;
    const digits = rows.reduce((most, row) => Math.max(most, cell(kind, member(row, name)).length), 0);
    if (digits > (result.get(name) ?? 0)) result = new Map(result).set(name, digits);
  }
  return result;
}

/** The widths of the columns, and of all together. Of the rows, they depend only on the longest numbers, so that columns do not jump. */
function widths(columns: readonly Column[], digits: ReadonlyMap<string, number>): { "--columns": string; "--width": string } {
  const all = [
    [11, 1.4] as const,
    ...columns.map(({ name, kind }) => {
      const [rem, share] = width(kind);
      return [Math.max(rem, DIGIT_REM * (digits.get(name) ?? 0) + SIDES_REM), share] as const;
    }),
  ];
  return {
    "--columns": all.map(([rem, share]) => `minmax(${rem}rem, ${share}fr)`).join(" "),
    "--width": `${all.reduce((sum, [rem]) => sum + rem, 0)}rem`,
  };
}

export function Grid({ label, columns, rows, range, falling, source, order, onOrder, onOpen }: GridProps): JSX.Element {
  const scroller = useRef<HTMLDivElement>(null);
  const [at, setAt] = useState({ top: 0, height: 400 });
  const [cards, setCards] = useState(phone.matches);
  const [active, setActive] = useState<number | null>(null);
  const [beyond, setBeyond] = useState(0);
  const left = useRef(0);
  const id = useId();
  const digits = useRef<ReadonlyMap<string, number>>(new Map());
  const rowPx = cards ? CARD_PX : ROW_PX;
  const headPx = cards ? 0 : ROW_PX;
  const total = range[1] - range[0];
  const view = visible(total, rowPx, at.top, Math.max(rowPx, at.height - headPx));

  useEffect(() => {
    const change = (): void => setCards(phone.matches);
    phone.addEventListener("change", change);
    return () => phone.removeEventListener("change", change);
  }, []);
  useLayoutEffect(() => {
    const element = scroller.current!;
    const measure = (): void => {
      setAt({ top: element.scrollTop, height: element.clientHeight });
      setBeyond(columnsBeyond(element));
    };
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    measure();
    return () => observer.disconnect();
  }, [columns]);
  useEffect(() => {
    if (view.first + view.shown >= total - 50) source.loadMore();
  });

  const keyAt = (index: number): string => rows.keys[falling ? range[1] - 1 - index : range[0] + index]!;
  const show = (index: number): void => {
    const element = scroller.current!;
    const target = Math.min(Math.max(index, 0), total - 1);
    setActive(target);
    const fits = Math.max(1, Math.floor((at.height - headPx) / rowPx));
    if (target < view.first || target >= view.first + fits) {
      const top = target < view.first ? target : target - fits + 1;
      element.scrollTop = scrollTo(top, total, rowPx, Math.max(rowPx, at.height - headPx));
    }
  };
  const key = (event: KeyboardEvent): void => {
    if (total === 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor((at.height - headPx) / rowPx) - 1);
    const from = active ?? view.first - 1;
    const to: { [name: string]: number } = { ArrowDown: from + 1, ArrowUp: from - 1, PageDown: from + page, PageUp: from - page, Home: 0, End: total - 1 };
    const target = to[event.key];
    if (target !== undefined) {
      event.preventDefault();
      show(target);
    } else if (event.key === "Enter" && active !== null && active < total && event.target === scroller.current) {
      event.preventDefault();
      onOpen(keyAt(active));
    }
  };

  const lines = [];
  const drawn: Row[] = [];
  for (let index = view.first; index < view.first + view.shown; index += 1) {
    const name = keyAt(index);
    const row = rows.get(name);
    if (row === undefined) continue;
    drawn.push(row);
    lines.push(
      <Line
        key={name}
        name={name}
        row={row}
        columns={columns}
        index={index}
        id={`${id}-${index}`}
        active={index === active}
        added={source.added.has(name)}
        onOpen={() => {
          // Selecting text is not opening.
          if (getSelection()?.isCollapsed === false) return;
          setActive(index);
          onOpen(name);
        }}
      />,
    );
  }
  digits.current = longest(digits.current, columns, drawn);
  return (
    <div class="grid-frame">
      {beyond > 0 && !cards && (
        <button type="button" class="beyond" onClick={() => scroller.current?.scrollBy({ left: scroller.current.clientWidth / 2 })}>
          {counted(beyond, "more column")} →
        </button>
      )}
      <div
        class={`grid ${cards ? "cards" : ""}`}
        ref={scroller}
        tabIndex={0}
        role="grid"
        aria-label={label}
        aria-rowcount={source.state.more ? -1 : total + 1}
        aria-colcount={columns.length + 1}
        aria-activedescendant={active !== null && active >= view.first && active < view.first + view.shown ? `${id}-${active}` : undefined}
        onScroll={({ currentTarget }) => {
          setAt({ top: currentTarget.scrollTop, height: currentTarget.clientHeight });
          if (currentTarget.scrollLeft !== left.current) setBeyond(columnsBeyond(currentTarget));
          left.current = currentTarget.scrollLeft;
        }}
        onKeyDown={key}
      >
        <div role="presentation" class="area" style={{ height: `${view.height + headPx}px`, ...widths(columns, digits.current) }}>
          <div role="presentation" class="window" style={{ height: `${at.height}px` }}>
            <div class="line head" role="row" aria-rowindex={1}>
              {[{ name: "key", kind: "text" } as Column, ...columns].map(({ name, kind, unit }) => (
                <span role="columnheader" key={name} class={isNumber(kind) ? "number" : ""} aria-sort={sorted(order, name)}>
                  <button type="button" class="plain" onClick={() => onOrder(name)}>
                    {name}
                    {unit && <small> {unit}</small>}
                    <span aria-hidden="true">{arrow(order, name)}</span>
                  </button>
                </span>
              ))}
            </div>
            <div role="presentation" class="lines" style={{ transform: `translateY(${-view.hidden}px)` }}>
              {lines}
            </div>
          </div>
        </div>
      </div>
    </div>
  );
}

/** How many columns are to the right of the visible part. */
function columnsBeyond(element: HTMLElement): number {
  const edge = element.getBoundingClientRect().right;
  return [...element.querySelectorAll(".head > span")].filter((head) => head.getBoundingClientRect().right > edge + 1).length;
}

function sorted(order: string, name: string): "ascending" | "descending" | "none" {
  const [ascending, descending] = [order === name || (name === "key" && order === ""), order === `-${name}`];
  return ascending ? "ascending" : descending ? "descending" : "none";
}

function arrow(order: string, name: string): string {
  return { ascending: " ▲", descending: " ▼", none: "" }[sorted(order, name)];
}

interface LineProps {
  readonly name: string;
  readonly id: string;
  readonly row: Row;
  readonly columns: readonly Column[];
  readonly index: number;
  readonly active: boolean;
  readonly added: boolean;
  readonly onOpen: () => void;
}

/** A row. It is drawn only if it changed, and then its changed cells flash. */
class Line extends Component<LineProps> {
  /** For each column how often its value changed while the row was shown. */
  #changes = new Map<string, number>();

  override shouldComponentUpdate(next: LineProps): boolean {
    const { row, columns, index, active } = this.props;
    return row !== next.row || columns !== next.columns || index !== next.index || active !== next.active;
  }

  override componentWillReceiveProps({ row, columns }: LineProps): void {
    if (row === this.props.row) return;
    for (const { name, kind } of columns) {
      if (cell(kind, row[name]) !== cell(kind, member(this.props.row, name))) {
        this.#changes.set(name, (this.#changes.get(name) ?? 0) + 1);
      }
    }
  }

  override render({ name, id, row, columns, index, active, added, onOpen }: LineProps): JSX.Element {
    const cut = keyText(name);
    return (
      <div class={`line ${added ? "added" : ""} ${active ? "active" : ""}`} role="row" id={id} aria-rowindex={index + 2} onClick={onOpen}>
        <span role="gridcell" class="key" title={cut}>
          {cut}
        </span>
        {columns.map((column, place) => {
          const value = member(row, column.name);
          const text = cell(column.kind, value);
          const changes = this.#changes.get(column.name) ?? 0;
          // The two classes alternate, so that the animation begins again with every change.
          const flash = changes === 0 ? "" : changes % 2 === 0 ? "flash-even" : "flash-odd";
          const kind = value == null ? "none" : isNumber(column.kind) ? "number" : "";
          return (
            <span
              role="gridcell"
              key={column.name}
              class={`${kind} ${flash} ${place < CARD_FIELDS ? "" : "wide-only"}`}
              data-label={column.name}
              title={kind === "number" ? undefined : text}
            >
              {column.kind === "timestamp" ? breakable(text) : text}
            </span>
          );
        })}
      </div>
    );
  }
}

/**
 * A time, with the place marked at which the browser may break the line: between date and time of
 * day. Its text stays the same.
 */
function breakable(text: string): ComponentChildren {
  const at = text.indexOf("T") + 1;
  return at === 0 ? text : [text.slice(0, at), <wbr key="break" />, text.slice(at)];
}

/**
 * A member of the row itself. `row[name]` could also be an inherited member: every object has a
 * `constructor`.
 */
export function member(row: Row, name: string): unknown {
  return Object.hasOwn(row, name) ? row[name] : undefined;
}

/** How many rows there are, in words. */
export function rowsText(shown: number, more: boolean): string {
  return more ? `the first ${count(shown)}` : count(shown);
}
