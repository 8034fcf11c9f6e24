//! `lantern explain`: what has changed a row.

use std::collections::BTreeSet;

use lantern_api::{
    ChangeCause, CommittedRow, ExplainLine, Explanation, Problem, RawJson, RowChange,
};

use crate::Global;
use crate::error::{Exit, Failure, Outcome, Refusal};
use crate::output::{self, Progress};
use crate::raw_json::cell;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern explain revenue/by_product p17
  lantern explain revenue/by_product p17 --limit 3
  lantern explain revenue/by_product p17 --json | jq '.changes[0].event'

The server folds the log again in a separate state. Its tables are only read. If the fold
reaches a limit (section `replay` of the settings), or if the beginning of the log is
deleted, the exit code is 7, and the newest commits that changed the row are printed.")]
pub(crate) struct Args {
    /// PROJECTION/TABLE.
    #[arg(value_parser = super::table_name)]
    table: (String, String),
    /// The row's key.
    key: String,
    /// The row of this tenant, in a table by tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Print at most this many changes, the newest ones.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// The version whose row to explain. If left out, the active version.
    #[arg(long, value_name = "ID")]
    version_id: Option<String>,
}

/// Asks the server for the explanation and prints it.
pub(crate) async fn run(args: &Args, global: &Global) -> Outcome {
    let (projection, table) = &args.table;
    let key = match &args.tenant {
        Some(tenant) => format!("{tenant}\0{}", args.key),
        None => args.key.clone(),
    };
    let mut query = vec![("key", key), ("limit", args.limit.to_string())];
    query.extend(args.version_id.clone().map(|id| ("version", id)));
    let bar = output::progress(Progress::PerMille, global.json);
    let (mut commits, mut result) = (Vec::new(), None);
    let take = |line| match line {
        ExplainLine::Commit(commit) => commits.push(commit),
        ExplainLine::Progress { events, percent } => {
            bar.set_position(output::per_mille(percent));
            bar.set_message(format!("{} folded", output::events(events)));
        }
        ExplainLine::Explanation(explanation) => result = Some(Ok(explanation)),
        ExplainLine::Problem(problem) => result = Some(Err(problem)),
    };
    let streamed = global.api().explain((projection, table), &query, take).await;
    bar.finish_and_clear();
    streamed?;
    let explanation = match result {
        Some(Ok(explanation)) => Explanation { commits, ..explanation },
        Some(Err(problem)) => return Err(refused(problem)),
        None => return Err(Failure::new(Exit::Failure, "the server's answer ended early")),
    };
    if global.json {
        output::json(&explanation);
    } else {
        print(args, &explanation);
    }
    match &explanation.reason {
        None => Ok(()),
        Some(reason) => {
            let message = format!("the log was not folded completely: {reason}");
            Err(Failure::new(Exit::Unchecked, message))
        }
    }
}

fn refused(problem: Problem) -> Failure {
    let status = problem.status;
    Refusal::from(problem).into_failure(status)
}

fn print(args: &Args, explanation: &Explanation) {
    let (projection, table) = &args.table;
    let changes = explanation.partitions.iter().map(|partition| partition.changes).sum();
    let shown = explanation.changes.len() as u64;
    let mut text = format!(
        "row `{}` of {projection}/{table}, version {}: {} changes",
        args.key,
        explanation.version,
        output::count(changes)
    );
    if shown < changes {
        text.push_str(&format!("; the newest {}", output::count(shown)));
    }
    output::line(output::printable(&text));
    for change in &explanation.changes {
        print_change(change);
    }
    let rows = explanation.partitions.iter().filter(|partition| partition.row.is_some());
    if rows.count() > 1 {
        output::line(
            "each partition has a row of its own under this key: a read of the table merges them",
        );
    }
    if !explanation.complete {
        explanation.commits.iter().for_each(print_commit);
    } else if explanation.partitions.iter().any(|partition| !partition.agrees) {
        output::line(format!(
            "warning: the table has another row than the fold: `lantern verify {projection}`"
        ));
    }
}

fn print_change(change: &RowChange) {
    let mut text = format!("partition {}, offset {}: ", change.partition, change.offset);
    match (&change.event, &change.timer, change.cause) {
        (_, Some(timer), _) => text.push_str(&format!(
            "timer `{}` of {}, set by offset {}",
            timer.key.replace('\0', " · "),
            timer.time,
            timer.set_by
        )),
        (Some(event), ..) => {
            text.push_str(&format!("{} `{}` of {}", event.kind, event.id, event.source));
            if !event.subject.is_empty() {
                text.push_str(&format!(", subject `{}`", event.subject));
            }
            text.push_str(&format!(", {}", event.time));
        }
        (None, _, ChangeCause::Expiry) => text.push_str("the row's retention ended"),
        (None, ..) => text.push_str("an event that the log has deleted meanwhile"),
    }
    if let Some(at) = change.retried_at {
        text.push_str(&format!(", retried at offset {at}"));
    }
    output::line(output::printable(&text));
    differences(change.before.as_ref(), change.after.as_ref())
        .into_iter()
        .for_each(|line| output::data(format!("  {line}")));
    for log in &change.logs {
        output::data(format!("  {}: {}", log.level, log.message));
    }
}

fn print_commit(commit: &CommittedRow) {
    let row = commit.row.as_ref().map_or("deleted", |row| row.get());
    output::data(format!(
        "partition {}, commit {} before offset {}: {row}",
        commit.partition, commit.commit, commit.next
    ));
}

/// The fields that differ, one line each.
pub(super) fn differences(before: Option<&RawJson>, after: Option<&RawJson>) -> Vec<String> {
    let (Some(before), Some(after)) = (before, after) else {
        return match (before, after) {
            (None, Some(after)) => vec![format!("new: {}", after.get())],
            (Some(before), None) => vec![format!("deleted: {}", before.get())],
            _ => Vec::new(),
        };
    };
    let (before, after) = (before.members(), after.members());
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let fields = names.into_iter().map(|name| (name, before.get(name), after.get(name)));
    let changed = fields.filter(|(_, before, after)| {
        before.map(|value| value.get()) != after.map(|value| value.get())
    });
    changed
        .map(|(name, before, after)| format!("{name}: {} -> {}", cell(before), cell(after)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_fields_that_differ_are_shown() {
        let row = |text: &str| RawJson::new(text);
        let lines = differences(
            Some(&row(r#"{"a":1,"b":"x","gone":true}"#)),
            Some(&row(r#"{"a":2,"b":"x","new":null}"#)),
        );
        assert_eq!(lines, ["a: 1 -> 2", "gone: true -> ", "new:  -> "]);
        assert_eq!(differences(None, Some(&row("{}"))), ["new: {}"]);
        assert_eq!(differences(Some(&row("{}")), None), ["deleted: {}"]);
    }
}
