//! Lists the hostile guests, so that a guest without an expectation does not compile.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

/// The folder of the guests.
const FOLDER: &str = "../guests/hostile";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed={FOLDER}");
    let folder = fs::canonicalize(FOLDER)?;
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        // Other files must not be mistaken for guests.
        let name = path.file_stem().and_then(|name| name.to_str()).map(str::to_owned);
        match name {
            Some(name) if path.extension().is_some_and(|e| e == "wat") => names.push(name),
            _ => return Err(io::Error::other(format!("{} is no guest", path.display()))),
        }
    }
    names.sort();
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?;
    fs::write(Path::new(&out).join("files.rs"), code(&folder, &names))
}

fn code(folder: &Path, names: &[String]) -> String {
    let (mut variants, mut all, mut of_name, mut of_text) =
        (String::new(), String::new(), String::new(), String::new());
    for name in names {
        let (variant, path) = (variant(name), folder.join(name).with_extension("wat"));
        let _ = writeln!(variants, "    /// `{name}.wat`.\n    {variant},");
        let _ = writeln!(all, "        Self::{variant},");
        let _ = writeln!(of_name, "            Self::{variant} => {name:?},");
        let _ = writeln!(of_text, "            Self::{variant} => include_str!({path:?}),");
    }
    format!(
        "/// A guest of `tests/guests/hostile`.\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq)]\n\
         pub enum File {{\n{variants}}}\n\
         impl File {{\n\
         /// Every one.\n    pub const ALL: &[Self] = &[\n{all}    ];\n\
         /// Its name, without ending.\n    #[must_use]\n    pub fn name(self) -> &'static str {{\n\
         match self {{\n{of_name}        }}\n    }}\n\
         /// The text.\n    #[must_use]\n    pub fn text(self) -> &'static str {{\n\
         match self {{\n{of_text}        }}\n    }}\n}}\n"
    )
}

/// Converts a file name such as `loop-in-setup` to the name of an enum variant, `LoopInSetup`.
fn variant(name: &str) -> String {
    name.split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}
