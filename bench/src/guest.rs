//! Measures a guest alone: calls of `apply` with the shop's events, with tables that are
//! maps in memory. Fuel per event is the same on every machine, so it shows the effect of a
//! change in a guest or in the SDK. The benchmark also measures the time per event, of
//! several guests in turn.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lantern_cli::generate::{Options as ShopOptions, Shop};
use lantern_core::{
    Batch, Cause, Events, Host, HostError, Level, NewEvent, Plugin, Row, TableId, Timestamp,
    VersionSource,
};
use lantern_plugin::{PluginConfig, PluginHost};

use crate::report::median;

/// The batch size of the engine while it catches up.
const BATCH_EVENTS: u64 = 16_384;
/// The number of shop events in the generated sequence. This benchmark uses only the first ones.
/// The number is the same as in W1, because it determines how many events share a row.
const SHOP_EVENTS: u64 = 5_000_000;
/// The fuel that each call gets. It is far more than any call needs.
const FUEL: u64 = 1 << 50;

/// The options of this benchmark.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many of W1's five million events to use.
    #[arg(long, default_value_t = 500_000)]
    events: u64,
    /// How often each guest is measured, in turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The guests. All of them subscribe to all of the shop's types, and must give the same rows as
    /// the first one. For an interpreter, append `=` and its source:
    /// `declare.wasm=bench/w1/declaration.yaml`.
    #[arg(default_value = "target/wasm32-unknown-unknown/guest/w1.wasm")]
    plugins: Vec<String>,
}

type Rows = HashMap<(TableId, String), Vec<u8>>;

struct Guest {
    name: String,
    bytes: usize,
    plugin: Arc<dyn Plugin>,
    nanos: Vec<f64>,
    fuel: f64,
}

/// Runs the guests in turn and prints a line of JSON for each.
pub(crate) fn run(options: &Options) -> Result<()> {
    let host = PluginHost::new(PluginConfig::default())?;
    let mut guests = Vec::new();
    for name in &options.plugins {
        let (path, source) = match name.split_once('=') {
            Some((path, source)) => (path, Some(source)),
            None => (name.as_str(), None),
        };
        let wasm = std::fs::read(path).with_context(|| format!("no guest at `{path}`"))?;
        let source = source.map(read_source).transpose()?;
        guests.push(Guest {
            name: name.clone(),
            bytes: wasm.len(),
            plugin: host.load_with(&wasm, "", source.as_ref())?,
            nanos: Vec::new(),
            fuel: 0.0,
        });
    }
    let shop = Shop::new(ShopOptions { events: SHOP_EVENTS, ..ShopOptions::default() });
    let mut expected: Option<Rows> = None;
    for _ in 0..options.rounds.max(1) {
        for guest in &mut guests {
            let rows = guest.fold(&shop, options.events)?;
            let expected = expected.get_or_insert_with(|| rows.clone());
            ensure!(*expected == rows, "`{}` has other rows than the first guest", guest.name);
        }
    }
    for guest in guests {
        let line = serde_json::json!({
            "guest": guest.name,
            "bytes": guest.bytes,
            "fuel_per_event": guest.fuel,
            "ns_per_event": median(guest.nanos),
        });
        println!("{line}");
    }
    Ok(())
}

fn read_source(path: &str) -> Result<VersionSource> {
    let text = std::fs::read_to_string(path).with_context(|| format!("no source at `{path}`"))?;
    let name = path.rsplit('/').next().unwrap_or(path);
    Ok(VersionSource::new(name, text))
}

impl Guest {
    fn fold(&mut self, shop: &Shop, events: u64) -> Result<Rows> {
        let mut instance = self.plugin.instantiate()?;
        let mut host: Box<dyn Host> = Box::<Tables>::default();
        let (mut scratch, mut fuel, mut nanos) = (Vec::new(), 0, 0);
        for first in (0..events).step_by(usize::try_from(BATCH_EVENTS)?) {
            let last = (first + BATCH_EVENTS).min(events);
            let mut all = Events::new();
            shop.fill(first..last, &mut all, &mut scratch);
            let mut batch = Batch {
                offsets: (first..last).collect(),
                watermarks: vec![Timestamp::MIN; usize::try_from(last - first)?],
                ..Batch::default()
            };
            let wanted = self.plugin.manifest().attributes_read();
            ensure!(batch.events.extend_from(&all, 0..all.len(), wanted), "too many types");
            let applied = instance.apply(&batch, host, FUEL);
            applied.result?;
            host = applied.host;
            fuel += applied.fuel;
            nanos += applied.elapsed.as_nanos();
        }
        self.fuel = fuel as f64 / events as f64;
        let tables = host.into_any().downcast::<Tables>();
        let tables = tables.ok().context("the host came back as another")?;
        nanos -= tables.took.as_nanos();
        self.nanos.push(nanos as f64 / events as f64);
        Ok(tables.rows)
    }
}

/// A host that keeps tables in memory and does nothing else.
#[derive(Default)]
struct Tables {
    rows: Rows,
    /// The time that was spent in this host, which is subtracted from the guest's time.
    took: Duration,
}

fn refused<T>() -> Result<T, HostError> {
    Err(HostError::Guest("the benchmark has only tables".into()))
}

impl Host for Tables {
    fn get(&mut self, table: TableId, key: &str) -> Result<Option<Vec<u8>>, HostError> {
        let started = Instant::now();
        let row = self.rows.get(&(table, key.to_owned())).cloned();
        self.took += started.elapsed();
        Ok(row)
    }

    fn put(&mut self, _: Cause, table: TableId, key: &str, value: &[u8]) -> Result<(), HostError> {
        let started = Instant::now();
        self.rows.insert((table, key.to_owned()), value.to_vec());
        self.took += started.elapsed();
        Ok(())
    }

    fn delete(&mut self, _: Cause, table: TableId, key: &str) -> Result<(), HostError> {
        self.rows.remove(&(table, key.to_owned()));
        Ok(())
    }

    fn scan(
        &mut self,
        _: TableId,
        _: &str,
        _: &str,
        _: u32,
        _: bool,
    ) -> Result<Vec<Row>, HostError> {
        refused()
    }

    fn set_timer(&mut self, _: Cause, _: Timestamp, _: &str) -> Result<(), HostError> {
        refused()
    }

    fn cancel_timer(&mut self, _: Cause, _: &str) -> Result<(), HostError> {
        refused()
    }

    fn emit(&mut self, _: NewEvent) -> Result<(), HostError> {
        refused()
    }

    fn log(&mut self, _: Option<Cause>, _: Level, message: &str) -> Result<(), HostError> {
        eprintln!("{message}");
        Ok(())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
