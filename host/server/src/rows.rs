//! Writes rows as JSON, NDJSON and CSV.

use std::borrow::Cow;
use std::collections::HashMap;

use lantern_core::{FieldKind, Row, TableSpec, split_key};
use serde_json::value::RawValue;

use crate::cloudevents::json_text;

/// Writes `"key":value` for each row. In a table by tenant, each tenant has an object of its
/// own: `"tenant":{"key":value}`.
#[derive(Default)]
pub(crate) struct JsonRows {
    /// Whether a row was written.
    any: bool,
    /// The tenant whose object is open.
    tenant: Option<String>,
}

impl JsonRows {
    /// Appends the next row.
    pub(crate) fn row(&mut self, table: &TableSpec, row: &Row, out: &mut Vec<u8>) {
        let (tenant, key) = split_key(table.per_tenant, &row.key);
        if let Some(tenant) = tenant.filter(|tenant| self.tenant.as_deref() != Some(*tenant)) {
            if self.tenant.is_some() {
                out.extend_from_slice(b"},");
            }
            text(tenant, out);
            out.extend_from_slice(b":{");
            self.tenant = Some(tenant.to_owned());
        } else if self.any {
            out.push(b',');
        }
        self.any = true;
        text(key, out);
        out.push(b':');
        value(row, out);
    }

    /// Ends the last tenant's object.
    pub(crate) fn end(&self, out: &mut Vec<u8>) {
        if self.tenant.is_some() {
            out.push(b'}');
        }
    }
}

/// Appends a row as `{"key":…,"value":…}` and a line end. If the table is per tenant, the object
/// also has a member `tenant`.
pub(crate) fn ndjson_row(table: &TableSpec, row: &Row, out: &mut Vec<u8>) {
    json_row(table, row, out);
    out.push(b'\n');
}

/// Appends a row like [`ndjson_row`], but without the line end.
pub(crate) fn json_row(table: &TableSpec, row: &Row, out: &mut Vec<u8>) {
    out.push(b'{');
    let (tenant, key) = split_key(table.per_tenant, &row.key);
    if let Some(tenant) = tenant {
        out.extend_from_slice(b"\"tenant\":");
        text(tenant, out);
        out.push(b',');
    }
    out.extend_from_slice(b"\"key\":");
    text(key, out);
    out.extend_from_slice(b",\"value\":");
    value(row, out);
    out.push(b'}');
}

/// Returns the first line of a table's CSV: the names of the columns.
pub(crate) fn csv_head(table: &TableSpec) -> Vec<u8> {
    let mut out = Vec::new();
    let key: &[&str] = if table.per_tenant { &["tenant", "key"] } else { &["key"] };
    let names = key.iter().copied().chain(table.fields.iter().map(|f| f.name.as_str()));
    csv_line(names, &mut out);
    out
}

/// Appends a row as a line of CSV (RFC 4180): the key, then the declared fields. If the table is
/// per tenant, the tenant and the rest of the key are in two columns.
pub(crate) fn csv_row(table: &TableSpec, row: &Row, out: &mut Vec<u8>) {
    // If a row cannot be parsed, the line still has its key.
    let object: HashMap<Cow<'_, str>, &RawValue> =
        serde_json::from_slice(&row.value).unwrap_or_default();
    let cells = table.fields.iter().map(|field| match object.get(field.name.as_str()) {
        // Quotes are kept in a `json` field. Otherwise `"1"` and `1` would be the same text.
        Some(value) if field.kind == FieldKind::Json => value.get().to_owned(),
        Some(value) if value.get() != "null" => cell(value.get()),
        _ => String::new(),
    });
    let (tenant, key) = split_key(table.per_tenant, &row.key);
    let keys = tenant.into_iter().chain([key]).map(str::to_owned);
    let cells: Vec<String> = keys.chain(cells).collect();
    csv_line(cells.iter().map(String::as_str), out);
}

/// Returns a value as the text of a cell: a string without its quotes, and everything else as the
/// plugin wrote it.
fn cell(json: &str) -> String {
    json_text(json).map_or_else(|| json.to_owned(), Cow::into_owned)
}

/// Appends a line of CSV.
pub(crate) fn csv_line<'a>(cells: impl Iterator<Item = &'a str>, out: &mut Vec<u8>) {
    for (place, cell) in cells.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        if cell.contains(['"', ',', '\n', '\r']) {
            out.push(b'"');
            out.extend_from_slice(cell.replace('"', "\"\"").as_bytes());
            out.push(b'"');
        } else {
            out.extend_from_slice(cell.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the value of a row. It is a JSON object, which the host checked when it was written. It
/// is sent unchanged, but on one line.
fn value(row: &Row, out: &mut Vec<u8>) {
    out.extend(row.value.iter().map(|&b| if matches!(b, b'\n' | b'\r') { b' ' } else { b }));
}

fn text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a string always encodes into memory");
}

#[cfg(test)]
mod tests {
    use lantern_core::FieldSpec;
    use proptest::prelude::*;

    use super::*;

    fn json_rows(table: &TableSpec, rows: &[Row], out: &mut Vec<u8>) {
        let mut written = JsonRows::default();
        rows.iter().for_each(|row| written.row(table, row, out));
        written.end(out);
    }

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rows_are_written_in_each_shape() {
        let field = |name: &str| FieldSpec { name: name.into(), ..FieldSpec::default() };
        let mut table =
            TableSpec { fields: vec![field("a"), field("b"), field("c")], ..TableSpec::default() };
        let row = Row { key: "k\"1".into(), value: b"{\"a\":\"x,y\",\n\"b\":1.50}".to_vec() };
        let rows = [row.clone(), Row { key: "l".into(), value: b"{}".to_vec() }];
        assert_eq!(
            written(|out| json_rows(&table, &rows, out)),
            r#""k\"1":{"a":"x,y", "b":1.50},"l":{}"#
        );
        assert_eq!(
            written(|out| ndjson_row(&table, &row, out)),
            "{\"key\":\"k\\\"1\",\"value\":{\"a\":\"x,y\", \"b\":1.50}}\n"
        );
        assert_eq!(csv_head(&table), b"key,a,b,c\r\n");
        assert_eq!(written(|out| csv_row(&table, &row, out)), "\"k\"\"1\",\"x,y\",1.50,\r\n");
        table.per_tenant = true;
        let row = Row { key: "t1\0p".into(), value: b"{}".to_vec() };
        let keys = ["t1\0p", "t1\0q", "t2\0p"];
        let rows = keys.map(|key| Row { key: key.into(), value: b"{}".to_vec() });
        assert_eq!(
            written(|out| json_rows(&table, &rows, out)),
            r#""t1":{"p":{},"q":{}},"t2":{"p":{}}"#
        );
        assert_eq!(
            written(|out| ndjson_row(&table, &row, out)),
            "{\"tenant\":\"t1\",\"key\":\"p\",\"value\":{}}\n"
        );
        assert_eq!(csv_head(&table), b"tenant,key,a,b,c\r\n");
        assert_eq!(written(|out| csv_row(&table, &row, out)), "t1,p,,,\r\n");
    }

    #[test]
    fn a_document_is_written_as_json_also_where_it_is_a_string() {
        let kind = FieldKind::Json;
        let doc = FieldSpec { name: "doc".into(), kind, ..FieldSpec::default() };
        let table = TableSpec { fields: vec![doc], ..TableSpec::default() };
        for (value, cell) in [
            (r#"{"doc":"1"}"#, r#""""1""""#),
            (r#"{"doc":1}"#, "1"),
            (r#"{"doc":null}"#, "null"),
            (r#"{"doc":"half \ud83d"}"#, r#""""half \ud83d""""#),
            ("{}", ""),
        ] {
            let row = Row { key: "k".into(), value: value.into() };
            assert_eq!(
                written(|out| csv_row(&table, &row, out)),
                format!("k,{cell}\r\n"),
                "{value}"
            );
        }
    }

    #[test]
    fn numbers_and_text_are_written_as_they_are_stored() {
        let field = |name: &str| FieldSpec { name: name.into(), ..FieldSpec::default() };
        let table = TableSpec { fields: vec![field("doc"), field("kept")], ..TableSpec::default() };
        for (value, cells) in [
            (r#"{"doc":1e400,"kept":1}"#, "1e400,1"),
            (r#"{"doc":18446744073709551617,"kept":true}"#, "18446744073709551617,true"),
            (r#"{"doc":236.726747597707184,"kept":-0.0}"#, "236.726747597707184,-0.0"),
            (r#"{"doc":"half \ud83d","kept":null}"#, "half \u{FFFD},"),
            (r#"{"doc":"a\u0022\n","kept":" x"}"#, "\"a\"\"\n\", x"),
            (r#"{"d\u006fc":{"n":0.10},"kept":[1e-9]}"#, "\"{\"\"n\"\":0.10}\",[1e-9]"),
            (r#"{"doc":1,"doc":2}"#, "2,"),
            ("{", ","),
        ] {
            let row = Row { key: "k".into(), value: value.into() };
            assert_eq!(
                written(|out| csv_row(&table, &row, out)),
                format!("k,{cells}\r\n"),
                "{value}"
            );
        }
    }

    /// Generates JSON values as text, with numbers of any length and strings with any escape.
    fn any_json() -> impl Strategy<Value = String> {
        let number = "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?";
        let text = r#""([^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4}){0,12}""#;
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            number.prop_map(String::from),
            text.prop_map(String::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let list = proptest::collection::vec(inner, 0..4);
            prop_oneof![
                list.clone().prop_map(|items| format!("[{}]", items.join(", "))),
                list.prop_map(|items| {
                    let members = items.iter().enumerate().map(|(n, v)| format!("\"m{n}\" :{v}"));
                    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
                }),
            ]
        })
    }

    /// Splits one line of CSV into its cells, as RFC 4180 requires.
    fn cells(line: &str) -> Vec<String> {
        let (mut cells, mut quoted) = (vec![String::new()], false);
        let mut chars = line.strip_suffix("\r\n").unwrap().chars().peekable();
        while let Some(c) = chars.next() {
            let cell = cells.last_mut().unwrap();
            match c {
                '"' if quoted && chars.peek() == Some(&'"') => cell.extend(chars.next()),
                '"' => quoted = !quoted,
                ',' if !quoted => cells.push(String::new()),
                _ => cell.push(c),
            }
        }
        cells
    }

    proptest! {
        #[test]
        fn any_value_is_written_as_it_is_stored(json in any_json()) {
            let kind = FieldKind::Json;
            let fields = vec![
                FieldSpec { name: "doc".into(), kind, ..FieldSpec::default() },
                FieldSpec { name: "kept".into(), ..FieldSpec::default() },
            ];
            let table = TableSpec { fields, ..TableSpec::default() };
            let value = format!("{{\"doc\":{json},\"kept\":7}}").into_bytes();
            let row = Row { key: "k".into(), value: value.clone() };
            let line = written(|out| ndjson_row(&table, &row, out));
            let read: HashMap<&str, &RawValue> = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(read["value"].get().as_bytes(), value);
            let csv = written(|out| csv_row(&table, &row, out));
            prop_assert_eq!(cells(&csv), ["k", &json, "7"]);
        }
    }
}
