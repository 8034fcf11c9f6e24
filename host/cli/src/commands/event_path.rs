//! `lantern events path`: what was done with an event.

use lantern_api::{EventOutcome, EventPath, EventStep};

use crate::Global;
use crate::error::Outcome;
use crate::output;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern events path 0:4812
  lantern events path 0:4812 --json | jq '.versions[] | select(.outcome == \"parked\")'")]
pub(crate) struct Args {
    /// The partition and the offset of the event, in the form that an append returns.
    #[arg(value_name = "PARTITION:OFFSET", value_parser = location)]
    event: (u32, u64),
}

/// Asks the server and prints a line for each version.
pub(crate) async fn run(args: &Args, global: &Global) -> Outcome {
    let path = global.api().event_path(args.event.0, args.event.1).await?;
    if global.json {
        output::json(&path);
    } else {
        print(&path);
    }
    Ok(())
}

fn print(path: &EventPath) {
    let EventPath { partition, offset, event, versions } = path;
    let text = format!(
        "partition {partition}, offset {offset}: {} `{}` of {}, {}",
        event.kind, event.id, event.source, event.time
    );
    output::line(output::printable(&text));
    let mut table = output::table(["projection", "version", "state", "outcome", "reason"]);
    for step in versions {
        let cells = [
            step.projection.clone(),
            step.version.clone(),
            step.state.clone(),
            words(step),
            step.reason.clone().unwrap_or_default(),
        ];
        table.add_row(cells.iter().map(|cell| output::printable(cell)));
    }
    output::line(table.to_string());
}

fn words(step: &EventStep) -> String {
    match step.outcome {
        EventOutcome::Pending => format!("not reached yet (next offset {})", step.next),
        EventOutcome::Skipped => "skipped".into(),
        EventOutcome::Applied => "applied".into(),
        EventOutcome::Parked => format!("parked, tried {}×", step.attempts.unwrap_or_default()),
        EventOutcome::Waiting => "waits behind a parked event of its subject".into(),
        EventOutcome::AppliedOrDropped => format!(
            "applied, or parked and dropped at offset {}",
            step.dropped_at.unwrap_or_default()
        ),
        EventOutcome::Unreadable => "unknown".into(),
    }
}

fn location(text: &str) -> Result<(u32, u64), String> {
    let parsed = text
        .split_once(':')
        .and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
    parsed.ok_or_else(|| "give partition and offset, such as `0:501`".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_named_by_partition_and_offset() {
        assert_eq!(location("0:501"), Ok((0, 501)));
        assert!(["", "5", ":5", "0:", "a:1", "0:5:6"].iter().all(|text| location(text).is_err()));
    }
}
