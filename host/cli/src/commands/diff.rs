//! `lantern table diff`: how two versions of a table differ.

use std::time::Duration;

use lantern_api::{FieldChange, ProjectionStatus, RowDifference, TableDiff};

use super::explain::differences;
use crate::Global;
use crate::error::{Exit, Failure, Outcome};
use crate::output;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern table diff revenue/by_product active 7d1f0c24be02a1f3
  lantern table diff revenue/by_product previous active --limit 5
  lantern table diff revenue/by_product active 7d1f --cols product,cents --json

The server compares both versions at the same offsets. The exit code is 1 if rows differ.")]
pub(crate) struct Args {
    /// PROJECTION/TABLE.
    #[arg(value_parser = super::table_name)]
    table: (String, String),
    /// One version: `active`, `previous`, or the beginning of a version's id.
    left: String,
    /// The other version.
    right: String,
    /// Compare only keys that begin with this text.
    #[arg(long)]
    prefix: Option<String>,
    /// Compare only these fields, separated by commas.
    #[arg(long, value_name = "FIELDS")]
    cols: Option<String>,
    /// Print at most this many differences.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// How long to wait until both versions have folded the same offsets; at most 30
    /// seconds.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = super::duration)]
    wait: Duration,
}

/// Asks the server for the differences and prints them.
pub(crate) async fn run(args: &Args, global: &Global) -> Outcome {
    let (projection, table) = &args.table;
    let api = global.api();
    let versions = Versions::from(api.projection(projection).await?);
    let mut query = vec![
        ("left", versions.named(&args.left)?),
        ("right", versions.named(&args.right)?),
        ("limit", args.limit.to_string()),
        ("wait", format!("{}ms", args.wait.as_millis())),
    ];
    query.extend(args.prefix.clone().map(|prefix| ("prefix", prefix)));
    query.extend(args.cols.clone().map(|cols| ("cols", cols)));
    let diff = api.diff((projection, table), &query).await?;
    if global.json {
        output::json(&diff);
    } else {
        print(args, &diff);
    }
    match diff.added + diff.removed + diff.changed {
        0 => Ok(()),
        1 => Err(Failure::new(Exit::Failure, "1 row differs")),
        differing => {
            let message = format!("{} rows differ", output::count(differing));
            Err(Failure::new(Exit::Failure, message))
        }
    }
}

/// The versions of a projection.
struct Versions {
    projection: String,
    active: Option<String>,
    previous: Option<String>,
    ids: Vec<String>,
}

impl From<ProjectionStatus> for Versions {
    fn from(status: ProjectionStatus) -> Self {
        let ProjectionStatus { name, active, previous, versions, .. } = status;
        let ids = versions.into_iter().map(|version| version.id).collect();
        Self { projection: name, active, previous, ids }
    }
}

impl Versions {
    /// The id of the version that `text` names.
    fn named(&self, text: &str) -> Outcome<String> {
        let name = &self.projection;
        let named = match text {
            "active" => self.active.clone(),
            "previous" => self.previous.clone(),
            _ => {
                let mut found = self.ids.iter().filter(|id| id.starts_with(text));
                let first = found.next().cloned();
                if found.next().is_some() {
                    let message = format!("several versions of `{name}` begin with `{text}`");
                    return Err(Failure::new(Exit::Usage, message).help("give more digits"));
                }
                first
            }
        };
        named.ok_or_else(|| {
            let message = format!("projection `{name}` has no version `{text}`");
            let help = format!("`lantern plugin status {name}` lists its versions");
            Failure::new(Exit::NotFound, message).code("LAN-0202").help(help)
        })
    }
}

fn print(args: &Args, diff: &TableDiff) {
    let (projection, table) = &args.table;
    let counts = counts(diff.added, diff.removed, diff.changed, diff.same);
    output::line(format!("{projection}/{table}, {} -> {}: {counts}", diff.left, diff.right));
    let offsets = diff.offsets.iter().map(|(partition, next)| format!("{partition}:{next}"));
    output::line(format!("both at offsets {}", offsets.collect::<Vec<_>>().join(",")));
    print_differences("", &diff.fields, &diff.differences);
    if diff.more {
        output::note(false, "there are more differences: use --limit");
    }
}

/// Returns the numbers of rows that a comparison of tables has counted, as text.
pub(super) fn counts(added: u64, removed: u64, changed: u64, same: u64) -> String {
    format!(
        "{} rows added, {} removed, {} changed, {} the same",
        output::count(added),
        output::count(removed),
        output::count(changed),
        output::count(same)
    )
}

/// Prints the declared fields and the rows that differ. Each line begins with `indent`.
pub(super) fn print_differences(indent: &str, fields: &[FieldChange], rows: &[RowDifference]) {
    for field in fields {
        let kind = |kind: &Option<String>| kind.clone().unwrap_or_else(|| "not declared".into());
        let (left, right) = (kind(&field.left), kind(&field.right));
        output::data(format!("{indent}field {}: {left} -> {right}", field.name));
    }
    for row in rows {
        output::data(format!("{indent}{}", row.key.replace('\0', " · ")));
        for line in differences(row.left.as_ref(), row.right.as_ref()) {
            output::data(format!("{indent}  {line}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_named_by_its_role_or_the_beginning_of_its_id() {
        let versions = Versions {
            projection: "p".into(),
            active: Some("abc1".into()),
            previous: None,
            ids: vec!["abc1".into(), "abd2".into()],
        };
        assert_eq!(versions.named("active").unwrap(), "abc1");
        assert_eq!(versions.named("abd").unwrap(), "abd2");
        assert_eq!(versions.named("ab").unwrap_err().exit, Exit::Usage);
        for missing in ["previous", "x"] {
            assert_eq!(versions.named(missing).unwrap_err().exit, Exit::NotFound);
        }
    }
}
