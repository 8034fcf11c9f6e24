//! Implements `lantern events generate`, which generates the events of an invented shop.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lantern_cli::generate::{LINE_BYTES, Options, Shop};
use lantern_core::Timestamp;

use crate::Global;
use crate::error::{Exit, Failure, Outcome};
use crate::output::{self, Progress};
use crate::sender::{PIECE_BYTES, RateLimiter, Sender, TRIES};

/// The number of bytes that are written to a file at a time.
const WRITE_BYTES: usize = 1 << 20;
/// The longest span of event time that can be requested.
const SPAN_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern events generate --events 10000                       # to the server
  lantern events generate --events 5000000 --to events.ndjson
  lantern events generate --events 1000000 --to events.ndjson.zst --seed 7
  lantern events generate --rate 50/s --start now --events 100000
  lantern events generate --events 3 --to - | jq .data

The same seed, events, start and span give the same bytes, everywhere.")]
pub(crate) struct Args {
    /// The number of events.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    events: u64,
    /// The seed; another seed gives other events.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to write: a file (compressed if its name ends in `.zst`), or `-` for standard output.
    /// If left out, the events are sent to the server.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Events per second, such as `500/s`; as fast as possible if left out.
    #[arg(long, value_parser = super::rate)]
    rate: Option<f64>,
    /// The first event's time, RFC 3339, or `now`.
    #[arg(long, value_name = "TIME", default_value = "2026-01-01T00:00:00Z", value_parser = start)]
    start: Start,
    /// The span of event time over which the events are spread, such as `6h`, `14d` or `1 week`. If
    /// left out, the span is six hours. With `--rate` and `--start now`, the span is the time that
    /// sending takes.
    #[arg(long, value_parser = span)]
    span: Option<Duration>,
    /// Skip this many events of the sequence.
    #[arg(long, default_value_t = 0, value_name = "EVENTS")]
    skip: u64,
    /// How often a request is retried while the server is busy or unreachable.
    #[arg(long, default_value_t = TRIES, value_parser = clap::value_parser!(u32).range(1..=1000))]
    tries: u32,
}

/// The time of the first event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start {
    time: Timestamp,
    /// Whether this is the current time.
    now: bool,
}

fn start(text: &str) -> Result<Start, String> {
    let now = text == "now";
    let time = if now {
        jiff::Timestamp::now()
    } else {
        text.parse().map_err(|_| "give `now` or a time such as 2026-01-01T00:00:00Z".to_owned())?
    };
    Ok(Start { time: Timestamp(time.as_millisecond() * 1000), now })
}

fn span(text: &str) -> Result<Duration, String> {
    match super::duration(text)? {
        span if span <= SPAN_MAX => Ok(span),
        _ => Err("give at most 36600 days".into()),
    }
}

impl Args {
    fn shop(&self) -> Shop {
        let live = self.rate.filter(|_| self.start.now);
        let span_ms = match (self.span, live) {
            (Some(span), _) => u64::try_from(span.as_millis()).unwrap_or(u64::MAX),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a span of time, above 0"
            )]
            (None, Some(rate)) => (self.events as f64 * 1000.0 / rate) as u64,
            (None, None) => Options::default().span_ms,
        };
        Shop::new(Options {
            seed: self.seed,
            events: self.events,
            start: self.start.time,
            span_ms,
            ..Options::default()
        })
    }
}

/// Generates the events, and reports the result.
pub(crate) async fn run(args: &Args, global: &Global) -> Outcome {
    let shop = args.shop();
    let start = Instant::now();
    match &args.to {
        Some(file) => {
            write(args, &shop, file, global).await?;
            // The events themselves may have been written to standard output.
            if file.as_os_str() != "-" {
                let took = start.elapsed();
                let events = args.events.saturating_sub(args.skip);
                if global.json {
                    output::json(&serde_json::json!({
                        "file": file, "events": events, "seconds": took.as_secs_f64(),
                    }));
                } else {
                    output::line(format!(
                        "{} events written to {} in {}",
                        output::count(events),
                        file.display(),
                        output::seconds(took.as_secs_f64())
                    ));
                }
            }
            Ok(())
        }
        None => {
            let mut sender = Sender::new(global.api(), false, args.tries);
            let ended = send(args, &shop, &mut sender, global).await;
            if ended.is_ok() || sender.sent.events > 0 {
                super::import::summary(&sender, start.elapsed(), None, global.json);
            }
            ended
        }
    }
}

async fn send(args: &Args, shop: &Shop, sender: &mut Sender, global: &Global) -> Outcome {
    let all = args.events.saturating_sub(args.skip);
    let bar = output::progress(Progress::Events(all), global.json);
    let mut next = args.skip;
    let feeding = feed(args, shop, sender, &mut next, |events, waits| {
        bar.inc(events);
        if let Some((wait, why)) = waits {
            let text = format!("waits {:.1} s: {why}", wait.as_secs_f64());
            bar.suspend(|| output::note(global.json, text));
        }
    });
    let ended = tokio::select! {
        ended = feeding => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Interrupted, "interrupted")),
    };
    bar.finish_and_clear();
    ended.map_err(|failure| match failure.help {
        Some(_) if next == args.skip => failure,
        _ => failure.help(format!("continue with the same flags and `--skip {next}`")),
    })
}

/// Sends the events from the number `next` on. Reports the events sent, and the waits, to `told`.
async fn feed(
    args: &Args,
    shop: &Shop,
    sender: &mut Sender,
    next: &mut u64,
    report: impl Fn(u64, Option<(Duration, &str)>),
) -> Outcome {
    let mut pace = args.rate.map(RateLimiter::new);
    let unpaced = (PIECE_BYTES / LINE_BYTES) as u64;
    while *next < args.events {
        let piece = pace.as_ref().map_or(unpaced, RateLimiter::piece).min(args.events - *next);
        if let Some(pace) = &mut pace {
            pace.wait(piece).await;
        }
        let bytes = lines(shop, *next, piece);
        sender.send(bytes.into(), piece, 1, |wait, why| report(0, Some((wait, why)))).await?;
        *next += piece;
        report(piece, None);
    }
    Ok(())
}

fn lines(shop: &Shop, from: u64, count: u64) -> Vec<u8> {
    let room = usize::try_from(count).unwrap_or(0).saturating_mul(LINE_BYTES);
    let mut bytes = Vec::with_capacity(room.min(PIECE_BYTES));
    (from..from + count).for_each(|index| shop.write_line(index, &mut bytes));
    bytes
}

/// Writes the events to `file` at the requested rate.
async fn write(args: &Args, shop: &Shop, file: &Path, global: &Global) -> Outcome {
    let failed = |e: std::io::Error| {
        let message = format!("cannot write `{}`: {e}", file.display());
        Failure::new(Exit::Failure, message)
    };
    let to_stdout = file.as_os_str() == "-";
    let mut out = if to_stdout {
        Target::Stdout
    } else {
        let plain = BufWriter::with_capacity(WRITE_BYTES, File::create(file).map_err(failed)?);
        if file.extension().is_some_and(|e| e == "zst") {
            Target::Packed(zstd::Encoder::new(plain, 3).map_err(failed)?)
        } else {
            Target::Plain(plain)
        }
    };
    let bar = output::progress(
        Progress::Events(args.events.saturating_sub(args.skip)),
        global.json || to_stdout,
    );
    let mut pace = args.rate.map(RateLimiter::new);
    let mut bytes = Vec::with_capacity(WRITE_BYTES + LINE_BYTES);
    let mut next = args.skip;
    while next < args.events {
        let most = match &mut pace {
            Some(pace) => {
                let piece = pace.piece().min(args.events - next);
                pace.wait(piece).await;
                piece
            }
            None => args.events - next,
        };
        bytes.clear();
        let from = next;
        while next - from < most && bytes.len() < WRITE_BYTES {
            shop.write_line(next, &mut bytes);
            next += 1;
        }
        out.write(&bytes).map_err(failed)?;
        bar.inc(next - from);
    }
    out.finish().map_err(failed)?;
    bar.finish_and_clear();
    Ok(())
}

/// Where the generated events are written.
enum Target {
    Stdout,
    Plain(BufWriter<File>),
    Packed(zstd::Encoder<'static, BufWriter<File>>),
}

impl Target {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Stdout => {
                output::raw(bytes);
                Ok(())
            }
            Self::Plain(file) => file.write_all(bytes),
            Self::Packed(file) => file.write_all(bytes),
        }
    }

    fn finish(self) -> std::io::Result<()> {
        match self {
            Self::Stdout => Ok(()),
            Self::Plain(mut file) => file.flush(),
            Self::Packed(file) => file.finish()?.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn times_and_spans_are_read_from_text() {
        assert_eq!(start("1970-01-01T00:00:01Z").unwrap().time, Timestamp(1_000_000));
        assert!(start("now").unwrap().now);
        assert!(start("yesterday").is_err());
        assert_eq!(span("6h"), Ok(Duration::from_secs(21_600)));
        assert_eq!(span("90 minutes"), Ok(Duration::from_secs(5_400)));
        assert_eq!(span("14d"), Ok(Duration::from_secs(14 * 86_400)));
        assert_eq!(span("1 week"), Ok(Duration::from_secs(7 * 86_400)));
        assert!(span("-1h").is_err());
        assert!(span("900y").is_err());
    }
}
