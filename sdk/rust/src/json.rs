//! Parses events' data as JSON: fast for simple JSON, and always with the same result
//! as `serde_json`.
//!
//! [`Reader`] reads the text once, eight bytes at a time within strings. It skips
//! members that the type does not name, and borrows text. It passes rare values, such
//! as fractions or text with escapes, to `serde_json` one by one. If it finds an error
//! or an unsupported construct, it gives up, and `serde_json` parses the whole text. So
//! `Reader` reports no errors itself, and needs to be correct only for texts that it
//! accepts.

mod deserialize;

use std::fmt::{self, Display};

use serde::de::{self, Deserialize, DeserializeSeed, Visitor};

use deserialize::KeyReader;

/// The nesting of arrays and objects that is parsed here. `serde_json` stops at 128,
/// and a value passed to it counts from 0 again.
const DEPTH_MAX: u32 = 48;

/// Parses `text` as a `T`, as `serde_json::from_str` does.
#[inline]
pub(crate) fn from_str<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    match Reader::read(text) {
        Some(value) => Ok(value),
        None => parse_with_serde_json(text),
    }
}

/// The text of the member `name` of the object `text`. Parsing stops there. None if
/// there is no such member, if it has escapes, or if the text before it is not JSON.
#[inline]
pub(crate) fn member<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut reader = Reader { text, at: 0, depth: 0, failed: false };
    (reader.peek() == b'{').then(|| reader.member(name))?.ok()?
}

#[cold]
#[inline(never)]
fn parse_with_serde_json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text)
}

/// The reader gave up. The error has no message: the caller gets one from `serde_json`.
#[derive(Debug)]
struct FallBack;

impl Display for FallBack {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl std::error::Error for FallBack {}

impl de::Error for FallBack {
    fn custom<T: Display>(_: T) -> Self {
        Self
    }

    // Without these, each error would build a message that is never used.

    fn invalid_type(_: de::Unexpected<'_>, _: &dyn de::Expected) -> Self {
        Self
    }

    fn invalid_value(_: de::Unexpected<'_>, _: &dyn de::Expected) -> Self {
        Self
    }

    fn invalid_length(_: usize, _: &dyn de::Expected) -> Self {
        Self
    }

    fn unknown_variant(_: &str, _: &'static [&'static str]) -> Self {
        Self
    }

    fn unknown_field(_: &str, _: &'static [&'static str]) -> Self {
        Self
    }

    fn missing_field(_: &'static str) -> Self {
        Self
    }

    fn duplicate_field(_: &'static str) -> Self {
        Self
    }
}

type Result<T, E = FallBack> = std::result::Result<T, E>;

struct Reader<'de> {
    text: &'de str,
    /// The current position.
    at: usize,
    depth: u32,
    /// Whether the reader gave up. A type may replace a field's error, for instance by
    /// a default; then the result may differ from that of `serde_json`.
    failed: bool,
}

impl<'de> Reader<'de> {
    #[inline]
    fn read<T: Deserialize<'de>>(text: &'de str) -> Option<T> {
        let mut reader = Self { text, at: 0, depth: 0, failed: false };
        let value = T::deserialize(&mut reader).ok()?;
        let suffix = reader.peek();
        (suffix == 0 && reader.at == text.len() && !reader.failed).then_some(value)
    }

    /// The byte at `at`, or 0 after the end. JSON never contains the byte 0.
    #[inline]
    fn byte(&self, at: usize) -> u8 {
        self.text.as_bytes().get(at).copied().unwrap_or(0)
    }

    #[inline]
    fn step(&mut self) {
        // An index beyond the address space is beyond the end of the text as well.
        self.at = self.at.wrapping_add(1);
    }

    /// The next byte that is not white space; `at` is its position.
    #[inline]
    fn peek(&mut self) -> u8 {
        let byte = self.byte(self.at);
        if byte > b' ' { byte } else { self.peek_past_space() }
    }

    #[cold]
    fn peek_past_space(&mut self) -> u8 {
        loop {
            match self.byte(self.at) {
                b' ' | b'\n' | b'\t' | b'\r' => self.step(),
                other => return other,
            }
        }
    }

    #[cold]
    fn give_up<T>(&mut self) -> Result<T> {
        self.failed = true;
        Err(FallBack)
    }

    /// Notes that a visitor returned an error.
    #[inline]
    fn record_failure<T>(&mut self, result: Result<T>) -> Result<T> {
        self.failed |= result.is_err();
        result
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.peek() != byte {
            return self.give_up();
        }
        self.step();
        Ok(())
    }

    /// Reads `word`, whose first byte was read.
    fn word(&mut self, word: &str) -> Result<()> {
        let suffix = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if !suffix.starts_with(word.as_bytes()) {
            return self.give_up();
        }
        self.at = self.at.wrapping_add(word.len());
        Ok(())
    }

    /// Advances to the first byte that cannot be part of a string unescaped: its end,
    /// an escape or a byte that is not allowed.
    #[inline]
    fn pass_plain(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while let Some(chunk) = bytes.get(self.at..).and_then(|suffix| suffix.first_chunk::<8>()) {
            let special = special(u64::from_le_bytes(*chunk));
            if special != 0 {
                // The lowest mark is always correct.
                self.at = self.at.wrapping_add(special.trailing_zeros() as usize / 8);
                return self.byte(self.at);
            }
            self.at = self.at.wrapping_add(8);
        }
        loop {
            match self.byte(self.at) {
                byte @ (0..b' ' | b'"' | b'\\') => return byte,
                _ => self.step(),
            }
        }
    }

    /// Reads a string whose first quote was read; none if it has escapes, and then it
    /// is skipped.
    #[inline]
    fn string(&mut self) -> Result<Option<&'de str>> {
        self.step();
        let start = self.at;
        match self.pass_plain() {
            b'"' => {
                let text = &self.text[start..self.at];
                self.step();
                Ok(Some(text))
            }
            b'\\' => self.pass_escaped().map(|()| None),
            _ => self.give_up(),
        }
    }

    /// Skips the rest of a string, from an escape on.
    #[cold]
    fn pass_escaped(&mut self) -> Result<()> {
        loop {
            match self.pass_plain() {
                b'"' => {
                    self.step();
                    return Ok(());
                }
                b'\\' => {
                    self.step();
                    let escape = self.byte(self.at);
                    self.step();
                    match escape {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                        b'u' => {
                            for _ in 0..4 {
                                if !self.byte(self.at).is_ascii_hexdigit() {
                                    return self.give_up();
                                }
                                self.step();
                            }
                        }
                        _ => return self.give_up(),
                    }
                }
                _ => return self.give_up(),
            }
        }
    }

    fn pass_digits(&mut self) -> Result<()> {
        if !self.byte(self.at).is_ascii_digit() {
            return self.give_up();
        }
        while self.byte(self.at).is_ascii_digit() {
            self.step();
        }
        Ok(())
    }

    fn pass_number(&mut self) -> Result<()> {
        if self.byte(self.at) == b'-' {
            self.step();
        }
        if self.byte(self.at) == b'0' {
            self.step();
            // A further digit after it is an error that is found at the end of the
            // value.
        } else {
            self.pass_digits()?;
        }
        if self.byte(self.at) == b'.' {
            self.step();
            self.pass_digits()?;
        }
        if matches!(self.byte(self.at), b'e' | b'E') {
            self.step();
            if matches!(self.byte(self.at), b'+' | b'-') {
                self.step();
            }
            self.pass_digits()?;
        }
        Ok(())
    }

    /// Skips a value.
    #[inline]
    fn pass(&mut self) -> Result<()> {
        match self.peek() {
            b'"' => self.string().map(drop),
            b'-' | b'0'..=b'9' => self.pass_number(),
            _ => self.pass_other(),
        }
    }

    fn pass_other(&mut self) -> Result<()> {
        match self.peek() {
            b'n' => self.word("null"),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'[' => {
                let mut items = self.open()?;
                while items.next(b']')? {
                    items.reader.pass()?;
                }
                self.close(b']')
            }
            b'{' => {
                let mut items = self.open()?;
                while items.next(b'}')? {
                    let reader = &mut *items.reader;
                    if reader.peek() != b'"' {
                        return reader.give_up();
                    }
                    reader.string()?;
                    reader.expect(b':')?;
                    reader.pass()?;
                }
                self.close(b'}')
            }
            _ => self.give_up(),
        }
    }

    /// The text of the member `name` of the object whose brace was read.
    #[inline]
    fn member(&mut self, name: &str) -> Result<Option<&'de str>> {
        let mut items = self.open()?;
        while items.next(b'}')? {
            let reader = &mut *items.reader;
            if reader.peek() != b'"' {
                return reader.give_up();
            }
            let found = reader.string()?;
            reader.expect(b':')?;
            if found == Some(name) {
                return if reader.peek() == b'"' { reader.string() } else { Ok(None) };
            }
            reader.pass()?;
        }
        Ok(None)
    }

    /// Enters an array or object.
    #[inline]
    fn open(&mut self) -> Result<ItemReader<'_, 'de>> {
        if self.depth == DEPTH_MAX {
            return self.give_up();
        }
        self.depth += 1;
        self.step();
        Ok(ItemReader { reader: self, first: true })
    }

    #[inline]
    fn close(&mut self, end: u8) -> Result<()> {
        self.depth -= 1;
        self.expect(end)
    }

    /// Skips the next value, and lets `serde_json` parse it.
    #[cold]
    #[inline(never)]
    fn hand_over<T>(
        &mut self,
        read: impl FnOnce(&mut serde_json::Deserializer<serde_json::de::StrRead<'de>>) -> Option<T>,
    ) -> Result<T> {
        self.peek();
        let start = self.at;
        self.pass()?;
        let mut reader = serde_json::Deserializer::from_str(&self.text[start..self.at]);
        match read(&mut reader) {
            // `serde_json` must parse it to its end; otherwise the two disagree about
            // where the value ends.
            Some(value) if reader.end().is_ok() => Ok(value),
            _ => self.give_up(),
        }
    }

    /// Parses a number. One without fraction and exponent, and with 18 digits or fewer,
    /// is parsed here.
    #[inline]
    fn number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        let negative = self.peek() == b'-';
        let start = self.at.wrapping_add(usize::from(negative));
        let (mut at, mut number) = (start, 0_u64);
        loop {
            let digit = self.byte(at).wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
            at = at.wrapping_add(1);
        }
        let digits = at.wrapping_sub(start);
        let zero_first = self.byte(start) == b'0' && (digits > 1 || negative);
        let whole = !matches!(self.byte(at), b'.' | b'e' | b'E');
        if !(1..=18).contains(&digits) || zero_first || !whole {
            return self.hand_over(|json| de::Deserializer::deserialize_f64(json, visitor).ok());
        }
        self.at = at;
        let value = if negative {
            visitor.visit_i64(number.cast_signed().wrapping_neg())
        } else {
            visitor.visit_u64(number)
        };
        self.record_failure(value)
    }

    #[inline]
    fn text_value<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        if self.peek() != b'"' {
            return self.give_up();
        }
        let start = self.at;
        let value = match self.string()? {
            Some(text) => visitor.visit_borrowed_str(text),
            None => self.escaped(start).and_then(|text| visitor.visit_str(&text)),
        };
        self.record_failure(value)
    }

    /// The string from `start`, which was skipped because of its escapes.
    #[cold]
    fn escaped(&mut self, start: usize) -> Result<String> {
        match serde_json::from_str(&self.text[start..self.at]) {
            Ok(text) => Ok(text),
            Err(_) => self.give_up(),
        }
    }

    #[inline]
    fn array<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        let value = visitor.visit_seq(self.open()?);
        let value = self.record_failure(value)?;
        self.close(b']')?;
        Ok(value)
    }

    #[inline]
    fn object<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        let value = visitor.visit_map(self.open()?);
        let value = self.record_failure(value)?;
        self.close(b'}')?;
        Ok(value)
    }
}

/// Marks the highest bit of each byte that is `"`, `\` or less than a space. Above the
/// lowest mark some marks may be wrong.
#[inline]
const fn special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let quote = word ^ (ONES * b'"' as u64);
    let escape = word ^ (ONES * b'\\' as u64);
    let marks = quote.wrapping_sub(ONES) & !quote
        | escape.wrapping_sub(ONES) & !escape
        | word.wrapping_sub(ONES * b' ' as u64) & !word;
    marks & HIGH
}

/// A reader between the items of an array or object.
struct ItemReader<'a, 'de> {
    reader: &'a mut Reader<'de>,
    first: bool,
}

impl ItemReader<'_, '_> {
    /// Advances to the next item; returns whether there is one before `end`.
    #[inline]
    fn next(&mut self, end: u8) -> Result<bool> {
        let reader = &mut *self.reader;
        let next = reader.peek();
        if next == end {
            return Ok(false);
        }
        if self.first {
            self.first = false;
            return Ok(true);
        }
        if next != b',' {
            return reader.give_up();
        }
        reader.step();
        if reader.peek() == end {
            return reader.give_up();
        }
        Ok(true)
    }
}

impl<'de> de::SeqAccess<'de> for ItemReader<'_, 'de> {
    type Error = FallBack;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        match self.next(b']')? {
            true => seed.deserialize(&mut *self.reader).map(Some),
            false => Ok(None),
        }
    }
}

impl<'de> de::MapAccess<'de> for ItemReader<'_, 'de> {
    type Error = FallBack;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        match self.next(b'}')? {
            true => seed.deserialize(KeyReader { reader: &mut *self.reader }).map(Some),
            false => Ok(None),
        }
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        self.reader.expect(b':')?;
        seed.deserialize(&mut *self.reader)
    }
}

#[cfg(test)]
mod tests;
