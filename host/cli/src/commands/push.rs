//! Implements `lantern plugin push`, which uploads a plugin. With `--wait` it also waits until the
//! new version has folded the log, and reports how many events the version could not apply.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lantern_api::{ProjectionStatus, Uploaded, VersionStatus};

use crate::Global;
use crate::api::{Api, Upload};
use crate::error::{Exit, Failure, Outcome};
use crate::event_file::read_plugin;
use crate::output::{self, Progress};

/// The wait before the first request for the status of a backfill. It is short, so that the command
/// ends soon after a short backfill. Later waits are longer.
const POLL: Duration = Duration::from_millis(20);
/// The longest wait before the status of a backfill is requested again.
const POLL_MAX: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern plugin push revenue.wasm --wait
  lantern plugin push totals.py --wait
  lantern plugin push revenue.wasm --name revenue-eu --parameters '{\"region\":\"EU\"}'
  lantern plugin push revenue.wasm --wait --force
  lantern plugin push totals.py --dry-run            # stores nothing
  lantern plugin push revenue.wasm --no-activate --wait && lantern plugin activate revenue ID

With --wait, the exit code is 1 if the version does not become active: because it is
halted, or because it has parked events that the active version has applied. The active
version then stays active. --force activates the new version even if it has parked events.")]
pub(crate) struct Args {
    /// The plugin: a component or core module, a script (.py, .js, .ts) or a declaration
    /// (.yaml, .json).
    file: PathBuf,
    /// The projection; the plugin's own name if left out.
    #[arg(long)]
    name: Option<String>,
    /// The parameters for the plugin's `setup`: JSON, or the name of a JSON file.
    #[arg(long, value_name = "JSON|FILE")]
    parameters: Option<String>,
    /// Wait until the version has folded the log and is active.
    #[arg(long)]
    wait: bool,
    /// Do not activate the version; `lantern plugin activate` does it later.
    #[arg(long)]
    no_activate: bool,
    /// Activate the version even if it has parked events that the active version has applied. This
    /// also applies to a version that was pushed before and was not activated for that reason.
    #[arg(long, conflicts_with = "no_activate")]
    force: bool,
    /// Store nothing: check the plugin, fold the newest events, and print what the version would
    /// write, compared with the active version.
    #[arg(long, conflicts_with_all = ["wait", "no_activate", "force"])]
    dry_run: bool,
    /// With --dry-run: fold this many of the newest events.
    #[arg(
        long, value_name = "COUNT", default_value_t = 10_000, requires = "dry_run",
        value_parser = clap::value_parser!(u64).range(1..=100_000)
    )]
    events: u64,
}

/// Uploads the plugin, and waits for the version if that was requested.
pub(crate) async fn run(args: &Args, global: &Global) -> Outcome {
    let api = global.api();
    if args.dry_run {
        let parameters = args.parameters.as_deref().map(super::parameters).transpose()?;
        let mut query = vec![("events", args.events.to_string())];
        query.extend(args.name.clone().map(|name| ("name", name)));
        let plugin = read_plugin(&args.file)?;
        let dry = api.dry_run(plugin, parameters.as_deref(), &query).await?;
        return super::dry_run::show(&dry, global);
    }
    let uploaded = upload(args, &api, global).await?;
    if !global.json {
        output::line(said(&uploaded, args.force));
        uploaded.warnings.iter().for_each(|it| output::line(format!("warning: {it}")));
    }
    let caught_up = match args.wait {
        true => caught_up(&api, &uploaded, !args.no_activate, global).await,
        false => Ok(None),
    };
    if global.json {
        let mut value = serde_json::to_value(&uploaded).expect("an upload is JSON");
        // This is also printed if waiting has failed. The error is then printed on standard error.
        if let Ok(Some(version)) = &caught_up {
            value["state"] = version.state.clone().into();
            value["applied"] = applied(version).into();
            value["failed"] = (version.parked - version.waiting).into();
            value["waiting"] = version.waiting.into();
            value["late"] = version.late.into();
        }
        output::json(&value);
    } else if let Ok(Some(version)) = &caught_up {
        report(version, &uploaded.projection);
    }
    caught_up.map(drop)
}

async fn upload(args: &Args, api: &Api, global: &Global) -> Outcome<Uploaded> {
    let plugin = read_plugin(&args.file)?;
    let bytes = plugin.content.len() as u64;
    let sent = Arc::new(AtomicU64::new(0));
    let upload = Upload {
        plugin,
        name: args.name.clone(),
        parameters: args.parameters.as_deref().map(super::parameters).transpose()?,
        activate: !args.no_activate,
        force: args.force,
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
    Ok(uploaded?)
}

fn said(uploaded: &Uploaded, force: bool) -> String {
    let Uploaded { projection, version, existed, checked_events, .. } = uploaded;
    if *existed && force {
        format!("projection `{projection}` has version {version} already")
    } else if *existed {
        format!("projection `{projection}` has version {version} already; nothing was changed")
    } else if *checked_events == 0 {
        format!("uploaded version {version} of projection `{projection}`")
    } else {
        format!(
            "uploaded version {version} of projection `{projection}`; determinism check passed ({} events)",
            output::count(*checked_events)
        )
    }
}

/// Waits until the version has folded the log and, with `activate`, is active. It shows the
/// progress while it waits.
pub(super) async fn caught_up(
    api: &Api,
    uploaded: &Uploaded,
    activate: bool,
    global: &Global,
) -> Outcome<Option<VersionStatus>> {
    let Uploaded { projection, version, .. } = uploaded;
    let bar = output::progress(Progress::PerMille, global.json);
    let mut wait = POLL;
    loop {
        let status = api.projection(projection).await?;
        let Some(now) = status.versions.iter().find(|v| v.id == *version) else {
            let message = format!("version {version} of `{projection}` was deleted");
            return Err(Failure::new(Exit::NotFound, message));
        };
        bar.set_position(output::per_mille(now.percent));
        bar.set_message(pace(now));
        let settled = settled(&status, now, activate);
        if let Some(settled) = settled {
            bar.finish_and_clear();
            settled?;
            let is = if activate { "serves readers" } else { "has caught up and waits" };
            output::note(global.json, format!("version {version} of `{projection}` {is}"));
            return Ok(Some(now.clone()));
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(POLL_MAX);
    }
}

/// Returns the result of waiting for a version; `None` if the wait must continue.
fn settled(status: &ProjectionStatus, now: &VersionStatus, activate: bool) -> Option<Outcome> {
    let (name, id) = (&status.name, &now.id);
    if !activate && now.state != "backfilling" || status.active.as_ref() == Some(id) {
        return Some(Ok(()));
    }
    if let Some(why) = &now.not_activated {
        let failure = Failure::new(Exit::Failure, output::printable(why)).code("LAN-0220");
        return Some(Err(failure.help(format!(
            "`lantern parked list {name} --version-id {id}` shows them; push a corrected version, or activate this one with `lantern plugin activate {name} {id} --force` (`push` takes --force too)"
        ))));
    }
    if now.state == "ready" {
        let message =
            format!("version {id} of `{name}` was not activated: another one was pushed after it");
        return Some(Err(Failure::new(Exit::Failure, message)
            .help(format!("`lantern plugin activate {name} {id}` activates it"))));
    }
    if now.activity == "halted" || status.paused {
        let why = now.reason.clone().unwrap_or_else(|| "it is paused".into());
        let message = format!("version {id} of `{name}` has stopped: {}", output::printable(&why));
        return Some(Err(Failure::new(Exit::Failure, message).help(format!(
            "correct the cause, then continue with `lantern plugin resume {name}`"
        ))));
    }
    None
}

/// Prints how many events a version has applied, and how many it could not apply.
pub(super) fn report(version: &VersionStatus, projection: &str) {
    let mut text = format!("{} applied", output::events(applied(version)));
    if version.late > 0 {
        text.push_str(&format!(", {} of them late", output::count(version.late)));
    }
    output::line(text);
    if version.parked > 0 {
        let parked = super::parked::counts(version.parked - version.waiting, version.waiting);
        let of = if version.state == "active" {
            String::new()
        } else {
            format!(" --version-id {}", version.id)
        };
        output::line(format!("warning: {parked} parked: `lantern parked list {projection}{of}`"));
    }
}

/// Returns the number of events that a version has applied.
pub(super) fn applied(version: &VersionStatus) -> u64 {
    version.shards.iter().map(|shard| shard.applied).sum()
}

/// Returns the speed at which a version folds, and the remaining time, as text.
pub(super) fn pace(version: &VersionStatus) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
    let whole = |rate: f64| output::count(rate.max(0.0).ceil() as u64);
    let per_s = whole(version.events_per_s);
    let behind = version.intake_per_s - version.events_per_s;
    match version.eta_s {
        Some(eta) => format!("{per_s} events/s, {} left", output::seconds(eta)),
        None if behind > 0.0 && version.events_per_s > 0.0 => {
            format!("{per_s} events/s, falls behind by {}/s", whole(behind))
        }
        None => format!("{per_s} events/s"),
    }
}
