//! Tests the guarantees of the store, with real files.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use lantern_core::{
    KeyRange, PairBuffer, Pairs, PartitionId, ReadStore, Space, TableId, Writes, dump,
};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::disk::faulty::{FaultSwitches, FaultyDisk};
use crate::file::FileKind;

const ROWS: Space = Space::Table(TableId(0));

struct Bench {
    dir: TempDir,
    faults: FaultyDisk,
    state: StateDir,
}

impl Bench {
    fn new() -> Self {
        Self::with(StoreConfig::default())
    }

    fn with(config: StoreConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let faults = FaultyDisk::default();
        let state =
            StateDir::open_on(Arc::new(faults.clone()), dir.path().join("state"), config).unwrap();
        Self { dir, faults, state }
    }

    fn disk(&self) -> &FaultSwitches {
        &self.faults.0
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join("state").join(below)
    }

    fn open(&self, partition: u32) -> Arc<dyn ShardStore> {
        self.state.open(&id(partition)).unwrap()
    }
}

fn id(partition: u32) -> ShardId {
    ShardId {
        projection: "orders".into(),
        version: VersionId("0123456789abcdef".into()),
        rebuild: 0,
        partition: PartitionId(partition),
    }
}

fn writes<const N: usize>(rows: [(&str, Option<&str>); N]) -> Writes {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let rows = rows.map(|(key, value)| (bytes(key), value.map(bytes)));
    Writes::from([(ROWS, rows.into_iter().collect())])
}

fn rows(store: &dyn ReadStore) -> Vec<String> {
    let pairs = store.scan(ROWS, &KeyRange::all(), usize::MAX, false).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    pairs.into_iter().map(|(key, value)| text(key) + "=" + &text(value)).collect()
}

fn damaged_at<T>(result: Result<T, StoreError>, path: &Path, what: &str) {
    let Err(StoreError::Damaged(message)) = result else {
        panic!("must be refused as damaged");
    };
    assert!(message.contains(path.to_str().unwrap()), "{message}");
    assert!(message.contains(what), "{message}");
}

#[test]
fn a_commit_is_seen_at_once_and_after_reopening() {
    let bench = Bench::new();
    {
        let shard = bench.open(3);
        assert!(shard.spaces().unwrap().is_empty());
        assert_eq!(shard.get(ROWS, b"a").unwrap(), None);
        shard.commit(&writes([("b", Some("2")), ("a", Some("1")), ("gone", None)])).unwrap();
        assert_eq!(rows(&*shard), ["a=1", "b=2"]);
        shard.commit(&writes([("a", None), ("b", Some("3"))])).unwrap();
        assert_eq!(shard.get(ROWS, b"a").unwrap(), None);
        assert!(shard.disk_bytes() > 0);
    }
    assert!(bench.path("orders/0123456789abcdef/3.redb").is_file());
    assert_eq!(bench.state.open_files(), 0, "the last handle closes the file");
    assert_eq!(rows(&*bench.open(3)), ["b=3"]);
    // Another [`StateDir`] on the same folder finds the file too.
    let again = StateDir::open(bench.path(""), StoreConfig::default()).unwrap();
    assert_eq!(rows(&*again.open(&id(3)).unwrap()), ["b=3"]);
}

#[test]
fn spaces_are_apart_and_listed_while_they_hold_something() {
    let bench = Bench::new();
    let shard = bench.open(0);
    let spaces = [
        Space::Meta,
        ROWS,
        Space::Table(TableId(12)),
        Space::TimersByTime,
        Space::TimersByKey,
        Space::Parked,
        Space::ParkedSubjects,
        Space::Outbox,
        Space::Changes,
        Space::Expiry,
    ];
    let row = |i: u8| BTreeMap::from([(b"k".to_vec(), Some(vec![i]))]).into();
    shard.commit(&spaces.into_iter().zip((0..).map(row)).collect()).unwrap();
    assert_eq!(shard.spaces().unwrap(), spaces);
    for (space, i) in spaces.into_iter().zip(0..) {
        assert_eq!(shard.get(space, b"k").unwrap(), Some(vec![i]));
    }
    let none = BTreeMap::from([(b"k".to_vec(), None)]);
    shard.commit(&Writes::from([(Space::Parked, none.into())])).unwrap();
    assert!(!shard.spaces().unwrap().contains(&Space::Parked));
}

#[test]
fn a_snapshot_stays_as_it_was_whatever_is_committed_or_dropped() {
    let bench = Bench::new();
    let shard = bench.open(0);
    shard.commit(&writes([("a", Some("1"))])).unwrap();
    let first = shard.snapshot().unwrap();
    for i in 0..50 {
        shard.commit(&writes([("a", Some("2")), (&format!("k{i}"), Some("x"))])).unwrap();
    }
    drop(shard);
    assert_eq!(bench.state.close_idle(), 0);
    assert_eq!(bench.state.close_idle(), 0, "a file that is being read is not idle");
    assert_eq!(rows(&*first), ["a=1"]);
    assert_eq!(first.get(ROWS, b"a").unwrap().unwrap(), b"1");
    assert_eq!(first.spaces().unwrap(), [ROWS]);
    drop(first);
    assert_eq!(bench.state.open_files(), 0);
}

#[test]
fn dropped_snapshots_let_the_file_reuse_its_pages() {
    let bench = Bench::new();
    let shard = bench.open(0);
    let value = "x".repeat(100_000);
    for i in 0..300 {
        drop(shard.snapshot().unwrap());
        shard.commit(&writes([("a", Some(&value)), ("i", Some(&i.to_string()))])).unwrap();
    }
    assert!(shard.disk_bytes() < 4 << 20, "{} bytes for one row", shard.disk_bytes());
}

#[test]
fn a_shard_opened_twice_is_one_state() {
    let bench = Bench::new();
    let (one, two) = (bench.open(0), bench.open(0));
    one.commit(&writes([("a", Some("1"))])).unwrap();
    assert_eq!(rows(&*two), ["a=1"]);
    drop(one);
    two.commit(&writes([("a", Some("2"))])).unwrap();
    assert_eq!(rows(&*two), ["a=2"]);
    assert_eq!(bench.state.open_files(), 1);
}

#[test]
fn idle_files_close_and_open_again_when_used() {
    let bench = Bench::new();
    let shard = bench.open(0);
    shard.commit(&writes([("a", Some("1"))])).unwrap();
    assert_eq!(bench.state.close_idle(), 0, "it was just used");
    assert_eq!(bench.state.close_idle(), 1);
    assert_eq!(bench.state.open_files(), 0);
    assert!(shard.disk_bytes() > 0);
    assert_eq!(rows(&*shard), ["a=1"]);
    assert_eq!(bench.state.open_files(), 1);
    bench.state.close_idle();
    bench.state.close_idle();
    shard.commit(&writes([("b", Some("2"))])).unwrap();
    assert_eq!(rows(&*shard), ["a=1", "b=2"]);
}

#[test]
fn no_more_files_are_open_than_allowed() {
    let bench = Bench::with(StoreConfig { open_files_max: 3, ..StoreConfig::default() });
    let shards: Vec<_> = (0..10).map(|partition| bench.open(partition)).collect();
    for round in ["1", "2"] {
        for shard in &shards {
            shard.commit(&writes([("a", Some(round))])).unwrap();
            assert!(bench.state.open_files() <= 3);
        }
    }
    for shard in &shards {
        assert_eq!(rows(&**shard), ["a=2"]);
    }
    let snapshots: Vec<_> = shards.iter().map(|shard| shard.snapshot().unwrap()).collect();
    assert_eq!(bench.state.open_files(), 10, "files being read are never closed");
    for snapshot in &snapshots {
        assert_eq!(rows(&**snapshot), ["a=2"]);
    }
}

#[test]
fn a_removed_build_is_deleted_and_starts_empty() {
    let bench = Bench::new();
    let rebuilt = ShardId { rebuild: 2, ..id(0) };
    let (old, new) = (bench.open(0), bench.state.open(&rebuilt).unwrap());
    old.commit(&writes([("a", Some("old"))])).unwrap();
    new.commit(&writes([("a", Some("new"))])).unwrap();
    bench.state.remove("orders", &id(0).version, 0).unwrap();
    assert!(!bench.path("orders/0123456789abcdef").exists());
    assert!(old.get(ROWS, b"a").is_err());
    assert!(old.commit(&writes([("a", Some("again"))])).is_err());
    assert!(!bench.path("orders/0123456789abcdef").exists(), "a straggler must not bring it back");
    assert_eq!(rows(&*new), ["a=new"]);
    assert!(rows(&*bench.open(0)).is_empty());
    for rebuild in [0, 2, 2, 9] {
        bench.state.remove("orders", &id(0).version, rebuild).unwrap();
    }
    assert!(!bench.path("orders").exists());
    bench.state.remove("never", &id(0).version, 0).unwrap();
}

#[test]
fn remains_of_a_removed_build_are_deleted_at_the_start() {
    let bench = Bench::new();
    let left = bench.path("orders/0123456789abcdef.removed");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("0.redb"), b"x").unwrap();
    StateDir::open(bench.path(""), StoreConfig::default()).unwrap();
    assert!(!left.exists());
}

#[test]
fn names_that_could_leave_the_folder_are_refused() {
    let bench = Bench::new();
    let long = "a".repeat(129);
    for name in
        ["", ".", "..", "../x", "a/b", "A", "a.b.c", "a.", "a.B", "a\0b", "é", long.as_str()]
    {
        let projection = ShardId { projection: name.into(), ..id(0) };
        let version = ShardId { version: VersionId(name.into()), ..id(0) };
        for shard in [projection, version] {
            assert!(bench.state.open(&shard).is_err(), "{name}");
            let ShardId { projection, version, .. } = shard;
            assert!(bench.state.remove(&projection, &version, 0).is_err(), "{name}");
        }
    }
    let version = ShardId { version: VersionId("a.b".into()), ..id(0) };
    assert!(bench.state.open(&version).is_err());
    let ambiguous = ShardId { version: VersionId("abc-r1".into()), ..id(0) };
    assert!(bench.state.open(&ambiguous).is_err());
    assert_eq!(fs::read_dir(bench.path("")).unwrap().count(), 0);
}

#[test]
fn projections_of_two_tenants_have_two_folders() {
    let bench = Bench::new();
    let keys = ["", "acme", "ACME"].map(|tenant| lantern_core::projection_key(tenant, "orders"));
    let shard = |key: &String| ShardId { projection: key.clone(), ..id(0) };
    for key in &keys {
        let value: &str = key;
        bench.state.open(&shard(key)).unwrap().commit(&writes([("k", Some(value))])).unwrap();
    }
    for key in &keys {
        let row = bench.state.open(&shard(key)).unwrap().get(ROWS, b"k").unwrap();
        assert_eq!(row.as_deref(), Some(key.as_bytes()));
    }
    bench.state.remove(&keys[1], &id(0).version, 0).unwrap();
    assert!(bench.path(&keys[0]).exists() && !bench.path(&keys[1]).exists());
}

#[test]
fn an_error_names_the_file_that_another_process_has_open() {
    let bench = Bench::new();
    let _held = bench.open(0);
    let other = StateDir::open(bench.path(""), StoreConfig::default()).unwrap();
    let path = bench.path("orders/0123456789abcdef/0.redb");
    let Err(StoreError::InUse(refused)) = other.open(&id(0)) else {
        panic!("must be in use");
    };
    assert_eq!(refused, path.display().to_string());
}

#[test]
fn a_file_that_is_not_a_state_is_refused_by_its_path() {
    let bench = Bench::new();
    let path = bench.path("orders/0123456789abcdef/0.redb");
    let reopen = || {
        // A new [`StateDir`] does not know the earlier error, so it opens the file without a pause.
        StateDir::open(bench.path(""), StoreConfig::default()).unwrap().open(&id(0)).map(drop)
    };
    drop(bench.open(0));
    let whole = fs::read(&path).unwrap();
    for foreign in [&b""[..], b"x", &b"no redb file ".repeat(1_000), &whole[..100], &whole[..5_000]]
    {
        fs::write(&path, foreign).unwrap();
        damaged_at(reopen(), &path, "");
        assert_eq!(fs::read(&path).unwrap(), foreign, "a refused file is left as it is");
    }
    fs::remove_file(&path).unwrap();
    redb::Database::create(&path).unwrap();
    damaged_at(reopen(), &path, "not one of Lantern's");
    fs::remove_file(&path).unwrap();
    drop(crate::CatalogFile::open(&path).unwrap());
    damaged_at(reopen(), &path, "of kind `catalog`, not `state`");
    fs::remove_file(&path).unwrap();
    let later = FileKind { format: STATE.format + 1, ..STATE };
    drop(
        DatabaseFile::new(path.clone(), later, 1 << 20, Arc::new(SystemDisk))
            .open_or_create()
            .unwrap(),
    );
    damaged_at(reopen(), &path, "has format 4, and this release reads formats up to 3");
    fs::remove_file(&path).unwrap();
    let earlier = FileKind { format: STATE.earliest - 1, earliest: 1, ..STATE };
    drop(
        DatabaseFile::new(path.clone(), earlier, 1 << 20, Arc::new(SystemDisk))
            .open_or_create()
            .unwrap(),
    );
    damaged_at(reopen(), &path, "has format 2 of an earlier release");
    fs::write(&path, whole).unwrap();
    reopen().unwrap();
}

#[test]
fn damage_in_the_header_is_refused_or_harmless_but_never_a_panic() {
    let bench = Bench::new();
    let path = bench.path("orders/0123456789abcdef/0.redb");
    {
        let shard = bench.open(0);
        shard.commit(&writes([("a", Some("1")), ("b", Some("2"))])).unwrap();
    }
    let whole = fs::read(&path).unwrap();
    for at in 0..320 {
        let mut file = OpenOptions::new().write(true).open(&path).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(&[whole[usize::try_from(at).unwrap()] ^ 0x41]).unwrap();
        drop(file);
        let state = StateDir::open(bench.path(""), StoreConfig::default()).unwrap();
        match state.open(&id(0)) {
            Ok(shard) => assert_eq!(rows(&*shard), ["a=1", "b=2"], "byte {at}"),
            Err(StoreError::Damaged(message)) => assert!(message.contains("0.redb"), "{message}"),
            Err(e) => panic!("byte {at}: {e}"),
        }
        drop(state);
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn a_check_finds_damage_wherever_it_is() {
    let bench = Bench::new();
    let path = bench.path("orders/0123456789abcdef/0.redb");
    let row = |i: u32| (format!("k{i:04}").into_bytes(), Some(vec![7; 100]));
    let all: BTreeMap<_, _> = (0..200).map(row).collect();
    let expected: Pairs = all.iter().map(|(k, v)| (k.clone(), v.clone().unwrap())).collect();
    bench.open(0).commit(&Writes::from([(ROWS, all.into())])).unwrap();
    bench.state.check(&id(0)).unwrap();
    let whole = fs::read(&path).unwrap();
    let (mut detected, mut wrong) = (0, 0);
    for at in (320..whole.len()).step_by(509) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x41;
        fs::write(&path, &bytes).unwrap();
        let state = StateDir::open(bench.path(""), StoreConfig::default()).unwrap();
        let read = state.open(&id(0)).and_then(|s| s.scan(ROWS, &KeyRange::all(), 999, false));
        let unharmed = read.is_ok_and(|pairs| pairs == expected);
        match state.check(&id(0)) {
            Ok(()) => assert!(unharmed, "byte {at} was not found"),
            Err(StoreError::Damaged(message)) => {
                assert!(message.contains("0.redb"), "{message}");
                detected += 1;
            }
            Err(e) => panic!("byte {at}: {e}"),
        }
        wrong += u32::from(!unharmed);
    }
    assert!(detected > 0 && wrong > 0, "the damage must have hit something: {detected}, {wrong}");
}

#[test]
fn a_half_created_file_is_created_again() {
    let bench = Bench::new();
    let folder = bench.path("orders/0123456789abcdef");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("0.redb.new"), b"half").unwrap();
    bench.open(0).commit(&writes([("a", Some("1"))])).unwrap();
    assert_eq!(rows(&*bench.open(0)), ["a=1"]);
    assert!(!folder.join("0.redb.new").exists());
}

#[test]
fn a_file_that_vanished_is_an_error_and_not_an_empty_state() {
    let bench = Bench::new();
    let shard = bench.open(0);
    shard.commit(&writes([("a", Some("1"))])).unwrap();
    bench.state.close_idle();
    bench.state.close_idle();
    let path = bench.path("orders/0123456789abcdef/0.redb");
    fs::remove_file(&path).unwrap();
    damaged_at(shard.get(ROWS, b"a"), &path, "is gone");
    damaged_at(shard.commit(&writes([("b", Some("2"))])), &path, "is gone");
}

#[test]
fn after_a_full_disk_nothing_is_visible_and_the_next_commit_works() {
    let bench = Bench::new();
    let shard = bench.open(0);
    shard.commit(&writes([("a", Some("1"))])).unwrap();
    for _ in 0..3 {
        bench.disk().full.store(true, Ordering::SeqCst);
        let large = "x".repeat(3 << 20);
        let failed = shard.commit(&writes([("a", Some("2")), ("b", Some(&large))]));
        assert!(matches!(failed, Err(StoreError::Full(_))), "{failed:?}");
        bench.disk().full.store(false, Ordering::SeqCst);
        assert_eq!(rows(&*shard), ["a=1"]);
    }
    shard.commit(&writes([("c", Some("3"))])).unwrap();
    drop(shard);
    assert_eq!(rows(&*bench.open(0)), ["a=1", "c=3"]);
}

#[test]
fn while_the_disk_stays_full_reads_say_so_and_recover() {
    let bench = Bench::new();
    let shard = bench.open(0);
    shard.commit(&writes([("a", Some("1"))])).unwrap();
    bench.disk().full.store(true, Ordering::SeqCst);
    assert!(shard.commit(&writes([("a", Some("2"))])).is_err());
    // The file was closed in the middle of a commit. To open it again, redb must write to it.
    assert!(matches!(shard.get(ROWS, b"a"), Err(StoreError::Full(_))));
    bench.disk().full.store(false, Ordering::SeqCst);
    let deadline = Instant::now() + Duration::from_secs(10);
    let value = loop {
        match shard.get(ROWS, b"a") {
            Ok(value) => break value,
            Err(e) => assert!(Instant::now() < deadline, "{e}"),
        }
    };
    assert_eq!(value.unwrap(), b"1");
    shard.commit(&writes([("a", Some("3"))])).unwrap();
    assert_eq!(rows(&*shard), ["a=3"]);
}

#[test]
fn a_failed_sync_fails_the_commit_and_leaves_it_whole_or_absent() {
    let bench = Bench::new();
    let shard = bench.open(0);
    shard.commit(&writes([("a", Some("1")), ("b", Some("1"))])).unwrap();
    bench.disk().sync_fails.store(true, Ordering::SeqCst);
    let failed = shard.commit(&writes([("a", Some("2")), ("b", Some("2"))]));
    assert!(matches!(failed, Err(StoreError::Io(_))), "{failed:?}");
    bench.disk().sync_fails.store(false, Ordering::SeqCst);
    let stored = rows(&*shard);
    assert!(stored == ["a=1", "b=1"] || stored == ["a=2", "b=2"], "{stored:?}");
    shard.commit(&writes([("a", Some("3"))])).unwrap();
    assert_eq!(shard.get(ROWS, b"a").unwrap().unwrap(), b"3");
}

#[test]
fn files_that_are_opened_while_many_are_get_less_memory() {
    let mib = |of: usize| of << 20;
    let part = |cache_bytes, open: usize| {
        let bench = Bench::with(StoreConfig { cache_bytes, ..StoreConfig::default() });
        (0..open).for_each(|_| bench.state.files.opened());
        bench.state.files.cache_bytes()
    };
    assert_eq!([0, 7, 15, 31, 200].map(|n| part(mib(64), n)), [64, 64, 32, 16, 8].map(mib));
    assert_eq!([0, 200].map(|n| part(mib(1_024), n)), [512, 8].map(mib));
    assert_eq!([0, 200].map(|n| part(0, n)), [0, 0]);
}

#[test]
fn a_failed_read_closes_the_file_and_the_next_opens_it_again() {
    let config = StoreConfig { cache_bytes: 0, ..StoreConfig::default() };
    let bench = Bench::with(config);
    let shard = bench.open(0);
    let row = |i: u32| (format!("k{i}").into_bytes(), Some(vec![0; 100]));
    // There are more rows than redb keeps in memory, which is one page for each table.
    shard.commit(&Writes::from([(ROWS, (0..1_000).map(row).collect())])).unwrap();
    shard.commit(&writes([("a", Some("1"))])).unwrap();
    let snapshot = shard.snapshot().unwrap();
    bench.disk().read_fails.store(true, Ordering::SeqCst);
    assert!(matches!(shard.get(ROWS, b"a"), Err(StoreError::Io(_))));
    bench.disk().read_fails.store(false, Ordering::SeqCst);
    assert_eq!(shard.get(ROWS, b"a").unwrap().unwrap(), b"1");
    assert!(snapshot.get(ROWS, b"a").is_err(), "its file was closed");
    shard.commit(&writes([("a", Some("2"))])).unwrap();
    drop(snapshot);
    assert_eq!(shard.get(ROWS, b"a").unwrap().unwrap(), b"2");
}

#[test]
fn scratch_states_are_apart_and_take_no_disk() {
    let bench = Bench::new();
    let (one, two) = (bench.state.scratch().unwrap(), bench.state.scratch().unwrap());
    one.commit(&writes([("a", Some("1"))])).unwrap();
    let before = one.snapshot().unwrap();
    one.commit(&writes([("a", Some("2"))])).unwrap();
    assert_eq!(rows(&*before), ["a=1"]);
    assert_eq!(rows(&*one), ["a=2"]);
    assert!(rows(&*two).is_empty());
    assert_eq!(one.disk_bytes(), 0);
    assert_eq!(fs::read_dir(bench.path("")).unwrap().count(), 0);
}

#[test]
fn a_temporary_state_is_on_disk_and_goes_with_its_last_handle() {
    let bench = Bench::new();
    let folder = bench.path(".temporary");
    {
        let state = bench.state.temporary().unwrap();
        state.commit(&writes([("a", Some("1"))])).unwrap();
        assert_eq!(rows(&*state), ["a=1"]);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    fs::write(folder.join("7.redb"), b"left by a crash").unwrap();
    StateDir::open(bench.path(""), StoreConfig::default()).unwrap();
    assert!(!folder.exists());
}

#[test]
fn equal_states_dump_alike_however_they_were_committed() {
    let bench = Bench::new();
    let (one, two) = (bench.open(0), bench.state.scratch().unwrap());
    let row = |i: u32| (format!("k{i:04}").into_bytes(), Some(i.to_le_bytes().to_vec()));
    one.commit(&Writes::from([(ROWS, (0..3_000).map(row).collect())])).unwrap();
    for i in (0..30).rev() {
        let some = (i * 100..(i + 1) * 100).map(row).collect();
        two.commit(&Writes::from([(ROWS, some)])).unwrap();
    }
    assert_eq!(dump::first_difference(&*one, &*two).unwrap(), None);
    assert_eq!(dump::hash(&*one).unwrap(), dump::hash(&*two).unwrap());
    two.commit(&writes([("k2000", Some("other"))])).unwrap();
    let difference = dump::first_difference(&*one, &*two).unwrap().unwrap();
    assert_eq!((difference.space, &difference.key[..]), (ROWS, &b"k2000"[..]));
    assert_ne!(dump::hash(&*one).unwrap(), dump::hash(&*two).unwrap());
}

#[test]
fn readers_on_other_threads_see_whole_commits_only() {
    let config = StoreConfig { open_files_max: 1, idle_close_ms: 0, ..StoreConfig::default() };
    let bench = Bench::with(config);
    let (shard, other) = (bench.open(0), bench.open(1));
    shard.commit(&writes([("a", Some("0")), ("b", Some("0"))])).unwrap();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for i in 1..=200 {
                let value = i.to_string();
                shard.commit(&writes([("a", Some(&value)), ("b", Some(&value))])).unwrap();
                // Only one file may be open, so this commit closes the other file.
                other.commit(&writes([("x", Some(&value))])).unwrap();
            }
        });
        for _ in 0..2 {
            threads.spawn(|| {
                let mut last = 0;
                while last < 200 {
                    let pairs = shard.scan(ROWS, &KeyRange::all(), 9, false).unwrap();
                    assert_eq!(pairs[0].1, pairs[1].1);
                    let value = std::str::from_utf8(&pairs[0].1).unwrap().parse::<u32>().unwrap();
                    assert!(value >= last);
                    last = value;
                    shard.get(ROWS, b"a").unwrap().unwrap();
                }
            });
        }
    });
    assert_eq!(rows(&*shard), ["a=200", "b=200"]);
}

#[test]
fn unknown_settings_are_refused() {
    let config: StoreConfig = serde_json::from_str(r#"{"open_files_max": 7}"#).unwrap();
    assert_eq!(config, StoreConfig { open_files_max: 7, ..StoreConfig::default() });
    assert!(serde_json::from_str::<StoreConfig>(r#"{"cache": 7}"#).is_err());
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(&[0_u8, 1, b'a', 0xFF][..]), 0..4)
}

fn expected(model: &Model, range: &KeyRange, limit: usize, reverse: bool) -> Pairs {
    let within = |key: &[u8]| {
        key >= range.start.as_slice() && range.end.as_ref().is_none_or(|end| key < end.as_slice())
    };
    let mut actual: Pairs =
        model.iter().filter(|(key, _)| within(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
    if reverse {
        actual.reverse();
    }
    actual.truncate(limit);
    actual
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn commits_and_scans_agree_with_a_map(
        commits in prop::collection::vec(
            prop::collection::btree_map(
                key(),
                prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
                0..30,
            ),
            1..6,
        ),
        scans in prop::collection::vec(
            (key(), prop::option::of(key()), 0_usize..20, any::<bool>()),
            1..20,
        ),
    ) {
        let bench = Bench::new();
        let shard = bench.state.scratch().unwrap();
        let mut model = Model::new();
        let mut snapshots = Vec::new();
        for rows in commits {
            shard.commit(&Writes::from([(ROWS, rows.clone().into())])).unwrap();
            for (key, value) in rows {
                match value {
                    Some(value) => model.insert(key, value),
                    None => model.remove(&key),
                };
            }
            snapshots.push((shard.snapshot().unwrap(), model.clone()));
        }
        for (start, end, limit, reverse) in scans {
            let range = KeyRange { start, end };
            for (snapshot, model) in &snapshots {
                let actual = snapshot.scan(ROWS, &range, limit, reverse).unwrap();
                prop_assert_eq!(actual, expected(model, &range, limit, reverse));
                let mut pairs = PairBuffer::default();
                snapshot.scan_into(ROWS, &range, reverse, &mut pairs).unwrap();
                let actual: Pairs = (0..pairs.len())
                    .filter_map(|index| pairs.get(index))
                    .map(|(key, value)| (key.to_vec(), value.to_vec()))
                    .collect();
                prop_assert_eq!(actual, expected(model, &range, usize::MAX, reverse));
            }
            let actual = shard.scan(ROWS, &range, limit, reverse).unwrap();
            prop_assert_eq!(actual, expected(&model, &range, limit, reverse));
        }
        for (key, value) in &model {
            let actual = shard.get(ROWS, key).unwrap();
            prop_assert_eq!(actual.as_ref(), Some(value));
        }
    }
}
