//! Tracks the commits of a shard that are not durable yet.

use lantern_core::{ShardMeta, Space, Writes};
use redb::Database;

use crate::commit_reader::{CommitOptions, CommitReader, Sync};

/// The commits since the last durable commit. After a disk error, the file contains only the last
/// durable commit. The store then opens the file again and repeats these commits.
#[derive(Default)]
pub(crate) struct Unsynced {
    commits: Vec<Writes>,
    /// The shard's own record in the last durable commit. It identifies the commit, because each
    /// commit has another record.
    durable: Option<Vec<u8>>,
}

impl Unsynced {
    pub(crate) fn is_empty(&self) -> bool {
        self.commits.is_empty()
    }

    /// Sets the record of the durable commit that precedes these commits. It must be called before
    /// the first of them.
    pub(crate) fn start(&mut self, durable: Option<Vec<u8>>) {
        self.durable = durable;
    }

    pub(crate) fn push(&mut self, writes: Writes) {
        self.commits.push(writes);
    }

    /// Removes all commits. The call must follow a durable commit, which contains the removed
    /// commits.
    pub(crate) fn clear(&mut self) {
        (self.commits, self.durable) = (Vec::new(), None);
    }

    /// Repeats the commits that are missing in `db` after its file was opened again.
    pub(crate) fn replay(
        &mut self,
        db: &Database,
        writing: CommitOptions,
    ) -> Result<(), redb::Error> {
        let mut view = CommitReader::new(db)?;
        let Some(from) = self.lacking(view.get(Space::Meta, ShardMeta::KEY)?.as_deref()) else {
            self.clear();
            return Ok(());
        };
        for writes in &self.commits[from..] {
            view.write(db, writes, writing, Sync::Later)?;
            view = CommitReader::new(db)?;
        }
        Ok(())
    }

    /// Returns the index of the first commit that a file with the record `record` does not contain.
    ///
    /// `None` means that the file has a later commit, which contains all of these commits. The
    /// later commit has returned an error, but is durable nevertheless.
    fn lacking(&self, record: Option<&[u8]>) -> Option<usize> {
        if record == self.durable.as_deref() {
            return Some(0);
        }
        let made = self.commits.iter().rposition(|writes| {
            let meta = writes.get(&Space::Meta);
            meta.and_then(|meta| meta.get(ShardMeta::KEY)).flatten() == record
        });
        // When redb closes a file, it makes commits without a sync durable. So the file may contain
        // some of them.
        made.map(|last| last + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_record(record: &[u8]) -> Writes {
        let mut writes = Writes::new();
        writes.entry(Space::Meta).or_default().insert(ShardMeta::KEY, Some(record));
        writes
    }

    #[test]
    fn a_file_that_was_opened_again_gets_the_commits_that_it_lacks() {
        let mut unsynced = Unsynced::default();
        unsynced.start(Some(b"durable".to_vec()));
        ["one", "two"].iter().for_each(|record| unsynced.push(with_record(record.as_bytes())));
        assert_eq!(unsynced.lacking(Some(b"durable")), Some(0));
        assert_eq!(unsynced.lacking(Some(b"one")), Some(1), "redb wrote it when it closed");
        assert_eq!(unsynced.lacking(Some(b"two")), Some(2));
        assert_eq!(unsynced.lacking(Some(b"later")), None, "it contains all of them");
    }
}
