//! Defines the options of queries, and the printing of answers that are not rows in key order.

use lantern_api::RawJson;
use lantern_api::feed::Field;

use super::table::{numeric, title};
use crate::api::Api;
use crate::error::Outcome;
use crate::output;
use crate::raw_json::cell;

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A table for people.
    Table,
    /// One JSON object per line, as with `--json`.
    Json,
    /// Comma-separated values.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

impl Format {
    /// The name of the format in a request.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Table | Self::Json => "ndjson",
            Self::Csv => "csv",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
        }
    }
}

/// Filters, columns, order and roll-ups.
#[derive(clap::Args)]
#[command(next_help_heading = "Query")]
pub(crate) struct QueryOptions {
    /// Rows whose field fulfils this condition, such as `cents >= 100` or
    /// `country in DE,FR`; may be given several times.
    #[arg(long = "where", value_name = "CONDITION")]
    conditions: Vec<String>,
    /// Only these fields, separated by commas.
    #[arg(long, value_name = "FIELDS")]
    cols: Option<String>,
    /// Order by this field or column; `-FIELD` begins with the largest value.
    #[arg(long, value_name = "FIELD", allow_hyphen_values = true)]
    order: Option<String>,
    /// The timestamp field to which --start, --end and --bucket refer. If the table has only one
    /// such field, this option may be left out.
    #[arg(long, value_name = "FIELD")]
    time: Option<String>,
    /// Rows at or after this time, such as `2026-03-01` or `2026-03-01T12:00:00Z`.
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// Rows before this time.
    #[arg(long, value_name = "TIME")]
    end: Option<String>,
    /// Group rows by time: a number and `s`, `m`, `h`, `d`, `w`, `mo` or `y`.
    #[arg(long, value_name = "LENGTH")]
    bucket: Option<String>,
    /// Group rows by these fields, separated by commas.
    #[arg(long, value_name = "FIELDS")]
    by: Option<String>,
    /// Aggregates of each group, such as `count(),sum(cents) as revenue,p95(ms)`.
    #[arg(long, value_name = "AGGREGATES")]
    agg: Option<String>,
    /// What buckets without rows contain.
    #[arg(long, value_parser = ["zero", "null", "previous"])]
    fill: Option<String>,
    /// The time zone of buckets and of times without an offset, such as `Europe/Berlin`.
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
}

impl QueryOptions {
    /// Returns the parameters of the request.
    pub(crate) fn parameters(&self) -> Vec<(&'static str, String)> {
        let conditions = self.conditions.iter().map(|text| ("where", text.clone()));
        let others = [
            ("cols", &self.cols),
            ("order", &self.order),
            ("time", &self.time),
            ("start", &self.start),
            ("end", &self.end),
            ("bucket", &self.bucket),
            ("by", &self.by),
            ("agg", &self.agg),
            ("fill", &self.fill),
            ("tz", &self.tz),
        ];
        let others = others.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        conditions.chain(others).collect()
    }

    /// Returns whether the answer is in the order of a field or consists of groups.
    pub(crate) fn is_in_order(&self) -> bool {
        let grouped = self.bucket.is_some() || self.by.is_some() || self.agg.is_some();
        grouped || !matches!(self.order.as_deref(), None | Some("key" | "-key" | "asc" | "desc"))
    }

    /// Returns whether the rows begin with the last key.
    pub(crate) fn is_descending(&self) -> bool {
        matches!(self.order.as_deref(), Some("-key" | "desc"))
    }
}

/// A query, with its table and the maximum number of rows to print.
pub(crate) struct Request<'a> {
    pub(crate) table: (&'a str, &'a str),
    pub(crate) parameters: Vec<(&'static str, String)>,
    /// The maximum number of rows to print.
    pub(crate) rows_max: u64,
    /// The maximum number of rows in a page.
    pub(crate) page_rows: u64,
}

impl Request<'_> {
    /// Returns the parameters of the request for the next page, which has at most `left` rows.
    fn page(&self, left: u64, cursor: Option<String>) -> Vec<(&'static str, String)> {
        let mut parameters = self.parameters.clone();
        parameters.push(("limit", left.min(self.page_rows).to_string()));
        parameters.extend(cursor.map(|cursor| ("cursor", cursor)));
        parameters
    }
}

/// Prints rows in the order of a field, or groups.
pub(crate) async fn in_order(api: &Api, request: &Request<'_>, json: bool) -> Outcome {
    let (mut left, mut cursor, mut rows) = (request.rows_max, None, Vec::new());
    let (fields, commit) = loop {
        let page = api.query_page(request.table, &request.page(left, cursor)).await?;
        left = left.saturating_sub(page.rows.len() as u64);
        cursor = page.next;
        if json {
            page.rows.iter().for_each(output::json);
        } else {
            rows.extend(page.rows);
        }
        if left == 0 || cursor.is_none() {
            break (page.fields, page.commit);
        }
    };
    if json {
        note_more(cursor.is_some(), request.rows_max);
    } else {
        output::line(table(&fields, &rows));
        let more = if cursor.is_some() { "; there are more: use --limit or --all" } else { "" };
        let count = output::count(rows.len() as u64);
        output::note(false, format!("{count} rows at commit {commit}{more}"));
    }
    Ok(())
}

/// If only `limit` rows were printed although there are `more`, reports this on standard error.
/// Otherwise a script would take the printed rows for all rows.
pub(super) fn note_more(more: bool, limit: u64) {
    if more {
        output::error(format!(
            "the first {} rows; there are more: use --limit or --all",
            output::count(limit)
        ));
    }
}

/// Prints rows or groups as CSV.
pub(crate) async fn csv(api: &Api, request: &Request<'_>) -> Outcome {
    let (mut left, mut cursor, mut first) = (request.rows_max, None, true);
    loop {
        let (text, next) = api.csv_page(request.table, &request.page(left, cursor)).await?;
        let page = if first { text.as_str() } else { after_header(&text) };
        output::raw(page.as_bytes());
        left = left.saturating_sub(request.page_rows);
        (cursor, first) = (next, false);
        if left == 0 || cursor.is_none() {
            note_more(cursor.is_some(), request.rows_max);
            return Ok(());
        }
    }
}

/// Returns the lines of `csv` after the first one. The first line has the names of the columns,
/// which contain no line ends.
fn after_header(csv: &str) -> &str {
    csv.split_once("\r\n").map_or("", |(_, rows)| rows)
}

/// Rows or groups under their columns.
pub(super) fn table(fields: &[Field], rows: &[RawJson]) -> String {
    let keyed = rows.first().is_some_and(|row| row.members().contains_key("value"))
        && !fields.iter().any(|field| field.name == "value");
    let titles: Vec<String> = fields.iter().map(title).collect();
    let key = keyed.then_some("key");
    let mut table = output::table(key.into_iter().chain(titles.iter().map(String::as_str)));
    for row in rows {
        let members = row.members();
        let value = members.get("value").map(|value| RawJson::new(value.get()));
        let nested = value.as_ref().filter(|_| keyed).map(RawJson::members);
        let key = keyed.then(|| {
            let tenant = members.get("tenant").map(|tenant| format!("{} · ", cell(Some(tenant))));
            format!("{}{}", tenant.unwrap_or_default(), cell(members.get("key")))
        });
        let values = nested.as_ref().unwrap_or(&members);
        let cells: Vec<String> = fields.iter().map(|field| cell(values.get(&field.name))).collect();
        table.add_row(key.into_iter().chain(cells));
    }
    table.align_right(numeric(fields).map(|place| place + usize::from(keyed)));
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, kind: &str) -> Field {
        Field { name: name.into(), kind: kind.into(), ..Field::default() }
    }

    #[test]
    fn groups_and_rows_stand_under_their_columns() {
        let fields = [field("country", "text"), field("n", "integer")];
        let groups =
            [RawJson::new(r#"{"country":"DE","n":2}"#), RawJson::new(r#"{"country":null,"n":1}"#)];
        let text = table(&fields, &groups);
        assert!(text.contains("country") && text.contains("DE") && !text.contains("key"), "{text}");
        let rows = [RawJson::new(r#"{"tenant":"t","key":"k1","value":{"country":"FR","n":7}}"#)];
        let text = table(&fields, &rows);
        assert!(text.contains("t · k1") && text.contains("FR"), "{text}");
    }

    #[test]
    fn later_pages_of_csv_have_no_header() {
        assert_eq!(after_header("a,b\r\n1,\"x\r\ny\"\r\n"), "1,\"x\r\ny\"\r\n");
        assert_eq!(after_header("a,b"), "");
    }
}
