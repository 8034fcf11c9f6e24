//! Determines what a new version changes for the readers of a projection's tables.

use lantern_api::{FieldStatus, TableStatus};

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
        if old.per_tenant != new.per_tenant {
            let is = if new.per_tenant { "now has" } else { "no longer has" };
            self.breaking.push(format!("~ table {name} {is} a tenant in its keys"));
        }
        for field in &new.fields {
            match old.fields.iter().find(|before| before.name == field.name) {
                None => self.compatible.push(format!("+ field {name}.{}", described(field))),
                Some(before) if before.kind != field.kind => self.breaking.push(format!(
                    "~ field {name}.{}: {} becomes {}",
                    field.name, before.kind, field.kind
                )),
                Some(before) if before.unit != field.unit => self.breaking.push(format!(
                    "~ field {name}.{}: its unit `{}` becomes `{}`",
                    field.name, before.unit, field.unit
                )),
                Some(_) => {}
            }
        }
        let gone = |before: &&FieldStatus| new.fields.iter().all(|field| field.name != before.name);
        for field in old.fields.iter().filter(gone) {
            self.breaking.push(format!("- field {name}.{}", described(field)));
        }
    }
}

fn described(field: &FieldStatus) -> String {
    match field.unit.as_str() {
        "" => format!("{} ({})", field.name, field.kind),
        unit => format!("{} ({}, {unit})", field.name, field.kind),
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
        assert_eq!(plan.compatible, ["+ field by_minute.cents (integer, EUR)", "+ table by_hour"]);
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
                "~ field a.y: text becomes integer",
                "~ field a.z: its unit `ms` becomes `s`",
                "- field a.x (integer)",
                "- table b",
            ]
        );
    }

    #[test]
    fn private_tables_have_no_readers() {
        let mut private = table("state", &[]);
        private.public = false;
        assert_eq!(Plan::compare(&[private.clone()], &[]), Plan::default());
        assert_eq!(Plan::compare(&[], &[private]), Plan::default());
    }
}
