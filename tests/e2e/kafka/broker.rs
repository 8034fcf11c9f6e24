//! Tests the broker that the tests use: a restart keeps its records, and it never outlives the
//! process that started it.

use std::time::{Duration, Instant};

use lantern_tests::kafka::{self, Reading};

use super::no_kafka;

#[test]
fn a_broker_that_is_killed_comes_back_with_its_records() {
    if no_kafka() {
        return;
    }
    let mut broker = kafka::start().unwrap();
    kafka::create_topic(&broker, "things", 3, &["retention.ms=-1"]).unwrap();
    let lines: String = (0..50).map(|n| format!("k{n}\tv{n}\n")).collect();
    broker.console_producer("things", &lines, &["parse.key=true"]).unwrap();
    let address = broker.address();
    broker.kill().unwrap();
    assert!(broker.pid().is_none());
    broker.restart().unwrap();
    assert_eq!(broker.address(), address);
    let reading = Reading { records: 50, keys: true, ..Reading::default() };
    let mut found = broker.console_consumer("things", reading).unwrap();
    found.sort();
    let mut sent: Vec<_> = lines.lines().map(str::to_owned).collect();
    sent.sort();
    assert_eq!(found, sent);
    // The reader of the tests must see the same records as Kafka's own reader.
    let records = kafka::records(&broker, "things", true).unwrap();
    assert_eq!(records.len(), 50);
    let ends = broker.ends("things").unwrap();
    assert_eq!(ends.len(), 3);
    for (partition, end) in ends {
        assert_eq!(kafka::bounds(&broker, "things", partition).unwrap(), (0, end));
        let of_partition = records.iter().filter(|r| r.partition == partition);
        assert_eq!(of_partition.count() as i64, end);
    }
    let folder = broker.folder().to_owned();
    let pid = broker.pid().unwrap();
    assert!(folder.is_dir());
    drop(broker);
    assert!(!folder.exists());
    let started = Instant::now();
    while std::fs::exists(format!("/proc/{pid}")).unwrap() {
        assert!(started.elapsed() < Duration::from_secs(10), "the broker lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
}
