//! Reads pages of rows in key order. A page has rows, and the cursor with which the next page
//! begins.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use lantern_core::{Checkpoint, KeyRange, Row, TableId, View};
use serde::{Deserialize, Serialize};

use super::query::TableQuery;
use crate::problem::Problem;

/// The number of rows that are read from the store at a time. It is small, so that an answer with
/// large rows reaches its limit before many more of them are in memory.
const PAGE_ROWS: usize = 500;

/// Returns the range of keys that the query `which` requests.
pub(super) fn range(which: &TableQuery) -> KeyRange {
    if let Some(key) = &which.key {
        let mut end = key.clone().into_bytes();
        end.push(0);
        return KeyRange { start: key.clone().into_bytes(), end: Some(end) };
    }
    let mut range = KeyRange::prefix(which.prefix.as_deref().unwrap_or_default().as_bytes());
    if let Some(from) = &which.from {
        range.start = range.start.max(from.clone().into_bytes());
    }
    if let Some(to) = &which.to {
        let to = to.clone().into_bytes();
        range.end = Some(range.end.map_or_else(|| to.clone(), |end| end.min(to.clone())));
    }
    range
}

/// Returns the part of the range of `which` that comes after the cursor of `which`.
pub(super) fn range_after_cursor(view: &View, which: &TableQuery) -> Result<KeyRange, Problem> {
    let mut range = range(which);
    if let Some(cursor) = &which.cursor {
        let cursor = Cursor::read(cursor)?;
        check_history(view, &cursor.epoch, &cursor.checkpoint)?;
        continue_after(&mut range, &cursor.key, which.is_descending());
    }
    Ok(range)
}

/// Refuses a cursor that belongs to another history than `view`.
pub(super) fn check_history(
    view: &View,
    epoch: &str,
    checkpoint: &Checkpoint,
) -> Result<(), Problem> {
    if epoch != view.epoch() || !view.continues(checkpoint)? {
        let detail = "the table has another history than at the previous page";
        return Err(Problem::new("LAN-0406", detail));
    }
    Ok(())
}

/// Returns the rows of a page. If there are more, also the key after which the next page begins.
pub(super) fn rows(
    view: &View,
    table: TableId,
    which: &TableQuery,
    limit: usize,
    bytes_max: usize,
) -> Result<(Vec<Row>, Option<String>), Problem> {
    if let Some(key) = &which.key {
        let value = view.get(table, key)?;
        let row = value.map(|value| Row { key: key.clone(), value });
        return Ok((row.into_iter().collect(), None));
    }
    let reverse = which.is_descending();
    let mut range = range_after_cursor(view, which)?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    loop {
        // One row more than requested is read. It shows whether there is a next page.
        let wanted = (limit - rows.len() + 1).min(PAGE_ROWS);
        if range.is_empty() {
            return Ok((rows, None));
        }
        let page = view.scan(table, &range, wanted, reverse)?;
        let last_page = page.len() < wanted;
        for row in page {
            if rows.len() == limit || bytes >= bytes_max {
                let last = rows.last().map(|last: &Row| last.key.clone());
                return Ok((rows, last));
            }
            bytes += row.key.len() + row.value.len();
            rows.push(row);
        }
        if last_page {
            return Ok((rows, None));
        }
        if let Some(last) = rows.last() {
            continue_after(&mut range, &last.key, reverse);
        }
    }
}

/// Reduces `range` to the keys after a page that ends with `key`.
pub(super) fn continue_after(range: &mut KeyRange, key: &str, reverse: bool) {
    let mut key = key.as_bytes().to_vec();
    if reverse {
        range.end = Some(range.end.take().map_or_else(|| key.clone(), |end| end.min(key.clone())));
    } else {
        key.push(0);
        range.start = std::mem::take(&mut range.start).max(key);
    }
}

/// A cursor: the place where a page ended.
#[derive(Serialize, Deserialize)]
pub(super) struct Cursor {
    pub(super) epoch: String,
    pub(super) key: String,
    pub(super) checkpoint: Checkpoint,
}

impl Cursor {
    pub(super) fn write(&self) -> String {
        let bytes = postcard::to_stdvec(self).expect("strings and numbers always encode");
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(super) fn read(text: &str) -> Result<Self, Problem> {
        BASE64_URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| postcard::from_bytes(&bytes).ok())
            .ok_or_else(|| Problem::new("LAN-0212", format!("`{text}` is not a cursor of a table")))
    }
}

/// Parses a cursor, and returns its epoch, key and checkpoint.
pub(crate) fn read_cursor(text: &str) -> Result<(String, String, Checkpoint), Problem> {
    Cursor::read(text).map(|cursor| (cursor.epoch, cursor.key, cursor.checkpoint))
}

/// Creates the text of a cursor, which [`read_cursor`] can parse.
pub(crate) fn write_cursor(epoch: &str, key: &str, checkpoint: &Checkpoint) -> String {
    Cursor { epoch: epoch.into(), key: key.into(), checkpoint: checkpoint.clone() }.write()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_goes_on_where_the_one_before_ended() {
        let which = TableQuery {
            prefix: Some("p".into()),
            from: Some("p2".into()),
            to: Some("z".into()),
            ..TableQuery::default()
        };
        let mut range = range(&which);
        assert_eq!(range, KeyRange { start: b"p2".to_vec(), end: Some(b"q".to_vec()) });
        continue_after(&mut range, "p5", false);
        assert_eq!(range.start, b"p5\0");
        continue_after(&mut range, "p7", true);
        assert_eq!(range.end, Some(b"p7".to_vec()));
        continue_after(&mut range, "p5", true);
        assert!(range.is_empty());
    }

    #[test]
    fn a_cursor_comes_back_as_given_and_others_are_refused() {
        let checkpoint = Checkpoint::default();
        let cursor = Cursor { epoch: "1.a.0".into(), key: "ké\u{0}y".into(), checkpoint };
        let back = Cursor::read(&cursor.write()).unwrap();
        assert_eq!((back.epoch, back.key), (cursor.epoch, cursor.key));
        for bad in ["???", "e30", "e"] {
            assert_eq!(Cursor::read(bad).err().unwrap().code, "LAN-0212");
        }
    }
}
