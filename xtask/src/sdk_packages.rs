//! Writes the packages of the SDKs, with which plugins are built on a machine that has no
//! checkout of Lantern.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// The version that every package of an SDK has.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The Python packages that write wheels.
const WHEEL_TOOLS: [&str; 2] = ["setuptools==80.9.0", "wheel==0.45.1"];
/// The folder for files that are deleted when all packages are written, in that of the packages.
const STAGE: &str = "stage";

/// An SDK whose package is an archive of its sources.
struct Sources {
    /// The language, as in the name of the package.
    language: &'static str,
    /// The files and folders of the archive, in the folder of the SDK; all of them if empty.
    files: &'static [&'static str],
    /// Files from outside this folder: their path in the repository and their path in the
    /// archive.
    others: &'static [(&'static str, &'static str)],
}

const SOURCES: [Sources; 2] = [
    Sources {
        language: "c",
        files: &["README.md", "lantern.mk", "requirements.txt", "src"],
        others: &[("sdk/rust/zones.bin", "src/zones.bin"), ("LICENSE", "LICENSE")],
    },
    Sources { language: "go", files: &[], others: &[("LICENSE", "LICENSE")] },
];

/// The parts of the SDKs' folders that no package contains: templates, which are part of
/// `lantern`, and a test that runs for an hour.
const LEFT_OUT: [&str; 2] = ["template", "soak"];

/// Writes the packages whose tools are installed, in the folder `sdk` of `dist`. Deletes the folder
/// `stage` of `dist`.
pub(crate) fn write(dist: &Path) -> Result<()> {
    let (folder, stage) = (dist.join("sdk"), dist.join(STAGE));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    fs::create_dir_all(&stage)?;
    if shell::installed("python3") {
        wheel(&folder, &wheel_tools(dist)?)?;
    }
    if shell::installed("npm") {
        let mut pack = shell::npm("sdk/js", &["pack", "--silent", "--pack-destination"]);
        shell::run(pack.arg(&folder))?;
    }
    if shell::installed("tar") {
        for sources in &SOURCES {
            sources.archive(&folder, &stage)?;
        }
    }
    fs::remove_dir_all(&stage)?;
    list(&folder)
}

/// Installs the Python packages that write wheels in the folder `stage` of `dist`, unless they are
/// there. Returns the path of Python.
pub(crate) fn wheel_tools(dist: &Path) -> Result<PathBuf> {
    let environment = dist.join(STAGE).join("python");
    if !environment.is_dir() {
        shell::python_environment(&environment, &WHEEL_TOOLS.map(AsRef::as_ref))?;
    }
    Ok(environment.join("bin/python3"))
}

/// Writes the wheel of the SDK for Python.
fn wheel(folder: &Path, python: &Path) -> Result<()> {
    let sdk = shell::root().join("sdk/python");
    // Setuptools keeps the modules of earlier builds in this folder, also those that no longer
    // exist, and would add them to the wheel.
    let _ = fs::remove_dir_all(sdk.join("build"));
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]);
    pip.args(["--no-deps", "--no-build-isolation", "--wheel-dir"]);
    shell::run(pip.arg(folder).arg(sdk))
}

impl Sources {
    fn archive(&self, folder: &Path, stage: &Path) -> Result<()> {
        let sdk = shell::root().join("sdk").join(self.language);
        let name = format!("lantern-sdk-{}-{VERSION}", self.language);
        let packed = stage.join(&name);
        if self.files.is_empty() {
            copy(&sdk, &packed)?;
        }
        for file in self.files {
            copy(&sdk.join(file), &packed.join(file))?;
        }
        for (from, to) in self.others {
            copy(&shell::root().join(from), &packed.join(to))?;
        }
        let mut tar = Command::new("tar");
        tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "-czf"]);
        tar.arg(folder.join(format!("{name}.tar.gz")));
        shell::run(tar.arg("-C").arg(stage).arg(&name))
    }
}

/// Copies a file or a folder.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
            let name = entry?.file_name();
            if !LEFT_OUT.iter().any(|left_out| *left_out == name) {
                copy(&from.join(&name), &to.join(&name))?;
            }
        }
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to).with_context(|| from.display().to_string())?;
    Ok(())
}

/// Prints the names and sizes of the packages in `folder`.
pub(crate) fn list(folder: &Path) -> Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        files.push(entry?.path());
    }
    files.sort();
    for file in files.iter().filter(|file| file.is_file()) {
        println!("{} ({} bytes)", file.display(), file.metadata()?.len());
    }
    Ok(())
}
