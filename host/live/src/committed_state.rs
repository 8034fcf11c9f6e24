//! Committed states of a projection, and the rows that changed between two of them.

use std::sync::Arc;

use lantern_core::{ChangesSince, Checkpoint, StoreError, TableId, View};
use parking_lot::Mutex;

use crate::delta::MergedChanges;

/// A committed state of a projection, with the view that shows it.
pub(crate) struct CommittedState {
    pub(crate) commit: u64,
    pub(crate) at: Arc<Checkpoint>,
    pub(crate) view: Mutex<View>,
}

impl CommittedState {
    pub(crate) fn new(view: View) -> Arc<Self> {
        let (commit, at) = (view.pos(), Arc::new(view.checkpoint()));
        Arc::new(Self { commit, at, view: Mutex::new(view) })
    }
}

/// A row before and after its change.
type ChangedRow = (Option<Vec<u8>>, Option<Vec<u8>>);
/// The rows of a table that changed between two states; `None` if the change log does not have
/// them.
type ChangedRows = Option<Arc<[ChangedRow]>>;

/// The state to which roll-ups are brought.
pub(crate) struct NewState<'v> {
    pub(crate) epoch: Arc<str>,
    pub(crate) state: Arc<CommittedState>,
    /// The view of `state`.
    pub(crate) view: &'v View,
    /// Whether the projection has more than one partition.
    many: bool,
    /// The changed rows that were read already, with the state and the table.
    read: Vec<(Arc<CommittedState>, TableId, ChangedRows)>,
}

impl<'v> NewState<'v> {
    /// Creates the state `state` of `epoch`, with its view. `many` is whether the projection has
    /// more than one partition.
    pub(crate) fn new(
        epoch: Arc<str>,
        state: Arc<CommittedState>,
        view: &'v View,
        many: bool,
    ) -> Self {
        Self { epoch, state, view, many, read: Vec::new() }
    }

    /// The rows of `table` that changed since the state `old`.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    pub(crate) fn changed_rows(
        &mut self,
        old: &Arc<CommittedState>,
        table: TableId,
    ) -> Result<ChangedRows, StoreError> {
        let known =
            |(of, read, _): &&(Arc<CommittedState>, _, _)| Arc::ptr_eq(of, old) && *read == table;
        if let Some((_, _, rows)) = self.read.iter().find(known) {
            return Ok(rows.clone());
        }
        let rows = self.read_changed_rows(old, table)?;
        self.read.push((old.clone(), table, rows.clone()));
        Ok(rows)
    }

    fn read_changed_rows(
        &self,
        old: &CommittedState,
        table: TableId,
    ) -> Result<ChangedRows, StoreError> {
        let ChangesSince::Commits(commits) = self.view.changes_since(&old.at)? else {
            return Ok(None);
        };
        let tables = commits.iter().flat_map(|commit| &commit.tables);
        let of_table = tables.filter(|changes| changes.table == table);
        let Some(merged) = MergedChanges::of(of_table, usize::MAX) else { return Ok(None) };
        let old = old.view.lock();
        let read = merged.rows().map(|(key, row)| {
            let after =
                if self.many { self.view.get(table, key)? } else { row.map(<[u8]>::to_vec) };
            Ok((old.get(table, key)?, after))
        });
        read.collect::<Result<_, _>>().map(Some)
    }
}
