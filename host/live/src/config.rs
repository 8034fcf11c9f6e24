//! Defines the settings of the feed. Their defaults are the limits that docs/feed.md states.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The feed's configuration. Every limit a session can meet is here.
// Long because each field is a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LiveConfig {
    /// The interval at which the server sends a `ping` and, on an idle subscription, a
    /// `tick`, in milliseconds. Default 15,000.
    pub heartbeat_ms: u64,
    /// A session that sends nothing for this time after a `ping` is closed with 4504,
    /// in milliseconds. Default 10,000.
    pub pong_ms: u64,
    /// A session that has not sent `hello` within this time is closed with 4400, in
    /// milliseconds. Default 5,000.
    pub hello_ms: u64,
    /// How long the server waits for the client's close frame when it closes a session,
    /// in milliseconds. Default 1,000.
    pub close_ms: u64,
    /// A session whose connection accepts no byte for this time is closed, in
    /// milliseconds. Default 10,000.
    pub stall_ms: u64,
    /// If commits leave the rows of a subscription unchanged, it gets a `tick` at this
    /// interval, in milliseconds. Default 1,000.
    pub tick_ms: u64,
    /// The acknowledgement window: how many data frames (`snap`, `delta`, `tick`) of a
    /// session may be unacknowledged. Default 32.
    pub window: u32,
    /// The maximum number of sessions at a time. A further one is closed with 4429.
    /// Default 20,000.
    pub sessions_max: usize,
    /// The maximum number of subscriptions of a session. Default 64.
    pub subs_max: usize,
    /// The maximum size of a frame to a client, in bytes, at least 4,096. Larger
    /// snapshots and deltas are sent in parts. Default 262,144.
    pub frame_bytes_max: usize,
    /// The maximum size of a message from a client, in bytes. A larger one closes the
    /// session with 4413. Default 65,536.
    pub message_bytes_max: usize,
    /// The maximum number of rows in a snapshot. A subscription to a larger table ends
    /// with an error. Default 1,000,000.
    pub snapshot_rows_max: u64,
    /// The maximum time until a client has received a snapshot, or a delta in parts, in
    /// milliseconds. After it the session is closed with 4502. This limits how long
    /// read transactions of the store stay open. Default 30,000.
    pub snapshot_ms_max: u64,
    /// The maximum number of snapshots and resumes that are read from the store at a
    /// time. Default 8.
    pub snapshot_readers: usize,
    /// A snapshot of at most this size, in bytes, is encoded once and shared by all
    /// subscribers that need it. Default 1 MiB.
    pub snapshot_shared_bytes_max: usize,
    /// The maximum number of keys whose changes are merged for a slow client. If there
    /// are more, the client gets a new snapshot. Default 10,000.
    pub merge_keys_max: usize,
    /// The maximum size of the changes that are merged for a slow client, in bytes. If
    /// they are larger, the client gets a new snapshot. Default 4 MiB.
    pub merge_bytes_max: usize,
    /// The maximum size of the merged changes of all sessions together, in bytes. If it
    /// is exceeded, slow clients get new snapshots. Default 256 MiB.
    pub merge_total_bytes_max: usize,
    /// The number of a projection's newest commits that are kept in memory for its
    /// subscribers. Subscribers that are further behind are served from the change log.
    /// Default 1,024.
    pub ring_commits_max: usize,
    /// The maximum size of these commits in memory, in bytes. Default 8 MiB.
    pub ring_bytes_max: usize,
    /// The pause between two reads of merged rows of a projection over several
    /// partitions, in milliseconds. Default 10.
    pub partitions_ms: u64,
    /// The pause after each update of a projection's roll-ups, in milliseconds. The pause is at
    /// least as long as the update took. Default 20.
    pub roll_up_ms: u64,
    /// How often the whole table is read for a roll-up that cannot be computed from the changes
    /// alone, such as a `max` whose largest value was deleted, in milliseconds. At most a fifth of
    /// the time is spent on these reads. Default 1,000.
    pub roll_up_scan_ms: u64,
    /// The maximum number of different roll-ups that have subscribers at a time. Equal roll-ups
    /// count once. A subscription to a further one is refused. Default 256.
    pub roll_ups_max: usize,
    /// The maximum size of all roll-ups in memory together, with their newest changes and
    /// snapshots, in bytes. If a roll-up would exceed it, its subscriptions end. Default 256 MiB.
    pub roll_up_bytes_max: usize,
    /// The WebSocket read buffer of a session, in bytes. It is small because clients
    /// send only short messages. Default 1,024.
    pub read_buffer_bytes: usize,
    /// The WebSocket write buffer of a session, in bytes. Only control frames pass
    /// through it. Default 4,096.
    pub write_buffer_bytes: usize,
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self {
            heartbeat_ms: 15_000,
            pong_ms: 10_000,
            hello_ms: 5_000,
            close_ms: 1_000,
            stall_ms: 10_000,
            tick_ms: 1_000,
            window: 32,
            sessions_max: 20_000,
            subs_max: 64,
            frame_bytes_max: 256 << 10,
            message_bytes_max: 64 << 10,
            snapshot_rows_max: 1_000_000,
            snapshot_ms_max: 30_000,
            snapshot_readers: 8,
            snapshot_shared_bytes_max: 1 << 20,
            merge_keys_max: 10_000,
            merge_bytes_max: 4 << 20,
            merge_total_bytes_max: 256 << 20,
            ring_commits_max: 1_024,
            ring_bytes_max: 8 << 20,
            partitions_ms: 10,
            roll_up_ms: 20,
            roll_up_scan_ms: 1_000,
            roll_ups_max: 256,
            roll_up_bytes_max: 256 << 20,
            read_buffer_bytes: 1_024,
            write_buffer_bytes: 4_096,
        }
    }
}

/// A setting that cannot work.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{name}` is {value}, and must be at least {least}")]
pub struct LiveConfigError {
    /// The setting's name.
    pub name: &'static str,
    /// The value of the setting.
    pub value: u64,
    /// The smallest value that the setting may have.
    pub least: u64,
}

/// The maximum number of bytes that a token and the offsets take in a frame, for each partition.
const PARTITION_BYTES: usize = 96;
/// The smallest size of a frame that still has room for rows in addition to a token.
const FRAME_BYTES_LEAST: usize = 4_096;

impl LiveConfig {
    /// Checks that no setting is below its minimum.
    ///
    /// # Errors
    /// Returns [`LiveConfigError`] for the first setting that is too small.
    pub fn check(&self) -> Result<(), LiveConfigError> {
        let settings = [
            ("heartbeat_ms", self.heartbeat_ms, 1),
            ("pong_ms", self.pong_ms, 1),
            ("hello_ms", self.hello_ms, 1),
            ("window", u64::from(self.window), 1),
            ("frame_bytes_max", self.frame_bytes_max as u64, FRAME_BYTES_LEAST as u64),
            ("message_bytes_max", self.message_bytes_max as u64, 256),
            ("snapshot_readers", self.snapshot_readers as u64, 1),
            ("ring_commits_max", self.ring_commits_max as u64, 1),
            ("read_buffer_bytes", self.read_buffer_bytes as u64, 64),
        ];
        for (name, value, least) in settings {
            if value < least {
                return Err(LiveConfigError { name, value, least });
            }
        }
        Ok(())
    }

    /// Returns the number of bytes that one frame has for rows or changes, after the header, the
    /// epoch, the offsets and the token.
    pub(crate) fn part_bytes(&self, epoch: &str, partitions: usize) -> usize {
        let header = 512 + 3 * epoch.len() + PARTITION_BYTES * partitions;
        self.frame_bytes_max.saturating_sub(header).max(FRAME_BYTES_LEAST / 2)
    }
}

/// Converts a number of milliseconds to a duration.
pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_pass_their_own_check_and_unknown_settings_are_refused() {
        assert_eq!(LiveConfig::default().check(), Ok(()));
        let error = LiveConfig { window: 0, ..LiveConfig::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "`window` is 0, and must be at least 1");
        assert!(serde_json::from_str::<LiveConfig>(r#"{"windwo":3}"#).is_err());
    }
}
