//! Implements `lantern events`, which sends a few events, imports many, generates some, or prints
//! events of the log.

use std::path::PathBuf;

use lantern_api::{AppendedLocation, EventRejection, LoggedEvent, RawJson};

use crate::Global;
use crate::api::{Api, BATCH, LogQuery, NDJSON, STRUCTURED};
use crate::error::{Exit, Failure, Outcome, Refusal};
use crate::event_file::EventFile;
use crate::output;
use crate::raw_json::cell;

/// The maximum number of bytes that `push` sends. It sends them in one request.
const PUSH_BYTES_MAX: usize = 64 << 20;
/// The number of events that `tail` requests at a time.
const TAIL_PAGE: u64 = 1_000;
/// How long the server may wait for new events before it answers `tail`, in seconds.
const TAIL_WAIT_S: u64 = 20;
/// How many times in a row `tail` repeats a request while the server cannot be reached.
const TAIL_TRIES: u32 = 60;

#[derive(clap::Subcommand)]
#[command(after_help = "\
Examples:
  lantern events push order.json
  lantern events import events.ndjson --wait
  lantern events tail --from start")]
pub(crate) enum Command {
    /// Send one event, a JSON array of events, or a few lines of them, all or none.
    Push(PushArgs),
    /// Send a file of events of any size, one JSON object per line.
    Import(super::import::Args),
    /// Generate events of a web shop; the same seed gives the same events.
    Generate(super::generate::Args),
    /// Print events of the log, and new events when they arrive.
    Tail(TailArgs),
    /// Show what each version of each projection has done with an event.
    Path(super::event_path::Args),
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern events push order.json
  echo '{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"me\",\"type\":\"hello\",\"data\":{\"n\":5}}' \\
    | lantern events push -
  lantern events push events.ndjson --json | jq .events[].offset")]
pub(crate) struct PushArgs {
    /// A file of CloudEvents as JSON; `-` reads standard input. May be
    /// compressed with zstd or gzip.
    file: PathBuf,
    /// Append the valid events even if others are refused.
    #[arg(long)]
    partial: bool,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern events tail                                # the last ten, then new ones
  lantern events tail --from start --type 'order.*' --no-follow
  lantern events tail --from 81000 --limit 5 --json
  lantern events tail --from 2026-11-20T10:00:00Z    # appended since then")]
pub(crate) struct TailArgs {
    /// Where to begin: `start`, `end`, an offset, `-N` for the last N events, or a time (RFC 3339)
    /// for the first event appended at or after that time.
    #[arg(long, default_value = "-10", allow_hyphen_values = true, value_parser = begin)]
    from: Begin,
    /// Only events of these types: exact, by prefix (`order.*`) or `*`.
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// The partition.
    #[arg(long, default_value_t = 0)]
    partition: u32,
    /// Stop after this many events.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Stop at the end of the log.
    #[arg(long)]
    no_follow: bool,
}

/// The place in the log at which `tail` begins.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Begin {
    Start,
    End,
    Last(u64),
    Offset(u64),
    Time(String),
}

fn begin(text: &str) -> Result<Begin, String> {
    let wrong =
        || "give `start`, `end`, an offset, `-N`, or a time such as 2026-11-20T10:00:00Z".into();
    match text {
        "start" => Ok(Begin::Start),
        "end" => Ok(Begin::End),
        _ => match text.strip_prefix('-') {
            Some(last) => last.parse().map(Begin::Last).map_err(|_| wrong()),
            None => match text.parse() {
                Ok(offset) => Ok(Begin::Offset(offset)),
                Err(_) if text.parse::<jiff::Timestamp>().is_ok() => {
                    Ok(Begin::Time(text.to_owned()))
                }
                Err(_) => Err(wrong()),
            },
        },
    }
}

/// Runs a subcommand.
pub(crate) async fn run(command: Command, global: &Global) -> Outcome {
    match command {
        Command::Push(args) => push(&args, global).await,
        Command::Import(args) => super::import::run(args, global).await,
        Command::Generate(args) => super::generate::run(&args, global).await,
        Command::Tail(args) => tail(args, global).await,
        Command::Path(args) => super::event_path::run(&args, global).await,
    }
}

async fn push(args: &PushArgs, global: &Global) -> Outcome {
    let body = EventFile::open(&args.file)?.whole(PUSH_BYTES_MAX)?;
    let media = media(&body);
    let pushed = global.api().push(media, body.into(), args.partial).await?;
    if global.json {
        output::json(&Pushed {
            appended: pushed.appended,
            duplicates: pushed.duplicates,
            rejected: pushed.rejected,
            events: pushed.events.as_deref().unwrap_or_default(),
            errors: &pushed.errors,
        });
    } else {
        for event in pushed.events.iter().flatten() {
            if let AppendedLocation::InLog { partition, offset, duplicate, .. } = event {
                let note = if *duplicate { " (duplicate)" } else { "" };
                output::line(format!("partition {partition} offset {offset}{note}"));
            }
        }
        output::line(format!(
            "{} appended, {} duplicates, {} refused",
            output::count(pushed.appended),
            output::count(pushed.duplicates),
            output::count(pushed.rejected)
        ));
    }
    refused(pushed.rejected, pushed.errors)
}

/// The object that `push --json` prints.
#[derive(serde::Serialize)]
struct Pushed<'a> {
    appended: u64,
    duplicates: u64,
    rejected: u64,
    events: &'a [AppendedLocation],
    errors: &'a [EventRejection],
}

/// Returns an error if events were refused and left out.
pub(super) fn refused(rejected: u64, errors: Vec<EventRejection>) -> Outcome {
    if rejected == 0 {
        return Ok(());
    }
    let detail = match rejected {
        1 => "1 event was refused".to_owned(),
        n => format!("{} events were refused", output::count(n)),
    };
    Err(Refusal { detail, errors, ..Refusal::default() }.into_failure(400))
}

/// Returns the media type of `body`: an array of events, a single event, or one event on each line.
fn media(body: &[u8]) -> &'static str {
    let text = body.trim_ascii_start();
    if text.starts_with(b"[") {
        BATCH
    } else if serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok() {
        STRUCTURED
    } else {
        NDJSON
    }
}

async fn tail(args: TailArgs, global: &Global) -> Outcome {
    let api = global.api();
    let mut query = LogQuery {
        partition: args.partition,
        limit: TAIL_PAGE,
        types: args.types.clone(),
        ..LogQuery::default()
    };
    if global.json && query.types.is_empty() {
        // All types are requested, including those of host events. So the output can be imported
        // unchanged.
        query.types.push("*".into());
    }
    place(&api, &args.from, &mut query).await?;
    let mut left = args.limit.unwrap_or(u64::MAX);
    let (mut tries, mut said) = (0, false);
    while left > 0 {
        query.limit = TAIL_PAGE.min(left);
        query.wait_s = if args.no_follow { 0 } else { TAIL_WAIT_S };
        let page = match api.events(&query).await {
            Ok(page) => page,
            // If the first request fails, the command ends, because the address may be wrong. If a
            // later request fails, it is repeated, so `tail` continues after a restart of the
            // server.
            Err(error)
                if tries < TAIL_TRIES && query.time.is_none() && error.passing().is_some() =>
            {
                if tries == 0 {
                    output::note(global.json, Failure::from(error).message);
                }
                tries += 1;
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        tries = 0;
        if global.json && page.decisions > 0 && !said {
            said = true;
            output::error(format!(
                "the export does not contain {} retries and drops of parked events: another server that folds it may get different tables",
                output::count(page.decisions)
            ));
        }
        for event in &page.events {
            show(event, args.partition, global.json);
        }
        left = left.saturating_sub(page.events.len() as u64);
        query.time = None;
        query.from = Some(page.next);
        if args.no_follow && page.next >= page.end {
            break;
        }
    }
    Ok(())
}

/// Sets the offset or the time in `query` to what `from` says.
async fn place(api: &Api, from: &Begin, query: &mut LogQuery) -> Outcome {
    match from {
        Begin::Offset(offset) => query.from = Some(*offset),
        Begin::Time(time) => query.time = Some(time.clone()),
        Begin::Start | Begin::End | Begin::Last(_) => {
            let look = LogQuery { partition: query.partition, limit: 1, ..LogQuery::default() };
            let bounds = api.events(&look).await?;
            query.from = Some(match from {
                Begin::Last(count) => bounds.end.saturating_sub(*count).max(bounds.start),
                Begin::End => bounds.end,
                _ => bounds.start,
            });
        }
    }
    if query.limit == 0 {
        return Err(Failure::new(Exit::Usage, "`--limit 0` requests no events: give at least 1"));
    }
    Ok(())
}

/// An event, as `tail --json` prints it on a line.
#[derive(serde::Serialize)]
struct Logged<'a> {
    partition: u32,
    offset: u64,
    event: &'a RawJson,
}

fn show(logged: &LoggedEvent, partition: u32, json: bool) {
    if json {
        let LoggedEvent { offset, event, .. } = logged;
        output::json(&Logged { partition, offset: *offset, event });
        return;
    }
    let event = logged.event.members();
    let text = |name: &str| cell(event.get(name));
    let data = event.get("data").or_else(|| event.get("data_base64"));
    output::data(format!(
        "{:>9}  {:<24}  {:<18}  {:<10}  {}",
        logged.offset,
        text("time"),
        text("type"),
        text("subject"),
        cell(data)
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_recognized_by_its_content() {
        assert_eq!(media(b" [{}]"), BATCH);
        assert_eq!(media(b"{\n \"id\": 1}\n"), STRUCTURED);
        assert_eq!(media(b"{\"id\":1}\n{\"id\":2}\n"), NDJSON);
        assert_eq!(media(b"oops"), NDJSON);
    }

    #[test]
    fn the_start_position_is_parsed_from_text() {
        assert_eq!(begin("start"), Ok(Begin::Start));
        assert_eq!(begin("-3"), Ok(Begin::Last(3)));
        assert_eq!(begin("7"), Ok(Begin::Offset(7)));
        let time = "2026-11-20T10:00:00Z";
        assert_eq!(begin(time), Ok(Begin::Time(time.into())));
        assert!(begin("soon").is_err());
        assert!(begin("-x").is_err());
    }
}
