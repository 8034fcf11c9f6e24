//! The roll-up of a topic: its groups, which are computed once for all subscribers, and their
//! newest changes.
//!
//! The groups are always those of one committed state. A task of the projection brings them to
//! newer states. Subscribers only read the changes that were published.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lantern_core::{Checkpoint, RollUp, RollUpError, RollUpRequest, TableId, View};
use parking_lot::{Mutex, MutexGuard};

use crate::LiveConfig;
use crate::committed_state::{CommittedState, NewState};
use crate::config::ms;
use crate::encode::{BudgetLease, SnapshotParts};
use crate::resources::Resources;
use crate::ring::{NewestCommit, Ring, RingCommit, RingRange};
use crate::shape::{SelectedTable, Shape};
use crate::snapshot::Snapshot;
use crate::subscribe_error::SubscribeError;
use crate::table_info::TableInfo;

/// Limits reads of the whole table for a roll-up to 1/`SCAN_SHARE` of the time.
const SCAN_SHARE: u32 = 5;

/// The roll-up that the subscribers of a topic share.
pub(crate) struct SharedRollUp {
    request: RollUpRequest,
    /// The groups; `None` before the first subscriber and after an error. Locked only on blocking
    /// threads, before the state of the feed and before `published`.
    groups: Mutex<Option<LiveGroups>>,
    published: Mutex<Published>,
}

/// What subscribers can get.
#[derive(Default)]
enum Published {
    #[default]
    Nothing,
    /// The newest changes of the groups.
    Changes { epoch: Arc<str>, ring: Ring },
    /// The roll-up of `epoch` cannot go on.
    Failed { epoch: Arc<str>, error: RollUpError },
}

/// Groups that follow the commits of an epoch.
pub(crate) struct LiveGroups {
    epoch: Arc<str>,
    pub(crate) table: SelectedTable,
    roll_up: Box<dyn RollUp>,
    /// The state whose rows are in the groups.
    state: Arc<CommittedState>,
    /// Whether the groups are not those of `state`, because a read of the table failed.
    incomplete: bool,
    /// When the whole table may be read again.
    scan_at: Instant,
    memory: BudgetLease,
    _open: BudgetLease,
}

/// What [`SharedRollUp::advance`] has done.
#[derive(Default)]
pub(crate) struct Advanced {
    /// Whether subscribers have something new to receive.
    pub(crate) news: bool,
    /// When the roll-up must be advanced again, even if there is no commit.
    pub(crate) due: Option<Instant>,
}

impl SharedRollUp {
    pub(crate) fn new(request: RollUpRequest) -> Self {
        Self { request, groups: Mutex::default(), published: Mutex::default() }
    }

    /// The changes of groups after `commit` of `epoch`.
    ///
    /// # Errors
    /// [`RollUpError`] if the roll-up cannot go on.
    pub(crate) fn since(
        &self,
        (epoch, commit): (&Arc<str>, u64),
        table: TableId,
    ) -> Result<RingRange, RollUpError> {
        match &*self.published.lock() {
            Published::Changes { epoch: of, ring } if of == epoch => {
                Ok(ring.since(commit, table, usize::MAX))
            }
            Published::Failed { epoch: of, error } if of == epoch => Err(error.clone()),
            // An activation is pending, or the groups are not read yet.
            _ => Ok(RingRange::Current),
        }
    }

    /// The commit at the checkpoint `at` of `epoch`, if the changes of groups after it are in
    /// memory.
    pub(crate) fn holds(&self, epoch: &str, at: &Checkpoint) -> Option<u64> {
        match &*self.published.lock() {
            Published::Changes { epoch: of, ring } if **of == *epoch => ring.holds(at),
            _ => None,
        }
    }

    /// Locks the groups. Called only on blocking threads.
    pub(crate) fn groups(&self) -> MutexGuard<'_, Option<LiveGroups>> {
        self.groups.lock()
    }

    /// Reads the groups from the table, and publishes them. `view` is one of `epoch`.
    pub(crate) fn read(
        &self,
        resources: &Resources,
        (epoch, view): (Arc<str>, View),
        table: &TableInfo,
    ) -> Result<LiveGroups, SubscribeError> {
        let config = &resources.config;
        let Some(roll_ups) = &resources.roll_ups else {
            let message = "`rollup` is not supported by this server: leave it out";
            return Err(SubscribeError::NotSupported(message.into()));
        };
        let mut roll_up = roll_ups.roll_up(&table.spec, &self.request)?;
        let open = BudgetLease::take(&resources.roll_ups_open, 1, config.roll_ups_max);
        let open = open.ok_or_else(|| over(Limit::RollUps, config))?;
        roll_up.restart(&view.rows(table.id))?;
        roll_up.publish()?;
        let memory = take_bytes(resources, roll_up.memory_bytes())?;
        let shape = Arc::new(Shape::of_groups(&roll_up.columns(), table));
        let state = CommittedState::new(view);
        let mut ring = Ring::new(config);
        ring.start(NewestCommit { commit: state.commit, at: state.at.clone() });
        *self.published.lock() = Published::Changes { epoch: epoch.clone(), ring };
        Ok(LiveGroups {
            epoch,
            table: SelectedTable { id: table.id, shape },
            roll_up,
            state,
            incomplete: false,
            scan_at: Instant::now(),
            memory,
            _open: open,
        })
    }

    /// Creates a snapshot of the groups at the newest commit that was published.
    pub(crate) fn snapshot(
        &self,
        resources: &Resources,
        live: &LiveGroups,
    ) -> Result<Snapshot, SubscribeError> {
        let config = &resources.config;
        let head = match &*self.published.lock() {
            Published::Changes { ring, .. } => ring.head().cloned(),
            _ => None,
        };
        let NewestCommit { commit, at } = head.expect("the groups were published");
        let groups = live.roll_up.groups();
        if groups.len() as u64 > config.snapshot_rows_max {
            return Err(SubscribeError::too_many_rows(config.snapshot_rows_max));
        }
        let mut encoder = SnapshotParts::new(config.part_bytes(&live.epoch, at.points.len()));
        let mut parts = Vec::new();
        for (key, row) in groups {
            parts.extend(encoder.push(key, row)?);
        }
        parts.push(encoder.finish());
        let lease = take_bytes(resources, parts.iter().map(Bytes::len).sum())?;
        Ok(Snapshot { epoch: live.epoch.clone(), commit, at, parts, _lease: Some(lease) })
    }

    /// Brings the groups to the state `new`, and publishes their changes.
    ///
    /// # Errors
    /// [`RollUpError::Store`] if the table cannot be read: the roll-up must be advanced again.
    /// After another error the roll-up has ended, and subscribers must be woken.
    pub(crate) fn advance(
        &self,
        config: &LiveConfig,
        new: &mut NewState<'_>,
    ) -> Result<Advanced, RollUpError> {
        // If the groups are being read, the reader wakes the task afterwards.
        let Some(mut groups) = self.groups.try_lock() else { return Ok(Advanced::default()) };
        // The groups can be newer than `new` if they were read after it.
        let behind = |live: &&mut LiveGroups| {
            live.epoch == new.epoch && live.state.commit <= new.state.commit
        };
        let Some(live) = groups.as_mut().filter(behind) else { return Ok(Advanced::default()) };
        let advanced = live.follow(config, new).and_then(|due| match due {
            Some(due) => Ok(Advanced { news: false, due: Some(due) }),
            None => Ok(Advanced { news: self.publish(config, live)?, due: None }),
        });
        if let Err(error) = &advanced
            && !matches!(error, RollUpError::Store(_))
        {
            let (epoch, error) = (live.epoch.clone(), error.clone());
            *self.published.lock() = Published::Failed { epoch, error };
            *groups = None;
        }
        advanced
    }

    /// Publishes the changes of the groups. Returns whether there are any.
    fn publish(&self, config: &LiveConfig, live: &mut LiveGroups) -> Result<bool, RollUpError> {
        let mut published = self.published.lock();
        let Published::Changes { ring, .. } = &mut *published else { return Ok(false) };
        let head = ring.head().map_or(0, |head| head.commit);
        if live.state.commit <= head {
            return Ok(false);
        }
        let mut changes = live.roll_up.publish()?;
        changes.table = live.table.id;
        let news = !changes.up.is_empty() || !changes.del.is_empty();
        let tables = if news { vec![changes] } else { Vec::new() };
        let (to, at) = (live.state.commit, live.state.at.clone());
        ring.push(RingCommit::merged(head, to, at, tables));
        resize(&mut live.memory, live.roll_up.memory_bytes() + ring.bytes(), config)?;
        Ok(news)
    }
}

impl LiveGroups {
    /// Whether subscribers of `epoch` can get these groups.
    pub(crate) fn serves(&self, epoch: &str) -> bool {
        *self.epoch == *epoch && !self.incomplete
    }

    /// Brings the groups to the state `new`. If the whole table must be read for that but was read
    /// too recently, returns the time at which it may be read again.
    fn follow(
        &mut self,
        config: &LiveConfig,
        new: &mut NewState<'_>,
    ) -> Result<Option<Instant>, RollUpError> {
        let table = self.table.id;
        if self.incomplete {
            self.restart(new)?;
        } else if self.state.commit < new.state.commit {
            match new.changed_rows(&self.state, table)? {
                Some(rows) => {
                    for (before, after) in &*rows {
                        self.roll_up.change(before.as_deref(), after.as_deref())?;
                    }
                    self.state = new.state.clone();
                }
                None => self.restart(new)?,
            }
        }
        if !self.roll_up.is_stale() {
            return Ok(None);
        }
        let started = Instant::now();
        if started < self.scan_at {
            return Ok(Some(self.scan_at));
        }
        self.incomplete = true;
        self.roll_up.read_stale(&new.view.rows(table))?;
        self.incomplete = false;
        self.scan_at = started + scan_pause(started.elapsed(), config);
        Ok(None)
    }

    fn restart(&mut self, new: &NewState<'_>) -> Result<(), RollUpError> {
        self.incomplete = true;
        self.roll_up.restart(&new.view.rows(self.table.id))?;
        self.incomplete = false;
        self.state = new.state.clone();
        Ok(())
    }
}

/// The time from the start of one read of the table to the start of the next. `took` is the
/// duration of the read.
fn scan_pause(took: Duration, config: &LiveConfig) -> Duration {
    ms(config.roll_up_scan_ms).max(took * SCAN_SHARE)
}

/// A limit on all roll-ups together.
#[derive(Clone, Copy)]
enum Limit {
    RollUps,
    Bytes,
}

fn over(limit: Limit, config: &LiveConfig) -> RollUpError {
    let (what, setting, max) = match limit {
        Limit::RollUps => ("there are more roll-ups", "live.roll_ups_max", config.roll_ups_max),
        Limit::Bytes => (
            "all roll-ups together need more bytes of memory",
            "live.roll_up_bytes_max",
            config.roll_up_bytes_max,
        ),
    };
    let detail = format!("{what} than allowed: the limit is {max} (`{setting}`)");
    RollUpError::Limit { detail, setting: setting.into() }
}

fn take_bytes(resources: &Resources, bytes: usize) -> Result<BudgetLease, RollUpError> {
    let max = resources.config.roll_up_bytes_max;
    let lease = BudgetLease::take(&resources.roll_up_budget, bytes, max);
    lease.ok_or_else(|| over(Limit::Bytes, &resources.config))
}

fn resize(memory: &mut BudgetLease, bytes: usize, config: &LiveConfig) -> Result<(), RollUpError> {
    if memory.resize(bytes, config.roll_up_bytes_max) {
        Ok(())
    } else {
        Err(over(Limit::Bytes, config))
    }
}
