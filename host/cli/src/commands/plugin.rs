//! Implements `lantern plugin`, which uploads plugins and manages their projections.

use std::path::PathBuf;

use lantern_api::{ProjectionStatus, VersionStatus};

use crate::Global;
use crate::api::Api;
use crate::error::{Exit, Failure, Outcome};
use crate::event_file::read_plugin;
use crate::output;
use crate::text_table::TextTable;

/// The number of digits of a SHA-256 that tables show.
const SHA_DIGITS: usize = 12;

#[derive(clap::Subcommand)]
#[command(after_help = "\
Examples:
  lantern plugin push revenue.wasm --wait
  lantern plugin list
  lantern plugin rollback revenue")]
pub(crate) enum Command {
    /// Check whether a server would accept a plugin, and print its manifest.
    Check(CheckArgs),
    /// Upload a plugin as a new version of its projection.
    Push(super::push::Args),
    /// Print all projections.
    List(ListArgs),
    /// Print a projection's versions, tables and progress.
    Status(StatusArgs),
    /// Print the script or declaration of a version.
    Source(SourceArgs),
    /// Activate another version.
    Activate(ActivateArgs),
    /// Activate the previous version again, at once.
    Rollback(NameArgs),
    /// Stop folding until `resume`; tables stay readable.
    Pause(NameArgs),
    /// Continue folding; a halted projection tries again.
    Resume(NameArgs),
    /// Discard a version's tables and fold the log again.
    Rebuild(RebuildArgs),
    /// Delete a version, or a projection with all its versions.
    Delete(DeleteArgs),
    /// Print the newest messages of a projection's plugin.
    Logs(LogsArgs),
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern plugin check revenue.wasm
  lantern plugin check revenue.wasm --events sample.ndjson      # and is it deterministic?
  lantern plugin check revenue.wasm --parameters '{\"top\":10}' --remote")]
pub(crate) struct CheckArgs {
    /// The plugin: a component or core module, a script (.py, .js, .ts) or a declaration
    /// (.yaml, .json).
    file: PathBuf,
    /// The parameters for the plugin's `setup`: JSON, or the name of a JSON file.
    #[arg(long, value_name = "JSON|FILE")]
    parameters: Option<String>,
    /// Fold these events several times, in different batches and with dropped instances, and
    /// compare the results.
    #[arg(long, value_name = "FILE", conflicts_with = "remote")]
    events: Option<PathBuf>,
    /// Let the server check the plugin, with the server's limits.
    #[arg(long)]
    remote: bool,
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
  lantern plugin activate revenue 3f2a9c0e11d4b7a6
  lantern plugin activate revenue 3f2a9c0e11d4b7a6 --force

The server refuses to activate a version that has parked events which the active version has applied: its tables would lack them. `lantern parked list NAME --version-id ID` shows them.")]
pub(crate) struct ActivateArgs {
    /// The projection.
    name: String,
    /// The version, as `status` shows it.
    version: String,
    /// Activate the version even if it has parked events that the active version has
    /// applied.
    #[arg(long)]
    force: bool,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern plugin source totals > totals.py            # the active version
  lantern plugin source totals 3f2a9c0e11d4b7a6")]
pub(crate) struct SourceArgs {
    /// The projection.
    name: String,
    /// The version; the active one if left out.
    version: Option<String>,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern plugin rebuild revenue                      # the active version
  lantern plugin rebuild revenue 3f2a9c0e11d4b7a6")]
pub(crate) struct RebuildArgs {
    /// The projection.
    name: String,
    /// The version; the active one if left out.
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
    /// The version; the whole projection if left out.
    version: Option<String>,
    /// Do not ask for confirmation.
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
    /// The maximum number of messages.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

/// Runs a subcommand.
pub(crate) async fn run(command: Command, global: &Global) -> Outcome {
    let api = global.api();
    match command {
        Command::Check(args) => check(&args, global).await,
        Command::Push(args) => super::push::run(&args, global).await,
        Command::List(_) => list(&api.projections().await?, global.json),
        Command::Status(args) => {
            status(&api.projection(&args.name).await?, global.json);
            Ok(())
        }
        Command::Activate(args) => activate(&api, &args, global).await,
        Command::Rollback(args) => {
            done(&api, &args.name, "rollback", None, "is back at its previous version", global)
                .await
        }
        Command::Pause(args) => done(&api, &args.name, "pause", None, "is paused", global).await,
        Command::Resume(args) => done(&api, &args.name, "resume", None, "is resumed", global).await,
        Command::Source(args) => {
            let name = &args.name;
            let version = match args.version {
                Some(version) => version,
                None => api.projection(name).await?.active.ok_or_else(|| no_active(name))?,
            };
            output::text(&api.source(name, &version).await?);
            Ok(())
        }
        Command::Rebuild(args) => {
            let name = &args.name;
            let version = match args.version {
                Some(version) => version,
                None => api.projection(name).await?.active.ok_or_else(|| no_active(name))?,
            };
            let answer = api.rebuild(name, &version).await?;
            print_result(&answer, name, Some(&version), "is folded again", global);
            Ok(())
        }
        Command::Delete(args) => delete(&api, &args, global).await,
        Command::Logs(args) => {
            for entry in api.logs(&args.name, args.limit as usize).await? {
                if global.json {
                    output::json(&entry);
                } else {
                    output::line(super::local_host::log_line(&entry));
                }
            }
            Ok(())
        }
    }
}

async fn activate(api: &Api, args: &ActivateArgs, global: &Global) -> Outcome {
    let status = api.activate(&args.name, &args.version, args.force).await?;
    if global.json {
        output::json(&status);
        return Ok(());
    }
    output::line(format!("version {} of `{}` serves readers", args.version, args.name));
    if let Some(version) = status.versions.iter().find(|v| v.id == args.version) {
        super::push::report(version, &args.name);
    }
    Ok(())
}

fn no_active(name: &str) -> Failure {
    Failure::new(Exit::Refused, format!("no version of `{name}` is active"))
        .help(format!("name one of the versions that `lantern plugin status {name}` shows"))
}

async fn check(args: &CheckArgs, global: &Global) -> Outcome {
    let parameters = args.parameters.as_deref().map(super::parameters).transpose()?;
    if args.remote {
        let answer = global.api().check(read_plugin(&args.file)?, parameters.as_deref()).await?;
        if global.json {
            output::json(&answer);
        } else {
            output::line(format!("the server at {} would accept it", global.api().base()));
        }
        return Ok(());
    }
    let (file, json) = (args.file.clone(), global.json);
    let events = args.events.clone();
    let folding = tokio::task::spawn_blocking(move || {
        super::local_host::check(&file, parameters.as_deref(), events.as_deref(), json)
    });
    folding.await.map_err(anyhow::Error::from)?
}

fn list(projections: &[ProjectionStatus], json: bool) -> Outcome {
    if json {
        projections.iter().for_each(output::json);
        return Ok(());
    }
    if projections.is_empty() {
        output::note(json, "no projection yet: `lantern plugin push FILE` creates one");
        return Ok(());
    }
    let mut table = output::table([
        "projection",
        "version",
        "state",
        "doing",
        "folded",
        "lag",
        "failed",
        "waiting",
        "late",
        "differs",
        "tables",
    ]);
    for projection in projections {
        // Prints the active version, and all other versions that are not retired. One of these may
        // still fold the log.
        let shown = projection
            .versions
            .iter()
            .filter(|v| projection.active.as_ref() == Some(&v.id) || v.state != "retired");
        for version in shown {
            let lag: Option<u64> = version.shards.iter().map(|s| s.lag_events).sum();
            let public: Vec<_> = version.tables.iter().filter(|t| t.public).collect();
            let tables: Vec<_> = public.iter().map(|t| t.name.as_str()).collect();
            table.add_row([
                projection.name.clone(),
                version.id.clone(),
                state(version),
                version.activity.clone(),
                format!("{:.1} %", version.percent),
                known(lag),
                output::count(version.parked - version.waiting),
                output::count(version.waiting),
                output::count(version.late),
                if version.differs.is_empty() { "no".into() } else { "yes".into() },
                tables.join(", "),
            ]);
        }
    }
    table.align_right([4, 5, 6, 7, 8]);
    output::line(table.to_string());
    for projection in projections {
        let refused = projection.versions.iter().filter_map(|v| v.not_activated.as_ref());
        refused.for_each(|why| output::line(format!("not activated: {}", output::printable(why))));
        for version in &projection.versions {
            for why in &version.differs {
                let (name, id) = (&projection.name, &version.id);
                let why = output::printable(why);
                output::line(format!("differs from the log: `{name}` version {id}: {why}"));
            }
        }
    }
    Ok(())
}

/// Returns the state of a version, as text.
fn state(version: &VersionStatus) -> String {
    match version.not_activated {
        Some(_) => "not activated".into(),
        None => version.state.clone(),
    }
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
            state(version),
            version.activity,
            version.percent,
            super::push::pace(version)
        ));
        if let Some(why) = &version.not_activated {
            output::line(format!("  not activated  {}", output::printable(why)));
        }
        for why in &version.differs {
            output::line(format!("  differs      {}", output::printable(why)));
        }
        if version.parked > 0 {
            let (failed, waiting) = (version.parked - version.waiting, version.waiting);
            let parked = super::parked::counts(failed, waiting);
            output::line(format!("  parked       {parked} parked"));
        }
        let ahead: u64 = version.shards.iter().map(|shard| shard.ahead).sum();
        if ahead > 0 {
            let events = output::events(ahead);
            output::line(format!(
                "  ahead        {events} too far ahead of their append time to move the watermark"
            ));
        }
        let unsent: u64 = version.shards.iter().map(|shard| shard.unsent).sum();
        if unsent > 0 {
            let events = output::events(unsent);
            output::line(format!("  unsent       {events} emitted, and not in the log yet"));
        }
        if let Some(reason) = &version.reason {
            output::line(format!("  why          {}", output::printable(reason)));
        }
        output::line(format!("  description  {}", output::printable(&version.description)));
        output::line(format!(
            "  plugin       {} (sha256 {sha}…), uploaded {}",
            output::printable(&version.plugin_version),
            output::time_us(version.created_us)
        ));
        if let Some(source) = &version.source {
            let sha = source.sha256.get(..SHA_DIGITS).unwrap_or(&source.sha256);
            let (name, bytes) = (output::printable(&source.name), output::count(source.bytes));
            output::line(format!("  source       {name} ({bytes} bytes, sha256 {sha}…)"));
        }
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

fn shards(version: &VersionStatus) -> TextTable {
    let mut table = output::table([
        "partition",
        "doing",
        "next",
        "lag",
        "lag ms",
        "commits",
        "applied",
        "late",
        "failed",
        "waiting",
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
            output::count(shard.parked - shard.waiting),
            output::count(shard.waiting),
            output::count(shard.timers_fired),
            output::count(shard.emitted),
            shard.watermark_us.map(output::time_us).unwrap_or_default(),
        ]);
    }
    table.align_right([0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    table
}

/// Returns a count as text, or a text for an unknown count.
fn known(count: Option<u64>) -> String {
    count.map_or_else(|| "?".to_owned(), output::count)
}

/// Executes `action` and reports the result. `now` describes the state of the projection after the
/// action.
async fn done(
    api: &Api,
    name: &str,
    action: &str,
    version: Option<&str>,
    now: &str,
    global: &Global,
) -> Outcome {
    let answer = api.act(name, action, version).await?;
    print_result(&answer, name, version, now, global);
    Ok(())
}

fn print_result(
    answer: &serde_json::Value,
    name: &str,
    version: Option<&str>,
    now: &str,
    global: &Global,
) {
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
