//! Checks a query against its table, and finds the fields that it names.

use lantern_core::{
    Condition, FieldChoice, FieldKind, FieldReader, FieldSpec, Filter, TableSpec, field_named,
    similar,
};

use crate::aggregate::{self, AccumulatorSpec, Aggregate};
use crate::bucket::{BucketLength, Zone};
use crate::request::{ConditionRequest, OutputColumn, QueryRequest};
use crate::{QueryError, RequestError};

/// The maximum number of columns in a roll-up.
const COLUMNS_MAX: usize = 64;
/// The name that a query uses to order rows by their key.
const KEY: &str = "key";

/// A query that was checked against its table and can run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) filter: Filter,
    pub(crate) reader: FieldReader,
    pub(crate) order: Order,
    pub(crate) shape: Shape,
    pub(crate) zone: Zone,
    columns: Vec<OutputColumn>,
}

/// The order of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// The index of the column that orders the result: a field or, in a roll-up, a column of the
    /// roll-up. `None` orders rows by key, and groups by bucket and then by the fields of `by`.
    pub(crate) column: Option<usize>,
    pub(crate) descending: bool,
}

/// The parts that the result of a query has.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// The rows, with only these fields; `None` means all fields, unchanged.
    Rows(Option<FieldChoice>),
    Groups(RollUp),
}

/// How rows are grouped, and which aggregates the groups have.
#[derive(Clone, Debug)]
pub(crate) struct RollUp {
    pub(crate) time: Option<usize>,
    pub(crate) bucket: Option<BucketLength>,
    pub(crate) by: Vec<usize>,
    pub(crate) accumulators: Vec<AccumulatorSpec>,
    pub(crate) aggregates: Vec<Aggregate>,
    pub(crate) fill: Option<Fill>,
    /// The time range in which buckets without rows are added.
    pub(crate) range: (Option<i64>, Option<i64>),
}

impl RollUp {
    /// Returns whether all rows are one group, which also exists without rows.
    pub(crate) fn is_one_group(&self) -> bool {
        self.key_columns() == 0
    }

    /// Returns the number of columns of the key: the bucket, and the fields of `by`.
    pub(crate) fn key_columns(&self) -> usize {
        usize::from(self.bucket.is_some()) + self.by.len()
    }

    /// Adds the name of the accumulator's column to `error`.
    pub(crate) fn in_column(&self, accumulator: usize, error: QueryError) -> QueryError {
        let column = self.aggregates.iter().find(|one| one.accumulator == accumulator);
        match (error, column) {
            (QueryError::OutOfRange { reason, .. }, Some(column)) => column.out_of_range(reason),
            (error, _) => error,
        }
    }
}

/// What buckets without rows contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Counts and sums are 0, and other aggregates are null.
    Zero,
    Null,
    /// The aggregates are those of the previous bucket.
    Previous,
}

impl Plan {
    /// Checks `request` against `table`.
    ///
    /// # Errors
    /// Returns a [`RequestError`] that names the parameter and the field, and says what to do.
    pub fn new(table: &TableSpec, request: &QueryRequest) -> Result<Self, RequestError> {
        let fields = &table.fields;
        let zone = match &request.tz {
            None => Zone::default(),
            Some(name) => Zone::named(name).ok_or_else(|| {
                let detail = format!(
                    "there is no time zone `{name}`: use a name of the IANA database, such as `Europe/Berlin`"
                );
                RequestError::new("tz", detail)
            })?,
        };
        let mut filter = filter(fields, &request.conditions)?;
        let time = time_field(fields, request)?;
        let range = (bound(&zone, "start", &request.start)?, bound(&zone, "end", &request.end)?);
        if let (Some(start), Some(end)) = range
            && start > end
        {
            return Err(RequestError::new("end", "it is before `start`"));
        }
        if let Some(time) = time {
            filter.push(Condition::present(time));
            Condition::times(time, range.0, range.1).for_each(|condition| filter.push(condition));
        }
        let (shape, columns) = if request.is_roll_up() {
            groups(fields, request, time, range)?
        } else {
            rows(fields, request)?
        };
        let order = order(fields, request, &columns, matches!(shape, Shape::Groups(_)))?;
        let mut chosen: Vec<usize> = filter.fields().collect();
        match &shape {
            Shape::Rows(columns) => {
                chosen.extend(columns.iter().flat_map(FieldChoice::indexes));
                chosen.extend(order.column);
            }
            Shape::Groups(roll_up) => {
                chosen.extend(roll_up.time);
                chosen.extend(&roll_up.by);
                chosen.extend(roll_up.accumulators.iter().filter_map(|spec| spec.field));
            }
        }
        let reader = FieldReader::new(fields, chosen);
        Ok(Self { filter, reader, order, shape, zone, columns })
    }

    /// Returns the columns of the result. For rows, they do not include the key.
    #[must_use]
    pub fn columns(&self) -> &[OutputColumn] {
        &self.columns
    }

    /// Returns whether the result consists of groups and not of rows.
    #[must_use]
    pub fn is_roll_up(&self) -> bool {
        matches!(self.shape, Shape::Groups(_))
    }

    /// Returns whether the result consists of rows in key order.
    #[must_use]
    pub fn is_in_key_order(&self) -> bool {
        !self.is_roll_up() && self.order.column.is_none()
    }

    pub(crate) fn has_buckets(&self) -> bool {
        matches!(&self.shape, Shape::Groups(roll_up) if roll_up.bucket.is_some())
    }

    /// Returns whether the largest key or value comes first.
    #[must_use]
    pub fn is_descending(&self) -> bool {
        self.order.descending
    }
}

fn filter(fields: &[FieldSpec], conditions: &[ConditionRequest]) -> Result<Filter, RequestError> {
    let conditions = conditions.iter().map(|condition| match condition {
        ConditionRequest::Text(text) => Condition::parse(fields, text),
        ConditionRequest::Json { field, operator, value } => {
            Condition::of_json(fields, field, operator, value)
        }
    });
    Ok(Filter::new(conditions.collect::<Result<_, _>>()?)?)
}

/// Returns the timestamp field that the parameter `time` names. If the table has only one such
/// field, the parameter may be left out.
fn time_field(fields: &[FieldSpec], request: &QueryRequest) -> Result<Option<usize>, RequestError> {
    let is_time = |field: &FieldSpec| field.kind == FieldKind::Timestamp;
    if let Some(name) = &request.time {
        let field = field_named(fields, name).map_err(RequestError::field("time"))?;
        if is_time(&fields[field]) {
            return Ok(Some(field));
        }
        let detail = format!(
            "the field `{name}` is of kind `{}`: name a field of kind `timestamp`",
            fields[field].kind.name()
        );
        return Err(RequestError::new("time", detail));
    }
    let needed = [("start", &request.start), ("end", &request.end), ("bucket", &request.bucket)];
    let Some((parameter, _)) = needed.into_iter().find(|(_, value)| value.is_some()) else {
        return Ok(None);
    };
    let mut times = (0..fields.len()).filter(|field| is_time(&fields[*field]));
    match (times.next(), times.next()) {
        (Some(field), None) => Ok(Some(field)),
        (None, _) => {
            Err(RequestError::new(parameter, "the table has no field of kind `timestamp`"))
        }
        (Some(first), Some(second)) => {
            let (first, second) = (&fields[first].name, &fields[second].name);
            let detail = format!(
                "the table has several fields of kind `timestamp`: name one with `time`, such as `{first}` or `{second}`"
            );
            Err(RequestError::new(parameter, detail))
        }
    }
}

fn bound(
    zone: &Zone,
    parameter: &'static str,
    text: &Option<String>,
) -> Result<Option<i64>, RequestError> {
    let Some(text) = text else { return Ok(None) };
    zone.parse(text).map(Some).ok_or_else(|| {
        let detail = format!(
            "`{text}` is no time: write it in RFC 3339, such as `2026-03-01T12:00:00Z`, or as a date, such as `2026-03-01`"
        );
        RequestError::new(parameter, detail)
    })
}

fn rows(
    fields: &[FieldSpec],
    request: &QueryRequest,
) -> Result<(Shape, Vec<OutputColumn>), RequestError> {
    if request.fill.is_some() {
        return Err(RequestError::new("fill", "it needs `bucket`"));
    }
    let Some(names) = &request.columns else {
        return Ok((Shape::Rows(None), fields.iter().map(column).collect()));
    };
    let chosen = FieldChoice::new(fields, names)?;
    let columns = chosen.indexes().map(|field| column(&fields[field])).collect();
    Ok((Shape::Rows(Some(chosen)), columns))
}

fn column(field: &FieldSpec) -> OutputColumn {
    OutputColumn { name: field.name.clone(), kind: field.kind, unit: field.unit.clone() }
}

fn groups(
    fields: &[FieldSpec],
    request: &QueryRequest,
    time: Option<usize>,
    range: (Option<i64>, Option<i64>),
) -> Result<(Shape, Vec<OutputColumn>), RequestError> {
    if request.columns.is_some() {
        let detail = "a roll-up has the columns of `bucket`, `by` and `agg`: leave `cols` out";
        return Err(RequestError::new("cols", detail));
    }
    let bucket = request.bucket.as_deref().map(bucket).transpose()?;
    let fill = fill(request)?;
    let mut columns: Vec<OutputColumn> = Vec::new();
    columns.extend(time.filter(|_| bucket.is_some()).map(|time| column(&fields[time])));
    let mut by = Vec::with_capacity(request.by.len());
    for name in &request.by {
        let field = scalar(fields, "by", name, "groups")?;
        columns.push(column(&fields[field]));
        by.push(field);
    }
    let mut accumulators = Vec::new();
    let aggregates = aggregate::plan(fields, &request.aggregates, &mut accumulators)?;
    columns.extend(aggregates.iter().map(|aggregate| aggregate.column.clone()));
    if columns.len() > COLUMNS_MAX {
        let detail =
            format!("the result has {} columns: the limit is {COLUMNS_MAX}", columns.len());
        return Err(RequestError::new("agg", detail));
    }
    for (place, column) in columns.iter().enumerate() {
        if columns[..place].iter().any(|other| other.name == column.name) {
            let name = &column.name;
            let detail = format!(
                "the result has two columns `{name}`: name one of them, such as `count() as n`"
            );
            return Err(RequestError::new("agg", detail));
        }
    }
    let roll_up = RollUp { time, bucket, by, accumulators, aggregates, fill, range };
    Ok((Shape::Groups(roll_up), columns))
}

/// Returns the field `name`. Its kind must not be `json` or a sketch, because such values cannot be
/// grouped or ordered.
fn scalar(
    fields: &[FieldSpec],
    parameter: &'static str,
    name: &str,
    lacks: &str,
) -> Result<usize, RequestError> {
    let field = field_named(fields, name).map_err(RequestError::field(parameter))?;
    let kind = fields[field].kind;
    if kind == FieldKind::Json || kind.is_sketch() {
        let detail = format!(
            "the field `{name}` is of kind `{}`, which has no {lacks}: name another field",
            kind.name()
        );
        return Err(RequestError::new(parameter, detail));
    }
    Ok(field)
}

fn bucket(text: &str) -> Result<BucketLength, RequestError> {
    BucketLength::parse(text).ok_or_else(|| {
        let detail = format!(
            "`{text}` is no length: write a number from 1 to 10,000 and `s`, `m` (minutes), `h`, `d`, `w`, `mo` (months) or `y`, such as `15m`"
        );
        RequestError::new("bucket", detail)
    })
}

fn fill(request: &QueryRequest) -> Result<Option<Fill>, RequestError> {
    let Some(text) = &request.fill else { return Ok(None) };
    if request.bucket.is_none() {
        return Err(RequestError::new("fill", "it needs `bucket`"));
    }
    match text.as_str() {
        "zero" => Ok(Some(Fill::Zero)),
        "null" => Ok(Some(Fill::Null)),
        "previous" => Ok(Some(Fill::Previous)),
        _ => {
            let detail = format!("it is `{text}`: it must be `zero`, `null` or `previous`");
            Err(RequestError::new("fill", detail))
        }
    }
}

fn order(
    fields: &[FieldSpec],
    request: &QueryRequest,
    columns: &[OutputColumn],
    roll_up: bool,
) -> Result<Order, RequestError> {
    let Some(text) = &request.order else { return Ok(Order { column: None, descending: false }) };
    let (name, descending) =
        text.strip_prefix('-').map_or((text.as_str(), false), |name| (name, true));
    if roll_up {
        let column = columns.iter().position(|column| column.name == name).ok_or_else(|| {
            let names = || columns.iter().map(|column| column.name.as_str());
            let hint = similar(name, names())
                .map(|similar| format!(": did you mean `{similar}`?"))
                .unwrap_or_default();
            let names: Vec<String> = names().map(|name| format!("`{name}`")).collect();
            let detail =
                format!("the result has no column `{name}`{hint}; it has {}", names.join(", "));
            RequestError::new("order", detail)
        })?;
        return Ok(Order { column: Some(column), descending });
    }
    match name {
        "asc" | "desc" if !descending => {
            return Ok(Order { column: None, descending: name == "desc" });
        }
        KEY => return Ok(Order { column: None, descending }),
        _ => {}
    }
    let field = scalar(fields, "order", name, "order")?;
    Ok(Order { column: Some(field), descending })
}
