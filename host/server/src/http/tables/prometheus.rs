//! Writes rows and groups as metrics, in the text format of Prometheus.
//!
//! Each field or column with numbers becomes a metric, and each one with text becomes a label. The
//! name of a metric is `PROJECTION_TABLE_FIELD`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use lantern_core::{FieldKind, FieldReader, FieldSpans, FieldValue, split_key};
use lantern_query::QueryRequest;

use super::result_shape::{PageRows, ResultShape};
use crate::http::shard_metrics::{escaped, escaped_help};
use crate::problem::Problem;

/// What the metrics are about.
pub(super) struct MetricSource<'a> {
    pub(super) projection: &'a str,
    pub(super) table: &'a str,
    pub(super) request: Option<&'a QueryRequest>,
    /// The setting `query.prometheus_rows_max`.
    pub(super) rows_max: usize,
}

/// A column of the result.
struct Column {
    name: String,
    kind: FieldKind,
    unit: String,
}

/// Returns the result as text. `complete` tells whether `rows` are all rows of the result.
pub(super) fn write(
    source: &MetricSource<'_>,
    shape: ResultShape<'_>,
    rows: PageRows<'_>,
    complete: bool,
) -> Result<Vec<u8>, Problem> {
    if !complete {
        let max = source.rows_max;
        let detail = format!(
            "the result has more sets of labels than allowed: the limit is {max} (`query.prometheus_rows_max`)"
        );
        let problem = Problem::new("LAN-0427", detail);
        return Err(problem.with("setting", "query.prometheus_rows_max"));
    }
    if source.request.is_some_and(|request| request.bucket.is_some()) {
        return Err(wrong("a metric has one value now: leave `bucket` out, or use another format"));
    }
    let columns = columns(shape);
    // The fields of `by` are labels, even if they are not text.
    let by = match shape {
        ResultShape::Groups(_) => source.request.map_or(0, |request| request.by.len()),
        ResultShape::ByKey(_) | ResultShape::InOrder(..) => 0,
    };
    let is_group = matches!(shape, ResultShape::Groups(_));
    let is_label = |place: usize| {
        if is_group { place < by } else { columns[place].kind == FieldKind::Text }
    };
    let is_number = |place: usize| {
        let numbers = [FieldKind::Integer, FieldKind::Number, FieldKind::Boolean];
        !is_label(place) && numbers.contains(&columns[place].kind)
    };
    let metrics: Vec<usize> = (0..columns.len()).filter(|place| is_number(*place)).collect();
    if metrics.is_empty() {
        return Err(wrong(
            "the result has no field of kind `integer`, `number` or `boolean`: name one in `cols` or `agg`",
        ));
    }
    let labels: Vec<usize> = (0..columns.len()).filter(|place| is_label(*place)).collect();
    let samples = samples(shape, rows, &columns, &labels);
    let (mut out, mut names) = (String::new(), BTreeSet::new());
    for place in metrics {
        let Column { name, unit, .. } = &columns[place];
        let metric = format!("{}_{}_{name}", source.projection, source.table);
        let metric = unused(sanitised(&metric), &mut names);
        let unit = if unit.is_empty() { String::new() } else { format!(" in {unit}") };
        let help = format!("`{name}`{unit} of {}/{}.", source.projection, source.table);
        let help = escaped_help(&help);
        // Writing to a string cannot fail.
        let _ = write!(out, "# HELP {metric} {help}\n# TYPE {metric} gauge\n");
        for Sample { labels, values } in &samples {
            if let Some(value) = &values[place] {
                let _ = writeln!(out, "{metric}{labels} {value}");
            }
        }
    }
    Ok(out.into_bytes())
}

fn wrong(detail: &str) -> Problem {
    Problem::new("LAN-0426", format!("`format`: {detail}")).with("parameter", "format")
}

fn columns(shape: ResultShape<'_>) -> Vec<Column> {
    let column =
        |name: &str, kind, unit: &str| Column { name: name.into(), kind, unit: unit.into() };
    match shape {
        ResultShape::ByKey(table) | ResultShape::InOrder(table, _) => {
            let fields = table.fields.iter();
            fields.map(|field| column(&field.name, field.kind, &field.unit)).collect()
        }
        ResultShape::Groups(plan) => {
            let columns = plan.columns().iter();
            columns.map(|found| column(&found.name, found.kind, &found.unit)).collect()
        }
    }
}

/// A row: its labels with braces, and the value of each column.
struct Sample {
    labels: String,
    values: Vec<Option<String>>,
}

fn samples(
    shape: ResultShape<'_>,
    rows: PageRows<'_>,
    columns: &[Column],
    labels: &[usize],
) -> Vec<Sample> {
    let mut names = BTreeSet::new();
    // The label of a text field has the name of the field. If a field is named `key` or `tenant`,
    // the label of the key or tenant gets another name.
    let fields: Vec<String> =
        labels.iter().map(|place| unused(sanitised(&columns[*place].name), &mut names)).collect();
    match (shape, rows) {
        (ResultShape::ByKey(table) | ResultShape::InOrder(table, _), PageRows::Rows(rows)) => {
            let tenant_name = table.per_tenant.then(|| unused("tenant".into(), &mut names));
            let key_name = unused("key".into(), &mut names);
            let reader = FieldReader::new(&table.fields, 0..table.fields.len());
            let mut spans = FieldSpans::default();
            let sample = |row: &lantern_core::Row| {
                let (tenant, key) = split_key(table.per_tenant, &row.key);
                let read = reader.read(&row.value, &mut spans);
                let mut pairs = Vec::with_capacity(labels.len() + 2);
                pairs.extend(tenant_name.as_deref().zip(tenant.map(str::to_owned)));
                pairs.push((key_name.as_str(), key.to_owned()));
                for (name, place) in fields.iter().zip(labels) {
                    if let Some(FieldValue::Text(text)) = read.value(*place) {
                        pairs.push((name.as_str(), text.into_owned()));
                    }
                }
                let values = (0..columns.len()).map(|place| number(read.value(place).as_ref()));
                Sample { labels: braced(&pairs), values: values.collect() }
            };
            rows.iter().map(sample).collect()
        }
        (ResultShape::Groups(plan), PageRows::Groups(groups)) => {
            let sample = |group: &Vec<lantern_query::GroupValue>| {
                let pairs = fields.iter().zip(labels);
                let pairs: Vec<_> = pairs
                    .map(|(name, place)| (name.as_str(), plan.cell(*place, &group[*place])))
                    .collect();
                let values = group.iter().map(|value| number(value.as_ref()));
                Sample { labels: braced(&pairs), values: values.collect() }
            };
            groups.iter().map(sample).collect()
        }
        _ => Vec::new(),
    }
}

/// Returns a value as a number; `None` if it is of another kind or missing.
fn number(value: Option<&FieldValue<'_>>) -> Option<String> {
    match value? {
        FieldValue::Integer(value) => Some(value.to_string()),
        FieldValue::Number(value) => Some(value.to_string()),
        FieldValue::Boolean(value) => Some(u8::from(*value).to_string()),
        FieldValue::Text(_) | FieldValue::Timestamp(_) => None,
    }
}

fn braced(pairs: &[(&str, String)]) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> =
        pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

/// Replaces characters of `name` until it has only letters, digits and underscores, and begins
/// neither with a digit nor with two underscores. Names that begin with two underscores are
/// reserved.
fn sanitised(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let trimmed = plain.trim_start_matches('_');
    if trimmed.starts_with(|c: char| c.is_ascii_alphabetic()) && trimmed.len() == plain.len() {
        plain
    } else {
        format!("_{trimmed}")
    }
}

/// Returns `name`, with underscores appended if `names` already contains it. Adds the result to
/// `names`.
fn unused(mut name: String, names: &mut BTreeSet<String>) -> String {
    while !names.insert(name.clone()) {
        name.push('_');
    }
    name
}

#[cfg(test)]
mod tests {
    use lantern_core::{FieldSpec, Row, TableSpec};

    use super::*;

    #[test]
    fn names_have_only_the_characters_that_prometheus_allows() {
        for (name, expected) in
            [("a_b", "a_b"), ("by-minute", "by_minute"), ("1a", "_1a"), ("__a", "_a"), ("é", "_")]
        {
            assert_eq!(sanitised(name), expected);
        }
        let mut names = BTreeSet::new();
        let unused: Vec<_> = ["a", "a", "a_"].map(|name| unused(name.into(), &mut names)).into();
        assert_eq!(unused, ["a", "a_", "a__"]);
    }

    #[test]
    fn rows_are_metrics_with_escaped_labels() {
        let field = |name: &str, kind, unit: &str| FieldSpec {
            name: name.into(),
            kind,
            unit: unit.into(),
            ..FieldSpec::default()
        };
        let fields = vec![
            field("key", FieldKind::Text, ""),
            field("cents", FieldKind::Integer, "EUR"),
            field("open", FieldKind::Boolean, ""),
            field("at", FieldKind::Timestamp, ""),
        ];
        let table = TableSpec { fields, per_tenant: true, ..TableSpec::default() };
        let row = |key: &str, value: &str| Row { key: key.into(), value: value.into() };
        let rows = [
            row("t\0a\"b\\", r#"{"key":"x\ny","cents":18446744073709551615,"open":true}"#),
            row("t\0c", r#"{"cents":null,"open":false}"#),
        ];
        let source = MetricSource { projection: "my-p", table: "t", request: None, rows_max: 10 };
        let (shape, rows) = (ResultShape::ByKey(&table), PageRows::Rows(&rows));
        let text = String::from_utf8(write(&source, shape, rows, true).unwrap()).unwrap();
        assert_eq!(
            text,
            "# HELP my_p_t_cents `cents` in EUR of my-p/t.\n# TYPE my_p_t_cents gauge\n\
             my_p_t_cents{tenant=\"t\",key_=\"a\\\"b\\\\\",key=\"x\\ny\"} 18446744073709551615\n\
             # HELP my_p_t_open `open` of my-p/t.\n# TYPE my_p_t_open gauge\n\
             my_p_t_open{tenant=\"t\",key_=\"a\\\"b\\\\\",key=\"x\\ny\"} 1\n\
             my_p_t_open{tenant=\"t\",key_=\"c\"} 0\n"
        );
        let problem = write(&source, shape, rows, false).unwrap_err();
        assert!(problem.detail.contains("the limit is 10 (`query.prometheus_rows_max`)"));
    }
}
