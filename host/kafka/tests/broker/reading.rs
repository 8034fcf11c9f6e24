//! Tests reading: every compression codec, gaps, offsets that are far apart, and topics that
//! change.

use std::time::Instant;

use lantern_core::UNREADABLE_TYPE;
use lantern_kafka::Mapping;
use rdkafka::admin::AdminOptions;
use rdkafka::producer::{BaseRecord, Producer};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::*;

const P0: PartitionId = PartitionId(0);

fn produce(fixture: &Fixture, codec: &str, payloads: impl Iterator<Item = String>) {
    let producer = fixture.producer(codec);
    for payload in payloads {
        let record: BaseRecord<'_, str, str> =
            BaseRecord::to(&fixture.topic).payload(payload.as_str()).key("k").partition(0);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

pub(crate) fn structured(id: u64) -> String {
    format!(r#"{{"specversion":"1.0","id":"{id}","source":"s","type":"t","data":{{"n":{id}}}}}"#)
}

#[test]
fn topics_of_every_codec_are_read() {
    let Some(fixture) = Fixture::new("codecs") else { return };
    let log = fixture.open(1);
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for (from, codec) in (0..).step_by(1_000).zip(codecs) {
        produce(&fixture, codec, (from..from + 1_000).map(structured));
    }
    assert_eq!(numbers(&all_from(&log, P0, 0)), (0..5_000).collect::<Vec<_>>());
    // Reading can also begin in the middle of a compressed batch.
    assert_eq!(numbers(&all_from(&log, P0, 2_345)), (2_345..5_000).collect::<Vec<_>>());
}

#[test]
fn more_readers_than_cursors_all_get_everything() {
    let Some(fixture) = Fixture::new("apart") else { return };
    let mut config = fixture.config(1);
    config.cursors = 2;
    config.cache_bytes = 1;
    config.chunk_events_max = 100;
    let log = KafkaLog::open(fixture.table(), config).unwrap();
    produce(&fixture, "lz4", (0..20_000).map(structured));
    std::thread::scope(|scope| {
        for from in (0..20_000).step_by(3_000) {
            let log = &log;
            scope.spawn(move || {
                assert_eq!(numbers(&all_from(log, P0, from)), (from..20_000).collect::<Vec<_>>());
            });
        }
    });
}

#[test]
fn a_reader_at_the_end_is_woken() {
    let Some(fixture) = Fixture::new("wake") else { return };
    let log = fixture.open(1);
    assert!(all_from(&log, P0, 0).is_empty());
    let (send, woken) = mpsc::channel();
    let send = std::sync::Mutex::new(send);
    log.on_append(std::sync::Arc::new(move |partition, _| {
        // If the test has ended, there is no receiver.
        let _ = send.lock().unwrap().send(partition);
    }));
    produce(&fixture, "none", [structured(7)].into_iter());
    let until = Instant::now() + PATIENCE;
    loop {
        assert_eq!(woken.recv_timeout(PATIENCE).unwrap(), P0);
        if matches!(log.read(P0, Offset(0), &TypeFilter::everything()), Ok(LogRead::Chunk(_))) {
            return;
        }
        assert!(Instant::now() < until);
    }
}

#[test]
fn a_record_that_is_no_event_is_kept_and_a_mapping_makes_it_an_event() {
    let Some(fixture) = Fixture::new("junk") else { return };
    let log = fixture.open(1);
    produce(&fixture, "none", ["{\"kind\":\"placed\"}".to_owned(), structured(1)].into_iter());
    let all = all_from(&log, P0, 0);
    assert_eq!(all[0].1.kind, UNREADABLE_TYPE);
    assert!(all[0].1.extensions.contains(&format!("record 0 of {}[0]", fixture.topic)));
    assert_eq!(all[1].1.kind, "t");
    drop(log);
    let mut config = fixture.config(1);
    let mapping = Mapping { kind: "field:kind".into(), ..Mapping::default() };
    config.json.insert(fixture.topic.clone(), mapping);
    let log = KafkaLog::open(fixture.table(), config).unwrap();
    let mapped = &all_from(&log, P0, 0)[0].1;
    assert_eq!((mapped.kind.as_str(), mapped.subject.as_str()), ("placed", "k"));
}

#[test]
fn events_deleted_by_retention_are_reported_as_deleted() {
    let Some(fixture) = Fixture::new("retention") else { return };
    let log = fixture.open(1);
    produce(&fixture, "none", (0..100).map(structured));
    assert_eq!(all_from(&log, P0, 0).len(), 100);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&fixture.topic, 0, KafkaOffset::Offset(40)).unwrap();
    let options = AdminOptions::new();
    let deleted = block_on(fixture.admin().delete_records(&list, &options)).unwrap();
    deleted.elements()[0].error().unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        match log.read(P0, Offset(10), &TypeFilter::everything()) {
            Err(LogError::OutOfRange { from: Offset(10), start: Offset(40), .. }) => break,
            other => assert!(Instant::now() < until, "{other:?}"),
        }
        log.wait(P0, Offset(10), Duration::from_millis(50));
        std::thread::yield_now();
    }
    assert_eq!(numbers(&all_from(&log, P0, 40)), (40..100).collect::<Vec<_>>());
    drop(log);
    // The same holds after a restart.
    let log = fixture.open(1);
    assert_eq!(log.bounds(P0).unwrap().start, Offset(40));
    assert!(matches!(
        read_or_wait(&log, P0, Offset(0), &TypeFilter::everything()),
        Err(LogError::OutOfRange { .. })
    ));
}

#[test]
fn a_recreated_topic_is_not_taken_for_the_previous_one() {
    let Some(fixture) = Fixture::new("recreated") else { return };
    let log = fixture.open(1);
    produce(&fixture, "none", (0..50).map(structured));
    assert_eq!(all_from(&log, P0, 0).len(), 50);
    let options = AdminOptions::new();
    block_on(fixture.admin().delete_topics(&[&fixture.topic], &options)).unwrap();
    let until = Instant::now() + PATIENCE;
    while log.bounds(P0).is_ok() {
        assert!(Instant::now() < until, "the deletion was not noticed");
        std::thread::yield_now();
    }
    let again = Fixture {
        servers: fixture.servers.clone(),
        topic: fixture.topic.clone(),
        dir: tempfile::tempdir().unwrap(),
    };
    drop(again.open(1));
    loop {
        match log.read(P0, Offset(50), &TypeFilter::everything()) {
            Err(LogError::Lost { from: Offset(50), end: Offset(0), .. }) => break,
            other => assert!(Instant::now() < until, "{other:?}"),
        }
        log.wait(P0, Offset(50), Duration::from_millis(50));
        std::thread::yield_now();
    }
}

#[test]
fn another_topic_is_refused_and_more_topics_are_added_at_the_end() {
    let Some(fixture) = Fixture::new("topics") else { return };
    drop(fixture.open(2));
    let mut config = fixture.config(1);
    config.topics = vec![format!("{}-b", fixture.topic)];
    let refused = KafkaLog::open(fixture.table(), config.clone()).err().unwrap().to_string();
    assert!(refused.contains(&fixture.topic), "{refused}");
    config.topics.push(fixture.topic.clone());
    let log = KafkaLog::open(fixture.table(), config).unwrap();
    let names: Vec<_> =
        (0..log.partitions()).map(|p| log.partition_name(PartitionId(p)).unwrap()).collect();
    let topic = &fixture.topic;
    assert_eq!(names, [format!("{topic}[0]"), format!("{topic}[1]"), format!("{topic}-b[0]")]);
}

#[test]
fn a_topic_that_is_not_there_is_an_error_unless_it_may_be_made() {
    let Some(fixture) = Fixture::new("missing") else { return };
    let error = KafkaLog::open(fixture.table(), fixture.config(0)).err().unwrap().to_string();
    assert!(error.contains("log.kafka.create_partitions"), "{error}");
    assert_eq!(fixture.open(4).partitions(), 4);
}
