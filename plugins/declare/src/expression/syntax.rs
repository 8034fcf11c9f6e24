//! Reads expressions and columns from text into a tree.
//!
//! The grammar is in `docs/guide/declarations.md`. The size of an expression is limited: it has at
//! most [`BYTES_MAX`] bytes, [`DEPTH_MAX`] levels and [`OPERATIONS_MAX`] operations.

use super::tokens::{Token, TokenReader};
use crate::deserialize::Placed;
use crate::problem::{Place, Problem};
use crate::yaml::excerpt;

/// The maximum length of an expression, in bytes.
pub(crate) const BYTES_MAX: usize = 4_096;
/// The maximum depth to which an expression may be nested.
pub(crate) const DEPTH_MAX: usize = 32;
/// The maximum number of operators and calls in one expression.
pub(crate) const OPERATIONS_MAX: usize = 200;

/// The words that cannot be names of functions.
const WORDS: [&str; 9] = ["and", "or", "not", "in", "where", "unit", "true", "false", "null"];

/// An expression with its place in the declaration.
#[derive(Debug, Clone)]
pub(crate) struct Expr {
    pub(crate) place: Place,
    pub(crate) kind: ExprKind,
}

/// The form of an [`Expr`].
#[derive(Debug, Clone)]
pub(crate) enum ExprKind {
    Literal(Literal),
    /// A field, an attribute or a parameter. Contains the names between the dots.
    Path(Vec<String>),
    Call {
        name: String,
        name_place: Place,
        args: Vec<Expr>,
    },
    Not(Box<Expr>),
    Negate(Box<Expr>),
    Binary {
        operator: Operator,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    In {
        item: Box<Expr>,
        list: Vec<Expr>,
    },
}

/// A value that is written in the text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Null,
    Boolean(bool),
    Integer(i64),
    Number(f64),
    Text(String),
}

/// An operator that has two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Operator {
    /// Returns the operator, as it is written.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Or => "or",
            Self::And => "and",
            Self::Equal => "==",
            Self::Unequal => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }

    /// Returns how strongly the operator binds. If two operators follow each other, the one with
    /// the higher level takes its operands first.
    fn level(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Add | Self::Subtract => 5,
            Self::Multiply | Self::Divide | Self::Remainder => 6,
            _ => COMPARISON,
        }
    }
}

/// The level of comparisons and of `in`.
const COMPARISON: u8 = 4;

/// A column, as it is written: an expression, and what may follow it.
#[derive(Debug)]
pub(crate) struct ColumnText {
    pub(crate) value: Expr,
    /// The condition that follows the word `where`.
    pub(crate) filter: Option<Expr>,
    /// The text that follows the word `unit`.
    pub(crate) unit: String,
}

/// Reads an expression from `text`.
///
/// # Errors
/// Returns the first place at which the text is not an expression.
pub(crate) fn expression(text: &Placed, source: &str) -> Result<Expr, Problem> {
    let mut reader = SyntaxReader::new(text, source)?;
    let expr = reader.expression(0)?;
    reader.end()?;
    Ok(expr)
}

/// Reads a column from `text`.
///
/// # Errors
/// Returns the first place at which the text is not a column.
pub(crate) fn column(text: &Placed, source: &str) -> Result<ColumnText, Problem> {
    let mut reader = SyntaxReader::new(text, source)?;
    let value = reader.expression(0)?;
    let filter = if reader.word("where") {
        reader.advance()?;
        Some(reader.expression(0)?)
    } else {
        None
    };
    let mut unit = String::new();
    if reader.word("unit") {
        let text = reader.tokens.text;
        let (start, end) = (reader.token_place.end, text.len());
        let rest = text.get(reader.at..).unwrap_or_default().trim();
        rest.trim_matches(['"', '\'']).clone_into(&mut unit);
        if unit.is_empty() || unit.chars().count() > 32 || unit.contains(['"', '\'']) {
            let place = Place { start, end: start + (end - reader.at).max(1) };
            return Err(Problem::new(place, "a unit of 1 to 32 characters was expected")
                .help("write for example `unit cent`"));
        }
    } else {
        reader.end()?;
    }
    Ok(ColumnText { value, filter, unit })
}

struct SyntaxReader<'a> {
    tokens: TokenReader<'a>,
    /// The index of the byte after the current token.
    at: usize,
    token: Token,
    token_place: Place,
    /// The end of the token before the current one.
    last_end: usize,
    depth: usize,
    operations: usize,
}

impl<'a> SyntaxReader<'a> {
    fn new(text: &'a Placed, source: &str) -> Result<Self, Problem> {
        let whole = text.place;
        let text = text.text.as_str();
        if text.len() > BYTES_MAX {
            let why = format!("the expression has {} bytes, more than {BYTES_MAX}", text.len());
            return Err(Problem::new(whole, why)
                .help("divide it between `where` of the table and of columns"));
        }
        let mut reader = Self {
            tokens: TokenReader::new(text, whole, source),
            at: 0,
            token: Token::End,
            token_place: whole,
            last_end: whole.start,
            depth: 0,
            operations: 0,
        };
        reader.advance()?;
        Ok(reader)
    }

    fn advance(&mut self) -> Result<(), Problem> {
        self.last_end = self.token_place.end;
        let (token, start, end) = self.tokens.next(self.at)?;
        self.token = token;
        self.at = end;
        self.token_place = self.tokens.place(start, end.max(start + 1));
        Ok(())
    }

    fn symbol(&self, symbol: &str) -> bool {
        matches!(&self.token, Token::Symbol(it) if *it == symbol)
    }

    fn word(&self, word: &str) -> bool {
        matches!(&self.token, Token::Name(it) if it == word)
    }

    fn end(&self) -> Result<(), Problem> {
        if self.token == Token::End {
            return Ok(());
        }
        let problem = Problem::new(self.token_place, format!("unexpected {}", self.describe()));
        Err(match &self.token {
            Token::Name(name) if name == "as" => {
                problem.help("a column's name is in front of the colon")
            }
            Token::Name(name) if name == "if" => problem.help("write `if(condition, then, else)`"),
            Token::Name(name) if !WORDS.contains(&name.as_str()) => problem.suggest(
                name,
                ["and", "or", "in", "not in", "where", "unit"],
                "an operator was expected, or one of",
            ),
            Token::Symbol("]" | ")") => problem.help("remove it, or add the opening one"),
            _ => problem.help("an operator or the end was expected"),
        })
    }

    fn describe(&self) -> String {
        match &self.token {
            Token::End => "end".to_owned(),
            Token::Name(name) => format!("`{name}`"),
            Token::Text(text) => format!("text `{}`", excerpt(text)),
            Token::Integer(number) => format!("number {number}"),
            Token::Number(number) => format!("number {number}"),
            Token::Symbol(symbol) => format!("`{symbol}`"),
        }
    }

    fn expect(&mut self, symbol: &'static str, after: &str) -> Result<(), Problem> {
        if self.symbol(symbol) {
            return self.advance();
        }
        let found = self.describe();
        let why = format!("`{symbol}` was expected after {after}, not {found}");
        let problem = Problem::new(self.token_place, why);
        Err(match self.token {
            Token::End => problem.help(
                "close every bracket; within `[…]` or `{…}` of YAML, put an expression with a `,` between single quotes",
            ),
            _ => problem,
        })
    }

    /// Reads an expression whose operators bind at least as strongly as `level`.
    fn expression(&mut self, level: u8) -> Result<Expr, Problem> {
        self.depth += 1;
        self.operations += 1;
        if self.operations > OPERATIONS_MAX {
            let why = format!("the expression has more than {OPERATIONS_MAX} operations");
            return Err(Problem::new(self.token_place, why));
        }
        if self.depth > DEPTH_MAX {
            let why = format!("the expression is nested more than {DEPTH_MAX} levels deep");
            return Err(Problem::new(self.token_place, why));
        }
        let mut left = self.operand(level)?;
        while let Some(operator) = self.operator()? {
            if operator.level() < level.max(1) {
                break;
            }
            left = self.operation(left, operator)?;
        }
        self.depth -= 1;
        Ok(left)
    }

    /// Returns the operator at the current token. `in` and `not in` are treated as comparisons.
    fn operator(&self) -> Result<Option<Infix>, Problem> {
        use Operator as O;
        let operator = match &self.token {
            Token::Name(name) => match name.as_str() {
                "and" => O::And,
                "or" => O::Or,
                "in" => return Ok(Some(Infix::In)),
                "not" => return Ok(Some(Infix::NotIn)),
                _ => return Ok(None),
            },
            Token::Symbol(symbol) => match *symbol {
                "==" => O::Equal,
                "!=" => O::Unequal,
                "<" => O::Less,
                "<=" => O::LessOrEqual,
                ">" => O::Greater,
                ">=" => O::GreaterOrEqual,
                "+" => O::Add,
                "-" => O::Subtract,
                "*" => O::Multiply,
                "/" => O::Divide,
                "%" => O::Remainder,
                "=" => return Err(self.instead("==")),
                "<>" => return Err(self.instead("!=")),
                "&&" => return Err(self.instead("and")),
                "||" => return Err(self.instead("or")),
                "?" => {
                    return Err(Problem::new(self.token_place, "unexpected `?`")
                        .help("write `if(condition, then, else)`"));
                }
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        Ok(Some(Infix::Binary(operator)))
    }

    fn instead(&self, right: &str) -> Problem {
        let found = self.describe();
        Problem::new(self.token_place, format!("unexpected {found}"))
            .help(format!("write `{right}`"))
    }

    fn operation(&mut self, left: Expr, operator: Infix) -> Result<Expr, Problem> {
        self.advance()?;
        match operator {
            Infix::Binary(operator) => {
                let right = self.expression(operator.level() + 1)?;
                let place = left.place.to(right.place);
                if operator.level() == COMPARISON
                    && let Some(Infix::Binary(next)) = self.operator()?
                    && next.level() == COMPARISON
                {
                    let why = format!("`{}` cannot follow a comparison", next.text());
                    return Err(Problem::new(self.token_place, why)
                        .help("write `a < b and b < c`, or use parentheses"));
                }
                let (left, right) = (Box::new(left), Box::new(right));
                Ok(Expr { place, kind: ExprKind::Binary { operator, left, right } })
            }
            Infix::In => self.list(left),
            Infix::NotIn => {
                if !self.word("in") {
                    return Err(self.unexpected("`in` after `not`"));
                }
                self.advance()?;
                let inside = self.list(left)?;
                Ok(Expr { place: inside.place, kind: ExprKind::Not(Box::new(inside)) })
            }
        }
    }

    fn unexpected(&self, expected: &str) -> Problem {
        Problem::new(self.token_place, format!("{expected} was expected, not {}", self.describe()))
    }

    fn list(&mut self, item: Expr) -> Result<Expr, Problem> {
        if !self.symbol("[") {
            return Err(self
                .unexpected("a list")
                .help("write the values between brackets: `data.country in [\"DE\", \"FR\"]`"));
        }
        self.advance()?;
        let list = self.arguments("]")?;
        let place = Place { start: item.place.start, end: self.last_end };
        Ok(Expr { place, kind: ExprKind::In { item: Box::new(item), list } })
    }

    /// Reads expressions that are separated by commas, up to the token `end` and including it.
    fn arguments(&mut self, end: &'static str) -> Result<Vec<Expr>, Problem> {
        let mut args = Vec::new();
        if self.symbol(end) {
            self.advance()?;
            return Ok(args);
        }
        loop {
            args.push(self.expression(0)?);
            if self.symbol(",") {
                self.advance()?;
                continue;
            }
            self.expect(end, "the values")?;
            return Ok(args);
        }
    }

    fn operand(&mut self, level: u8) -> Result<Expr, Problem> {
        let start = self.token_place;
        let literal = |place, literal| Ok(Expr { place, kind: ExprKind::Literal(literal) });
        match std::mem::replace(&mut self.token, Token::End) {
            Token::Name(name) if name == "not" => {
                self.advance()?;
                if level > 3 {
                    return Err(Problem::new(start, "`not` cannot be part of a comparison")
                        .help("use parentheses: `not (a == b)`"));
                }
                let inner = self.expression(3)?;
                let place = start.to(inner.place);
                Ok(Expr { place, kind: ExprKind::Not(Box::new(inner)) })
            }
            Token::Symbol("-") => {
                self.advance()?;
                let inner = self.expression(7)?;
                let place = start.to(inner.place);
                match inner.kind {
                    ExprKind::Literal(Literal::Integer(number)) => {
                        literal(place, Literal::Integer(-number))
                    }
                    ExprKind::Literal(Literal::Number(number)) => {
                        literal(place, Literal::Number(-number))
                    }
                    _ => Ok(Expr { place, kind: ExprKind::Negate(Box::new(inner)) }),
                }
            }
            Token::Symbol("(") => {
                self.advance()?;
                let mut inner = self.expression(0)?;
                self.expect(")", "the expression")?;
                inner.place = Place { start: start.start, end: self.last_end };
                Ok(inner)
            }
            Token::Text(text) => {
                self.advance()?;
                literal(start, Literal::Text(text))
            }
            Token::Integer(number) => {
                self.advance()?;
                literal(start, Literal::Integer(number))
            }
            Token::Number(number) => {
                self.advance()?;
                literal(start, Literal::Number(number))
            }
            Token::Name(name) => {
                self.advance()?;
                match name.as_str() {
                    "null" => literal(start, Literal::Null),
                    "true" => literal(start, Literal::Boolean(true)),
                    "false" => literal(start, Literal::Boolean(false)),
                    _ if WORDS.contains(&name.as_str()) => {
                        Err(Problem::new(start, format!("unexpected `{name}`"))
                            .help("a value was expected"))
                    }
                    _ => self.named(name, start),
                }
            }
            token => {
                self.token = token;
                Err(self.no_operand())
            }
        }
    }

    fn no_operand(&self) -> Problem {
        let problem = Problem::new(
            self.token_place,
            format!("a value was expected, not {}", self.describe()),
        );
        match &self.token {
            Token::Symbol("!") => problem.help("write `not`"),
            Token::Symbol("[") => problem.help("a list can only follow `in`"),
            Token::Symbol("*") => problem.help("count events with `count()`"),
            Token::Symbol("=") => problem.help("write `==`"),
            _ => problem,
        }
    }

    /// Reads a path or a call. Its first name was read before.
    fn named(&mut self, name: String, start: Place) -> Result<Expr, Problem> {
        if self.symbol("(") {
            self.advance()?;
            let args = self.arguments(")")?;
            let place = Place { start: start.start, end: self.last_end };
            return Ok(Expr { place, kind: ExprKind::Call { name, name_place: start, args } });
        }
        let mut path = vec![name];
        let mut place = start;
        loop {
            if self.symbol(".") {
                self.advance()?;
                let Token::Name(name) = &self.token else {
                    return Err(self.unexpected("a name after `.`").help(
                        "a name with other characters goes between brackets: `data[\"a-b\"]`",
                    ));
                };
                path.push(name.clone());
                place = place.to(self.token_place);
                self.advance()?;
            } else if self.symbol("[") {
                self.advance()?;
                let Token::Text(name) = &self.token else {
                    return Err(self
                        .unexpected("a name between quotes")
                        .help("elements of lists cannot be read; write `data[\"name\"]`"));
                };
                path.push(name.clone());
                self.advance()?;
                self.expect("]", "the name")?;
                place = Place { start: place.start, end: self.last_end };
            } else {
                return Ok(Expr { place, kind: ExprKind::Path(path) });
            }
        }
    }
}

/// An operator that is written between two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Infix {
    Binary(Operator),
    In,
    NotIn,
}

impl Infix {
    fn level(self) -> u8 {
        match self {
            Self::Binary(operator) => operator.level(),
            Self::In | Self::NotIn => COMPARISON,
        }
    }
}
