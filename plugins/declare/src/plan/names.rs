//! Checks and reads names, event types and durations in a declaration.

use std::time::Duration;

use crate::deserialize::Placed;
use crate::problem::{Place, Problem};

/// The maximum length of a name, in bytes. The host has the same limit.
const NAME_BYTES_MAX: usize = 64;

fn fits(name: &str, more: &str) -> bool {
    let allowed = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || more.contains(it);
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(allowed)
}

/// Returns the most similar name that is allowed, for the help text of an error.
fn fixed(name: &str, joint: char) -> String {
    let mut fixed = String::new();
    for letter in name.to_lowercase().chars() {
        if letter.is_ascii_lowercase() || (letter.is_ascii_digit() && !fixed.is_empty()) {
            fixed.push(letter);
        } else if !fixed.is_empty() && !fixed.ends_with(joint) {
            fixed.push(joint);
        }
    }
    let fixed = fixed.trim_end_matches(joint);
    let fixed = fixed.get(..fixed.len().min(NAME_BYTES_MAX)).unwrap_or_default();
    if fixed.is_empty() { "my-name".to_owned() } else { fixed.to_owned() }
}

pub(super) fn check_projection(name: &Placed) -> Result<(), Problem> {
    if fits(&name.text, "-") {
        return Ok(());
    }
    let why = format!(
        "the name `{}` must be 1 to {NAME_BYTES_MAX} lower-case letters, digits and hyphens, beginning with a letter",
        name.text
    );
    Err(Problem::new(name.place, why).help(format!("write `name: {}`", fixed(&name.text, '-'))))
}

pub(super) fn check_table(name: &Placed) -> Result<(), Problem> {
    if fits(&name.text, "_-") {
        return Ok(());
    }
    let why = format!(
        "the table name `{}` must be 1 to {NAME_BYTES_MAX} lower-case letters, digits, `_` and `-`, beginning with a letter",
        name.text
    );
    Err(Problem::new(name.place, why).help(format!("write `{}`", fixed(&name.text, '_'))))
}

pub(super) fn check_column(name: &Placed) -> Result<(), Problem> {
    let text = &name.text;
    let allowed = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == '-';
    let first = text.chars().next().is_some_and(|it| it.is_ascii_alphabetic() || it == '_');
    if first && text.len() <= NAME_BYTES_MAX && text.chars().all(allowed) {
        return Ok(());
    }
    let why = format!(
        "the column name `{text}` must be 1 to {NAME_BYTES_MAX} letters, digits, `_` and `-`, beginning with a letter or `_`"
    );
    Err(Problem::new(name.place, why).help(format!("write `{}`", fixed(text, '_'))))
}

pub(super) fn check_types(types: &[Placed], name: Place) -> Result<(), Problem> {
    if types.is_empty() {
        return Err(Problem::new(name, "`from` names no event type")
            .help("write `from: order.placed`, `from: order.*` or `from: \"*\"`"));
    }
    for kind in types {
        let text = kind.text.as_str();
        let exact = text.strip_suffix('*').unwrap_or(text);
        if text.is_empty() || exact.contains('*') || exact.contains(char::is_whitespace) {
            let why = format!("`{text}` is not an event type");
            return Err(Problem::new(kind.place, why).help(
                "write `order.placed`, a prefix such as `order.*`, `*` for all, or a list: `[a, b]`",
            ));
        }
    }
    Ok(())
}

/// The units of durations, in microseconds.
const UNITS: [(&str, u64); 7] = [
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
    ("w", 604_800_000_000),
];

/// The maximum duration: about 100 years, in microseconds.
const DURATION_US_MAX: u64 = 36_525 * 86_400_000_000;

/// Parses a duration such as `90s`, `15m`, `1h` or `30d`.
pub(crate) fn duration(text: &Placed) -> Result<Duration, Problem> {
    let written = text.text.trim();
    let digits = written.find(|it: char| !it.is_ascii_digit()).unwrap_or(written.len());
    let (number, unit) = written.split_at(digits);
    let unit = unit.trim();
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let micros = number.parse::<u64>().ok().zip(factor).and_then(|(n, f)| n.checked_mul(f));
    match micros {
        Some(0) => {
            Err(Problem::new(text.place, "a duration must be longer than 0")
                .help("write `1s` or more"))
        }
        Some(micros) if micros <= DURATION_US_MAX => Ok(Duration::from_micros(micros)),
        Some(_) => Err(Problem::new(text.place, format!("`{written}` is longer than 100 years"))),
        None => {
            let problem = Problem::new(text.place, format!("`{written}` is not a duration"));
            let first = unit.chars().next().map(|it| it.to_ascii_lowercase().to_string());
            let similar = UNITS.iter().find(|(name, _)| Some(*name) == first.as_deref());
            Err(match similar {
                Some((unit, _)) if !number.is_empty() => {
                    problem.help(format!("did you mean `{number}{unit}`?"))
                }
                _ => problem.help(
                    "write a number and one of `us`, `ms`, `s`, `m`, `h`, `d` and `w`: `15m`",
                ),
            })
        }
    }
}
