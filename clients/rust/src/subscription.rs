//! Implements one subscription on a connection. It applies data frames to the mirrored table, and
//! checks that each frame continues the rows. A snapshot or delta that comes in parts is applied in
//! one step, when its last part has arrived.

use std::collections::BTreeMap;
use std::sync::Arc;

use lantern_api::feed::{Delta, Field, Lag, Snapshot, Tick};

use crate::mirror::{Change, Mirrored, Status};
use crate::row::Row;

/// A subscription on one connection.
pub(crate) struct Subscription {
    pub(crate) mirrored: Arc<Mirrored>,
    /// The number of times that the server has refused the subscription.
    pub(crate) failures: u32,
    /// The channel: the number that the server has given to the subscription when it accepted it.
    pub(crate) ch: u64,
    /// The rows of a snapshot of which not all parts were received.
    snap: Option<BTreeMap<String, Row>>,
    /// The changes of a delta of which not all parts were received.
    delta: Option<DeltaParts>,
    /// A snapshot that is older than the shown rows. It is not shown until deltas have
    /// brought it to the commit of the shown rows, because the client never shows an older
    /// commit after a newer one.
    behind: Option<MirrorLag>,
}

struct MirrorLag {
    commit: u64,
    rows: BTreeMap<String, Row>,
}

#[derive(Default)]
struct DeltaParts {
    from: u64,
    to: u64,
    up: Vec<(String, Row)>,
    del: Vec<String>,
}

/// The commit of the rows after a frame, with the offsets, the token and the lag that the frame
/// contains.
struct FrameEnd {
    to: u64,
    offsets: BTreeMap<u32, u64>,
    token: Option<String>,
    lag: Option<Lag>,
}

/// The error that a delta does not begin at the commit of the table.
pub(crate) struct CommitMismatch;

impl Subscription {
    pub(crate) fn new(mirrored: Arc<Mirrored>, failures: u32) -> Self {
        Self { mirrored, failures, ch: 0, snap: None, delta: None, behind: None }
    }

    /// Notes that the server has accepted the subscription. If the subscription resumes, `commit`
    /// is the number that the server now gives to the commit of the shown rows. It may differ from
    /// the number that the client had.
    pub(crate) fn accepted(
        &mut self,
        fields: Vec<Field>,
        shape: Option<String>,
        commit: Option<u64>,
    ) {
        let mut mirror = self.mirrored.mirror();
        (mirror.fields, mirror.shape) = (fields, shape);
        if let Some(commit) = commit
            && mirror.commit.replace(commit).is_some_and(|before| before != commit)
        {
            self.mirrored.notify(mirror, Change::Resumed { commit });
        }
    }

    /// Drops snapshots and deltas that were received in part, because the server sends a new
    /// snapshot.
    pub(crate) fn reset(&mut self, fields: Option<Vec<Field>>, shape: Option<String>) {
        self.snap = None;
        self.delta = None;
        self.behind = None;
        if let Some(fields) = fields {
            let mut mirror = self.mirrored.mirror();
            (mirror.fields, mirror.shape) = (fields, shape);
        }
        self.mirrored.set_status(Status::CatchingUp);
    }

    /// Collects the parts of a snapshot. The last part replaces all rows at once. Returns whether
    /// the table is up to date.
    pub(crate) fn snap(&mut self, snap: Snapshot) -> bool {
        let Snapshot { epoch, commit, offsets, tok, .. } = snap;
        let rows = self.snap.get_or_insert_default();
        rows.extend(snap.rows.into_iter().map(|(key, row)| (key, Row::from(row))));
        if snap.more {
            return false;
        }
        let rows = self.snap.take().unwrap_or_default();
        self.behind = None;
        let mut mirror = self.mirrored.mirror();
        let same = mirror.epoch.as_ref() == Some(&epoch);
        if same && mirror.commit.is_some_and(|shown| commit < shown) {
            self.behind = Some(MirrorLag { commit, rows });
            return false;
        }
        mirror.rows = rows;
        mirror.commit = Some(commit);
        mirror.offsets = offsets;
        mirror.epoch = Some(epoch.clone());
        mirror.token = tok;
        self.mirrored.notify(mirror, Change::Snapshot { epoch, commit });
        self.live();
        true
    }

    /// Changes the commit of the rows. The rows themselves do not change.
    pub(crate) fn tick(&mut self, tick: Tick) -> Result<bool, CommitMismatch> {
        self.check_from(tick.from)?;
        if self.delta.is_some() {
            return Err(CommitMismatch);
        }
        let Tick { to, lag, offsets, tok: token, .. } = tick;
        let change = Change::Tick { commit: to, lag };
        Ok(self.advance(change, FrameEnd { to, offsets, token, lag }))
    }

    /// Collects the parts of a delta. The last part applies all of them at once.
    pub(crate) fn delta(&mut self, delta: Delta) -> Result<bool, CommitMismatch> {
        self.check_from(delta.from)?;
        let Delta { merged, offsets, tok: token, .. } = delta;
        let fresh = DeltaParts { from: delta.from, to: delta.to, ..DeltaParts::default() };
        let parts = self.delta.get_or_insert(fresh);
        if (parts.from, parts.to) != (delta.from, delta.to) {
            return Err(CommitMismatch);
        }
        parts.up.extend(delta.up.into_iter().map(|(key, row)| (key, Row::from(row))));
        parts.del.extend(delta.del);
        if delta.more {
            return Ok(false);
        }
        let DeltaParts { from, to, up, del } = self.delta.take().unwrap_or_default();
        let change = Change::Delta { from, to, up, del, merged };
        Ok(self.advance(change, FrameEnd { to, offsets, token, lag: None }))
    }

    /// Checks that a delta or tick begins at the commit that this client has.
    fn check_from(&self, from: u64) -> Result<(), CommitMismatch> {
        let behind = self.behind.as_ref().map(|behind| behind.commit);
        let at = behind.or(self.mirrored.mirror().commit);
        if at.is_some_and(|commit| commit != from) { Err(CommitMismatch) } else { Ok(()) }
    }

    /// Applies `change` to the shown rows. If there is an older snapshot that is not shown yet, it
    /// applies `change` to this snapshot instead, and shows the snapshot as soon as it is no longer
    /// older than the shown rows. Returns whether the table is up to date.
    fn advance(&mut self, change: Change, end: FrameEnd) -> bool {
        let FrameEnd { to, offsets, token, lag } = end;
        let mut mirror = self.mirrored.mirror();
        let change = if let Some(mut behind) = self.behind.take() {
            update(&mut behind.rows, &change);
            behind.commit = to;
            if mirror.commit.is_some_and(|shown| to < shown) {
                self.behind = Some(behind);
                return false;
            }
            mirror.rows = behind.rows;
            let epoch = mirror.epoch.clone().unwrap_or_default();
            Change::Snapshot { epoch, commit: to }
        } else {
            update(&mut mirror.rows, &change);
            change
        };
        mirror.commit = Some(to);
        mirror.offsets = offsets;
        mirror.token = token.or(mirror.token.take());
        mirror.lag = lag.or(mirror.lag);
        self.mirrored.notify(mirror, change);
        self.live();
        true
    }

    fn live(&self) {
        self.mirrored.status.send_if_modified(|status| {
            let changed = !status.is_live();
            *status = Status::Live;
            changed
        });
    }
}

/// Applies `change` to `rows`.
fn update(rows: &mut BTreeMap<String, Row>, change: &Change) {
    if let Change::Delta { up, del, .. } = change {
        rows.extend(up.iter().cloned());
        for key in del {
            rows.remove(key);
        }
    }
}
