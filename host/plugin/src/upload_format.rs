//! Detects the format of an upload from its first bytes.

use crate::LoadError;

/// The two binary forms of WebAssembly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UploadFormat {
    /// The upload is a core module.
    Module,
    /// The upload is a component.
    Component,
}

/// How many characters of a text an error quotes.
const QUOTED_CHARS: usize = 24;

/// Detects the format of `bytes`.
///
/// # Errors
/// Returns [`LoadError::NotWasm`] with the format that the bytes have instead.
pub(crate) fn detect_format(bytes: &[u8]) -> Result<UploadFormat, LoadError> {
    if let Some(version_and_body) = bytes.strip_prefix(b"\0asm") {
        return match version_and_body.get(..4) {
            Some([1, 0, 0, 0]) => Ok(UploadFormat::Module),
            Some([0x0D, 0, 1, 0]) => Ok(UploadFormat::Component),
            Some(version) => Err(not_wasm(format!(
                "it begins like WebAssembly, but with the unknown version `{}`",
                hex::encode(version)
            ))),
            None => Err(not_wasm("it is cut off after the first bytes".into())),
        };
    }
    Err(not_wasm(describe(bytes)))
}

fn not_wasm(actual: String) -> LoadError {
    LoadError::NotWasm { actual }
}

fn describe(bytes: &[u8]) -> String {
    const KNOWN: [(&[u8], &str); 16] = [
        (b"\x7FELF", "an ELF program or library"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\x1F\x8B", "a gzip archive"),
        (b"\x28\xB5\x2F\xFD", "a zstd archive"),
        (b"MZ", "a Windows program"),
        (b"\xCF\xFA\xED\xFE", "a macOS program"),
        (b"\xCA\xFE\xBA\xBE", "a macOS program or Java class"),
        (b"!<arch>", "a static library"),
        (b"BC\xC0\xDE", "LLVM bitcode"),
        (b"#!", "a script"),
        (b"<!DOCTYPE", "an HTML page"),
        (b"<!doctype", "an HTML page"),
        (b"<html", "an HTML page"),
        (b"(module", "WebAssembly as text, which `wasm-tools parse` makes binary"),
        (b"(component", "WebAssembly as text, which `wasm-tools parse` makes binary"),
        (b"version https://git-lfs", "a Git LFS pointer, not the file that it points to"),
    ];
    if bytes.is_empty() {
        return "it is empty".into();
    }
    let start = bytes.trim_ascii_start();
    if let Some((magic, what)) = KNOWN.iter().find(|(magic, _)| start.starts_with(magic)) {
        return format!("it begins with `{}`: {what}", magic.escape_ascii());
    }
    let head = &bytes[..bytes.len().min(4 * QUOTED_CHARS)];
    // The part that was read may end within a character.
    let text = match std::str::from_utf8(head) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    };
    match text {
        Some(text) if text.chars().all(|c| !c.is_control() || c.is_whitespace()) => {
            let quoted: String = text.chars().take(QUOTED_CHARS).collect();
            format!("it begins with the text `{}`", quoted.escape_debug())
        }
        _ => {
            format!("it begins with the bytes {}", hex::encode(&bytes[..bytes.len().min(8)]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_format_of_an_upload() {
        let message = |bytes: &[u8]| {
            detect_format(bytes).map_or_else(|e| e.to_string(), |f| format!("{f:?}"))
        };
        assert_eq!(message(b"\0asm\x01\0\0\0"), "Module");
        assert_eq!(message(b"\0asm\x0D\0\x01\0"), "Component");
        for (bytes, expected) in [
            (b"".as_slice(), "it is empty"),
            (b"\0asm\x02\0\0\0", "unknown version `02000000`"),
            (b"\0asm\x01", "cut off"),
            (b"\x7FELF\x02\x01", "ELF program"),
            (b"PK\x03\x04rest", "zip archive"),
            (b"  <html><body>", "HTML page"),
            (b"(module)", "`wasm-tools parse`"),
            (b"#!/bin/sh", "a script"),
            ("fn main() { übung }".as_bytes(), "the text `fn main() { übung }`"),
            (b"\xFF\xFE\x00\x01", "the bytes fffe0001"),
        ] {
            let message = message(bytes);
            assert!(message.contains(expected), "{message} does not say {expected}");
            assert!(message.ends_with("upload the .wasm file that your compiler wrote"));
        }
    }
}
