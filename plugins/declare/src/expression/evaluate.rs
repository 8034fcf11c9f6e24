//! Evaluates checked expressions for an event.
//!
//! The result of an expression is a value or null, or the expression fails. The limits on the size
//! of expressions also limit the time of an evaluation. As in SQL, the result of an operator or
//! function is null if an operand is null, unless its documentation says otherwise.

use std::borrow::Cow;
use std::cmp::Ordering;

use lantern_sdk::window::Window;
use lantern_sdk::zone::TimeZone;
use lantern_sdk::{Error, Event, Key as _, MemberLookup, Narrow, Scalar, Timestamp};

use super::compile::{Constant, EventAttribute, FieldInfo, Node, kind_word};
use super::functions::Function;
use super::syntax::Operator;
use crate::nested;

/// The maximum length of a text that a function returns, in bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 65_536;

/// The value of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Boolean(bool),
    Integer(i64),
    /// A number, which is always finite.
    Number(f64),
    Text(Cow<'a, str>),
    Timestamp(Timestamp),
}

impl Value<'_> {
    /// Returns whether the value is `true`. Null is not `true`.
    #[inline]
    pub(crate) fn is_true(&self) -> bool {
        matches!(self, Self::Boolean(true))
    }
}

/// What an expression can read when it is evaluated.
#[derive(Clone, Copy)]
pub(crate) struct Input<'e, 'v> {
    /// The event; `None` for columns that depend only on the window.
    pub(crate) event: Option<&'v Event<'e>>,
    /// The window, for columns that are written when the window is known.
    pub(crate) window: Option<Window>,
}

impl<'e> Input<'e, '_> {
    #[inline]
    fn member(self, index: usize) -> Result<MemberLookup<'e>, Error> {
        match self.event {
            Some(event) => event.member(index),
            None => Ok(MemberLookup::Missing),
        }
    }
}

fn overflow(what: &str, a: i64, b: i64) -> Error {
    Error::new(format!("{a} {what} {b} is outside of 64 bits"))
}

fn finite<'a>(number: f64) -> Result<Value<'a>, Error> {
    if number.is_finite() {
        Ok(Value::Number(number))
    } else {
        Err(Error::new("a number became too large"))
    }
}

impl Node {
    /// Evaluates the expression for an event.
    ///
    /// # Errors
    /// Fails if a field has a value of another kind, if an integer does not fit 64 bits, or if a
    /// number is divided by zero. The event is then parked.
    #[inline]
    pub(crate) fn evaluate<'e>(&'e self, input: Input<'e, '_>) -> Result<Value<'e>, Error> {
        match self {
            Self::Constant(constant) => Ok(constant.value()),
            Self::Time => Ok(input.event.map_or(Value::Null, |it| Value::Timestamp(it.time()))),
            Self::Attribute(attribute) => match input.event {
                Some(event) => attribute.read(event),
                None => Ok(Value::Null),
            },
            Self::Member { index, field } => match input.member(*index)? {
                MemberLookup::Value(scalar) => Ok(of_scalar(scalar)),
                MemberLookup::Missing => Ok(Value::Null),
                MemberLookup::Mismatched => Err(field.mismatch()),
            },
            _ => self.evaluate_inner(input),
        }
    }

    fn evaluate_inner<'e>(&'e self, input: Input<'e, '_>) -> Result<Value<'e>, Error> {
        match self {
            Self::Constant(_) | Self::Time | Self::Attribute(_) | Self::Member { .. } => {
                self.evaluate(input)
            }
            Self::Nested { index, path, field } => nested_value(*index, path, field, input),
            Self::WindowStart => {
                Ok(input.window.map_or(Value::Null, |it| Value::Timestamp(it.start)))
            }
            Self::WindowEnd => Ok(input.window.map_or(Value::Null, |it| Value::Timestamp(it.end))),
            Self::ToNumber(inner) => match inner.evaluate(input)? {
                Value::Integer(value) => Ok(Value::Number(value as f64)),
                other => Ok(other),
            },
            Self::Not(inner) | Self::NegateInteger(inner) | Self::NegateNumber(inner) => {
                negated(inner.evaluate(input)?)
            }
            Self::And(left, right) => logical(left, right, input, false),
            Self::Or(left, right) => logical(left, right, input, true),
            Self::Integers(operator, left, right) => {
                match (left.evaluate(input)?, right.evaluate(input)?) {
                    (Value::Integer(a), Value::Integer(b)) => {
                        integers(*operator, a, b).map(Value::Integer)
                    }
                    _ => Ok(Value::Null),
                }
            }
            Self::Numbers(operator, left, right) => {
                match (left.evaluate(input)?, right.evaluate(input)?) {
                    (Value::Number(a), Value::Number(b)) => numbers(*operator, a, b),
                    _ => Ok(Value::Null),
                }
            }
            Self::Compare(operator, left, right) => {
                let order = compare(&left.evaluate(input)?, &right.evaluate(input)?);
                Ok(order.map_or(Value::Null, |order| Value::Boolean(holds(*operator, order))))
            }
            Self::In(item, list) => {
                let item = item.evaluate(input)?;
                let mut unknown = item == Value::Null;
                for value in list {
                    match compare(&item, &value.evaluate(input)?) {
                        Some(Ordering::Equal) => return Ok(Value::Boolean(true)),
                        Some(_) => {}
                        None => unknown = true,
                    }
                }
                Ok(if unknown { Value::Null } else { Value::Boolean(false) })
            }
            Self::Call(function, args) => call(*function, args, input),
            Self::Period { function, zone, time, last } => match time.evaluate(input)? {
                Value::Timestamp(time) => Ok(period(*function, zone, time, last)),
                _ => Ok(Value::Null),
            },
        }
    }
}

impl Constant {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Boolean(value) => Value::Boolean(*value),
            Self::Integer(value) => Value::Integer(*value),
            Self::Number(value) => Value::Number(*value),
            Self::Text(value) => Value::Text(Cow::Borrowed(value)),
            Self::Timestamp(value) => Value::Timestamp(*value),
        }
    }
}

impl EventAttribute {
    fn read<'e>(self, event: &Event<'e>) -> Result<Value<'e>, Error> {
        let text = match self {
            Self::Type => event.kind(),
            Self::Id => event.id()?,
            Self::Source => event.source()?,
            Self::Subject => event.subject()?,
            Self::Tenant => event.tenant()?,
            Self::Dataschema => event.dataschema()?,
            Self::Datacontenttype => event.datacontenttype()?,
        };
        Ok(if text.is_empty() { Value::Null } else { Value::Text(Cow::Borrowed(text)) })
    }
}

impl FieldInfo {
    #[cold]
    fn mismatch(&self) -> Error {
        let Self { name, kind, open } = self;
        let mut why = format!(
            "`{name}` is not {}, or is present more than once, or is in data that are not a JSON object",
            kind_word(Some(*kind))
        );
        if *open {
            why.push_str(&format!(
                "; if it is of another kind, state it: `fields: {{ {name}: integer }}`"
            ));
        }
        Error::new(why)
    }
}

fn of_scalar(scalar: Scalar<'_>) -> Value<'_> {
    match scalar {
        Scalar::Integer(value) => Value::Integer(value),
        Scalar::Number(value) => Value::Number(value),
        Scalar::Boolean(value) => Value::Boolean(value),
        Scalar::Timestamp(value) => Value::Timestamp(value),
        Scalar::Text(value) | Scalar::Json(value) => Value::Text(Cow::Borrowed(value)),
        _ => Value::Null,
    }
}

fn nested_value<'e>(
    index: Option<usize>,
    path: &[Box<str>],
    field: &FieldInfo,
    input: Input<'e, '_>,
) -> Result<Value<'e>, Error> {
    let json = match (index, input.event) {
        (None, Some(event)) => event.extensions()?,
        (None, None) => return Ok(Value::Null),
        (Some(index), _) => match input.member(index)? {
            MemberLookup::Value(Scalar::Json(json)) => json,
            MemberLookup::Mismatched => return Err(field.mismatch()),
            _ => return Ok(Value::Null),
        },
    };
    nested::read(json, path, field.kind).ok_or_else(|| field.mismatch())
}

/// Negates a value: a boolean by `not`, a number by changing its sign.
fn negated(value: Value<'_>) -> Result<Value<'_>, Error> {
    match value {
        Value::Boolean(value) => Ok(Value::Boolean(!value)),
        Value::Integer(value) => {
            Ok(Value::Integer(value.checked_neg().ok_or_else(|| overflow("-", 0, value))?))
        }
        Value::Number(value) => Ok(Value::Number(-value)),
        _ => Ok(Value::Null),
    }
}

/// Evaluates `and` and `or`. If the value of one side is `decides`, the result is this value, even
/// if the other side is null. The right side is evaluated only if the left side does not decide.
fn logical<'e>(
    left: &'e Node,
    right: &'e Node,
    input: Input<'e, '_>,
    decides: bool,
) -> Result<Value<'e>, Error> {
    let left = left.evaluate(input)?;
    if left == Value::Boolean(decides) {
        return Ok(left);
    }
    let right = right.evaluate(input)?;
    if right == Value::Boolean(decides) || left != Value::Null {
        return Ok(right);
    }
    Ok(Value::Null)
}

fn integers(operator: Operator, a: i64, b: i64) -> Result<i64, Error> {
    let result = match operator {
        Operator::Add => a.checked_add(b),
        Operator::Subtract => a.checked_sub(b),
        Operator::Multiply => a.checked_mul(b),
        _ => return floored(a, b).map(|(_, rest)| rest),
    };
    result.ok_or_else(|| overflow(operator.text(), a, b))
}

/// Returns the quotient rounded down, and the remainder, which has the sign of the divisor.
fn floored(a: i64, b: i64) -> Result<(i64, i64), Error> {
    if b == 0 {
        return Err(Error::new(format!("{a} is divided by zero")));
    }
    let quotient = a.checked_div(b).ok_or_else(|| overflow("/", a, b))?;
    let rest = a - quotient * b;
    if rest != 0 && (rest < 0) != (b < 0) {
        Ok((quotient - 1, rest + b))
    } else {
        Ok((quotient, rest))
    }
}

fn numbers<'e>(operator: Operator, a: f64, b: f64) -> Result<Value<'e>, Error> {
    finite(match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        _ if b == 0.0 => return Err(Error::new(format!("{a} is divided by zero"))),
        _ => a / b,
    })
}

/// Compares two values of the same kind; `None` if one of them is null.
fn compare(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    match (a, b) {
        (Value::Integer(a), Value::Integer(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => a.partial_cmp(b),
        (Value::Text(a), Value::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (Value::Boolean(a), Value::Boolean(b)) => Some(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn holds(operator: Operator, order: Ordering) -> bool {
    match operator {
        Operator::Equal => order.is_eq(),
        Operator::Unequal => order.is_ne(),
        Operator::Less => order.is_lt(),
        Operator::LessOrEqual => order.is_le(),
        Operator::Greater => order.is_gt(),
        _ => order.is_ge(),
    }
}

fn period<'e>(
    function: Function,
    zone: &TimeZone,
    time: Timestamp,
    last: &std::cell::Cell<Window>,
) -> Value<'e> {
    match function {
        Function::Date => Value::Text(Cow::Owned(zone.date(time).to_string())),
        Function::HourOfDay => Value::Integer(i64::from(zone.local(time).hour)),
        Function::Weekday => Value::Integer(zone.date(time).weekday() as i64 + 1),
        _ => {
            let mut window = last.get();
            if time < window.start || window.end <= time {
                window = match function {
                    Function::Hour => zone.hour(time),
                    Function::Day => zone.day(time),
                    Function::Week => zone.week(time),
                    Function::Month => zone.month(time),
                    _ => zone.year(time),
                };
                last.set(window);
            }
            Value::Timestamp(window.start)
        }
    }
}

fn call<'e>(
    function: Function,
    args: &'e [Node],
    input: Input<'e, '_>,
) -> Result<Value<'e>, Error> {
    use Function as F;
    // These functions do not evaluate all of their arguments, or accept null.
    match function {
        F::If => {
            let chosen = if args[0].evaluate(input)?.is_true() { &args[1] } else { &args[2] };
            return chosen.evaluate(input);
        }
        F::Default => {
            return match args[0].evaluate(input)? {
                Value::Null => args[1].evaluate(input),
                value => Ok(value),
            };
        }
        F::Exists => return Ok(Value::Boolean(args[0].evaluate(input)? != Value::Null)),
        F::Greatest | F::Least => return extreme(function, args, input),
        F::Concat => {
            let mut text = String::new();
            for arg in args {
                let Value::Text(part) = arg.evaluate(input)? else {
                    return Ok(Value::Null);
                };
                text.push_str(&part);
            }
            return bounded(text);
        }
        _ => {}
    }
    let first = args[0].evaluate(input)?;
    if first == Value::Null {
        return Ok(Value::Null);
    }
    let Some(second) = args.get(1) else {
        return unary(function, first);
    };
    let second = second.evaluate(input)?;
    if second == Value::Null {
        return Ok(Value::Null);
    }
    match (first, second) {
        (Value::Text(text), Value::Text(part)) => match args.get(2) {
            Some(by) => match by.evaluate(input)? {
                Value::Text(by) => replace(&text, &part, &by),
                _ => Ok(Value::Null),
            },
            None => Ok(search(function, text, &part)),
        },
        (Value::Text(text), Value::Integer(from)) => match args[2].evaluate(input)? {
            Value::Integer(length) => Ok(substring(text, from, length)),
            _ => Ok(Value::Null),
        },
        (Value::Integer(a), Value::Integer(b)) => {
            let (quotient, rest) = floored(a, b)?;
            Ok(Value::Integer(match function {
                F::Div => quotient,
                _ => a.checked_sub(rest).ok_or_else(|| overflow("-", a, rest))?,
            }))
        }
        (Value::Number(number), Value::Integer(digits)) => scaled(number, digits),
        (Value::Timestamp(start), Value::Timestamp(end)) => {
            let micros = end.micros_since(start);
            let unit = if function == F::SecondsBetween { 1_000_000 } else { 1_000 };
            Ok(Value::Integer(micros / unit))
        }
        _ => Ok(Value::Null),
    }
}

fn extreme<'e>(
    function: Function,
    args: &'e [Node],
    input: Input<'e, '_>,
) -> Result<Value<'e>, Error> {
    let wanted = if function == Function::Greatest { Ordering::Greater } else { Ordering::Less };
    let mut best = Value::Null;
    for arg in args {
        let value = arg.evaluate(input)?;
        if best == Value::Null || compare(&value, &best) == Some(wanted) {
            best = value;
        }
    }
    Ok(best)
}

fn unary(function: Function, value: Value<'_>) -> Result<Value<'_>, Error> {
    use Function as F;
    match (function, value) {
        (F::Abs, Value::Integer(value)) => {
            Ok(Value::Integer(value.checked_abs().ok_or_else(|| overflow("-", 0, value))?))
        }
        (F::Abs, Value::Number(value)) => Ok(Value::Number(value.abs())),
        (F::Round, Value::Number(value)) => to_integer(value.round()),
        (F::Floor, Value::Number(value)) => to_integer(value.floor()),
        (F::Ceil, Value::Number(value)) => to_integer(value.ceil()),
        (F::Length, Value::Text(text)) => Ok(Value::Integer(text.chars().count() as i64)),
        (F::Lower, Value::Text(text)) => bounded(text.to_lowercase()),
        (F::Upper, Value::Text(text)) => bounded(text.to_uppercase()),
        (F::Trim, Value::Text(text)) => Ok(Value::Text(match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
            Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
        })),
        (F::Integer, Value::Text(text)) => Ok(text.parse().map_or(Value::Null, Value::Integer)),
        (F::Timestamp, Value::Text(text)) => Ok(text.parse().map_or(Value::Null, Value::Timestamp)),
        (F::Second, Value::Timestamp(time)) => Ok(Value::Timestamp(time.second())),
        (F::Minute, Value::Timestamp(time)) => Ok(Value::Timestamp(time.minute())),
        (F::Sortable, Value::Integer(value)) => Ok(Value::Text(Cow::Owned(Narrow(value).to_key()))),
        (F::Text, value) => Ok(match value {
            Value::Integer(value) => Value::Text(Cow::Owned(value.to_string())),
            Value::Boolean(value) => {
                Value::Text(Cow::Borrowed(if value { "true" } else { "false" }))
            }
            Value::Timestamp(value) => Value::Text(Cow::Owned(value.to_string())),
            other => other,
        }),
        _ => Ok(Value::Null),
    }
}

/// Converts `number`, which is a whole number, to an integer.
fn to_integer<'e>(number: f64) -> Result<Value<'e>, Error> {
    // 2^63 is the smallest double that is too large.
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number) {
        Ok(Value::Integer(number as i64))
    } else {
        Err(Error::new(format!("{number} is not an integer of 64 bits")))
    }
}

fn scaled<'e>(number: f64, digits: i64) -> Result<Value<'e>, Error> {
    if !(0..=18).contains(&digits) {
        return Err(Error::new(format!("{digits} is not a number of digits from 0 to 18")));
    }
    let mut factor = 1.0;
    for _ in 0..digits {
        factor *= 10.0;
    }
    to_integer((number * factor).round())
}

fn search<'e>(function: Function, text: Cow<'e, str>, part: &str) -> Value<'e> {
    use Function as F;
    match function {
        F::Contains => Value::Boolean(text.contains(part)),
        F::StartsWith => Value::Boolean(text.starts_with(part)),
        F::EndsWith => Value::Boolean(text.ends_with(part)),
        F::Before => {
            let end = text.find(part).unwrap_or(text.len());
            Value::Text(cut(text, 0, end))
        }
        _ => match text.find(part) {
            Some(at) => {
                let end = text.len();
                Value::Text(cut(text, at + part.len(), end))
            }
            None => Value::Null,
        },
    }
}

fn cut(text: Cow<'_, str>, start: usize, end: usize) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[start..end]),
        Cow::Owned(text) => Cow::Owned(text[start..end].to_owned()),
    }
}

/// Returns a part of a text: `length` characters from the character `first` on, counted from 1.
fn substring(text: Cow<'_, str>, first: i64, length: i64) -> Value<'_> {
    let skipped = usize::try_from(first.saturating_sub(1)).unwrap_or(0);
    let length = usize::try_from(length).unwrap_or(0);
    let at =
        |text: &str, count: usize| text.char_indices().nth(count).map_or(text.len(), |it| it.0);
    let start = at(&text, skipped);
    let end = start + at(&text[start..], length);
    Value::Text(cut(text, start, end))
}

fn replace<'e>(text: &str, part: &str, by: &str) -> Result<Value<'e>, Error> {
    if part.is_empty() {
        return bounded(text.to_owned());
    }
    let found = text.matches(part).count();
    if text.len().saturating_add(found.saturating_mul(by.len())) > 2 * TEXT_BYTES_MAX {
        return Err(too_long());
    }
    bounded(text.replace(part, by))
}

fn too_long() -> Error {
    Error::new(format!("a text became longer than {TEXT_BYTES_MAX} bytes"))
}

fn bounded<'e>(text: String) -> Result<Value<'e>, Error> {
    if text.len() > TEXT_BYTES_MAX { Err(too_long()) } else { Ok(Value::Text(Cow::Owned(text))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn division_rounds_down_and_never_overflows_silently() {
        for a in [-7, -6, -1, 0, 1, 6, 7, i64::MAX, i64::MIN] {
            for b in [-3, -2, 2, 3, 7, i64::MAX, i64::MIN] {
                let (quotient, rest) = floored(a, b).unwrap_or_default();
                let exact = i128::from(quotient) * i128::from(b) + i128::from(rest);
                assert_eq!(exact, i128::from(a), "{a} / {b}");
                assert!(rest == 0 || (rest < 0) == (b < 0), "{a} % {b} = {rest}");
                assert!(rest.unsigned_abs() < b.unsigned_abs());
            }
        }
        assert!(floored(i64::MIN, -1).is_err());
        assert!(floored(1, 0).is_err());
    }

    #[test]
    fn numbers_beyond_64_bits_are_no_integers() {
        assert!(to_integer(9_223_372_036_854_775_808.0).is_err());
        assert_eq!(to_integer(-9_223_372_036_854_775_808.0).ok(), Some(Value::Integer(i64::MIN)));
    }
}
