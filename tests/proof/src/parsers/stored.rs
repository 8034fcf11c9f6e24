//! Tests the parsers of data that is read from files: chunks and records of the log, records of
//! shards and of the catalogue. If a checksum protects the data, the experiment corrects the
//! checksum after a mutation. Otherwise the parser would refuse every mutation because of the
//! checksum.

use std::fmt::Debug;

use lantern_core::{
    Chunk, Event, EventRef, Events, Manifest, Offset, OutboxEvent, ParkedKind, ParkedRecord,
    PartitionId, ProjectionRecord, ShardMeta, TableChanges, TableId, Timer, Timestamp, VersionId,
    VersionRecord,
};
use lantern_engine::fuzzing as engine;
use lantern_log::{Compression, fuzzing as log};
use serde::Serialize;
use serde::de::DeserializeOwned;

const PARTITION: PartitionId = PartitionId(3);
const FIRST: Offset = Offset(1_000);
const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];

/// Runs the parser of a chunk of the log.
pub fn chunk(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), log::forge_chunk(bytes, PARTITION, FIRST)] {
        match log::chunk(&bytes, PARTITION, FIRST) {
            Ok(chunk) => comes_back(&chunk),
            Err(why) => assert!(!why.is_empty()),
        }
    }
}

fn comes_back(chunk: &Chunk) {
    for compression in COMPRESSIONS {
        let encode = |events| log::encode_chunk(events, compression, PARTITION, FIRST);
        let Some(encoded) = encode(&chunk.events) else { return };
        let again = log::chunk(&encoded, PARTITION, FIRST);
        let again = again.unwrap_or_else(|why| panic!("what was written is refused: {why}"));
        assert!(again.events.iter().eq(chunk.events.iter()), "events changed");
        assert!(encode(&again.events) == Some(encoded), "written otherwise the second time");
    }
}

/// Runs the parser of a record of the log.
pub fn log_record(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), log::forge_record(bytes)] {
        for again in log::record(&bytes).into_iter().flatten() {
            assert_eq!(again, bytes, "two ways to write one record");
        }
    }
}

/// Runs the parsers of the records in a shard's file, except rows: a parked event, an entry of the
/// change log, an emitted event.
pub fn shard_record(bytes: &[u8]) {
    if let Some(record) = ParkedRecord::decode(bytes) {
        assert_eq!(ParkedRecord::decode(&record.encode()), Some(record));
    }
    if let Some(changes) = TableChanges::decode(bytes) {
        assert_eq!(TableChanges::decode(&TableChanges::encode(&changes)), Some(changes));
    }
    if let Some(again) = engine::outbox(bytes) {
        assert_eq!(engine::outbox(&again), Some(again));
    }
}

/// Runs the parsers of records that are stored as JSON, of a shard and of the catalogue.
pub fn records(bytes: &[u8]) {
    json_comes_back::<ShardMeta>(bytes);
    if let Some(record) = json_comes_back::<ProjectionRecord>(bytes) {
        let _ = record.epoch(1);
    }
}

/// Runs the parser of a manifest from the catalogue, and checks the rules that the manifest must
/// satisfy.
pub fn manifest(bytes: &[u8]) {
    if let Some(manifest) = json_comes_back::<Manifest>(bytes)
        && let Err(error) = manifest.check()
    {
        assert!(!error.to_string().is_empty());
    }
}

fn json_comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(bytes).ok()?;
    let json = serde_json::to_vec(&value).unwrap_or_else(|error| panic!("{error}: {value:?}"));
    let again = serde_json::from_slice::<T>(&json);
    assert!(again.is_ok_and(|again| again == value), "{}", json.escape_ascii());
    Some(value)
}

fn some_events(count: usize) -> Events {
    let mut events = Events::new();
    for n in 0..count {
        let (id, subject) = (format!("id-{n}"), "s".repeat(n % 300));
        let data = format!("{{\"n\":{n},\"text\":\"{}\"}}", "x".repeat(n * 7 % 90));
        let kind = ["order.placed", "order.paid", "x"][n % 3];
        let time = Timestamp(1_790_000_000_000_000 + n as i64 * 1_000_003);
        let event = EventRef {
            id: &id,
            source: "/shop",
            kind,
            subject: &subject,
            time,
            ..EventRef::default()
        };
        events.push(&EventRef { data: data.as_bytes(), ..event });
    }
    events
}

pub(super) fn chunk_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for count in [1, 2, 40] {
        for compression in COMPRESSIONS {
            seeds.extend(log::encode_chunk(&some_events(count), compression, PARTITION, FIRST));
        }
    }
    seeds.push(Vec::new());
    seeds
}

pub(super) fn log_record_seeds() -> Vec<Vec<u8>> {
    let whole = log::records();
    // The inputs also occur without their checksum, because `log_record` adds a correct one.
    let bare = whole.iter().map(|record| record[..record.len() - 4].to_vec());
    whole.iter().cloned().chain(bare).collect()
}

pub(super) fn shard_record_seeds() -> Vec<Vec<u8>> {
    let event = Event {
        id: "a".into(),
        kind: "order.placed".into(),
        data: b"{}".to_vec(),
        ..Event::default()
    };
    let parked = |kind| ParkedRecord {
        kind,
        offset: Offset(7),
        event: event.clone(),
        watermark: Timestamp::MIN,
        reason: "trapped".into(),
        backtrace: "wasm".into(),
        attempts: 2,
    };
    let change = TableChanges {
        table: TableId(1),
        up: vec![("k".into(), b"{\"n\":1}".to_vec())],
        del: vec!["gone".into()],
    };
    let emitted = OutboxEvent {
        cause: Offset(7),
        kind: "alert".into(),
        data: b"{}".to_vec(),
        ..OutboxEvent::default()
    };
    vec![
        parked(ParkedKind::Event).encode(),
        parked(ParkedKind::Timer(Timer {
            at: Timestamp(5),
            key: "key".into(),
            offset: Offset(3),
            depth: 0,
        }))
        .encode(),
        parked(ParkedKind::Waiting).encode(),
        TableChanges::encode(&[change.clone(), change]),
        TableChanges::encode(&[]),
        engine::encode_outbox("id", emitted, Some("00-1-2-01".into())),
    ]
}

fn some_manifest() -> Manifest {
    use lantern_core::{EventTime, FieldKind, FieldSpec, Merge, TableSpec};
    let field = FieldSpec {
        name: "n".into(),
        kind: FieldKind::Integer,
        unit: "EUR".into(),
        merge: Merge::Sum,
    };
    let table = TableSpec {
        name: "totals".into(),
        public: true,
        fields: vec![field],
        ..TableSpec::default()
    };
    Manifest {
        name: "revenue".into(),
        version: "1.0.0".into(),
        subscribes: vec!["order.*".into()],
        tables: vec![table],
        event_time: Some(EventTime { allowed_lateness_us: 5, tick_us: 1_000_000 }),
        parameters: Some("{}".into()),
        ..Manifest::default()
    }
}

pub(super) fn manifest_seeds() -> Vec<Vec<u8>> {
    [some_manifest(), Manifest::default()]
        .iter()
        .filter_map(|m| serde_json::to_vec(m).ok())
        .collect()
}

pub(super) fn records_seeds() -> Vec<Vec<u8>> {
    let id = VersionId("0af7651916cd43dd".into());
    let version =
        VersionRecord { id: id.clone(), manifest: some_manifest(), ..VersionRecord::default() };
    let record = ProjectionRecord {
        name: "revenue".into(),
        active: Some(id),
        activations: 3,
        versions: vec![version],
        ..ProjectionRecord::default()
    };
    let records = [serde_json::to_vec(&record), serde_json::to_vec(&ShardMeta::default())];
    records.into_iter().flatten().collect()
}
