//! The status of a verification: for the API, the command line and metrics.

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
    /// No comparison is possible; the reason says why.
    Unverifiable,
    /// The host could not fold or read; the reason says why.
    Failed,
    /// It was ended before it had a result.
    Stopped,
}

/// A verification of one version, running or ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifyStatus {
    /// The version.
    pub version: String,
    /// The worst verdict of all partitions; `running` while it is in progress.
    pub verdict: Verdict,
    /// Why it has this verdict, if that needs a reason.
    pub reason: Option<String>,
    /// When it began, microseconds since 1970.
    pub started_us: i64,
    /// How long it has taken, in milliseconds, pauses included.
    pub took_ms: u64,
    /// How much of the work is done, 0 to 100.
    pub percent: f64,
    /// Offsets folded again.
    pub events: u64,
    /// Steps of the second fold, in batches of 1, 7, 64 and 1,024 events at most.
    #[serde(default)]
    pub steps: u64,
    /// How many times the plugin's instance was dropped after a step, and a fresh one
    /// continued.
    #[serde(default)]
    pub instances_dropped: u64,
    /// Rows, timers, parked events and counters compared.
    pub rows: u64,
    /// How many of them differ.
    pub differences: u64,
    /// One entry for each partition.
    pub partitions: Vec<VerifiedShard>,
}

/// One partition of a verification.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifiedShard {
    /// The partition.
    pub partition: u32,
    /// How its state compares.
    pub verdict: Verdict,
    /// The reason for the verdict, in a sentence.
    pub reason: Option<String>,
    /// The next offset at which both states were compared.
    pub next: u64,
    /// Retries and drops of parked events that were taken again during the fold.
    pub decisions: u64,
    /// One entry for each table, and one each for timers, parked events and counters.
    pub tables: Vec<VerifiedTable>,
    /// The first difference.
    pub first: Option<VerifyDifference>,
}

/// A table of a partition, compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedTable {
    /// The name.
    pub name: String,
    /// How many rows the state has.
    pub rows: u64,
    /// How many of its rows differ, including rows that only one side has.
    pub differences: u64,
    /// SHA-256 over the rows that the second fold gives.
    pub expected: String,
    /// SHA-256 over the rows that the state has.
    pub found: String,
}

/// A row that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyDifference {
    /// The table.
    pub table: String,
    /// The row's key.
    pub key: String,
    /// The value that the second fold gives; `null` for no row. Long values are cut.
    pub expected: Option<String>,
    /// The value in the state; `null` for no row. Long values are cut.
    pub found: Option<String>,
    /// The fields that differ, if both values are JSON objects.
    pub fields: Vec<FieldDifference>,
}

/// A field that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldDifference {
    /// The field.
    pub name: String,
    /// The value that the second fold gives, as JSON; `null` if the row lacks the field.
    pub expected: Option<String>,
    /// The value in the state, as JSON; `null` if the row lacks the field.
    pub found: Option<String>,
}

impl VerifyStatus {
    /// Sets the verdict and its reason to the worst of the partitions.
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
