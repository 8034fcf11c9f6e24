//! Tests WASI: everything that a guest can observe is the same in every run.

use lantern_core::{Batch, Timer, Timestamp};

use crate::guest::{Guest, WIT};
use crate::{FUEL, Tables, apply, batch, load};

const PACKAGES: &str = "
    package wasi:clocks@0.2.0 {
      interface wall-clock {
        record datetime { seconds: u64, nanoseconds: u32 }
        now: func() -> datetime;
      }
      interface monotonic-clock {
        use wasi:io/poll@0.2.0.{pollable};
        now: func() -> u64;
        subscribe-duration: func(when: u64) -> pollable;
      }
    }
    package wasi:random@0.2.0 {
      interface random { get-random-u64: func() -> u64; }
      interface insecure-seed { insecure-seed: func() -> tuple<u64, u64>; }
    }
    package wasi:io@0.2.0 {
      interface error { resource error; }
      interface poll { resource pollable { block: func(); } }
      interface streams {
        use error.{error};
        variant stream-error { last-operation-failed(error), closed }
        resource output-stream {
          blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
        }
      }
    }
    package wasi:cli@0.2.0 {
      interface stderr {
        use wasi:io/streams@0.2.0.{output-stream};
        get-stderr: func() -> output-stream;
      }
      interface environment { get-arguments: func() -> list<string>; }
      interface exit { exit: func(status: result); }
    }";

const IMPORTS: &str = "
    (import \"wasi:clocks/wall-clock@0.2.0\" \"now\" (func $wall (param i32)))
    (import \"wasi:clocks/monotonic-clock@0.2.0\" \"now\" (func $mono (result i64)))
    (import \"wasi:clocks/monotonic-clock@0.2.0\" \"subscribe-duration\"
      (func $wait (param i64) (result i32)))
    (import \"wasi:io/poll@0.2.0\" \"[method]pollable.block\" (func $block (param i32)))
    (import \"wasi:random/random@0.2.0\" \"get-random-u64\" (func $random (result i64)))
    (import \"wasi:random/insecure-seed@0.2.0\" \"insecure-seed\" (func $seed (param i32)))
    (import \"wasi:cli/stderr@0.2.0\" \"get-stderr\" (func $stderr (result i32)))
    (import \"wasi:io/streams@0.2.0\" \"[method]output-stream.blocking-write-and-flush\"
      (func $write (param i32 i32 i32 i32)))
    (import \"wasi:cli/environment@0.2.0\" \"get-arguments\" (func $arguments (param i32)))
    (import \"wasi:cli/exit@0.2.0\" \"exit\" (func $exit (param i32)))";

fn guest() -> Guest {
    let mut guest = Guest::new().import("tables", "put", "(param i32 i32 i32 i32 i32 i32)");
    let contract = WIT.replacen("package lantern:projection@0.2.0;", "", 1);
    guest.wit = format!(
        "package test:guest;
         world guest {{
           include lantern:projection/projection@0.2.0;
           import wasi:clocks/wall-clock@0.2.0;
           import wasi:clocks/monotonic-clock@0.2.0;
           import wasi:io/poll@0.2.0;
           import wasi:random/random@0.2.0;
           import wasi:random/insecure-seed@0.2.0;
           import wasi:cli/stderr@0.2.0;
           import wasi:cli/environment@0.2.0;
           import wasi:cli/exit@0.2.0;
         }}
         {PACKAGES}
         package lantern:projection@0.2.0 {{ {contract} }}"
    );
    guest.world = Some("guest");
    guest.imports += IMPORTS;
    guest
}

/// Returns a guest that writes everything that it can find out about its environment into a row.
fn curious() -> Guest {
    let mut guest = guest();
    let key = guest.text("seen");
    guest.apply(&format!(
        "(call $wall (i32.const 8192))
         (i64.store (i32.const 8208) (call $mono))
         (call $block (call $wait (i64.const 3600000000000)))
         (i64.store (i32.const 8216) (call $mono))
         (i64.store (i32.const 8224) (call $random))
         (i64.store (i32.const 8232) (call $random))
         (call $seed (i32.const 8240))
         (call $arguments (i32.const 8256))
         (call $put (i32.const 0) (i32.const 0) {key} (i32.const 8192) (i32.const 72))"
    ))
}

fn seen(tables: &Tables) -> Vec<u64> {
    let row = &tables.rows[&(0, "seen".into())];
    row.chunks(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn clocks_and_randomness_are_functions_of_the_log() {
    let plugin = load(&curious());
    let timers = Batch { timers: vec![Timer::default()], ..batch(0) };
    let (applied, tables) = apply(&*plugin, &timers, FUEL);
    applied.result.unwrap();
    let first = seen(&tables);
    // The clock shows the watermark that makes the timers due, to the microsecond.
    assert_eq!(&first[..2], &[1_700_000_000, 123_456_000]);
    // A wait of one hour has advanced the clock, and took no real time.
    assert_eq!(&first[2..4], &[1, 3_600_000_000_002]);
    assert_ne!(first[4], first[5]);
    // The list of arguments is empty.
    assert_eq!(first[8] >> 32, 0);

    let again = apply(&*load(&curious()), &timers, FUEL).1;
    assert_eq!(seen(&again)[..8], first[..8]);
}

#[test]
fn before_1970_and_while_events_are_applied_the_clock_shows_zero() {
    let early = Timestamp::MIN;
    let timers = Batch { timers: vec![Timer::default()], watermark: early, ..batch(0) };
    // The clock does not show the watermark of a batch of events: the batch may span
    // several ticks, so that watermark depends on how events were divided into batches.
    for batch in [timers, batch(1)] {
        let (applied, tables) = apply(&*load(&curious()), &batch, FUEL);
        applied.result.unwrap();
        assert_eq!(&seen(&tables)[..2], &[0, 0]);
    }
}

#[test]
fn output_goes_to_the_log_and_into_a_traps_message() {
    let mut guest = guest();
    let text = guest.text("thread panicked at src/lib.rs:7\nindex out of bounds\n");
    let guest =
        guest.apply(&format!("(call $write (call $stderr) {text} (i32.const 8192)) unreachable"));
    let (applied, tables) = apply(&*load(&guest), &batch(1), FUEL);
    let lines: Vec<_> = tables.log.iter().map(|(_, _, text)| text.as_str()).collect();
    assert_eq!(lines, ["thread panicked at src/lib.rs:7", "index out of bounds"]);
    let said = applied.result.unwrap_err().to_string();
    assert!(said.contains("its last message was: thread panicked at src/lib.rs:7"), "{said}");
}

#[test]
fn output_without_end_is_dropped_and_costs_fuel() {
    let mut guest = guest();
    let text = guest.text(&"x".repeat(4000));
    let guest = guest.apply(&format!(
        "(loop $forever (call $write (call $stderr) {text} (i32.const 8192)) (br $forever))"
    ));
    let (applied, tables) = apply(&*load(&guest), &batch(1), 100_000);
    let said = applied.result.unwrap_err().to_string();
    assert!(said.contains("used up its fuel") || said.contains("resource"), "{said}");
    assert!(tables.log.iter().map(|(_, _, text)| text.len()).sum::<usize>() < 70_000);
}

#[test]
fn exit_ends_the_call_not_the_host() {
    let guest = guest().apply("(call $exit (i32.const 1))");
    let (applied, _) = apply(&*load(&guest), &batch(1), FUEL);
    let said = applied.result.unwrap_err().to_string();
    assert!(said.contains("exited with code 1"), "{said}");
}
