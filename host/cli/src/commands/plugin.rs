//! `lantern plugin`: uploads, and what becomes of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lantern_engine::{ProjectionStatus, Uploaded, VersionStatus};

use crate::Global;
use crate::api::{Api, Upload};
use crate::error::{Exit, Failure, Outcome};
use crate::output::{self, Progress};
use crate::source::read_file;

/// How often the state of a backfill is asked for.
const POLL: Duration = Duration::from_millis(500);
/// The digits of a SHA-256 that tables show.
const SHA_DIGITS: usize = 12;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Check a plugin: what it is, and whether a server would take it.
    Check(CheckArgs),
    /// Upload a plugin as a new version of its projection.
    Push(PushArgs),
    /// Print all projections.
    List(ListArgs),
    /// Print a projection's versions, tables and progress.
    Status(StatusArgs),
    /// Have another version serve readers.
    Activate(VersionArgs),
    /// Go back to the version before, at once.
    Rollback(NameArgs),
    /// Stop folding until `resume`.
    Pause(NameArgs),
    /// Go on folding; a halted projection tries again.
    Resume(NameArgs),
    /// Throw a version's tables away and fold the log again.
    Rebuild(RebuildArgs),
    /// Delete a version, or a projection with all its versions.
    Delete(DeleteArgs),
    /// Print the last messages of a projection's plugin.
    Logs(LogsArgs),
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern plugin check revenue.wasm
  lantern plugin check revenue.wasm --events sample.ndjson      # and is it deterministic?
  lantern plugin check revenue.wasm --parameters '{\"top\":10}' --remote")]
pub(crate) struct CheckArgs {
    /// The component, or core module.
    file: PathBuf,
    /// JSON, or a file of it: what the plugin's `setup` is given.
    #[arg(long, value_name = "JSON|FILE")]
    parameters: Option<String>,
    /// Fold these events several times, in other batches and with instances
    /// dropped in between, and compare.
    #[arg(long, value_name = "FILE", conflicts_with = "remote")]
    events: Option<PathBuf>,
    /// Have the server check it, with its limits.
    #[arg(long)]
    remote: bool,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern plugin push revenue.wasm --wait
  lantern plugin push revenue.wasm --name revenue-eu --parameters '{\"region\":\"EU\"}'
  lantern plugin push revenue.wasm --no-activate --wait && lantern plugin activate revenue ID")]
pub(crate) struct PushArgs {
    /// The component, or core module.
    file: PathBuf,
    /// The projection; the plugin's own name where left out.
    #[arg(long)]
    name: Option<String>,
    /// JSON, or a file of it: what the plugin's `setup` is given.
    #[arg(long, value_name = "JSON|FILE")]
    parameters: Option<String>,
    /// Wait until the version has folded the log and serves readers.
    #[arg(long)]
    wait: bool,
    /// Leave the active version in place; `activate` swaps them.
    #[arg(long)]
    no_activate: bool,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern plugin list
  lantern plugin list --json | jq -r .name")]
pub(crate) struct ListArgs {}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern plugin status revenue
  lantern plugin status revenue --json | jq '.versions[] | {id, state, percent}'")]
pub(crate) struct StatusArgs {
    /// The projection.
    name: String,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern plugin rollback revenue
  lantern plugin pause revenue
  lantern plugin resume revenue")]
pub(crate) struct NameArgs {
    /// The projection.
    name: String,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern plugin activate revenue 3f2a9c0e11d4b7a6")]
pub(crate) struct VersionArgs {
    /// The projection.
    name: String,
    /// The version, as `status` shows it.
    version: String,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern plugin rebuild revenue                      # the active version
  lantern plugin rebuild revenue 3f2a9c0e11d4b7a6")]
pub(crate) struct RebuildArgs {
    /// The projection.
    name: String,
    /// The version; the active one where left out.
    version: Option<String>,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern plugin delete revenue 3f2a9c0e11d4b7a6      # one version
  lantern plugin delete revenue --yes                 # the projection")]
pub(crate) struct DeleteArgs {
    /// The projection.
    name: String,
    /// The version; the whole projection where left out.
    version: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern plugin logs revenue
  lantern plugin logs revenue --limit 1000 --json | jq -r 'select(.level==\"error\").message'")]
pub(crate) struct LogsArgs {
    /// The projection.
    name: String,
    /// How many at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

/// Runs one of them.
pub(crate) async fn run(command: Command, global: &Global) -> Outcome {
    let api = global.api();
    match command {
        Command::Check(args) => check(&args, global).await,
        Command::Push(args) => push(&args, global).await,
        Command::List(_) => list(&api.projections().await?, global.json),
        Command::Status(args) => {
            status(&api.projection(&args.name).await?, global.json);
            Ok(())
        }
        Command::Activate(args) => {
            let version = Some(args.version.as_str());
            done(&api, &args.name, "activate", version, "serves readers", global).await
        }
        Command::Rollback(args) => {
            done(&api, &args.name, "rollback", None, "is back at its previous version", global)
                .await
        }
        Command::Pause(args) => done(&api, &args.name, "pause", None, "is paused", global).await,
        Command::Resume(args) => done(&api, &args.name, "resume", None, "goes on", global).await,
        Command::Rebuild(args) => {
            let name = &args.name;
            let version = match args.version {
                Some(version) => version,
                None => api.projection(name).await?.active.ok_or_else(|| no_active(name))?,
            };
            let answer = api.rebuild(name, &version).await?;
            say(&answer, name, Some(&version), "is folded again", global);
            Ok(())
        }
        Command::Delete(args) => delete(&api, &args, global).await,
        Command::Logs(args) => {
            for entry in api.logs(&args.name, args.limit as usize).await? {
                if global.json {
                    output::json(&entry);
                } else {
                    output::line(super::local::log_line(&entry));
                }
            }
            Ok(())
        }
    }
}

fn no_active(name: &str) -> Failure {
    Failure::new(Exit::Refused, format!("no version of `{name}` serves readers"))
        .help(format!("name one of those that `lantern plugin status {name}` shows"))
}

async fn check(args: &CheckArgs, global: &Global) -> Outcome {
    let parameters = args.parameters.as_deref().map(super::parameters).transpose()?;
    if args.remote {
        let answer = global.api().check(read_file(&args.file)?, parameters.as_deref()).await?;
        if global.json {
            output::json(&answer);
        } else {
            output::line(format!("the server at {} would take it", global.api().base()));
        }
        return Ok(());
    }
    let (file, json) = (args.file.clone(), global.json);
    let events = args.events.clone();
    let folding = tokio::task::spawn_blocking(move || {
        super::local::check(&file, parameters.as_deref(), events.as_deref(), json)
    });
    folding.await.map_err(anyhow::Error::from)?
}

async fn push(args: &PushArgs, global: &Global) -> Outcome {
    let api = global.api();
    let wasm = read_file(&args.file)?;
    let bytes = wasm.len() as u64;
    let sent = Arc::new(AtomicU64::new(0));
    let upload = Upload {
        wasm,
        name: args.name.clone(),
        parameters: args.parameters.as_deref().map(super::parameters).transpose()?,
        activate: !args.no_activate,
        sent: Arc::clone(&sent),
    };
    let bar = output::progress(Progress::Bytes(bytes), global.json);
    let mut uploading = std::pin::pin!(api.upload(upload));
    let uploaded = loop {
        tokio::select! {
            uploaded = &mut uploading => break uploaded,
            () = tokio::time::sleep(Duration::from_millis(100)) => {
                let sent = sent.load(Ordering::Relaxed);
                bar.set_position(sent.min(bytes));
                if sent >= bytes {
                    bar.set_message("sent; the server compiles and checks it");
                }
            }
        }
    };
    bar.finish_and_clear();
    let uploaded = uploaded?;
    if !global.json {
        output::line(said(&uploaded));
    }
    if args.wait {
        caught_up(&api, &uploaded, !args.no_activate, global).await?;
    }
    if global.json {
        output::json(&uploaded);
    }
    Ok(())
}

fn said(uploaded: &Uploaded) -> String {
    let Uploaded { projection, version, existed, checked_events } = uploaded;
    if *existed {
        format!("projection `{projection}` has version {version} already: nothing was changed")
    } else if *checked_events == 0 {
        format!("version {version} of projection `{projection}` is in")
    } else {
        format!(
            "version {version} of projection `{projection}` is in: {} events folded the same in every way tried",
            output::count(*checked_events)
        )
    }
}

/// Waits until the version has folded the log, and serves readers where
/// `activate`; shows how far it is meanwhile.
pub(super) async fn caught_up(
    api: &Api,
    uploaded: &Uploaded,
    activate: bool,
    global: &Global,
) -> Outcome {
    let Uploaded { projection, version, .. } = uploaded;
    let bar = output::progress(Progress::PerMille, global.json);
    loop {
        let status = api.projection(projection).await?;
        let Some(now) = status.versions.iter().find(|v| v.id == *version) else {
            let message = format!("version {version} of `{projection}` is gone");
            return Err(Failure::new(Exit::NotFound, message));
        };
        bar.set_position(per_mille(now.percent));
        bar.set_message(pace(now));
        let settled = if activate {
            status.active.as_deref() == Some(version.as_str())
        } else {
            now.state != "backfilling"
        };
        if settled {
            bar.finish_and_clear();
            let is = if activate { "serves readers" } else { "has caught up and waits" };
            output::note(global.json, format!("version {version} of `{projection}` {is}"));
            return Ok(());
        }
        if now.activity == "halted" || status.paused {
            bar.finish_and_clear();
            let why = now.reason.clone().unwrap_or_else(|| "it is paused".into());
            let message = format!("version {version} of `{projection}` stands still: {why}");
            return Err(Failure::new(Exit::Failure, message)
                .help(format!("`lantern plugin resume {projection}` lets it go on")));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn per_mille(percent: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let per_mille = (percent.clamp(0.0, 100.0) * 10.0) as u64;
    per_mille
}

/// How fast a version folds, and how long it still takes.
fn pace(version: &VersionStatus) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
    let per_s = output::count(version.events_per_s.max(0.0) as u64);
    match version.eta_s {
        Some(eta) => format!("{per_s} events/s, {} left", output::seconds(eta)),
        None => format!("{per_s} events/s"),
    }
}

fn list(projections: &[ProjectionStatus], json: bool) -> Outcome {
    if json {
        projections.iter().for_each(output::json);
        return Ok(());
    }
    if projections.is_empty() {
        output::note(json, "no projection yet: `lantern plugin push FILE` makes one");
        return Ok(());
    }
    let mut table = output::table([
        "projection",
        "version",
        "state",
        "doing",
        "folded",
        "lag",
        "parked",
        "tables",
    ]);
    for projection in projections {
        // What is being folded for it shows too: the newest where none is active.
        let shown = projection
            .versions
            .iter()
            .filter(|v| projection.active.as_ref() == Some(&v.id) || v.state == "backfilling");
        for version in shown {
            let lag: Option<u64> = version.shards.iter().map(|s| s.lag_events).sum();
            let parked: u64 = version.shards.iter().map(|s| s.parked).sum();
            let public: Vec<_> = version.tables.iter().filter(|t| t.public).collect();
            let tables: Vec<_> = public.iter().map(|t| t.name.as_str()).collect();
            table.add_row([
                projection.name.clone(),
                version.id.clone(),
                version.state.clone(),
                version.activity.clone(),
                format!("{:.1} %", version.percent),
                known(lag),
                output::count(parked),
                tables.join(", "),
            ]);
        }
    }
    output::align_right(&mut table, [4, 5, 6]);
    output::line(table.to_string());
    Ok(())
}

fn status(projection: &ProjectionStatus, json: bool) {
    if json {
        output::json(projection);
        return;
    }
    let paused = if projection.paused { ", paused" } else { "" };
    output::line(format!("projection {}{paused}", projection.name));
    for version in &projection.versions {
        let sha = version.sha256.get(..SHA_DIGITS).unwrap_or(&version.sha256);
        output::line(format!(
            "\nversion {}  {}, {}  {:.1} %  {}",
            version.id,
            version.state,
            version.activity,
            version.percent,
            pace(version)
        ));
        if let Some(reason) = &version.reason {
            output::line(format!("  why          {}", output::printable(reason)));
        }
        output::line(format!("  description  {}", output::printable(&version.description)));
        output::line(format!(
            "  plugin       {} (sha256 {sha}…), uploaded {}",
            output::printable(&version.plugin_version),
            output::time_us(version.created_us)
        ));
        if !version.parameters.is_empty() {
            output::line(format!("  parameters   {}", output::printable(&version.parameters)));
        }
        output::line(format!("  subscribes   {}", version.subscribes.join(", ")));
        for table in &version.tables {
            let fields: Vec<_> = table.fields.iter().map(|f| f.name.as_str()).collect();
            let fields = if table.public { fields.join(", ") } else { "private".into() };
            output::line(format!("  table        {}: {fields}", table.name));
        }
        output::line(shards(version).to_string());
    }
}

fn shards(version: &VersionStatus) -> comfy_table::Table {
    let mut table = output::table([
        "partition",
        "doing",
        "next",
        "lag",
        "lag ms",
        "commits",
        "applied",
        "late",
        "parked",
        "timers",
        "emitted",
        "watermark",
    ]);
    for shard in &version.shards {
        table.add_row([
            shard.partition.to_string(),
            shard.activity.clone(),
            output::count(shard.next),
            known(shard.lag_events),
            known(shard.lag_ms),
            output::count(shard.commit),
            output::count(shard.applied),
            output::count(shard.late),
            output::count(shard.parked),
            output::count(shard.timers_fired),
            output::count(shard.emitted),
            shard.watermark_us.map(output::time_us).unwrap_or_default(),
        ]);
    }
    output::align_right(&mut table, [0, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    table
}

/// A count, or that it is not known.
fn known(count: Option<u64>) -> String {
    count.map_or_else(|| "?".to_owned(), output::count)
}

/// Does `action` and says that the projection `now` is what it should be.
async fn done(
    api: &Api,
    name: &str,
    action: &str,
    version: Option<&str>,
    now: &str,
    global: &Global,
) -> Outcome {
    let answer = api.act(name, action, version).await?;
    say(&answer, name, version, now, global);
    Ok(())
}

fn say(answer: &serde_json::Value, name: &str, version: Option<&str>, now: &str, global: &Global) {
    match version {
        _ if global.json => output::json(answer),
        Some(version) => output::line(format!("version {version} of `{name}` {now}")),
        None => output::line(format!("projection `{name}` {now}")),
    }
}

async fn delete(api: &Api, args: &DeleteArgs, global: &Global) -> Outcome {
    let what = match &args.version {
        Some(version) => format!("version {version} of `{}`", args.name),
        None => format!("projection `{}` with all its versions and tables", args.name),
    };
    super::confirm(&format!("delete {what}?"), args.yes)?;
    api.delete(&args.name, args.version.as_deref()).await?;
    if global.json {
        output::json(&serde_json::json!({"deleted": args.name, "version": args.version}));
    } else {
        output::line(format!("{what} is gone"));
    }
    Ok(())
}
