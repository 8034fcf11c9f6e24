//! Implements the functions that expressions can call.

use crate::document::Kind;

/// What a function accepts as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parameter {
    /// A value of this kind. A number may also be an integer.
    Of(Kind),
    /// An integer or a number.
    Numeric,
    /// A value of any kind. All arguments with this parameter must have the same kind.
    Same,
    /// A value of any kind.
    Any,
    /// The name of a time zone in quotes. The argument may be left out.
    Zone,
}

/// The kind of a function's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Returns {
    Of(Kind),
    /// The kind of the arguments whose parameter is `Same` or `Numeric`.
    Same,
}

/// The declaration of a function that expressions can call.
#[derive(Debug)]
pub(crate) struct Signature {
    pub(crate) name: &'static str,
    pub(crate) function: Function,
    pub(crate) parameters: &'static [Parameter],
    /// The maximum number of times that the last parameter may occur.
    pub(crate) repeats: usize,
    pub(crate) returns: Returns,
    /// The form of a call, for errors.
    pub(crate) usage: &'static str,
}

/// The functions that expressions can call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Abs,
    After,
    Before,
    Ceil,
    Concat,
    Contains,
    Date,
    Day,
    Default,
    Div,
    EndsWith,
    Exists,
    Floor,
    FloorTo,
    Greatest,
    Hour,
    HourOfDay,
    If,
    Integer,
    Least,
    Length,
    Lower,
    MillisBetween,
    Minute,
    Month,
    Replace,
    Round,
    Scaled,
    Second,
    SecondsBetween,
    Sortable,
    StartsWith,
    Substring,
    Text,
    Timestamp,
    Trim,
    Upper,
    Week,
    Weekday,
    Year,
}

const BOOLEAN: Parameter = Parameter::Of(Kind::Boolean);
const INTEGER: Parameter = Parameter::Of(Kind::Integer);
const NUMBER: Parameter = Parameter::Of(Kind::Number);
const TEXT: Parameter = Parameter::Of(Kind::Text);
const TIME: Parameter = Parameter::Of(Kind::Timestamp);

macro_rules! functions {
    ($($name:literal $function:ident ($($parameter:expr),*) $(* $repeats:literal)? -> $returns:expr, $usage:literal;)*) => {
        /// All functions, in the order of their names.
        pub(crate) const FUNCTIONS: &[Signature] = &[$(Signature {
            name: $name,
            function: Function::$function,
            parameters: &[$($parameter),*],
            repeats: functions!(@repeats $($repeats)?),
            returns: $returns,
            usage: $usage,
        }),*];
    };
    (@repeats) => { 1 };
    (@repeats $repeats:literal) => { $repeats };
}

use Parameter::{Any, Numeric, Same, Zone};
use Returns::Of;

functions! {
    "abs" Abs(Numeric) -> Returns::Same, "abs(number)";
    "after" After(TEXT, TEXT) -> Of(Kind::Text), "after(text, separator)";
    "before" Before(TEXT, TEXT) -> Of(Kind::Text), "before(text, separator)";
    "ceil" Ceil(NUMBER) -> Of(Kind::Integer), "ceil(number)";
    "concat" Concat(TEXT, TEXT) * 15 -> Of(Kind::Text), "concat(text, text, …)";
    "contains" Contains(TEXT, TEXT) -> Of(Kind::Boolean), "contains(text, part)";
    "date" Date(TIME, Zone) -> Of(Kind::Text), "date(timestamp)` or `date(timestamp, \"Europe/Berlin\")";
    "day" Day(TIME, Zone) -> Of(Kind::Timestamp), "day(timestamp)` or `day(timestamp, \"Europe/Berlin\")";
    "default" Default(Same, Same) -> Returns::Same, "default(value, otherwise)";
    "div" Div(INTEGER, INTEGER) -> Of(Kind::Integer), "div(integer, integer)";
    "ends_with" EndsWith(TEXT, TEXT) -> Of(Kind::Boolean), "ends_with(text, part)";
    "exists" Exists(Any) -> Of(Kind::Boolean), "exists(value)";
    "floor" Floor(NUMBER) -> Of(Kind::Integer), "floor(number)";
    "floor_to" FloorTo(INTEGER, INTEGER) -> Of(Kind::Integer), "floor_to(integer, step)";
    "greatest" Greatest(Same, Same) * 15 -> Returns::Same, "greatest(value, value, …)";
    "hour" Hour(TIME, Zone) -> Of(Kind::Timestamp), "hour(timestamp)` or `hour(timestamp, \"Europe/Berlin\")";
    "hour_of_day" HourOfDay(TIME, Zone) -> Of(Kind::Integer), "hour_of_day(timestamp)` or `hour_of_day(timestamp, \"Europe/Berlin\")";
    "if" If(BOOLEAN, Same, Same) -> Returns::Same, "if(condition, then, else)";
    "integer" Integer(TEXT) -> Of(Kind::Integer), "integer(text)";
    "least" Least(Same, Same) * 15 -> Returns::Same, "least(value, value, …)";
    "length" Length(TEXT) -> Of(Kind::Integer), "length(text)";
    "lower" Lower(TEXT) -> Of(Kind::Text), "lower(text)";
    "millis_between" MillisBetween(TIME, TIME) -> Of(Kind::Integer), "millis_between(start, end)";
    "minute" Minute(TIME) -> Of(Kind::Timestamp), "minute(timestamp)";
    "month" Month(TIME, Zone) -> Of(Kind::Timestamp), "month(timestamp)` or `month(timestamp, \"Europe/Berlin\")";
    "replace" Replace(TEXT, TEXT, TEXT) -> Of(Kind::Text), "replace(text, part, by)";
    "round" Round(NUMBER) -> Of(Kind::Integer), "round(number)";
    "scaled" Scaled(NUMBER, INTEGER) -> Of(Kind::Integer), "scaled(number, digits)";
    "second" Second(TIME) -> Of(Kind::Timestamp), "second(timestamp)";
    "seconds_between" SecondsBetween(TIME, TIME) -> Of(Kind::Integer), "seconds_between(start, end)";
    "sortable" Sortable(INTEGER) -> Of(Kind::Text), "sortable(integer)";
    "starts_with" StartsWith(TEXT, TEXT) -> Of(Kind::Boolean), "starts_with(text, part)";
    "substring" Substring(TEXT, INTEGER, INTEGER) -> Of(Kind::Text), "substring(text, first, length)";
    "text" Text(Any) -> Of(Kind::Text), "text(value)";
    "timestamp" Timestamp(TEXT) -> Of(Kind::Timestamp), "timestamp(text)";
    "trim" Trim(TEXT) -> Of(Kind::Text), "trim(text)";
    "upper" Upper(TEXT) -> Of(Kind::Text), "upper(text)";
    "week" Week(TIME, Zone) -> Of(Kind::Timestamp), "week(timestamp)` or `week(timestamp, \"Europe/Berlin\")";
    "weekday" Weekday(TIME, Zone) -> Of(Kind::Integer), "weekday(timestamp)` or `weekday(timestamp, \"Europe/Berlin\")";
    "year" Year(TIME, Zone) -> Of(Kind::Timestamp), "year(timestamp)` or `year(timestamp, \"Europe/Berlin\")";
}

/// Returns the function with the name `name`; `None` if there is none.
pub(crate) fn find(name: &str) -> Option<&'static Signature> {
    FUNCTIONS.binary_search_by(|signature| signature.name.cmp(name)).ok().map(|at| &FUNCTIONS[at])
}

impl Signature {
    /// Returns the parameter for the argument with the index `index`.
    pub(crate) fn parameter(&self, index: usize) -> Parameter {
        self.parameters[index.min(self.parameters.len() - 1)]
    }

    /// Returns whether a call may have `args` arguments.
    pub(crate) fn accepts(&self, args: usize) -> bool {
        let most = self.parameters.len() + self.repeats - 1;
        let least = self.parameters.iter().filter(|it| **it != Zone).count();
        (least..=most).contains(&args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_sorted_so_that_they_are_found() {
        assert!(FUNCTIONS.is_sorted_by_key(|signature| signature.name));
        assert!(FUNCTIONS.iter().all(|signature| find(signature.name).is_some()));
    }
}
