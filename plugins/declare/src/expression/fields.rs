//! Collects the fields of events that a declaration uses, and the kind of each.
//!
//! The host decodes each member of the data once, as one kind. The expressions determine the kind:
//! `sum(data.cents)` needs an integer, and `data.country == "DE"` needs a text. If they do not
//! determine the kind of a member, the declaration must state it in `fields`.

use lantern_sdk::{FieldKind, Member, dynamic};

use super::functions::{Parameter, Returns, find};
use super::syntax::{Expr, ExprKind, Literal, Operator};
use crate::document::Kind;
use crate::problem::{Place, Problem};

/// How certain the kind of a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Certainty {
    /// The field is used only where every kind is accepted.
    Open,
    /// The field is used together with an integer. It may also be a number.
    PerhapsInteger,
    /// The field is used together with a number. It may also be an integer.
    PerhapsNumber,
    /// An expression needs the field to have this kind.
    Needed,
    /// The declaration states the kind.
    Stated,
}

/// The part of an event that contains a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    Data,
    Extension,
}

/// A field of events that the declaration uses.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) root: Root,
    /// The names of the members on the path to the field, the outermost first.
    pub(crate) path: Vec<String>,
    pub(crate) kind: Kind,
    certainty: Certainty,
    /// Whether an expression uses the field.
    used: bool,
    /// Whether an expression uses the value of the field, and not only `exists`.
    read: bool,
    /// The place where the field was first used or stated.
    place: Place,
    /// The index of the field's member among the members of the manifest.
    pub(crate) member: usize,
}

impl Field {
    /// Returns the field, as it is written in an expression.
    pub(crate) fn text(&self) -> String {
        let mut text = match self.root {
            Root::Data => String::from("data"),
            Root::Extension => String::from("extension"),
        };
        for name in &self.path {
            let plain = |letter: char| letter.is_alphanumeric() || letter == '_';
            let first = name.chars().next().is_some_and(|it| it.is_alphabetic() || it == '_');
            if first && name.chars().all(plain) {
                text.push('.');
                text.push_str(name);
            } else {
                text.push_str(&format!("[{name:?}]"));
            }
        }
        text
    }

    /// Returns whether expressions only ask whether the field is present.
    pub(crate) fn presence_only(&self) -> bool {
        !self.read && self.certainty == Certainty::Open
    }

    /// Returns whether neither an expression nor the declaration has determined the kind of the
    /// field.
    pub(crate) fn is_open(&self) -> bool {
        self.certainty == Certainty::Open
    }

    fn member_kind(&self) -> FieldKind {
        match self.kind {
            _ if self.path.len() > 1 || self.presence_only() => FieldKind::Json,
            Kind::Integer => FieldKind::Integer,
            Kind::Number => FieldKind::Number,
            Kind::Text => FieldKind::Text,
            Kind::Boolean => FieldKind::Boolean,
            Kind::Timestamp => FieldKind::Timestamp,
        }
    }
}

/// The kind that a place in the declaration needs its expression to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Any,
    /// An integer or a number. If the field is known to have another kind, it is that kind.
    PerhapsInteger,
    Of(Kind),
}

/// The kind that a place in an expression needs its operand to have.
type Wanted = Option<(Kind, Certainty)>;

/// All fields that the declaration uses.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    fields: Vec<Field>,
    /// The parameters of the declaration, each with its kind.
    parameters: Vec<(String, Kind)>,
    changed: bool,
}

impl Fields {
    /// Creates an empty list of fields. `parameters` are the parameters with their kinds.
    pub(crate) fn new(parameters: impl Iterator<Item = (String, Kind)>) -> Self {
        Self { parameters: parameters.collect(), ..Self::default() }
    }

    /// Returns the part of an event that contains the field `path`, if the path begins with `data`
    /// or `extension`.
    fn root(path: &[String]) -> Option<Root> {
        match (path.first()?.as_str(), path.len()) {
            ("data", 2..) => Some(Root::Data),
            ("extension", 2..) => Some(Root::Extension),
            _ => None,
        }
    }

    /// Returns the field with the path `path`.
    pub(crate) fn find(&self, path: &[String]) -> Option<&Field> {
        let root = Self::root(path)?;
        self.fields.iter().find(|field| field.root == root && field.path == path[1..])
    }

    /// Notes that the declaration states the kind of a field.
    pub(crate) fn state(&mut self, path: &[String], kind: Kind, place: Place) {
        if let Some(index) = self.index(path, place) {
            let field = &mut self.fields[index];
            field.kind = kind;
            field.certainty = Certainty::Stated;
        }
    }

    /// Returns the fields whose kind is stated although no expression uses them.
    pub(crate) fn unused(&self) -> impl Iterator<Item = (&Field, Place)> {
        self.fields.iter().filter(|field| !field.used).map(|field| (field, field.place))
    }

    /// Returns the fields, in the order in which they are first used.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter()
    }

    fn index(&mut self, path: &[String], place: Place) -> Option<usize> {
        let root = Self::root(path)?;
        let known =
            self.fields.iter().position(|field| field.root == root && field.path == path[1..]);
        Some(known.unwrap_or_else(|| {
            self.fields.push(Field {
                root,
                path: path[1..].to_vec(),
                kind: Kind::Text,
                certainty: Certainty::Open,
                used: false,
                read: false,
                place,
                member: 0,
            });
            self.fields.len() - 1
        }))
    }

    /// Determines the kinds of fields from the expressions. Each expression must have the kind that
    /// its place in the declaration needs. The search repeats until nothing changes, because
    /// `data.a == data.b` gives no kind until the kind of one of them is known.
    pub(crate) fn infer(&mut self, expressions: &[(&Expr, Need)]) {
        loop {
            self.changed = false;
            for (expr, need) in expressions {
                let wanted = match need {
                    Need::Any => None,
                    Need::PerhapsInteger => Some((Kind::Integer, Certainty::PerhapsInteger)),
                    Need::Of(kind) => Some((*kind, Certainty::Needed)),
                };
                self.visit(expr, wanted);
            }
            if !self.changed {
                return;
            }
        }
    }

    /// Returns the kind of `expr`, as far as it is known. If its place needs the kind `wanted`, its
    /// fields get this kind.
    fn visit(&mut self, expr: &Expr, wanted: Wanted) -> Wanted {
        match &expr.kind {
            ExprKind::Literal(literal) => match literal {
                Literal::Null => None,
                Literal::Boolean(_) => Some((Kind::Boolean, Certainty::Needed)),
                Literal::Integer(_) => Some((Kind::Integer, Certainty::PerhapsInteger)),
                Literal::Number(_) => Some((Kind::Number, Certainty::PerhapsNumber)),
                Literal::Text(_) => Some((Kind::Text, Certainty::Needed)),
            },
            ExprKind::Path(path) => self.visit_path(path, expr.place, wanted),
            ExprKind::Not(inner) => {
                self.visit(inner, Some((Kind::Boolean, Certainty::Needed)));
                Some((Kind::Boolean, Certainty::Needed))
            }
            ExprKind::Negate(inner) => {
                let wanted = wanted.or(Some((Kind::Integer, Certainty::PerhapsInteger)));
                self.visit(inner, wanted)
            }
            ExprKind::Binary { operator, left, right } => {
                self.visit_binary(*operator, left, right, wanted)
            }
            ExprKind::In { item, list } => {
                let mut kind = self.visit(item, None);
                for value in list {
                    kind = self.visit(value, kind).or(kind);
                }
                self.visit(item, kind);
                Some((Kind::Boolean, Certainty::Needed))
            }
            ExprKind::Call { name, args, .. } => self.visit_call(name, args, wanted),
        }
    }

    fn visit_path(&mut self, path: &[String], place: Place, wanted: Wanted) -> Wanted {
        match path.first().map(String::as_str) {
            Some("time" | "window") => return Some((Kind::Timestamp, Certainty::Needed)),
            Some("data" | "extension") => {}
            Some("parameter") => {
                let name = path.get(1)?;
                let (_, kind) = self.parameters.iter().find(|(it, _)| it == name)?;
                return Some(match kind {
                    Kind::Integer => (*kind, Certainty::PerhapsInteger),
                    Kind::Number => (*kind, Certainty::PerhapsNumber),
                    _ => (*kind, Certainty::Needed),
                });
            }
            _ => return Some((Kind::Text, Certainty::Needed)),
        }
        let index = self.index(path, place)?;
        let field = &mut self.fields[index];
        (field.used, field.read) = (true, true);
        if let Some((kind, certainty)) = wanted
            && certainty > field.certainty
        {
            field.kind = kind;
            field.certainty = certainty;
            self.changed = true;
        }
        let field = &self.fields[index];
        (field.certainty > Certainty::Open).then_some((field.kind, field.certainty))
    }

    fn visit_binary(
        &mut self,
        operator: Operator,
        left: &Expr,
        right: &Expr,
        wanted: Wanted,
    ) -> Wanted {
        use Operator as O;
        let boolean = Some((Kind::Boolean, Certainty::Needed));
        match operator {
            O::And | O::Or => {
                self.visit(left, boolean);
                self.visit(right, boolean);
                boolean
            }
            O::Divide => {
                let number = Some((Kind::Number, Certainty::PerhapsNumber));
                self.visit(left, number);
                self.visit(right, number);
                Some((Kind::Number, Certainty::PerhapsNumber))
            }
            O::Remainder => {
                let integer = Some((Kind::Integer, Certainty::Needed));
                self.visit(left, integer);
                self.visit(right, integer);
                integer
            }
            O::Add | O::Subtract | O::Multiply => {
                let integer = Some((Kind::Integer, Certainty::PerhapsInteger));
                let wanted = wanted.filter(|(kind, _)| is_numeric(*kind));
                let a = self.visit(left, wanted);
                let b = self.visit(right, wanted);
                let of = a.max_numeric(b).or(wanted).or(integer);
                self.visit(left, of);
                self.visit(right, of);
                of
            }
            _ => {
                let (a, b) = (self.visit(left, None), self.visit(right, None));
                // A text can be compared with a timestamp, if it is the text of one.
                let timestamp = |it: Wanted| it.is_some_and(|(kind, _)| kind == Kind::Timestamp);
                if timestamp(a) || timestamp(b) {
                    return boolean;
                }
                self.visit(left, b);
                self.visit(right, a);
                boolean
            }
        }
    }

    fn visit_call(&mut self, name: &str, args: &[Expr], wanted: Wanted) -> Wanted {
        let signature = find(name)?;
        let mut same = match signature.returns {
            Returns::Same => wanted,
            Returns::Of(_) => None,
        };
        // The arguments may have to have the same kind. The first pass finds this kind, and the
        // second pass also gives it to the arguments before the one that determined it.
        for _ in 0..2 {
            for (index, arg) in args.iter().enumerate() {
                let known = match signature.parameter(index) {
                    Parameter::Of(Kind::Number) => {
                        self.visit(arg, Some((Kind::Number, Certainty::PerhapsNumber)));
                        continue;
                    }
                    Parameter::Of(kind) => {
                        self.visit(arg, Some((kind, Certainty::Needed)));
                        continue;
                    }
                    Parameter::Any if name == "exists" && is_field(arg) => {
                        if let ExprKind::Path(path) = &arg.kind
                            && let Some(index) = self.index(path, arg.place)
                        {
                            self.fields[index].used = true;
                        }
                        continue;
                    }
                    Parameter::Any | Parameter::Zone => {
                        self.visit(arg, None);
                        continue;
                    }
                    Parameter::Numeric => {
                        let integer = Some((Kind::Integer, Certainty::PerhapsInteger));
                        self.visit(arg, same.or(integer))
                    }
                    Parameter::Same => self.visit(arg, same),
                };
                same = same.max_numeric(known).or(same).or(known);
            }
        }
        match signature.returns {
            Returns::Of(kind) => Some((kind, Certainty::Needed)),
            Returns::Same => same,
        }
    }

    /// Chooses kinds for fields whose kind is still open, and lists the members for the manifest.
    ///
    /// # Errors
    /// Fails if a member is used both as a value and as an object with members.
    pub(crate) fn members(&mut self) -> Result<Vec<Member>, Problem> {
        let mut members: Vec<Member> = Vec::new();
        for index in 0..self.fields.len() {
            let field = &self.fields[index];
            if field.root != Root::Data || !field.used {
                continue;
            }
            let kind = field.member_kind();
            let name = &field.path[0];
            let known = members.iter().position(|member| member.name == *name);
            let place = match known {
                Some(place) if members[place].kind == kind => place,
                Some(_) => {
                    let why =
                        format!("`data.{name}` is used as a value and as an object with members");
                    return Err(Problem::new(field.place, why)
                        .help("use only the value, or only its members"));
                }
                None => {
                    members.push(Member { name: dynamic::keep(name), kind });
                    members.len() - 1
                }
            };
            self.fields[index].member = place;
        }
        Ok(members)
    }
}

fn is_field(expr: &Expr) -> bool {
    matches!(&expr.kind, ExprKind::Path(path) if Fields::root(path).is_some())
}

fn is_numeric(kind: Kind) -> bool {
    matches!(kind, Kind::Integer | Kind::Number)
}

trait MaxNumeric {
    /// Returns the kind of the result of an operation on two numeric kinds: `number` if one of the
    /// two is `number`, otherwise `integer`.
    fn max_numeric(self, other: Self) -> Self;
}

impl MaxNumeric for Wanted {
    fn max_numeric(self, other: Self) -> Self {
        match (self, other) {
            (Some((a, _)), Some((b, _))) if !is_numeric(a) || !is_numeric(b) => self,
            (Some((Kind::Number, certainty)), _) | (_, Some((Kind::Number, certainty))) => {
                Some((Kind::Number, certainty.min(Certainty::PerhapsNumber)))
            }
            // If one operand is an integer, the other one need not be an integer.
            (Some((Kind::Integer, a)), Some((Kind::Integer, b))) => Some((Kind::Integer, a.min(b))),
            (Some((Kind::Integer, _)), None) | (None, Some((Kind::Integer, _))) => {
                Some((Kind::Integer, Certainty::PerhapsInteger))
            }
            (None, other) => other,
            (this, _) => this,
        }
    }
}
