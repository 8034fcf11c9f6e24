//! Implements a parser that reads JSON without loss: numbers as they are written, text as UTF-16
//! code units (including half of a surrogate pair), members in order, including repeated ones. The
//! experiment has this parser of its own, so that it does not share bugs with the host's library.

use std::iter::Peekable;
use std::str::Chars;

use anyhow::{Context as _, Result, bail, ensure};

/// A JSON value that was read without loss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Exact {
    Null,
    Bool(bool),
    Number(String),
    Text(Vec<u16>),
    Array(Vec<Exact>),
    Object(Vec<(Vec<u16>, Exact)>),
}

impl Exact {
    /// Parses `text`, which must be one value and nothing else.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut parser = Parser { left: text.chars().peekable() };
        let value = parser.value().with_context(|| shortened(text))?;
        parser.space();
        ensure!(parser.left.peek().is_none(), "more follows the value: {}", shortened(text));
        Ok(value)
    }

    /// Returns the only member with the name `name`.
    pub(super) fn member(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        let name: Vec<u16> = name.encode_utf16().collect();
        let mut found = members.iter().filter(|(other, _)| *other == name);
        let first = found.next()?;
        found.next().is_none().then_some(&first.1)
    }

    /// Returns the value's members. Their names must be valid text.
    pub(super) fn members(&self) -> Result<Vec<(String, &Self)>> {
        let Self::Object(members) = self else { bail!("not an object: {self:?}") };
        members.iter().map(|(name, value)| Ok((String::from_utf16(name)?, value))).collect()
    }

    /// Returns the elements of an array.
    pub(super) fn elements(&self) -> Result<&[Self]> {
        match self {
            Self::Array(elements) => Ok(elements),
            other => bail!("not an array: {other:?}"),
        }
    }

    /// Returns the content of a text.
    pub(super) fn text(&self) -> Result<String> {
        match self {
            Self::Text(units) => Ok(String::from_utf16(units)?),
            other => bail!("not text: {other:?}"),
        }
    }
}

/// Shortens a long text to its beginning.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN: usize = 300;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push_str(" …");
    }
    shown
}

struct Parser<'a> {
    left: Peekable<Chars<'a>>,
}

impl Parser<'_> {
    fn space(&mut self) {
        while self.left.next_if(|c| matches!(c, ' ' | '\t' | '\n' | '\r')).is_some() {}
    }

    fn take(&mut self, wanted: char) -> bool {
        self.left.next_if_eq(&wanted).is_some()
    }

    fn value(&mut self) -> Result<Exact> {
        self.space();
        match self.left.peek() {
            Some('n') => self.word("null", Exact::Null),
            Some('t') => self.word("true", Exact::Bool(true)),
            Some('f') => self.word("false", Exact::Bool(false)),
            Some('"') => Ok(Exact::Text(self.text()?)),
            Some('[') => self.array(),
            Some('{') => self.object(),
            Some('-' | '0'..='9') => self.number(),
            other => bail!("no value begins with {other:?}"),
        }
    }

    fn word(&mut self, word: &str, value: Exact) -> Result<Exact> {
        for wanted in word.chars() {
            ensure!(self.take(wanted), "not `{word}`");
        }
        Ok(value)
    }

    fn number(&mut self) -> Result<Exact> {
        let mut number = String::new();
        let of_number = |c: &char| matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E');
        while let Some(next) = self.left.next_if(of_number) {
            number.push(next);
        }
        Ok(Exact::Number(number))
    }

    fn text(&mut self) -> Result<Vec<u16>> {
        ensure!(self.take('"'), "text must begin with a quote");
        let mut units = Vec::new();
        loop {
            match self.left.next().context("text without an end")? {
                '"' => return Ok(units),
                '\\' => units.push(self.escape()?),
                plain if plain < ' ' => bail!("{plain:?} must be escaped"),
                plain => units.extend_from_slice(plain.encode_utf16(&mut [0; 2])),
            }
        }
    }

    fn escape(&mut self) -> Result<u16> {
        let short = match self.left.next().context("an escape without an end")? {
            plain @ ('"' | '\\' | '/') => plain,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let mut unit = 0;
                for _ in 0..4 {
                    let digit = self.left.next().and_then(|c| c.to_digit(16));
                    unit = unit << 4 | digit.context("not four digits")?;
                }
                return Ok(u16::try_from(unit)?);
            }
            other => bail!("no escape is called {other:?}"),
        };
        Ok(u16::try_from(u32::from(short))?)
    }

    fn array(&mut self) -> Result<Exact> {
        ensure!(self.take('['), "an array must begin with a bracket");
        let mut elements = Vec::new();
        self.space();
        if self.take(']') {
            return Ok(Exact::Array(elements));
        }
        loop {
            elements.push(self.value()?);
            self.space();
            if self.take(']') {
                return Ok(Exact::Array(elements));
            }
            ensure!(self.take(','), "an array goes on with a comma");
        }
    }

    fn object(&mut self) -> Result<Exact> {
        ensure!(self.take('{'), "an object must begin with a brace");
        let mut members = Vec::new();
        self.space();
        if self.take('}') {
            return Ok(Exact::Object(members));
        }
        loop {
            self.space();
            let name = self.text()?;
            self.space();
            ensure!(self.take(':'), "a name is followed by a colon");
            members.push((name, self.value()?));
            self.space();
            if self.take('}') {
                return Ok(Exact::Object(members));
            }
            ensure!(self.take(','), "an object goes on with a comma");
        }
    }
}

/// Parses the records of CSV as RFC 4180 describes it.
pub(super) fn csv(text: &str) -> Result<Vec<Vec<String>>> {
    let mut records = Vec::new();
    let (mut record, mut field) = (Vec::new(), String::new());
    let mut left = text.chars().peekable();
    while let Some(next) = left.next() {
        match next {
            '"' if field.is_empty() => loop {
                match left.next().context("a quoted field without an end")? {
                    '"' if left.next_if_eq(&'"').is_none() => break,
                    inside => field.push(inside),
                }
            },
            ',' => record.push(std::mem::take(&mut field)),
            '\r' if left.next_if_eq(&'\n').is_some() => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            '"' | '\r' | '\n' => bail!("{next:?} within a field: {}", shortened(text)),
            plain => field.push(plain),
        }
    }
    ensure!(record.is_empty() && field.is_empty(), "the last record has no end");
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_escapes_and_repeated_members_are_distinguished() {
        let parse = |text: &str| Exact::parse(text).unwrap();
        assert_eq!(parse(r#""\u0041\ud83d\ude00""#), parse("\"A😀\""));
        for (one, other) in [
            ("1.0", "1.00"),
            ("1e400", "1E400"),
            ("0", "-0"),
            ("18446744073709551617", "18446744073709551616"),
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#),
        ] {
            assert_ne!(parse(one), parse(other), "{one} {other}");
        }
        assert!(Exact::parse("1 2").is_err() && Exact::parse("\"\u{1}\"").is_err());
    }

    #[test]
    fn fields_of_csv_may_hold_quotes_commas_and_lines() {
        let records = csv("a,b\r\n\"x,\"\"y\"\"\r\nz\",\r\n").unwrap();
        assert_eq!(records, [["a", "b"], ["x,\"y\"\r\nz", ""]]);
    }
}
