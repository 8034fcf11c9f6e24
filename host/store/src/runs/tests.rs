use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lantern_core::{
    KeyRange, PairBuffer, Pairs, PartitionId, ReadStore, ReadValues, ShardId, ShardStore, Space,
    StateStores, TableId, VersionId, Writes,
};
use proptest::prelude::*;

use super::{Run, RunList};
use crate::{StateDir, StoreConfig};

const TABLE: Space = Space::Table(TableId(3));

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(dir: &Path, run_rows: u64, rows_total_bytes: usize) -> (StateDir, Arc<dyn ShardStore>) {
    let config = StoreConfig { run_rows, rows_total_bytes, ..StoreConfig::default() };
    let states = StateDir::open(dir, config).unwrap();
    let id = ShardId {
        projection: "p".into(),
        version: VersionId("v".into()),
        rebuild: 0,
        partition: PartitionId(0),
    };
    let shard = StateStores::open(&states, &id).unwrap();
    (states, shard)
}

fn key(number: u16) -> Vec<u8> {
    format!("k{number:03}").into_bytes()
}

/// Returns the result that a scan must have according to `model`.
fn expected(model: &Model, range: &KeyRange, limit: usize, reverse: bool) -> Pairs {
    let within =
        |key: &Vec<u8>| *key >= range.start && range.end.as_ref().is_none_or(|end| key < end);
    let rows = model.iter().filter(|(key, _)| within(key));
    let rows = rows.map(|(key, value)| (key.clone(), value.clone()));
    match reverse {
        true => rows.rev().take(limit).collect(),
        false => rows.take(limit).collect(),
    }
}

fn assert_same(store: &dyn ReadStore, model: &Model, ranges: &[(u16, Option<u16>, usize)]) {
    for reverse in [false, true] {
        let all = KeyRange::all();
        let actual = store.scan(TABLE, &all, usize::MAX, reverse).unwrap();
        assert_eq!(actual, expected(model, &all, usize::MAX, reverse));
        for (start, end, limit) in ranges {
            let range = KeyRange { start: key(*start), end: end.map(key) };
            let actual = store.scan(TABLE, &range, *limit, reverse).unwrap();
            assert_eq!(actual, expected(model, &range, *limit, reverse), "{range:?} {reverse}");
            let mut pairs = PairBuffer::default();
            store.scan_into(TABLE, &range, reverse, &mut pairs).unwrap();
            let actual: Pairs = (0..pairs.len())
                .filter_map(|index| pairs.get(index))
                .map(|(key, value)| (key.to_vec(), value.to_vec()))
                .collect();
            let all = expected(model, &range, usize::MAX, reverse);
            assert_eq!(actual, all[..actual.len()], "{range:?} {reverse}");
            assert!(pairs.is_full() || actual.len() == all.len(), "{range:?} {reverse}");
        }
    }
    for number in 0..KEYS {
        let key = key(number);
        assert_eq!(store.get(TABLE, &key).unwrap().as_ref(), model.get(&key), "{key:?}");
    }
    assert_eq!(store.spaces().unwrap().is_empty(), model.is_empty());
}

const KEYS: u16 = 200;

/// An action that a test performs on the state.
#[derive(Clone, Debug)]
enum TestAction {
    /// Commits changes: each key with the size of the value that is written under it, or `None` to
    /// delete the row.
    Commit(Vec<(u16, Option<usize>)>),
    Get(Vec<u16>),
    Look(Vec<(u16, Option<u16>, usize)>),
    Reopen {
        run_rows: u64,
        rows_total_bytes: usize,
    },
}

fn step() -> impl Strategy<Value = TestAction> {
    let bytes = prop_oneof![20 => 0..40_usize, 1 => 40_000..70_000_usize];
    let change = (0..KEYS, prop::option::weighted(0.7, bytes));
    let range = (0..KEYS, prop::option::of(0..KEYS), 0..20_usize);
    prop_oneof![
        10 => prop::collection::vec(change, 0..60).prop_map(TestAction::Commit),
        4 => prop::collection::vec(0..KEYS, 0..100).prop_map(TestAction::Get),
        2 => prop::collection::vec(range, 0..5).prop_map(TestAction::Look),
        1 => (0..12_u64, prop_oneof![Just(0), Just(6_000), Just(1 << 20)])
            .prop_map(|(run_rows, rows_total_bytes)| TestAction::Reopen { run_rows, rows_total_bytes }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Compares the state with a map, through commits of all sizes, snapshots, and files
    /// that are closed and opened again with other settings.
    #[test]
    fn a_table_in_runs_equals_a_map(steps in prop::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let (mut states, mut shard) = open(dir.path(), 4, 1 << 20);
        let mut model = Model::new();
        let mut before = None;
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                TestAction::Commit(changes) => {
                    before = Some((shard.snapshot().unwrap(), model.clone()));
                    let tag = u8::try_from(number).unwrap();
                    let value = |bytes| vec![tag; bytes];
                    let changes: BTreeMap<_, _> =
                        changes.into_iter().map(|(k, v)| (key(k), v.map(value))).collect();
                    for (key, value) in changes.clone() {
                        match value {
                            Some(value) => model.insert(key, value),
                            None => model.remove(&key),
                        };
                    }
                    shard.commit(&Writes::from([(TABLE, changes.into())])).unwrap();
                }
                TestAction::Get(keys) => {
                    let keys: Vec<_> = keys.into_iter().map(key).collect();
                    let sought: Vec<_> = keys.iter().map(Vec::as_slice).collect();
                    let mut values = ReadValues::default();
                    values.begin(keys.len());
                    // The test sets some values in advance, which must not be looked up.
                    (0..keys.len()).step_by(7).for_each(|index| values.set(index, Some(b"known")));
                    shard.get_many(TABLE, &sought, &mut values).unwrap();
                    for (index, key) in keys.iter().enumerate() {
                        let alone = shard.get(TABLE, key).unwrap();
                        prop_assert_eq!(alone.as_ref(), model.get(key));
                        let expected = if index % 7 == 0 { Some(&b"known"[..]) } else { alone.as_deref() };
                        prop_assert_eq!(values.get(index), expected);
                    }
                }
                TestAction::Look(ranges) => {
                    assert_same(&*shard, &model, &ranges);
                    if let Some((snapshot, model)) = &before {
                        assert_same(&**snapshot, model, &ranges);
                    }
                }
                TestAction::Reopen { run_rows, rows_total_bytes } => {
                    before = None;
                    drop((shard, states));
                    (states, shard) = open(dir.path(), run_rows, rows_total_bytes);
                }
            }
        }
        drop(before);
        assert_same(&*shard, &model, &[]);
        drop((shard, states));
        let (_states, shard) = open(dir.path(), 4, 1 << 20);
        assert_same(&*shard, &model, &[(0, None, 1), (7, Some(150), 1_000)]);
    }
}

/// Simulates a commit of `rows` rows, which appends a run of this size or merges runs. Returns the
/// number of rows written.
fn appended(list: &mut RunList, rows: u64, run_rows: u64) -> u64 {
    let from = list.merged_from(rows, run_rows);
    let merged = list.runs.split_off(from).iter().map(|run| run.rows).sum::<u64>() + rows;
    list.runs.push(Run { id: list.next, rows: merged });
    list.next += 1;
    merged
}

#[test]
fn runs_stay_few_and_a_row_is_written_few_times() {
    // All rows are new, so a merge drops no rows.
    for commit in [9, 100, 3_000] {
        let (mut list, mut written, mut most) = (RunList::default(), 0, 0);
        let commits = 2_000;
        for _ in 0..commits {
            written += appended(&mut list, commit, 8);
            most = most.max(list.runs.len());
        }
        let times = written / (commit * commits);
        assert!(most <= 4 * 8, "{most} runs, {commit} rows each");
        assert!(times <= 7, "each row is written {times} times, {commit} a commit");
        let newer: u64 = list.runs[1..].iter().map(|run| run.rows).sum();
        assert!(newer < list.runs[0].rows, "what is newer takes less than what is oldest");
    }
}

/// Measures how many bytes are passed to the operating system when a few of many rows change.
/// Compares tables in runs with tables as trees.
#[test]
fn a_changed_row_among_many_writes_little() {
    let written = |run_rows| {
        let dir = tempfile::tempdir().unwrap();
        let (_states, shard) = open(dir.path(), run_rows, 1 << 30);
        let row = |number: u32| (format!("k{number:08}").into_bytes(), Some(vec![b'x'; 40]));
        for all in 0..4 {
            let rows = (all * 50_000..(all + 1) * 50_000).map(row).collect();
            shard.commit(&Writes::from([(TABLE, rows)])).unwrap();
        }
        let before = bytes_written();
        for part in 0..8_u32 {
            let rows = (0..2_000).map(|n| row((n * 7_919 + part * 104_729) % 200_000)).collect();
            shard.commit(&Writes::from([(TABLE, rows)])).unwrap();
        }
        bytes_written() - before
    };
    let (tree, runs) = (written(0), written(1_024));
    assert!(runs * 5 < tree, "{runs} bytes in runs, {tree} in a tree");
}

/// Returns the bytes that this process has passed to the kernel for writing.
fn bytes_written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap()
}
