//! The output of `lantern plugin push --dry-run`.

use lantern_api::{DryFold, DryRun, DryTable};

use super::diff;
use crate::Global;
use crate::error::{Exit, Failure, Outcome};
use crate::output;

/// The most messages of the plugin and parked events that are printed.
const LINES_MAX: usize = 10;

/// Prints the answer of a dry run. The outcome is a failure if the version would park events
/// or halt.
pub(super) fn show(dry: &DryRun, global: &Global) -> Outcome {
    if global.json {
        output::json(dry);
    } else {
        print(dry);
    }
    if let Some(halted) = &dry.new.halted {
        let message = format!("the version would halt: {}", output::printable(halted));
        return Err(Failure::new(Exit::Failure, message));
    }
    match dry.new.parked {
        0 => Ok(()),
        parked => {
            let message = format!("the version would park {}", output::events(parked));
            Err(Failure::new(Exit::Failure, message))
        }
    }
}

fn print(dry: &DryRun) {
    let DryRun { projection, check, events, new, active, tables, .. } = dry;
    output::line(format!(
        "version {} of projection `{projection}`: determinism check passed ({}); nothing was stored",
        check.version,
        output::events(check.checked_events)
    ));
    check.warnings.iter().for_each(|warning| output::line(format!("warning: {warning}")));
    output::line(format!("the newest {}, folded with empty tables:", output::events(*events)));
    output::line(format!("  this version: {}", counts(new)));
    if let Some(active) = active {
        output::line(format!("  the active one, {}: {}", active.version, counts(active)));
    }
    tables.iter().for_each(print_table);
    for parked in new.first_parked.iter().take(LINES_MAX) {
        output::data(format!(
            "parked: partition {}, offset {}: {}",
            parked.partition, parked.offset, parked.reason
        ));
    }
    for log in new.logs.iter().take(LINES_MAX) {
        output::data(format!("{}: {}", log.level, log.message));
    }
}

fn counts(fold: &DryFold) -> String {
    let mut text = format!("{} applied", output::events(fold.applied));
    if fold.parked > 0 {
        text.push_str(&format!(", {} parked", output::count(fold.parked)));
    }
    if fold.emitted > 0 {
        text.push_str(&format!(", {} emitted", output::count(fold.emitted)));
    }
    text
}

fn print_table(table: &DryTable) {
    let counts = diff::counts(table.added, table.removed, table.changed, table.same);
    output::line(format!("{}: {counts}", table.name));
    diff::print_differences("  ", &table.fields, &table.differences);
}
