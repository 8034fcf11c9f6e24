//! Reads expressions and columns from text into a tree.
//!
//! The grammar is in `docs/guide/declarations.md`. Reading is bounded: an expression has
//! at most [`BYTES_MAX`] bytes, [`DEPTH_MAX`] levels and [`OPERATIONS_MAX`] operations.

use crate::deserialize::Placed;
use crate::problem::{Place, Problem};
use crate::yaml::excerpt;

/// The longest expression, in bytes.
pub(crate) const BYTES_MAX: usize = 4_096;
/// The deepest nesting of an expression.
pub(crate) const DEPTH_MAX: usize = 32;
/// The most operators and calls in one expression.
pub(crate) const OPERATIONS_MAX: usize = 200;

/// Words that are not names of functions.
const WORDS: [&str; 9] = ["and", "or", "not", "in", "where", "unit", "true", "false", "null"];

/// An expression and its place in the declaration.
#[derive(Debug, Clone)]
pub(crate) struct Expr {
    pub(crate) place: Place,
    pub(crate) kind: ExprKind,
}

/// What an [`Expr`] is.
#[derive(Debug, Clone)]
pub(crate) enum ExprKind {
    Literal(Literal),
    /// A field, attribute or parameter: the names between the dots.
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

/// A value in the text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Literal {
    Null,
    Boolean(bool),
    Integer(i64),
    Number(f64),
    Text(String),
}

/// An operator with two operands.
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
    /// How it is written.
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

    /// How strongly it binds: of two operators, the operands of the higher one are
    /// grouped first.
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

/// The level of comparisons and `in`.
const COMPARISON: u8 = 4;

/// A column: an expression, and what may follow it.
#[derive(Debug)]
pub(crate) struct ColumnText {
    pub(crate) value: Expr,
    /// The condition after `where`.
    pub(crate) filter: Option<Expr>,
    /// The text after `unit`.
    pub(crate) unit: String,
}

/// Reads an expression.
///
/// # Errors
/// The first place at which the text is not an expression.
pub(crate) fn expression(text: &Placed, source: &str) -> Result<Expr, Problem> {
    let mut reader = SyntaxReader::new(text, source)?;
    let expr = reader.expression(0)?;
    reader.end()?;
    Ok(expr)
}

/// Reads a column.
///
/// # Errors
/// The first place at which the text is not a column.
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
        let (start, end) = (reader.token_place.end, reader.text.len());
        let rest = reader.text.get(reader.at..).unwrap_or_default().trim();
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

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Integer(i64),
    Number(f64),
    Symbol(&'static str),
    End,
}

/// Symbols, longer ones before their beginnings.
const SYMBOLS: [&str; 23] = [
    "==", "!=", "<=", ">=", "<>", "&&", "||", "<", ">", "=", "!", "+", "-", "*", "/", "%", "(",
    ")", "[", "]", ",", ".", "?",
];

struct SyntaxReader<'a> {
    text: &'a str,
    /// The place of the text's first byte in the source; none if the source has the
    /// text in another form (escapes, several lines).
    base: Option<usize>,
    whole: Place,
    /// The byte after the current token.
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
        let starts = [whole.start, whole.start + 1];
        let verbatim = |start: &usize| source.get(*start..).is_some_and(|it| it.starts_with(text));
        let base = starts.into_iter().find(verbatim);
        let mut reader = Self {
            text,
            base,
            whole,
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

    fn place(&self, start: usize, end: usize) -> Place {
        match self.base {
            Some(base) => Place { start: base + start, end: base + end },
            None => self.whole,
        }
    }

    fn advance(&mut self) -> Result<(), Problem> {
        self.last_end = self.token_place.end;
        let rest = &self.text[self.at..];
        let start = self.text.len() - rest.trim_start().len();
        let rest = &self.text[start..];
        let Some(first) = rest.chars().next() else {
            self.token = Token::End;
            self.at = self.text.len();
            self.token_place = self.place(start, start + 1);
            return Ok(());
        };
        let (token, length) = if first.is_alphabetic() || first == '_' {
            let within = |letter: char| letter.is_alphanumeric() || letter == '_';
            let length = rest.find(|letter| !within(letter)).unwrap_or(rest.len());
            (Token::Name(rest[..length].to_owned()), length)
        } else if first.is_ascii_digit() {
            self.number(start, rest)?
        } else if first == '"' || first == '\'' {
            self.quoted(start, rest, first)?
        } else if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            (Token::Symbol(symbol), symbol.len())
        } else {
            let place = self.place(start, start + first.len_utf8());
            return Err(Problem::new(place, format!("unexpected character `{first}`")));
        };
        self.token = token;
        self.at = start + length;
        self.token_place = self.place(start, self.at);
        Ok(())
    }

    fn number(&self, start: usize, rest: &str) -> Result<(Token, usize), Problem> {
        let bytes = rest.as_bytes();
        let digits = |from: usize| {
            let more = bytes[from..].iter().take_while(|it| it.is_ascii_digit() || **it == b'_');
            from + more.count()
        };
        let mut end = digits(0);
        let mut whole = true;
        if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
            end = digits(end + 1);
            whole = false;
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
                end = digits(end + 1 + sign);
                whole = false;
            }
        }
        let place = self.place(start, start + end);
        if let Some(letter) = rest[end..].chars().next().filter(|it| it.is_alphanumeric()) {
            let wrong = format!("{}{letter}", &rest[..end]);
            return Err(Problem::new(place, format!("`{wrong}…` is not a number"))
                .help("put texts between quotes"));
        }
        let text = rest[..end].replace('_', "");
        let token = if whole {
            let number = text.parse().map_err(|_| {
                Problem::new(place, format!("{text} is not an integer of 64 bits"))
                    .help("the largest integer is 9223372036854775807")
            })?;
            Token::Integer(number)
        } else {
            let number = text.parse().unwrap_or(f64::INFINITY);
            if !f64::is_finite(number) {
                return Err(Problem::new(place, format!("{text} is too large for a number")));
            }
            Token::Number(number)
        };
        Ok((token, end))
    }

    fn quoted(&self, start: usize, rest: &str, quote: char) -> Result<(Token, usize), Problem> {
        let mut text = String::new();
        let mut letters = rest.char_indices().skip(1);
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => match letters.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, other @ ('\\' | '"' | '\''))) => text.push(other),
                    _ => {
                        let place = self.place(start + at, start + at + 2);
                        return Err(Problem::new(place, "unknown escape in a text")
                            .help(r#"the escapes are `\\`, `\"`, `\'`, `\n` and `\t`"#));
                    }
                },
                letter if letter == quote => return Ok((Token::Text(text), at + 1)),
                letter => text.push(letter),
            }
        }
        let place = self.place(start, self.text.len());
        Err(Problem::new(place, format!("the text has no closing `{quote}`")))
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
        let problem =
            Problem::new(self.token_place, format!("unexpected {}", self.describe()));
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
        Err(Problem::new(
            self.token_place,
            format!("`{symbol}` was expected after {after}, not {found}"),
        ))
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

    /// The operator at the current token; `In` and `not in` are handled as comparisons.
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

    /// Expressions with commas between them, up to and with `end`.
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

    /// A path or a call, after its first name.
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
                    return Err(self
                        .unexpected("a name after `.`")
                        .help("a name with other characters goes between brackets: `data[\"a-b\"]`"));
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

/// An operator between two operands.
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
