//! Splits the text of an expression into tokens.

use crate::problem::{Place, Problem};

/// A token: a part of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Name(String),
    Text(String),
    Integer(i64),
    Number(f64),
    Symbol(&'static str),
    End,
}

/// The symbols. A longer symbol comes before a symbol that is its beginning.
const SYMBOLS: [&str; 23] = [
    "==", "!=", "<=", ">=", "<>", "&&", "||", "<", ">", "=", "!", "+", "-", "*", "/", "%", "(",
    ")", "[", "]", ",", ".", "?",
];

/// Reads tokens from a text, with their places in the declaration.
pub(super) struct TokenReader<'a> {
    pub(super) text: &'a str,
    /// The place in the declaration at which the text begins; `None` if the text has another form
    /// there (escapes, several lines).
    base: Option<usize>,
    whole: Place,
}

impl<'a> TokenReader<'a> {
    /// Creates a reader for `text`, whose place in the declaration `source` is `whole`.
    pub(super) fn new(text: &'a str, whole: Place, source: &str) -> Self {
        let starts = [whole.start, whole.start + 1];
        let verbatim = |start: &usize| source.get(*start..).is_some_and(|it| it.starts_with(text));
        Self { text, base: starts.into_iter().find(verbatim), whole }
    }

    /// Returns the place in the declaration of a part of the text.
    pub(super) fn place(&self, start: usize, end: usize) -> Place {
        match self.base {
            Some(base) => Place { start: base + start, end: base + end },
            None => self.whole,
        }
    }

    /// Returns the first token at or after the byte `at`, with its start and its end.
    pub(super) fn next(&self, at: usize) -> Result<(Token, usize, usize), Problem> {
        let rest = &self.text[at..];
        let start = self.text.len() - rest.trim_start().len();
        let rest = &self.text[start..];
        let Some(first) = rest.chars().next() else {
            return Ok((Token::End, start, start));
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
        Ok((token, start, start + length))
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
}
