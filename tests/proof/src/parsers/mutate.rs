//! Mutates inputs. Nearly valid inputs reach more code of a parser than random bytes.

use fastrand::Rng;

/// Words that parsers recognize or may handle wrongly.
const WORDS: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"\0",
    b"\xff",
    b"\xc3\x28",
    b"\xf0\x9f\x98\x80",
    b"\n",
    b"\r\n",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b"%",
    b"%00",
    b"%zz",
    b"%e2%82",
    b"&",
    b"=",
    b"+",
    b"*",
    b"#",
    b"data_base64",
    b"specversion",
    b"=====",
    b"ce-id",
    b"content-type",
    b"application/json",
    b"T24:00:00Z",
    b"-00:00",
    b"e30",
    b"__proto__",
];

/// Numbers at which arithmetic can overflow or lose precision.
const NUMBERS: &[&str] = &[
    "0",
    "-1",
    "1",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "-2147483649",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e400",
    "-0.0",
    "1e-400",
    "99999999999999999999999999999999999999999999",
];

/// Returns one input of `pool`, changed a few times.
pub(crate) fn mutated(pool: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = rng.choice(pool).cloned().unwrap_or_default();
    for _ in 0..1 << rng.u32(0..5) {
        change(&mut bytes, pool, rng);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, pool: &[Vec<u8>], rng: &mut Rng) {
    let at = rng.usize(..=bytes.len());
    let to = (at + (1 << rng.usize(0..8))).min(bytes.len());
    match rng.u8(..13) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.u8(..8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = rng.u8(..);
            }
        }
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..to)),
        4 => {
            // The piece is repeated a few times, or very often.
            let piece = bytes[at..to].to_vec();
            let times = if rng.u8(..16) == 0 { 1 << rng.usize(4..12) } else { rng.usize(1..4) };
            insert(bytes, at, &piece.repeat(times.min(1 << 16)));
        }
        5 => {
            let other = rng.choice(pool).map_or(&[][..], Vec::as_slice);
            let from = rng.usize(..=other.len());
            let until = rng.usize(from..=other.len());
            insert(bytes, at, &other[from..until]);
        }
        6 => {
            let other = rng.choice(pool).map_or(&[][..], Vec::as_slice);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[rng.usize(..=other.len())..]);
        }
        7 | 8 => insert(bytes, at, rng.choice(WORDS).copied().unwrap_or_default()),
        9 => replace_number(bytes, at, rng),
        10 => {
            let (open, close) = [("[", "]"), ("{\"a\":", "}"), ("{", "")][rng.usize(..3)];
            let depth = 1 << rng.usize(0..14);
            insert(bytes, to, close.repeat(depth).as_bytes());
            insert(bytes, at, open.repeat(depth).as_bytes());
        }
        11 => {
            // The number resembles a length or a count, in little-endian byte order.
            let wide = [1, 2, 4, 8][rng.usize(..4)];
            let number = [0, 1, u64::MAX, u64::MAX >> 1, rng.u64(..)][rng.usize(..5)];
            let end = (at + wide).min(bytes.len());
            bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
        }
        _ => {
            let noise: Vec<u8> = (0..rng.usize(..32)).map(|_| rng.u8(..)).collect();
            insert(bytes, at, &noise);
        }
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    bytes.splice(at..at, piece.iter().copied());
}

/// Replaces the first digits at or after `at` with an extreme number.
fn replace_number(bytes: &mut Vec<u8>, at: usize, rng: &mut Rng) {
    let Some(from) = bytes[at..].iter().position(u8::is_ascii_digit).map(|more| at + more) else {
        return;
    };
    let digits = bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = rng.choice(NUMBERS).copied().unwrap_or_default();
    bytes.splice(from..from + digits, number.bytes());
}
