//! Tests writing: appends and emitted events.

use lantern_core::{CommittedOffsets as _, Emitted, Offset};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::*;

const P0: PartitionId = PartitionId(0);

#[test]
fn appended_events_are_read_in_the_order_of_each_subject() {
    let Some(fixture) = Fixture::new("append") else { return };
    let log = fixture.open(3);
    let subjects = ["a", "b", "c", "d", "e"];
    for group in 0..20 {
        let group = (0..100).map(|n| event(group * 100 + n, subjects[(n % 5) as usize]));
        let appended = append(&log, group).unwrap();
        assert!(appended.events.iter().all(|event| !event.duplicate));
    }
    let mut count = 0;
    let mut of = std::collections::BTreeMap::new();
    for partition in (0..3).map(PartitionId) {
        for (_, event) in all_from(&log, partition, 0) {
            let number: u64 = event.id.parse().unwrap();
            let (last, home) = of.entry(event.subject).or_insert((None, partition));
            assert_eq!(*home, partition, "a subject stays in its partition");
            assert!(last.replace(number) < Some(number));
            count += 1;
        }
    }
    assert_eq!(count, 2_000);
}

#[test]
fn an_event_sent_again_is_known_again_also_after_reopening() {
    let Some(fixture) = Fixture::new("again") else { return };
    let log = fixture.open(2);
    let first = append(&log, (0..50).map(|n| event(n, "s"))).unwrap();
    let again = append(&log, (40..60).map(|n| event(n, "s"))).unwrap();
    let duplicates = |appended: &Appended| appended.events.iter().filter(|e| e.duplicate).count();
    assert_eq!(duplicates(&again), 10);
    assert_eq!(again.events[0].offset, first.events[40].offset);
    log.close();
    drop(log);
    let log = fixture.open(2);
    let after = append(&log, (0..61).map(|n| event(n, "s"))).unwrap();
    assert_eq!(duplicates(&after), 60);
    assert_eq!(after.events[7].offset, first.events[7].offset);
    // The same event occurs twice in one append.
    let twice = append(&log, [event(100, "s"), event(100, "s")]).unwrap();
    assert_eq!(duplicates(&twice), 1);
    let home = after.events[0].partition;
    assert_eq!(numbers(&all_from(&log, home, 0)), (0..61).chain([100]).collect::<Vec<_>>());
}

#[test]
fn an_append_without_a_broker_is_refused_and_nothing_is_lost_once_it_is_back() {
    let Some(fixture) = Fixture::new("away") else { return };
    drop(fixture.open(1));
    let mut config = fixture.config(1);
    config.servers = "127.0.0.1:1".into();
    config.delivery_ms_max = 1_000;
    // A log that was opened before can be opened without its broker, and reports that the broker is
    // missing.
    let log = KafkaLog::open(fixture.table(), config).unwrap();
    let refused = append(&log, [event(1, "s")]);
    assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    assert!(matches!(log.bounds(P0), Err(LogError::Unavailable(_))));
    drop(log);
    let log = fixture.open(1);
    assert!(!append(&log, [event(1, "s")]).unwrap().events[0].duplicate);
}

#[test]
fn appends_past_the_limit_are_refused_at_once() {
    let Some(fixture) = Fixture::new("limit") else { return };
    drop(fixture.open(1));
    let mut config = fixture.config(1);
    config.servers = "127.0.0.1:1".into();
    (config.queue_bytes, config.delivery_ms_max) = (10_000, 20_000);
    let log = KafkaLog::open(fixture.table(), config).unwrap();
    let (send, received) = mpsc::channel();
    let begun = std::time::Instant::now();
    for number in 0..100 {
        let send = send.clone();
        // The first few appends wait for the broker. They are answered after the test.
        let tell = move |outcome: Result<Appended, LogError>| drop(send.send(outcome));
        log.append(events([event(number, "s")]), Box::new(tell));
    }
    let refused = received.recv_timeout(PATIENCE).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(refused.unwrap_err().to_string().contains("queue_bytes"));
}

fn emitted(outbox: &str, numbers: std::ops::Range<u64>) -> Emitted {
    Emitted {
        outbox: outbox.into(),
        partition: P0,
        first: numbers.start,
        events: events(numbers.map(|n| event(n, "s"))),
    }
}

#[test]
fn an_emitted_event_is_appended_once_however_often_it_is_passed() {
    let Some(fixture) = Fixture::new("emit") else { return };
    let emit = |log: &KafkaLog, outbox: &str, numbers| {
        done(|told| log.emit(emitted(outbox, numbers), told)).unwrap();
    };
    let log = fixture.open(1);
    emit(&log, "o", 0..10);
    emit(&log, "o", 0..10);
    emit(&log, "o", 5..15);
    drop(log);
    // This log is like that of a process after a crash: it knows only the outbox.
    let log = fixture.open(1);
    emit(&log, "o", 8..20);
    emit(&log, "other", 20..25);
    emit(&log, "o", 20..20);
    let all = all_from(&log, P0, 0);
    assert_eq!(numbers(&all), (0..25).collect::<Vec<_>>());
    let offsets: Vec<_> = all.iter().map(|(offset, _)| *offset).collect();
    assert!(
        offsets.windows(2).any(|pair| pair[1] > pair[0] + 1),
        "markers leave gaps: {offsets:?}"
    );
}

#[test]
fn a_producer_that_takes_over_an_outbox_fences_the_previous_one() {
    let Some(fixture) = Fixture::new("fence") else { return };
    let before = fixture.open(1);
    done(|told| before.emit(emitted("o", 0..5), told)).unwrap();
    // A second log uses the same data folder. This happens if the folder was copied, or if the
    // first process does not exit.
    let after = fixture.open(1);
    done(|told| after.emit(emitted("o", 5..10), told)).unwrap();
    // `before` is fenced now. When `before` tries again, it fences `after` in turn, and finds the
    // events that `after` has sent.
    let mut tries = 0;
    while done(|told| before.emit(emitted("o", 5..12), told)).is_err() {
        tries += 1;
        assert!(tries < 5);
    }
    assert!(tries > 0, "it was fenced");
    assert_eq!(numbers(&all_from(&after, P0, 0)), (0..12).collect::<Vec<_>>());
}

#[test]
fn positions_are_committed_to_the_group_of_the_projection() {
    let Some(fixture) = Fixture::new("group") else { return };
    let mut config = fixture.config(2);
    config.group_prefix = format!("{}.", fixture.topic);
    config.commit_ms = 100;
    let log = KafkaLog::open(fixture.table(), config).unwrap();
    append(&log, (0..10).map(|n| event(n, &n.to_string()))).unwrap();
    log.note_offset("revenue", PartitionId(1), Offset(3));
    log.note_offset("revenue", P0, Offset(1));
    log.note_offset("revenue", P0, Offset(2));
    log.close();
    let group = format!("{}.revenue", fixture.topic);
    let consumer: BaseConsumer = fixture.client().set("group.id", group).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_range(&fixture.topic, 0, 1);
    let committed = consumer.committed_offsets(list, PATIENCE).unwrap();
    let offsets: Vec<_> = committed.elements().iter().map(|e| e.offset()).collect();
    assert_eq!(offsets, [KafkaOffset::Offset(2), KafkaOffset::Offset(3)]);
}
