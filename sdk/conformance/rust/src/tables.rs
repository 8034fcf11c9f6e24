//! Defines the tables.

use std::fmt;

use lantern_sdk::prelude::*;
use lantern_sdk::window::{OpenSessions, OpenWindows, Recent};

use crate::Settings;

/// All tables, in the order of the definition.
///
/// Long because the definition has this number of tables.
#[derive(Tables)]
pub struct Conformance {
    /// Sums by key.
    #[table(newest_by = "last")]
    pub(crate) sums: Table<Sum>,
    /// The members of `c.value` events.
    pub(crate) values: Table<Values>,
    /// The results of scans.
    pub(crate) scans: Table<Scanned>,
    /// Timers that fired.
    pub(crate) fired: Table<Fired>,
    /// Events by tenant and subject.
    #[table(per_tenant)]
    pub(crate) tenants: Table<Tenant>,
    /// Visits by minute and user.
    pub(crate) minutes: Table<Minute>,
    /// Closed hopping windows.
    pub(crate) hops: Table<Hop>,
    /// Closed sessions.
    pub(crate) sessions: Table<Session>,
    /// The sliding window of each user.
    pub(crate) sliding: Table<Sliding>,
    /// Sliding windows that can no longer change.
    pub(crate) settled: Table<Settled>,
    /// Late visits by user.
    pub(crate) late: Table<Late>,
    /// Days of a time zone.
    pub(crate) days: Table<Day>,
    /// Hours of a time zone.
    pub(crate) hours: Table<Hour>,
    /// Sketches by key.
    pub(crate) sketches: Table<Sketches>,
    #[table(private)]
    pub(crate) seen: Table<()>,
    #[table(private)]
    pub(crate) open_hops: OpenWindows<i64>,
    #[table(private)]
    pub(crate) open_sessions: OpenSessions<u64>,
    #[table(private)]
    pub(crate) recent: Recent<i64>,
    #[table(skip)]
    pub(crate) settings: Settings,
}

impl fmt::Debug for Conformance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conformance").finish_non_exhaustive()
    }
}

#[derive(Row, Default)]
pub(crate) struct Sum {
    pub(crate) key: String,
    #[row(merge = sum)]
    pub(crate) events: i64,
    #[row(merge = sum)]
    pub(crate) total: i64,
    #[row(merge = min)]
    pub(crate) least: Option<i64>,
    #[row(merge = max)]
    pub(crate) greatest: Option<i64>,
    #[row(merge = newest)]
    pub(crate) last: Timestamp,
}

#[derive(Row)]
pub(crate) struct Values {
    pub(crate) id: String,
    pub(crate) n: Option<i64>,
    pub(crate) x: Option<f64>,
    pub(crate) s: Option<String>,
    pub(crate) b: Option<bool>,
    pub(crate) t: Option<Timestamp>,
    pub(crate) j: Option<Json<serde_json::Value>>,
}

#[derive(Row)]
pub(crate) struct Scanned {
    pub(crate) id: String,
    pub(crate) count: i64,
    pub(crate) keys: Vec<String>,
    pub(crate) total: i64,
}

#[derive(Row, Default)]
pub(crate) struct Fired {
    pub(crate) key: String,
    pub(crate) at: Timestamp,
    pub(crate) watermark: Timestamp,
    #[row(merge = sum)]
    pub(crate) times: i64,
}

#[derive(Row, Default)]
pub(crate) struct Tenant {
    pub(crate) subject: String,
    #[row(merge = sum)]
    pub(crate) events: i64,
    #[row(merge = sum)]
    pub(crate) closed: i64,
}

#[derive(Row)]
pub(crate) struct Minute {
    pub(crate) start: Timestamp,
    pub(crate) user: String,
    #[row(merge = sum)]
    pub(crate) events: i64,
}

#[derive(Row)]
pub(crate) struct Hop {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    pub(crate) user: String,
    #[row(merge = sum)]
    pub(crate) total: i64,
}

#[derive(Row)]
pub(crate) struct Session {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    pub(crate) user: String,
    #[row(merge = sum)]
    pub(crate) events: u64,
}

#[derive(Row)]
pub(crate) struct Sliding {
    pub(crate) user: String,
    pub(crate) events: i64,
    pub(crate) total: i64,
}

#[derive(Row)]
pub(crate) struct Settled {
    pub(crate) at: Timestamp,
    pub(crate) user: String,
    pub(crate) total: i64,
}

#[derive(Row, Default)]
pub(crate) struct Late {
    pub(crate) user: String,
    #[row(merge = sum)]
    pub(crate) hops: i64,
    #[row(merge = sum)]
    pub(crate) sessions: i64,
    #[row(merge = sum)]
    pub(crate) sliding: i64,
}

#[derive(Row)]
pub(crate) struct Day {
    pub(crate) day: String,
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    #[row(merge = sum)]
    pub(crate) events: i64,
}

#[derive(Row)]
pub(crate) struct Hour {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    #[row(merge = sum)]
    pub(crate) events: i64,
}

#[derive(Row, Default)]
pub(crate) struct Sketches {
    pub(crate) key: String,
    pub(crate) texts: Distinct,
    pub(crate) values: Percentiles,
    pub(crate) scaled: Percentiles,
}
