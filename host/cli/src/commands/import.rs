//! Implements `lantern events import`, which sends the events of a file of any size, in pieces.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::lateness::Lateness;
use crate::Global;
use crate::api::Api;
use crate::error::{Exit, Failure, Outcome};
use crate::event_file::{EventFile, FilePart};
use crate::output::{self, Progress};
use crate::sender::{PIECE_BYTES, RateLimiter, Sender, TRIES};

/// The number of pieces that are read before the previous piece has been sent.
const AHEAD: usize = 2;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern events import flights.ndjson.zst
  zcat events.ndjson.gz | lantern events import -
  lantern events import events.ndjson --rate 500/s
  lantern events import events.ndjson --wait          # until the tables contain it
  lantern events import events.ndjson --skip 120000   # continue after an interruption
  lantern events import exported.ndjson --exact       # a whole log into a new folder

It is safe to import a file twice: the log recognizes events by tenant, source and id.

Imported events are late if the log already has newer ones. A projection with event time closes
its windows when the watermark passes their end, and the watermark never goes back; so
windows of the past are closed before the imported events arrive. The import reports
how many events were late for each projection. What to do about it:
  - Import history first, and send new events after it.
  - Give history a log of its own, and push the plugin there:
      lantern serve --data history --listen 127.0.0.1:7421
      lantern events import old.ndjson --server http://127.0.0.1:7421
  - If a projection sums by key and has no windows, late events change nothing.")]
pub(crate) struct Args {
    /// A file of CloudEvents, one JSON object per line, or the output of `lantern
    /// events tail --json`; `-` reads standard input. May be compressed with zstd or
    /// gzip.
    file: PathBuf,
    /// Skip this many lines first.
    #[arg(long, default_value_t = 0, value_name = "LINES")]
    skip: u64,
    /// Stop after this many events.
    #[arg(long, value_name = "EVENTS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Send this many events per second, such as `500/s`.
    #[arg(long, value_parser = super::rate)]
    rate: Option<f64>,
    /// Leave out events that are refused, and continue; then the exit code is 5.
    #[arg(long)]
    partial: bool,
    /// Wait until the tables of all projections contain the imported events.
    #[arg(long)]
    wait: bool,
    /// Append the events of another log exactly as they were, with their append times and the
    /// host's own events. The file is the output of `lantern events tail --json` or `GET
    /// /v1/events?types=*`. The log must be empty and have the same number of partitions as the
    /// other log, and no plugin may be pushed yet.
    #[arg(long, conflicts_with_all = ["partial", "limit", "rate"])]
    exact: bool,
    /// How often a request is retried while the server is busy or unreachable.
    #[arg(long, default_value_t = TRIES, value_parser = clap::value_parser!(u32).range(1..=1000))]
    tries: u32,
}

/// Imports the events, and reports the result.
pub(crate) async fn run(args: Args, global: &Global) -> Outcome {
    let mut source = EventFile::open(&args.file)?;
    let bar =
        output::progress(source.total().map_or(Progress::Endless, Progress::Bytes), global.json);
    let read = source.read_so_far();
    let pace = args.rate.map(RateLimiter::new);
    let events_max = pace.as_ref().map_or(u64::MAX, RateLimiter::piece);
    source.skip_lines(args.skip)?;
    let (pieces, mut ahead) = mpsc::channel(AHEAD);
    let limit = args.limit.unwrap_or(u64::MAX);
    let reader =
        tokio::task::spawn_blocking(move || read_pieces(source, events_max, limit, &pieces));

    let mut sender = Sender::new(global.api(), args.partial, args.tries).exact(args.exact);
    let start = Instant::now();
    let mut lines = args.skip;
    let feeding = feed(&mut ahead, &mut sender, &mut lines, pace, |sent| {
        bar.set_position(read.load(Ordering::Relaxed));
        match sent {
            ImportProgress::Sent(events) => {
                bar.set_message(format!("{} events", output::count(events)))
            }
            ImportProgress::Waits(wait, why) => {
                let why = output::printable(why);
                bar.set_message(format!("waits {:.1} s: {why}", wait.as_secs_f64()));
            }
        }
    });
    let api = global.api();
    // If no server answers, the first request of the import reports this.
    let before = api.projections().await.ok();
    let lateness = before.as_deref().map(Lateness::begin).unwrap_or_default();
    let print = |text: String| bar.suspend(|| output::note(global.json, text));
    let ended = tokio::select! {
        ended = feeding => ended,
        () = lateness.warn(&api, print) => unreachable!("it never ends"),
        _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Interrupted, "interrupted")),
    };
    bar.finish_and_clear();
    drop(ahead);
    let ended = match (ended, reader.await) {
        (Err(failure), _) => Err(failure),
        (Ok(()), Ok(read)) => read,
        (Ok(()), Err(panic)) => Err(anyhow::Error::from(panic).into()),
    };
    let took = start.elapsed();
    let after = match ended {
        Ok(()) => effect(&api, &lateness, args.wait, global).await,
        Err(_) => Ok(Effect::default()),
    };
    if ended.is_ok() || sender.sent.events > 0 {
        let effect = after.as_ref().ok().filter(|_| ended.is_ok());
        summary(&sender, took, effect, global.json);
    }
    let lines = lines + sender.lines_of_failed;
    ended.map_err(|failure| with_place(failure, &args, lines))?;
    after?;
    super::events::refused(sender.sent.rejected, sender.sent.errors)
}

/// What an import has changed for the projections.
#[derive(Debug, Default)]
pub(super) struct Effect {
    /// For each projection, how many of the imported events were late.
    late: BTreeMap<String, u64>,
    /// Whether all projections have applied all imported events.
    applied: bool,
}

/// Finds out what the imported events have changed. With `wait`, the command first waits until the
/// tables contain these events.
async fn effect(api: &Api, lateness: &Lateness, wait: bool, global: &Global) -> Outcome<Effect> {
    let ends = super::lateness::ends(api).await?;
    let now = if wait {
        let bar = output::progress(Progress::Endless, global.json);
        let waiting = super::lateness::wait(api, &ends, |left| bar.set_message(left));
        let now = tokio::select! {
            now = waiting => now,
            _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Interrupted, "interrupted")
                .help("all events are in the log; the projections continue by themselves")),
        };
        bar.finish_and_clear();
        now?
    } else {
        api.projections().await?
    };
    Ok(Effect { late: lateness.since(&now), applied: super::lateness::applied(&now, &ends) })
}

/// What the progress bar of an import shows.
enum ImportProgress<'a> {
    /// The number of events sent so far.
    Sent(u64),
    /// The server is busy or cannot be reached. Contains the time until the next try, and the
    /// reason for the wait.
    Waits(Duration, &'a str),
}

/// Sends the pieces that `ahead` has read from the file, until there are no more. Sets `lines` to
/// the number of lines whose events are in the log.
async fn feed(
    ahead: &mut mpsc::Receiver<FilePart>,
    sender: &mut Sender,
    lines: &mut u64,
    mut pace: Option<RateLimiter>,
    report: impl Fn(ImportProgress<'_>),
) -> Outcome {
    while let Some(piece) = ahead.recv().await {
        if let Some(pace) = &mut pace {
            pace.wait(piece.events).await;
        }
        let (events, first_line) = (piece.events, piece.first_line);
        let in_piece = piece.bytes.iter().filter(|b| **b == b'\n').count() as u64;
        let on_wait = |wait: Duration, why: &str| report(ImportProgress::Waits(wait, why));
        sender.send(piece.bytes.into(), events, first_line, on_wait).await?;
        *lines += in_piece;
        report(ImportProgress::Sent(sender.sent.events));
    }
    Ok(())
}

/// Reads `source` up to its end, or `limit` events, in parallel to the sending.
fn read_pieces(
    mut source: EventFile,
    events_max: u64,
    mut limit: u64,
    pieces: &mpsc::Sender<FilePart>,
) -> Outcome {
    while limit > 0 {
        let Some(piece) = source.piece(PIECE_BYTES, events_max.min(limit))? else { break };
        limit -= piece.events;
        if pieces.blocking_send(piece).is_err() {
            break;
        }
    }
    Ok(())
}

/// Adds the command that continues the import to `failure`.
fn with_place(failure: Failure, args: &Args, lines: u64) -> Failure {
    if failure.help.is_some() && lines == args.skip {
        return failure;
    }
    let file = args.file.display();
    failure.help(format!(
        "everything up to line {lines} is in the log: \
         continue with `lantern events import {file} --skip {lines}`"
    ))
}

/// Reports the result for all events that were sent.
pub(super) fn summary(sender: &Sender, took: Duration, effect: Option<&Effect>, json: bool) {
    let sent = &sender.sent;
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let per_s = sent.events as f64 / took.as_secs_f64().max(1e-9);
    if json {
        let mut value = serde_json::to_value(sent).expect("counts are JSON");
        value["seconds"] = took.as_secs_f64().into();
        value["events_per_s"] = per_s.into();
        if let Some(effect) = effect {
            value["late"] = serde_json::to_value(&effect.late).expect("counts are JSON");
            value["applied_by_all"] = effect.applied.into();
        }
        output::json(&value);
        return;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
    let rate = output::count(per_s as u64);
    output::line(format!(
        "{} in {} ({rate} per second): {} appended, {} duplicates, {} refused",
        output::events(sent.events),
        output::seconds(took.as_secs_f64()),
        output::count(sent.appended),
        output::count(sent.duplicates),
        output::count(sent.rejected),
    ));
    if sent.retries > 0 {
        output::line(format!("{} requests were repeated", output::count(sent.retries)));
    }
    let Some(effect) = effect else { return };
    for (projection, late) in &effect.late {
        output::line(format!(
            "warning: {} {} late for `{projection}`: windows that had closed do not contain late events (see `lantern events import --help`)",
            output::events(*late),
            if *late == 1 { "was" } else { "were" }
        ));
    }
    if !effect.applied {
        output::line(
            "not all projections have applied all events yet: with --wait, the import waits for them",
        );
    }
}
