//! Parses events' data as JSON: fast for simple JSON, and always with the same result
//! as `serde_json`.
//!
//! [`Reader`] reads the text once, eight bytes at a time within strings. It skips
//! members that the type does not name, and borrows text. It passes rare values, such
//! as fractions or text with escapes, to `serde_json` one by one. If it finds an error
//! or something it does not support, it gives up, and `serde_json` parses the whole
//! text. So `Reader` reports no errors of its own, and only the texts that it accepts
//! must be parsed correctly.

use std::fmt::{self, Display};

use serde::de::{self, Deserialize, DeserializeSeed, Visitor};

/// The nesting of arrays and objects that is parsed here. `serde_json` stops at 128,
/// and a value passed to it counts from 0 again.
const DEPTH_MAX: u32 = 48;

/// Parses `text` as a `T`, as `serde_json::from_str` does.
#[inline]
pub(crate) fn from_str<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    match Reader::read(text) {
        Some(value) => Ok(value),
        None => again(text),
    }
}

/// The text of the member `name` of the object `text`. Parsing stops there. None if
/// there is no such member, if it has escapes, or if the text before it is not JSON.
#[inline]
pub(crate) fn member<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut reader = Reader { text, at: 0, depth: 0, over: false };
    (reader.peek() == b'{').then(|| reader.member(name))?.ok()?
}

#[cold]
#[inline(never)]
fn again<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text)
}

/// The reader gave up. The error has no message: the caller gets one from `serde_json`.
#[derive(Debug)]
struct GiveUp;

impl Display for GiveUp {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl std::error::Error for GiveUp {}

impl de::Error for GiveUp {
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

type Result<T, E = GiveUp> = std::result::Result<T, E>;

struct Reader<'de> {
    text: &'de str,
    /// The current position.
    at: usize,
    depth: u32,
    /// Whether it gave up. A type may replace a field's error, for instance by a
    /// default; then the result may differ from that of `serde_json`.
    over: bool,
}

impl<'de> Reader<'de> {
    #[inline]
    fn read<T: Deserialize<'de>>(text: &'de str) -> Option<T> {
        let mut reader = Self { text, at: 0, depth: 0, over: false };
        let value = T::deserialize(&mut reader).ok()?;
        let rest = reader.peek();
        (rest == 0 && reader.at == text.len() && !reader.over).then_some(value)
    }

    /// The byte at `at`, 0 after the end: JSON allows 0 nowhere.
    #[inline]
    fn byte(&self, at: usize) -> u8 {
        self.text.as_bytes().get(at).copied().unwrap_or(0)
    }

    #[inline]
    fn step(&mut self) {
        // An index past the address space would find no byte either.
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
        self.over = true;
        Err(GiveUp)
    }

    /// Notes that a visitor returned an error.
    #[inline]
    fn noted<T>(&mut self, result: Result<T>) -> Result<T> {
        self.over |= result.is_err();
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
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
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
        while let Some(chunk) = bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
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
    fn open(&mut self) -> Result<Items<'_, 'de>> {
        if self.depth == DEPTH_MAX {
            return self.give_up();
        }
        self.depth += 1;
        self.step();
        Ok(Items { reader: self, first: true })
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
            // It must be parsed to its end; otherwise the two disagree about the value.
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
        self.noted(value)
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
        self.noted(value)
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
        let value = self.noted(value)?;
        self.close(b']')?;
        Ok(value)
    }

    #[inline]
    fn object<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        let value = visitor.visit_map(self.open()?);
        let value = self.noted(value)?;
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
    let found = quote.wrapping_sub(ONES) & !quote
        | escape.wrapping_sub(ONES) & !escape
        | word.wrapping_sub(ONES * b' ' as u64) & !word;
    found & HIGH
}

/// A reader between the items of an array or object.
struct Items<'a, 'de> {
    reader: &'a mut Reader<'de>,
    first: bool,
}

impl Items<'_, '_> {
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

impl<'de> de::SeqAccess<'de> for Items<'_, 'de> {
    type Error = GiveUp;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        match self.next(b']')? {
            true => seed.deserialize(&mut *self.reader).map(Some),
            false => Ok(None),
        }
    }
}

impl<'de> de::MapAccess<'de> for Items<'_, 'de> {
    type Error = GiveUp;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        match self.next(b'}')? {
            true => seed.deserialize(Name { reader: &mut *self.reader }).map(Some),
            false => Ok(None),
        }
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        self.reader.expect(b':')?;
        seed.deserialize(&mut *self.reader)
    }
}

/// Methods that serde rarely calls: `serde_json` parses the value.
macro_rules! hand_over {
    ($($method:ident($($name:ident: $type:ty),*);)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($name: $type,)* visitor: V) -> Result<V::Value> {
            self.hand_over(|json| de::Deserializer::$method(json, $($name,)* visitor).ok())
        }
    )*};
}

macro_rules! numbers {
    ($($method:ident)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            self.number(visitor)
        }
    )*};
}

type Names = &'static [&'static str];

impl<'de> de::Deserializer<'de> for &mut Reader<'de> {
    type Error = GiveUp;

    numbers!(deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64);
    numbers!(deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_f64);

    hand_over! {
        deserialize_i128();
        deserialize_u128();
        deserialize_f32();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_enum(name: &'static str, variants: Names);
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek() {
            b'"' => self.text_value(visitor),
            b'{' => self.object(visitor),
            b'[' => self.array(visitor),
            b'n' => self.deserialize_unit(visitor),
            b't' | b'f' => self.deserialize_bool(visitor),
            _ => self.number(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let value = self.peek() == b't';
        self.word(if value { "true" } else { "false" })?;
        let value = visitor.visit_bool(value);
        self.noted(value)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.peek();
        self.word("null")?;
        let value = visitor.visit_unit();
        self.noted(value)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_unit(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let value = if self.peek() == b'n' {
            self.word("null")?;
            visitor.visit_none()
        } else {
            visitor.visit_some(&mut *self)
        };
        self.noted(value)
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        // Types of `serde_json` itself, which only it can create.
        if name.starts_with('$') {
            return self.hand_over(|json| {
                de::Deserializer::deserialize_newtype_struct(json, name, visitor).ok()
            });
        }
        let value = visitor.visit_newtype_struct(&mut *self);
        self.noted(value)
    }

    #[inline]
    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.text_value(visitor)
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.text_value(visitor)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.text_value(visitor)
    }

    #[inline]
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.text_value(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if self.peek() == b'[' { self.array(visitor) } else { self.give_up() }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if self.peek() == b'{' { self.object(visitor) } else { self.give_up() }
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: Names,
        visitor: V,
    ) -> Result<V::Value> {
        // `serde_json` also accepts an array for a struct; that is rare.
        if self.peek() == b'{' { self.object(visitor) } else { self.give_up() }
    }

    #[inline]
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.pass()?;
        let value = visitor.visit_unit();
        self.noted(value)
    }
}

/// Types that are rarely used for a member's name, above all numbers.
macro_rules! give_up {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value> {
            self.reader.give_up()
        }
    )*};
}

/// The name of an object's member.
struct Name<'a, 'de> {
    reader: &'a mut Reader<'de>,
}

impl<'de> de::Deserializer<'de> for Name<'_, 'de> {
    type Error = GiveUp;

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.reader.text_value(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        if name.starts_with('$') {
            self.reader.give_up()
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: Names,
        _: V,
    ) -> Result<V::Value> {
        self.reader.give_up()
    }

    serde::forward_to_deserialize_any! {
        char str string unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }

    give_up! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_u128 deserialize_f32 deserialize_f64 deserialize_bytes deserialize_byte_buf
    }
}

#[cfg(test)]
mod tests;
