//! Measures calls over the boundary into a guest, the guest's work, and the rows that it returns.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use lantern_core::{
    Attributes, Batch, Cause, EventRef, Events, Host, HostError, Instance, Level, NewEvent, Plugin,
    Row, TableId, Timestamp,
};
use lantern_plugin::{PluginConfig, PluginHost};

/// The fuel that each call gets. It is far more than any call needs.
const FUEL: u64 = 1 << 50;

/// Loads the guest `keyed`. The `parameters` determine how much work it does.
fn keyed(parameters: &str) -> (PluginHost, Arc<dyn Plugin>) {
    let folder = std::env::var_os("LANTERN_GUESTS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/guests")),
        PathBuf::from,
    );
    let path = folder.join("keyed.wasm");
    let wasm = std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}: run `cargo xtask bench`", path.display()));
    let host = PluginHost::new(PluginConfig::default()).expect("the engine runs here");
    let plugin = host.load(&wasm, parameters).expect("the guest loads");
    (host, plugin)
}

/// Creates `count` events, each with a different key.
fn keyed_events(count: usize) -> Events {
    let mut events = Events::new();
    for index in 0..count {
        let (id, key) = (format!("k-{index}"), format!("k{:08}", index * 7_919 % count));
        let data =
            format!(r#"{{"key":"{key}","note":"abcdefghijklmno","cents":{}}}"#, index % 10_000);
        assert!(events.push(&EventRef {
            id: &id,
            source: "keyed",
            kind: "key.hit",
            subject: &key,
            time: Timestamp(1_767_225_600_000_000),
            tenant: "t1",
            data: data.as_bytes(),
            ..EventRef::default()
        }));
    }
    events
}

fn batch(count: usize, wanted: Attributes) -> Batch {
    let all = keyed_events(count);
    let mut batch = Batch {
        offsets: (0..count as u64).collect(),
        watermarks: vec![Timestamp::MIN; count],
        ..Batch::default()
    };
    assert!(batch.events.extend_from(&all, 0..count, wanted));
    batch
}

/// Measures calls of a guest with batches of `count` events.
fn calls(bencher: Bencher<'_, '_>, parameters: &str, count: usize) {
    let (_host, plugin) = keyed(parameters);
    let batch = batch(count, plugin.manifest().attributes);
    let mut instance: Box<dyn Instance> = plugin.instantiate().expect("the guest is set up");
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        let applied = instance.apply(&batch, Box::new(Counts::default()), FUEL);
        applied.result.expect("the guest does what it is made for");
    });
}

/// Measures calls in which all attributes cross the boundary, and the guest does nothing with them.
#[divan::bench(args = [1, 1_024, 16_384], sample_count = 200)]
fn boundary(bencher: Bencher<'_, '_>, events: usize) {
    calls(bencher, r#"{"work":"none","attributes":true}"#, events);
}

/// Measures the same as `boundary`, with only the attributes that are always present.
#[divan::bench(args = [1_024], sample_count = 200)]
fn boundary_least(bencher: Bencher<'_, '_>, events: usize) {
    calls(bencher, r#"{"work":"none"}"#, events);
}

/// Measures the same as `boundary_least`. In addition the SDK reads each event's data.
#[divan::bench(args = [1_024], sample_count = 200)]
fn guest_json(bencher: Bencher<'_, '_>, events: usize) {
    calls(bencher, r#"{"work":"read"}"#, events);
}

/// Measures a guest that puts a separate row for each event, and passes the rows to the host.
#[divan::bench(args = [1_024, 16_384], sample_count = 100)]
fn rows_out(bencher: Bencher<'_, '_>, events: usize) {
    calls(bencher, r#"{"work":"put"}"#, events);
}

/// Measures how long the SDK, compiled to native code, takes to decode the data of events.
#[divan::bench(args = [1_024], sample_count = 200)]
fn json_outside(bencher: Bencher<'_, '_>, events: usize) {
    use lantern_sdk::bindings::lantern::projection::types as wit;
    use lantern_sdk::prelude::*;

    #[derive(serde::Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        key: std::borrow::Cow<'a, str>,
        cents: i64,
    }

    #[derive(Tables)]
    struct Reads {
        #[table(private)]
        unused: Table<u64>,
    }

    impl Projection for Reads {
        fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
            Ok(lantern_sdk::manifest!().subscribe(["key.hit"]))
        }

        fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
            let data: Data<'_> = event.data()?;
            std::hint::black_box((data.key, data.cents));
            Ok(())
        }
    }

    let batch = batch(events, Attributes { data: true, ..Attributes::default() }).events;
    let column = |of: &lantern_core::Column| wit::Column {
        ends: of.ends().to_vec(),
        bytes: of.bytes().to_vec(),
    };
    let none = || wit::Column { ends: Vec::new(), bytes: Vec::new() };
    let batch = wit::Batch {
        partition: 0,
        timers: Vec::new(),
        watermark: 0,
        offsets: (0..events as u64).collect(),
        times: batch.times().iter().map(|time| time.0).collect(),
        watermarks: vec![i64::MIN; events],
        type_names: batch.type_names().to_vec(),
        types: batch.types().to_vec(),
        id: none(),
        source: none(),
        subject: none(),
        tenant: none(),
        dataschema: none(),
        datacontenttype: none(),
        extensions: none(),
        data: column(&batch.columns().data),
        members: Vec::new(),
    };
    let setup = lantern_sdk::__private::Instance::<Reads>::setup("");
    let (mut instance, _) = setup.expect("it takes no parameters");
    bencher.counter(ItemsCount::new(events)).bench_local(|| {
        assert!(instance.apply(&batch).is_ok());
    });
}

/// A host that accepts rows and does nothing with them.
#[derive(Default)]
struct Counts {
    rows: u64,
}

fn refused<T>() -> Result<T, HostError> {
    Err(HostError::Guest("the benchmark has no such thing".into()))
}

impl Host for Counts {
    fn get(&mut self, _: TableId, _: &str) -> Result<Option<Vec<u8>>, HostError> {
        Ok(None)
    }

    fn put(&mut self, _: Cause, _: TableId, key: &str, value: &[u8]) -> Result<(), HostError> {
        std::hint::black_box((key, value));
        self.rows += 1;
        Ok(())
    }

    fn delete(&mut self, _: Cause, _: TableId, _: &str) -> Result<(), HostError> {
        refused()
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

    fn log(&mut self, _: Option<Cause>, _: Level, _: &str) -> Result<(), HostError> {
        refused()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
