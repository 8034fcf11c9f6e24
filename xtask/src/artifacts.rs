//! Builds what the demo, the tests and the benchmarks run: the binary `lantern` and the
//! guests.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::metadata::Workspace;
use crate::shell;

/// The target for which cargo compiles guests.
const WASM: &str = "wasm32-unknown-unknown";

/// Installs the target for which guests are compiled, if it is missing.
pub(crate) fn wasm_target() -> Result<()> {
    let mut rustc = std::process::Command::new("rustc");
    let sysroot = shell::output(rustc.args(["--print", "sysroot"]).current_dir(shell::root()))
        .context("the Rust compiler is missing: install it from https://rustup.rs")?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(WASM).join("lib").is_dir() {
        return Ok(());
    }
    if !shell::installed("rustup") {
        bail!(
            "the compiler has no target {WASM}, and there is no rustup to add it\n\
             help: install Rust by rustup, https://rustup.rs"
        );
    }
    shell::step("Adding the WebAssembly target");
    let mut rustup = std::process::Command::new("rustup");
    shell::run(rustup.args(["target", "add", WASM]).current_dir(shell::root()))
}

/// A kind of guest. Each kind has its own folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guests {
    /// The guests are the example plugins in `plugins/`.
    Plugins,
    /// The guest is the interpreter of declarations.
    Interpreters,
    /// The guests are those of benchmarks and tests, and the conformance projection.
    Others,
}

/// The folder that contains the interpreter of declarations.
const DECLARE: &str = "plugins/declare";

impl Guests {
    /// Returns the folder to which the built guests are copied, as `PACKAGE.wasm`.
    pub(crate) fn folder(self) -> PathBuf {
        shell::target_dir().join(match self {
            Self::Plugins => "plugins",
            Self::Interpreters => "interpreters",
            Self::Others => "guests",
        })
    }

    /// Returns the kind of guest that `package` builds; `None` if it builds no guest.
    fn of(package: &crate::metadata::Package) -> Option<Self> {
        let folder = package.folder.as_str();
        match (package.cdylib, folder.split('/').next()?) {
            (true, _) if folder == DECLARE => Some(Self::Interpreters),
            (true, "plugins") => Some(Self::Plugins),
            (true, "bench" | "tests" | "sdk") => Some(Self::Others),
            _ => None,
        }
    }
}

/// Builds the guests of these kinds, and copies each to its folder.
pub(crate) fn guests(workspace: &Workspace, kinds: &[Guests]) -> Result<()> {
    let wanted: Vec<_> = workspace
        .members()
        .filter_map(|package| Some((package, Guests::of(package)?)))
        .filter(|(_, kind)| kinds.contains(kind))
        .collect();
    let mut args = vec!["build", "--profile", "guest", "--target", WASM, "--lib"];
    for (package, _) in &wanted {
        args.extend(["-p", &package.name]);
    }
    if wanted.is_empty() {
        return Ok(());
    }
    shell::run(&mut shell::cargo(args))?;
    for kind in kinds {
        // Delete the guests of earlier builds first, so that the demo does not push a
        // guest whose source code no longer exists. Interpreters are not deleted, because
        // the tools of other languages have built some of them.
        if *kind != Guests::Interpreters {
            let _ = std::fs::remove_dir_all(kind.folder());
        }
        std::fs::create_dir_all(kind.folder())?;
    }
    for (package, kind) in wanted {
        let built = shell::target_dir().join(WASM).join("guest");
        let from = built.join(format!("{}.wasm", package.name.replace('-', "_")));
        let to = kind.folder().join(format!("{}.wasm", package.name));
        std::fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
    }
    Ok(())
}

/// Returns the path of the binary `lantern` that was built with `profile`.
pub(crate) fn lantern(profile: &str) -> PathBuf {
    let name = format!("lantern{}", std::env::consts::EXE_SUFFIX);
    shell::target_dir().join(profile).join(name)
}
