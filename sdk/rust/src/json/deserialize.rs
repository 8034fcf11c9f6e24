//! Implements serde's `Deserializer` for the reader and for the names of members.

use serde::de::{self, DeserializeSeed, Visitor};

use super::reader::{FallBack, ItemReader, Reader, Result};

/// Defines the methods that serde rarely calls. `serde_json` parses the value.
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

type FieldNames = &'static [&'static str];

/// The values that visitors get.
impl<'de> Reader<'de> {
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
            // `serde_json` must parse the whole value. Otherwise it disagrees with this reader
            // about the end of the value.
            Some(value) if reader.end().is_ok() => Ok(value),
            _ => self.give_up(),
        }
    }

    /// Parses a number. If it has no fraction, no exponent and at most 18 digits, it is parsed
    /// here.
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

    /// Returns the text of the string that begins at `start`. The string was skipped because it has
    /// escapes.
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

impl<'de> de::Deserializer<'de> for &mut Reader<'de> {
    type Error = FallBack;

    numbers!(deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64);
    numbers!(deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_f64);

    hand_over! {
        deserialize_i128();
        deserialize_u128();
        deserialize_f32();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_enum(name: &'static str, variants: FieldNames);
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
        self.record_failure(value)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.peek();
        self.word("null")?;
        let value = visitor.visit_unit();
        self.record_failure(value)
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
        self.record_failure(value)
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        // These are types of `serde_json` that only `serde_json` can create.
        if name.starts_with('$') {
            return self.hand_over(|json| {
                de::Deserializer::deserialize_newtype_struct(json, name, visitor).ok()
            });
        }
        let value = visitor.visit_newtype_struct(&mut *self);
        self.record_failure(value)
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
        _: FieldNames,
        visitor: V,
    ) -> Result<V::Value> {
        // `serde_json` also accepts an array for a struct. This is rare, so this reader leaves it
        // to `serde_json`.
        if self.peek() == b'{' { self.object(visitor) } else { self.give_up() }
    }

    #[inline]
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.pass()?;
        let value = visitor.visit_unit();
        self.record_failure(value)
    }
}

/// Defines the methods for types that the name of a member rarely has, such as numbers. The reader
/// gives up.
macro_rules! give_up {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value> {
            self.reader.give_up()
        }
    )*};
}

/// Reads the name of a member of an object.
struct KeyReader<'a, 'de> {
    reader: &'a mut Reader<'de>,
}

impl<'de> de::Deserializer<'de> for KeyReader<'_, 'de> {
    type Error = FallBack;

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
        _: FieldNames,
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
