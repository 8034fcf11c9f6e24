//! Writes the values of groups as JSON and as text.

use lantern_core::FieldValue;

use crate::Plan;
use crate::civil::write_time;
use crate::group_value::GroupValue;

impl Plan {
    /// Appends a group as a JSON object with a member for each column. The start of a bucket is
    /// written with the offset of the query's time zone; other times are in UTC.
    pub fn write_group(&self, group: &[GroupValue], out: &mut Vec<u8>) {
        out.push(b'{');
        for (index, (column, value)) in self.columns().iter().zip(group).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_text(&column.name, out);
            out.push(b':');
            self.write_json(index, value.as_ref(), out);
        }
        out.push(b'}');
    }

    /// Returns the key of a group in a feed: a JSON array of its bucket and its values of `by`.
    pub(crate) fn group_key(&self, key: &[GroupValue]) -> String {
        let mut out = vec![b'['];
        for (index, value) in key.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.write_json(index, value.as_ref(), &mut out);
        }
        out.push(b']');
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Returns the value in a column as text. Null is an empty text.
    #[must_use]
    pub fn cell(&self, index: usize, value: &GroupValue) -> String {
        match value {
            None => String::new(),
            Some(FieldValue::Text(text)) => text.to_string(),
            value => {
                let mut out = Vec::new();
                self.write_json(index, value.as_ref(), &mut out);
                String::from_utf8_lossy(&out).trim_matches('"').to_owned()
            }
        }
    }

    fn write_json(&self, index: usize, value: Option<&FieldValue<'_>>, out: &mut Vec<u8>) {
        match value {
            None => out.extend_from_slice(b"null"),
            Some(FieldValue::Integer(value)) => out.extend_from_slice(value.to_string().as_bytes()),
            Some(FieldValue::Number(value)) => {
                serde_json::to_writer(out, value).expect("a number always encodes into memory");
            }
            Some(FieldValue::Boolean(value)) => out.extend_from_slice(value.to_string().as_bytes()),
            Some(FieldValue::Text(text)) => write_text(text, out),
            Some(FieldValue::Timestamp(time)) => {
                let bucket = index == 0 && self.has_buckets();
                let offset = if bucket { self.zone.clone().offset_s(*time) } else { 0 };
                out.push(b'"');
                write_time(*time, offset, out);
                out.push(b'"');
            }
        }
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a string always encodes into memory");
}
