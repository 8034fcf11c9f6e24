// The forms in which panes and variables of a board are changed.
import type { JSX } from "preact";
import type { FieldStatus } from "./api-types.js";
import { KINDS, NEW_VARIABLE, type Pane, paneFor, ROWS_MAX, type Variable } from "./board.js";
import { ColumnChoice } from "./grid.js";
import { Dialog } from "./parts.js";
import { Choose } from "./screens/chart.js";
import { Select } from "./select.js";
import { allTables, overview } from "./server.js";

/** The tables that can be chosen, with their fields. */
function offeredTables(): Map<string, readonly FieldStatus[]> {
  return allTables(overview.value.value.data?.projections ?? []);
}

/** A choice of a table. A table that does not exist at the moment stays chosen. */
function TableChoice({ label, value, names, none, change }: { label: string; value: string; names: readonly string[]; none: string; change: (table: string) => void }): JSX.Element {
  return <Select label={label} value={value} options={[["", none], ...new Set([...(value === "" ? [] : [value]), ...names])]} onChange={change} />;
}

const KIND_NAMES: { readonly [kind: string]: string } = { number: "a number", chart: "a chart", table: "rows" };

export function PaneEditor({ pane, change, onClose }: { pane: Pane; change: (by: Partial<Pane>) => void; onClose: () => void }): JSX.Element {
  const all = offeredTables();
  const fields = all.get(pane.table) ?? [];
  const take = (table: string): void => {
    const { agg, time, by, kind } = paneFor(table, all.get(table) ?? []);
    change({ table, agg, time, by, bucket: "", cols: [], order: "", ...(pane.table === "" && { kind }) });
  };
  return (
    <Dialog title="A pane of the board" onClose={onClose}>
      <form
        class="pane-editor"
        onSubmit={(event) => {
          event.preventDefault();
          onClose();
        }}
      >
        <TableChoice label="Table" value={pane.table} names={[...all.keys()]} none="choose one" change={take} />
        <Select label="shows" value={pane.kind} options={KINDS.map((kind) => [kind, KIND_NAMES[kind]!])} onChange={(kind) => change({ kind })} />
        <label>
          Title (optional) <input value={pane.title} autocomplete="off" onInput={({ currentTarget }) => change({ title: currentTarget.value })} />
        </label>
        {pane.kind === "table" ? <RowsOf pane={pane} fields={fields} change={change} /> : <Choose query={pane} fields={fields} go={change} bucket="" single={pane.kind === "number"} />}
        <label>
          Conditions, one a line: <code>cents &gt;= 100</code>, or with a variable <code>product = $product</code>
          <textarea rows={3} spellcheck={false} value={pane.where.join("\n")} onChange={({ currentTarget }) => change({ where: currentTarget.value.split("\n").map((text) => text.trim()).filter((text) => text !== "") })} />
        </label>
        <p class="actions">
          <button type="submit" class="primary">
            Done
          </button>
        </p>
      </form>
    </Dialog>
  );
}

function RowsOf({ pane, fields, change }: { pane: Pane; fields: readonly FieldStatus[]; change: (by: Partial<Pane>) => void }): JSX.Element {
  const byField = fields.flatMap(({ name }) => [name, [`-${name}`, `${name}, the largest first`] as const]);
  return (
    <>
      <Select label="in the order of" value={pane.order} options={[["", "keys"], ["-key", "keys, the last first"], ...byField]} onChange={(order) => change({ order })} />
      <label>
        at most <input type="number" min={1} max={ROWS_MAX} value={pane.limit} onChange={({ currentTarget }) => change({ limit: Number(currentTarget.value) || 1 })} /> rows
      </label>
      <ColumnChoice fields={fields} cols={pane.cols} change={(cols) => change({ cols })} />
    </>
  );
}

/** The variables of a board: conditions of panes name them as `$name`. */
export function VariableEditor({ variables, change }: { variables: readonly Variable[]; change: (variables: readonly Variable[]) => void }): JSX.Element {
  const all = offeredTables();
  const offered = (table: string): string[] => (all.get(table) ?? []).filter(({ kind }) => ["text", "integer", "boolean"].includes(kind)).map(({ name }) => name);
  return (
    <details open={variables.length > 0}>
      <summary>Variables</summary>
      {variables.map((variable, at) => {
        const set = (by: Partial<Variable>): void => change(variables.map((one, index) => (index === at ? { ...one, ...by } : one)));
        return (
          <div class="filters" key={at} role="group" aria-label={`Variable ${at + 1}`}>
            <label>
              $ <input aria-label="Name" value={variable.name} autocomplete="off" spellcheck={false} pattern="[A-Za-z_][A-Za-z0-9_]*" onInput={({ currentTarget }) => set({ name: currentTarget.value.replace(/\W/g, "") })} />
            </label>
            <TableChoice label="with values of" value={variable.table} names={[...all.keys()]} none="any text" change={(table) => set({ table, field: "" })} />
            {variable.table !== "" && <Select label="field" value={variable.field} options={[["", "choose one"], ...offered(variable.table)]} onChange={(field) => set({ field })} />}
            <label>
              at first <input value={variable.value} placeholder="all" autocomplete="off" spellcheck={false} onInput={({ currentTarget }) => set({ value: currentTarget.value })} />
            </label>
            <button type="button" class="plain" aria-label={`Remove variable ${at + 1}`} onClick={() => change(variables.filter((_, index) => index !== at))}>
              ✕
            </button>
          </div>
        );
      })}
      <p class="actions">
        <button type="button" onClick={() => change([...variables, NEW_VARIABLE])}>
          Add a variable
        </button>
      </p>
    </details>
  );
}
