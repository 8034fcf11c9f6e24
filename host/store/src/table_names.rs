//! Lists the names of the redb tables in the file of a shard. They are part of the file's format.

use std::borrow::Cow;

use lantern_core::{Space, TableId};

/// Returns the redb table that holds `space`.
pub(crate) fn table_name(space: Space) -> Cow<'static, str> {
    match space {
        Space::Meta => "meta".into(),
        Space::Table(table) => format!("table/{table}").into(),
        Space::TimersByTime => "timers/by-time".into(),
        Space::TimersByKey => "timers/by-key".into(),
        Space::Parked => "parked".into(),
        Space::ParkedSubjects => "parked/subjects".into(),
        Space::Outbox => "outbox".into(),
        Space::Changes => "changes".into(),
        Space::Expiry => "expiry".into(),
    }
}

/// Returns the space that the redb table `name` contains; `None` if the table contains something
/// else.
pub(crate) fn space_of(name: &str) -> Option<Space> {
    let named = match name {
        "meta" => Space::Meta,
        "timers/by-time" => Space::TimersByTime,
        "timers/by-key" => Space::TimersByKey,
        "parked" => Space::Parked,
        "parked/subjects" => Space::ParkedSubjects,
        "outbox" => Space::Outbox,
        "changes" => Space::Changes,
        "expiry" => Space::Expiry,
        _ => Space::Table(TableId(name.strip_prefix("table/")?.parse().ok()?)),
    };
    Some(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_space_has_a_name_of_its_own() {
        let spaces = [
            Space::Meta,
            Space::Table(TableId(0)),
            Space::Table(TableId(u32::MAX)),
            Space::TimersByTime,
            Space::TimersByKey,
            Space::Parked,
            Space::ParkedSubjects,
            Space::Outbox,
            Space::Changes,
            Space::Expiry,
        ];
        for space in spaces {
            assert_eq!(space_of(&table_name(space)), Some(space));
        }
        for foreign in ["lantern", "table/", "table/x", "table/-1", ""] {
            assert_eq!(space_of(foreign), None, "{foreign}");
        }
    }
}
