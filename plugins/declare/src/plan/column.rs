//! Represents the columns of a table in a plan.

use lantern_sdk::{Field, FieldKind, Merge, dynamic};

use crate::deserialize::Placed;
use crate::document::Kind;
use crate::expression::compile::{Node, Scope, kind_word};
use crate::expression::fields::Need;
use crate::expression::syntax::{ColumnText, Expr, ExprKind, Literal};
use crate::problem::{Place, Problem};
use crate::row::{ColumnLayout, Combining, Layout};

/// The percentiles that a sketch shows in a row.
const PERCENTILES: [i64; 5] = [50, 75, 90, 95, 99];
/// The names of the columns that `first` and `last` add.
const FIRST_AT: &str = "first_at";
const LAST_AT: &str = "last_at";

/// How events change a column.
pub(crate) struct Column {
    pub(crate) update: Update,
    /// A condition; the column changes only if it is true.
    pub(crate) filter: Option<Node>,
}

/// The rule by which a column changes.
pub(crate) enum Update {
    /// The first event of the row sets the column. The value depends only on the key.
    Once(Node),
    /// The column is set when the window of the row is known.
    OfWindow(Node),
    Count,
    Sum(Node),
    Min(Node),
    Max(Node),
    /// The column has the value of the event with the earliest time.
    First(Node),
    /// The column has the value of the event with the latest time.
    Last(Node),
    FirstAt,
    LastAt,
    Distinct(Node),
    Percentiles(Node),
}

/// How a column changes, and how the manifest declares the column.
type Planned = (Update, (FieldKind, Merge));

/// The columns of a table: how they change, how they are stored, and how the manifest declares
/// them.
pub(super) struct BuiltColumns {
    pub(super) columns: Vec<Column>,
    pub(super) layout: &'static Layout,
    pub(super) fields: Vec<Field>,
}

/// Calls `seen` with `expr` and with all expressions in it.
pub(super) fn visit<'a>(expr: &'a Expr, seen: &mut impl FnMut(&'a Expr)) {
    seen(expr);
    match &expr.kind {
        ExprKind::Literal(_) | ExprKind::Path(_) => {}
        ExprKind::Call { args, .. } => args.iter().for_each(|arg| visit(arg, seen)),
        ExprKind::Not(inner) | ExprKind::Negate(inner) => visit(inner, seen),
        ExprKind::Binary { left, right, .. } => {
            visit(left, seen);
            visit(right, seen);
        }
        ExprKind::In { item, list } => {
            visit(item, seen);
            list.iter().for_each(|value| visit(value, seen));
        }
    }
}

/// Adds the expressions of a column to `all`, each with the kind that its place needs.
pub(super) fn expressions<'a>(column: &'a ColumnText, all: &mut Vec<(&'a Expr, Need)>) {
    all.extend(column.filter.as_ref().map(|it| (it, Need::Of(Kind::Boolean))));
    match &column.value.kind {
        ExprKind::Call { name, args, .. } => {
            let need = match name.as_str() {
                "sum" | "percentile" | "percentiles" => Need::Of(Kind::Integer),
                "min" | "max" => Need::PerhapsInteger,
                "first" | "last" | "distinct" => Need::Any,
                _ => {
                    all.push((&column.value, Need::Any));
                    return;
                }
            };
            all.extend(args.first().map(|arg| (arg, need)));
        }
        _ => all.push((&column.value, Need::Any)),
    }
}

/// Collects the columns of a table.
pub(super) struct Columns<'a> {
    scope: Scope<'a>,
    keys: Vec<&'a Expr>,
    /// Whether all events of a row have the same subject, and are therefore in the same partition.
    by_subject: bool,
    per_tenant: bool,
    columns: Vec<Column>,
    layouts: Vec<ColumnLayout>,
    /// The places of the declared columns, by their names.
    places: Vec<(&'static str, Place)>,
    fields: Vec<Field>,
    /// The expressions whose percentiles are computed, with their columns.
    sketches: Vec<(&'a Expr, &'static str)>,
    needs_first: bool,
    needs_last: bool,
}

impl<'a> Columns<'a> {
    pub(super) fn new(
        scope: Scope<'a>,
        keys: Vec<&'a Expr>,
        by_subject: bool,
        per_tenant: bool,
    ) -> Self {
        Self {
            scope,
            keys,
            by_subject,
            per_tenant,
            columns: Vec::new(),
            layouts: Vec::new(),
            places: Vec::new(),
            fields: Vec::new(),
            sketches: Vec::new(),
            needs_first: false,
            needs_last: false,
        }
    }

    /// Adds a part of the key that has a name, and is therefore also a column.
    pub(super) fn add_key(&mut self, name: &str, node: Node, kind: Kind) {
        self.push(name, "", Update::Once(node), None, (field_kind(kind), Merge::Same));
    }

    /// Adds a declared column.
    pub(super) fn add(&mut self, name: &Placed, column: &'a ColumnText) -> Result<(), Problem> {
        self.check_free(&name.text, name.place)?;
        let filter = match &column.filter {
            Some(filter) => Some(self.scope.compile(filter, Kind::Boolean, "`where`")?),
            None => None,
        };
        let (update, declared) = match &column.value.kind {
            ExprKind::Call { name: function, args, name_place } => {
                match self.aggregate(function, args, *name_place, &column.value, column)? {
                    Some(aggregate) => aggregate,
                    None => self.of_key(column)?,
                }
            }
            _ => self.of_key(column)?,
        };
        if let (Update::Percentiles(_), ExprKind::Call { args, .. }) = (&update, &column.value.kind)
        {
            self.check_sketch(&args[0], &name.text, column)?;
        }
        self.push(&name.text, &column.unit, update, filter, declared);
        self.places.extend(self.layouts.last().map(|column| (column.name, name.place)));
        Ok(())
    }

    fn check_free(&self, name: &str, place: Place) -> Result<(), Problem> {
        match self.layouts.iter().find(|column| column.name == name) {
            Some(_) => Err(Problem::new(place, format!("the column `{name}` exists already"))
                .help("a named part of the key is also a column; rename one of them")),
            None => Ok(()),
        }
    }

    fn check_sketch(
        &mut self,
        value: &'a Expr,
        name: &str,
        column: &ColumnText,
    ) -> Result<(), Problem> {
        if column.filter.is_none() {
            if let Some((_, other)) = self.sketches.iter().find(|(it, _)| equal(it, value)) {
                let why = format!("the column `{other}` has these percentiles already");
                return Err(Problem::new(column.value.place, why).help(format!(
                    "one sketch shows p50, p75, p90, p95 and p99: remove `{name}` and read `{other}`"
                )));
            }
            self.sketches.push((value, dynamic::keep(name)));
        }
        Ok(())
    }

    fn push(
        &mut self,
        name: &str,
        unit: &str,
        update: Update,
        filter: Option<Node>,
        (kind, merge): (FieldKind, Merge),
    ) {
        let name = dynamic::keep(name);
        let combine = match &update {
            Update::First(_) => Combining::First,
            Update::Last(_) => Combining::Last,
            _ => match merge {
                Merge::Sum => Combining::Sum,
                Merge::Min => Combining::Min,
                Merge::Max => Combining::Max,
                Merge::Sketch => Combining::Sketch,
                Merge::Same | Merge::Newest => Combining::Same,
            },
        };
        let prefix = format!("\"{name}\":").into();
        self.layouts.push(ColumnLayout { name, prefix, kind, combine });
        self.fields.push(super::field(name, kind, dynamic::keep(unit), merge));
        self.columns.push(Column { update, filter });
    }

    /// Returns the aggregate that a call means; `None` if the call is not one of an aggregate.
    fn aggregate(
        &mut self,
        name: &str,
        args: &'a [Expr],
        name_place: Place,
        whole: &Expr,
        column: &ColumnText,
    ) -> Result<Option<Planned>, Problem> {
        let count = match name {
            "count" => 0,
            "sum" | "min" | "max" | "first" | "last" | "distinct" | "percentiles" => 1,
            "percentile" => 2,
            "avg" | "average" | "mean" => return Err(average(name, name_place, args)),
            _ => return Ok(None),
        };
        if args.len() != count {
            let usage = match count {
                0 => "count()` to count events, with `where` to count some: `count() where exists(data.x)".to_owned(),
                1 => format!("{name}(data.cents)"),
                _ => format!("{name}(data.latency_ms, 95)"),
            };
            let why = format!("`{name}` was called with {} values", args.len());
            return Err(Problem::new(whole.place, why).help(format!("write `{usage}`")));
        }
        let user = format!("`{name}`");
        let integer = FieldKind::Integer;
        Ok(Some(match name {
            "count" => (Update::Count, (integer, Merge::Sum)),
            "sum" => {
                let node = self.scope.compile(&args[0], Kind::Integer, &user)?;
                (Update::Sum(node), (integer, Merge::Sum))
            }
            "min" | "max" => {
                let (node, kind) = self.scope.check(&args[0])?;
                let kind = match kind {
                    Some(Kind::Boolean) | None => {
                        let why = format!("{user} cannot compare {}", kind_word(kind));
                        return Err(Problem::new(args[0].place, why)
                            .help("use an integer, a number, a text or a timestamp"));
                    }
                    Some(kind) => field_kind(kind),
                };
                match name {
                    "min" => (Update::Min(node), (kind, Merge::Min)),
                    _ => (Update::Max(node), (kind, Merge::Max)),
                }
            }
            "first" | "last" => self.first_or_last(name, &args[0], whole, column)?,
            "distinct" => {
                let (node, kind) = self.scope.check(&args[0])?;
                if matches!(kind, None | Some(Kind::Number)) {
                    let why = format!("{user} cannot count {}", kind_word(kind));
                    return Err(Problem::new(args[0].place, why)
                        .help("use a text or an integer, such as `round(…)`"));
                }
                (Update::Distinct(node), (FieldKind::Distinct, Merge::Sketch))
            }
            _ => {
                if let Some(percent) = args.get(1) {
                    check_percent(percent)?;
                }
                let node = self.scope.compile(&args[0], Kind::Integer, &user)?;
                (Update::Percentiles(node), (FieldKind::Percentiles, Merge::Sketch))
            }
        }))
    }

    fn first_or_last(
        &mut self,
        name: &str,
        arg: &Expr,
        whole: &Expr,
        column: &ColumnText,
    ) -> Result<Planned, Problem> {
        if let Some(filter) = &column.filter {
            return Err(Problem::new(
                filter.place,
                format!("`{name}` takes no `where` of its own"),
            )
            .help("all `first` and `last` of a row are of one event; put `where` into the table"));
        }
        let (node, kind) = self.scope.check(arg)?;
        let kind = field_kind(kind.unwrap_or(Kind::Text));
        if name == "last" {
            self.needs_last = true;
            return Ok((Update::Last(node), (kind, Merge::Newest)));
        }
        if !self.by_subject {
            return Err(Problem::new(whole.place, "`first` needs `subject` in the key").help(
                "the first values of several partitions cannot be merged; add `subject` to `key`, or use `last` or `min(time)`",
            ));
        }
        self.needs_first = true;
        Ok((Update::First(node), (kind, Merge::Same)))
    }

    /// Plans a column without an aggregate. Its value must be the same for all events of a row.
    fn of_key(&self, column: &'a ColumnText) -> Result<Planned, Problem> {
        let value = &column.value;
        if let Some(filter) = &column.filter {
            return Err(Problem::new(filter.place, "`where` belongs to an aggregate")
                .help("a column of the key has the same value for all events of a row"));
        }
        let (node, kind) = self.scope.check(value)?;
        let Some(kind) = kind else {
            return Err(Problem::new(value.place, "this column has no kind")
                .help("write an aggregate such as `count()`, or a part of the key"));
        };
        let windowed = uses_window(value);
        if let Some(other) = self.outside_key(value, windowed) {
            let name = match &other.kind {
                ExprKind::Path(path) => format!("`{}`", path.join(".")),
                _ => "this".to_owned(),
            };
            let problem = Problem::new(
                other.place,
                format!("{name} is not part of the key, so the events of a row may differ in it"),
            );
            return Err(if windowed {
                problem.help("a column of `window.start` or `window.end` uses nothing else")
            } else {
                problem.help(
                    "use an aggregate, such as `last(…)`, `max(…)` or `sum(…)`, or add it to `key`",
                )
            });
        }
        let update = if windowed { Update::OfWindow(node) } else { Update::Once(node) };
        Ok((update, (field_kind(kind), Merge::Same)))
    }

    /// Returns the first part of `expr` whose value the key does not determine.
    fn outside_key<'e>(&self, expr: &'e Expr, windowed: bool) -> Option<&'e Expr> {
        if !windowed && self.keys.iter().any(|key| equal(key, expr)) {
            return None;
        }
        match &expr.kind {
            ExprKind::Literal(_) => None,
            ExprKind::Path(path) => {
                let free = match path[0].as_str() {
                    "parameter" => true,
                    "window" => windowed,
                    "tenant" => self.per_tenant && !windowed,
                    _ => false,
                };
                (!free).then_some(expr)
            }
            ExprKind::Call { args, .. } => {
                args.iter().find_map(|arg| self.outside_key(arg, windowed))
            }
            ExprKind::Not(inner) | ExprKind::Negate(inner) => self.outside_key(inner, windowed),
            ExprKind::Binary { left, right, .. } => {
                self.outside_key(left, windowed).or_else(|| self.outside_key(right, windowed))
            }
            ExprKind::In { item, list } => self
                .outside_key(item, windowed)
                .or_else(|| list.iter().find_map(|value| self.outside_key(value, windowed))),
        }
    }

    /// Returns all columns, including those that `first` and `last` need.
    pub(super) fn finish(mut self) -> Result<BuiltColumns, Problem> {
        let mut at = [None, None];
        let added = [
            (self.needs_first, FIRST_AT, "first", Merge::Min),
            (self.needs_last, LAST_AT, "last", Merge::Max),
        ];
        for (index, (needed, name, aggregate, merge)) in added.into_iter().enumerate() {
            if !needed {
                continue;
            }
            let declared = self.places.iter().find(|(declared, _)| *declared == name);
            let place = declared.map_or(Place::default(), |(_, place)| *place);
            if self.check_free(name, place).is_err() {
                let why = format!("`{aggregate}` adds the column `{name}`, which exists already");
                return Err(Problem::new(place, why).help("rename the column of the declaration"));
            }
            at[index] = Some(self.columns.len());
            let update = if aggregate == "first" { Update::FirstAt } else { Update::LastAt };
            self.push(name, "", update, None, (FieldKind::Timestamp, merge));
        }
        let layout = Layout { columns: self.layouts, first_at: at[0], last_at: at[1] };
        Ok(BuiltColumns {
            columns: self.columns,
            layout: Box::leak(Box::new(layout)),
            fields: self.fields,
        })
    }
}

fn average(name: &str, place: Place, args: &[Expr]) -> Problem {
    let value = match args.first().map(|arg| &arg.kind) {
        Some(ExprKind::Path(path)) => path.join("."),
        _ => "…".to_owned(),
    };
    Problem::new(
        place,
        format!("there is no `{name}`: the averages of two partitions have no average"),
    )
    .help(format!(
        "use two columns, `total: sum({value})` and `events: count()`; readers divide them"
    ))
}

fn check_percent(expr: &Expr) -> Result<(), Problem> {
    if let ExprKind::Literal(Literal::Integer(percent)) = &expr.kind
        && PERCENTILES.contains(percent)
    {
        return Ok(());
    }
    Err(Problem::new(expr.place, "the percentile must be 50, 75, 90, 95 or 99")
        .help("a column shows all of these; write `percentile(data.latency_ms, 95)`"))
}

fn uses_window(expr: &Expr) -> bool {
    let mut found = false;
    visit(expr, &mut |it| {
        found |= matches!(&it.kind, ExprKind::Path(path) if path[0] == "window");
    });
    found
}

/// Returns whether two expressions are the same, regardless of their places.
fn equal(a: &Expr, b: &Expr) -> bool {
    let all =
        |a: &[Expr], b: &[Expr]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b));
    match (&a.kind, &b.kind) {
        (ExprKind::Literal(a), ExprKind::Literal(b)) => a == b,
        (ExprKind::Path(a), ExprKind::Path(b)) => a == b,
        (
            ExprKind::Call { name: a, args: of_a, .. },
            ExprKind::Call { name: b, args: of_b, .. },
        ) => a == b && all(of_a, of_b),
        (ExprKind::Not(a), ExprKind::Not(b)) | (ExprKind::Negate(a), ExprKind::Negate(b)) => {
            equal(a, b)
        }
        (
            ExprKind::Binary { operator: a, left: la, right: ra },
            ExprKind::Binary { operator: b, left: lb, right: rb },
        ) => a == b && equal(la, lb) && equal(ra, rb),
        (ExprKind::In { item: a, list: la }, ExprKind::In { item: b, list: lb }) => {
            equal(a, b) && all(la, lb)
        }
        _ => false,
    }
}

fn field_kind(kind: Kind) -> FieldKind {
    match kind {
        Kind::Integer => FieldKind::Integer,
        Kind::Number => FieldKind::Number,
        Kind::Text => FieldKind::Text,
        Kind::Boolean => FieldKind::Boolean,
        Kind::Timestamp => FieldKind::Timestamp,
    }
}
