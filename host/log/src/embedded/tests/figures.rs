//! Runs the measurements from which the defaults were chosen. Run them with `cargo test --release
//! -p lantern-log figures -- --ignored --nocapture`.

use std::io::BufRead;
use std::time::Instant;

use super::*;
use crate::Compression;

const EVENTS: u64 = 1_000_000;

/// Creates events like those of `lantern events generate`, about 212 bytes each.
fn shop(numbers: std::ops::Range<u64>, rng: &mut fastrand::Rng) -> Events {
    let mut events = Events::new();
    for n in numbers {
        let (user, product) = (rng.u32(..100_000), rng.u32(..5_000));
        let country = ["DE", "FR", "US", "NL", "AT"][rng.usize(..5)];
        let mut data =
            format!("{{\"user\":\"u{user}\",\"product\":\"p{product}\",\"country\":\"{country}\"");
        let kind = match rng.u8(..5) {
            0..3 => "page.viewed",
            3 => {
                data += &format!(",\"cents\":{}", rng.u32(100..99_999));
                "cart.added"
            }
            _ => {
                data +=
                    &format!(",\"quantity\":{},\"cents\":{}", rng.u32(1..9), rng.u32(100..99_999));
                "order.placed"
            }
        };
        data += ",\"note\":\"";
        while data.len() < 150 {
            data += &format!("{:x}", rng.u16(..));
        }
        data += "\"}";
        events.push(&lantern_core::EventRef {
            id: &format!("{n:016x}"),
            source: "shop",
            kind,
            subject: &format!("u{user}"),
            time: Timestamp(1_700_000_000_000_000 + n.cast_signed() * 1_000),
            tenant: &format!("t{}", rng.u16(..1_000)),
            data: data.as_bytes(),
            ..Default::default()
        });
    }
    events
}

/// Returns the CPU time that this process has used, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |n: usize| fields[n].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

fn append_all(log: &EmbeddedLog, batches: &[Events]) -> u64 {
    let (send, receive) = channel();
    for batch in batches {
        let send = send.clone();
        let done = move |result: Result<Appended, LogError>| send.send(result.map(|_| ())).unwrap();
        log.append(batch.clone(), Box::new(done));
    }
    drop(send);
    receive.iter().map(|result| result.unwrap()).count() as u64
}

fn scan(log: &EmbeddedLog) -> u64 {
    let (mut next, mut bytes) = (Offset(0), 0);
    while let LogRead::Chunk(chunk) = log.read(P0, next, &TypeFilter::everything()).unwrap() {
        bytes += chunk.events.bytes() as u64;
        next = chunk.end();
    }
    bytes
}

fn append_and_scan(name: &str, batches: &[Events], config: &LogConfig) {
    let events: usize = batches.iter().map(Events::len).sum();
    let bytes: usize = batches.iter().map(Events::bytes).sum();
    let folder = LogFolder::new();
    let config = LogConfig { queue_bytes: 1 << 30, ..config.clone() };
    let log = EmbeddedLog::open(folder.file(), config.clone()).unwrap();
    let (started, cpu) = (Instant::now(), cpu_seconds());
    append_all(&log, batches);
    let (append, append_cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let stats = log.stats().unwrap();
    log.close();
    let reopened = Instant::now();
    let log = EmbeddedLog::open(folder.file(), LogConfig { cache_bytes: 0, ..config }).unwrap();
    let reopened = reopened.elapsed().as_secs_f64();
    let (started, cpu) = (Instant::now(), cpu_seconds());
    assert_eq!(scan(&log), bytes as u64);
    let (scan, scan_cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let (n, mb) = (events as f64, bytes as f64 / 1e6);
    println!(
        "{name:28} {:3.0} B/event | append {:4.0} MB/s {:5.0} ns/event (cpu {:5.0}) | scan {:5.0} MB/s {:4.0} ns/event (cpu {:4.0}) | {:5.1} MB, {:5.1} as stored, file {:5.1} MB, {} chunks | open {reopened:.3} s",
        bytes as f64 / n,
        mb / append,
        append / n * 1e9,
        append_cpu / n * 1e9,
        mb / scan,
        scan / n * 1e9,
        scan_cpu / n * 1e9,
        mb,
        stats.partitions[0].bytes as f64 / 1e6,
        stats.file_bytes as f64 / 1e6,
        stats.partitions[0].chunks,
    );
}

fn flights() -> Option<Vec<Events>> {
    let path = std::env::var("LANTERN_FLIGHTS").ok()?;
    let file = std::fs::File::open(path).unwrap();
    let lines = std::io::BufReader::new(zstd::stream::read::Decoder::new(file).unwrap()).lines();
    let mut batches = vec![Events::new()];
    for line in lines {
        let json: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        let event = Event {
            id: text("id"),
            source: text("source"),
            kind: text("type"),
            subject: text("subject"),
            tenant: text("tenant"),
            datacontenttype: text("datacontenttype"),
            time: Timestamp(batches.len() as i64 * 60_000_000),
            data: json["data"].to_string().into_bytes(),
            ..Event::default()
        };
        if batches.last().unwrap().len() == 1_000 {
            batches.push(Events::new());
        }
        batches.last_mut().unwrap().push(&event.as_ref());
    }
    Some(batches)
}

#[test]
#[ignore = "takes a minute; for figures"]
fn figures_of_appending_and_scanning() {
    let rng = &mut fastrand::Rng::with_seed(1);
    let shop: Vec<_> =
        (0..EVENTS).step_by(1_000).map(|n| shop(n..(n + 1_000).min(EVENTS), rng)).collect();
    let sets = [("flights", flights()), ("shop", Some(shop))];
    for (name, batches) in sets {
        let Some(batches) = batches else { continue };
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            for kib in [64, 128, 256] {
                let config = LogConfig {
                    compression,
                    chunk_bytes: kib * 1024 - 256,
                    ..LogConfig::default()
                };
                append_and_scan(&format!("{name} {compression:?} {kib} KiB"), &batches, &config);
            }
        }
    }
}

#[test]
#[ignore = "takes a minute; for figures"]
fn figures_of_single_appends() {
    let rng = &mut fastrand::Rng::with_seed(1);
    for (name, fast_recovery_bytes, prefill) in
        [("small", 0, 0), ("small", u64::MAX, 0), ("large", 0, EVENTS), ("large", u64::MAX, EVENTS)]
    {
        let folder = LogFolder::new();
        let config =
            LogConfig { fast_recovery_bytes, queue_bytes: 1 << 30, ..LogConfig::default() };
        let log = EmbeddedLog::open(folder.file(), config).unwrap();
        let batches: Vec<_> =
            (0..prefill).step_by(1_000).map(|n| shop(n..n + 1_000, rng)).collect();
        append_all(&log, &batches);
        let started = Instant::now();
        for n in 0..2_000 {
            let (send, receive) = channel();
            let one = shop(EVENTS + n..EVENTS + n + 1, rng);
            log.append(one, Box::new(move |result| send.send(result).unwrap()));
            receive.recv().unwrap().unwrap();
        }
        println!(
            "{name} log, fast recovery {}: {:.0} appends of one event a second",
            fast_recovery_bytes > 0,
            2_000.0 / started.elapsed().as_secs_f64()
        );
    }
}
