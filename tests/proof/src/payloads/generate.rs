//! Generates random JSON, valid by RFC 8259: numbers of any length, any escapes, repeated members,
//! any depth.

use std::fmt::Write as _;

use fastrand::Rng;

/// The maximum depth of a payload. The limit of the server's default settings is 64.
const DEPTH_MAX: usize = 90;
/// If a payload has at most this depth, its event must be accepted. The limit also counts the
/// levels of the event's own object, of `data` and of the member `doc`.
const DEPTH_TAKEN: usize = 60;
/// The maximum number of values in a payload, apart from those that only make it deep.
const VALUES_MAX: usize = 24;

/// A random payload of an event.
#[derive(Clone, Debug)]
pub(super) struct Payload {
    /// The seed of the case that this payload belongs to.
    pub(super) seed: u64,
    /// The text of the JSON value.
    pub(super) json: String,
    /// Whether the JSON is the whole `data` of the event. Otherwise it is the member `doc` of
    /// `data`.
    pub(super) whole: bool,
    /// The form in which the event is sent.
    pub(super) mode: Mode,
    /// Whether the server may refuse the event when it arrives.
    pub(super) refusable: bool,
}

/// The form in which an event is sent: a content mode of the CloudEvents HTTP binding, or lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Batch,
    Lines,
    Structured,
    Binary,
}

impl Payload {
    /// Generates the payload of the seed `seed`.
    pub(super) fn random(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mode = match rng.u8(..40) {
            0 => Mode::Structured,
            1 => Mode::Binary,
            2..12 => Mode::Lines,
            _ => Mode::Batch,
        };
        let whole = rng.bool();
        let mut writer = Writer { rng, json: String::new(), values: 0, depth: 0, lone: false };
        let nested = match writer.rng.u8(..8) {
            0 => writer.rng.usize(..DEPTH_MAX),
            1 => writer.rng.usize(56..68),
            _ => 0,
        };
        writer.nested(nested, 0);
        let refusable = writer.lone || writer.depth > DEPTH_TAKEN;
        Self { seed, json: writer.json, whole, mode, refusable }
    }

    /// Returns the event's `data`.
    pub(super) fn data(&self) -> String {
        match self.whole {
            true => self.json.clone(),
            false => format!("{{\"doc\":{}}}", self.json),
        }
    }

    /// Returns the event's type.
    pub(super) fn kind(&self) -> &'static str {
        if self.whole { "doc.whole" } else { "doc.saved" }
    }
}

struct Writer {
    rng: Rng,
    json: String,
    values: usize,
    /// The depth of the deepest value so far.
    depth: usize,
    /// Whether the payload contains half of a surrogate pair.
    lone: bool,
}

impl Writer {
    /// Generates a value inside of `levels` arrays and objects.
    fn nested(&mut self, levels: usize, depth: usize) {
        if levels == 0 {
            return self.value(depth);
        }
        self.depth = self.depth.max(depth + 1);
        if self.rng.bool() {
            self.json.push('[');
            self.nested(levels - 1, depth + 1);
            self.json.push(']');
        } else {
            self.json.push('{');
            self.text();
            self.json.push(':');
            self.nested(levels - 1, depth + 1);
            self.json.push('}');
        }
    }

    fn value(&mut self, depth: usize) {
        self.values += 1;
        // If `data` were `null`, the event would have no data. So the outermost value is never
        // `null`.
        let kinds = if depth == 0 { 1..9 } else { 0..9 };
        let simple = self.values > VALUES_MAX || depth > 5;
        match self.rng.u8(kinds) {
            0 => self.json.push_str("null"),
            1 => self.json.push_str(["true", "false"][self.rng.usize(..2)]),
            2 | 3 => self.number(),
            6 | 7 if !simple => self.object(depth),
            8 if !simple => self.array(depth),
            _ => self.text(),
        }
    }

    fn space(&mut self) {
        if self.rng.u8(..8) == 0 {
            // There are no line ends, because an event is one line of NDJSON.
            self.json.push_str([" ", "\t", "  \t "][self.rng.usize(..3)]);
        }
    }

    fn digits(&mut self, most: usize) {
        for _ in 0..self.rng.usize(1..=most) {
            self.json.push(char::from(self.rng.u8(b'0'..=b'9')));
        }
    }

    fn number(&mut self) {
        if self.rng.u8(..3) == 0 {
            self.json.push('-');
        }
        let most = [1, 3, 19, 21, 40, 400][self.rng.usize(..6)];
        match self.rng.u8(..4) {
            0 => self.json.push('0'),
            _ => {
                self.json.push(char::from(self.rng.u8(b'1'..=b'9')));
                if most > 1 {
                    self.digits(most - 1);
                }
            }
        }
        if self.rng.u8(..3) == 0 {
            self.json.push('.');
            let most = [1, 2, 17, 60][self.rng.usize(..4)];
            self.digits(most);
        }
        if self.rng.u8(..3) == 0 {
            self.json.push(['e', 'E'][self.rng.usize(..2)]);
            self.json.push_str(["", "+", "-"][self.rng.usize(..3)]);
            let most = [1, 2, 3, 9, 25][self.rng.usize(..5)];
            self.digits(most);
        }
    }

    fn text(&mut self) {
        self.json.push('"');
        let most = [0, 2, 6, 40, 300][self.rng.usize(..5)];
        for _ in 0..self.rng.usize(..=most) {
            self.character();
        }
        self.json.push('"');
    }

    fn character(&mut self) {
        match self.rng.u8(..24) {
            0 => self.json.push_str(
                ["\\\"", "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t"][self.rng.usize(..8)],
            ),
            1 => {
                // The character can be any code unit except a surrogate, including U+0000.
                let unit = [0, 1, 0x1f, 0x22, 0x7f, 0x2028, 0xfffe, 0xffff, self.rng.u16(..0xd800)];
                let unit = unit[self.rng.usize(..unit.len())];
                self.unit(unit);
            }
            2 => {
                let (high, low) = (self.rng.u16(0xd800..0xdc00), self.rng.u16(0xdc00..0xe000));
                self.unit(high);
                self.unit(low);
            }
            3 if self.rng.u8(..40) == 0 => {
                self.lone = true;
                let unit = self.rng.u16(0xd800..0xe000);
                self.unit(unit);
                // The next character must not complete the surrogate pair.
                self.json.push('.');
            }
            4..8 => {
                let plain = self.rng.char(' '..);
                if matches!(plain, '"' | '\\') {
                    self.json.push('\\');
                }
                self.json.push(plain);
            }
            8 => self.json.push(
                [',', '\'', ';', '=', '<', '\u{7f}', '\u{85}', '\u{2028}', '\u{202e}', '\u{feff}']
                    [self.rng.usize(..10)],
            ),
            _ => self.json.push(char::from(self.rng.u8(b'a'..=b'z'))),
        }
    }

    fn unit(&mut self, unit: u16) {
        let _ = match self.rng.bool() {
            true => write!(self.json, "\\u{unit:04x}"),
            false => write!(self.json, "\\u{unit:04X}"),
        };
    }

    fn array(&mut self, depth: usize) {
        self.depth = self.depth.max(depth + 1);
        self.json.push('[');
        for index in 0..self.rng.usize(..6) {
            if index > 0 {
                self.json.push(',');
            }
            self.space();
            self.value(depth + 1);
            self.space();
        }
        self.json.push(']');
    }

    fn object(&mut self, depth: usize) {
        self.depth = self.depth.max(depth + 1);
        self.json.push('{');
        for index in 0..self.rng.usize(..6) {
            if index > 0 {
                self.json.push(',');
            }
            self.space();
            // The same name is used often, because members may be repeated.
            match self.rng.u8(..3) {
                0 => self.json.push_str(["\"a\"", "\"doc\"", "\"\""][self.rng.usize(..3)]),
                _ => self.text(),
            }
            self.space();
            self.json.push(':');
            self.space();
            self.value(depth + 1);
        }
        self.json.push('}');
    }
}

#[cfg(test)]
mod tests {
    use super::super::exact::Exact;
    use super::*;

    #[test]
    fn payloads_are_valid_json_of_many_kinds() {
        let (mut lone, mut deep, mut large) = (0, 0, 0);
        for seed in 0..4_000 {
            let payload = Payload::random(seed);
            Exact::parse(&payload.data()).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
            assert!(!payload.json.contains('\n'));
            lone += u32::from(payload.refusable);
            deep += u32::from(payload.json.matches(['[', '{']).count() > DEPTH_TAKEN);
            large += u32::from(payload.json.contains("e+") || payload.json.len() > 400);
        }
        assert!(lone > 100 && deep > 100 && large > 100, "{lone} {deep} {large}");
    }
}
