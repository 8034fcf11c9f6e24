//! Implements `lantern parked`, which prints, retries or drops events that could not be applied.

use lantern_api::{
    ParkedOutcome, ParkedPage, ParkedSelection, ParkedStatus, ParkedSummary, ResendResult,
};

use crate::Global;
use crate::error::{Exit, Failure, Outcome};
use crate::output;

/// The number of parked events that are requested at a time.
const PAGE: usize = 200;
/// The maximum number of characters of a payload or a reason that are printed on a line.
const SHORT_CHARS: usize = 60;

#[derive(clap::Subcommand)]
#[command(after_help = "\
Examples:
  lantern parked list revenue
  lantern parked retry revenue --all")]
pub(crate) enum Command {
    /// Print parked events with their reasons.
    List(ListArgs),
    /// Apply parked events again, in order. Events that fail again stay parked, with
    /// the new reason.
    Retry(RetryArgs),
    /// Discard parked events permanently.
    Drop(DropArgs),
    /// Apply the parked events again that Kafka's dead-letter topic names.
    Resend(ResendArgs),
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern parked resend
  lantern parked resend --from-beginning

Reads the dead letters that no earlier call has read, of all projections, and retries their events in order, as `lantern parked retry` does. It does not write the events to the log again.")]
pub(crate) struct ResendArgs {
    /// Read all dead letters of the topic, including those that an earlier call has read.
    #[arg(long)]
    from_beginning: bool,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern parked list revenue                         # counts by reason, and failed events
  lantern parked list revenue --subject u17 --long    # with payload and backtrace
  lantern parked list revenue --waiting               # events held back behind failed ones
  lantern parked list revenue --version-id 3f2a9c0e11d4b7a6
  lantern parked list revenue --all --json | jq -r .reason | sort | uniq -c

A failed event could not be applied. If the plugin's manifest says `park-subject`, later
events of the same subject wait behind it and were not tried. `lantern parked retry`
applies both again, in order.")]
pub(crate) struct ListArgs {
    /// The projection.
    name: String,
    /// Print the parked events of this version; the active one if left out.
    #[arg(long, value_name = "ID")]
    version_id: Option<String>,
    /// Only events of this subject.
    #[arg(long)]
    subject: Option<String>,
    /// Only events of this tenant; an empty text for events without a tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Print the events that wait behind a failed event of their subject, instead of the
    /// failed events.
    #[arg(long)]
    waiting: bool,
    /// Print all events.
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Print at most this many events.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print payload and backtrace in full.
    #[arg(long)]
    long: bool,
}

/// Which parked events to select: one of these is required.
#[derive(clap::Args)]
#[group(skip)]
#[command(group(
    clap::ArgGroup::new("which")
        .required(true)
        .args(["all", "offsets", "tenant", "subject"])
        .multiple(true)
))]
pub(crate) struct ParkedSelector {
    /// All parked events.
    #[arg(long, conflicts_with_all = ["offsets", "tenant", "subject"])]
    all: bool,
    /// The events at these offsets.
    #[arg(
        long = "offset",
        value_name = "OFFSET",
        value_delimiter = ',',
        conflicts_with = "subject"
    )]
    offsets: Vec<u64>,
    /// The partition of the offsets.
    #[arg(long, default_value_t = 0)]
    partition: u32,
    /// Only events of this tenant; an empty text for events without a tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// The events of this subject.
    #[arg(long)]
    subject: Option<String>,
    /// Use this version; the active one if left out.
    #[arg(long, value_name = "ID")]
    version_id: Option<String>,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern parked retry revenue --all
  lantern parked retry revenue --offset 1841 --offset 1902
  lantern parked retry revenue --tenant acme --subject u17")]
pub(crate) struct RetryArgs {
    /// The projection.
    name: String,
    #[command(flatten)]
    which: ParkedSelector,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern parked drop revenue --offset 1841
  lantern parked drop revenue --all --yes

Dropped events stay in the log, but this version never applies them.")]
pub(crate) struct DropArgs {
    /// The projection.
    name: String,
    #[command(flatten)]
    which: ParkedSelector,
    /// Do not ask for confirmation.
    #[arg(long)]
    yes: bool,
}

impl ParkedSelector {
    fn selection(&self) -> ParkedSelection {
        ParkedSelection {
            all: self.all,
            offsets: self.offsets.clone(),
            partition: self.partition,
            tenant: self.tenant.clone(),
            subject: self.subject.clone(),
        }
    }

    fn text(&self) -> String {
        let named = match (&self.subject, self.all) {
            (Some(subject), _) => format!("the parked events of subject `{subject}`"),
            (None, true) => "all parked events".into(),
            (None, false) if self.offsets.is_empty() => "all parked events".into(),
            (None, false) => format!("{} parked events", self.offsets.len()),
        };
        match &self.tenant {
            Some(tenant) => format!("{named} of tenant `{tenant}`"),
            None => named,
        }
    }
}

/// Runs a subcommand.
pub(crate) async fn run(command: Command, global: &Global) -> Outcome {
    match command {
        Command::List(args) => list(&args, global).await,
        Command::Retry(args) => act(&args.name, "retry", &args.which, global).await,
        Command::Drop(args) => {
            let question = format!("drop {} of `{}` for good?", args.which.text(), args.name);
            super::confirm(&question, args.yes)?;
            act(&args.name, "drop", &args.which, global).await
        }
        Command::Resend(args) => resend(args.from_beginning, global).await,
    }
}

async fn list(args: &ListArgs, global: &Global) -> Outcome {
    let api = global.api();
    let summary = api.parked_summary(&args.name, args.version_id.as_deref()).await?;
    if !global.json {
        show_summary(&summary);
    }
    let mut query = Vec::new();
    query.extend(args.version_id.clone().map(|id| ("version", id)));
    query.extend(args.subject.clone().map(|subject| ("subject", subject)));
    query.extend(args.tenant.clone().map(|tenant| ("tenant", tenant)));
    // With `--json`, both kinds of events are printed. A script can distinguish them by `kind`.
    if args.waiting || !global.json {
        query.push(("waiting", args.waiting.to_string()));
    }
    let mut left = if args.all { usize::MAX } else { args.limit as usize };
    let (mut cursor, mut shown) = (None, 0);
    while left > 0 {
        let mut page_of = query.clone();
        page_of.push(("limit", PAGE.min(left).to_string()));
        page_of.extend(cursor.clone().map(|cursor| ("cursor", cursor)));
        let page = api.parked(&args.name, &page_of).await?;
        shown += page.parked.len() as u64;
        left = left.saturating_sub(page.parked.len());
        show(&page, args.long, global.json);
        match page.next {
            Some(next) if !page.parked.is_empty() => cursor = Some(next),
            _ => break,
        }
    }
    let all = if args.waiting { summary.waiting } else { summary.failed };
    if shown < all && args.subject.is_none() && args.tenant.is_none() {
        let (shown, all) = (output::count(shown), output::count(all));
        output::note(
            global.json,
            format!("{shown} of {all} are shown: --limit N or --all for more"),
        );
    }
    if summary.waiting > 0 && !args.waiting {
        output::note(global.json, "--waiting lists the waiting events");
    }
    Ok(())
}

fn show_summary(summary: &ParkedSummary) {
    output::line(format!("{} parked", counts(summary.failed, summary.waiting)));
    if summary.reasons.is_empty() {
        return;
    }
    let mut table =
        output::table(["failed", "waiting behind", "first (partition:offset)", "reason"]);
    for group in &summary.reasons {
        // If an event waits behind one that was dropped, it has no reason.
        let reason =
            if group.reason.is_empty() { "the event before it was dropped" } else { &group.reason };
        table.add_row([
            output::count(group.failed),
            output::count(group.waiting),
            format!("{}:{}", group.partition, group.offset),
            output::printable(reason),
        ]);
    }
    table.align_right([0, 1]);
    output::line(table.to_string());
    if summary.more_reasons > 0 {
        output::line(format!("and {} more reasons", output::count(summary.more_reasons)));
    }
}

/// Returns the numbers of failed and waiting events, as text.
pub(super) fn counts(failed: u64, waiting: u64) -> String {
    let events = if failed == 1 { "event" } else { "events" };
    let (many, behind) = (output::count(failed), output::count(waiting));
    match (failed, waiting) {
        (0, 0) => "no event is".to_owned(),
        (1, 0) => "1 failed event is".to_owned(),
        (_, 0) => format!("{many} failed {events} are"),
        (0, _) => format!("{behind} events that wait are"),
        _ => format!("{many} failed {events} and {behind} that wait behind are"),
    }
}

fn show(page: &ParkedPage, long: bool, json: bool) {
    if json {
        page.parked.iter().for_each(output::json);
    } else if long {
        page.parked.iter().for_each(show_long);
    } else if !page.parked.is_empty() {
        output::line(super::local_host::parked_table(&page.parked).to_string());
    }
}

fn show_long(event: &ParkedStatus) {
    let print = |name: &str, value: &str| {
        for line in value.lines() {
            output::line(format!("  {name:<10} {}", output::printable(line)));
        }
    };
    output::line(format!("partition {} offset {}", event.partition, event.offset));
    print("kind", &event.kind);
    print("id", &event.id);
    print("source", &event.source);
    print("type", &event.event_type);
    print("tenant", &event.tenant);
    print("subject", &event.subject);
    print("time", &output::time_us(event.time_us));
    print("tried", &format!("{} times", event.attempts));
    print("reason", &event.reason);
    print("data", &event.data);
    print("backtrace", &event.backtrace);
}

/// Returns the beginning of `text` on one line.
pub(super) fn short(text: &str) -> String {
    let mut short: String = text.chars().take(SHORT_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    output::printable(&short)
}

async fn act(name: &str, action: &str, which: &ParkedSelector, global: &Global) -> Outcome {
    let version = which.version_id.as_deref();
    let outcome = global.api().parked_act(name, action, version, &which.selection()).await?;
    let ParkedOutcome { selected, done, failed, waiting } = outcome;
    if global.json {
        output::json(&outcome);
    } else {
        let done_is = if action == "drop" { "dropped" } else { "applied" };
        output::line(format!(
            "{selected} selected: {done} {done_is}, {failed} failed again, {waiting} wait behind them"
        ));
    }
    none_failed(failed, name)
}

/// Returns an error if events have failed again. It tells the user to look at the parked events of
/// the projection `name`.
fn none_failed(failed: u64, name: &str) -> Outcome {
    if failed > 0 {
        return Err(Failure::new(
            Exit::Failure,
            format!("{} failed again", output::events(failed)),
        )
        .help(format!("`lantern parked list {name} --long` shows why")));
    }
    Ok(())
}

async fn resend(from_beginning: bool, global: &Global) -> Outcome {
    let resent = global.api().resend(from_beginning).await?;
    let ResendResult { letters, foreign, applied, failed, waiting, gone } = resent;
    if global.json {
        output::json(&resent);
    } else {
        output::line(format!(
            "{letters} dead letters: {applied} events applied, {failed} failed again, {waiting} wait behind them, {gone} were not parked any more"
        ));
    }
    if foreign > 0 {
        let none =
            format!("skipped {foreign} records of the topic that are not copies of parked events");
        output::note(global.json, none);
    }
    none_failed(failed, "NAME")
}
