//! Implements the aggregates of a group: their names, and the accumulators that compute them while
//! rows are read.

use lantern_core::{FieldKind, FieldSpec, FieldValue, RowFields, field_named};
use lantern_sketch::{Distinct, Percentiles};

use crate::exact_sum::ExactSum;
use crate::request::{AggregateRequest, OutputColumn};
use crate::{Budget, QueryError, RequestError};

/// Percentiles need whole numbers, so values of the kind `number` are multiplied by this number.
const SCALE: u32 = 1_000_000;

/// An aggregate of a roll-up.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Aggregate {
    /// The column of the result that shows the aggregate.
    pub(crate) column: OutputColumn,
    /// The index of the accumulator that computes the aggregate.
    pub(crate) accumulator: usize,
    /// The percentile that is shown, if the accumulator is a sketch of percentiles.
    percent: u8,
    /// Whether the result without any rows is 0.
    pub(crate) counts: bool,
}

/// What an accumulator computes: a function of a field. Aggregates with equal specifications share
/// one accumulator. For example, `p50(ms)` and `p95(ms)` need only one sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AccumulatorSpec {
    pub(crate) function: Function,
    /// The index of the field; `None` to count rows.
    pub(crate) field: Option<usize>,
    kind: FieldKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Count,
    Sum,
    Average,
    Min,
    Max,
    First,
    Last,
    Distinct,
    Percentiles,
}

/// The names of the functions, for errors.
const FUNCTIONS: &str =
    "`count`, `sum`, `avg`, `min`, `max`, `first`, `last`, `distinct` and `p1` to `p99`";

/// Reads the aggregates that a query requests. Adds the accumulators that they need to
/// `accumulators`.
pub(crate) fn plan(
    fields: &[FieldSpec],
    requested: &[AggregateRequest],
    accumulators: &mut Vec<AccumulatorSpec>,
) -> Result<Vec<Aggregate>, RequestError> {
    requested.iter().map(|request| plan_one(fields, request, accumulators)).collect()
}

fn plan_one(
    fields: &[FieldSpec],
    request: &AggregateRequest,
    accumulators: &mut Vec<AccumulatorSpec>,
) -> Result<Aggregate, RequestError> {
    let name = request.function.as_str();
    let percent = name.strip_prefix('p').and_then(|digits| digits.parse::<u8>().ok());
    let function = match name {
        "count" => Function::Count,
        "sum" => Function::Sum,
        "avg" => Function::Average,
        "min" => Function::Min,
        "max" => Function::Max,
        "first" => Function::First,
        "last" => Function::Last,
        "distinct" => Function::Distinct,
        _ if percent.is_some_and(|percent| (1..=99).contains(&percent)) => Function::Percentiles,
        _ => {
            let detail = format!("there is no function `{name}`: the functions are {FUNCTIONS}");
            return Err(RequestError::new("agg", detail));
        }
    };
    let field = match &request.field {
        Some(field) => Some(field_named(fields, field).map_err(RequestError::field("agg"))?),
        None if function == Function::Count => None,
        None => {
            let detail = format!("`{name}` needs a field, such as `{name}({})`", fields[0].name);
            return Err(RequestError::new("agg", detail));
        }
    };
    let kind = field.map_or(FieldKind::Integer, |field| fields[field].kind);
    let result = result_kind(function, kind).ok_or_else(|| {
        let (field, kind) = (request.field.as_deref().unwrap_or_default(), kind.name());
        let detail = format!(
            "`{name}` does not apply to the field `{field}` of kind `{kind}`; {}",
            applies_to(function)
        );
        RequestError::new("agg", detail)
    })?;
    let spec = AccumulatorSpec { function, field, kind };
    let accumulator = accumulators.iter().position(|known| *known == spec).unwrap_or_else(|| {
        accumulators.push(spec);
        accumulators.len() - 1
    });
    let unit = match (function, field) {
        (Function::Count | Function::Distinct, _) | (_, None) => String::new(),
        (_, Some(field)) => fields[field].unit.clone(),
    };
    let default_name = match &request.field {
        Some(field) => format!("{name}_{field}"),
        None => name.to_owned(),
    };
    Ok(Aggregate {
        column: OutputColumn {
            name: request.name.clone().unwrap_or(default_name),
            kind: result,
            unit,
        },
        accumulator,
        percent: percent.unwrap_or_default(),
        counts: matches!(function, Function::Count | Function::Distinct | Function::Sum),
    })
}

/// Returns the kind of the values that `function` returns for a field of `kind`; `None` if the
/// function cannot be used with this kind.
fn result_kind(function: Function, kind: FieldKind) -> Option<FieldKind> {
    use FieldKind::{Boolean, Integer, Json, Number, Text, Timestamp};
    let sketch = kind.is_sketch();
    match function {
        Function::Count => Some(Integer),
        Function::Sum => matches!(kind, Integer | Number).then_some(kind),
        Function::Average => matches!(kind, Integer | Number).then_some(Number),
        Function::Min | Function::Max | Function::First | Function::Last => {
            matches!(kind, Integer | Number | Text | Timestamp | Boolean).then_some(kind)
        }
        Function::Distinct if sketch => (kind == FieldKind::Distinct).then_some(Integer),
        Function::Distinct => (kind != Json).then_some(Integer),
        Function::Percentiles => match kind {
            Integer | FieldKind::Percentiles => Some(Integer),
            Number => Some(Number),
            _ => None,
        },
    }
}

fn applies_to(function: Function) -> &'static str {
    match function {
        Function::Sum | Function::Average => "it applies to `integer` and `number`",
        Function::Percentiles => "it applies to `integer`, `number` and `percentiles`",
        Function::Distinct => "it applies to all kinds except `json` and `percentiles`",
        _ => "it does not apply to `json` and sketches",
    }
}

/// What one function has computed so far from the rows of a group.
#[derive(Clone, Debug)]
pub(crate) enum Accumulator {
    Count(u64),
    /// The exact sum of integers, and the number of values.
    Integers {
        sum: i128,
        count: u64,
    },
    /// The exact sum of doubles, and the number of values.
    Numbers {
        sum: ExactSum,
        count: u64,
    },
    /// The smallest, largest, first or last value, and the time of its row.
    Value {
        value: Option<FieldValue<'static>>,
        time: i64,
    },
    Distinct(Box<Distinct>),
    Percentiles(Box<Percentiles>),
}

impl Accumulator {
    pub(crate) fn new(spec: AccumulatorSpec) -> Self {
        match spec.function {
            Function::Count => Self::Count(0),
            Function::Sum | Function::Average if spec.kind == FieldKind::Integer => {
                Self::Integers { sum: 0, count: 0 }
            }
            Function::Sum | Function::Average => {
                Self::Numbers { sum: ExactSum::default(), count: 0 }
            }
            Function::Min | Function::Max | Function::First | Function::Last => {
                Self::Value { value: None, time: 0 }
            }
            Function::Distinct => Self::Distinct(Box::default()),
            Function::Percentiles => Self::Percentiles(Box::default()),
        }
    }

    /// Adds a row to the accumulator. `time` is the row's time in the query's time field; 0 if the
    /// query has no such field.
    #[inline]
    pub(crate) fn add(
        &mut self,
        spec: AccumulatorSpec,
        row: &RowFields<'_>,
        time: i64,
        budget: &mut Budget<'_>,
    ) -> Result<(), QueryError> {
        let Some(field) = spec.field else {
            if let Self::Count(count) = self {
                *count += 1;
            }
            return Ok(());
        };
        match self {
            Self::Count(count) => *count += u64::from(row.json(field).is_some()),
            Self::Integers { sum, count } => {
                if let Some(FieldValue::Integer(value)) = row.value(field) {
                    *sum += value;
                    *count += 1;
                }
            }
            Self::Numbers { sum, count } => {
                if let Some(FieldValue::Number(value)) = row.value(field) {
                    let before = sum.heap_bytes();
                    sum.add(value);
                    budget.take(sum.heap_bytes() - before)?;
                    *count += 1;
                }
            }
            Self::Value { value, time: known } => {
                if let Some(candidate) = row.value(field).map(positive_zero)
                    && replaces(spec.function, value.as_ref(), *known, &candidate, time)
                {
                    budget.take(text_bytes(&candidate))?;
                    budget.release(value.as_ref().map_or(0, text_bytes));
                    (*value, *known) = (Some(candidate.into_owned()), time);
                }
            }
            Self::Distinct(sketch) => {
                let before = sketch.heap_bytes();
                add_distinct(sketch, spec, field, row);
                budget.take(sketch.heap_bytes().saturating_sub(before))?;
            }
            Self::Percentiles(sketch) => {
                let before = sketch.heap_bytes();
                add_percentile(sketch, spec, field, row)?;
                budget.take(sketch.heap_bytes().saturating_sub(before))?;
            }
        }
        Ok(())
    }
}

pub(crate) fn text_bytes(value: &FieldValue<'_>) -> usize {
    if let FieldValue::Text(text) = value { text.len() } else { 0 }
}

/// Returns whether `candidate` replaces `known`, the current value of the accumulator. Rows are
/// read in key order. Among rows with the same time, `first` therefore returns the value of the
/// first one in key order, and `last` that of the last one.
fn replaces(
    function: Function,
    known: Option<&FieldValue<'_>>,
    known_time: i64,
    candidate: &FieldValue<'_>,
    time: i64,
) -> bool {
    let Some(known) = known else { return true };
    match function {
        Function::Min => candidate.compare(known).is_lt(),
        Function::Max => candidate.compare(known).is_gt(),
        Function::First => time < known_time,
        _ => time >= known_time,
    }
}

/// Returns 0 for -0, and any other value unchanged. 0 and -0 are equal, so a result must not depend
/// on which of them is read first.
pub(crate) fn positive_zero(value: FieldValue<'_>) -> FieldValue<'_> {
    match value {
        FieldValue::Number(number) => FieldValue::Number(number + 0.0),
        value => value,
    }
}

fn add_distinct(sketch: &mut Distinct, spec: AccumulatorSpec, field: usize, row: &RowFields<'_>) {
    if spec.kind == FieldKind::Distinct {
        let other = row.json(field).and_then(|json| serde_json::from_slice::<Distinct>(json).ok());
        if let Some(other) = other {
            sketch.merge(&other);
        }
        return;
    }
    match row.value(field) {
        Some(FieldValue::Text(text)) => sketch.add(&text),
        Some(FieldValue::Integer(value)) => match i64::try_from(value) {
            Ok(value) => sketch.add_integer(value),
            Err(_) => sketch.add(&value.to_string()),
        },
        // Equal numbers must be counted once: adding 0 turns -0 into 0, and 1.0 and 1 have the same
        // text.
        Some(FieldValue::Number(value)) => sketch.add(&(value + 0.0).to_string()),
        Some(FieldValue::Boolean(value)) => sketch.add(if value { "true" } else { "false" }),
        Some(FieldValue::Timestamp(time)) => sketch.add_integer(time),
        None => {}
    }
}

fn add_percentile(
    sketch: &mut Percentiles,
    spec: AccumulatorSpec,
    field: usize,
    row: &RowFields<'_>,
) -> Result<(), QueryError> {
    let out_of_range = |reason| QueryError::OutOfRange { column: String::new(), reason };
    if spec.kind == FieldKind::Percentiles {
        let other =
            row.json(field).and_then(|json| serde_json::from_slice::<Percentiles>(json).ok());
        if let Some(other) = other {
            sketch.merge(&other);
        }
        return Ok(());
    }
    match row.value(field) {
        Some(FieldValue::Integer(value)) => {
            let value = i64::try_from(value);
            sketch.add(value.map_err(|_| out_of_range("percentiles take integers below 2^63"))?);
        }
        Some(FieldValue::Number(value)) if !sketch.add_number(value, SCALE) => {
            return Err(out_of_range("percentiles take numbers from -9.2e12 to 9.2e12"));
        }
        _ => {}
    }
    Ok(())
}

impl Aggregate {
    /// Returns the result of `accumulator`; `None` if there were no values.
    pub(crate) fn result(
        &self,
        spec: AccumulatorSpec,
        accumulator: &Accumulator,
    ) -> Result<Option<FieldValue<'static>>, QueryError> {
        let integer = |value: u64| Some(FieldValue::Integer(value.into()));
        #[expect(clippy::cast_precision_loss, reason = "an average is a double")]
        Ok(match accumulator {
            Accumulator::Count(count) => integer(*count),
            Accumulator::Integers { count: 0, .. } | Accumulator::Numbers { count: 0, .. } => None,
            Accumulator::Integers { sum, count } if spec.function == Function::Average => {
                Some(FieldValue::Number(*sum as f64 / *count as f64))
            }
            Accumulator::Integers { sum, .. } => {
                if !FieldValue::is_integer(*sum) {
                    return Err(self.out_of_range("the sum is not within -2^63 and 2^64 - 1"));
                }
                Some(FieldValue::Integer(*sum))
            }
            Accumulator::Numbers { sum, count } => {
                let sum = sum.value();
                let average = spec.function == Function::Average;
                let value = if average { sum / *count as f64 } else { sum };
                if !value.is_finite() {
                    return Err(self.out_of_range("the sum is larger than any double"));
                }
                Some(FieldValue::Number(value))
            }
            Accumulator::Value { value, .. } => value.clone(),
            Accumulator::Distinct(sketch) => integer(sketch.estimate()),
            Accumulator::Percentiles(sketch) => sketch.percentile(self.percent).map(|value| {
                if self.column.kind == FieldKind::Number {
                    FieldValue::Number(value as f64 / f64::from(SCALE))
                } else {
                    FieldValue::Integer(value.into())
                }
            }),
        })
    }

    pub(crate) fn out_of_range(&self, reason: &'static str) -> QueryError {
        QueryError::OutOfRange { column: self.column.name.clone(), reason }
    }
}
