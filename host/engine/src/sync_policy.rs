//! Decides which commits are durable at once, and which become durable with a later commit.
//!
//! The log stores the events durably. So after a crash, the events after the last durable commit
//! can be folded again. A commit needs no sync if all of this is true:
//!
//! * nothing outside of the state depends on the commit;
//! * folding its events again takes little time;
//! * after a crash, readers can be made to wait until the state is as new as what they may have
//!   seen.

use std::time::Duration;

use lantern_core::{Ceiling, Offset, ShardMeta};

use crate::EngineConfig;

/// Whether a commit waits until it is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitSync {
    /// The commit is durable when it has ended. Commits without a sync may follow, up to the
    /// [`Ceiling`] that this commit stores: the offset and commit that they may reach.
    Now,
    /// The commit is durable when it has ended. No commit without a sync may follow before the next
    /// durable commit; the commit closes the ceiling, which is the limit for such commits. So
    /// readers do not have to wait after a crash.
    Close,
    /// The commit becomes durable with the next durable commit.
    Later,
}

/// What is durable of a shard, and what was committed since then.
pub(crate) struct SyncPolicy {
    sync: Duration,
    events_max: u64,
    bytes_max: usize,
    /// The next offset of the last durable commit.
    durable: Offset,
    ceiling: Ceiling,
    /// Whether the last durable commit allows commits without a sync after it. This is so if the
    /// ceiling that it stores, which is the limit for such commits, is above the commit itself.
    open: bool,
    /// The time of the last commit; `None` if it was made before the process started.
    last: Option<Duration>,
    /// Whether readers still have to wait after a crash, until the shard has reached the ceiling:
    /// the stored limit of what they may have seen.
    recovers: bool,
    external: External,
    unsynced: Option<Unsynced>,
}

/// The commits without a sync since the last durable commit.
struct Unsynced {
    /// The time of the first of these commits.
    since: Duration,
    /// The approximate number of bytes that these commits wrote.
    bytes: usize,
}

/// Counters on which something outside of the state depends. A commit that changes one of them is
/// durable.
#[derive(Clone, Copy, PartialEq, Eq)]
struct External {
    parked_total: u64,
    parked_now: u64,
    refused_now: u64,
    decisions: u64,
}

impl External {
    fn of(meta: &ShardMeta) -> Self {
        let ShardMeta { parked_total, parked_now, refused_now, decisions, .. } = *meta;
        Self { parked_total, parked_now, refused_now, decisions }
    }
}

/// A commit that has not been made yet.
pub(crate) struct NextCommit<'a> {
    /// The shard's record. Its commit number is still that of the previous commit.
    pub(crate) meta: &'a ShardMeta,
    /// The approximate number of bytes that the commit writes.
    pub(crate) bytes: usize,
    /// The oldest offset that the log still has, if it is known.
    pub(crate) log_start: Option<Offset>,
    pub(crate) now: Duration,
}

impl SyncPolicy {
    /// Returns the policy of a state whose durable record is `meta`. `recovers` is true if readers
    /// may have seen a later state before a crash.
    pub(crate) fn new(config: &EngineConfig, meta: &ShardMeta, recovers: bool) -> Self {
        Self {
            sync: Duration::from_millis(config.sync_ms),
            events_max: config.unsynced_events_max,
            bytes_max: config.commit_bytes,
            durable: meta.next,
            ceiling: meta.ceiling,
            open: meta.may_be_behind(),
            last: None,
            recovers,
            external: External::of(meta),
            unsynced: None,
        }
    }

    /// Returns whether commits without a sync are allowed at all (`engine.sync_ms`).
    pub(crate) fn is_on(&self) -> bool {
        self.sync > Duration::ZERO
    }

    /// Returns the next offset of the last durable commit.
    pub(crate) fn durable(&self) -> Offset {
        self.durable
    }

    /// Returns whether there is a commit that is not durable.
    pub(crate) fn has_unsynced(&self) -> bool {
        self.unsynced.is_some()
    }

    /// Returns the time at which a durable commit is due, or `None` if none is needed. This commit
    /// makes the commits without a sync durable. If there are none, it closes the ceiling (the
    /// limit that the last durable commit set for them) after a time without commits.
    pub(crate) fn due(&self) -> Option<Duration> {
        match (&self.unsynced, self.last) {
            (Some(unsynced), _) => Some(unsynced.since + self.sync),
            (None, Some(last)) if self.is_open() => Some(last + self.sync),
            (None, _) => None,
        }
    }

    /// Returns how a durable commit is made at the time `now`. If the last commit was long ago, the
    /// next one will probably also come late. The commit then allows no commit without a sync after
    /// it. So a shard with few events syncs each commit, and its readers never wait after a crash.
    pub(crate) fn durable_sync(&self, now: Duration) -> CommitSync {
        let quiet = self.last.is_none_or(|last| now >= last + self.sync);
        if quiet { CommitSync::Close } else { CommitSync::Now }
    }

    /// Returns whether a durable commit is due although nothing was applied.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        self.due().is_some_and(|due| now >= due)
    }

    /// Returns whether readers would have to wait if the server crashed now.
    pub(crate) fn is_open(&self) -> bool {
        self.has_unsynced() || (self.open && !self.recovers)
    }

    /// Notes that readers no longer have to wait after a crash.
    pub(crate) fn end_recovery(&mut self) {
        self.recovers = false;
    }

    /// Returns whether the commit `next` may be without a sync. The version must serve readers.
    pub(crate) fn may_wait(&self, next: &NextCommit<'_>) -> bool {
        let NextCommit { meta, bytes, log_start, now } = next;
        let waiting = self.unsynced.as_ref().map_or(0, |unsynced| unsynced.bytes);
        // The log deletes old events. After a crash it must still have the events after the durable
        // offset.
        let near_start = log_start.is_some_and(|start| {
            start > Offset(0) && self.durable.0 < start.0.saturating_add(self.events_max)
        });
        self.is_on()
            && !self.recovers
            && !self.is_due(*now)
            && waiting + bytes < self.bytes_max
            && meta.next <= self.ceiling.next
            && meta.pos < self.ceiling.commit
            && self.external == External::of(meta)
            && !near_start
    }

    /// Returns the ceiling that a durable commit with the record `meta` stores: how far later
    /// commits without a sync may go. `serves` is true if the version serves readers.
    pub(crate) fn ceiling(&self, meta: &ShardMeta, sync: CommitSync, serves: bool) -> Ceiling {
        let more =
            if serves && sync == CommitSync::Now && self.is_on() { self.events_max } else { 0 };
        let ceiling = Ceiling {
            next: Offset(meta.next.0.saturating_add(more)),
            commit: meta.pos.saturating_add(more),
        };
        if !self.recovers {
            return ceiling;
        }
        // If the process dies again, readers wait for the same ceiling (the limit of what they may
        // have seen) as before.
        Ceiling {
            next: ceiling.next.max(self.ceiling.next),
            commit: ceiling.commit.max(self.ceiling.commit),
        }
    }

    /// Notes that a commit that began at `now` has succeeded. A commit that is not new only made
    /// the previous commit durable.
    pub(crate) fn committed(
        &mut self,
        meta: &ShardMeta,
        sync: CommitSync,
        bytes: usize,
        now: Duration,
        is_new: bool,
    ) {
        if is_new {
            self.last = Some(now);
        }
        if sync == CommitSync::Later {
            let unsynced = self.unsynced.get_or_insert(Unsynced { since: now, bytes: 0 });
            unsynced.bytes += bytes;
            return;
        }
        self.unsynced = None;
        (self.durable, self.ceiling) = (meta.next, meta.ceiling);
        self.open = meta.may_be_behind();
        self.external = External::of(meta);
    }
}

/// The state that a shard must reach after a crash before readers may read its tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecoveryTarget(Ceiling);

impl RecoveryTarget {
    /// Returns the target of a state whose record is `meta`.
    pub(crate) fn of(meta: &ShardMeta) -> Self {
        Self(meta.ceiling)
    }

    /// Returns whether all events whose results readers may have seen before a crash are folded
    /// again. For this, the next offset in `meta` must have reached the ceiling (the highest offset
    /// whose results readers may have seen), or the shard must be `at_end` of the log. In both
    /// cases the timers that are due there must also have fired (`ticked`).
    pub(crate) fn is_reached(&self, meta: &ShardMeta, ticked: bool, at_end: bool) -> bool {
        ticked && (at_end || meta.next >= self.0.next)
    }

    /// Returns the highest offset for which readers may have to wait.
    pub(crate) fn offset(&self) -> Offset {
        self.0.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(meta: &ShardMeta) -> SyncPolicy {
        let config = EngineConfig {
            sync_ms: 1_000,
            unsynced_events_max: 10,
            commit_bytes: 100,
            ..EngineConfig::default()
        };
        let mut policy = SyncPolicy::new(&config, meta, false);
        let ceiling = policy.ceiling(meta, CommitSync::Now, true);
        policy.committed(&ShardMeta { ceiling, ..meta.clone() }, CommitSync::Now, 0, at(0), false);
        policy
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn meta(next: u64, pos: u64) -> ShardMeta {
        ShardMeta { next: Offset(next), pos, ..ShardMeta::default() }
    }

    #[test]
    fn a_commit_waits_for_its_sync_only_within_all_bounds() {
        let policy = policy(&meta(100, 7));
        let waits = |meta: &ShardMeta, bytes, log_start: Option<u64>, ms| {
            let log_start = log_start.map(Offset);
            policy.may_wait(&NextCommit { meta, bytes, log_start, now: at(ms) })
        };
        assert!(waits(&meta(110, 16), 99, Some(0), 0));
        assert!(!waits(&meta(111, 16), 0, None, 0), "past the ceiling");
        assert!(!waits(&meta(110, 17), 0, None, 0), "past the number that is stored");
        assert!(!waits(&meta(101, 8), 100, None, 0), "too many bytes");
        assert!(!waits(&meta(101, 8), 0, Some(91), 0), "the log may delete what it needs");
        assert!(waits(&meta(101, 8), 0, Some(90), 0));
        for external in [
            ShardMeta { parked_now: 1, ..meta(101, 8) },
            ShardMeta { refused_now: 1, ..meta(101, 8) },
            ShardMeta { decisions: 1, ..meta(101, 8) },
        ] {
            assert!(!waits(&external, 0, None, 0));
        }
    }

    #[test]
    fn commits_wait_for_a_sync_no_longer_than_configured() {
        let mut policy = policy(&meta(100, 7));
        policy.committed(&meta(101, 8), CommitSync::Later, 60, at(5_000), true);
        policy.committed(&meta(102, 9), CommitSync::Later, 30, at(5_900), true);
        assert_eq!(policy.durable(), Offset(100));
        let next = meta(103, 9);
        let waits = |bytes, ms| {
            policy.may_wait(&NextCommit { meta: &next, bytes, log_start: None, now: at(ms) })
        };
        assert!(waits(9, 5_999) && !policy.is_due(at(5_999)));
        assert!(!waits(9, 6_000) && policy.is_due(at(6_000)));
        assert!(!waits(10, 5_999), "the bytes of all of them count");
    }

    #[test]
    fn a_shard_with_few_events_keeps_its_ceiling_closed() {
        let mut policy = policy(&meta(100, 7));
        assert_eq!(policy.durable_sync(at(5_000)), CommitSync::Close, "the first commit");
        let commit = |policy: &mut SyncPolicy, pos, sync, ms, is_new| {
            let ceiling = policy.ceiling(&meta(100 + pos, pos), sync, true);
            let meta = ShardMeta { ceiling, ..meta(100 + pos, pos) };
            policy.committed(&meta, sync, 0, at(ms), is_new);
            meta
        };
        let closed = commit(&mut policy, 8, CommitSync::Close, 5_000, true);
        assert!(!closed.may_be_behind());
        assert_eq!(policy.due(), None, "nothing is open");
        assert_eq!(policy.durable_sync(at(5_999)), CommitSync::Now, "the next one comes soon");
        assert_eq!(policy.durable_sync(at(6_000)), CommitSync::Close);
        assert!(commit(&mut policy, 9, CommitSync::Now, 5_500, true).may_be_behind());
        assert_eq!(policy.due(), Some(at(6_500)), "then it is closed, if nothing follows");
        commit(&mut policy, 10, CommitSync::Later, 5_900, true);
        assert_eq!(policy.due(), Some(at(6_900)));
        // This commit only makes the last commit durable, so it is not counted as a commit of its
        // own.
        commit(&mut policy, 10, CommitSync::Now, 6_900, false);
        assert_eq!(
            (policy.due(), policy.durable_sync(at(6_900))),
            (Some(at(6_900)), CommitSync::Close)
        );
    }

    #[test]
    fn after_a_closing_commit_nobody_waits() {
        let policy = policy(&meta(100, 7));
        let closed = policy.ceiling(&meta(100, 7), CommitSync::Close, true);
        assert_eq!(closed, Ceiling { next: Offset(100), commit: 7 });
        assert_eq!(policy.ceiling(&meta(100, 7), CommitSync::Now, false), closed);
        let open = ShardMeta { ceiling: policy.ceiling, ..meta(100, 7) };
        assert!(open.may_be_behind() && policy.is_open());
        assert!(!ShardMeta { ceiling: closed, ..meta(100, 7) }.may_be_behind());
        assert!(!meta(100, 7).may_be_behind(), "a state of an earlier release");
    }

    #[test]
    fn while_it_recovers_a_shard_keeps_what_readers_wait_for() {
        let ceiling = Ceiling { next: Offset(150), commit: 60 };
        let left = ShardMeta { ceiling, ..meta(100, 7) };
        let config = EngineConfig { sync_ms: 1_000, ..EngineConfig::default() };
        let mut policy = SyncPolicy::new(&config, &left, true);
        for sync in [CommitSync::Now, CommitSync::Close] {
            let kept = policy.ceiling(&meta(120, 61), sync, false);
            assert_eq!(kept, Ceiling { next: Offset(150), commit: 61 });
        }
        assert!(!policy.is_open(), "nothing is to be closed before");
        let next = NextCommit { meta: &left, bytes: 0, log_start: None, now: at(0) };
        assert!(!policy.may_wait(&next));
        policy.end_recovery();
        assert!(policy.is_open() && policy.may_wait(&next));
    }

    #[test]
    fn recovery_ends_past_the_ceiling_or_at_the_end_of_the_log() {
        let target = RecoveryTarget(Ceiling { next: Offset(110), commit: 17 });
        assert!(target.is_reached(&meta(110, 0), true, false));
        assert!(!target.is_reached(&meta(110, 0), false, true), "timers have still to fire");
        assert!(!target.is_reached(&meta(109, 99), true, false));
        assert!(target.is_reached(&meta(105, 0), true, true));
    }
}
