//! Implements `lantern table watch`, which shows a table live, on the whole screen of a terminal.
//! If the output is not a terminal, the command prints each change on a line.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lantern_api::RawJson;
use lantern_client::{
    Change, Changes, Client, Error, Lag, Mode, Options, Row, Status, Table, TableOptions,
};
use serde::Serialize;

use super::screen::{Key, Screen, Terminal};
use crate::Global;
use crate::error::{Exit, Failure, Outcome};
use crate::output;

/// The shortest time between two redraws of the screen.
const DRAW: Duration = Duration::from_millis(100);
/// The maximum number of changes that wait while the terminal is slow. If there are more, the
/// changes are dropped and the whole table is shown again.
const CHANGES_MAX: usize = 4_096;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern table watch revenue/by_product
  lantern table watch revenue/by_product | grep p17
  lantern table watch revenue/by_product --json | jq -c 'select(.change==\"delta\").up'

On a terminal: q quits, arrows and page keys scroll, 1 to 9 sort by a field, 0 by key.
Ctrl-C stops it.")]
pub(crate) struct Args {
    /// PROJECTION/TABLE.
    #[arg(value_parser = super::table_name)]
    table: (String, String),
    /// Show each commit separately. Without this option, changes of one key in several commits may
    /// be merged into one.
    #[arg(long)]
    every: bool,
    /// Print lines even on a terminal.
    #[arg(long)]
    lines: bool,
    /// Stop after this many changes; the first rows do not count.
    #[arg(long, value_name = "CHANGES", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

/// Shows the table until the user stops the command.
pub(crate) async fn run(args: Args, global: &Global) -> Outcome {
    let name = format!("{}/{}", args.table.0, args.table.1);
    let base = global.api().base().to_owned();
    let options = Options { changes_buffer: CHANGES_MAX, ..Options::default() };
    let client = connect(&base, options).await?;
    let mode = if args.every { Mode::Changes } else { Mode::State };
    let table = client.table_with(&name, TableOptions { mode, ..TableOptions::default() });
    let mut watched = WatchedTable::new(table, args.limit.unwrap_or(u64::MAX));
    let ended = if output::is_terminal() && !args.lines && !global.json {
        full_screen(&mut watched, name).await
    } else {
        let lines = async {
            loop {
                match watched.next().await {
                    Ok(Some(news)) => news.print(global.json),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            }
        };
        tokio::select! {
            ended = lines => ended,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    };
    ended.map_err(|error| failed(error, &base))
}

/// Connects to the feed of the server at `base`.
pub(super) async fn connect(base: &str, options: Options) -> Outcome<Client> {
    let url = format!("{}/v1/feed", base.replacen("http://", "ws://", 1));
    Client::connect(&url, options).await.map_err(|error| failed(error, base))
}

/// A table that is followed, and its changes that are not shown yet.
pub(super) struct WatchedTable {
    /// The mirror of the table.
    pub(super) table: Table,
    changes: Changes,
    /// The commit whose rows are shown; `None` before the first one.
    shown: Option<u64>,
    /// The number of changes that will still be shown before the command ends.
    left: u64,
}

/// An update of the table that will be shown.
pub(super) enum WatchUpdate {
    /// All rows of the table. This update comes first, and again after changes were lost.
    Rows { epoch: String, commit: u64, rows: BTreeMap<String, Row> },
    /// The rows that commits have changed, and the keys of the rows that they have deleted.
    Delta { from: u64, to: u64, up: Vec<(String, Row)>, del: Vec<String>, merged: bool },
    /// Commits that have not changed this table.
    Tick { commit: u64, lag: Option<Lag> },
}

impl WatchedTable {
    /// Watches `table` until `limit` changes were returned.
    pub(super) fn new(table: Table, limit: u64) -> Self {
        Self { changes: table.changes(), table, shown: None, left: limit }
    }

    /// Waits for the next update. Returns `None` if enough changes were shown.
    pub(super) async fn next(&mut self) -> Result<Option<WatchUpdate>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        loop {
            match self.changes.next().await.unwrap_or(Change::Ended(Error::Closed)) {
                Change::Snapshot { .. } | Change::Missed(_) => {
                    let rows = self.table.with(|rows, commit| Some((rows.clone(), commit?)));
                    let Some((rows, commit)) = rows else { continue };
                    self.shown = Some(commit);
                    let epoch = self.table.epoch().unwrap_or_default();
                    return Ok(Some(WatchUpdate::Rows { epoch, commit, rows }));
                }
                // The snapshot that was shown already contains these changes.
                Change::Delta { to, .. } if self.shown.is_some_and(|shown| to <= shown) => {}
                Change::Delta { from, to, up, del, merged } => {
                    self.shown = Some(to);
                    self.left -= 1;
                    return Ok(Some(WatchUpdate::Delta { from, to, up, del, merged }));
                }
                Change::Resumed { commit } => {
                    self.shown = Some(commit);
                    return Ok(Some(WatchUpdate::Tick { commit, lag: None }));
                }
                Change::Tick { commit, lag } => {
                    return Ok(Some(WatchUpdate::Tick { commit, lag }));
                }
                Change::Ended(error) => return Err(error),
            }
        }
    }
}

impl WatchUpdate {
    fn print(&self, as_json: bool) {
        match (self, as_json) {
            (Self::Rows { epoch, commit, rows }, true) => {
                output::json(&WatchLine::Rows { epoch, commit: *commit, rows });
            }
            (Self::Delta { from, to, up, del, merged }, true) => {
                let up = up.iter().map(|(key, row)| (key.as_str(), row)).collect();
                output::json(&WatchLine::Delta { from: *from, to: *to, up, del, merged: *merged });
            }
            (Self::Tick { commit, lag }, true) => {
                output::json(&WatchLine::Tick { commit: *commit, lag: *lag });
            }
            (Self::Rows { commit, rows, .. }, false) => {
                output::line(format!("# {} rows at commit {commit}", rows.len()));
                rows.iter().for_each(|(key, row)| put(key, row));
            }
            (Self::Delta { to, up, del, .. }, false) => {
                output::line(format!("# commit {to}"));
                up.iter().for_each(|(key, row)| put(key, row));
                del.iter().for_each(|key| output::line(format!("- {}", output::printable(key))));
            }
            (Self::Tick { .. }, false) => {}
        }
    }
}

/// What is printed on a line of JSON. Rows are printed unchanged.
#[derive(Serialize)]
#[serde(tag = "change", rename_all = "lowercase")]
enum WatchLine<'a> {
    Rows { epoch: &'a str, commit: u64, rows: &'a BTreeMap<String, Row> },
    Delta { from: u64, to: u64, up: BTreeMap<&'a str, &'a Row>, del: &'a [String], merged: bool },
    Tick { commit: u64, lag: Option<Lag> },
}

fn put(key: &str, row: &Row) {
    output::data(format!("+ {} {}", output::printable(key), output::printable(row.json())));
}

async fn full_screen(watched: &mut WatchedTable, name: String) -> Result<(), Error> {
    let mut screen = Screen::new(name);
    let mut terminal = match Terminal::take() {
        Ok(terminal) => terminal,
        // If the terminal cannot be used for the whole screen, changes are printed as lines.
        Err(_) => return Ok(()),
    };
    let mut draw = tokio::time::interval(DRAW);
    draw.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            key = terminal.key() => {
                let (_, height) = Terminal::size();
                if !screen.press(key, height) {
                    return Ok(());
                }
                if key != Key::Redraw {
                    draw.reset_immediately();
                }
            }
            news = watched.next() => match news? {
                Some(news) => take(&mut screen, &watched.table, news),
                None => return Ok(()),
            },
            _ = draw.tick() => {
                screen.status = status(&watched.table.status()).into();
                let (width, height) = Terminal::size();
                let lines = screen.lines(width, height, Instant::now());
                if Terminal::show(&lines).is_err() {
                    return Ok(());
                }
            }
        }
    }
}

fn take(screen: &mut Screen, table: &Table, news: WatchUpdate) {
    let value = |row: &Row| RawJson::new(row.json());
    match news {
        WatchUpdate::Rows { commit, rows, .. } => {
            screen.commit = commit;
            screen.fields = table.fields();
            screen.replace(rows.iter().map(|(key, row)| (key.clone(), value(row))));
        }
        WatchUpdate::Delta { to, up, del, .. } => {
            screen.commit = to;
            let now = Instant::now();
            up.into_iter().for_each(|(key, row)| screen.put(key, value(&row), now));
            del.iter().for_each(|key| screen.delete(key));
        }
        WatchUpdate::Tick { commit, lag } => {
            screen.commit = commit;
            screen.lag = lag.map(|lag| (lag.events, lag.ms)).or(screen.lag);
        }
    }
}

fn status(status: &Status) -> &'static str {
    match status {
        Status::Connecting => "connecting",
        Status::CatchingUp => "catching up",
        Status::Live => "live",
        Status::Stale => "stale: the server does not answer",
        Status::Ended(_) => "ended",
    }
}

fn failed(error: Error, base: &str) -> Failure {
    let message = error.to_string();
    match error {
        Error::Unreachable { .. } => {
            Failure::new(Exit::Unreachable, format!("no server answers at {base}: {message}"))
                .help("start one with `lantern serve`, or name another with --server")
        }
        Error::Table { code, .. } if code.starts_with("no_such") => {
            Failure::new(Exit::NotFound, message).help("`lantern plugin list` shows all tables")
        }
        Error::Table { .. } | Error::Refused { .. } => Failure::new(Exit::Refused, message),
        _ => Failure::new(Exit::Failure, message),
    }
}
