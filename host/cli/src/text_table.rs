//! Prints tables for people. A table has columns. If the terminal is too narrow for them, it has
//! one field on each line.

use std::fmt;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use unicode_width::UnicodeWidthStr;

/// The minimum width of a column whose content is wrapped, because narrower columns are hard to
/// read.
const COLUMN_MIN: usize = 14;
/// The width that a column has in addition to its content: two spaces and a border.
const COLUMN_FRAME: usize = 3;

/// A table with a title for each column.
pub(crate) struct TextTable {
    titles: Vec<String>,
    rows: Vec<Vec<String>>,
    right: Vec<usize>,
    width: Option<usize>,
}

impl TextTable {
    /// Creates an empty table for a terminal of `width` columns; `None` if the width is not
    /// limited.
    pub(crate) fn new(titles: Vec<String>, width: Option<usize>) -> Self {
        Self { titles, rows: Vec::new(), right: Vec::new(), width }
    }

    /// Adds a row with one cell per column.
    pub(crate) fn add_row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Aligns the text in these columns to the right.
    pub(crate) fn align_right(&mut self, columns: impl IntoIterator<Item = usize>) {
        self.right.extend(columns);
    }

    /// Returns whether the columns fit on the terminal, with wrapped content if necessary.
    fn fits(&self) -> bool {
        let Some(width) = self.width else { return true };
        let needed = (0..self.titles.len()).map(|column| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let widest = cells.chain([&self.titles[column]]).map(|cell| longest_line(cell));
            widest.max().unwrap_or(0).min(COLUMN_MIN) + COLUMN_FRAME
        });
        needed.sum::<usize>() < width
    }

    fn columns(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        if let Some(width) = self.width {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
        }
        table.set_header(&self.titles);
        table.add_rows(&self.rows);
        for place in &self.right {
            if let Some(column) = table.column_mut(*place) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.to_string()
    }

    /// Returns the table with one field on each line and an empty line between rows, like psql's
    /// expanded display.
    fn expanded(&self, width: usize) -> String {
        let names = self.titles.iter().map(|title| title.width()).max().unwrap_or(0).min(width / 2);
        let indent = " ".repeat((names + 2).min(width / 2));
        let mut lines = Vec::new();
        for (place, row) in self.rows.iter().enumerate() {
            if place > 0 {
                lines.push(String::new());
            }
            for (title, cell) in self.titles.iter().zip(row) {
                let pad = " ".repeat(names.saturating_sub(title.width()));
                let text = format!("{title}{pad}  {}", cell.replace('\n', " "));
                let options = textwrap::Options::new(width).subsequent_indent(&indent);
                lines.extend(
                    textwrap::wrap(text.trim_end(), options).iter().map(ToString::to_string),
                );
            }
        }
        lines.join("\n")
    }
}

impl fmt::Display for TextTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.width {
            Some(width) if !self.fits() => f.write_str(&self.expanded(width)),
            _ => f.write_str(&self.columns()),
        }
    }
}

fn longest_line(cell: &str) -> usize {
    cell.lines().map(UnicodeWidthStr::width).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table_of(columns: usize, width: Option<usize>) -> TextTable {
        let mut grid = TextTable::new((0..columns).map(|n| format!("column {n}")).collect(), width);
        for row in 0..3 {
            grid.add_row((0..columns).map(|n| format!("value {} of row {row}", n * 1_000_000)));
        }
        grid.align_right([1]);
        grid
    }

    #[test]
    fn no_line_of_a_table_is_wider_than_the_terminal() {
        for columns in [1, 2, 4, 8, 12] {
            for width in [20, 40, 60, 80, 120, 200] {
                let text = table_of(columns, Some(width)).to_string();
                let widest = longest_line(&text);
                assert!(widest <= width, "{columns} columns, {width}: {widest}\n{text}");
                assert!(text.contains("row 2"), "{text}");
            }
        }
    }

    #[test]
    fn a_table_too_narrow_for_columns_has_a_line_for_each_field() {
        assert!(table_of(3, Some(120)).to_string().contains('│'));
        let text = table_of(12, Some(60)).to_string();
        assert!(text.starts_with("column 0   value 0 of row 0\ncolumn 1 "), "{text}");
        assert!(table_of(12, None).to_string().contains('│'), "no terminal, no bound");
    }
}
