//! Defines the status of a verification, which the API, the command line and the metrics show.

use serde::{Deserialize, Serialize};

/// How a version's state compares with another fold of the whole log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The verification is in progress.
    #[default]
    Running,
    /// A second fold of the log gives the same state.
    Same,
    /// A second fold of the log gives another state: the state or the log is damaged, or
    /// the plugin is not deterministic.
    Differs,
    /// The states cannot be compared. `reason` contains why.
    Unverifiable,
    /// The host could not fold or read. `reason` contains why.
    Failed,
    /// The verification was stopped before it had a result.
    Stopped,
}

/// A verification of one version, running or ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifyStatus {
    /// The id of the version.
    pub version: String,
    /// The worst verdict of all partitions; `running` while it is in progress.
    pub verdict: Verdict,
    /// Why the verification has this verdict, if that needs an explanation.
    pub reason: Option<String>,
    /// When the verification began, in microseconds since 1970.
    pub started_us: i64,
    /// How long the verification has taken, including pauses, in milliseconds.
    pub took_ms: u64,
    /// How much of the work is done, 0 to 100.
    pub percent: f64,
    /// The number of offsets that were folded again.
    pub events: u64,
    /// The number of steps of the second fold. Its batches have at most 1, 7, 64 or 1,024 events.
    #[serde(default)]
    pub steps: u64,
    /// How many times the plugin's instance was dropped after a step. Each time, a fresh instance
    /// continued.
    #[serde(default)]
    pub instances_dropped: u64,
    /// The number of rows, timers, parked events and counters compared.
    pub rows: u64,
    /// How many of the compared entries differ.
    pub differences: u64,
    /// The result for each partition.
    pub partitions: Vec<VerifiedShard>,
}

/// The result of a verification for one partition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifiedShard {
    /// The number of the partition.
    pub partition: u32,
    /// The verdict for this partition.
    pub verdict: Verdict,
    /// The reason for the verdict, in a sentence.
    pub reason: Option<String>,
    /// The next offset at which both states were compared.
    pub next: u64,
    /// The number of retries and drops of parked events that the second fold repeated.
    pub decisions: u64,
    /// The results for each table, and one result each for timers, parked events and counters.
    pub tables: Vec<VerifiedTable>,
    /// The first difference found.
    pub first: Option<VerifyDifference>,
}

/// The result of comparing one table of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedTable {
    /// The name of the table.
    pub name: String,
    /// The number of rows in the state.
    pub rows: u64,
    /// The number of rows that differ, including those that only one of the two states has.
    pub differences: u64,
    /// The SHA-256 over the rows that the second fold gives.
    pub expected: String,
    /// The SHA-256 over the rows that the state has.
    pub found: String,
}

/// A row that differs between the second fold and the state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyDifference {
    /// The table of the row.
    pub table: String,
    /// The key of the row.
    pub key: String,
    /// The value that the second fold gives; `null` if it gives no row. Long values are cut.
    pub expected: Option<String>,
    /// The value in the state; `null` if it has no row. Long values are cut.
    pub found: Option<String>,
    /// The fields that differ, if both values are JSON objects.
    pub fields: Vec<FieldDifference>,
}

/// A field that differs between two rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldDifference {
    /// The name of the field.
    pub name: String,
    /// The value that the second fold gives, as JSON; `null` if the row lacks the field.
    pub expected: Option<String>,
    /// The value in the state, as JSON; `null` if the row lacks the field.
    pub found: Option<String>,
}

impl VerifyStatus {
    /// Sets the verdict and its reason to those of the partition with the worst verdict.
    pub(super) fn set_overall_verdict(&mut self) {
        use Verdict::{Differs, Failed, Running, Same, Stopped, Unverifiable};
        let worst = [Differs, Failed, Stopped, Unverifiable, Running, Same].into_iter();
        let has = |verdict| self.partitions.iter().find(|p| p.verdict == verdict);
        if let Some(shard) = worst.filter_map(has).next() {
            self.verdict = shard.verdict;
            self.reason.clone_from(&shard.reason);
        }
    }
}
