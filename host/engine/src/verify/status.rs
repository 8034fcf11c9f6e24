//! What a verification says: for the API, the command line and metrics.

use serde::{Deserialize, Serialize};

/// How a version's state compares with a second fold of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is still being looked at.
    #[default]
    Running,
    /// Folding the log again gives the same state.
    Same,
    /// Folding the log again gives another state: one of the two is damaged.
    Differs,
    /// It is unknown; the reason says why.
    Unverifiable,
    /// The host could not fold or read; the reason says why.
    Failed,
    /// It was ended before it had an answer.
    Stopped,
}

/// A verification of one version, running or ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifyStatus {
    /// The version.
    pub version: String,
    /// The worst of all partitions; `running` while it goes on.
    pub verdict: Verdict,
    /// Why there is no other verdict, where that needs a reason.
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
    /// After how many of them the plugin's instance was dropped and a fresh one went
    /// on.
    #[serde(default)]
    pub instances_dropped: u64,
    /// Rows, timers, parked events and counters compared.
    pub rows: u64,
    /// Of them, those that differ.
    pub differences: u64,
    /// One a partition.
    pub partitions: Vec<VerifiedShard>,
}

/// One partition of a verification.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifiedShard {
    /// The partition.
    pub partition: u32,
    /// How its state compares.
    pub verdict: Verdict,
    /// Why, in a sentence.
    pub reason: Option<String>,
    /// The position at which both states were compared.
    pub next: u64,
    /// Retries and drops of parked events that were taken again on the way.
    pub decisions: u64,
    /// One a table, and one each for timers, parked events and counters.
    pub tables: Vec<VerifiedTable>,
    /// The first difference.
    pub first: Option<VerifyDifference>,
}

/// A table of a partition, compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedTable {
    /// Its name.
    pub name: String,
    /// How many rows the state has.
    pub rows: u64,
    /// How many of its rows differ, those that only one side has included.
    pub differences: u64,
    /// SHA-256 over the rows that the log gives.
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
    /// What the log gives; `null` for no row. Long values are cut.
    pub expected: Option<String>,
    /// What the state has; `null` for no row. Long values are cut.
    pub found: Option<String>,
    /// Of rows that are JSON objects on both sides, the fields that differ.
    pub fields: Vec<FieldDifference>,
}

/// A field that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldDifference {
    /// The field.
    pub name: String,
    /// What the log gives, as JSON; `null` where the row lacks it.
    pub expected: Option<String>,
    /// What the state has, as JSON; `null` where the row lacks it.
    pub found: Option<String>,
}

impl VerifyStatus {
    /// The sum of its partitions.
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
