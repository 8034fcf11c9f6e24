//! Defines the extension attributes that an exact export adds to each event: its append time and
//! its partition. With them, another server can import the events into a log that equals the first
//! one. The attributes have reserved names and come before the event's own attributes.

use lantern_core::{Event, EventRef, Events, Log, PartitionId, Timestamp};

use crate::cloudevents::{format_time, parse_time};
use crate::problem::Problem;

const APPENDED: &str = "lanternappended";
const PARTITION: &str = "lanternpartition";

/// Returns the attributes that an export adds, followed by the extension attributes of `event`.
pub(super) fn with_export_attributes(
    event: &EventRef<'_>,
    partition: PartitionId,
    appended: Option<Timestamp>,
) -> String {
    let mut all = format!("{{\"{PARTITION}\":{partition}");
    if let Some(appended) = appended {
        all.push_str(&format!(",\"{APPENDED}\":\"{}\"", format_time(appended)));
    }
    match event.extensions.strip_prefix('{') {
        Some(own) if own != "}" => {
            all.push(',');
            all.push_str(own);
        }
        _ => all.push('}'),
    }
    all
}

/// Removes the attributes that an export has added, and checks that each event goes to the
/// partition from which it was exported.
pub(super) fn without_export_attributes(
    log: &dyn Log,
    events: &Events,
) -> Result<(Events, Vec<Timestamp>), Problem> {
    let (mut bare, mut times) = (Events::new(), Vec::with_capacity(events.len()));
    for event in events.iter() {
        let refused = |why: &str| {
            let detail = format!("event `{}` of `{}` {why}", event.id, event.source);
            Problem::new("LAN-0328", detail)
        };
        let (rest, partition) = take(event.extensions, PARTITION);
        let (rest, appended) = take(&rest, APPENDED);
        let appended = appended.as_deref().map(|text| text.trim_matches('"')).and_then(parse_time);
        let partition = partition.and_then(|number| number.parse().ok()).map(PartitionId);
        let (Some(appended), Some(partition)) = (appended, partition) else {
            return Err(refused("lacks the attributes that give its append time and partition"));
        };
        let event = Event { extensions: rest, ..event.to_owned() };
        if log.partition_of(&event.as_ref()) != Some(partition) {
            return Err(refused(
                "comes from another partition: the exported log had another number of partitions",
            ));
        }
        times.push(appended);
        bare.push(&event.as_ref());
    }
    Ok((bare, times))
}

/// Removes the member `name` from `object`, the extension attributes of an event as a server has
/// exported them. Returns the remaining JSON object, and the value of the member.
fn take(object: &str, name: &str) -> (String, Option<String>) {
    let key = format!("\"{name}\":");
    // This cannot match within a string: there, a backslash comes before each quote.
    let found = ["{", ","].iter().find_map(|before| object.find(&format!("{before}{key}")));
    let Some(start) = found.map(|at| at + 1) else { return (object.to_owned(), None) };
    let value = &object[start + key.len()..];
    // The value is a number, or a time in quotes. Neither contains a comma or a brace.
    let end = value.find([',', '}']).unwrap_or(value.len());
    let (before, after) = (&object[..start], &value[end..]);
    let rest = match after.strip_prefix(',') {
        Some(after) => format!("{before}{after}"),
        None => format!("{}{after}", before.strip_suffix(',').unwrap_or(before)),
    };
    (if rest == "{}" { String::new() } else { rest }, Some(value[..end].to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn export_attributes_are_removed_as_they_were_added() {
        for own in ["", r#"{"a":1}"#, r#"{"a":"x,\\"lanternpartition\\":9}","b":true}"#] {
            let event = Event { extensions: own.into(), ..Event::default() };
            let all = with_export_attributes(
                &event.as_ref(),
                PartitionId(3),
                Some(Timestamp(1_700_000_000_123_456)),
            );
            let (rest, partition) = take(&all, PARTITION);
            let (rest, appended) = take(&rest, APPENDED);
            assert_eq!(partition.as_deref(), Some("3"));
            assert_eq!(appended.as_deref(), Some("\"2023-11-14T22:13:20.123456Z\""));
            assert_eq!(rest, own);
        }
    }
}
