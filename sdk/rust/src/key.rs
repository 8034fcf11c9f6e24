//! Implements the keys of rows.
//!
//! A key is text, ordered by its bytes. A key can consist of several parts with `/` between them.
//! Rows whose keys begin with the same parts are adjacent.

use std::borrow::Cow;

use crate::Timestamp;

/// A value that can be used as a key.
///
/// Text is used unchanged. The key of a tuple consists of its parts with `/` between them. A `/` or
/// `%` *inside* a part becomes `%2F` or `%25`, so that different parts never give the same key.
/// Unsigned numbers are padded with zeros, so that they sort as numbers do; [`Narrow`] integers
/// need fewer bytes.
///
/// U+0000 cannot be part of a key: it separates the tenant of an [`InTenant`] from the rest. Text
/// from events may contain it. Every function refuses a key that is built from such text. So two
/// different keys never become equal.
///
/// Begin a key with the part by which rows are read. If one part is a time, put it before all
/// others. New rows are then added at one end of the table, which is several times faster than
/// adding them all over the table.
///
/// ```
/// # use lantern_sdk::{Key, Timestamp};
/// let minute = Timestamp::from_seconds(60);
/// assert_eq!((minute, "t7").to_key(), "1970-01-01T00:01:00Z/t7");
/// assert_eq!(("a/b", 7_u16).to_key(), "a%2Fb/00007");
/// ```
pub trait Key {
    /// Appends the text of the key to `out`.
    fn write(&self, out: &mut String);

    /// Appends the text of the key to `out` as one part of a key with several parts.
    fn write_part(&self, out: &mut String) {
        self.write(out);
    }

    /// Returns the tenant, if the key is an [`InTenant`]. A key that contains another key returns
    /// the tenant of that key.
    #[inline]
    fn tenant(&self) -> Option<&str> {
        None
    }

    /// Returns the text of the key.
    fn to_key(&self) -> String {
        let mut key = String::new();
        self.write(&mut key);
        key
    }
}

impl<K: Key + ?Sized> Key for &K {
    #[inline]
    fn write(&self, out: &mut String) {
        (**self).write(out);
    }

    #[inline]
    fn write_part(&self, out: &mut String) {
        (**self).write_part(out);
    }

    #[inline]
    fn tenant(&self) -> Option<&str> {
        (**self).tenant()
    }
}

impl Key for str {
    #[inline]
    fn write(&self, out: &mut String) {
        push(out, self);
    }

    #[inline]
    fn write_part(&self, out: &mut String) {
        if is_plain(self.as_bytes()) {
            push(out, self);
        } else {
            for part in self.chars() {
                match part {
                    '/' => out.push_str("%2F"),
                    '%' => out.push_str("%25"),
                    other => out.push(other),
                }
            }
        }
    }
}

/// Returns whether `text` contains neither `/` nor `%`. The function checks eight bytes at a time.
#[inline]
fn is_plain(text: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let none = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7) == 0;
    let plain = |byte: u8| !matches!(byte, b'/' | b'%');
    let (words, rest) = text.as_chunks::<8>();
    let word = |word: &[u8; 8]| {
        let word = u64::from_le_bytes(*word);
        none(word ^ (ONES * u64::from(b'/'))) && none(word ^ (ONES * u64::from(b'%')))
    };
    words.iter().all(word) && rest.iter().copied().all(plain)
}

/// Appends `text` like [`String::push_str`]. It is faster for text that is usually short.
#[inline]
pub(crate) fn push(out: &mut String, text: &str) {
    in_pieces(text, |piece| out.push_str(piece));
}

/// Appends `text` like [`push`], to a vector of bytes.
#[inline]
pub(crate) fn push_bytes(out: &mut Vec<u8>, text: &str) {
    in_pieces(text, |piece| out.extend_from_slice(piece.as_bytes()));
}

/// Copies a short text in pieces of 8, 4, 2 and 1 bytes. In Wasm, a copy of a length that is known
/// only at run time is a call out of the sandbox; copies of these sizes are not.
#[inline]
fn in_pieces(text: &str, mut take: impl FnMut(&str)) {
    let mut rest = text;
    if rest.len() <= 32 {
        while let Some((head, tail)) = rest.split_at_checked(8) {
            take(head);
            rest = tail;
        }
        if let Some((head, tail)) = rest.split_at_checked(4) {
            take(head);
            rest = tail;
        }
        if let Some((head, tail)) = rest.split_at_checked(2) {
            take(head);
            rest = tail;
        }
        if let Some((head, tail)) = rest.split_at_checked(1) {
            take(head);
            rest = tail;
        }
    }
    if !rest.is_empty() {
        take(rest);
    }
}

/// Returns the original text of `part`, which is one part of a tuple's key: the inverse of the
/// escaping that [`Key`] does.
///
/// ```
/// # use lantern_sdk::{key_part, Key};
/// let key = ("a/b", "100 %").to_key();
/// let parts: Vec<_> = key.split('/').map(key_part).collect();
/// assert_eq!(parts, ["a/b", "100 %"]);
/// ```
#[must_use]
pub fn key_part(part: &str) -> Cow<'_, str> {
    if part.contains('%') {
        Cow::Owned(part.replace("%2F", "/").replace("%25", "%"))
    } else {
        Cow::Borrowed(part)
    }
}

macro_rules! like_str {
    ($($text:ty),*) => {$(
        impl Key for $text {
            #[inline]
            fn write(&self, out: &mut String) {
                str::write(self, out);
            }

            #[inline]
            fn write_part(&self, out: &mut String) {
                str::write_part(self, out);
            }
        }
    )*};
}

like_str!(String, Box<str>, Cow<'_, str>);

impl Key for Timestamp {
    /// The key of a time is its text in RFC 3339. Within one second, times with and without a
    /// fraction do not sort correctly. Use only one of the two kinds in a table, for instance with
    /// [`Timestamp::second`].
    #[inline]
    fn write(&self, out: &mut String) {
        self.write_to(out);
    }
}

macro_rules! unsigned {
    ($($number:ty: $width:literal),*) => {$(
        impl Key for $number {
            fn write(&self, out: &mut String) {
                let mut digits = itoa::Buffer::new();
                let digits = digits.format(*self);
                for _ in digits.len()..$width {
                    out.push('0');
                }
                out.push_str(digits);
            }
        }
    )*};
}

unsigned!(u8: 3, u16: 5, u32: 10, u64: 20);

macro_rules! tuple {
    ($first:ident $(, $rest:ident)*) => {
        impl<$first: Key, $($rest: Key),*> Key for ($first, $($rest,)*) {
            #[inline]
            #[allow(non_snake_case, reason = "the type's name is the value's")]
            fn write(&self, out: &mut String) {
                let ($first, $($rest,)*) = self;
                $first.write_part(out);
                $(
                    out.push('/');
                    $rest.write_part(out);
                )*
            }
        }
    };
}

tuple!(A, B);
tuple!(A, B, C);
tuple!(A, B, C, D);

/// The key of a row in a `per_tenant` table. It consists of the tenant and the rest of the key.
///
/// An `InTenant` is a complete key: it cannot be a part of a tuple. Scans return the
/// keys of such a table as text; [`Self::from_key`] splits one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InTenant<'a, K>(
    /// The tenant, as the event has it.
    pub &'a str,
    /// The key of the row within the tenant.
    pub K,
);

impl<K: Key> Key for InTenant<'_, K> {
    #[inline]
    fn write(&self, out: &mut String) {
        push(out, self.0);
        out.push('\0');
        self.1.write(out);
    }

    #[inline]
    fn tenant(&self) -> Option<&str> {
        Some(self.0)
    }
}

impl<'a> InTenant<'a, &'a str> {
    /// Splits a key that a scan of a `per_tenant` table has returned into the tenant and the rest.
    /// Returns `None` if the key has no tenant.
    ///
    /// ```
    /// # use lantern_sdk::{InTenant, Key};
    /// let key = InTenant("t7", "2026-03-01").to_key();
    /// assert_eq!(InTenant::from_key(&key), Some(InTenant("t7", "2026-03-01")));
    /// ```
    #[must_use]
    pub fn from_key(key: &'a str) -> Option<Self> {
        key.split_once('\0').map(|(tenant, rest)| Self(tenant, rest))
    }
}

/// An integer that becomes a short key. These keys sort as the integers do. A key is a letter for
/// the number of digits, followed by the digits: the key of 7 is `a7`, and that of 1999 is `d1999`.
/// (The key of a `u64` is padded with zeros to 20 bytes.)
///
/// The key of a negative integer is a capital letter, followed by the nines' complement of its
/// digits, so negative integers sort before the others. The key of −7 is `Z2`, and that of −10 is
/// `Y89`.
///
/// ```
/// # use lantern_sdk::{Key, Narrow};
/// let keys = [-1999, -10, -7, 0, 7, 10, 1999].map(|number| Narrow(number).to_key());
/// assert_eq!(keys, ["W8000", "Y89", "Z2", "a0", "a7", "b10", "d1999"]);
/// assert!(keys.is_sorted());
/// assert_eq!(Narrow::parse("d1999"), Some(Narrow(1999)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Narrow(
    /// The value.
    pub i64,
);

impl Key for Narrow {
    fn write(&self, out: &mut String) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(self.0.unsigned_abs());
        let more = (digits.len() - 1) as u8;
        if self.0 < 0 {
            out.push(char::from(b'Z' - more));
            out.extend(digits.bytes().map(|digit| char::from(b'9' - digit + b'0')));
        } else {
            out.push(char::from(b'a' + more));
            out.push_str(digits);
        }
    }
}

impl Narrow {
    /// Parses the key of an integer, as [`Key::write`] writes it. Returns `None` if `text` is not
    /// such a key.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (letter, digits) = text.split_at_checked(1)?;
        let number = if letter.as_bytes()[0].is_ascii_uppercase() {
            let mut number = String::from("-");
            for digit in digits.bytes() {
                number.push(char::from(b'9'.checked_sub(digit)? + b'0'));
            }
            Self(number.parse().ok()?)
        } else {
            Self(digits.parse().ok()?)
        };
        // Each integer has exactly one key: there is no sign, there are no leading zeros, and the
        // letter must match.
        (number.to_key() == text).then_some(number)
    }
}

/// The message for a text with U+0000 that is not a key. It is also used for a tenant within a
/// tuple.
pub(crate) const NUL: &str = "U+0000 cannot be part of a key";

/// Splits a key into its tenant, which is empty if it has none, and the rest.
///
/// # Errors
/// Returns the reason why it is not a key: it contains U+0000 in another place than after a tenant,
/// or its tenant is empty.
pub(crate) fn split_tenant(key: impl Key) -> Result<(String, String), (String, &'static str)> {
    let mut rest = key.to_key();
    let tenant = match key.tenant().map(str::len) {
        Some(0) => {
            return Err((rest, "the tenant is empty; handle events without a tenant separately"));
        }
        Some(length) if rest.as_bytes().get(length) == Some(&0) => {
            let tenant = rest[..length].to_owned();
            rest.drain(..=length);
            tenant
        }
        _ => String::new(),
    };
    if tenant.contains('\0') || rest.contains('\0') {
        return Err((key.to_key(), NUL));
    }
    Ok((tenant, rest))
}

/// Returns the end of the range of all keys that begin with `prefix`; an empty text if the range
/// has no end.
pub(crate) fn end_of_prefix(prefix: &str) -> String {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        // A range of `char` leaves out the surrogates.
        if let Some(next) = (last..=char::MAX).nth(1) {
            end.push(next);
            return end;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_parts_never_make_the_same_key() {
        let keys = [("a/b", "c").to_key(), ("a", "b/c").to_key(), ("a%2Fb", "c").to_key()];
        assert_eq!(keys, ["a%2Fb/c", "a/b%2Fc", "a%252Fb/c"]);
        for key in &keys {
            assert_eq!(key.split('/').count(), 2);
        }
        assert_eq!(key_part("a%252Fb"), "a%2Fb");
    }

    proptest::proptest! {
        #[test]
        fn a_part_is_escaped_wherever_it_must_be(text in "[a-c%/ü]{0,3}[a-cü0-9]{0,40}[a-c%/ü]{0,3}") {
            let escaped = text.replace('%', "%25").replace('/', "%2F");
            proptest::prop_assert_eq!(text.to_key(), text.as_str());
            proptest::prop_assert_eq!((&*text, "b").to_key(), format!("{escaped}/b"));
        }
    }

    #[test]
    fn numbers_order_as_numbers() {
        assert!(9_u32.to_key() < 10_u32.to_key());
        assert_eq!(u64::MAX.to_key().len(), 20);
    }

    #[test]
    fn the_end_of_a_prefix_is_after_all_that_begin_with_it() {
        for prefix in ["a/", "a", "ü", "\u{d7ff}", "a\u{10ffff}"] {
            let end = end_of_prefix(prefix);
            assert!(*prefix < *end, "{prefix:?}");
            assert!(format!("{prefix}\u{10ffff}x") < end, "{prefix:?}");
        }
        assert_eq!(end_of_prefix("\u{10ffff}"), "");
        assert_eq!(end_of_prefix(""), "");
    }
}
