//! Defines the options of a client.

use std::collections::BTreeMap;
use std::time::Duration;

use lantern_api::TableShape;
use lantern_api::feed::{Condition, Mode, RollUp};
use serde_json::Value;

use crate::row::Row;

/// Options for the connection of a [`crate::Client`].
#[derive(Clone, Debug)]
pub struct Options {
    /// A token that identifies the reader; `None` if the server requires none.
    pub token: Option<String>,
    /// The time within which the client must have connected and received `welcome`. Default 10 s.
    pub connect_timeout: Duration,
    /// The pause before the first attempt to reconnect. It doubles with every failure. A random
    /// part of up to a half is subtracted from each pause. Default 250 ms.
    pub backoff_min: Duration,
    /// The longest pause before an attempt to reconnect. It is also the pause if the server has too
    /// many sessions (close code 4429). Default 30 s.
    pub backoff_max: Duration,
    /// When the server shuts down, its clients reconnect at a random time within this
    /// period, not all at once. Default 2 s.
    pub shutdown_spread: Duration,
    /// The maximum size of a message from the server, in bytes. Default 16 MiB.
    pub message_bytes_max: usize,
    /// The number of changes that are kept for a slow reader of [`crate::Table::changes`]. If there
    /// are more, the reader gets [`crate::Change::Missed`]. Default 1,024.
    pub changes_buffer: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token: None,
            connect_timeout: Duration::from_secs(10),
            backoff_min: Duration::from_millis(250),
            backoff_max: Duration::from_secs(30),
            shutdown_spread: Duration::from_secs(2),
            message_bytes_max: 16 << 20,
            changes_buffer: 1024,
        }
    }
}

/// The options of a subscription.
///
/// ```
/// use lantern_client::{RollUp, TableOptions};
///
/// let large = TableOptions::default()
///     .written_for([("country", "text"), ("cents", "integer")])
///     .condition("cents", ">=", 100)
///     .condition("country", "in", vec!["DE", "FR"])
///     .columns(["country", "cents"]);
/// let revenue = TableOptions {
///     roll_up: Some(RollUp {
///         bucket: Some("1h".into()),
///         by: vec!["country".into()],
///         agg: [("revenue", &["sum", "cents"][..]), ("n", &["count"])].into_iter().collect(),
///         ..RollUp::default()
///     }),
///     ..TableOptions::default()
/// };
/// # drop((large, revenue));
/// ```
#[derive(Clone, Debug, Default)]
pub struct TableOptions {
    /// Conditions that all rows fulfil.
    pub conditions: Vec<Condition>,
    /// The fields of the rows; all if `None`.
    pub columns: Option<Vec<String>>,
    /// Mirrors groups of rows in place of rows. The key of a group is a JSON array of its
    /// bucket and its values of `by`.
    pub roll_up: Option<RollUp>,
    /// Whether changes may be merged.
    pub mode: Mode,
    /// The minimum time between two changes, in milliseconds; 0 for no minimum.
    pub rate_ms: u64,
    /// The fields that the program relies on. If a version of the projection removes one of them
    /// that the subscription uses, or gives it another kind, the table ends with
    /// [`crate::Error::Shape`]. Fields that are added have no effect. Not checked if `None`.
    pub shape: Option<TableShape>,
    /// The state of an earlier subscription from which this one continues.
    pub resume: Option<Resume>,
}

impl TableOptions {
    /// Adds a condition that all rows fulfil: a field, an operator (`=`, `!=`, `<`, `<=`,
    /// `>`, `>=`, `in` or `prefix`) and a value.
    #[must_use]
    pub fn condition(mut self, field: &str, operator: &str, value: impl Into<Value>) -> Self {
        self.conditions.push((field.into(), operator.into(), value.into()));
        self
    }

    /// Names the fields that the program relies on, each with its kind: `integer`, `number`,
    /// `text`, `boolean`, `timestamp`, `json`, `distinct` or `percentiles`. See
    /// [`TableOptions::shape`].
    #[must_use]
    pub fn written_for<'a>(mut self, fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let fields = fields.into_iter().map(|(name, kind)| (name.to_owned(), kind.to_owned()));
        self.shape = Some(TableShape { fields: fields.collect(), ..TableShape::default() });
        self
    }

    /// Chooses the fields of the rows.
    #[must_use]
    pub fn columns<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.columns = Some(names.into_iter().map(str::to_owned).collect());
        self
    }
}

/// The point that an earlier subscription had reached, even in another process: its token
/// ([`crate::Table::resume_token`]) and the rows at the same moment ([`crate::Table::rows`]).
/// [`crate::Table::saved`] returns both.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    /// The token of the subscription.
    pub token: String,
    /// The rows of the table when the token was read.
    pub rows: BTreeMap<String, Row>,
}
