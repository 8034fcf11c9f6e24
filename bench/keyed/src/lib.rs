//! Implements the guest of the growth benchmarks, which computes a sum by key. Its parameters
//! select the event types, the width of its rows and the parts of the work. So all points of the
//! benchmarks can use the same guest.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use lantern_sdk::prelude::*;
use serde::Deserialize;

#[derive(Tables)]
struct Keyed {
    /// Events and cents by key.
    total: Table<Total>,
    /// The last cents by key, in rows of the configured width.
    wide: Table<Wide>,
    #[table(skip)]
    options: Options,
}

#[derive(Row, Default)]
struct Total {
    #[row(merge = sum)]
    count: u64,
    #[row(unit = "cent", merge = sum)]
    cents: i64,
}

#[derive(Row, Default)]
struct Wide {
    cents: i64,
    pad: String,
}

/// What the guest does with an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Work {
    /// The guest reads the event's data, and adds it to the row of its key.
    #[default]
    Sum,
    /// Like `sum`, but the guest writes a row of the configured width.
    Wide,
    /// The guest puts a separate row under the event's subject, without reading the data.
    Put,
    /// The guest only reads the event's data.
    Read,
    /// The guest does nothing.
    None,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// The event types that it subscribes to.
    types: Vec<String>,
    work: Work,
    /// Bytes of text in a row of `wide`.
    pad_bytes: usize,
    /// Whether it requests all attributes or none.
    attributes: bool,
    #[serde(skip)]
    pad: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            types: vec!["key.hit".into()],
            work: Work::Sum,
            pad_bytes: 0,
            attributes: false,
            pad: String::new(),
        }
    }
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(default)]
    cents: i64,
}

impl Projection for Keyed {
    fn setup(&mut self, parameters: &Parameters<'_>) -> Result<Manifest, Error> {
        self.options = parameters.parse()?;
        self.options.pad = "x".repeat(self.options.pad_bytes);
        let mut attributes = Vec::new();
        if self.options.work == Work::Put {
            attributes.push(Attribute::Subject);
        }
        if self.options.attributes {
            attributes = vec![
                Attribute::Id,
                Attribute::Source,
                Attribute::Subject,
                Attribute::Tenant,
                Attribute::Dataschema,
                Attribute::Datacontenttype,
                Attribute::Extensions,
            ];
        }
        Ok(lantern_sdk::manifest!()
            .subscribe(self.options.types.iter().cloned())
            .attributes(attributes)
            .on_failure(OnFailure::ParkEvent))
    }

    /// If there are many keys, most rows are not in memory. So this function requests the rows of a
    /// batch in advance.
    fn prepare(&mut self, events: Events<'_>) -> Result<(), Error> {
        // `apply` refuses the events whose data cannot be read, so they are left out here.
        let keys = events.filter_map(|event| event.glance("key"));
        match self.options.work {
            Work::Sum => self.total.prefetch(keys),
            Work::Wide => self.wide.prefetch(keys),
            Work::Put | Work::Read | Work::None => Ok(()),
        }
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        match self.options.work {
            Work::Sum => {
                let data: Data<'_> = event.data()?;
                let row = self.total.row(&data.key)?;
                row.count += 1;
                row.cents += data.cents;
            }
            Work::Wide => {
                let data: Data<'_> = event.data()?;
                let row = self.wide.row(&data.key)?;
                row.cents = data.cents;
                if row.pad.is_empty() {
                    row.pad.push_str(&self.options.pad);
                }
            }
            Work::Put => {
                self.total.put(event.subject()?, Total { count: 1, cents: 1 })?;
            }
            Work::Read => {
                let data: Data<'_> = event.data()?;
                if data.key.is_empty() {
                    return Err(Error::new("`key` is empty"));
                }
            }
            Work::None => (),
        }
        Ok(())
    }
}

lantern_sdk::export!(Keyed);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use lantern_sdk::testing::{Harness, check_determinism, read_ndjson};
    use serde_json::json;

    use super::*;

    fn events() -> String {
        let line = |i: u64| {
            json!({
                "specversion": "1.0", "id": format!("e{i}"), "source": "keyed", "type": "key.hit",
                "subject": format!("k{}", i % 7), "time": "2026-01-01T00:00:00Z",
                "data": {"key": format!("k{}", i % 7), "cents": i},
            })
        };
        (0..100).map(|i| line(i).to_string() + "\n").collect()
    }

    #[test]
    fn it_sums_by_key() {
        check_determinism::<Keyed>("", &read_ndjson(&events()));
        let mut host = Harness::<Keyed>::new();
        host.feed_ndjson(&events());
        let rows = host.rows("total");
        assert_eq!(rows.len(), 7);
        assert_eq!(rows["k6"], json!({"count": 14, "cents": (6..100).step_by(7).sum::<u64>()}));
    }

    #[test]
    fn rows_are_as_wide_as_wanted() {
        let parameters = r#"{"work":"wide","pad_bytes":1000}"#;
        check_determinism::<Keyed>(parameters, &read_ndjson(&events()));
        let mut host = Harness::<Keyed>::with_parameters(parameters);
        host.feed_ndjson(&events());
        let rows = host.rows("wide");
        assert_eq!(rows.len(), 7);
        assert!(rows.values().all(|row| row["pad"].as_str().unwrap().len() == 1000));
    }

    #[test]
    fn doing_nothing_leaves_no_rows() {
        for work in ["none", "read"] {
            let parameters = format!(r#"{{"work":"{work}","attributes":true}}"#);
            let mut host = Harness::<Keyed>::with_parameters(&parameters);
            host.feed_ndjson(&events());
            assert!(host.rows("total").is_empty() && host.parked().is_empty(), "{work}");
        }
    }
}
