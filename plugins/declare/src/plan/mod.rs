//! Converts a declaration to the manifest and a plan for each table. Events are folded by these
//! plans.
//!
//! All mistakes in a declaration are found here, in `setup`.

mod column;
mod names;
mod parameters;
mod window;

use std::time::Duration;

use lantern_sdk::{Attribute, Field, FieldKind, Manifest, Member, Merge, OnFailure};

pub(crate) use column::{Column, Update};
pub(crate) use names::duration;
pub(crate) use window::WindowPlan;

use crate::document::{self, Declaration, Kind, TableDeclaration};
use crate::expression::compile::{Node, Scope};
use crate::expression::evaluate::Value;
use crate::expression::fields::{Fields, Need, Root};
use crate::expression::syntax::{self, ColumnText, Expr, ExprKind};
use crate::problem::{Place, Problem};
use crate::row::Layout;

/// The maximum number of tables in a declaration. Together with their private tables and the table
/// of late events, there are fewer than the host allows.
const TABLES_MAX: usize = 30;
/// The maximum number of columns in a table. It is lower than the host's limit.
const COLUMNS_MAX: usize = 200;
/// The name of the table that counts late events.
pub(crate) const LATE: &str = "late";

/// What is done for each event.
pub(crate) struct Plan {
    pub(crate) manifest: Manifest,
    pub(crate) filter: Option<Node>,
    pub(crate) tables: Vec<TablePlan>,
}

/// What is done for each event in one table.
pub(crate) struct TablePlan {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) filter: Option<Node>,
    pub(crate) key: Vec<KeyPart>,
    pub(crate) per_tenant: bool,
    pub(crate) window: WindowPlan,
    pub(crate) columns: Vec<Column>,
    pub(crate) layout: &'static Layout,
    pub(crate) fields: Vec<Field>,
    pub(crate) newest_by: Option<&'static str>,
    pub(crate) retention_us: Option<u64>,
}

/// A part of a key.
pub(crate) struct KeyPart {
    pub(crate) node: Node,
    /// The expression as text, for errors.
    pub(crate) text: String,
}

/// The expressions of a table, before their kinds are known.
struct TableText<'a> {
    name: &'a crate::deserialize::Placed,
    declaration: &'a TableDeclaration,
    filter: Option<Expr>,
    key: Vec<(Option<&'a str>, Expr)>,
    columns: Vec<(&'a crate::deserialize::Placed, ColumnText)>,
}

impl Plan {
    /// Creates the plan of a declaration. `source` is its text, and `parameters` are those of the
    /// version.
    ///
    /// # Errors
    /// Returns the first mistake in the declaration or in the parameters.
    pub(crate) fn new(
        declaration: &Declaration,
        source: &str,
        given: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<Self, Problem> {
        names::check_projection(&declaration.name)?;
        names::check_types(&declaration.from.0, declaration.name.place)?;
        let parameters = parameters::values(&declaration.parameters, given)?;
        let filter = optional(declaration.r#where.as_ref(), source)?;
        let tables = read_tables(declaration, source)?;

        let kinds = parameters.iter().map(|(name, kind, _)| (name.clone(), *kind));
        let mut fields = Fields::new(kinds);
        for (name, kind) in &declaration.fields.0 {
            let path = match syntax::expression(name, source)?.kind {
                ExprKind::Path(path) if is_field_path(&path) => path,
                _ => {
                    let why = format!("`{}` is not a field of events", name.text);
                    return Err(Problem::new(name.place, why)
                        .help("write for example `data.price: number`"));
                }
            };
            fields.state(&path, *kind, name.place);
        }
        infer(&mut fields, filter.as_ref(), &tables);
        if let Some((field, place)) = fields.unused().next() {
            let why = format!("no expression uses `{}`", field.text());
            let used = fields.iter().map(|field| field.text()).collect::<Vec<_>>();
            let used = used.iter().map(String::as_str).filter(|it| *it != field.text());
            return Err(Problem::new(place, why).suggest(&field.text(), used, "the fields are"));
        }
        let members = fields.members()?;

        let scope = Scope { fields: &fields, parameters: &parameters, window: false };
        let compiled =
            filter.as_ref().map(|filter| scope.compile(filter, Kind::Boolean, "`where`"));
        let filter_node = compiled.transpose()?;
        let plans = tables
            .iter()
            .map(|table| table_plan(table, &fields, &parameters))
            .collect::<Result<Vec<_>, _>>()?;
        let attributes = attributes(filter.as_ref(), &tables, &fields);
        let manifest = manifest(declaration, &plans, &members, attributes)?;
        Ok(Self { manifest, filter: filter_node, tables: plans })
    }

    /// Returns whether a table has windows that are written at their end, so that events may be
    /// late.
    pub(crate) fn has_late_events(&self) -> bool {
        self.tables.iter().any(|table| table.window.needs_timers())
    }
}

fn is_field_path(path: &[String]) -> bool {
    path.len() > 1 && matches!(path[0].as_str(), "data" | "extension")
}

fn optional(
    text: Option<&crate::deserialize::Placed>,
    source: &str,
) -> Result<Option<Expr>, Problem> {
    text.map(|text| syntax::expression(text, source)).transpose()
}

fn read_tables<'a>(
    declaration: &'a Declaration,
    source: &str,
) -> Result<Vec<TableText<'a>>, Problem> {
    let tables = &declaration.tables.0;
    if tables.is_empty() || tables.len() > TABLES_MAX {
        let why = format!("a declaration has 1 to {TABLES_MAX} tables, not {}", tables.len());
        return Err(Problem::new(declaration.name.place, why));
    }
    let mut read = Vec::new();
    for (name, table) in tables {
        names::check_table(name)?;
        let mut columns = Vec::new();
        for (column, text) in &table.columns.0 {
            names::check_column(column)?;
            columns.push((column, syntax::column(text, source)?));
        }
        if columns.is_empty() || columns.len() > COLUMNS_MAX {
            let why = format!(
                "table `{}` has {} columns; 1 to {COLUMNS_MAX} are allowed",
                name.text,
                columns.len()
            );
            return Err(Problem::new(name.place, why).help("add for example `events: count()`"));
        }
        let mut key = Vec::new();
        for (part, text) in &table.key.0 {
            if let Some(part) = part {
                names::check_column(part)?;
            }
            key.push((part.as_ref().map(|it| it.text.as_str()), syntax::expression(text, source)?));
        }
        read.push(TableText {
            name,
            declaration: table,
            filter: optional(table.r#where.as_ref(), source)?,
            key,
            columns,
        });
    }
    let late = tables.iter().find(|(name, _)| name.text == LATE);
    let timers = tables.iter().any(|(_, table)| {
        table.window.as_ref().is_some_and(|window| {
            window.session.is_some() || window.emit == Some(document::Emit::Final)
        })
    });
    match late {
        Some((name, _)) if timers => Err(Problem::new(
            name.place,
            "the table `late` counts the late events of final windows and sessions",
        )
        .help("choose another name")),
        _ => Ok(read),
    }
}

/// Determines the kinds of all fields.
fn infer(fields: &mut Fields, filter: Option<&Expr>, tables: &[TableText<'_>]) {
    let boolean = Need::Of(Kind::Boolean);
    let mut expressions: Vec<(&Expr, Need)> = Vec::new();
    expressions.extend(filter.map(|it| (it, boolean)));
    for table in tables {
        expressions.extend(table.filter.as_ref().map(|it| (it, boolean)));
        for (_, column) in &table.columns {
            column::expressions(column, &mut expressions);
        }
        expressions.extend(table.key.iter().map(|(_, part)| (part, Need::Any)));
    }
    fields.infer(&expressions);
}

fn table_plan(
    table: &TableText<'_>,
    fields: &Fields,
    parameters: &[(String, Kind, crate::expression::compile::Constant)],
) -> Result<TablePlan, Problem> {
    let declaration = table.declaration;
    let window = window::plan(declaration.window.as_ref(), table.name.place)?;
    let scope = Scope { fields, parameters, window: !matches!(window, WindowPlan::None) };
    let without_window = Scope { fields, parameters, window: false };
    let filter = table
        .filter
        .as_ref()
        .map(|filter| without_window.compile(filter, Kind::Boolean, "`where`"))
        .transpose()?;
    let mut key = Vec::new();
    let mut named = Vec::new();
    for (name, expr) in &table.key {
        let (node, kind) = without_window.check(expr)?;
        if matches!(kind, None | Some(Kind::Number)) {
            let is = crate::expression::compile::kind_word(kind);
            return Err(Problem::new(expr.place, format!("a part of a key cannot be {is}"))
                .help("use an integer, such as `round(…)` or `scaled(…, 2)`, or a text"));
        }
        if let Some(name) = name {
            let (node, _) = without_window.check(expr)?;
            named.push((*name, node, kind.unwrap_or(Kind::Text)));
        }
        key.push(KeyPart { node, text: describe(expr) });
    }
    let by_subject = table
        .key
        .iter()
        .any(|(_, expr)| matches!(&expr.kind, ExprKind::Path(path) if path[..] == ["subject"]));
    if let (WindowPlan::Sessions { .. }, false) = (&window, by_subject) {
        let place = declaration.window.as_ref().and_then(|it| it.session.as_ref());
        let place = place.map_or(Place::default(), |it| it.place);
        return Err(Problem::new(place, "sessions need `subject` in the key")
            .help("only the events of one subject are sure to be in one partition; add `subject` to `key`"));
    }
    let keys = table.key.iter().map(|(_, expr)| expr).collect();
    let mut builder = column::Columns::new(scope, keys, by_subject, declaration.per_tenant);
    for (name, node, kind) in named {
        builder.add_key(name, node, kind);
    }
    for (name, column) in &table.columns {
        builder.add(name, column)?;
    }
    let built = builder.finish()?;
    let retention = declaration.retention.as_ref().map(duration).transpose()?;
    Ok(TablePlan {
        name: table.name.text.clone(),
        description: declaration.description.as_ref().map_or(String::new(), |it| it.text.clone()),
        filter,
        key,
        per_tenant: declaration.per_tenant,
        window,
        columns: built.columns,
        newest_by: built.layout.last_at.map(|at| built.layout.columns[at].name),
        layout: built.layout,
        fields: built.fields,
        retention_us: retention.map(|it| it.as_micros() as u64),
    })
}

/// Returns the expression as text, for errors while events are folded.
fn describe(expr: &Expr) -> String {
    match &expr.kind {
        ExprKind::Path(path) => path.join("."),
        ExprKind::Call { name, .. } => format!("{name}(…)"),
        _ => "expression".to_owned(),
    }
}

/// Returns the attributes of events that the expressions read.
fn attributes(filter: Option<&Expr>, tables: &[TableText<'_>], fields: &Fields) -> Vec<Attribute> {
    let mut names: Vec<&str> = Vec::new();
    let mut visit = |expr: &Expr| {
        column::visit(expr, &mut |expr| {
            if let ExprKind::Path(path) = &expr.kind
                && let [name] = &path[..]
            {
                let known = ["id", "source", "subject", "tenant", "dataschema", "datacontenttype"];
                names.extend(known.iter().filter(|it| **it == name));
            }
        })
    };
    if let Some(filter) = filter {
        visit(filter);
    }
    for table in tables {
        table.filter.iter().for_each(&mut visit);
        table.key.iter().for_each(|(_, part)| visit(part));
        for (_, column) in &table.columns {
            visit(&column.value);
            column.filter.iter().for_each(&mut visit);
        }
    }
    let all = [
        ("id", Attribute::Id),
        ("source", Attribute::Source),
        ("subject", Attribute::Subject),
        ("tenant", Attribute::Tenant),
        ("dataschema", Attribute::Dataschema),
        ("datacontenttype", Attribute::Datacontenttype),
    ];
    let mut attributes: Vec<Attribute> =
        all.iter().filter(|(name, _)| names.contains(name)).map(|(_, it)| *it).collect();
    if tables.iter().any(|table| table.declaration.per_tenant) && !names.contains(&"tenant") {
        attributes.push(Attribute::Tenant);
    }
    if fields.iter().any(|field| field.root == Root::Extension) {
        attributes.push(Attribute::Extensions);
    }
    attributes
}

fn manifest(
    declaration: &Declaration,
    tables: &[TablePlan],
    members: &[Member],
    attributes: Vec<Attribute>,
) -> Result<Manifest, Problem> {
    let text = |text: &Option<crate::deserialize::Placed>, or: &str| match text {
        Some(text) => text.text.clone(),
        None => or.to_owned(),
    };
    let mut manifest = Manifest::new(
        &declaration.name.text,
        text(&declaration.version, "0.1.0"),
        text(&declaration.description, "A declaration"),
    )
    .subscribe(declaration.from.0.iter().map(|it| it.text.clone()))
    .attributes(attributes)
    .without_data()
    .parameters(parameters::schema(&declaration.parameters))
    .on_failure(match declaration.on_failure {
        None | Some(document::OnFailure::ParkEvent) => OnFailure::ParkEvent,
        Some(document::OnFailure::ParkSubject) => OnFailure::ParkSubject,
        Some(document::OnFailure::Halt) => OnFailure::Halt,
    });
    for member in members {
        manifest = manifest.member(*member);
    }
    let timed = tables.iter().filter(|table| table.window.needs_timers());
    let windows: Vec<_> = timed.map(|table| &table.window).collect();
    let stated = declaration.tick.as_ref().map(|tick| Ok((duration(tick)?, tick.place)));
    let stated = stated.transpose()?;
    let Some(shortest) = windows.iter().map(|it| it.length()).min() else {
        return match stated {
            Some((_, place)) => Err(Problem::new(place, "no table has windows that need a tick")
                .help("remove `tick`; it is for `emit: final` and for sessions")),
            None => Ok(manifest),
        };
    };
    let lateness = windows.iter().map(|it| it.lateness()).max().unwrap_or_default();
    let tick = match stated {
        Some((tick, _)) => tick,
        None => (shortest / 60).clamp(Duration::from_secs(1), Duration::from_secs(60)),
    };
    Ok(manifest.event_time(lateness, tick))
}

impl KeyPart {
    /// Returns the error for an event that has no value for this part of the key.
    pub(crate) fn missing(&self) -> String {
        let Self { text, .. } = self;
        format!(
            "the key's part `{text}` has no value; leave such events out with `where: exists({text})`, or use `default({text}, \"none\")`"
        )
    }

    /// Appends a value as text to `out`.
    pub(crate) fn write(value: &Value<'_>, escaped: bool, out: &mut String) {
        use lantern_sdk::Key as _;
        match value {
            Value::Text(text) if escaped => text.write_part(out),
            Value::Text(text) => out.push_str(text),
            Value::Integer(value) => out.push_str(&value.to_string()),
            Value::Boolean(value) => out.push_str(if *value { "true" } else { "false" }),
            Value::Timestamp(value) => value.write(out),
            Value::Number(_) | Value::Null => {}
        }
    }
}

/// Returns the declaration of the field in the manifest.
pub(crate) fn field(
    name: &'static str,
    kind: FieldKind,
    unit: &'static str,
    merge: Merge,
) -> Field {
    Field { name, kind, unit, merge }
}
