//! A table in memory.

#![allow(unreachable_pub, reason = "a module of tests")]

use std::collections::BTreeMap;

use lantern_core::{KeyRange, RowSource, StoreError};

/// A table for the tests: rows as JSON, by key.
#[derive(Default)]
pub struct Rows(pub BTreeMap<String, String>);

impl RowSource for Rows {
    fn each_row(
        &self,
        range: &KeyRange,
        reverse: bool,
        take: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let within = |key: &[u8]| {
            key >= range.start.as_slice() && range.end.as_deref().is_none_or(|end| key < end)
        };
        let mut rows: Vec<_> = self.0.iter().filter(|(key, _)| within(key.as_bytes())).collect();
        if reverse {
            rows.reverse();
        }
        for (key, value) in rows {
            if !take(key.as_bytes(), value.as_bytes()) {
                break;
            }
        }
        Ok(())
    }
}
