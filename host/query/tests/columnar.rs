//! Arrow streams and Parquet files, read back.

#![allow(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use lantern_core::{FieldKind, FieldSpec, TableSpec};
use lantern_query::{ColumnError, ColumnFormat, ColumnWriter};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use polars_arrow_format::ipc::{MessageHeaderRef, MessageRef, TypeRef, planus::ReadAsRoot};

const KINDS: [FieldKind; 6] = [
    FieldKind::Integer,
    FieldKind::Number,
    FieldKind::Text,
    FieldKind::Boolean,
    FieldKind::Timestamp,
    FieldKind::Json,
];

fn table() -> TableSpec {
    let field =
        |kind: FieldKind| FieldSpec { name: kind.name().into(), kind, ..FieldSpec::default() };
    TableSpec { fields: KINDS.map(field).into(), ..TableSpec::default() }
}

/// Returns the key and the JSON of row `n`. Each seventh row has no values.
fn row(n: usize) -> (String, String) {
    let value = if n.is_multiple_of(7) {
        "{}".to_owned()
    } else {
        format!(
            r#"{{"integer":{},"number":{n}.5,"text":"t\u00e9{n}","boolean":{},"timestamp":"1970-01-01T00:00:{:02}.000001Z","json":{{"n":[{n}]}}}}"#,
            n as i64 - 500,
            n.is_multiple_of(2),
            n % 60
        )
    };
    (format!("k{n:07}"), value)
}

fn written(format: ColumnFormat, rows: usize) -> Vec<u8> {
    let mut writer = ColumnWriter::of_rows(format, &table(), Vec::new()).unwrap();
    for n in 0..rows {
        let (key, value) = row(n);
        writer.row(&key, value.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn a_parquet_file_has_the_values_and_types_of_the_rows() {
    for rows in [0, 1, 1_000, 200_000] {
        let bytes = Bytes::from(written(ColumnFormat::Parquet, rows));
        let reader = SerializedFileReader::new(bytes).unwrap();
        let groups = if rows == 200_000 { 2..4 } else { rows.min(1)..2 };
        assert!(groups.contains(&reader.num_row_groups()), "{}", reader.num_row_groups());
        let mut read = 0;
        for (n, found) in reader.get_row_iter(None).unwrap().enumerate() {
            let found: Vec<(String, Field)> = found.unwrap().into_columns();
            let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names[0], "key");
            assert_eq!(names[1..], KINDS.map(FieldKind::name));
            let values: Vec<Field> = found.into_iter().map(|(_, value)| value).collect();
            let mut expected = vec![Field::Str(row(n).0)];
            if n.is_multiple_of(7) {
                expected.resize(7, Field::Null);
            } else {
                expected.extend([
                    Field::Long(n as i64 - 500),
                    Field::Double(n as f64 + 0.5),
                    Field::Str(format!("té{n}")),
                    Field::Bool(n.is_multiple_of(2)),
                    Field::TimestampMicros((n % 60) as i64 * 1_000_000 + 1),
                    Field::Str(format!(r#"{{"n":[{n}]}}"#)),
                ]);
            }
            assert_eq!(values, expected, "row {n}");
            read += 1;
        }
        assert_eq!(read, rows);
    }
}

/// The metadata and the body of each message of an Arrow stream.
fn messages(mut bytes: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut messages = Vec::new();
    loop {
        let (prefix, rest) = bytes.split_at(8);
        assert_eq!(prefix[..4], [0xFF; 4]);
        let length = i32::from_le_bytes(prefix[4..].try_into().unwrap()) as usize;
        if length == 0 {
            assert!(rest.is_empty());
            return messages;
        }
        let (metadata, rest) = rest.split_at(length);
        let body = MessageRef::read_as_root(metadata).unwrap().body_length().unwrap();
        let (body, rest) = rest.split_at(usize::try_from(body).unwrap());
        messages.push((metadata, body));
        bytes = rest;
    }
}

#[test]
fn an_arrow_stream_has_the_values_and_types_of_the_rows() {
    for rows in [0, 1, 9, 20_000] {
        let bytes = written(ColumnFormat::Arrow, rows);
        let messages = messages(&bytes);
        let header = MessageRef::read_as_root(messages[0].0).unwrap().header().unwrap().unwrap();
        let MessageHeaderRef::Schema(schema) = header else { panic!("no schema first") };
        let types: Vec<String> = schema
            .fields()
            .unwrap()
            .unwrap()
            .iter()
            .map(|field| match field.unwrap().type_().unwrap().unwrap() {
                TypeRef::Int(int) => format!("i{}", int.bit_width().unwrap()),
                TypeRef::FloatingPoint(float) => format!("{:?}", float.precision().unwrap()),
                TypeRef::Utf8(_) => "utf8".into(),
                TypeRef::Bool(_) => "bool".into(),
                TypeRef::Timestamp(time) => {
                    format!("{:?} {}", time.unit().unwrap(), time.timezone().unwrap().unwrap())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(types, ["utf8", "i64", "Double", "utf8", "bool", "Microsecond UTC", "utf8"]);
        let mut n = 0;
        for (metadata, body) in &messages[1..] {
            let header = MessageRef::read_as_root(metadata).unwrap().header().unwrap().unwrap();
            let MessageHeaderRef::RecordBatch(batch) = header else { panic!("no batch") };
            let length = usize::try_from(batch.length().unwrap()).unwrap();
            let buffers: Vec<&[u8]> = batch
                .buffers()
                .unwrap()
                .unwrap()
                .iter()
                .map(|buffer| {
                    let offset = usize::try_from(buffer.offset()).unwrap();
                    assert!(offset.is_multiple_of(8));
                    &body[offset..offset + usize::try_from(buffer.length()).unwrap()]
                })
                .collect();
            // The buffers are in this order: validity bits, starts and bytes of the key; validity
            // bits and values of the integer; then the same for the number and for the text.
            let bit = |bits: &[u8], at: usize| bits.is_empty() || bits[at / 8] >> (at % 8) & 1 == 1;
            let long = |bytes: &[u8], at: usize| {
                i64::from_le_bytes(bytes[at * 8..][..8].try_into().unwrap())
            };
            let text = |starts: &[u8], bytes: &[u8], at: usize| {
                let start = |at: usize| {
                    i32::from_le_bytes(starts[at * 4..][..4].try_into().unwrap()) as usize
                };
                String::from_utf8(bytes[start(at)..start(at + 1)].to_vec()).unwrap()
            };
            for at in 0..length {
                assert_eq!(text(buffers[1], buffers[2], at), row(n).0);
                let present = !n.is_multiple_of(7);
                assert_eq!(bit(buffers[3], at), present);
                assert_eq!(bit(buffers[10], at), present);
                if present {
                    assert_eq!(long(buffers[4], at), n as i64 - 500);
                    assert_eq!(f64::from_bits(long(buffers[6], at) as u64), n as f64 + 0.5);
                    assert_eq!(text(buffers[8], buffers[9], at), format!("té{n}"));
                    assert_eq!(bit(buffers[11], at), n.is_multiple_of(2));
                    assert_eq!(long(buffers[13], at), (n % 60) as i64 * 1_000_000 + 1);
                    assert_eq!(text(buffers[15], buffers[16], at), format!(r#"{{"n":[{n}]}}"#));
                }
                n += 1;
            }
        }
        assert_eq!(n, rows);
    }
}

#[test]
fn an_integer_without_a_place_in_a_column_is_an_error_that_names_it() {
    let mut writer = ColumnWriter::of_rows(ColumnFormat::Arrow, &table(), Vec::new()).unwrap();
    let error = writer.row("k", br#"{"integer":9223372036854775808}"#).unwrap_err();
    assert!(matches!(error, ColumnError::OutOfRange { .. }));
    let text = error.to_string();
    assert!(text.contains("`integer`") && text.contains("9223372036854775808"), "{text}");
}

#[test]
fn a_field_named_like_the_key_keeps_its_name() {
    let field = |name: &str| FieldSpec { name: name.into(), ..FieldSpec::default() };
    let fields = vec![field("key"), field("_key")];
    let table = TableSpec { fields, per_tenant: true, ..TableSpec::default() };
    let mut writer = ColumnWriter::of_rows(ColumnFormat::Parquet, &table, Vec::new()).unwrap();
    writer.row("t1\0k1", br#"{"key":"a","_key":"b"}"#).unwrap();
    let reader = SerializedFileReader::new(Bytes::from(writer.finish().unwrap())).unwrap();
    let found = reader.get_row_iter(None).unwrap().next().unwrap().unwrap().to_string();
    assert_eq!(found, r#"{tenant: "t1", __key: "k1", key: "a", _key: "b"}"#);
}
