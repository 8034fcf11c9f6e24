//! Reads a JSON text from its start to its end. It skips values, and reads strings and the items of
//! arrays and objects.

use std::fmt::{self, Display};

use serde::de;

/// The maximum nesting of arrays and objects that this reader parses. `serde_json` stops at 128
/// levels, but counts from 0 again in a value that the reader passes to it.
const DEPTH_MAX: u32 = 48;

/// The error that the reader has given up. It has no message: the caller then calls `serde_json`,
/// whose error has a message.
#[derive(Debug)]
pub(super) struct FallBack;

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

    // Without these methods, each error would create a message that is never used.

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

pub(super) type Result<T, E = FallBack> = std::result::Result<T, E>;

/// Reads a JSON text from its start to its end.
pub(super) struct Reader<'de> {
    pub(super) text: &'de str,
    /// The index of the next byte.
    pub(super) at: usize,
    depth: u32,
    /// Whether the reader has found a text that it does not support. The flag is needed because a
    /// type may ignore the error of a field, for instance by using a default value. Without the
    /// flag, the result would then differ from the result of `serde_json`.
    failed: bool,
}

impl<'de> Reader<'de> {
    #[inline]
    pub(super) fn new(text: &'de str) -> Self {
        Self { text, at: 0, depth: 0, failed: false }
    }

    /// Returns whether the whole text was read. If so, the result is the same as that of
    /// `serde_json`.
    #[inline]
    pub(super) fn is_complete(&mut self) -> bool {
        self.peek() == 0 && self.at == self.text.len() && !self.failed
    }

    /// Returns the byte at `at`, or 0 after the end of the text. JSON never contains the byte 0.
    #[inline]
    pub(super) fn byte(&self, at: usize) -> u8 {
        self.text.as_bytes().get(at).copied().unwrap_or(0)
    }

    #[inline]
    pub(super) fn step(&mut self) {
        // An index beyond the address space is also beyond the end of the text.
        self.at = self.at.wrapping_add(1);
    }

    /// Returns the next byte that is not white space, and moves `at` to it.
    #[inline]
    pub(super) fn peek(&mut self) -> u8 {
        let byte = self.byte(self.at);
        if byte > b' ' { byte } else { self.peek_past_space() }
    }

    #[cold]
    pub(super) fn peek_past_space(&mut self) -> u8 {
        loop {
            match self.byte(self.at) {
                b' ' | b'\n' | b'\t' | b'\r' => self.step(),
                other => return other,
            }
        }
    }

    #[cold]
    pub(super) fn give_up<T>(&mut self) -> Result<T> {
        self.failed = true;
        Err(FallBack)
    }

    /// Notes that a type has returned an error.
    #[inline]
    pub(super) fn record_failure<T>(&mut self, result: Result<T>) -> Result<T> {
        self.failed |= result.is_err();
        result
    }

    #[inline]
    pub(super) fn expect(&mut self, byte: u8) -> Result<()> {
        if self.peek() != byte {
            return self.give_up();
        }
        self.step();
        Ok(())
    }

    /// Reads the word `word`. Its first byte was read before.
    pub(super) fn word(&mut self, word: &str) -> Result<()> {
        let suffix = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if !suffix.starts_with(word.as_bytes()) {
            return self.give_up();
        }
        self.at = self.at.wrapping_add(word.len());
        Ok(())
    }

    /// Advances to the first byte that is not an ordinary byte of a string: the quote at its end,
    /// an escape, or a byte that is not allowed.
    #[inline]
    pub(super) fn pass_plain(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while let Some(chunk) = bytes.get(self.at..).and_then(|suffix| suffix.first_chunk::<8>()) {
            let special = special(u64::from_le_bytes(*chunk));
            if special != 0 {
                // Only the lowest mark is always correct.
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

    /// Reads a string whose first quote was read. If the string has escapes, it is skipped, and the
    /// result is `None`.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Option<&'de str>> {
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

    /// Skips the rest of a string, beginning at an escape.
    #[cold]
    pub(super) fn pass_escaped(&mut self) -> Result<()> {
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

    pub(super) fn pass_digits(&mut self) -> Result<()> {
        if !self.byte(self.at).is_ascii_digit() {
            return self.give_up();
        }
        while self.byte(self.at).is_ascii_digit() {
            self.step();
        }
        Ok(())
    }

    pub(super) fn pass_number(&mut self) -> Result<()> {
        if self.byte(self.at) == b'-' {
            self.step();
        }
        if self.byte(self.at) == b'0' {
            self.step();
            // A digit after a leading zero is an error. The check at the end of the value finds it.
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
    pub(super) fn pass(&mut self) -> Result<()> {
        match self.peek() {
            b'"' => self.string().map(drop),
            b'-' | b'0'..=b'9' => self.pass_number(),
            _ => self.pass_other(),
        }
    }

    pub(super) fn pass_other(&mut self) -> Result<()> {
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

    /// Returns the text of the member `name` of the object. The object's opening brace was read
    /// before.
    #[inline]
    pub(super) fn member(&mut self, name: &str) -> Result<Option<&'de str>> {
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

    /// Begins to read an array or object.
    #[inline]
    pub(super) fn open(&mut self) -> Result<ItemReader<'_, 'de>> {
        if self.depth == DEPTH_MAX {
            return self.give_up();
        }
        self.depth += 1;
        self.step();
        Ok(ItemReader { reader: self, first: true })
    }

    #[inline]
    pub(super) fn close(&mut self, end: u8) -> Result<()> {
        self.depth -= 1;
        self.expect(end)
    }
}

/// Marks the highest bit of each byte that is `"`, `\` or less than a space. Only the lowest mark
/// is reliable; marks above it may be wrong.
#[inline]
pub(super) const fn special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let quote = word ^ (ONES * b'"' as u64);
    let escape = word ^ (ONES * b'\\' as u64);
    let marks = quote.wrapping_sub(ONES) & !quote
        | escape.wrapping_sub(ONES) & !escape
        | word.wrapping_sub(ONES * b' ' as u64) & !word;
    marks & HIGH
}

/// Reads the items of an array or object.
pub(super) struct ItemReader<'a, 'de> {
    pub(super) reader: &'a mut Reader<'de>,
    first: bool,
}

impl ItemReader<'_, '_> {
    /// Advances to the next item. Returns `false` if `end` comes next.
    #[inline]
    pub(super) fn next(&mut self, end: u8) -> Result<bool> {
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
