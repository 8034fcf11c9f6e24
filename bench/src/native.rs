//! Implements the plain Rust fold with which W1 is compared. It reads lines of JSON from a file
//! with `serde_json`, and keeps the sums in hash maps, without any state on disk.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::Result;
use serde::Deserialize;

/// The number of events and the sum of their cents, by key.
pub(crate) type Sums = HashMap<String, (u64, i64)>;

/// The expected rows of W1's two tables.
#[derive(Default)]
pub(crate) struct Tables {
    /// The sums by minute and tenant. The key is the minute in RFC 3339 and the tenant, separated
    /// by `/`.
    pub(crate) tenant_minute: Sums,
    pub(crate) product: Sums,
    /// A buffer in which keys are composed, so that not each key needs a new one.
    key: String,
}

/// The part of an event's JSON that this fold needs.
#[derive(Deserialize)]
pub(crate) struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    time: &'a str,
    tenant: &'a str,
    #[serde(borrow)]
    data: Data<'a>,
}

impl PartialEq for Tables {
    fn eq(&self, other: &Self) -> bool {
        self.tenant_minute == other.tenant_minute && self.product == other.product
    }
}

/// The part of a shop event's data that this fold needs.
#[derive(Deserialize)]
pub(crate) struct Data<'a> {
    product: &'a str,
    #[serde(default)]
    cents: i64,
}

/// Folds the events in the file `path`, one per line.
pub(crate) fn fold(path: &Path) -> Result<Tables> {
    let mut tables = Tables::default();
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(tables);
        }
        fold_line(&line, &mut tables)?;
    }
}

/// Parses one event, a line of JSON, and folds it.
pub(crate) fn fold_line(line: &[u8], tables: &mut Tables) -> Result<()> {
    serde_json::from_slice::<Line<'_>>(line)?.fold(tables);
    Ok(())
}

impl Line<'_> {
    /// Adds this event to the tables.
    pub(crate) fn fold(&self, tables: &mut Tables) {
        fold_event(self.kind, self.time, self.tenant, &self.data, tables);
    }
}

/// Adds one event with these values to the tables.
pub(crate) fn fold_event(
    kind: &str,
    time: &str,
    tenant: &str,
    data: &Data<'_>,
    tables: &mut Tables,
) {
    let Tables { tenant_minute, product, key } = tables;
    key.clear();
    key.push_str(&time[..16]);
    key.push_str(":00Z/");
    key.push_str(tenant);
    add(tenant_minute, key, data.cents);
    if kind == "order.placed" {
        add(product, data.product, data.cents);
    }
}

/// Adds an event of `cents` to the sum under `key`.
pub(crate) fn add(sums: &mut Sums, key: &str, cents: i64) {
    let sum = match sums.get_mut(key) {
        Some(sum) => sum,
        None => sums.entry(key.to_owned()).or_default(),
    };
    sum.0 += 1;
    sum.1 += cents;
}
