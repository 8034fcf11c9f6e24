//! Implements a scanner that finds the members of a JSON object, or the elements of an array, in
//! one pass. It accepts no text that `serde_json` refuses, and returns the slices that `serde_json`
//! would return.
//!
//! It does not handle names with escapes, deep nesting and invalid JSON. The caller must pass such
//! texts to `serde_json`, which also returns the error.
//!
//! Strings are read eight bytes at a time, because most of a text consists of strings.

/// The maximum depth of nesting that the scanner handles. [`Scanner::value`] has one bit for each
/// level.
const DEPTH_MAX: usize = 64;

/// Calls `member` with the name and the JSON of each member of the object `text`, in order. Stops
/// when `member` returns `false`. `depth_max` is the maximum depth of nesting, in which the object
/// itself is one level.
///
/// Returns `None` if this scanner does not handle `text`, or if `member` returned `false`.
pub(super) fn members<'a>(
    text: &'a str,
    depth_max: usize,
    mut member: impl FnMut(&'a str, &'a str) -> bool,
) -> Option<()> {
    let mut json = Scanner { text, next: 0 };
    let inner_max = depth_max.checked_sub(1)?.min(DEPTH_MAX);
    json.skip_space();
    json.expect(b'{')?;
    json.skip_space();
    if json.peek()? == b'}' {
        json.next += 1;
        return json.end();
    }
    loop {
        json.expect(b'"')?;
        let start = json.next;
        if json.string()? {
            return None;
        }
        let name = text.get(start..json.next - 1)?;
        json.colon()?;
        let start = json.next;
        json.value(inner_max)?;
        if !member(name, text.get(start..json.next)?) {
            return None;
        }
        json.skip_space();
        match json.take()? {
            b',' => json.skip_space(),
            b'}' => return json.end(),
            _ => return None,
        }
    }
}

/// Returns the JSON of each element of the array `text`. Returns `None` as [`members`] does.
pub(super) fn elements(text: &str, depth_max: usize) -> Option<Vec<&str>> {
    let mut json = Scanner { text, next: 0 };
    let inner_max = depth_max.checked_sub(1)?.min(DEPTH_MAX);
    let mut elements = Vec::new();
    json.skip_space();
    json.expect(b'[')?;
    json.skip_space();
    if json.peek()? == b']' {
        json.next += 1;
        return json.end().map(|()| elements);
    }
    loop {
        let start = json.next;
        json.value(inner_max)?;
        elements.push(text.get(start..json.next)?);
        json.skip_space();
        match json.take()? {
            b',' => json.skip_space(),
            b']' => return json.end().map(|()| elements),
            _ => return None,
        }
    }
}

/// Returns whether `text` is one JSON value that this scanner handles, with at most `depth_max`
/// levels.
pub(super) fn is_value(text: &str, depth_max: usize) -> bool {
    let mut json = Scanner { text, next: 0 };
    json.skip_space();
    json.value(depth_max.min(DEPTH_MAX)).and_then(|()| json.end()).is_some()
}

struct Scanner<'a> {
    text: &'a str,
    /// The index of the next byte.
    next: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.next).copied()
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.next += 1;
        Some(byte)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.take()? == byte).then_some(())
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.next += 1;
        }
    }

    /// Checks that only white space follows.
    fn end(&mut self) -> Option<()> {
        self.skip_space();
        self.peek().is_none().then_some(())
    }

    /// Reads a colon, with white space around it.
    fn colon(&mut self) -> Option<()> {
        self.skip_space();
        self.expect(b':')?;
        self.skip_space();
        Some(())
    }

    /// Reads a JSON value with at most `depth_max` levels.
    fn value(&mut self, depth_max: usize) -> Option<()> {
        // One bit for each open level: 1 for an object, 0 for an array.
        let (mut open, mut depth) = (0_u64, 0);
        loop {
            let first = self.take()?;
            match first {
                b'"' => drop(self.string()?),
                b'{' | b'[' => {
                    if depth == depth_max {
                        return None;
                    }
                    self.skip_space();
                    // In ASCII, a closing bracket has the code of its opening bracket plus 2.
                    if self.peek()? == first + 2 {
                        self.next += 1;
                    } else {
                        (open, depth) = (open << 1 | u64::from(first == b'{'), depth + 1);
                        if first == b'{' {
                            self.name()?;
                        }
                        continue;
                    }
                }
                b't' => self.literal("rue")?,
                b'f' => self.literal("alse")?,
                b'n' => self.literal("ull")?,
                first => self.number(first)?,
            }
            loop {
                if depth == 0 {
                    return Some(());
                }
                self.skip_space();
                match (self.take()?, open & 1) {
                    (b',', object) => {
                        self.skip_space();
                        if object == 1 {
                            self.name()?;
                        }
                        break;
                    }
                    (b'}', 1) | (b']', 0) => (open, depth) = (open >> 1, depth - 1),
                    _ => return None,
                }
            }
        }
    }

    /// Reads the name of a member below the first level, and the colon after it.
    fn name(&mut self) -> Option<()> {
        self.expect(b'"')?;
        self.string()?;
        self.colon()
    }

    fn literal(&mut self, rest: &str) -> Option<()> {
        let end = self.next + rest.len();
        (self.text.as_bytes().get(self.next..end)? == rest.as_bytes()).then_some(())?;
        self.next = end;
        Some(())
    }

    /// Reads the rest of a number whose first byte was `first`.
    fn number(&mut self, first: u8) -> Option<()> {
        let first = if first == b'-' { self.take()? } else { first };
        match first {
            // In JSON, no digit may follow a leading zero.
            b'0' if matches!(self.peek(), Some(b'0'..=b'9')) => return None,
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.next += 1;
            self.take()?.is_ascii_digit().then(|| self.digits())?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.next += 1;
            let first = self.take()?;
            let first = if matches!(first, b'+' | b'-') { self.take()? } else { first };
            first.is_ascii_digit().then(|| self.digits())?;
        }
        Some(())
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.peek() {
            self.next += 1;
        }
    }

    /// Reads the rest of a string after its first quote. Returns whether the string has escapes.
    fn string(&mut self) -> Option<bool> {
        let bytes = self.text.as_bytes();
        let mut escapes = false;
        loop {
            while let Some(eight) = bytes.get(self.next..).and_then(|rest| rest.first_chunk()) {
                let special = special(u64::from_le_bytes(*eight));
                if special != 0 {
                    self.next += special.trailing_zeros() as usize / 8;
                    break;
                }
                self.next += 8;
            }
            match self.take()? {
                b'"' => return Some(escapes),
                b'\\' => {
                    self.escape()?;
                    escapes = true;
                }
                0..0x20 => return None,
                // One of the last bytes of the text, which has no special meaning.
                _ => {}
            }
        }
    }

    /// Reads the rest of an escape after its backslash.
    fn escape(&mut self) -> Option<()> {
        match self.take()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let digits = self.text.as_bytes().get(self.next..self.next + 4)?;
                self.next += 4;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())
            }
            _ => None,
        }
    }
}

/// Finds the first special byte of `word`: a quote, a backslash or a byte below 0x20. It is the
/// byte whose highest bit is the lowest set bit of the result. Higher bits have no meaning. The
/// result is 0 if there is no special byte.
fn special(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    // The subtraction sets the highest bit of each byte that is too small. It then borrows from the
    // next higher byte, whose highest bit it can set wrongly.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\'))) | control)
        & HIGH
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;
    use crate::Name;

    /// Returns the members of the object `text`, as `serde_json` finds them.
    fn expected(text: &str) -> Option<Vec<(String, String)>> {
        struct Members(Vec<(String, String)>);
        impl<'de> serde::Deserialize<'de> for Members {
            fn deserialize<D: serde::Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl<'de> serde::de::Visitor<'de> for Visitor {
                    type Value = Members;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> Result<Members, A::Error> {
                        let mut members = Vec::new();
                        while let Some(Name(name)) = map.next_key()? {
                            let value: &RawValue = map.next_value()?;
                            members.push((name.into_owned(), value.get().to_owned()));
                        }
                        Ok(Members(members))
                    }
                }
                json.deserialize_map(Visitor)
            }
        }
        serde_json::from_str::<Members>(text).ok().map(|members| members.0)
    }

    fn found(text: &str) -> Option<Vec<(String, String)>> {
        let mut found = Vec::new();
        members(text, 65, |name, value| {
            found.push((name.to_owned(), value.to_owned()));
            true
        })?;
        Some(found)
    }

    /// Checks that the scanner, if it handles `text`, gives the same result as `serde_json`.
    fn check(text: &str) {
        if let Some(found) = found(text) {
            assert_eq!(Some(found), expected(text), "{text}");
        }
        let valid = serde_json::from_str::<&RawValue>(text).is_ok();
        assert_eq!(is_value(text, 64), valid, "{text}");
        let array = serde_json::from_str::<Vec<&RawValue>>(text).ok();
        let array = array.map(|elements| elements.into_iter().map(RawValue::get).collect());
        assert_eq!(elements(text, 65), array, "{text}");
    }

    #[test]
    fn the_scanner_finds_what_serde_json_finds() {
        let texts = [
            "{}",
            " { } ",
            "[]",
            "[ 1 , [ ] , { } ]",
            "{\"a\":1}",
            "{\"a\" : \"b\\u00e9\\n\" , \"a\":null}",
            "{\"é\":\"é\u{7f}\"}",
            "{\"a\":[{\"b\":[]},{}]}",
            "{\"a\":-0.0e+1}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":.5}",
            "{\"a\":-}",
            "{\"a\":1e}",
            "{\"a\":tru}",
            "{\"a\":true,}",
            "{\"a\",1}",
            "{a:1}",
            "{\"a\":1",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12g4\"}",
            "{\"a\":\"\t\"}",
            "{\"a\":\"0123456\t\"}",
            "{\"a\":[1,]}",
            "{\"a\":[}]}",
            "{\"a\":{1:2}}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":1}x",
            "{} {}",
            "",
            " ",
            "1",
            "\"",
            "nul",
            "{\"a\":{\"b\":}}",
            "{\"a\":[,1]}",
            "\u{feff}{}",
            "{\"a\":1E400}",
            "[1 2]",
            "{\"a\":1 \"b\":2}",
        ];
        texts.into_iter().for_each(check);
        assert_eq!(found("{\"\\u0061\":1}"), None, "names with escapes are left to serde_json");
    }

    #[test]
    fn nesting_is_handled_to_its_limit() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(is_value(&nested(64), 64) && !is_value(&nested(65), 64));
        assert!(is_value(&nested(64), 100) && !is_value(&nested(65), 100));
        let object = |depth| format!("{{\"a\":{}}}", nested(depth));
        assert!(found(&object(64)).is_some() && found(&object(65)).is_none());
        assert_eq!(members("{\"a\":[]}", 1, |_, _| true), None);
        assert_eq!(members("{\"a\":1}", 1, |_, _| true), Some(()));
        assert_eq!(members("{}", 0, |_, _| true), None);
        assert_eq!(members("{\"a\":1,\"b\":2}", 1, |name, _| name != "b"), None);
    }

    proptest! {
        #[test]
        fn changed_json_gives_what_serde_json_gives(
            value in "[a-zé\\\\\"\t]{0,20}",
            number in proptest::num::f64::ANY,
            changes in prop::collection::vec((any::<prop::sample::Index>(), "[\\[\\]{}:,\" 0-9eE.+\\\\u-]"), 0..4),
        ) {
            let json = serde_json::json!({"id": value, "n": number, "data": {
                "user": "u1", "list": [1, -2.5, {"x": null, "long name": [true, false]}], "text": value,
            }});
            let mut text: Vec<char> = json.to_string().chars().collect();
            for (index, with) in changes {
                let index = index.index(text.len());
                text.splice(index..=index, with.chars());
            }
            check(&text.into_iter().collect::<String>());
        }
    }
}
