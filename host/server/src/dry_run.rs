//! Dry runs of uploads: folds the newest events with a plugin and with the active version,
//! and compares their tables.

use std::sync::Arc;

use lantern_api::{CheckResult, DryFold, DryRun, DryTable, RawJson, SampleRange};
use lantern_core::{KeyRange, Plugin, StoreError, TableId, TableSpec, VersionId};
use lantern_engine::{SampleFold, fold_sample, newest_events};

use crate::app::App;
use crate::jobs::replay::Replay;
use crate::plugins::{Checked, Content};
use crate::problem::Problem;
use crate::row_diff::{DiffOptions, RowDiff, field_changes};
use crate::wire;

/// The most parked events and messages of a fold that an answer contains.
const SHOWN_MAX: usize = 100;

/// The most bytes of the events of a sample, which are held in memory.
const SAMPLE_BYTES_MAX: usize = 64 << 20;

/// What to fold, and how much to return.
pub(crate) struct DryRunOptions {
    /// The projection; the name in the manifest if `None`.
    pub(crate) name: Option<String>,
    /// How many events.
    pub(crate) events: usize,
    /// The most differences of each table.
    pub(crate) rows_max: usize,
    /// The most bytes of the rows of each table.
    pub(crate) bytes_max: usize,
}

/// Checks `content` as an upload does, folds the newest events with it and with the active
/// version, and compares the tables. Stores nothing. `progress` is called with the number of folded
/// events, and how much of the folds is done, 0 to 100.
#[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
pub(crate) fn dry_run(
    app: &App,
    content: &Content,
    options: &DryRunOptions,
    mut replay: Replay,
    progress: &mut dyn FnMut(u64, f64),
) -> Result<DryRun, Problem> {
    let (engine, log, config) = (&app.engine, &*app.log, &app.config.engine);
    let (checked, new_plugin) = app.plugins.check(content, log, config)?;
    let projection = engine.check_version(options.name.as_deref(), &checked.manifest)?;
    let active = engine.active_plugin(&projection)?;
    let plugins = [Some(&new_plugin), active.as_ref().map(|(_, plugin)| plugin)];
    let filters = plugins.into_iter().flatten().map(|plugin| plugin.manifest().filter());
    let filters: Vec<_> = filters.collect();
    let sample = newest_events(log, &filters, options.events, SAMPLE_BYTES_MAX)?;
    let folds = if active.is_some() { 2 } else { 1 };
    let offsets = sample.iter().map(|events| events.range().to.0 - events.range().from.0);
    let total = folds * offsets.sum::<u64>();
    let mut folded = 0;
    let mut fold = |plugin: &Arc<dyn Plugin>, version: &VersionId| {
        let before = folded;
        let mut pace = |events: u64| {
            folded = before + events;
            progress(folded, (100.0 * folded as f64 / total.max(1) as f64).min(100.0));
            replay.pace(folded)
        };
        fold_sample(plugin, version, &sample, app.plugins.stores(), config, &mut pace)
    };
    let new = fold(&new_plugin, &checked.version)?;
    let active = match &active {
        Some((version, plugin)) => Some(fold(plugin, version)?),
        None => None,
    };
    let ranges = sample.iter().map(|events| events.range());
    Ok(DryRun {
        projection,
        sample: ranges
            .map(|range| SampleRange {
                partition: range.partition.0,
                from: range.from.0,
                to: range.to.0,
            })
            .collect(),
        events: sample.iter().map(|events| events.len() as u64).sum(),
        tables: tables(&new, active.as_ref(), options)?,
        new: dry_fold(new),
        active: active.map(dry_fold),
        check: check_result(checked),
    })
}

/// The answer to a check.
pub(crate) fn check_result(checked: Checked) -> CheckResult {
    CheckResult {
        ok: true,
        sha256: checked.sha256,
        version: checked.version.0,
        checked_events: checked.events,
        warnings: checked.warnings,
        manifest: RawJson::new(
            &serde_json::to_string(&checked.manifest).expect("a manifest always encodes"),
        ),
    }
}

/// Compares the public tables of the new version with those of the active version.
fn tables(
    new: &SampleFold,
    active: Option<&SampleFold>,
    options: &DryRunOptions,
) -> Result<Vec<DryTable>, Problem> {
    let tables = new.view.manifest().public_tables();
    tables.map(|(id, table)| compared(new, (id, table), active, options)).collect()
}

fn compared(
    new: &SampleFold,
    (id, table): (TableId, &TableSpec),
    active: Option<&SampleFold>,
    options: &DryRunOptions,
) -> Result<DryTable, Problem> {
    let other = active.and_then(|active| {
        let found = active.view.manifest().public_table(&table.name);
        found.map(|(id, table)| (&active.view, id, table))
    });
    let sides = [other.map(|(view, id, _)| (view, id)), Some((&new.view, id))];
    let DryRunOptions { rows_max, bytes_max, .. } = *options;
    let options = DiffOptions { columns: None, rows_max, bytes_max };
    let rows = RowDiff::compare(sides, &KeyRange::all(), &options, || Ok::<_, StoreError>(()))?;
    let RowDiff { same, added, removed, changed, differences, more, .. } = rows;
    let fields = other.map(|(_, _, other)| field_changes(other, table)).unwrap_or_default();
    let name = table.name.clone();
    Ok(DryTable { name, same, added, removed, changed, fields, differences, more })
}

fn dry_fold(it: SampleFold) -> DryFold {
    let first_parked = it.parked.iter().take(SHOWN_MAX).cloned().map(wire::parked_event);
    let version = it.view.version().0.clone();
    let logs = it.logs.into_iter().take(SHOWN_MAX);
    let logs = logs
        .map(|line| wire::log_line(lantern_engine::LogLine { version: version.clone(), ..line }));
    DryFold {
        applied: it.applied,
        emitted: it.emitted,
        parked: it.parked.len() as u64,
        first_parked: first_parked.collect(),
        logs: logs.collect(),
        version,
        halted: it.halted,
        fuel: it.fuel,
    }
}
