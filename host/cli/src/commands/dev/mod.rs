//! Implements `lantern dev`, which runs a server for one plugin that is being developed. Each saved
//! change is built and folded next to the active version. Then the new version is compared with the
//! active one and activated.

mod changes;
mod plan;
mod rows;
mod shop;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lantern_api::{LogLine, ProjectionStatus, Uploaded, VersionStatus};
use lantern_client::Options;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use self::changes::{Changes, Saved};
use self::plan::Plan;
use self::rows::Tables;
use super::project::Project;
use super::{local_host, push, serve, watch};
use crate::Global;
use crate::api::{Api, Upload};
use crate::error::Outcome;
use crate::event_file::{EventFile, read_plugin};
use crate::output;
use crate::sender::{PIECE_BYTES, Sender, TRIES};

/// The interval at which the plugin's log messages are requested.
const LOGS: Duration = Duration::from_millis(500);
/// If an upload takes longer than this, a message explains why.
const LONG_UPLOAD: Duration = Duration::from_secs(2);
/// The number of log messages that are requested at a time.
const LOGS_MAX: usize = 200;
/// The maximum number of reasons for parked events that are printed.
const REASONS_MAX: usize = 5;
/// The number of events for which a saved plugin is checked for determinism. A server checks more,
/// which takes seconds for a script.
const CHECK_EVENTS: u32 = 500;
/// The name of the file with sample events in a project's folder.
const EVENTS: &str = "events.ndjson";

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern dev totals.py
  lantern dev                                  # the project in this folder
  lantern dev totals.py --shop 20/s            # generated events, so that its tables move
  lantern dev totals.py --events shop.ndjson
  lantern dev . --data data --listen 127.0.0.1:8000

It starts a server, sends the sample events, pushes the plugin, and prints its rows, its
messages and the events that it cannot apply. Each time you save the source, it builds the
plugin, folds all events with the new version, prints what the new version changes for
readers, and activates it. Ctrl-C ends it. Without --data, nothing is kept.")]
pub(crate) struct Args {
    /// A script, a declaration, a component, or the folder of a project.
    #[arg(default_value = ".")]
    project: PathBuf,
    /// Sample events, one CloudEvent per line. They are sent again when the file is saved [default:
    /// events.ndjson in the project's folder, if it exists].
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Send this many generated shop events per second, such as `20/s`.
    #[arg(long, value_name = "RATE", value_parser = super::rate)]
    shop: Option<f64>,
    /// The parameters for the plugin's `setup`: JSON, or the name of a JSON file.
    #[arg(long, value_name = "JSON|FILE")]
    parameters: Option<String>,
    /// Activate a version even if it removes fields or tables, or gives them another kind or unit.
    /// Without this option, such a version is built and folded, but the old one stays active.
    #[arg(long)]
    break_clients: bool,
    /// Store the server's data in this folder and keep it for the next start. Without this option,
    /// nothing is kept.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Do not open the page in a browser.
    #[arg(long)]
    no_open: bool,
    #[command(flatten)]
    server: serve::Settings,
}

/// Runs the command until Ctrl-C.
pub(crate) fn run(mut args: Args, global: &Global) -> Outcome {
    let project = Project::find(&args.project)?;
    let sample = project.folder().join(EVENTS);
    args.events = match args.events.take() {
        Some(file) => Some(file.canonicalize().unwrap_or(file)),
        None => Some(sample).filter(|file| file.is_file()),
    };
    args.server.log_warnings_only();
    // The command needs only the interpreter of its plugin.
    args.server.compile_only_when_needed();
    args.server.check_events(CHECK_EVENTS);
    // It takes many seconds to compile an interpreter. The compiled code is kept for later runs.
    if let Some(folder) = super::user_cache().filter(|_| args.data.is_none()) {
        args.server.keep_compiled_in(&folder);
    }
    // The folder is deleted when the command ends.
    let temporary = match args.data {
        None => Some(tempfile::tempdir().map_err(anyhow::Error::from)?),
        Some(_) => None,
    };
    let data = temporary.as_ref().map(|dir| dir.path().to_owned()).or(args.data.clone());
    let json = global.json;
    let settings = &args.server;
    serve::with_server(settings, data.as_deref(), json, async |address| {
        if !args.no_open && !json && output::is_terminal() {
            // If there is no browser, the user finds the address on the terminal.
            let _ = open::that_detached(&address);
        }
        let local = Global { server: address.clone(), json };
        let changes = Changes::watch(&project, args.events.as_deref())?;
        let session = Session {
            api: Api::new(&address),
            args: &args,
            global: local,
            project,
            tables: None,
            logs: Vec::new(),
        };
        tokio::select! {
            ended = session.run(changes) => ended,
            failed = shop::send(Api::new(&address), args.shop) => failed,
        }
    })
}

/// One run of the command, with its server.
struct Session<'a> {
    api: Api,
    args: &'a Args,
    global: Global,
    project: Project,
    /// The tables of the projection that are followed; `None` if no version is active yet.
    tables: Option<Tables>,
    /// The newest messages of the plugin. All of them are printed.
    logs: Vec<LogLine>,
}

impl Session<'_> {
    async fn run(mut self, mut changes: Changes) -> Outcome {
        let events = self.args.events.clone();
        let mut saved = Saved { source: true, events: events.is_some() };
        let mut logs = interval(LOGS);
        logs.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.apply(saved).await;
            saved = loop {
                tokio::select! {
                    saved = changes.saved(&self.project, events.as_deref()) => break saved,
                    update = next(&mut self.tables) => {
                        if let (Some(tables), Some(update)) = (&mut self.tables, update) {
                            tables.print(update);
                        }
                    }
                    _ = logs.tick() => self.print_logs().await,
                }
            };
        }
    }

    /// Sends the events and pushes the plugin, if they were saved. A failure is only printed: the
    /// user can correct the file and save it again.
    async fn apply(&mut self, saved: Saved) {
        let events = self.args.events.clone().filter(|_| saved.events);
        if let Some(events) = events
            && let Err(failure) = self.send(&events).await
        {
            failure.report(self.global.json);
        }
        if saved.source
            && let Err(failure) = self.publish().await
        {
            failure.report(self.global.json);
            self.note("the source is watched; save it to try again");
        }
    }

    /// Sends the events in `file`. Events that the log already has are recognized and not appended
    /// again.
    async fn send(&self, file: &Path) -> Outcome {
        let mut source = EventFile::open(file)?;
        let mut sender = Sender::new(self.api.clone(), false, TRIES);
        while let Some(piece) = source.piece(PIECE_BYTES, u64::MAX)? {
            let (events, first_line) = (piece.events, piece.first_line);
            sender.send(piece.bytes.into(), events, first_line, |_, _| {}).await?;
        }
        self.note(format!(
            "appended {} of `{}`; the log already had {}",
            output::events(sender.sent.appended),
            file.display(),
            output::count(sender.sent.duplicates)
        ));
        Ok(())
    }

    /// Builds the plugin, folds the log with it, and activates it.
    async fn publish(&mut self) -> Outcome {
        let start = Instant::now();
        let project = &self.project;
        let file = tokio::task::block_in_place(|| project.build())?;
        let built = start.elapsed();
        let before = self.active().await?;
        let uploaded = self.upload(&file, before.is_none()).await?;
        let name = &uploaded.projection;
        let before = before.filter(|(status, _)| status.name == *name);
        if before.as_ref().is_some_and(|(_, active)| active.id == uploaded.version) {
            self.note(format!("version {} of `{name}` is active already", uploaded.version));
            return Ok(());
        }
        let now = push::caught_up(&self.api, &uploaded, before.is_none(), &self.global).await?;
        let Some(now) = now else { return Ok(()) };
        let folded = start.elapsed().saturating_sub(built);
        self.note(format!(
            "built in {:.1} s, checked and folded in {:.1} s",
            built.as_secs_f64(),
            folded.as_secs_f64()
        ));
        if let Some((_, active)) = &before
            && !self.replace(name, active, &now).await?
        {
            return Ok(());
        }
        self.print_parked(name, &now).await?;
        self.follow(name, &now).await
    }

    /// Returns the status of the projection that is followed, and of its active version.
    async fn active(&self) -> Outcome<Option<(ProjectionStatus, VersionStatus)>> {
        let Some(tables) = &self.tables else { return Ok(None) };
        let status = self.api.projection(tables.projection()).await?;
        let active = status.versions.iter().find(|v| Some(&v.id) == status.active.as_ref());
        Ok(active.cloned().map(|active| (status, active)))
    }

    async fn upload(&self, file: &Path, activate: bool) -> Outcome<Uploaded> {
        let upload = Upload {
            plugin: read_plugin(file)?,
            name: None,
            parameters: self.args.parameters.as_deref().map(super::parameters).transpose()?,
            activate,
            force: false,
            sent: Arc::default(),
        };
        let mut uploading = std::pin::pin!(self.api.upload(upload));
        tokio::select! {
            uploaded = &mut uploading => return Ok(uploaded?),
            () = tokio::time::sleep(LONG_UPLOAD) => self.note(
                "the server compiles and checks the plugin; the first script in a language takes longest"
            ),
        }
        Ok(uploading.await?)
    }

    /// Prints how the new version `new` differs from `active` for readers, and activates `new`.
    /// Returns whether it was activated.
    async fn replace(
        &self,
        name: &str,
        active: &VersionStatus,
        new: &VersionStatus,
    ) -> Outcome<bool> {
        let plan = Plan::compare(&active.tables, &new.tables);
        // The session of this command itself is not counted.
        let readers = self.api.status().await?.feed_sessions.saturating_sub(1);
        let refused = !plan.breaking.is_empty() && !self.args.break_clients;
        if self.global.json {
            output::json(&json!({
                "plan": {"projection": name, "active": active.id, "new": new.id,
                    "compatible": plan.compatible, "breaking": plan.breaking,
                    "readers": readers, "activated": !refused},
            }));
        } else {
            output::line(format!("plan for `{name}`: {} replaces {}", new.id, active.id));
            for line in plan.compatible.iter().chain(&plan.breaking) {
                output::line(format!("  {line}"));
            }
            if plan == Plan::default() {
                output::line("  the tables keep their fields");
            }
            output::line(format!("  readers of the feed: {readers}"));
        }
        if refused {
            self.note(format!(
                "version {} was not activated: clients of the old version may fail; start with --break-clients to activate such versions, or `lantern plugin activate {name} {} --server {}`",
                new.id, new.id, self.global.server
            ));
            return Ok(false);
        }
        // The activation is forced, because the developer wants to see the effect of the change.
        // Parked events are printed.
        let status = self.api.activate(name, &new.id, true).await?;
        let kept = [status.active.as_ref(), status.previous.as_ref()];
        for old in status.versions.iter().filter(|v| !kept.contains(&Some(&v.id))) {
            self.api.delete(name, Some(&old.id)).await?;
        }
        Ok(true)
    }

    /// Prints how many events were applied, and why other events were parked.
    async fn print_parked(&self, name: &str, version: &VersionStatus) -> Outcome {
        let reasons = match version.parked {
            0 => Vec::new(),
            _ => self.api.parked_summary(name, Some(&version.id)).await?.reasons,
        };
        if self.global.json {
            output::json(&json!({"folded": {
                "projection": name, "version": version.id, "applied": push::applied(version),
                "parked": version.parked, "reasons": reasons,
            }}));
            return Ok(());
        }
        push::report(version, name);
        for reason in reasons.iter().take(REASONS_MAX) {
            output::line(format!(
                "  {} ({}, first at offset {})",
                output::lines(&reason.reason).replace('\n', "\n    "),
                output::events(reason.failed + reason.waiting),
                reason.offset
            ));
        }
        Ok(())
    }

    /// Follows the public tables of `version`.
    async fn follow(&mut self, name: &str, version: &VersionStatus) -> Outcome {
        if self.tables.as_ref().is_none_or(|tables| tables.projection() != name) {
            let client = watch::connect(self.api.base(), Options::default()).await?;
            self.tables = Some(Tables::new(client, name, self.global.json));
        }
        if let Some(tables) = &mut self.tables {
            version.tables.iter().filter(|t| t.public).for_each(|table| tables.follow(&table.name));
        }
        Ok(())
    }

    /// Prints the messages that the plugin has logged since the last call.
    async fn print_logs(&mut self) {
        let Some(tables) = &self.tables else { return };
        // If the messages cannot be read now, the next call prints them.
        let Ok(logs) = self.api.logs(tables.projection(), LOGS_MAX).await else { return };
        let known = self.logs.last().and_then(|last| logs.iter().rposition(|line| line == last));
        for line in logs.iter().skip(known.map_or(0, |known| known + 1)) {
            if self.global.json {
                output::json(&json!({"log": line}));
            } else {
                output::line(local_host::log_line(line));
            }
        }
        self.logs = logs;
    }

    fn note(&self, text: impl AsRef<str>) {
        output::note(self.global.json, text);
    }
}

/// Waits for the next update of a table. It never returns if no table is followed.
async fn next(tables: &mut Option<Tables>) -> Option<rows::Update> {
    match tables {
        Some(tables) => tables.updates.recv().await,
        None => std::future::pending().await,
    }
}
