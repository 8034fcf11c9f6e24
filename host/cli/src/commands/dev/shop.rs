//! Generated shop events, so that a table under development moves.

use std::time::Duration;

use lantern_cli::generate::{Options, Shop};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::api::Api;
use crate::error::Outcome;
use crate::sender::{Sender, TRIES};

/// How often events are sent.
const TICK: Duration = Duration::from_millis(100);
/// The longest delay that is made up for after the machine was busy.
const MADE_UP_FOR_MAX: Duration = Duration::from_secs(1);

/// Sends events at a rate, with the time at which they are sent.
pub(super) struct ShopEvents {
    shop: Shop,
    next: u64,
    per_s: f64,
    /// The fraction of an event that is due already.
    due: f64,
    last: Instant,
    ticks: Interval,
    sender: Sender,
}

impl ShopEvents {
    /// Sends `per_s` events per second to `api`.
    pub(super) fn new(api: Api, per_s: f64) -> Self {
        // Another seed at each start, so that no id occurs in an earlier run.
        let seed = jiff::Timestamp::now().as_millisecond().unsigned_abs();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            shop: Shop::new(Options { seed, ..Options::default() }),
            next: 0,
            per_s,
            due: 0.0,
            last: Instant::now(),
            ticks,
            sender: Sender::new(api, false, TRIES),
        }
    }

    /// Waits until events are due. Can be dropped at any time.
    pub(super) async fn due(&mut self) {
        self.ticks.tick().await;
    }

    /// Sends the events that are due.
    pub(super) async fn send(&mut self) -> Outcome {
        let now = Instant::now();
        let elapsed = now.duration_since(self.last).min(MADE_UP_FOR_MAX);
        self.last = now;
        self.due += elapsed.as_secs_f64() * self.per_s;
        let mut bytes = Vec::new();
        let mut events = 0;
        let time_ms = jiff::Timestamp::now().as_millisecond();
        while self.due >= 1.0 {
            self.shop.write_line_at(self.next, time_ms, &mut bytes);
            self.next += 1;
            self.due -= 1.0;
            events += 1;
        }
        if events > 0 {
            self.sender.send(bytes.into(), events, 1, |_, _| {}).await?;
        }
        Ok(())
    }
}

/// Waits until events are due; never returns if none are sent.
pub(super) async fn due(shop: &mut Option<ShopEvents>) {
    match shop {
        Some(shop) => shop.due().await,
        None => std::future::pending().await,
    }
}
