//! Prints the output of commands: lines and tables for people, and JSON for scripts. Progress is
//! printed on standard error. Only results are printed on standard output.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::text_table::TextTable;

/// Prints `text`, with lines no longer than the width of the terminal. If the program that reads
/// the output has closed it, as `head` does, the command ends.
pub(crate) fn line(text: impl AsRef<str>) {
    let mut text = wrapped(&lines(text.as_ref()), width(&std::io::stdout()));
    text.push('\n');
    raw(text.as_bytes());
}

/// Prints a text of several lines. On a terminal, it replaces the characters that the terminal
/// would interpret.
pub(crate) fn text(text: &str) {
    match width(&std::io::stdout()) {
        Some(_) => raw(lines(text).as_bytes()),
        None => raw(text.as_bytes()),
    }
}

/// Prints one line of data. It is cut at the width of the terminal.
pub(crate) fn data(text: impl AsRef<str>) {
    let mut text = match width(&std::io::stdout()) {
        Some(width) => cut(&printable(text.as_ref()), width),
        None => printable(text.as_ref()),
    };
    text.push('\n');
    raw(text.as_bytes());
}

/// Writes `bytes` to standard output unchanged. The bytes must not contain text from senders of
/// events.
pub(crate) fn raw(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Prints `value` as one line of JSON.
pub(crate) fn json(value: &impl Serialize) {
    let text = serde_json::to_string(value).expect("what commands print is JSON");
    // If the output is a file or another program, the text is written exactly as the server sent
    // it. So imported output has the same bytes as the original events.
    let mut text = if is_terminal() { escaped(&text) } else { one_line(&text) };
    text.push('\n');
    raw(text.as_bytes());
}

/// Prints `text` for people on standard error, but not if a script reads the output.
pub(crate) fn note(as_json: bool, text: impl AsRef<str>) {
    if !as_json {
        error(text);
    }
}

/// Prints `text` on standard error, with lines no longer than the width of the terminal.
pub(crate) fn error(text: impl AsRef<str>) {
    let text = wrapped(&lines(text.as_ref()), width(&std::io::stderr()));
    // If this fails, it cannot be reported anywhere else.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Returns whether standard output is a terminal.
pub(crate) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Returns the width of the output: `COLUMNS` if it is set, otherwise the width of the terminal.
/// `None` if the output is not a terminal.
fn width(stream: &impl IsTerminal) -> Option<usize> {
    let set = std::env::var("COLUMNS").ok().and_then(|columns| columns.trim().parse().ok());
    let terminal = || {
        let size = stream.is_terminal().then(crossterm::terminal::size)?.ok()?;
        Some(usize::from(size.0))
    };
    // Some terminals do not know their size and report 0.
    set.or_else(terminal).filter(|width| *width > 0)
}

/// Breaks the lines of `text` so that they have at most `width` columns. Each continued line is
/// indented by two more spaces.
fn wrapped(text: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return text.to_owned() };
    let mut out = String::new();
    for (place, line) in text.lines().enumerate() {
        if place > 0 {
            out.push('\n');
        }
        if line.width() <= width {
            out.push_str(line);
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let rest = " ".repeat((indent + 2).min(width / 2));
        let options = textwrap::Options::new(width)
            .initial_indent(&rest[..indent.min(rest.len())])
            .subsequent_indent(&rest);
        out.push_str(&textwrap::fill(line.trim_start(), options));
    }
    out
}

/// Cuts `text` to at most `width` columns of the terminal.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut left = width.saturating_sub(1);
    for c in text.chars() {
        let columns = c.width().unwrap_or(0);
        if columns > left {
            break;
        }
        left -= columns;
        short.push(c);
    }
    if width > 0 {
        short.push('…');
    }
    short
}

/// Creates an empty table with the titles `header`.
pub(crate) fn table<'a>(header: impl IntoIterator<Item = &'a str>) -> TextTable {
    TextTable::new(header.into_iter().map(printable).collect(), width(&std::io::stdout()))
}

/// Removes characters from `text` that would move the cursor, colour the terminal, ring its bell or
/// reverse text. Keys, values and messages come from events and plugins, so they may contain such
/// characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if is_unsafe(c) { '\u{FFFD}' } else { c }).collect()
}

/// Does the same as [`printable`], but keeps line feeds.
pub(crate) fn lines(text: &str) -> String {
    text.chars().map(|c| if is_unsafe(c) && c != '\n' { '\u{FFFD}' } else { c }).collect()
}

/// Puts JSON on one line. Line ends in JSON can be only white space between values.
fn one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

/// JSON with the same value on one line, without the characters that a terminal would interpret.
pub(crate) fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // In JSON, these characters can occur unescaped only as white space between values.
            '\t' | '\n' | '\r' => out.push(' '),
            // These characters occur only in strings. The code of each has at most four hexadecimal
            // digits.
            c if is_unsafe(c) => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// Returns whether a terminal would interpret `c` and not show it. These are control characters,
/// and characters that change the direction of text.
fn is_unsafe(c: char) -> bool {
    let direction = matches!(
        c,
        '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
    );
    c.is_control() || direction || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Returns a number as text, in groups of three digits: `1 234 567`.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// Returns a number of events as text: `1 event` or `1 234 events`.
pub(crate) fn events(number: u64) -> String {
    if number == 1 { "1 event".to_owned() } else { format!("{} events", count(number)) }
}

/// Returns a time in microseconds since 1970 as text (RFC 3339); empty if there is no time.
pub(crate) fn time_us(time_us: i64) -> String {
    if time_us == i64::MIN {
        return String::new();
    }
    jiff::Timestamp::from_microsecond(time_us)
        .map_or_else(|_| time_us.to_string(), |time| time.to_string())
}

/// Returns a duration in seconds as text for people: `42 s`, `3 min 20 s`, `2 h 5 min`.
pub(crate) fn seconds(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let whole = seconds.clamp(0.0, 1e12).round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}

/// What a progress bar counts.
#[derive(Clone, Copy)]
pub(crate) enum Progress {
    /// Bytes, of which the total is known. The bar shows the rate and the remaining time.
    Bytes(u64),
    /// Events, of which the total is known. The bar shows the rate and the remaining time.
    Events(u64),
    /// Thousandths of the work, with a message.
    PerMille,
    /// Work of unknown length, with a message.
    Endless,
}

/// Returns the position of a bar of [`Progress::PerMille`] for `percent` of the work.
pub(crate) fn per_mille(percent: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let per_mille = (percent.clamp(0.0, 100.0) * 10.0) as u64;
    per_mille
}

/// Creates a progress bar on standard error. It is hidden if standard error is not a terminal, or
/// if `as_json` is set.
pub(crate) fn progress(kind: Progress, as_json: bool) -> ProgressBar {
    let (length, template) = match kind {
        Progress::Bytes(total) => {
            (Some(total), "{bar:16} {percent:>3} %  {bytes}/{total_bytes}  {eta} left  {wide_msg}")
        }
        Progress::Events(total) => (
            Some(total),
            "{bar:16} {percent:>3} %  {human_pos}/{human_len}  {eta} left  {wide_msg}",
        ),
        Progress::PerMille => (Some(1000), "{bar:16} {percent:>3} %  {wide_msg}"),
        Progress::Endless => (None, "{spinner} {wide_msg}"),
    };
    if as_json {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template(template).expect("the templates above are valid"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_seconds_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1 234 567");
        assert_eq!(seconds(41.6), "42 s");
        assert_eq!(seconds(200.0), "3 min 20 s");
        assert_eq!(seconds(7_500.0), "2 h 5 min");
        assert_eq!(seconds(f64::NAN), "0 s");
    }

    #[test]
    fn no_line_is_wider_than_asked_for() {
        let text = "error: version `3f2a9c0e11d4b7a6` of `revenue` fails on 421 events\n  event 1: no `id`\n\nhelp: see https://example.org/a/very/long/address/that/has/no/spaces/in/it/at/all/and/goes/on";
        for width in [1, 7, 20, 60, 200] {
            let out = wrapped(text, Some(width));
            assert!(out.lines().all(|line| line.width() <= width), "{width}: {out}");
            assert!(cut(text, width).width() <= width);
        }
        assert_eq!(wrapped(text, None), text);
        assert_eq!(wrapped("  a b c d", Some(8)), "  a b c\n    d");
        assert_eq!(cut("日本語日本語", 5), "日本…");
    }

    #[test]
    fn characters_that_move_the_cursor_are_replaced() {
        assert_eq!(printable("a\u{202E}b\u{2066}c\u{200F}"), "a\u{FFFD}b\u{FFFD}c\u{FFFD}");
        assert_eq!(printable("a\u{1b}[2Jb\u{7}"), "a\u{FFFD}[2Jb\u{FFFD}");
        assert_eq!(printable("a\u{202e}b\u{9b}c"), "a\u{FFFD}b\u{FFFD}c");
        assert_eq!(lines("a\nb\u{1b}c"), "a\nb\u{FFFD}c");
    }

    #[test]
    fn json_keeps_its_value_and_cannot_reach_the_terminal() {
        let value = serde_json::json!({"k\u{202e}": "a\u{9b}31m\u{2066}\u{7f}\u{1b}ü"});
        let shown = escaped(&value.to_string());
        assert!(shown.chars().all(|c| !is_unsafe(c)), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert_eq!(one_line("{\"a\"\t:\r\n\"\u{2028}\"}"), "{\"a\"\t:  \"\u{2028}\"}");
        assert_eq!(escaped("{\"a\"\t:\r\n[1,\t2]}"), "{\"a\" :  [1, 2]}");
    }
}
