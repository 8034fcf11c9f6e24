//! Contains measurements, and no tests. Run them with `cargo test --release -p lantern-plugin --
//! --ignored --nocapture`.

use std::time::Instant;

use lantern_core::Host;

use crate::guest::Guest;
use crate::{FUEL, Tables, batch, host, load};

#[test]
#[ignore = "a measurement"]
fn the_boundary_costs_less_than_50_ns_an_event() {
    const ROUNDS: u32 = 2_000;
    let plugin = load(&Guest::new());
    for count in [0, 1, 1_024, 16_000] {
        let batch = batch(count);
        let mut instance = plugin.instantiate().unwrap();
        let mut host: Box<dyn Host> = Box::new(Tables::default());
        let rounds = if count > 2_000 { ROUNDS / 10 } else { ROUNDS };
        let mut run = |rounds: u32, mut host: Box<dyn Host>| {
            for _ in 0..rounds {
                let applied = instance.apply(&batch, host, FUEL);
                applied.result.unwrap();
                host = applied.host;
            }
            host
        };
        host = run(rounds / 10, host);
        let started = Instant::now();
        run(rounds, host);
        let call = started.elapsed() / rounds;
        let event = call.as_nanos() as f64 / count.max(1) as f64;
        eprintln!("batch of {count}: {call:?} a call, {event:.1} ns an event");
        if count == 1_024 {
            assert!(event < 50.0, "{event} ns an event");
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn an_idle_instance_is_small_and_quick_to_make() {
    const INSTANCES: u32 = 5_000;
    let plugin = load(&Guest::new());
    let before = resident_bytes();
    let started = Instant::now();
    let instances: Vec<_> = (0..INSTANCES).map(|_| plugin.instantiate().unwrap()).collect();
    let each = started.elapsed() / INSTANCES;
    let bytes = (resident_bytes() - before) / u64::from(INSTANCES);
    eprintln!("{} instances: {each:?} and {bytes} bytes each", instances.len());
    assert!(bytes < 1 << 20);
}

/// Measures the plugin in `PLUGIN=path/to/revenue.wasm`, or another one, with the events of a shop.
#[test]
#[ignore = "a measurement"]
fn a_given_plugin_loads_and_folds() {
    const EVENTS: u64 = 1_024;
    const ROUNDS: u32 = 500;
    let Ok(path) = std::env::var("PLUGIN") else { return };
    let bytes = std::fs::read(&path).unwrap();
    let host = host();
    let started = Instant::now();
    let plugin = host.load(&bytes, "").unwrap_or_else(|e| panic!("{} {e}", e.code()));
    eprintln!("{path}: {} bytes, loaded in {:?}", bytes.len(), started.elapsed());
    let before = resident_bytes();
    let started = Instant::now();
    let instances: Vec<_> = (0..1_000).map(|_| plugin.instantiate().unwrap()).collect();
    let each = started.elapsed() / 1_000;
    let resident = (resident_bytes() - before) / 1_000;
    eprintln!("{} instances: {each:?} and {resident} bytes each", instances.len());
    drop(instances);
    let (batch, mut instance) = (batch(EVENTS), plugin.instantiate().unwrap());
    let mut host: Box<dyn Host> = Box::new(Tables::default());
    let started = Instant::now();
    let mut fuel = 0;
    for _ in 0..ROUNDS {
        let applied = instance.apply(&batch, host, 100 * FUEL);
        applied.result.unwrap();
        (host, fuel) = (applied.host, applied.fuel);
    }
    let event = started.elapsed().as_nanos() as f64 / f64::from(ROUNDS) / EVENTS as f64;
    eprintln!("{event:.0} ns and {} fuel an event", fuel / EVENTS);
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
