//! Implements `lantern table`, which prints rows of public tables, once or each time they change.

use std::collections::BTreeMap;
use std::time::Duration;

use lantern_api::feed::Field;
use lantern_api::{PageField, RawJson, TablePage};
use serde::Serialize;

use super::query::{Format, QueryOptions, Request};
use crate::Global;
use crate::api::Api;
use crate::error::{Exit, Failure, Outcome};
use crate::output;
use crate::raw_json::cell;

/// The number of rows that are requested at a time.
const PAGE: u64 = 1_000;

#[derive(clap::Subcommand)]
#[command(after_help = "\
Examples:
  lantern table scan revenue/by_product
  lantern table watch revenue/by_product")]
pub(crate) enum Command {
    /// Print the row under a key.
    Get(GetArgs),
    /// Print rows in key order.
    Scan(Box<ScanArgs>),
    /// Compare a table in two versions at the same offsets.
    Diff(super::diff::Args),
    /// Show a table live.
    Watch(super::watch::Args),
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern table get revenue/by_product p17
  lantern table get revenue/by_product p17 --json | jq .value.cents
  lantern table get revenue/by_product p17 --min-offset 0:4812 --wait 5s  # read one's own write")]
pub(crate) struct GetArgs {
    /// PROJECTION/TABLE.
    #[arg(value_parser = super::table_name)]
    table: (String, String),
    /// The key.
    key: String,
    /// Only these fields, separated by commas.
    #[arg(long, value_name = "FIELDS")]
    cols: Option<String>,
    /// Wait until the table contains the event at this offset of this partition, in the
    /// form that an append returns.
    #[arg(long, value_name = "PARTITION:OFFSET")]
    min_offset: Option<String>,
    /// Read this version; the active one if left out.
    #[arg(long, value_name = "ID")]
    version_id: Option<String>,
    /// How long to wait for the event of `--min-offset`, such as `5s`; at most 30 seconds.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = super::duration)]
    wait: Duration,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern table scan revenue/by_product
  lantern table scan revenue/by_minute --prefix 2026-01-01T05 --all
  lantern table scan revenue/by_minute --from 2026-01-01T05:00 --to 2026-01-01T06:00 --json
  lantern query revenue/by_product --where 'cents >= 100' --order=-cents --limit 10
  lantern query flights/by_hour --bucket 1d --tz Europe/Berlin --agg 'sum(departures)' --format csv")]
// `lantern query` takes either these arguments or a command, and distinguishes the two by this
// group. A struct with a flattened part would get an empty group from clap.
#[group(args = ["table"])]
pub(crate) struct ScanArgs {
    /// PROJECTION/TABLE.
    #[arg(value_parser = super::table_name)]
    table: (String, String),
    /// Print only keys that begin with this text.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    prefix: Option<String>,
    /// Print only this key and the keys after it.
    #[arg(long, value_name = "KEY")]
    from: Option<String>,
    /// Print only keys before this one.
    #[arg(long, value_name = "KEY")]
    to: Option<String>,
    /// Print at most this many rows.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Print all rows.
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Print rows from the last key to the first.
    #[arg(long, conflicts_with = "order")]
    desc: bool,
    /// Read this version; the active one if left out.
    #[arg(long, value_name = "ID")]
    version_id: Option<String>,
    /// How to print the rows; `json` with --json, `table` otherwise.
    #[arg(long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    query: QueryOptions,
}

/// Runs a subcommand.
pub(crate) async fn run(command: Command, global: &Global) -> Outcome {
    match command {
        Command::Get(args) => get(&args, global).await,
        Command::Scan(args) => scan(&args, global).await,
        Command::Diff(args) => super::diff::run(&args, global).await,
        Command::Watch(args) => super::watch::run(args, global).await,
    }
}

async fn get(args: &GetArgs, global: &Global) -> Outcome {
    let (projection, table) = &args.table;
    let mut query = vec![("key", args.key.clone())];
    query.extend(args.version_id.clone().map(|id| ("version", id)));
    query.extend(args.cols.clone().map(|cols| ("cols", cols)));
    if let Some(offset) = &args.min_offset {
        query.push(("min_offset", offset.clone()));
        query.push(("wait", format!("{}ms", args.wait.as_millis())));
    }
    let page = global.api().rows((projection, table), &query).await?;
    let Some((key, row)) = page.rows.iter().next() else {
        // If the row does not exist, the server answers 404. So a successful answer without the row
        // is an error.
        return Err(Failure::new(Exit::Failure, "the server's answer has no row"));
    };
    if global.json {
        let state = State { epoch: &page.epoch, commit: page.commit, offsets: &page.offsets };
        output::json(&RowLine::new(page.per_tenant, key, row, Some(state)));
    } else {
        let fields = fields(page.fields.clone());
        output::line(rows(&fields, std::iter::once((key.as_str(), row))));
    }
    Ok(())
}

/// Prints the rows or groups of a query.
pub(crate) async fn scan(args: &ScanArgs, global: &Global) -> Outcome {
    let api = global.api();
    let mut query = args.query.parameters();
    let (prefix, from, to) = (&args.prefix, &args.from, &args.to);
    for (name, value) in
        [("prefix", prefix), ("from", from), ("to", to), ("version", &args.version_id)]
    {
        query.extend(value.clone().map(|value| (name, value)));
    }
    if args.desc {
        query.push(("order", "desc".to_owned()));
    }
    let rows_max = if args.all { u64::MAX } else { args.limit };
    let format = args.format.unwrap_or(if global.json { Format::Json } else { Format::Table });
    if matches!(format, Format::Arrow | Format::Parquet) {
        let message = "this format is of `lantern query run`, and of `export=1` over HTTP";
        return Err(Failure::new(Exit::Usage, message));
    }
    let (json, desc) = (format == Format::Json, args.desc || args.query.is_descending());
    if format == Format::Csv || args.query.is_in_order() {
        let table = (args.table.0.as_str(), args.table.1.as_str());
        let request = Request { table, parameters: query, rows_max, page_rows: PAGE };
        return match format {
            Format::Csv => super::query::csv(&api, &request).await,
            _ => super::query::in_order(&api, &request, json).await,
        };
    }
    let mut left = rows_max;
    let (mut all, mut cursor) = (TablePage::default(), None);
    while left > 0 {
        let page = page(&api, &args.table, &query, left.min(PAGE), cursor).await?;
        left = left.saturating_sub(page.rows.len() as u64);
        cursor = page.next;
        if json {
            in_order(&page.rows, desc).for_each(|(key, row)| {
                output::json(&RowLine::new(page.per_tenant, key, row, None));
            });
        } else {
            all.fields = page.fields;
            all.rows.extend(page.rows);
            all.commit = page.commit;
        }
        if cursor.is_none() {
            break;
        }
    }
    if json {
        super::query::note_more(cursor.is_some(), rows_max);
    } else {
        output::line(rows(&fields(all.fields), in_order(&all.rows, desc)));
        let more = if cursor.is_some() { "; there are more: use --limit or --all" } else { "" };
        let count = output::count(all.rows.len() as u64);
        output::note(false, format!("{count} rows at commit {}{more}", all.commit));
    }
    Ok(())
}

async fn page(
    api: &Api,
    table: &(String, String),
    query: &[(&str, String)],
    limit: u64,
    cursor: Option<String>,
) -> Outcome<TablePage> {
    let mut query = query.to_vec();
    query.push(("limit", limit.to_string()));
    query.extend(cursor.map(|cursor| ("cursor", cursor)));
    Ok(api.rows((&table.0, &table.1), &query).await?)
}

/// A row, as it is printed on a line of JSON.
#[derive(Serialize)]
struct RowLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    key: &'a str,
    value: &'a RawJson,
    #[serde(flatten)]
    state: Option<State<'a>>,
}

impl<'a> RowLine<'a> {
    fn new(per_tenant: bool, key: &'a str, value: &'a RawJson, state: Option<State<'a>>) -> Self {
        match key.split_once('\0') {
            Some((tenant, key)) if per_tenant => Self { tenant: Some(tenant), key, value, state },
            _ => Self { tenant: None, key, value, state },
        }
    }
}

/// The state of the table to which a row belongs.
#[derive(Serialize)]
struct State<'a> {
    epoch: &'a str,
    commit: u64,
    offsets: &'a BTreeMap<u32, u64>,
}

/// Returns the rows of a page in the order of their keys, or in reverse order if `desc` is set. The
/// pages of an answer come in the same order.
fn in_order(
    rows: &BTreeMap<String, RawJson>,
    desc: bool,
) -> Box<dyn Iterator<Item = (&str, &RawJson)> + '_> {
    let rows = rows.iter().map(|(key, row)| (key.as_str(), row));
    if desc { Box::new(rows.rev()) } else { Box::new(rows) }
}

pub(super) fn fields(fields: Vec<PageField>) -> Vec<Field> {
    fields.into_iter().map(Field::from).collect()
}

/// Returns a table for people: the key, and then the fields in the order of the manifest.
pub(super) fn rows<'a>(
    fields: &[Field],
    rows: impl Iterator<Item = (&'a str, &'a RawJson)>,
) -> String {
    let titles: Vec<String> = fields.iter().map(title).collect();
    let mut table = output::table(std::iter::once("key").chain(titles.iter().map(String::as_str)));
    for (key, row) in rows {
        let row = row.members();
        let cells = fields.iter().map(|field| cell(row.get(&field.name)));
        // In a per-tenant table, U+0000 separates the tenant from the key.
        let key = output::printable(&key.replace('\0', " · "));
        table.add_row(std::iter::once(key).chain(cells));
    }
    table.align_right(numeric(fields).map(|place| place + 1));
    table.to_string()
}

/// Returns the indexes of those fields that contain numbers.
pub(super) fn numeric(fields: &[Field]) -> impl Iterator<Item = usize> {
    fields
        .iter()
        .enumerate()
        .filter(|(_, field)| matches!(field.kind.as_str(), "integer" | "number"))
        .map(|(place, _)| place)
}

/// Returns the name of a field, with its unit.
pub(super) fn title(field: &Field) -> String {
    match field.unit.as_str() {
        "" => field.name.clone(),
        unit => format!("{} ({unit})", field.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_under_their_fields_with_units() {
        let field = |name: &str, kind: &str, unit: &str| Field {
            name: name.into(),
            kind: kind.into(),
            unit: unit.into(),
        };
        let fields = [field("product", "text", ""), field("cents", "integer", "EUR")];
        let row = RawJson::new(r#"{"cents": 340, "product": "p1", "other": 1}"#);
        let text = rows(&fields, std::iter::once(("p1", &row)));
        assert!(text.contains("cents (EUR)"), "{text}");
        assert!(text.contains("340"), "{text}");
        assert!(!text.contains("other"), "{text}");
    }
}
