// Rows of two versions next to each other, with the cells that differ.
import type { JSX } from "preact";
import type { RowDifference } from "./api-types.js";
import { changedCell, columnsOf, type Differences, fieldText, kindOfDifference, type NamedField, type DifferenceKind } from "./differences.js";
import { cell, count, counted, isNumber, keyText } from "./format.js";
import { Fact } from "./parts.js";
import { PlainTable } from "./plain-table.js";

/** Each kind has its own mark, so that its meaning does not depend on colour alone. */
const MARKS: { readonly [kind in DifferenceKind]: string } = { added: "+", gone: "−", changed: "≠" };

interface DifferencesProps {
  readonly of: Differences;
  /** The declared fields of both versions. */
  readonly fields: readonly NamedField[];
  /** The name of the table for assistive technology. */
  readonly label: string;
  /** Whether there is another side. Without one, all rows are new, which needs no mark. */
  readonly sides?: boolean;
}

/** The counts, the declared fields that differ, and the first rows that differ. */
export function DifferencesView({ of, fields, label, sides = true }: DifferencesProps): JSX.Element {
  const { same, added, removed, changed, differences, more } = of;
  return (
    <>
      {sides && (
        <dl aria-label={`Counts: ${label}`}>
          <Fact name="added">{count(added)}</Fact>
          <Fact name="changed">{count(changed)}</Fact>
          <Fact name="gone">{count(removed)}</Fact>
          <Fact name="the same">{count(same)}</Fact>
        </dl>
      )}
      {of.fields.length > 0 && (
        <ul class="inline" aria-label={`Fields that differ: ${label}`}>
          {of.fields.map((field) => (
            <li key={field.name}>
              <span aria-hidden="true">{MARKS[kindOfDifference(field)]}</span> {fieldText(field)}
            </li>
          ))}
        </ul>
      )}
      {differences.length > 0 && <RowsTable rows={differences} fields={fields} label={label} sides={sides} />}
      {more && <p class="soft">The first {counted(differences.length, sides ? "difference" : "row")}, in the order of keys.</p>}
    </>
  );
}

function RowsTable({ rows, fields, label, sides }: { rows: readonly RowDifference[]; fields: readonly NamedField[]; label: string; sides: boolean }): JSX.Element {
  const columns = columnsOf(fields, rows);
  const titles = [...(sides ? ["Row"] : []), "Key", ...columns.map(({ name, kind }) => (isNumber(kind) ? { number: name } : name))];
  return (
    <PlainTable columns={titles} region={label} frameClass="differences">
      {rows.map((row) => (
        <tr key={row.key} class={kindOfDifference(row)}>
          {sides && (
            <td class="nowrap kind">
              <span aria-hidden="true">{MARKS[kindOfDifference(row)]}</span> {kindOfDifference(row)}
            </td>
          )}
          <th scope="row">
            <code>{keyText(row.key)}</code>
          </th>
          {columns.map((field) => (
            <td key={field.name} class={isNumber(field.kind) ? "number" : ""}>
              <Value row={row} field={field} />
            </td>
          ))}
        </tr>
      ))}
    </PlainTable>
  );
}

/** The value of a cell. If it differs, the value before and the value after the change. */
export function Value({ row, field: { name, kind } }: { row: RowDifference; field: NamedField }): JSX.Element {
  if (kindOfDifference(row) !== "changed") return <>{cell(kind, (row.right ?? row.left)?.[name])}</>;
  const found = changedCell(kind, name, row);
  if ("same" in found) return <>{found.same}</>;
  return <Change before={found.before} after={found.after} />;
}

/** A value before and after a change. `null` is no value at all. */
function Change({ before, after }: { before: string | null; after: string | null }): JSX.Element {
  return (
    <span class="change">
      <span class="unseen">was </span>
      {before === null ? <i>no field</i> : <del>{before || <i>empty</i>}</del>}
      <span aria-hidden="true"> → </span>
      <span class="unseen">, is </span>
      {after === null ? <i>no field</i> : <ins>{after || <i>empty</i>}</ins>}
    </span>
  );
}
