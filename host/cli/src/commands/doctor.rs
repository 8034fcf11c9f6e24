//! Implements `lantern doctor`, which checks the files of a data folder that no server uses.

use std::path::PathBuf;
use std::time::Duration;

use lantern_server::doctor::{Finding, Health, Report, examine};
use lantern_server::{ServerConfig, StartError};

use super::serve::{failed, quoted};
use crate::error::{Exit, Failure, Outcome};
use crate::output::{self, Progress};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern doctor
  lantern doctor --data /var/lib/lantern
  lantern doctor --data /var/lib/lantern --repair && lantern serve --data /var/lib/lantern
  lantern doctor --json | jq -r '.findings[] | select(.health==\"damaged\").file'

It reads every file completely; without --repair it changes nothing. The server must be
stopped. The procedure for each kind of damage is in docs/guide/operating.md, \"Damage\".

Exit codes: 0 if everything is sound or repaired; 1 if something is damaged; 7 if some
files could not be read.")]
pub(crate) struct Args {
    /// The folder in which the server stores everything [default: data].
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// The settings file [default: lantern.toml, if it exists].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Move damaged states of projections aside, so that the server folds their versions again from
    /// the log. This deletes nothing, and never changes the log.
    #[arg(long)]
    repair: bool,
}

/// Checks the files, prints the result, and repairs states if that was requested.
pub(crate) fn run(args: &Args, json: bool) -> Outcome {
    let data = args.data.as_deref();
    let data = data.map(|data| ("data".to_owned(), quoted(&data.to_string_lossy())));
    let flags: Vec<_> = data.into_iter().collect();
    let config =
        ServerConfig::load(args.config.as_deref(), &flags).map_err(|error| failed(error.into()))?;
    let bar = output::progress(Progress::PerMille, json);
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut progress = |what: &str, done: u64, all: u64| {
        bar.set_position(done.saturating_mul(1_000).checked_div(all).unwrap_or(0));
        bar.set_message(what.to_owned());
    };
    let report = examine(&config.data, args.repair, &mut progress);
    bar.finish_and_clear();
    let report = report.map_err(|error| {
        let exit = match &error {
            StartError::InUse { .. } => Exit::Refused,
            _ if !config.data.exists() => Exit::NotFound,
            _ => Exit::Unchecked,
        };
        Failure { exit, ..failed(error) }
    })?;
    if json {
        output::json(&report);
    } else {
        print(&report);
    }
    verdict(&report)
}

fn print(report: &Report) {
    let mut table = output::table(["file", "what it is", "", "place"]);
    for finding in &report.findings {
        let Finding { file, what, health, places, .. } = finding;
        let places: Vec<_> = places.iter().map(|place| output::printable(place)).collect();
        table.add_row([
            file.display().to_string(),
            output::printable(what),
            word(*health).to_owned(),
            places.join("\n"),
        ]);
    }
    output::line(table.to_string());
    for finding in report.findings.iter().filter(|f| f.health != Health::Sound) {
        let Finding { file, health, way_out, .. } = finding;
        if *health != Health::Unused {
            output::line(format!("\n{} is {}: {way_out}", file.display(), word(*health)));
        }
    }
}

fn word(health: Health) -> &'static str {
    match health {
        Health::Sound => "ok",
        Health::Damaged => "damaged",
        Health::Unknown => "not checked",
        Health::Repaired => "repaired",
        Health::Unused => "not needed",
    }
}

fn verdict(report: &Report) -> Outcome {
    let folder = report.folder.display();
    if report.has(Health::Damaged) {
        return Err(Failure::new(Exit::Failure, format!("`{folder}` is damaged")).help(
            "copy the folder before you change it; then follow the procedure of each finding above",
        ));
    }
    if report.has(Health::Unknown) {
        let message = format!("not all of `{folder}` could be checked");
        return Err(
            Failure::new(Exit::Unchecked, message).help("each finding above gives its reason")
        );
    }
    Ok(())
}
