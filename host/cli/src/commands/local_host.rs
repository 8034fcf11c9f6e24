//! Folds events with a plugin, but without a server. It uses the plugin host, the engine and the
//! store of a server, with a state that is only in memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lantern_api::{LogLine, ParkedStatus};
use lantern_core::{Events, Manifest, Offset, PartitionId, Plugin, Timestamp};
use lantern_engine::{
    EngineConfig, EngineError, EventList, FoldOptions, FoldResult, determinism, fold, fold_again,
    sample, sample_warnings,
};
use lantern_plugin::{LoadError, PluginConfig, PluginHost};
use lantern_server::ServerConfig;
use lantern_server::cloudevents::{EventLimits, Reader};
use lantern_store::{StateDir, StoreConfig};
use serde_json::json;

use super::parked::short;
use crate::api::PluginFile;
use crate::error::{Exit, Failure, Outcome};
use crate::event_file::{EventFile, read_plugin};
use crate::output::{self, Progress};
use crate::text_table::TextTable;

/// The maximum number of lines of each kind that are printed for people.
pub(super) const LINES_MAX: usize = 50;
/// The maximum number of invalid lines of a file that are reported.
const WRONG_MAX: usize = 10;
/// The number of bytes that are read from a file at a time.
const PIECE_BYTES: usize = 1 << 20;
/// The maximum number of bytes of events in memory.
const EVENTS_BYTES_MAX: usize = 2 << 30;
/// The number of events at the beginning of a file that are also folded one by one. To fold a whole
/// file one by one would take too long.
const FIRST_EVENTS: usize = 5_000;
/// The number of events in one call when a file is folded only to find the events that would be
/// parked.
const CHECK_BATCH: usize = 1_000;

/// What is needed to fold events without a server: a plugin host, the settings of an engine, and a
/// store.
pub(super) struct LocalHost {
    host: PluginHost,
    config: EngineConfig,
    stores: StateDir,
    // When this is dropped, the folder is deleted with its content.
    _dir: tempfile::TempDir,
}

impl LocalHost {
    /// Creates the host, with a temporary folder for the store, and with the settings of a
    /// server that starts in the current folder.
    pub(super) fn new() -> Outcome<Self> {
        let dir = tempfile::tempdir().map_err(anyhow::Error::from)?;
        let stores =
            StateDir::open(dir.path(), StoreConfig::default()).map_err(anyhow::Error::from)?;
        let ServerConfig { plugin, engine, .. } = ServerConfig::load(None, &[])
            .map_err(|error| Failure::new(Exit::Refused, error.to_string()).code("LAN-0001"))?;
        let cache_dir = plugin.cache_dir.clone().or_else(super::user_cache);
        let host = PluginHost::new(PluginConfig { cache_dir, ..plugin });
        Ok(Self { host: host.map_err(anyhow::Error::from)?, config: engine, stores, _dir: dir })
    }

    /// Compiles the plugin in the file `file`.
    pub(super) fn load(
        &self,
        file: &Path,
        parameters: Option<&str>,
        json: bool,
    ) -> Outcome<Arc<dyn Plugin>> {
        let plugin = read_plugin(file)?;
        let bar = output::progress(Progress::Endless, json);
        bar.set_message("compiling the plugin");
        let loaded = self.load_file(&plugin, parameters.unwrap_or_default());
        bar.finish_and_clear();
        loaded.map_err(|error| {
            let mut failure = Failure::new(Exit::Refused, error.to_string())
                .code(error.code())
                .help(error.help());
            failure.details = error.backtrace().lines().map(output::printable).collect();
            failure
        })
    }

    fn load_file(&self, file: &PluginFile, parameters: &str) -> Result<Arc<dyn Plugin>, LoadError> {
        let Some(name) = &file.source_name else {
            return self.host.load(&file.content, parameters);
        };
        let source = lantern_plugin::source(name, &file.content)?;
        self.host.load_with(&self.host.interpreter_for(&source)?, parameters, Some(&source))
    }

    /// Folds `events` in batches of at most `batch` events.
    pub(super) fn fold(
        &self,
        plugin: &Arc<dyn Plugin>,
        events: &EventList,
        batch: usize,
        as_json: bool,
    ) -> Outcome<FoldResult> {
        let bar = output::progress(Progress::Events(events.len() as u64), as_json);
        bar.set_message("folding the file");
        let mut show = |next: Offset| bar.set_position(next.0);
        let options = FoldOptions::batches_of(batch);
        let (stores, config) = (&self.stores, &self.config);
        let folded = fold(plugin, events, PartitionId(0), stores, config, options, &mut show);
        bar.finish_and_clear();
        folded.map_err(failed)
    }

    /// Folds the first `most` of `events` in several ways, and compares the results. Returns the
    /// number of events compared.
    pub(super) fn first_determinism(
        &self,
        plugin: &Arc<dyn Plugin>,
        events: &EventList,
        most: usize,
    ) -> Outcome<u64> {
        if most == 0 {
            return Ok(0);
        }
        let config = EngineConfig { check_events: most, ..self.config.clone() };
        let sample = sample(plugin.manifest(), events, &config).map_err(failed)?;
        determinism(plugin, &sample, &self.stores, &config).map_err(failed)
    }

    /// Returns the warnings that an upload would return: it compares the first of `events` with
    /// `manifest`.
    pub(super) fn warnings(
        &self,
        plugin: &Arc<dyn Plugin>,
        events: &EventList,
    ) -> Outcome<Vec<String>> {
        let sample = sample(plugin.manifest(), events, &self.config).map_err(failed)?;
        Ok(sample_warnings(plugin.manifest(), &sample))
    }

    /// Folds all `events` again in batches of varied sizes and with dropped instances. It also
    /// folds the first events one by one. Both results are compared with `first`. Returns the
    /// number of events compared.
    pub(super) fn determinism(
        &self,
        plugin: &Arc<dyn Plugin>,
        events: &EventList,
        first: &FoldResult,
        as_json: bool,
    ) -> Outcome<u64> {
        self.first_determinism(plugin, events, FIRST_EVENTS)?;
        let bar = output::progress(Progress::Events(events.len() as u64), as_json);
        bar.set_message("checks determinism");
        let mut show = |next: Offset| bar.set_position(next.0);
        let same = fold_again(plugin, events, first, &self.stores, &self.config, &mut show);
        bar.finish_and_clear();
        same.map_err(failed)?;
        Ok(events.len() as u64)
    }
}

/// Converts an error of the engine to a failure of the command.
fn failed(error: EngineError) -> Failure {
    refused(error.code(), error.to_string())
}

/// Returns the failure of the command for an error with the code `code`, with the help text of this
/// code.
fn refused(code: &'static str, message: String) -> Failure {
    let failure = Failure::new(Exit::Refused, message).code(code);
    match lantern_server::find_code(code) {
        Some(known) => failure.help(known.help),
        None => failure,
    }
}

/// Reads all events in `file`. Returns an error if a line is invalid.
pub(super) fn read_events(file: &Path, as_json: bool) -> Outcome<Events> {
    let mut source = EventFile::open(file)?;
    let bar = output::progress(source.total().map_or(Progress::Endless, Progress::Bytes), as_json);
    let read = source.read_so_far();
    let mut reader = Reader::new(EventLimits::default(), now());
    let mut events = Events::new();
    let mut wrong = Vec::new();
    let mut count = 0_u64;
    while let Some(piece) = source.piece(PIECE_BYTES, u64::MAX)? {
        reader.lines(&piece.bytes, piece.first_line, &mut events, |line| {
            count += 1;
            if wrong.len() < WRONG_MAX {
                wrong.push(format!("line {}: {} ({})", line.line, line.error, line.error.code()));
            }
            true
        });
        if events.bytes() > EVENTS_BYTES_MAX {
            let message =
                format!("the file holds more than {} GiB of events", EVENTS_BYTES_MAX >> 30);
            return Err(Failure::new(Exit::Refused, message)
                .help("test with a part of the file, or push the plugin to a server"));
        }
        bar.set_position(read.load(Ordering::Relaxed));
    }
    bar.finish_and_clear();
    if count > 0 {
        let message = format!("{} lines of `{}` are not events", count, file.display());
        let mut failure = Failure::new(Exit::Refused, message)
            .help("a line holds one CloudEvents 1.0 object, as `lantern events generate --to -` prints them");
        failure.details = wrong;
        return Err(failure);
    }
    events.fill_times(now());
    Ok(events)
}

fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_microsecond())
}

/// Runs `lantern plugin check` without a server.
pub(super) fn check(
    file: &Path,
    parameters: Option<&str>,
    events: Option<&Path>,
    as_json: bool,
) -> Outcome {
    let host = LocalHost::new()?;
    let plugin = host.load(file, parameters, as_json)?;
    let (checked, parked, warnings) = match events {
        Some(events) => {
            let events = EventList::new(&read_events(events, as_json)?);
            let folded = host.fold(&plugin, &events, CHECK_BATCH, as_json)?;
            let checked = host.determinism(&plugin, &events, &folded, as_json)?;
            (checked, folded.parked, host.warnings(&plugin, &events)?)
        }
        None => (0, Vec::new(), Vec::new()),
    };
    let waiting = parked.iter().filter(|event| event.kind == "waiting").count() as u64;
    let failed = parked.len() as u64 - waiting;
    let manifest = plugin.manifest();
    if as_json {
        output::json(&json!({
            "manifest": manifest, "checked_events": checked, "failed": failed, "waiting": waiting,
            "warnings": warnings,
        }));
        return none_parked(failed, waiting);
    }
    output::line(describe(manifest));
    output::line(format!("subscribes to {}", manifest.subscribes.join(", ")));
    for table in &manifest.tables {
        let fields: Vec<_> = table.fields.iter().map(|field| field.name.as_str()).collect();
        let kind = if table.public { fields.join(", ") } else { "private".into() };
        output::line(format!("table {}: {kind}", table.name));
    }
    if !manifest.emits.is_empty() {
        output::line(format!("emits {}", manifest.emits.join(", ")));
    }
    warnings.iter().for_each(|it| output::line(format!("warning: {it}")));
    if checked > 0 {
        output::line(format!(
            "deterministic: {} events gave the same result in every fold",
            output::count(checked)
        ));
    } else {
        output::line("not checked for determinism: give --events FILE");
    }
    none_parked(failed, waiting)
}

/// Returns an error if events could not be applied.
pub(super) fn none_parked(failed: u64, waiting: u64) -> Outcome {
    if failed + waiting == 0 {
        return Ok(());
    }
    let parked = super::parked::counts(failed, waiting);
    Err(Failure::new(Exit::Failure, format!("{parked} parked"))
        .help("`lantern test EVENTS PLUGIN` shows why; correct the plugin or the events"))
}

/// Returns the name, the version and the description of a plugin, as text.
pub(super) fn describe(manifest: &Manifest) -> String {
    output::printable(&format!("{} {}: {}", manifest.name, manifest.version, manifest.description))
}

/// Returns a table with one row for each parked event.
pub(super) fn parked_table(parked: &[ParkedStatus]) -> TextTable {
    let mut table = output::table([
        "partition",
        "offset",
        "kind",
        "type",
        "tenant",
        "subject",
        "id",
        "tried",
        "reason",
    ]);
    for event in parked {
        table.add_row([
            event.partition.to_string(),
            event.offset.to_string(),
            event.kind.clone(),
            output::printable(&event.event_type),
            short(&event.tenant),
            short(&event.subject),
            short(&event.id),
            event.attempts.to_string(),
            output::printable(&event.reason),
        ]);
    }
    table.align_right([0, 1, 7]);
    table
}

/// Returns a message of a plugin, as text on one line.
pub(super) fn log_line(entry: &LogLine) -> String {
    let time = if entry.time_us == 0 { String::new() } else { output::time_us(entry.time_us) };
    format!(
        "{time}  offset {:<8}  {:<5}  {}",
        entry.offset,
        entry.level,
        output::printable(&entry.message)
    )
    .trim_start()
    .to_owned()
}
