//! Tests broken declarations. The message for `NAME.yaml` is in `NAME.txt`.
//!
//! With `LANTERN_UPDATE=1` the test writes the messages.

use std::path::{Path, PathBuf};

use super::try_host;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/broken")
}

#[test]
fn every_broken_declaration_is_refused_with_its_message() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 60, "{} broken declarations", files.len());
    let update = std::env::var_os("LANTERN_UPDATE").is_some();
    let mut wrong = Vec::new();
    for file in files {
        let source = std::fs::read_to_string(&file).unwrap();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let Err(message) = try_host(&source, "") else {
            wrong.push(format!("{name}: it was accepted"));
            continue;
        };
        let golden = file.with_extension("txt");
        if update {
            std::fs::write(&golden, format!("{message}\n")).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if expected.trim_end() != message {
            wrong.push(format!("{name}:\n{message}\nbut the file says\n{expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Checks that every beginning of a declaration, and every declaration without one of its bytes, is
/// accepted, or refused with a place. None of them may cause a panic.
#[test]
fn damaged_declarations_are_refused_without_a_panic() {
    const SOURCE: &str = include_str!("../../README.md");
    let start = SOURCE.find("name: revenue").unwrap();
    let end = start + SOURCE[start..].find("```").unwrap();
    let source = &SOURCE[start..end];
    assert!(try_host(source, "").is_ok());
    for at in 0..source.len() {
        let mut shorter = source.to_owned();
        shorter.remove(at);
        for damaged in [&source[..at], &shorter] {
            if let Err(message) = try_host(damaged, "") {
                assert!(message.starts_with("test.yaml:"), "{message}\nfor\n{damaged}");
            }
        }
    }
}
