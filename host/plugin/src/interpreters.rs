//! Finds the interpreter that runs a script or a declaration. An interpreter is a component in a
//! folder.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use lantern_core::VersionSource;

use crate::LoadError;

/// The folders in which interpreters can be, relative to the folder of the program. The first one
/// that exists is used. The second one is for installed packages.
const FOLDERS: [&str; 2] = ["interpreters", "../share/lantern/interpreters"];
/// The maximum length of the name of a source file, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// The extensions of source files, each with its language and its media type.
const EXTENSIONS: [(&str, Language, &str); 8] = [
    ("py", Language::Python, "text/x-python"),
    ("js", Language::JavaScript, "text/javascript"),
    ("mjs", Language::JavaScript, "text/javascript"),
    ("ts", Language::JavaScript, "text/typescript"),
    ("mts", Language::JavaScript, "text/typescript"),
    ("yaml", Language::Declaration, "application/yaml"),
    ("yml", Language::Declaration, "application/yaml"),
    ("json", Language::Declaration, "application/json"),
];

/// The languages of source code. Each has an interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Scripts in Python.
    Python,
    /// Scripts in JavaScript and TypeScript.
    JavaScript,
    /// Declarations in YAML or JSON.
    Declaration,
}

impl Language {
    /// All languages. Those whose interpreters compile fastest come first.
    pub const ALL: [Self; 3] = [Self::Declaration, Self::JavaScript, Self::Python];

    /// Returns the language of the source file `name`, by the extension of the name; `None` if no
    /// language has this extension.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        of_extension(name).map(|(language, _)| language)
    }

    /// Returns the name of the file that contains the interpreter.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::Python => "python.wasm",
            Self::JavaScript => "javascript.wasm",
            Self::Declaration => "declare.wasm",
        }
    }
}

/// Returns the media type with which the source file `name` is uploaded, by the extension of the
/// name; `None` if no language has this extension.
#[must_use]
pub fn source_media_type(name: &str) -> Option<&'static str> {
    of_extension(name).map(|(_, media)| media)
}

fn of_extension(name: &str) -> Option<(Language, &'static str)> {
    let extension = Path::new(name).extension()?.to_str()?;
    EXTENSIONS
        .iter()
        .find(|(known, ..)| known.eq_ignore_ascii_case(extension))
        .map(|(_, language, media)| (*language, *media))
}

/// Creates a record of the source code `content` in the file `name`.
///
/// # Errors
/// Returns [`LoadError::SourceName`] if the name is not allowed, or [`LoadError::SourceText`] if
/// the content is not text.
pub fn source(name: &str, content: &[u8]) -> Result<VersionSource, LoadError> {
    let plain = !name.contains(['/', '\\']) && !name.contains(char::is_control);
    if !plain || name.len() > NAME_BYTES_MAX || Language::of(name).is_none() {
        return Err(LoadError::SourceName { name: name.chars().take(NAME_BYTES_MAX).collect() });
    }
    let text = std::str::from_utf8(content).map_err(|error| {
        let before = &content[..error.valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        LoadError::SourceText { name: name.into(), line }
    })?;
    Ok(VersionSource::new(name, text))
}

/// The folder that contains the interpreters.
#[derive(Clone, Debug)]
pub(crate) struct Interpreters {
    folder: PathBuf,
}

impl Interpreters {
    /// Uses the configured folder. If none is configured, uses one near the program.
    pub(crate) fn new(folder: Option<&Path>) -> Self {
        let folder = folder.map(Path::to_owned).unwrap_or_else(|| {
            let program = std::env::current_exe().unwrap_or_default();
            let near = program.parent().unwrap_or(Path::new("."));
            let mut folders = FOLDERS.iter().map(|folder| near.join(folder));
            folders.find(|folder| folder.is_dir()).unwrap_or_else(|| near.join(FOLDERS[0]))
        });
        Self { folder }
    }

    /// Returns the component of the interpreter that runs `source`.
    ///
    /// # Errors
    /// Returns [`LoadError::NoInterpreter`] if the folder does not contain it.
    pub(crate) fn component_for(&self, source: &VersionSource) -> Result<Vec<u8>, LoadError> {
        let VersionSource { name, .. } = source;
        let language = Language::of(name);
        let language = language.ok_or_else(|| LoadError::SourceName { name: name.clone() })?;
        let component = self.component(language)?;
        component.ok_or_else(|| LoadError::NoInterpreter {
            name: name.clone(),
            path: self.folder.join(language.file()).display().to_string(),
        })
    }

    /// Returns the component of the interpreter for `language`, if the folder contains it.
    ///
    /// # Errors
    /// Returns [`LoadError::Host`] if its file cannot be read.
    pub(crate) fn component(&self, language: Language) -> Result<Option<Vec<u8>>, LoadError> {
        let path = self.folder.join(language.file());
        match fs::read(&path) {
            Ok(component) => Ok(Some(component)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LoadError::Host {
                reason: format!("the interpreter `{}` cannot be read: {error}", path.display()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_a_name_with_a_known_extension_and_text() {
        let check = |name: &str, content: &[u8], expected: &str| {
            let text = source(name, content).map_or_else(|e| e.to_string(), |s| s.sha256);
            assert!(text.contains(expected), "{name}: {text} does not say {expected}");
        };
        // This is the SHA-256 of an empty text.
        check("totals.py", b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        check("Totals.PY", b"", "e3b0c442");
        check("totals.rb", b"", "`totals.rb`");
        check("py", b"", "`py`");
        check("a/totals.py", b"", "no folders");
        check("to\ntals.py", b"", "no folders");
        check("totals.py", b"a = 1\nb = '\xFF'\n", "line 2");
        let long = format!("{}.py", "x".repeat(NAME_BYTES_MAX));
        check(&long, b"", "128 bytes");
    }

    #[test]
    fn a_missing_interpreter_is_named_with_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let interpreters = Interpreters::new(Some(folder.path()));
        let error = interpreters.component_for(&VersionSource::new("a.ts", "")).unwrap_err();
        let path = folder.path().join("javascript.wasm");
        assert!(error.to_string().contains(&format!("`{}`", path.display())), "{error}");
        std::fs::write(&path, "code").unwrap();
        let found = interpreters.component_for(&VersionSource::new("a.ts", "")).unwrap();
        assert_eq!(found, b"code");
    }
}
