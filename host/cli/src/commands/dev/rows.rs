//! Prints the rows of public tables on the developer's terminal: first all of them, and then those
//! that change.

use std::collections::BTreeMap;

use lantern_api::RawJson;
use lantern_client::{Client, Error, Row};
use serde_json::json;
use tokio::sync::mpsc;

use super::super::watch::{WatchUpdate, WatchedTable};
use crate::output;

/// The maximum number of rows that are printed for one change.
const ROWS_MAX: usize = 20;
/// The maximum number of updates that wait to be printed. Once it is reached, no more updates are
/// read from the tables.
const UPDATES_MAX: usize = 64;

/// An update of one table.
pub(super) struct Update {
    table: String,
    /// The fields of the table with their names and units, in order.
    fields: Vec<lantern_api::feed::Field>,
    change: Result<WatchUpdate, Error>,
}

/// The tables that are followed, with their rows as they were printed.
pub(super) struct Tables {
    client: Client,
    projection: String,
    rows: BTreeMap<String, BTreeMap<String, Row>>,
    sender: mpsc::Sender<Update>,
    /// Receives the updates that will be printed.
    pub(super) updates: mpsc::Receiver<Update>,
    json: bool,
}

impl Tables {
    /// Creates the list of followed tables, which is empty.
    pub(super) fn new(client: Client, projection: &str, json: bool) -> Self {
        let (sender, updates) = mpsc::channel(UPDATES_MAX);
        let projection = projection.to_owned();
        Self { client, projection, rows: BTreeMap::new(), sender, updates, json }
    }

    /// Returns the name of the projection that the tables belong to.
    pub(super) fn projection(&self) -> &str {
        &self.projection
    }

    /// Begins to follow the table `name`, if it is not followed yet.
    pub(super) fn follow(&mut self, name: &str) {
        if self.rows.contains_key(name) {
            return;
        }
        self.rows.insert(name.to_owned(), BTreeMap::new());
        let table = self.client.table(&format!("{}/{name}", self.projection));
        let (sender, name) = (self.sender.clone(), name.to_owned());
        tokio::spawn(async move {
            let mut watched = WatchedTable::new(table, u64::MAX);
            loop {
                let change = match watched.next().await {
                    Ok(Some(WatchUpdate::Tick { .. })) => continue,
                    Ok(Some(change)) => Ok(change),
                    Ok(None) => break,
                    Err(error) => Err(error),
                };
                let ended = change.is_err();
                let fields = watched.table.fields();
                // If there is no receiver, the command ends.
                if sender.send(Update { table: name.clone(), fields, change }).await.is_err()
                    || ended
                {
                    break;
                }
            }
        });
    }

    /// Prints `update`, and remembers the rows that it contains.
    pub(super) fn print(&mut self, update: Update) {
        let Update { table, fields, change } = update;
        match change {
            Err(error) => {
                self.rows.remove(&table);
                output::note(self.json, format!("table `{table}` no longer exists: {error}"));
            }
            Ok(WatchUpdate::Rows { rows, .. }) => {
                let before = self.rows.insert(table.clone(), rows.clone()).unwrap_or_default();
                if before.is_empty() && !self.json {
                    print_table(&table, &fields, &rows);
                    return;
                }
                let (up, del) = differences(&before, &rows);
                self.print_changes(&table, &up, &del);
            }
            Ok(WatchUpdate::Delta { up, del, .. }) => {
                let rows = self.rows.entry(table.clone()).or_default();
                rows.extend(up.iter().cloned());
                for key in &del {
                    rows.remove(key);
                }
                self.print_changes(&table, &up, &del);
            }
            Ok(WatchUpdate::Tick { .. }) => {}
        }
    }

    fn print_changes(&self, table: &str, up: &[(String, Row)], del: &[String]) {
        for (key, row) in up.iter().take(ROWS_MAX) {
            if self.json {
                output::json(&json!({"table": table, "key": key, "row": RawJson::new(row.json())}));
            } else {
                output::data(format!("{table} + {key} {}", row.json()));
            }
        }
        for key in del.iter().take(ROWS_MAX) {
            if self.json {
                output::json(&json!({"table": table, "key": key, "row": null}));
            } else {
                output::data(format!("{table} - {key}"));
            }
        }
        let changed = up.len() + del.len();
        let printed = up.len().min(ROWS_MAX) + del.len().min(ROWS_MAX);
        if changed > printed {
            output::note(
                self.json,
                format!("{table}: {} more rows changed", output::count((changed - printed) as u64)),
            );
        }
    }
}

fn print_table(name: &str, fields: &[lantern_api::feed::Field], rows: &BTreeMap<String, Row>) {
    let more = match rows.len().saturating_sub(ROWS_MAX) {
        0 => String::new(),
        more => format!(" ({} more)", output::count(more as u64)),
    };
    output::line(format!("\ntable {name}: {} rows{more}", output::count(rows.len() as u64)));
    if !rows.is_empty() {
        let shown: Vec<(&str, RawJson)> = rows
            .iter()
            .take(ROWS_MAX)
            .map(|(key, row)| (key.as_str(), RawJson::new(row.json())))
            .collect();
        let shown = shown.iter().map(|(key, row)| (*key, row));
        output::line(super::super::table::rows(fields, shown));
    }
}

/// Returns the rows of `after` that are missing in `before` or differ there, and the keys that only
/// `before` has.
fn differences(
    before: &BTreeMap<String, Row>,
    after: &BTreeMap<String, Row>,
) -> (Vec<(String, Row)>, Vec<String>) {
    let changed = |(key, row): &(&String, &Row)| {
        before.get(*key).is_none_or(|before| before.json() != row.json())
    };
    let up = after.iter().filter(changed).map(|(key, row)| (key.clone(), row.clone())).collect();
    let del = before.keys().filter(|key| !after.contains_key(*key)).cloned().collect();
    (up, del)
}
