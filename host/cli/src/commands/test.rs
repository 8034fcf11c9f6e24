//! Implements `lantern test`, which folds a file of events with a plugin, as a server does, and
//! prints the result.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use lantern_api::RawJson;
use lantern_api::feed::Field;
use lantern_core::{KeyRange, TableId, View};
use lantern_engine::{EventList, FoldResult};
use lantern_server::wire;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::local_host;
use crate::Global;
use crate::error::{Exit, Failure, Outcome};
use crate::output;

/// The number of rows that are read at a time.
const PAGE: usize = 1_000;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern test events.ndjson target/wasm32-unknown-unknown/release/my_plugin.wasm
  lantern test flights.ndjson.zst flight_delays.wasm --table by_carrier --all
  lantern test events.ndjson revenue.wasm --parameters '{\"top\":10}' --json | jq .tables
  lantern test events.ndjson totals.py
  lantern test broken.ndjson revenue.wasm --allow-parked
  lantern test a-year.ndjson.zst revenue.wasm --check-events 5000

The whole file is folded twice and compared, the second time in batches of varied
sizes and with instances of the plugin dropped in between.

Exit codes: 1 if an event was parked, or the plugin was halted or is not
deterministic; 5 if the plugin or the events are refused.")]
pub(crate) struct Args {
    /// A file of CloudEvents, one JSON object per line; `-` reads standard input. May
    /// be compressed with zstd or gzip.
    events: PathBuf,
    /// The plugin: a component or core module, a script (.py, .js, .ts) or a declaration
    /// (.yaml, .json).
    plugin: PathBuf,
    /// The parameters for the plugin's `setup`: JSON, or the name of a JSON file.
    #[arg(long, value_name = "JSON|FILE")]
    parameters: Option<String>,
    /// The maximum number of events in one call of the plugin.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch: u32,
    /// Print only this table; it may be a private one.
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
    /// Print this many rows of each table.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    rows: u32,
    /// Print all rows.
    #[arg(long, conflicts_with = "rows")]
    all: bool,
    /// Do not fail if events were parked.
    #[arg(long)]
    allow_parked: bool,
    /// Check determinism with the first EVENTS events only, as an upload does. 0 skips the check.
    /// If left out, the check covers the whole file.
    #[arg(long, value_name = "EVENTS")]
    check_events: Option<u32>,
}

/// A table, as the command prints it.
struct PrintedTable {
    name: String,
    fields: Vec<Field>,
    rows: Vec<(String, RawJson)>,
    more: bool,
}

/// Folds the events, and prints the result.
pub(crate) fn run(args: &Args, global: &Global) -> Outcome {
    let parameters = args.parameters.as_deref().map(super::parameters).transpose()?;
    let host = local_host::LocalHost::new()?;
    let plugin = host.load(&args.plugin, parameters.as_deref(), global.json)?;
    let events = EventList::new(&local_host::read_events(&args.events, global.json)?);
    let manifest = plugin.manifest().clone();
    let wanted = wanted(&manifest, args.table.as_deref())?;
    let start = Instant::now();
    let folded = host.fold(&plugin, &events, args.batch as usize, global.json)?;
    let took = start.elapsed();
    let rows = if args.all || global.json { usize::MAX } else { args.rows as usize };
    let tables = wanted
        .into_iter()
        .map(|table| shown(&folded.view, table, rows))
        .collect::<Outcome<Vec<_>>>()?;
    let checked = match args.check_events {
        Some(first) => host.first_determinism(&plugin, &events, first as usize),
        None => host.determinism(&plugin, &events, &folded, global.json),
    };
    if global.json {
        print_json(&folded, &tables, events.len(), &checked);
    } else {
        output::line(local_host::describe(&manifest));
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let fuel = folded.fuel as f64 / (folded.applied.max(1) as f64);
        output::line(format!(
            "{} events read, {} applied in {:.3} s, {fuel:.0} units of fuel each",
            output::count(events.len() as u64),
            output::count(folded.applied),
            took.as_secs_f64()
        ));
        print(&folded, &tables);
        let warnings = host.warnings(&plugin, &events)?;
        warnings.iter().for_each(|it| output::line(format!("warning: {it}")));
        if let Ok(events @ 1..) = checked {
            output::line(format!(
                "\ndeterministic: {} events gave the same result in every fold",
                output::count(events)
            ));
        }
    }
    verdict(args, &folded, checked)
}

/// Returns the tables that are printed: the named table, or all public tables.
fn wanted(manifest: &lantern_core::Manifest, name: Option<&str>) -> Outcome<Vec<TableId>> {
    let Some(name) = name else {
        return Ok(manifest.public_tables().map(|(id, _)| id).collect());
    };
    match manifest.table(name) {
        Some((id, _)) => Ok(vec![id]),
        None => {
            let names: Vec<_> = manifest.tables.iter().map(|t| t.name.as_str()).collect();
            Err(Failure::new(Exit::NotFound, format!("the plugin has no table `{name}`"))
                .help(format!("it has {}", names.join(", "))))
        }
    }
}

fn shown(view: &View, id: TableId, most: usize) -> Outcome<PrintedTable> {
    let table = &view.manifest().tables[id.0 as usize];
    let mut fields: Vec<Field> = table
        .fields
        .iter()
        .map(|field| Field {
            name: field.name.clone(),
            kind: field.kind.name().to_owned(),
            unit: field.unit.clone(),
        })
        .collect();
    if fields.is_empty() {
        fields.push(Field { name: "value".into(), ..Field::default() });
    }
    let mut rows: Vec<(String, RawJson)> = Vec::new();
    let mut range = KeyRange::all();
    let more = loop {
        let page = view.scan(id, &range, PAGE, false).map_err(anyhow::Error::from)?;
        let Some(last) = page.last() else { break false };
        // The next page begins after the last key of this page.
        range.start = last.key.clone().into_bytes();
        range.start.push(0);
        let ended = page.len() < PAGE;
        rows.extend(page.into_iter().map(|row| (row.key, value(&row.value))));
        if rows.len() > most {
            rows.truncate(most);
            break true;
        }
        if ended {
            break false;
        }
    };
    Ok(PrintedTable { name: table.name.clone(), fields, rows, more })
}

/// Returns the value of a row as JSON. An object is unchanged; everything else becomes the member
/// `value`.
fn value(bytes: &[u8]) -> RawJson {
    let text = String::from_utf8_lossy(bytes);
    match text.trim_ascii_start().as_bytes().first() {
        Some(b'{') => RawJson::new(&text),
        _ if serde_json::from_str::<&RawValue>(&text).is_ok() => {
            RawJson::new(&format!("{{\"value\":{text}}}"))
        }
        _ => RawJson::new(&json!({"value": text}).to_string()),
    }
}

fn print(folded: &FoldResult, tables: &[PrintedTable]) {
    for table in tables {
        let more = if table.more { ", the first of more: --all prints them" } else { "" };
        output::line(format!("\ntable {}: {} rows{more}", table.name, table.rows.len()));
        if !table.rows.is_empty() {
            let rows = table.rows.iter().map(|(key, row)| (key.as_str(), row));
            output::line(super::table::rows(&table.fields, rows));
        }
    }
    if !folded.emitted.is_empty() {
        output::line(format!("\nemitted: {} events", folded.emitted.len()));
        for event in folded.emitted.iter().take(super::local_host::LINES_MAX) {
            output::line(format!(
                "  {}  {:<16}  {:<10}  {}",
                output::time_us(event.time.0),
                output::printable(&event.kind),
                output::printable(&event.subject),
                output::printable(&String::from_utf8_lossy(&event.data))
            ));
        }
    }
    if !folded.logs.is_empty() {
        output::line("\nlogged:");
        for entry in folded.logs.iter().cloned().map(wire::log_line) {
            output::line(local_host::log_line(&entry));
        }
    }
    if !folded.parked.is_empty() {
        let (waiting, failed): (Vec<_>, Vec<_>) = folded
            .parked
            .iter()
            .cloned()
            .map(wire::parked_event)
            .partition(|e| e.kind == "waiting");
        let counts = super::parked::counts(failed.len() as u64, waiting.len() as u64);
        output::line(format!("\n{counts} parked"));
        output::line(local_host::parked_table(&failed).to_string());
    }
}

fn print_json(folded: &FoldResult, tables: &[PrintedTable], events: usize, checked: &Outcome<u64>) {
    let manifest = folded.view.manifest();
    let emitted = folded.emitted.iter().map(|event| Emitted {
        own: json!({
            "cause": event.cause,
            "type": event.kind,
            "subject": event.subject,
            "tenant": event.tenant,
            "time": output::time_us(event.time.0),
        }),
        data: RawJson::new(&String::from_utf8_lossy(&event.data)),
    });
    let rows = |table: &PrintedTable| table.rows.iter().cloned().collect();
    // This part contains texts of the plugin and of events, which are printed unchanged. All texts
    // in `own` are from this program.
    let written = WriteSummary {
        tables: tables.iter().map(|table| (table.name.clone(), rows(table))).collect(),
        emitted: emitted.collect(),
    };
    let own = json!({
        "plugin": {"name": manifest.name, "version": manifest.version},
        "events": events,
        "applied": folded.applied,
        "fuel": folded.fuel,
        "parked": folded.parked.iter().cloned().map(wire::parked_event).collect::<Vec<_>>(),
        "logs": folded.logs.iter().cloned().map(wire::log_line).collect::<Vec<_>>(),
        "halted": folded.halted,
        "checked_events": checked.as_ref().ok(),
        "difference": checked.as_ref().err().map(|failure| failure.message.clone()),
    });
    output::json(&PrintedReport { own, written });
}

/// The object that `--json` prints.
#[derive(Serialize)]
struct PrintedReport {
    #[serde(flatten)]
    own: Value,
    #[serde(flatten)]
    written: WriteSummary,
}

/// What the plugin has written: rows, emitted events and log messages.
#[derive(Serialize)]
struct WriteSummary {
    tables: BTreeMap<String, BTreeMap<String, RawJson>>,
    emitted: Vec<Emitted>,
}

/// An event that the plugin has emitted.
#[derive(Serialize)]
struct Emitted {
    #[serde(flatten)]
    own: Value,
    data: RawJson,
}

fn verdict(args: &Args, folded: &FoldResult, checked: Outcome<u64>) -> Outcome {
    if let Some(reason) = &folded.halted {
        return Err(Failure::new(Exit::Failure, format!("the projection was halted: {reason}"))
            .help("the events after it were not applied"));
    }
    if let Err(mut failure) = checked {
        failure.exit = Exit::Failure;
        return Err(failure);
    }
    if args.allow_parked {
        return Ok(());
    }
    let waiting = folded.parked.iter().filter(|event| event.kind == "waiting").count() as u64;
    local_host::none_parked(folded.parked.len() as u64 - waiting, waiting).map_err(|failure| {
        failure.help("correct the plugin or the events, or accept them with --allow-parked")
    })
}
