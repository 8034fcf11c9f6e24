//! Keeps the newest commits of a topic whose query has a filter or selects columns. Each commit is
//! kept with only those changes that the topic's readers can see. These changes are computed once
//! for all readers, in the order of the commits.
//!
//! To leave out changes that no reader can see, this module remembers which rows readers have under
//! the keys that changed last. Before the first change of a key, it does not know which row readers
//! have under the key, so it always passes this change on. If the query does not select the row,
//! the change is passed on as a deletion, which has no effect for a reader that does not have the
//! row.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use lantern_core::{FieldSpans, RowShape, TableChanges, TableId};

use crate::LiveConfig;
use crate::delta::rows_of;
use crate::ring::{NewestCommit, RingCommit, RingRange, RingSource};

/// The most keys whose state is remembered. Each takes about 50 bytes.
const KNOWN_MAX: usize = 10_000;

/// The newest commits of a query that selects rows.
#[derive(Default)]
pub(crate) struct SelectedCommits {
    epoch: Option<Arc<str>>,
    /// Commits that change rows of the query, oldest first.
    commits: VecDeque<Arc<RingCommit>>,
    bytes: usize,
    /// Every change after this commit is in `commits`.
    complete_after: u64,
    /// The newest commit of the ring that was processed.
    head: Option<NewestCommit>,
    known: KnownRows,
    /// The newest commit of `commits` for which the sessions were woken.
    offered: u64,
}

impl SelectedCommits {
    /// First processes the commits that `feed` has received since the last call. Then returns at
    /// most `max` commits that come after `commit` of `epoch` and change rows which `shape`
    /// selects.
    pub(crate) fn since(
        &mut self,
        feed: &dyn RingSource,
        (epoch, commit): (&Arc<str>, u64),
        (shape, table): (&RowShape, TableId),
        config: &LiveConfig,
        max: usize,
    ) -> RingRange {
        if !self.advance(feed, epoch, (shape, table), config) {
            return RingRange::Current;
        }
        if commit < self.complete_after {
            return RingRange::Gone;
        }
        let Some(head) = self.head.as_ref().filter(|head| head.commit > commit) else {
            return RingRange::Current;
        };
        let first = self.commits.partition_point(|selected| selected.to <= commit);
        RingRange::of(self.commits.range(first..), max, head, self.complete_after)
    }

    /// Processes new commits, and returns whether some of them change rows of the query. If so,
    /// the caller wakes the sessions.
    pub(crate) fn has_news(
        &mut self,
        feed: &dyn RingSource,
        epoch: &Arc<str>,
        (shape, table): (&RowShape, TableId),
        config: &LiveConfig,
    ) -> bool {
        if !self.advance(feed, epoch, (shape, table), config) {
            return false;
        }
        let newest = self.commits.back().map_or(self.complete_after, |last| last.to);
        std::mem::replace(&mut self.offered, newest) != newest
    }

    /// Processes the commits of `feed` that were not processed yet. Returns `false` if `epoch` is
    /// not the feed's current epoch.
    fn advance(
        &mut self,
        feed: &dyn RingSource,
        epoch: &Arc<str>,
        (shape, table): (&RowShape, TableId),
        config: &LiveConfig,
    ) -> bool {
        loop {
            let Some(oldest) = feed.oldest(epoch) else { return false };
            if self.epoch.as_ref() != Some(epoch) {
                *self = Self { epoch: Some(epoch.clone()), ..Self::default() };
                self.complete_after = oldest;
            }
            let after = self.head.as_ref().map_or(self.complete_after, |head| head.commit);
            match feed.since(epoch, after, table, usize::MAX) {
                RingRange::Current => return true,
                // The ring was replaced: begin with its oldest commit.
                RingRange::Gone => self.epoch = None,
                RingRange::Commits { commits, to, at, .. } => {
                    for commit in commits {
                        self.push(&commit, shape, table, config);
                    }
                    self.head = Some(NewestCommit { commit: to, at });
                    return true;
                }
            }
        }
    }

    fn push(&mut self, commit: &RingCommit, shape: &RowShape, table: TableId, config: &LiveConfig) {
        let Some(changes) = commit.table(table) else { return };
        let changes = self.known.select(changes, shape);
        if changes.up.is_empty() && changes.del.is_empty() {
            return;
        }
        let selected = RingCommit::merged(commit.from, commit.to, commit.at.clone(), vec![changes]);
        self.bytes += selected.bytes();
        self.commits.push_back(Arc::new(selected));
        while self.commits.len() > config.ring_commits_max || self.bytes > config.ring_bytes_max {
            let Some(oldest) = self.commits.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.complete_after = oldest.to;
        }
    }
}

/// What the readers of a query have for the keys that changed last.
#[derive(Default)]
struct KnownRows {
    /// Two hashers with random seeds. Together they compute a hash of 128 bits.
    hashers: [RandomState; 2],
    /// The hash of the row that readers have, by the hash of its key; `None` if they have no
    /// row.
    rows: HashMap<u128, Option<u128>>,
}

impl KnownRows {
    /// The changes that a reader can see.
    fn select(&mut self, changes: &TableChanges, shape: &RowShape) -> TableChanges {
        let mut selected = TableChanges { table: changes.table, ..TableChanges::default() };
        let mut spans = FieldSpans::default();
        for (key, row) in rows_of(changes) {
            let row = row.and_then(|row| shape.apply(row, &mut spans));
            let hash = row.as_deref().map(|row| self.hash(row));
            if self.rows.len() >= KNOWN_MAX {
                self.rows.clear();
            }
            if self.rows.insert(self.hash(key.as_bytes()), hash) == Some(hash) {
                continue;
            }
            match row {
                Some(row) => selected.up.push((key.to_owned(), row.into_owned())),
                None => selected.del.push(key.to_owned()),
            }
        }
        selected
    }

    fn hash(&self, bytes: &[u8]) -> u128 {
        let [high, low] = self.hashers.each_ref().map(|hasher| hasher.hash_one(bytes));
        u128::from(high) << 64 | u128::from(low)
    }
}

#[cfg(test)]
mod tests {
    use lantern_core::{FieldKind, FieldSpec};
    use serde_json::json;

    use super::*;

    fn shape() -> RowShape {
        let field = |name: &str| FieldSpec {
            name: name.into(),
            kind: FieldKind::Integer,
            ..FieldSpec::default()
        };
        let conditions = [("n".to_owned(), ">".to_owned(), json!(0))];
        RowShape::new(&[field("n"), field("m")], &conditions, Some(&["n".to_owned()])).unwrap()
    }

    fn selected(known: &mut KnownRows, key: &str, row: Option<&str>) -> String {
        let mut changes = TableChanges::default();
        match row {
            Some(row) => changes.up.push((key.into(), row.into())),
            None => changes.del.push(key.into()),
        }
        let TableChanges { up, del, .. } = known.select(&changes, &shape());
        let up = up.into_iter().map(|(key, row)| key + &String::from_utf8(row).unwrap());
        up.chain(del.into_iter().map(|key| format!("-{key}"))).collect()
    }

    #[test]
    fn changes_that_no_reader_can_see_are_left_out() {
        let mut known = KnownRows::default();
        for (key, row, expected) in [
            // Readers may have the row from a snapshot, so the first change is passed on.
            ("a", Some(r#"{"n":0,"m":1}"#), "-a"),
            ("a", Some(r#"{"n":-1,"m":1}"#), ""),
            ("a", None, ""),
            ("a", Some(r#"{"n":1,"m":1}"#), r#"a{"n":1}"#),
            ("a", Some(r#"{"n":1,"m":2}"#), ""),
            ("b", Some(r#"{"n":1,"m":2}"#), r#"b{"n":1}"#),
            ("a", Some(r#"{"n":2,"m":2}"#), r#"a{"n":2}"#),
            ("a", None, "-a"),
            ("a", Some(r#"{"n":0}"#), ""),
        ] {
            assert_eq!(selected(&mut known, key, row), expected, "{key} {row:?}");
        }
    }

    #[test]
    fn the_number_of_remembered_keys_is_bounded() {
        let mut known = KnownRows::default();
        for key in 0..2 * KNOWN_MAX + 5 {
            assert_eq!(selected(&mut known, &key.to_string(), None), format!("-{key}"));
            assert!(known.rows.len() <= KNOWN_MAX);
        }
    }
}
