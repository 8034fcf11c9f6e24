//! Sends generated shop events, so that a table changes while it is being developed.

use lantern_cli::generate::{Options, Shop};

use crate::api::Api;
use crate::error::Outcome;
use crate::sender::{RateLimiter, Sender, TRIES};

/// Sends `per_s` events per second to `api`, each with the time at which it is sent. If `per_s` is
/// `None`, nothing is sent. The function returns only if sending fails.
pub(super) async fn send(api: Api, per_s: Option<f64>) -> Outcome {
    let Some(per_s) = per_s else { return std::future::pending().await };
    // Each start has another seed, so that no id was used in an earlier run.
    let seed = jiff::Timestamp::now().as_millisecond().unsigned_abs();
    let shop = Shop::new(Options { seed, ..Options::default() });
    let mut pace = RateLimiter::new(per_s);
    let mut sender = Sender::new(api, false, TRIES);
    let (piece, mut next) = (pace.piece(), 0);
    loop {
        pace.wait(piece).await;
        let mut bytes = Vec::new();
        let time_ms = jiff::Timestamp::now().as_millisecond();
        for index in next..next + piece {
            shop.write_line_at(index, time_ms, &mut bytes);
        }
        next += piece;
        sender.send(bytes.into(), piece, 1, |_, _| {}).await?;
    }
}
