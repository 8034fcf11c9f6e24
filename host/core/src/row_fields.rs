//! Reads chosen fields of a row. It skips the other fields without decoding them, and allocates no
//! memory.

use crate::{FieldKind, FieldSpec, FieldValue};

/// Finds chosen fields in the rows of a table.
#[derive(Clone, Debug)]
pub struct FieldReader {
    names: Vec<Box<[u8]>>,
    kinds: Vec<FieldKind>,
    /// For each field of the table, its index among the chosen fields; `None` if it is not chosen.
    slots: Vec<Option<usize>>,
    chosen: usize,
}

/// The places of the chosen fields in a row. The same [`FieldSpans`] can be used again for other
/// rows.
#[derive(Clone, Debug, Default)]
pub struct FieldSpans(Vec<Span>);

/// The place of a value in a row. It is empty if the row has no value.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: usize,
    end: usize,
}

/// The values that the chosen fields have in one row.
#[derive(Clone, Copy, Debug)]
pub struct RowFields<'r> {
    reader: &'r FieldReader,
    row: &'r [u8],
    spans: &'r FieldSpans,
}

impl FieldReader {
    /// Creates a reader for a table that declares `fields`. It reads the fields with the indexes
    /// `chosen`.
    #[must_use]
    pub fn new(fields: &[FieldSpec], chosen: impl IntoIterator<Item = usize>) -> Self {
        let mut reader = Self {
            names: fields.iter().map(|field| field.name.as_bytes().into()).collect(),
            kinds: fields.iter().map(|field| field.kind).collect(),
            slots: vec![None; fields.len()],
            chosen: 0,
        };
        for field in chosen {
            if reader.slots[field].is_none() {
                reader.slots[field] = Some(reader.chosen);
                reader.chosen += 1;
            }
        }
        reader
    }

    /// Finds the chosen fields in `row`, a JSON object. If `row` has a syntax error, the fields
    /// after the error have no value.
    pub fn read<'r>(&'r self, row: &'r [u8], spans: &'r mut FieldSpans) -> RowFields<'r> {
        spans.0.clear();
        spans.0.resize(self.chosen, Span::default());
        // The scan ends at the first error. The fields found before the error are used.
        let _ = self.find(row, &mut spans.0);
        RowFields { reader: self, row, spans }
    }

    fn find(&self, row: &[u8], spans: &mut [Span]) -> Option<()> {
        let (mut at, mut missing, mut expected) = (after_space(row, 0), self.chosen, 0);
        if row.get(at) != Some(&b'{') || missing == 0 {
            return None;
        }
        loop {
            at = after_space(row, at + 1);
            if row.get(at) != Some(&b'"') {
                return None;
            }
            let (field, after) = self.name_at(row, at, expected)?;
            at = after_space(row, after);
            if row.get(at) != Some(&b':') {
                return None;
            }
            at = after_space(row, at + 1);
            let end = after_value(row, at)?;
            if let Some(field) = field {
                expected = field + 1;
                if let Some(slot) = self.slots[field]
                    && spans[slot].end == 0
                {
                    spans[slot] = Span { start: at, end };
                    missing -= 1;
                    if missing == 0 {
                        return Some(());
                    }
                }
            }
            at = after_space(row, end);
            if row.get(at) != Some(&b',') {
                return Some(());
            }
        }
    }

    /// Reads the name that begins at the quote at `at`. Returns the field with this name (`None` if
    /// it is not declared), and the index after the name. The field `expected` is tried first,
    /// because most rows have their fields in the order of the manifest.
    fn name_at(&self, row: &[u8], at: usize, expected: usize) -> Option<(Option<usize>, usize)> {
        if let Some(name) = self.names.get(expected) {
            let end = at + 1 + name.len();
            if row.get(end) == Some(&b'"') && row[at + 1..end] == **name {
                return Some((Some(expected), end + 1));
            }
        }
        let end = after_text(row, at)?;
        let name = &row[at + 1..end - 1];
        let field = if name.contains(&b'\\') {
            let name: String = serde_json::from_slice(&row[at..end]).ok()?;
            self.names.iter().position(|known| **known == *name.as_bytes())
        } else {
            self.names.iter().position(|known| **known == *name)
        };
        Some((field, end))
    }
}

impl<'r> RowFields<'r> {
    /// Returns the value of the field with the index `field`, as JSON text. `None` if the row has
    /// no value for it, if the value is `null`, or if the field was not chosen.
    #[must_use]
    pub fn json(&self, field: usize) -> Option<&'r [u8]> {
        let Span { start, end } = self.spans.0[(*self.reader.slots.get(field)?)?];
        let json = &self.row[start..end];
        (!json.is_empty() && json != b"null").then_some(json)
    }

    /// Returns the value of the field with the index `field`, decoded. `None` if the row has no
    /// value of the field's kind.
    #[must_use]
    pub fn value(&self, field: usize) -> Option<FieldValue<'r>> {
        FieldValue::decode(self.reader.kinds[field], self.json(field)?)
    }

    /// Returns the JSON of the whole row.
    #[must_use]
    pub fn row(&self) -> &'r [u8] {
        self.row
    }
}

#[inline]
fn after_space(row: &[u8], mut at: usize) -> usize {
    while matches!(row.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

/// Returns the index after the text whose opening quote is at `at`.
#[inline]
fn after_text(row: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += 1;
        match row.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 1,
            _ => (),
        }
    }
}

/// Returns the index after the value that begins at `at`.
#[inline]
fn after_value(row: &[u8], mut at: usize) -> Option<usize> {
    match row.get(at)? {
        b'"' => after_text(row, at),
        b'{' | b'[' => {
            let mut depth = 0_usize;
            loop {
                match row.get(at)? {
                    b'"' => at = after_text(row, at)? - 1,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => (),
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        _ => {
            let end = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
            Some(row[at..].iter().position(end).map_or(row.len(), |length| at + length))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn fields() -> Vec<FieldSpec> {
        ["a", "b", "c"]
            .map(|name| FieldSpec {
                name: name.into(),
                kind: FieldKind::Json,
                ..FieldSpec::default()
            })
            .into()
    }

    fn read(row: &str, chosen: &[usize]) -> Vec<Option<String>> {
        let reader = FieldReader::new(&fields(), chosen.iter().copied());
        let mut spans = FieldSpans::default();
        let row = reader.read(row.as_bytes(), &mut spans);
        let text = |json: &[u8]| String::from_utf8(json.to_vec()).unwrap();
        (0..3).map(|field| row.json(field).map(text)).collect()
    }

    #[test]
    fn chosen_fields_are_found_in_any_order_and_form() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read(r#"{"a":1,"b":2,"c":3}"#, &[0, 2]), [some("1"), None, some("3")]);
        assert_eq!(read(r#"{"c":3,"a":1}"#, &[0, 1, 2]), [some("1"), None, some("3")]);
        let spaced = "{ \"c\" : [1, {\"x\":\"]}\"}] ,\n\"\\u0061\" : \"q\\\"}\" }";
        let found = [some("\"q\\\"}\""), None, some("[1, {\"x\":\"]}\"}]")];
        assert_eq!(read(spaced, &[0, 1, 2]), found);
        assert_eq!(read(r#"{"x":{"a":1},"a":null,"b":true}"#, &[0, 1])[..2], [None, some("true")]);
    }

    #[test]
    fn malformed_rows_have_no_values_after_their_error() {
        for row in ["", "{", "[1]", "7", "{\"a\"", "{\"a\":", "{\"a\":\"x", "{\"a\":[", "{a:1}"] {
            assert_eq!(read(row, &[0, 1, 2]), [None, None, None], "{row}");
        }
        assert_eq!(read(r#"{"a":1 "b":2}"#, &[0, 1])[..2], [Some("1".into()), None]);
    }

    proptest! {
        #[test]
        fn values_are_those_that_a_json_parser_finds(
            names in prop::sample::subsequence(vec!["c", "x", "b", "a"], 0..=4).prop_shuffle(),
            values in prop::collection::vec(any_json(), 4),
            spaced in any::<bool>(),
        ) {
            let space = if spaced { " " } else { "" };
            let members: Vec<String> = names
                .iter()
                .zip(&values)
                .map(|(name, value)| format!("{space}\"{name}\"{space}:{space}{value}{space}"))
                .collect();
            let row = format!("{{{}}}", members.join(","));
            let parsed: Value = serde_json::from_str(&row).unwrap();
            let found = read(&row, &[0, 1, 2]);
            for (name, found) in ["a", "b", "c"].iter().zip(found) {
                let expected = parsed.get(name).filter(|value| !value.is_null());
                let found: Option<Value> = found.map(|json| serde_json::from_str(&json).unwrap());
                prop_assert_eq!(found.as_ref(), expected, "{}", row);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(row in "[\\[\\]{}\",:\\\\ab1 n]{0,24}") {
            read(&row, &[0, 1, 2]);
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-c\"]", inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }
}
