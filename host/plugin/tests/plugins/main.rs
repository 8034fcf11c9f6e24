//! Tests plugins, well-behaved and hostile ones, through [`PluginHost`]. Each guest is written by
//! hand, compiled in a child process and run.
#![allow(clippy::unwrap_used, reason = "tests")]

mod apply;
mod guest;
mod load;
mod measure;
mod wasi;

use std::any::Any;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lantern_core::{
    ApplyOutcome, Attributes, Batch, Cause, EventRef, Events, Host, HostError, Level, NewEvent,
    Plugin, Row, TableId, Timestamp,
};
use lantern_plugin::{Compiler, LoadError, PluginConfig, PluginHost, PluginLimits};

use crate::guest::Guest;

/// An amount of fuel that is enough for every call.
const FUEL: u64 = 10_000_000;

/// Returns the settings with which these tests start the compiling child.
fn child() -> Compiler {
    Compiler::Child { command: Some(env!("CARGO_BIN_EXE_lantern-compile").into()) }
}

fn config(cache: Option<&Path>, limits: PluginLimits) -> PluginConfig {
    PluginConfig {
        cache_dir: cache.map(Path::to_owned),
        compiler: child(),
        limits,
        ..PluginConfig::default()
    }
}

fn host() -> PluginHost {
    host_with(PluginLimits::default())
}

fn host_with(limits: PluginLimits) -> PluginHost {
    PluginHost::new(config(None, limits)).unwrap()
}

fn load(guest: &Guest) -> Arc<dyn Plugin> {
    host().load(&guest.build(), "").unwrap_or_else(|e| panic!("{} {e}", e.code()))
}

/// Loads `bytes`, which must fail, and returns the error.
fn refused(host: &PluginHost, bytes: &[u8]) -> LoadError {
    host.load(bytes, "").err().expect("it was to be refused")
}

/// Checks that `error` has `code` and that its text contains all of `expected`.
#[track_caller]
fn says(error: &LoadError, code: &str, expected: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.code(), code, "{text}");
    for expected in expected {
        assert!(text.contains(expected), "`{text}` does not say `{expected}`");
    }
    assert!(!error.help().is_empty());
}

/// Returns a batch of `count` events with all attributes. Their types alternate between
/// `order.placed` and `page.viewed`.
fn batch(count: u64) -> Batch {
    let mut events = Events::new();
    for n in 0..count {
        let (id, subject) = (format!("e{n}"), format!("u{n}"));
        let data = format!(
            "{{\"user\":\"u{n}\",\"product\":\"p{n}\",\"country\":\"DE\",\"quantity\":1,\"cents\":{n}}}"
        );
        assert!(events.push(&EventRef {
            id: &id,
            source: "shop",
            kind: ["order.placed", "page.viewed"][(n % 2) as usize],
            subject: &subject,
            time: Timestamp(1_700_000_000_000_000 + n as i64),
            tenant: "t7",
            data: data.as_bytes(),
            ..EventRef::default()
        }));
    }
    let mut asked = Events::new();
    assert!(asked.extend_from(&events, 0..count as usize, Attributes::all()));
    Batch {
        watermark: Timestamp(1_700_000_000_123_456),
        offsets: (100..100 + count).collect(),
        watermarks: (0..count).map(|n| Timestamp(1_700_000_000_123_456 + n as i64)).collect(),
        events: asked,
        ..Batch::default()
    }
}

/// Applies `batch` on a fresh instance. Returns the outcome and what the host has recorded.
fn apply(plugin: &dyn Plugin, batch: &Batch, fuel: u64) -> (ApplyOutcome, Tables) {
    let mut applied = plugin.instantiate().unwrap().apply(batch, Box::new(Tables::default()), fuel);
    let host = std::mem::replace(&mut applied.host, Box::new(Tables::default()));
    (applied, *host.into_any().downcast().unwrap())
}

/// A host that records its calls.
#[derive(Default)]
struct Tables {
    rows: BTreeMap<(u32, String), Vec<u8>>,
    timers: BTreeMap<String, Timestamp>,
    emitted: Vec<NewEvent>,
    log: Vec<(Option<Cause>, Level, String)>,
    /// The causes of all writes and timer calls, in order.
    causes: Vec<Cause>,
    /// The error with which every `get` fails; `None` if `get` succeeds.
    broken: Option<HostError>,
}

impl Host for Tables {
    fn get(&mut self, table: TableId, key: &str) -> Result<Option<Vec<u8>>, HostError> {
        match &self.broken {
            Some(error) => Err(error.clone()),
            None => Ok(self.rows.get(&(table.0, key.into())).cloned()),
        }
    }

    fn put(
        &mut self,
        cause: Cause,
        table: TableId,
        key: &str,
        value: &[u8],
    ) -> Result<(), HostError> {
        self.causes.push(cause);
        self.rows.insert((table.0, key.into()), value.into());
        Ok(())
    }

    fn delete(&mut self, cause: Cause, table: TableId, key: &str) -> Result<(), HostError> {
        self.causes.push(cause);
        self.rows.remove(&(table.0, key.into()));
        Ok(())
    }

    fn scan(
        &mut self,
        table: TableId,
        start: &str,
        _end: &str,
        limit: u32,
        _reverse: bool,
    ) -> Result<Vec<Row>, HostError> {
        let rows = self.rows.range((table.0, start.into())..);
        let rows = rows.take_while(|((t, _), _)| *t == table.0).take(limit as usize);
        Ok(rows.map(|((_, key), value)| Row { key: key.clone(), value: value.clone() }).collect())
    }

    fn set_timer(&mut self, cause: Cause, at: Timestamp, key: &str) -> Result<(), HostError> {
        self.causes.push(cause);
        self.timers.insert(key.into(), at);
        Ok(())
    }

    fn cancel_timer(&mut self, cause: Cause, key: &str) -> Result<(), HostError> {
        self.causes.push(cause);
        self.timers.remove(key);
        Ok(())
    }

    fn emit(&mut self, event: NewEvent) -> Result<(), HostError> {
        self.emitted.push(event);
        Ok(())
    }

    fn log(&mut self, cause: Option<Cause>, level: Level, message: &str) -> Result<(), HostError> {
        self.log.push((cause, level, message.into()));
        Ok(())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
