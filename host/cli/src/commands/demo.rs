//! Implements `lantern demo`, which runs the server with real flights and generated shop events.
//!
//! Flights and shop events are in the same log and move the same watermark. So both take their
//! times from one clock, which runs faster than real time. When the demo starts, it reads the log
//! to find out which events it has sent already. It then continues at the event where it stopped,
//! even after a crash.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lantern_api::EventsPage;
use lantern_cli::generate::{Kind, Options, SOURCE, Shop};
use lantern_server::cloudevents::json_text;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::flights::Flights;
use super::serve;
use crate::Global;
use crate::api::{Api, LogQuery, Upload};
use crate::error::{Exit, Failure, Outcome};
use crate::event_file::read_plugin;
use crate::output::{self, Progress};
use crate::sender::{Sender, TRIES};

/// The interval at which events are sent.
const TICK: Duration = Duration::from_millis(100);
/// The longest step of the demo's clock. If a step took longer because the server was busy, the
/// time beyond this limit is left out, and all later events are delayed by it.
const MADE_UP_FOR_MAX: Duration = Duration::from_secs(1);
/// The maximum number of events in one request.
const PIECE_EVENTS_MAX: u64 = 20_000;
/// The number of events that are read at a time to find the place where the demo stopped.
const WINDOW_EVENTS: u64 = 5_000;
/// The maximum time by which a shop event is older than the demo's clock when it is sent, in
/// milliseconds.
const DISORDER_MS: u64 = 2_000;

/// In each period of this length the shop takes no orders for a while, in milliseconds of the
/// demo's clock. With the default speed it lasts 36 seconds.
const OUTAGE_PERIOD_MS: i64 = 3 * 60 * 60 * 1000;
/// The start of such an outage within its period, and its end.
const OUTAGE_MS: std::ops::Range<i64> = 60 * 60 * 1000..70 * 60 * 1000;
/// The plugin that raises an alert about an outage, and its parameters if it has no file of
/// parameters. A window has about 40 orders with the default speed and rate, so chance alone
/// nearly never halves their number.
const ALERTS: (&str, &str) =
    ("rate-alerts", r#"{"window_s": 300, "lookback": 6, "drop_pct": 50, "z": null}"#);
/// The index of the shop event before which the demo sends an order without its price. It shows
/// how a parked event is repaired.
const WITHOUT_PRICE: u64 = 400;

/// The name of the demo's board.
const BOARD_NAME: &str = "demo";
/// The demo's board, which shows the tables of the example plugins.
const BOARD: &str = include_str!("demo-board.json");

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern demo --plugins target/plugins --flights demo/flights.ndjson.zst
  lantern demo --plugins target/plugins --speed 60 --rate 5        # slower
  lantern demo --data /tmp/demo --listen 127.0.0.1:8000
  cargo xtask demo                                                 # builds all of it first

Ctrl-C stops it cleanly; the next start continues where it stopped.")]
pub(crate) struct Args {
    #[command(flatten)]
    server: serve::Settings,
    /// The folder in which the server stores everything.
    #[arg(long, value_name = "FOLDER", default_value = "data/demo")]
    data: PathBuf,
    /// A folder of plugins (`NAME.wasm`, with parameters in `NAME.json`).
    #[arg(long, value_name = "FOLDER")]
    plugins: Option<PathBuf>,
    /// Events with times, one per line, in order; may be compressed.
    #[arg(long, value_name = "FILE")]
    flights: Option<PathBuf>,
    /// The speed of the events' clock: seconds of event time per second.
    #[arg(long, default_value_t = 300.0, value_parser = speed)]
    speed: f64,
    /// Shop events per second; 0 for none.
    #[arg(long, default_value_t = 200.0, value_parser = shop_rate)]
    rate: f64,
    /// The seed of the shop events.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if (0.001..=1e7).contains(&speed) => Ok(speed),
        _ => Err("give a number from 0.001 to 10000000".into()),
    }
}

fn shop_rate(text: &str) -> Result<f64, String> {
    match super::rate(text) {
        Ok(rate) if rate <= 100_000.0 => Ok(rate),
        Ok(_) => Err("give at most 100000 a second".into()),
        Err(_) if text.parse::<f64>() == Ok(0.0) => Ok(0.0),
        Err(wrong) => Err(wrong),
    }
}

/// Runs the demo until Ctrl-C.
pub(crate) fn run(args: Args, global: &Global) -> Outcome {
    let json = global.json;
    serve::with_server(&args.server, Some(&args.data), json, async |address| {
        let api = Api::new(&address);
        if let Some(folder) = &args.plugins {
            push_plugins(&api, folder, json).await?;
            // A board that the user has changed stays as it is.
            api.add_board(BOARD_NAME, BOARD).await?;
        }
        let mut feeder = Feeder::ready(&args, api).await?;
        if args.plugins.is_some() {
            output::note(json, format!("watch it at {address}/boards/{BOARD_NAME}"));
        }
        output::note(json, format!("all projections are at {address}/"));
        output::note(json, "Ctrl-C stops it; the next start continues where it stopped");
        feeder.run(json).await
    })
}

/// Pushes every plugin in `folder`, in order of their names.
async fn push_plugins(api: &Api, folder: &Path, json: bool) -> Outcome {
    let cannot = |e: std::io::Error| {
        let message = format!("cannot read the folder `{}`: {e}", folder.display());
        Failure::new(Exit::NotFound, message).help("`--plugins` names a folder of `.wasm` files")
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if path.extension().is_some_and(|e| e == "wasm") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        let message = format!("there is no `.wasm` file in `{}`", folder.display());
        return Err(Failure::new(Exit::NotFound, message));
    }
    for file in files {
        let parameters = file.with_extension("json");
        let parameters = match parameters.is_file() {
            true => Some(super::parameters(&parameters.display().to_string())?),
            false if file.file_stem().is_some_and(|name| name == ALERTS.0) => {
                Some(ALERTS.1.to_owned())
            }
            false => None,
        };
        let upload = Upload {
            plugin: read_plugin(&file)?,
            name: None,
            parameters,
            activate: true,
            force: false,
            sent: Default::default(),
        };
        let uploaded = api.upload(upload).await.map_err(|error| {
            let mut failure = Failure::from(error);
            failure.message = format!("{}: {}", file.display(), failure.message);
            failure
        })?;
        let is = if uploaded.existed { "exists already" } else { "is pushed" };
        output::note(json, format!("projection `{}` {is}", uploaded.projection));
    }
    Ok(())
}

/// What earlier runs of the demo have sent: the events of the demo that the log already contains.
#[derive(Debug, Default, PartialEq, Eq)]
struct PreviousRun {
    /// The id of the last event that was sent from the file of flights.
    flight: Option<String>,
    /// The number of shop events that were sent.
    shop: u64,
    /// The latest time of all these events, in milliseconds since 1970.
    time_ms: Option<i64>,
}

impl PreviousRun {
    /// Reads the log backwards, up to its start, until it has found a flight and a shop event.
    async fn find(api: &Api, seed: u64) -> Outcome<Self> {
        let look = LogQuery { limit: 1, ..LogQuery::default() };
        let bounds = api.events(&look).await?;
        let mut before = Self::default();
        let mut to = bounds.end;
        while to > bounds.start && (before.flight.is_none() || before.shop == 0) {
            let from = to.saturating_sub(WINDOW_EVENTS).max(bounds.start);
            let mut next = from;
            let (mut flight, mut shop) = (None, 0);
            while next < to {
                let query = LogQuery { from: Some(next), limit: to - next, ..LogQuery::default() };
                let page = api.events(&query).await?;
                before.read_previous_run(&page, to, seed, &mut flight, &mut shop);
                if page.next <= next {
                    break;
                }
                next = page.next;
            }
            before.flight = before.flight.or(flight);
            before.shop = before.shop.max(shop);
            to = from;
        }
        Ok(before)
    }

    /// Looks for events of the demo in `page`, before the offset `to`.
    fn read_previous_run(
        &mut self,
        page: &EventsPage,
        to: u64,
        seed: u64,
        flight: &mut Option<String>,
        shop: &mut u64,
    ) {
        for logged in page.events.iter().filter(|logged| logged.offset < to) {
            let event = logged.event.members();
            let text = |name: &str| event.get(name).and_then(|value| json_text(value.get()));
            let (Some(id), Some(source)) = (text("id"), text("source")) else { continue };
            let (id, source) = (&*id, &*source);
            if source == SOURCE {
                let index = id.strip_prefix(&format!("s{seed}-")).and_then(|i| i.parse().ok());
                *shop = index.map_or(*shop, |index: u64| (index + 1).max(*shop));
            } else if source != "lantern" && !source.starts_with("lantern/") {
                *flight = Some(id.to_owned());
            } else {
                continue;
            }
            let time = text("time").and_then(|time| time.parse::<jiff::Timestamp>().ok());
            self.time_ms = self.time_ms.max(time.map(jiff::Timestamp::as_millisecond));
        }
    }
}

/// Sends flights and shop events by one clock.
struct Feeder {
    flights: Option<Flights>,
    shop: Shop,
    next_shop: u64,
    /// The current time of the clock, in milliseconds since 1970.
    clock_ms: i64,
    speed: f64,
    rate: f64,
    /// The fraction of a shop event that is left for the next step, because only whole events are
    /// sent.
    due: f64,
    sender: Sender,
}

impl Feeder {
    /// Creates a feeder that continues after the events of earlier runs.
    async fn ready(args: &Args, api: Api) -> Outcome<Self> {
        let before = PreviousRun::find(&api, args.seed).await?;
        let mut flights = match &args.flights {
            Some(file) => Some(Flights::after(file, before.flight.as_deref())?),
            None => None,
        };
        let first = flights.as_mut().and_then(|flights| flights.next_time_ms().transpose());
        let shop = Options { seed: args.seed, ..Options::default() };
        let clock_ms = match (before.time_ms, first.transpose()?) {
            (Some(time), _) | (None, Some(time)) => time,
            (None, None) => shop.start.millis(),
        };
        Ok(Self {
            flights,
            shop: Shop::new(shop),
            next_shop: before.shop,
            clock_ms,
            speed: args.speed,
            rate: args.rate,
            due: 0.0,
            sender: Sender::new(api, false, TRIES),
        })
    }

    /// Sends events until there is an error. Dropping the future stops it.
    async fn run(&mut self, json: bool) -> Outcome {
        let bar = output::progress(Progress::Endless, json);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let elapsed = now.duration_since(last).min(MADE_UP_FOR_MAX);
            last = now;
            let (bytes, events) = self.piece(elapsed)?;
            if events > 0 {
                self.sender
                    .send(bytes.into(), events, 1, |_, why| bar.set_message(output::printable(why)))
                    .await?;
            }
            bar.set_message(self.said());
        }
    }

    /// Returns the events for the next `elapsed` of real time, in order of their times.
    fn piece(&mut self, elapsed: Duration) -> Outcome<(Vec<u8>, u64)> {
        let from_ms = self.clock_ms;
        let step_ms = elapsed.as_secs_f64() * 1000.0 * self.speed;
        #[expect(clippy::cast_possible_truncation, reason = "at most 1e10 milliseconds")]
        let step_ms = step_ms.max(1.0) as i64;
        self.due += elapsed.as_secs_f64() * self.rate;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded")]
        let shop_events = (self.due as u64).min(PIECE_EVENTS_MAX);
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let sent = shop_events as f64;
        self.due = (self.due - sent).min(1.0);

        let mut bytes = Vec::new();
        let mut events = 0;
        let mut until = from_ms;
        for place in 1..=shop_events {
            until = from_ms
                + step_ms * i64::try_from(place).unwrap_or(1)
                    / i64::try_from(shop_events).unwrap_or(1).max(1);
            events += self.flights_until(until, &mut bytes)?;
            events += self.shop_event(until, &mut bytes);
        }
        if until < from_ms + step_ms {
            events += self.flights_until(from_ms + step_ms, &mut bytes)?;
        }
        self.clock_ms = from_ms + step_ms;
        Ok((bytes, events))
    }

    fn flights_until(&mut self, time_ms: i64, bytes: &mut Vec<u8>) -> Outcome<u64> {
        match &mut self.flights {
            Some(flights) => flights.write_until(time_ms, bytes),
            None => Ok(0),
        }
    }

    /// Writes the next shop event, and returns the number of events that are written. During an
    /// outage an order is left out.
    fn shop_event(&mut self, time_ms: i64, bytes: &mut Vec<u8>) -> u64 {
        let index = self.next_shop;
        self.next_shop += 1;
        // The delay of an event depends on its index, so it is the same in each run.
        let behind = (index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) % (DISORDER_MS + 1);
        let time_ms = time_ms.saturating_sub_unsigned(behind);
        let mut events = 0;
        if index == WITHOUT_PRICE {
            bytes.extend_from_slice(order_without_price(time_ms).as_bytes());
            events += 1;
        }
        let outage = OUTAGE_MS.contains(&time_ms.rem_euclid(OUTAGE_PERIOD_MS));
        if !outage || self.shop.event(index).kind != Kind::OrderPlaced {
            self.shop.write_line_at(index, time_ms, bytes);
            events += 1;
        }
        events
    }

    fn said(&self) -> String {
        let flights = self.flights.as_ref().map_or(0, |f| f.passed);
        format!(
            "{}  {} flights and weather, {} shop events",
            output::time_us(self.clock_ms / 60_000 * 60_000_000),
            output::count(flights),
            output::count(self.next_shop)
        )
    }
}

/// Returns an order that `revenue` parks, as a line.
fn order_without_price(time_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(time_ms).unwrap_or_default();
    let event = serde_json::json!({
        "specversion": "1.0", "id": "order-without-price", "source": SOURCE,
        "type": Kind::OrderPlaced.name(), "subject": "u1", "tenant": "t1", "time": time.to_string(),
        "data": {"user": "u1", "product": "p1", "country": "DE", "quantity": 1},
    });
    format!("{event}\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use lantern_api::{LoggedEvent, RawJson};
    use serde_json::json;

    use super::*;

    fn feeder(flights: Option<Flights>, rate: f64) -> Feeder {
        Feeder {
            flights,
            shop: Shop::new(Options::default()),
            next_shop: 7,
            clock_ms: 1_000_000,
            speed: 100.0,
            rate,
            due: 0.0,
            sender: Sender::new(Api::new("http://localhost:1"), false, 1),
        }
    }

    #[test]
    fn pieces_hold_both_kinds_in_order_of_the_clock() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("flights");
        let lines: String = (0..30)
            .map(|i| {
                let time = jiff::Timestamp::from_millisecond(1_000_000 + i * 1_000).unwrap();
                format!("{{\"id\":\"f{i}\",\"time\":\"{time}\"}}\n")
            })
            .collect();
        std::fs::write(&file, lines).unwrap();
        let mut feeder = feeder(Some(Flights::after(&file, Some("f1")).unwrap()), 50.0);
        let (bytes, events) = feeder.piece(Duration::from_millis(100)).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.lines().count() as u64, events);
        // In 100 ms at 100 times the speed, the clock advances by 10 s. For these 10 s, the file
        // has flights 2 to 10, and 5 shop events are due.
        assert_eq!(events, 9 + 5);
        assert!(text.contains("\"s1-0000000007\"") && text.contains("\"f10\""), "{text}");
        assert!(!text.contains("\"f1\"") && !text.contains("\"f11\""));
        assert_eq!(feeder.clock_ms, 1_010_000);
        assert_eq!(feeder.next_shop, 12);
    }

    #[test]
    fn an_outage_has_no_orders_and_one_order_has_no_price() {
        let mut feeder = feeder(None, 0.0);
        let mut orders_at = |index: u64, time_ms: i64| {
            let mut bytes = Vec::new();
            feeder.next_shop = index;
            let events: u64 = (0..50).map(|_| feeder.shop_event(time_ms, &mut bytes)).sum();
            let text = String::from_utf8(bytes).unwrap();
            assert_eq!(text.lines().count() as u64, events);
            assert_eq!(feeder.next_shop, index + 50);
            let orders = text.lines().filter(|line| line.contains("order.placed"));
            orders.map(|line| line.contains("\"cents\"")).collect::<Vec<_>>()
        };
        let start = 7 * OUTAGE_PERIOD_MS;
        let after_delay = i64::try_from(DISORDER_MS).unwrap();
        assert!(!orders_at(0, start).is_empty());
        assert!(orders_at(0, start + OUTAGE_MS.start + after_delay).is_empty());
        assert!(!orders_at(0, start + OUTAGE_MS.end + after_delay).is_empty());
        let around = orders_at(WITHOUT_PRICE - 20, start);
        assert_eq!(around.iter().filter(|price| !**price).count(), 1, "{around:?}");
    }

    #[test]
    fn the_board_of_the_demo_shows_tables_of_the_example_plugins() {
        let board: serde_json::Value = serde_json::from_str(BOARD).unwrap();
        assert_eq!(board["format"], 1);
        let plugins = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugins"));
        let panes = board["panes"].as_array().unwrap();
        assert!(!panes.is_empty());
        for pane in panes {
            let (projection, table) = pane["table"].as_str().unwrap().split_once('/').unwrap();
            let source = std::fs::read_to_string(plugins.join(projection).join("src/lib.rs"));
            let declared = format!("    {table}: Table<");
            assert!(source.unwrap().contains(&declared), "{projection}/{table}");
        }
    }

    #[test]
    fn parts_of_a_shop_event_add_up() {
        let mut feeder = feeder(None, 3.0);
        let sent: u64 = (0..20).map(|_| feeder.piece(TICK).unwrap().1).sum();
        assert!((5..=6).contains(&sent), "{sent}");
    }

    #[test]
    fn the_demo_reads_from_the_log_where_it_stopped() {
        let event = |offset, source: &str, id: &str| LoggedEvent {
            offset,
            appended: None,
            event: RawJson::new(
                &json!({"source": source, "id": id, "time": "2013-01-01T06:00:00Z"}).to_string(),
            ),
        };
        let page = EventsPage {
            events: vec![
                event(0, "nycflights13", "a"),
                event(1, "shop", "s1-0000000041"),
                event(2, "shop", "s2-0000000099"),
                event(3, "nycflights13", "b"),
                event(4, "lantern/alerts", "0/3/0"),
                event(5, "nycflights13", "c"),
            ],
            ..EventsPage::default()
        };
        let (mut before, mut flight, mut shop) = (PreviousRun::default(), None, 0);
        before.read_previous_run(&page, 5, 1, &mut flight, &mut shop);
        assert_eq!((flight.as_deref(), shop), (Some("b"), 42));
        assert_eq!(before.time_ms, Some(1_357_020_000_000));
    }
}
