//! Implements a host in memory: a test feeds it events and checks the tables. A plugin's tests need
//! neither Wasm nor a server.
//!
//! ```
//! # use lantern_sdk::prelude::*;
//! use lantern_sdk::testing::{Harness, TestEvent};
//! # #[derive(Row, Default)] struct Total { cents: i64 }
//! # #[derive(Tables)] struct Totals { totals: Table<Total> }
//! # #[derive(serde::Deserialize)] struct Order { cents: i64 }
//! # impl Projection for Totals {
//! #     fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
//! #         Ok(lantern_sdk::manifest!().subscribe(["order.placed"]))
//! #     }
//! #     fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
//! #         self.totals.row("all")?.cents += event.data::<Order>()?.cents;
//! #         Ok(())
//! #     }
//! # }
//!
//! let mut host = Harness::<Totals>::new();
//! host.feed([
//!     TestEvent::new("order.placed").data(r#"{"cents": 250}"#),
//!     TestEvent::new("order.placed").data(r#"{"cents": "many"}"#),
//! ]);
//! assert_eq!(host.row("totals", "all").unwrap()["cents"], 250);
//! assert_eq!(host.parked()[0].offset, 1);
//! ```
//!
//! A [`Harness`] follows the host's rules: timers fire in separate calls when the watermark
//! advances, a failed call has no effect, and its event is parked as the manifest requests. A
//! harness ends a batch whenever the watermark advances. A real host may continue the batch if
//! no timer is due; the result is the same. [`check_determinism`] folds the same events in
//! several ways, as the host does at every upload.

mod event;
mod fold;
mod members;

use std::collections::BTreeMap;

pub use event::{TestEvent, read_ndjson};
pub use fold::{Harness, Parked};
#[doc(hidden)]
pub use members::decode_members;

use crate::Timestamp;
use crate::projection::Projection;

pub use crate::log::Level;

/// An event that a projection has emitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Emitted {
    /// The offset of the event that caused it.
    pub cause: u64,
    /// The type of the event.
    pub kind: String,
    /// The subject of the event.
    pub subject: String,
    /// The tenant of the event.
    pub tenant: String,
    /// The time of the event.
    pub time: Timestamp,
    /// The data of the event.
    pub data: serde_json::Value,
}

/// The complete result of a projection, without logs.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// For each table, the bytes of its rows by key.
    pub tables: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// The due times of the timers, by key.
    pub timers: BTreeMap<String, Timestamp>,
    /// The events that the projection has emitted.
    pub emitted: Vec<Emitted>,
    /// The events that could not be applied.
    pub parked: Vec<Parked>,
}

/// Sets the source code that [`source`](crate::source) returns to instances that are created on
/// this thread after this call.
pub fn set_source(name: &str, text: &str) {
    crate::host::native::set_source(name, text);
}

/// Folds `events` in batches of 1, 7 and 1,000 events. Each fold is done twice: with a single
/// instance, and with a new instance for every call.
///
/// # Panics
/// Panics if the results differ. In this case the projection keeps state in memory that belongs in
/// a table, or depends on where a batch ends.
pub fn check_determinism<P: Projection>(parameters: &str, events: &[TestEvent]) -> Outcome {
    let fold = |batch_size, drop_instances| {
        let mut host = Harness::<P>::with_parameters(parameters)
            .batch_size(batch_size)
            .drop_instances(drop_instances);
        host.feed(events.iter().cloned());
        host.outcome()
    };
    let outcome = fold(1_000, false);
    for (batch_size, drop_instances) in
        [(1, false), (7, false), (1, true), (7, true), (1_000, true)]
    {
        let other = fold(batch_size, drop_instances);
        let how = format!("with batches of {batch_size}, instances dropped: {drop_instances}");
        for (table, rows) in &outcome.tables {
            let others = &other.tables[table];
            let keys = rows.keys().chain(others.keys());
            for key in keys {
                let (row, other) = (rows.get(key), others.get(key));
                assert!(
                    row == other,
                    "{how}: table `{table}`, row {key:?} is {:?}, else {:?}",
                    other.map(|row| String::from_utf8_lossy(row)),
                    row.map(|row| String::from_utf8_lossy(row)),
                );
            }
        }
        assert!(
            outcome == other,
            "{how}: timers, emitted or parked events differ: {other:?}, else {outcome:?}"
        );
    }
    outcome
}
