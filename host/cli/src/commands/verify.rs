//! Implements `lantern verify`. The server folds the log again, in parallel with its other work,
//! and compares the result with its tables. The command prints the outcome.

use std::time::Duration;

use lantern_api::{Verdict, VerifyDifference, VerifyStatus};
use serde_json::json;

use crate::Global;
use crate::api::Api;
use crate::error::{Exit, Failure, Outcome};
use crate::output::{self, Progress};

/// The interval at which the progress is requested.
const POLL: Duration = Duration::from_millis(200);
/// The number of digits of a hash that are printed.
const HASH_DIGITS: usize = 12;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern verify                       # every projection, one after another
  lantern verify revenue
  lantern verify revenue --version-id 3f2a9c0e11d4b7a6
  lantern verify --json | jq 'select(.verified.verdict != \"same\")'

The server folds the log a second time into a temporary state, and compares all rows, timers, parked events and counters with the state that it serves. `verify.thread_percent` limits the CPU time. The server continues to serve; Ctrl-C leaves the verification running.

Exit codes: 0 if everything is the same; 1 if something differs; 7 if nothing differs but
something could not be verified (the message gives the reason).")]
pub(crate) struct Args {
    /// The projection; all projections if left out.
    projection: Option<String>,
    /// The version; the active one if left out.
    #[arg(long, value_name = "ID", requires = "projection")]
    version_id: Option<String>,
}

/// Verifies the tables and prints the results. Returns an error if there are differences.
pub(crate) async fn run(args: Args, global: &Global) -> Outcome {
    let api = global.api();
    let names = match args.projection {
        Some(name) => vec![name],
        None => {
            let all = api.projections().await?.into_iter();
            all.filter(|p| p.active.is_some()).map(|p| p.name).collect()
        }
    };
    if names.is_empty() {
        output::note(global.json, "no projection is active: there is nothing to verify");
    }
    let mut wrong = Vec::new();
    for name in names {
        let status = one(&api, &name, args.version_id.as_deref(), global).await?;
        if global.json {
            output::json(&json!({"projection": name, "verified": status}));
        } else {
            print(&name, &status);
        }
        match status.verdict {
            Verdict::Same => {}
            Verdict::Differs => wrong.push(format!("`{name}` differs from the log")),
            _ => wrong.push(format!("`{name}` could not be verified")),
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let differs = wrong.iter().any(|text| text.ends_with("differs from the log"));
    let exit = if differs { Exit::Failure } else { Exit::Unchecked };
    let mut failure = Failure::new(exit, wrong.join(", "));
    if differs {
        failure = failure.code("LAN-0217");
        if let Some(known) = lantern_server::find_code("LAN-0217") {
            failure = failure.help(known.help);
        }
    }
    Err(failure)
}

async fn one(
    api: &Api,
    name: &str,
    version: Option<&str>,
    global: &Global,
) -> Outcome<VerifyStatus> {
    let begun = api.verify(name, version).await?;
    let bar = output::progress(Progress::PerMille, global.json);
    loop {
        let status = api.projection(name).await?.verified;
        let own = status.filter(|status| status.started_us == begun.started_us);
        let Some(status) = own else {
            let message = format!(
                "the verification of `{name}` ended without a result; the server may have restarted"
            );
            return Err(Failure::new(Exit::Failure, message).help("start it again"));
        };
        bar.set_position(output::per_mille(status.percent));
        bar.set_message(format!(
            "{name}: {} events folded, {} rows compared",
            output::count(status.events),
            output::count(status.rows)
        ));
        if status.verdict != Verdict::Running {
            bar.finish_and_clear();
            return Ok(status);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn print(name: &str, status: &VerifyStatus) {
    let word = match status.verdict {
        Verdict::Same => "the same",
        Verdict::Differs => "DIFFERS",
        Verdict::Unverifiable => "cannot be verified",
        Verdict::Stopped => "was ended",
        Verdict::Failed | Verdict::Running => "failed",
    };
    #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
    let took = output::seconds(status.took_ms as f64 / 1e3);
    output::line(format!(
        "{name} {}: {word}; {} events folded again, {} rows compared, {} differ, in {took}",
        status.version,
        output::count(status.events),
        output::count(status.rows),
        output::count(status.differences)
    ));
    for shard in &status.partitions {
        if let Some(reason) = &shard.reason {
            let reason = output::printable(reason);
            output::line(format!("  partition {}: {reason}", shard.partition));
        }
        for table in shard.tables.iter().filter(|table| table.expected != table.found) {
            let digits = |hash: &str| hash.get(..HASH_DIGITS).unwrap_or(hash).to_owned();
            output::line(format!(
                "  partition {}, {}: {} of {} rows differ; the log gives {}…, the state has {}…",
                shard.partition,
                output::printable(&table.name),
                output::count(table.differences),
                output::count(table.rows),
                digits(&table.expected),
                digits(&table.found)
            ));
        }
        if let Some(first) = &shard.first {
            print_first(shard.partition, shard.next, first);
        }
    }
}

fn print_first(partition: u32, next: u64, first: &VerifyDifference) {
    let value = |value: &Option<String>| match value {
        Some(text) => output::printable(text),
        None => "nothing".into(),
    };
    output::line(format!(
        "  first: partition {partition} at offset {next}, {}, key `{}`",
        output::printable(&first.table),
        output::printable(&first.key)
    ));
    if first.fields.is_empty() {
        output::line(format!("    the log gives  {}", value(&first.expected)));
        output::line(format!("    the state has  {}", value(&first.found)));
    }
    for field in &first.fields {
        output::line(format!(
            "    {}: the log gives {}, the state has {}",
            output::printable(&field.name),
            value(&field.expected),
            value(&field.found)
        ));
    }
}
