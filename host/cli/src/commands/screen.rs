//! Shows a changing table on the whole terminal.
//!
//! [`Screen`] holds rows and converts them into lines; it does not use a terminal. [`Terminal`]
//! shows lines. At the end it restores the terminal, even after a panic.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::{cursor, queue, terminal};
use lantern_api::RawJson;
use lantern_api::feed::Field;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use unicode_width::UnicodeWidthStr as _;

use crate::output::{self, cut};
use crate::raw_json::cell;

/// How long a row that has changed is shown in a bright colour.
const BRIGHT: Duration = Duration::from_millis(1_500);
/// The maximum width of a column, in characters.
const COLUMN_CHARS_MAX: usize = 40;
/// The interval at which the thread that reads the keyboard checks whether it is still needed.
const KEY_POLL: Duration = Duration::from_millis(200);
/// The maximum number of pressed keys that wait to be handled.
const KEYS_MAX: usize = 64;
/// The number of lines that do not show rows: two for the title, one for the names of the columns,
/// and one at the bottom.
const FRAME_LINES: usize = 4;

/// The content of the screen.
pub(super) struct Screen {
    /// The title: `PROJECTION/TABLE`.
    pub(super) title: String,
    /// The state of the connection: `live`, `connecting` and so on.
    pub(super) status: String,
    /// The number of the commit whose rows are shown.
    pub(super) commit: u64,
    /// The lag of the table, in events and in milliseconds, if it is known.
    pub(super) lag: Option<(u64, u64)>,
    /// The fields of the table's rows.
    pub(super) fields: Vec<Field>,
    rows: BTreeMap<String, RawJson>,
    changed: HashMap<String, Instant>,
    changes: u64,
    /// The index of the field that the rows are sorted by, the largest value first; `None` if they
    /// are sorted by key.
    sort: Option<usize>,
    scroll: usize,
}

/// A line of the screen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ScreenLine {
    text: String,
    bright: bool,
}

/// What a pressed key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Redraw,
    Scroll(isize),
    Page(isize),
    Top,
    Unsorted,
    ByField(usize),
}

impl Screen {
    /// Returns an empty screen.
    pub(super) fn new(title: String) -> Self {
        Self {
            title,
            status: "connecting".into(),
            commit: 0,
            lag: None,
            fields: Vec::new(),
            rows: BTreeMap::new(),
            changed: HashMap::new(),
            changes: 0,
            sort: None,
            scroll: 0,
        }
    }

    /// Replaces all rows by `rows`.
    pub(super) fn replace(&mut self, rows: impl IntoIterator<Item = (String, RawJson)>) {
        self.rows = rows.into_iter().collect();
        self.changed.clear();
    }

    /// Applies a changed row.
    pub(super) fn put(&mut self, key: String, row: RawJson, now: Instant) {
        self.changes += 1;
        self.changed.insert(key.clone(), now);
        self.rows.insert(key, row);
    }

    /// Removes a row.
    pub(super) fn delete(&mut self, key: &str) {
        self.changes += 1;
        self.changed.remove(key);
        self.rows.remove(key);
    }

    /// Handles `key` on a terminal of `height` lines. Returns `false` if the command should end.
    pub(super) fn press(&mut self, key: Key, height: usize) -> bool {
        let page = height.saturating_sub(FRAME_LINES).max(1);
        let last = self.rows.len().saturating_sub(page);
        let by = |scroll: usize, lines: isize| scroll.saturating_add_signed(lines).min(last);
        match key {
            Key::Quit => return false,
            Key::Redraw => {}
            Key::Scroll(lines) => self.scroll = by(self.scroll, lines),
            Key::Page(pages) => {
                self.scroll = by(self.scroll, pages * isize::try_from(page).unwrap_or(1));
            }
            Key::Top => self.scroll = 0,
            Key::Unsorted => self.sort = None,
            Key::ByField(place) if place < self.fields.len() => self.sort = Some(place),
            Key::ByField(_) => {}
        }
        true
    }

    /// Returns the content of the screen as lines. There are at most `height` lines of at most
    /// `width` columns.
    pub(super) fn lines(&mut self, width: usize, height: usize, now: Instant) -> Vec<ScreenLine> {
        self.changed.retain(|_, at| now.duration_since(*at) < BRIGHT);
        let room = height.saturating_sub(FRAME_LINES);
        self.scroll = self.scroll.min(self.rows.len().saturating_sub(room));
        let shown = self.shown(room);
        let mut names = vec!["key".to_owned()];
        names.extend(self.fields.iter().map(super::table::title));
        if let Some(name) = self.sort.and_then(|place| names.get_mut(place + 1)) {
            name.push('↓');
        }
        let cells: Vec<Vec<String>> = shown.iter().map(|(key, row)| self.cells(key, row)).collect();
        let widths: Vec<usize> = (0..names.len())
            .map(|place| {
                let column = cells.iter().map(|row| row[place].width());
                let most = column.chain([names[place].width()]).max().unwrap_or(0);
                most.min(COLUMN_CHARS_MAX)
            })
            .collect();
        let right: Vec<usize> = super::table::numeric(&self.fields).map(|p| p + 1).collect();
        let join = |cells: &[String]| {
            let parts: Vec<String> = (0..cells.len())
                .map(|place| fit(&cells[place], widths[place], right.contains(&place)))
                .collect();
            cut(&parts.join("  "), width)
        };
        let mut lines = vec![
            ScreenLine { text: cut(&self.head(), width), bright: true },
            ScreenLine { text: String::new(), bright: false },
            ScreenLine { text: join(&names), bright: true },
        ];
        for ((key, _), cells) in shown.iter().zip(&cells) {
            lines.push(ScreenLine { text: join(cells), bright: self.changed.contains_key(*key) });
        }
        lines.truncate(height.saturating_sub(1));
        lines.push(ScreenLine { text: cut(&self.foot(shown.len()), width), bright: false });
        lines
    }

    fn shown(&self, room: usize) -> Vec<(&String, &RawJson)> {
        let Some(field) = self.sort.and_then(|place| self.fields.get(place)) else {
            return self.rows.iter().skip(self.scroll).take(room).collect();
        };
        let mut rows: Vec<_> =
            self.rows.iter().map(|row| (row, row.1.members().get(&field.name).copied())).collect();
        // Rows with equal values stay in the order of their keys.
        rows.sort_by(|(_, a), (_, b)| compare(*b, *a));
        rows.into_iter().map(|(row, _)| row).skip(self.scroll).take(room).collect()
    }

    fn cells(&self, key: &str, row: &RawJson) -> Vec<String> {
        let row = row.members();
        let fields = self.fields.iter().map(|field| cell(row.get(&field.name)));
        std::iter::once(output::printable(key)).chain(fields).collect()
    }

    fn head(&self) -> String {
        let lag = match self.lag {
            Some((events, ms)) => format!("  lag {} events, {ms} ms", output::count(events)),
            None => String::new(),
        };
        format!("{}  {}  commit {}{lag}", self.title, self.status, output::count(self.commit))
    }

    fn foot(&self, shown: usize) -> String {
        let first = if shown == 0 { 0 } else { self.scroll + 1 };
        format!(
            "rows {first}–{} of {}, {} changes   q quit  ↑↓ scroll  1-9 sort by a field  0 by key",
            self.scroll + shown,
            output::count(self.rows.len() as u64),
            output::count(self.changes)
        )
    }
}

/// Compares two values of a column: numbers by size, and everything else by its text. Missing
/// values come first.
fn compare(a: Option<&RawValue>, b: Option<&RawValue>) -> Ordering {
    // For sorting, the nearest float is precise enough, even if it is infinite.
    let number = |value: Option<&RawValue>| value.and_then(|v| v.get().parse::<f64>().ok());
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => cell(a.as_ref()).cmp(&cell(b.as_ref())),
    }
}

/// Cuts or extends `text` to exactly `width` columns of the terminal.
fn fit(text: &str, width: usize, right: bool) -> String {
    let text = cut(text, width);
    let pad = " ".repeat(width.saturating_sub(text.width()));
    if right { pad + &text } else { text + &pad }
}

/// The terminal in full-screen mode. Dropping this restores the terminal.
pub(super) struct Terminal {
    keys: mpsc::Receiver<Key>,
}

impl Terminal {
    /// Switches the terminal to full-screen mode.
    ///
    /// # Errors
    /// Fails if standard output is not a terminal.
    pub(super) fn take() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        let (send, keys) = mpsc::channel(KEYS_MAX);
        // This value is created before the other steps. If one of these steps fails, dropping the
        // value undoes the steps before.
        let this = Self { keys };
        queue!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)?;
        io::stdout().flush()?;
        std::thread::spawn(move || read_keys(&send));
        Ok(this)
    }

    /// Waits for the next key. It never returns if there is no keyboard any more.
    pub(super) async fn key(&mut self) -> Key {
        match self.keys.recv().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }

    /// Returns the width and the height of the terminal, in characters.
    pub(super) fn size() -> (usize, usize) {
        // Some terminals do not know their size and report 0.
        let known = terminal::size().ok().filter(|(width, height)| *width > 0 && *height > 0);
        let (width, height) = known.unwrap_or((80, 24));
        (usize::from(width), usize::from(height))
    }

    /// Replaces the content of the terminal by `lines`.
    pub(super) fn show(lines: &[ScreenLine]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        queue!(out, terminal::BeginSynchronizedUpdate)?;
        for (row, line) in (0..).zip(lines) {
            let attribute = if line.bright { Attribute::Bold } else { Attribute::Reset };
            queue!(
                out,
                cursor::MoveTo(0, row),
                SetAttribute(attribute),
                Print(&line.text),
                SetAttribute(Attribute::Reset),
                terminal::Clear(terminal::ClearType::UntilNewLine)
            )?;
        }
        queue!(out, terminal::Clear(terminal::ClearType::FromCursorDown))?;
        queue!(out, terminal::EndSynchronizedUpdate)?;
        out.flush()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // If this fails, the terminal no longer exists, and the failure cannot be reported.
        let _ = queue!(io::stdout(), cursor::Show, terminal::LeaveAlternateScreen);
        let _ = io::stdout().flush();
        let _ = terminal::disable_raw_mode();
    }
}

fn read_keys(keys: &mpsc::Sender<Key>) {
    while !keys.is_closed() {
        match event::poll(KEY_POLL) {
            Ok(false) => {}
            Ok(true) => {
                let key = event::read().ok().and_then(|event| meaning(&event));
                // If the channel is full, the user presses keys faster than they are handled.
                // Further keys are dropped.
                if let Some(key) = key {
                    let _ = keys.try_send(key);
                }
            }
            Err(_) => break,
        }
    }
}

fn meaning(event: &Event) -> Option<Key> {
    let key = match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => key,
        Event::Resize(..) => return Some(Key::Redraw),
        _ => return None,
    };
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
        KeyCode::Up | KeyCode::Char('k') => Some(Key::Scroll(-1)),
        KeyCode::Down | KeyCode::Char('j') => Some(Key::Scroll(1)),
        KeyCode::PageUp => Some(Key::Page(-1)),
        KeyCode::PageDown | KeyCode::Char(' ') => Some(Key::Page(1)),
        KeyCode::Home => Some(Key::Top),
        KeyCode::Char('0') => Some(Key::Unsorted),
        KeyCode::Char(digit @ '1'..='9') => {
            digit.to_digit(10).map(|digit| Key::ByField(digit as usize - 1))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn raw(row: &Value) -> RawJson {
        RawJson::new(&row.to_string())
    }

    fn screen() -> Screen {
        let mut screen = Screen::new("revenue/by_product".into());
        let field = |name: &str, kind: &str| Field {
            name: name.into(),
            kind: kind.into(),
            unit: String::new(),
        };
        screen.fields = vec![field("name", "text"), field("cents", "integer")];
        screen.replace((0..20).map(|i| {
            (format!("p{i:02}"), raw(&json!({"name": format!("n{i}"), "cents": (i * 7) % 20})))
        }));
        screen
    }

    fn keys(screen: &mut Screen) -> Vec<String> {
        let lines = screen.lines(80, 9, Instant::now());
        lines[3..lines.len() - 1].iter().map(|l| l.text[..3].to_owned()).collect()
    }

    #[test]
    fn no_line_is_wider_and_no_screen_higher_than_the_terminal() {
        let mut screen = screen();
        screen.put(
            "p00".into(),
            raw(&json!({"name": "日".repeat(200), "cents": 1})),
            Instant::now(),
        );
        for (width, height) in [(80, 24), (20, 6), (3, 2), (1, 1)] {
            let lines = screen.lines(width, height, Instant::now());
            assert!(lines.len() <= height, "{width}×{height}");
            assert!(lines.iter().all(|l| l.text.width() <= width), "{width}×{height}");
        }
    }

    #[test]
    fn rows_scroll_within_bounds_and_sort_by_a_field_largest_first() {
        let mut screen = screen();
        assert_eq!(keys(&mut screen), ["p00", "p01", "p02", "p03", "p04"]);
        assert!(screen.press(Key::Scroll(2), 9));
        assert_eq!(keys(&mut screen)[0], "p02");
        assert!(screen.press(Key::Page(9), 9));
        assert_eq!(keys(&mut screen), ["p15", "p16", "p17", "p18", "p19"]);
        assert!(screen.press(Key::Top, 9));
        assert!(screen.press(Key::ByField(1), 9));
        assert_eq!(keys(&mut screen)[..2], ["p17", "p14"]);
        assert!(screen.press(Key::ByField(7), 9));
        assert!(!screen.press(Key::Quit, 9));
    }

    #[test]
    fn a_changed_row_is_bright_for_a_while() {
        let (mut screen, now) = (screen(), Instant::now());
        screen.put("p01".into(), raw(&json!({"cents": 3})), now);
        let bright = |screen: &mut Screen, at| -> Vec<bool> {
            screen.lines(80, 9, at)[3..5].iter().map(|l| l.bright).collect()
        };
        assert_eq!(bright(&mut screen, now), [false, true]);
        assert_eq!(bright(&mut screen, now + BRIGHT), [false, false]);
        screen.delete("p01");
        assert!(!keys(&mut screen).contains(&"p01".to_owned()));
    }
}
