//! Implements the interpreter for projections without code. It folds events by a declaration in
//! YAML or JSON.
//!
//! `docs/guide/declarations.md` describes declarations. In `setup`, this plugin reads its
//! declaration, checks it completely, and converts it to a plan. In the plan, names become indexes,
//! fields become typed columns that the host decodes, and an expression becomes a tree in which the
//! kind of each value is known. So no name is looked up while events are folded.
#![forbid(unsafe_code)]

mod deserialize;
mod document;
mod expression;
mod nested;
mod plan;
mod problem;
mod row;
mod table;
mod yaml;

#[cfg(test)]
mod tests;

use lantern_sdk::dynamic::{FlushError, TableField as _, TableSpec, declare};
use lantern_sdk::prelude::*;
use lantern_sdk::{CACHE_ROWS, FieldKind, Merge, Source, Tables};
use serde_json::{Map, Value};

use crate::expression::compile::Node;
use crate::expression::evaluate::Input;
use crate::plan::{LATE, Plan};
use crate::problem::Problem;
use crate::table::DeclaredTable;

/// The maximum length of a declaration, in bytes.
const SOURCE_BYTES_MAX: usize = 1 << 20;

/// A projection that a declaration describes.
#[derive(Default)]
pub struct Declare {
    filter: Option<Node>,
    tables: Vec<DeclaredTable>,
    late: Option<Table<LateEvents>>,
    late_spec: Option<&'static TableSpec>,
}

/// A row of the table that counts events which arrived after their window was written.
#[derive(Row, Default)]
struct LateEvents {
    #[row(merge = sum)]
    events: u64,
}

impl Tables for Declare {
    const SPECS: &'static [TableSpec] = &[];

    fn specs(&self) -> Vec<&'static TableSpec> {
        let specs = self.tables.iter().flat_map(|table| table.specs().iter().copied());
        specs.chain(self.late_spec).collect()
    }

    fn open() -> Self {
        Self::default()
    }

    fn flush(&mut self) -> Result<(), FlushError> {
        self.tables.iter_mut().try_for_each(DeclaredTable::flush)?;
        self.late.as_mut().map_or(Ok(()), |late| late.flush())
    }

    fn check(&mut self) -> Result<(), Error> {
        // The value was checked when it was set.
        Ok(())
    }
}

impl Projection for Declare {
    fn setup(&mut self, parameters: &Parameters<'_>) -> Result<Manifest, Error> {
        let version = Version::read(parameters.json())?;
        let plan = plan_of(&version).map_err(|problem| {
            Error::new(problem.render(&version.source.name, &version.source.text))
        })?;
        let has_late_events = plan.has_late_events();
        let Plan { manifest, filter, tables } = plan;
        self.filter = filter;
        for plan in tables {
            let id = self.specs().len() as u32;
            self.tables.push(DeclaredTable::open(plan, id));
        }
        if has_late_events {
            let spec = declare(late_spec(self.specs().len() as u32));
            self.late = Some(Table::open(spec));
            self.late_spec = Some(spec);
        }
        Ok(manifest)
    }

    fn prepare(&mut self, events: Events<'_>) -> Result<(), Error> {
        let Self { tables, filter, .. } = self;
        tables.iter_mut().try_for_each(|table| table.prefetch(events.clone(), filter.as_ref()))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let input = Input { event: Some(event), window: None };
        if let Some(filter) = &self.filter
            && !filter.evaluate(input)?.is_true()
        {
            return Ok(());
        }
        for table in &mut self.tables {
            let late = table.apply(event)?;
            if late > 0
                && let Some(counts) = &mut self.late
            {
                let row = counts.row(table.name())?;
                row.events = row.events.saturating_add(late as u64);
            }
        }
        Ok(())
    }

    fn on_timer(&mut self, timer: &Timer<'_>) -> Result<(), Error> {
        self.tables.iter_mut().try_for_each(|table| table.close(timer))
    }
}

fn late_spec(id: u32) -> TableSpec {
    const FIELDS: &[lantern_sdk::Field] = &[lantern_sdk::Field {
        name: "events",
        kind: FieldKind::Integer,
        unit: "",
        merge: Merge::Sum,
    }];
    TableSpec {
        id,
        name: LATE,
        description: "Events that came after their window was written, by table",
        public: true,
        per_tenant: false,
        fields: FIELDS,
        newest_by: None,
        retention_us: None,
        cache_rows: CACHE_ROWS,
    }
}

/// What defines a version: the declaration, the name of its file, and the parameters.
struct Version {
    source: Source,
    parameters: Map<String, Value>,
}

impl Version {
    fn read(json: &str) -> Result<Self, Error> {
        let json = if json.is_empty() { "{}" } else { json };
        let parameters = serde_json::from_str(json).map_err(|error| {
            Error::new(format!("the parameters are not a JSON object: {error}"))
        })?;
        let source = lantern_sdk::source();
        if source.text.is_empty() && source.name.is_empty() {
            return Err(Error::new(
                "no declaration was given; push a file: `lantern plugin push revenue.yaml`",
            ));
        }
        Ok(Self { source, parameters })
    }
}

fn plan_of(version: &Version) -> Result<Plan, Problem> {
    let Version { source: Source { text, .. }, parameters } = version;
    if text.len() > SOURCE_BYTES_MAX {
        let why = format!("the declaration has more than {SOURCE_BYTES_MAX} bytes");
        return Err(Problem { place: None, message: why, help: None });
    }
    let declaration = document::read(text)?;
    Plan::new(&declaration, text, parameters)
}

lantern_sdk::export!(Declare);
