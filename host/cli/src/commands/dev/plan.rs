//! Determines what a new version changes for the readers of a projection's tables.

use lantern_api::{TableShape, TableStatus};

/// The differences between the public tables of two versions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The changes that readers of the old version do not notice.
    pub(super) compatible: Vec<String>,
    /// The changes after which a client of the old version may fail.
    pub(super) breaking: Vec<String>,
}

impl Plan {
    /// Compares `old` with `new`.
    pub(super) fn compare(old: &[TableStatus], new: &[TableStatus]) -> Self {
        let mut plan = Self::default();
        for table in public(new) {
            match find(old, &table.name) {
                None => plan.compatible.push(format!("+ table {}", table.name)),
                Some(before) => plan.compare_fields(before, table),
            }
        }
        for table in public(old).filter(|table| find(new, &table.name).is_none()) {
            plan.breaking.push(format!("- table {}", table.name));
        }
        plan
    }

    fn compare_fields(&mut self, old: &TableStatus, new: &TableStatus) {
        let name = &new.name;
        // The feed compares tables with the shapes of clients in the same way.
        for change in TableShape::of_table(old).changes(&TableShape::of_table(new)) {
            let of = match &change.field {
                Some(field) => format!("field {name}.{field}"),
                None => format!("key of table {name}"),
            };
            let line = match (&change.before, &change.after) {
                (Some(before), Some(after)) => format!("~ {of}: {before} becomes {after}"),
                (Some(gone), None) => format!("- {of}: {gone}"),
                (None, added) => format!("+ {of}: {}", added.as_deref().unwrap_or_default()),
            };
            let list = if change.is_breaking() { &mut self.breaking } else { &mut self.compatible };
            list.push(line);
        }
    }
}

fn public(tables: &[TableStatus]) -> impl Iterator<Item = &TableStatus> {
    tables.iter().filter(|table| table.public)
}

fn find<'a>(tables: &'a [TableStatus], name: &str) -> Option<&'a TableStatus> {
    public(tables).find(|table| table.name == name)
}

#[cfg(test)]
mod tests {
    use lantern_api::FieldStatus;

    use super::*;

    fn table(name: &str, fields: &[(&str, &str, &str)]) -> TableStatus {
        let fields = fields.iter().map(|(name, kind, unit)| FieldStatus {
            name: (*name).into(),
            kind: (*kind).into(),
            unit: (*unit).into(),
        });
        TableStatus {
            name: name.into(),
            description: String::new(),
            public: true,
            per_tenant: false,
            fields: fields.collect(),
        }
    }

    #[test]
    fn added_tables_and_fields_break_no_client() {
        let old = [table("by_minute", &[("orders", "integer", "")])];
        let new = [
            table("by_minute", &[("orders", "integer", ""), ("cents", "integer", "EUR")]),
            table("by_hour", &[]),
        ];
        let plan = Plan::compare(&old, &new);
        assert_eq!(plan.compatible, ["+ field by_minute.cents: integer (EUR)", "+ table by_hour"]);
        assert!(plan.breaking.is_empty());
        assert_eq!(Plan::compare(&new, &new), Plan::default());
    }

    #[test]
    fn fields_that_go_or_mean_something_else_break_clients() {
        let old = [
            table("a", &[("x", "integer", ""), ("y", "text", ""), ("z", "number", "ms")]),
            table("b", &[]),
        ];
        let new = [table("a", &[("y", "integer", ""), ("z", "number", "s")])];
        assert_eq!(
            Plan::compare(&old, &new).breaking,
            [
                "- field a.x: integer",
                "~ field a.y: text becomes integer",
                "~ field a.z: number (ms) becomes number (s)",
                "- table b",
            ]
        );
    }

    #[test]
    fn other_parts_of_the_key_break_clients() {
        let old = table("a", &[("x", "integer", "")]);
        let new = TableStatus { per_tenant: true, ..old.clone() };
        let plan = Plan::compare(&[old], &[new]);
        assert_eq!(plan.breaking, ["~ key of table a: key becomes tenant, key"]);
    }

    #[test]
    fn private_tables_have_no_readers() {
        let mut private = table("state", &[]);
        private.public = false;
        assert_eq!(Plan::compare(&[private.clone()], &[]), Plan::default());
        assert_eq!(Plan::compare(&[], &[private]), Plan::default());
    }
}
