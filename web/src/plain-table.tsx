// A table of text and numbers.
import type { ComponentChildren, JSX } from "preact";

interface PlainTableProps {
  /** The titles of the columns. `{ number: title }` is a column of numbers, aligned to the right. */
  readonly columns: readonly (string | { readonly number: string })[];
  /** The name of the frame in which a wide table scrolls. Without a name there is no frame. */
  readonly region?: string;
  /** Further classes of the frame. */
  readonly frameClass?: string;
  /** The rows. */
  readonly children: ComponentChildren;
}

export function PlainTable({ columns, region, frameClass = "", children }: PlainTableProps): JSX.Element {
  const table = (
    <table class="plain">
      <thead>
        <tr>
          {columns.map((column, at) =>
            typeof column === "string" ? (
              <th scope="col" key={at}>
                {column}
              </th>
            ) : (
              <th scope="col" class="number" key={at}>
                {column.number}
              </th>
            ),
          )}
        </tr>
      </thead>
      <tbody>{children}</tbody>
    </table>
  );
  if (region === undefined) return table;
  return (
    <div class={`scroll ${frameClass}`} tabIndex={0} role="region" aria-label={region}>
      {table}
    </div>
  );
}
