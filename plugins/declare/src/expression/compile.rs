//! Checks the kinds of an expression, and builds the tree that is evaluated for events.

use std::cell::Cell;

use lantern_sdk::Timestamp;
use lantern_sdk::window::Window;
use lantern_sdk::zone::TimeZone;

use super::fields::{Fields, Root};
use super::functions::{FUNCTIONS, Function, Parameter, Returns, Signature, find};
use super::syntax::{Expr, ExprKind, Literal, Operator};
use crate::document::Kind;
use crate::problem::Problem;

/// An attribute of events that expressions can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventAttribute {
    Type,
    Id,
    Source,
    Subject,
    Tenant,
    Dataschema,
    Datacontenttype,
}

/// The names that attributes have in expressions. `time` is such a name too.
const ATTRIBUTES: [(&str, EventAttribute); 7] = [
    ("type", EventAttribute::Type),
    ("id", EventAttribute::Id),
    ("source", EventAttribute::Source),
    ("subject", EventAttribute::Subject),
    ("tenant", EventAttribute::Tenant),
    ("dataschema", EventAttribute::Dataschema),
    ("datacontenttype", EventAttribute::Datacontenttype),
];

/// The names of aggregates. They are not functions.
pub(crate) const AGGREGATES: [&str; 10] =
    ["count", "sum", "min", "max", "first", "last", "distinct", "percentile", "percentiles", "avg"];

/// A value that is already known in `setup`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Constant {
    Null,
    Boolean(bool),
    Integer(i64),
    Number(f64),
    Text(Box<str>),
    Timestamp(Timestamp),
}

/// A checked expression. All names are resolved, and the kind of every operand is the
/// one that its operator needs.
#[derive(Debug)]
pub(crate) enum Node {
    Constant(Constant),
    Time,
    Attribute(EventAttribute),
    /// A member of the data. Contains its index in the manifest.
    Member {
        index: usize,
        field: Box<FieldInfo>,
    },
    /// A member of a JSON member of the data or, if `index` is `None`, of the extensions.
    Nested {
        index: Option<usize>,
        path: Box<[Box<str>]>,
        field: Box<FieldInfo>,
    },
    WindowStart,
    WindowEnd,
    ToNumber(Box<Node>),
    Not(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    NegateInteger(Box<Node>),
    NegateNumber(Box<Node>),
    Integers(Operator, Box<Node>, Box<Node>),
    Numbers(Operator, Box<Node>, Box<Node>),
    Compare(Operator, Box<Node>, Box<Node>),
    In(Box<Node>, Box<[Node]>),
    Call(Function, Box<[Node]>),
    /// A function of a time and a time zone. `last` contains the period of the last event, because
    /// most events are in the same period as the event before.
    Period {
        function: Function,
        zone: TimeZone,
        time: Box<Node>,
        last: Cell<Window>,
    },
}

/// What an error says about a field.
#[derive(Debug)]
pub(crate) struct FieldInfo {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Whether neither an expression nor the declaration has determined the kind of the field.
    pub(crate) open: bool,
}

/// The kind of an expression; `None` for `null`.
pub(crate) type NodeKind = Option<Kind>;

/// The names that an expression can use, with what they mean.
pub(crate) struct Scope<'a> {
    pub(crate) fields: &'a Fields,
    pub(crate) parameters: &'a [(String, Kind, Constant)],
    /// Whether the expression can use `window.start` and `window.end`.
    pub(crate) window: bool,
}

/// Returns the name of a kind, for people.
pub(crate) fn kind_word(kind: NodeKind) -> &'static str {
    match kind {
        None => "null",
        Some(Kind::Integer) => "an integer",
        Some(Kind::Number) => "a number",
        Some(Kind::Text) => "a text",
        Some(Kind::Boolean) => "a boolean",
        Some(Kind::Timestamp) => "a timestamp",
    }
}

impl Scope<'_> {
    /// Checks an expression, which must have the kind `wanted`. `user` describes what needs this
    /// kind.
    pub(crate) fn compile(&self, expr: &Expr, wanted: Kind, user: &str) -> Result<Node, Problem> {
        let (node, kind) = self.check(expr)?;
        self.convert(expr, node, kind, wanted, user)
    }

    /// Converts `node` to a value of the kind `wanted`.
    pub(crate) fn convert(
        &self,
        expr: &Expr,
        node: Node,
        kind: NodeKind,
        wanted: Kind,
        user: &str,
    ) -> Result<Node, Problem> {
        match (kind, wanted) {
            (None, _) => Ok(node),
            (Some(kind), wanted) if kind == wanted => Ok(node),
            (Some(Kind::Integer), Kind::Number) => Ok(match node {
                Node::Constant(Constant::Integer(number)) => {
                    Node::Constant(Constant::Number(number as f64))
                }
                node => Node::ToNumber(Box::new(node)),
            }),
            (Some(Kind::Text), Kind::Timestamp) => match &node {
                Node::Constant(Constant::Text(text)) => match text.parse() {
                    Ok(time) => Ok(Node::Constant(Constant::Timestamp(time))),
                    Err(_) => Err(Problem::new(expr.place, format!("`{text}` is not a timestamp"))
                        .help("write it as `\"2026-03-01T12:00:00Z\"`")),
                },
                _ => Err(self.mismatch(expr, kind, wanted, user)),
            },
            _ => Err(self.mismatch(expr, kind, wanted, user)),
        }
    }

    fn mismatch(&self, expr: &Expr, kind: NodeKind, wanted: Kind, user: &str) -> Problem {
        let (is, needs) = (kind_word(kind), kind_word(Some(wanted)));
        let problem = Problem::new(expr.place, format!("{user} needs {needs}, but this is {is}"));
        let field = match &expr.kind {
            ExprKind::Path(path) => self.fields.find(path),
            _ => None,
        };
        match (kind, wanted, field) {
            (_, _, Some(field)) if field.is_open() => problem.help(format!(
                "state the field's kind with `fields: {{ {}: {} }}`",
                field.text(),
                wanted.name()
            )),
            (Some(Kind::Number), Kind::Integer, _) => problem.help(
                "numbers with a fraction do not add up exactly; use an integer: `scaled(…, 2)` for hundredths, or `round(…)`",
            ),
            (Some(Kind::Text), Kind::Integer, _) => {
                problem.help("`integer(…)` reads an integer from a text")
            }
            (Some(Kind::Text), Kind::Timestamp, _) => {
                problem.help("`timestamp(…)` reads a timestamp from a text")
            }
            (Some(_), Kind::Text, _) if kind != Some(Kind::Number) => {
                problem.help("`text(…)` makes a text of it")
            }
            (_, Kind::Boolean, _) => problem.help("compare it with a value, as in `a == b`"),
            (_, _, Some(field)) => problem.help(format!(
                "`{}` is {} because of another expression or of `fields`",
                field.text(),
                kind_word(Some(field.kind))
            )),
            _ => problem,
        }
    }

    /// Checks an expression, which may have any kind.
    pub(crate) fn check(&self, expr: &Expr) -> Result<(Node, NodeKind), Problem> {
        match &expr.kind {
            ExprKind::Literal(literal) => Ok(constant(literal)),
            ExprKind::Path(path) => self.path(expr, path),
            ExprKind::Not(inner) => {
                let inner = self.compile(inner, Kind::Boolean, "`not`")?;
                Ok((Node::Not(Box::new(inner)), Some(Kind::Boolean)))
            }
            ExprKind::Negate(inner) => {
                let (node, kind) = self.check(inner)?;
                match kind {
                    Some(Kind::Number) => Ok((Node::NegateNumber(Box::new(node)), kind)),
                    _ => {
                        let node = self.convert(inner, node, kind, Kind::Integer, "`-`")?;
                        Ok((Node::NegateInteger(Box::new(node)), Some(Kind::Integer)))
                    }
                }
            }
            ExprKind::Binary { operator, left, right } => self.binary(*operator, left, right),
            ExprKind::In { item, list } => self.within(item, list),
            ExprKind::Call { name, args, .. } => self.call(expr, name, args),
        }
    }

    fn path(&self, expr: &Expr, path: &[String]) -> Result<(Node, NodeKind), Problem> {
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        match names[..] {
            ["time"] => Ok((Node::Time, Some(Kind::Timestamp))),
            ["window", part @ ("start" | "end")] => {
                if !self.window {
                    return Err(Problem::new(expr.place, "there is no window here").help(
                        "`window.start` and `window.end` are columns of a table with `window`",
                    ));
                }
                let node = if part == "start" { Node::WindowStart } else { Node::WindowEnd };
                Ok((node, Some(Kind::Timestamp)))
            }
            ["window", ..] => Err(Problem::new(expr.place, "a window has only a start and an end")
                .help("write `window.start` or `window.end`")),
            ["parameter", name] => self.parameter(expr, name),
            ["parameter", ..] => Err(Problem::new(expr.place, "a parameter has a name")
                .help("write `parameter.` and the name of one of `parameters`")),
            ["data"] => Err(Problem::new(expr.place, "`data` is an object, not a value")
                .help("name one of its members: `data.user`")),
            ["extension"] => Err(Problem::new(expr.place, "`extension` is an object, not a value")
                .help("name one of them: `extension.traceparent`")),
            ["data" | "extension", ..] => self.field(expr, path),
            [name] => match ATTRIBUTES.iter().find(|(it, _)| *it == name) {
                Some((_, attribute)) => Ok((Node::Attribute(*attribute), Some(Kind::Text))),
                None => Err(self.unknown_name(expr, name)),
            },
            [name, ..] => Err(self.unknown_name(expr, name)),
            [] => Err(Problem::new(expr.place, "a name was expected")),
        }
    }

    fn unknown_name(&self, expr: &Expr, name: &str) -> Problem {
        let problem = Problem::new(expr.place, format!("unknown name `{name}`"));
        let known = ATTRIBUTES.iter().map(|(name, _)| *name);
        let known: Vec<&str> =
            known.chain(["time", "data", "extension", "parameter", "window"]).collect();
        let member = vec!["data".to_owned(), name.to_owned()];
        if self.fields.find(&member).is_some() {
            return problem.help(format!("did you mean `data.{name}`?"));
        }
        if self.parameters.iter().any(|(it, ..)| it == name) {
            return problem.help(format!("did you mean `parameter.{name}`?"));
        }
        match crate::problem::most_similar(name, known.iter().copied()) {
            Some(similar) => problem.help(format!("did you mean `{similar}`?")),
            None => problem.help(format!(
                "a member of the event's data is `data.{name}`; put a text between quotes"
            )),
        }
    }

    fn parameter(&self, expr: &Expr, name: &str) -> Result<(Node, NodeKind), Problem> {
        match self.parameters.iter().find(|(it, ..)| it == name) {
            Some((_, kind, value)) => Ok((Node::Constant(value.clone()), Some(*kind))),
            None => {
                let problem = Problem::new(expr.place, format!("unknown parameter `{name}`"));
                let known = self.parameters.iter().map(|(name, ..)| name.as_str());
                let problem = problem.suggest(name, known, "the parameters are");
                Err(match problem.help {
                    Some(_) => problem,
                    None => problem.help(format!("declare it with `parameters: {{ {name}: 1 }}`")),
                })
            }
        }
    }

    fn field(&self, expr: &Expr, path: &[String]) -> Result<(Node, NodeKind), Problem> {
        let Some(field) = self.fields.find(path) else {
            return Err(Problem::new(expr.place, "this field was not found"));
        };
        let info = Box::new(FieldInfo {
            name: field.text(),
            kind: field.kind,
            open: field.is_open() && !field.presence_only(),
        });
        let boxed = |names: &[String]| names.iter().map(|it| it.as_str().into()).collect();
        let node = match field.root {
            Root::Data if field.path.len() == 1 => {
                Node::Member { index: field.member, field: info }
            }
            Root::Data => Node::Nested {
                index: Some(field.member),
                path: boxed(&field.path[1..]),
                field: info,
            },
            Root::Extension => Node::Nested { index: None, path: boxed(&field.path), field: info },
        };
        Ok((node, Some(field.kind)))
    }

    fn binary(
        &self,
        operator: Operator,
        left: &Expr,
        right: &Expr,
    ) -> Result<(Node, NodeKind), Problem> {
        use Operator as O;
        let user = format!("`{}`", operator.text());
        match operator {
            O::And | O::Or => {
                let left = Box::new(self.compile(left, Kind::Boolean, &user)?);
                let right = Box::new(self.compile(right, Kind::Boolean, &user)?);
                let node =
                    if operator == O::And { Node::And(left, right) } else { Node::Or(left, right) };
                Ok((node, Some(Kind::Boolean)))
            }
            O::Divide => {
                let left = Box::new(self.compile(left, Kind::Number, &user)?);
                let right = Box::new(self.compile(right, Kind::Number, &user)?);
                Ok((Node::Numbers(operator, left, right), Some(Kind::Number)))
            }
            O::Add | O::Subtract | O::Multiply | O::Remainder => {
                let (a, b) = (self.check(left)?, self.check(right)?);
                let number = Some(Kind::Number);
                let kind = if operator != O::Remainder && (a.1 == number || b.1 == number) {
                    Kind::Number
                } else {
                    Kind::Integer
                };
                if operator == O::Add && (a.1 == Some(Kind::Text) || b.1 == Some(Kind::Text)) {
                    return Err(Problem::new(left.place.to(right.place), "`+` adds numbers")
                        .help("join texts with `concat(…, …)`"));
                }
                let left = Box::new(self.convert(left, a.0, a.1, kind, &user)?);
                let right = Box::new(self.convert(right, b.0, b.1, kind, &user)?);
                let node = if kind == Kind::Number {
                    Node::Numbers(operator, left, right)
                } else {
                    Node::Integers(operator, left, right)
                };
                Ok((node, Some(kind)))
            }
            _ => {
                let nothing = [left, right]
                    .into_iter()
                    .find(|it| matches!(it.kind, ExprKind::Literal(Literal::Null)));
                if let Some(nothing) = nothing {
                    return Err(Problem::new(
                        nothing.place,
                        "a comparison with `null` is never true",
                    )
                    .help("use `exists(…)` or `not exists(…)`"));
                }
                let (a, b) = self.same_kind(left, right, &user)?;
                Ok((Node::Compare(operator, Box::new(a), Box::new(b)), Some(Kind::Boolean)))
            }
        }
    }

    /// Checks two expressions, and converts them to the same kind.
    fn same_kind(&self, left: &Expr, right: &Expr, user: &str) -> Result<(Node, Node), Problem> {
        let (a, b) = (self.check(left)?, self.check(right)?);
        let kind = match (a.1, b.1) {
            (Some(Kind::Number), _) | (_, Some(Kind::Number)) => Kind::Number,
            (Some(Kind::Timestamp), _) | (_, Some(Kind::Timestamp)) => Kind::Timestamp,
            (Some(kind), _) | (None, Some(kind)) => kind,
            (None, None) => Kind::Text,
        };
        // The error must be about the operand whose kind differs from that of the first operand.
        let a = self.convert(left, a.0, a.1, kind, user)?;
        let b = self.convert(right, b.0, b.1, kind, user)?;
        Ok((a, b))
    }

    fn within(&self, item: &Expr, list: &[Expr]) -> Result<(Node, NodeKind), Problem> {
        let (node, mut kind) = self.check(item)?;
        let values = list.iter().map(|value| self.check(value)).collect::<Result<Vec<_>, _>>()?;
        if values.iter().any(|(_, it)| *it == Some(Kind::Number)) && kind == Some(Kind::Integer) {
            kind = Some(Kind::Number);
        }
        let wanted = kind.unwrap_or(Kind::Text);
        let node = self.convert(item, node, kind, wanted, "`in`")?;
        let values = list
            .iter()
            .zip(values)
            .map(|(value, (node, kind))| self.convert(value, node, kind, wanted, "`in`"))
            .collect::<Result<Vec<_>, _>>()?;
        Ok((Node::In(Box::new(node), values.into()), Some(Kind::Boolean)))
    }

    fn call(&self, expr: &Expr, name: &str, args: &[Expr]) -> Result<(Node, NodeKind), Problem> {
        let ExprKind::Call { name_place, .. } = &expr.kind else {
            return Err(Problem::new(expr.place, "a call was expected"));
        };
        let Some(signature) = find(name) else {
            let problem = Problem::new(*name_place, format!("unknown function `{name}`"));
            if AGGREGATES.contains(&name) {
                return Err(Problem::new(
                    *name_place,
                    format!("`{name}` must be a whole column, not a part of an expression"),
                )
                .help("put it into a column of its own; readers can combine columns"));
            }
            let names = FUNCTIONS.iter().map(|signature| signature.name).chain(AGGREGATES);
            return Err(match crate::problem::most_similar(name, names) {
                Some(similar) => problem.help(format!("did you mean `{similar}`?")),
                None => problem.help("docs/guide/declarations.md lists all functions"),
            });
        };
        if !signature.accepts(args.len()) {
            let count = args.len();
            let what = if count == 1 { "value" } else { "values" };
            let why = format!("`{name}` was called with {count} {what}");
            return Err(Problem::new(expr.place, why).help(format!("write `{}`", signature.usage)));
        }
        self.signed_call(signature, args)
    }

    fn signed_call(
        &self,
        signature: &Signature,
        args: &[Expr],
    ) -> Result<(Node, NodeKind), Problem> {
        let user = format!("`{}`", signature.name);
        let mut checked = Vec::new();
        let mut zone = TimeZone::utc();
        let mut same: NodeKind = None;
        for (index, arg) in args.iter().enumerate() {
            let parameter = signature.parameter(index);
            if parameter == Parameter::Zone {
                zone = time_zone(arg)?;
                continue;
            }
            let (node, kind) = self.check(arg)?;
            if matches!(parameter, Parameter::Same | Parameter::Numeric) {
                same = match (same, kind) {
                    (Some(Kind::Integer), Some(Kind::Number)) => kind,
                    (None, kind) => kind,
                    (same, _) => same,
                };
            }
            checked.push((parameter, arg, node, kind));
        }
        let mut nodes = Vec::new();
        for (parameter, arg, node, kind) in checked {
            let node = match parameter {
                Parameter::Of(wanted) => self.convert(arg, node, kind, wanted, &user)?,
                Parameter::Same => {
                    self.convert(arg, node, kind, same.unwrap_or(Kind::Text), &user)?
                }
                Parameter::Numeric if same == Some(Kind::Number) => node,
                Parameter::Numeric => self.convert(arg, node, kind, Kind::Integer, &user)?,
                _ if signature.function == Function::Text && kind == Some(Kind::Number) => {
                    return Err(Problem::new(arg.place, "`text` takes no number with a fraction")
                        .help("round it: `text(round(…))`"));
                }
                _ => node,
            };
            nodes.push(node);
        }
        let kind = match signature.returns {
            Returns::Of(kind) => Some(kind),
            Returns::Same => same,
        };
        if signature.parameters.last() == Some(&Parameter::Zone)
            && let Some(time) = nodes.pop()
        {
            let last = Cell::new(Window { start: Timestamp::MAX, end: Timestamp::MIN });
            let time = Box::new(time);
            return Ok((Node::Period { function: signature.function, zone, time, last }, kind));
        }
        Ok((Node::Call(signature.function, nodes.into()), kind))
    }
}

fn time_zone(expr: &Expr) -> Result<TimeZone, Problem> {
    let ExprKind::Literal(Literal::Text(name)) = &expr.kind else {
        return Err(Problem::new(expr.place, "a time zone is a name between quotes")
            .help("write for example `\"Europe/Berlin\"`"));
    };
    TimeZone::named(name).map_err(|_| unknown_zone(expr.place, name))
}

/// Returns the error for a time zone that does not exist.
pub(crate) fn unknown_zone(place: crate::problem::Place, name: &str) -> Problem {
    Problem::new(place, format!("`{name}` is not a time zone"))
        .help("use a name of the IANA database, such as `Europe/Berlin` or `UTC`")
}

fn constant(literal: &Literal) -> (Node, NodeKind) {
    let (constant, kind) = match literal {
        Literal::Null => (Constant::Null, None),
        Literal::Boolean(value) => (Constant::Boolean(*value), Some(Kind::Boolean)),
        Literal::Integer(value) => (Constant::Integer(*value), Some(Kind::Integer)),
        Literal::Number(value) => (Constant::Number(*value), Some(Kind::Number)),
        Literal::Text(value) => (Constant::Text(value.as_str().into()), Some(Kind::Text)),
    };
    (Node::Constant(constant), kind)
}

impl Kind {
    /// Returns the name of the kind in declarations.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Text => "text",
            Self::Boolean => "boolean",
            Self::Timestamp => "timestamp",
        }
    }
}
