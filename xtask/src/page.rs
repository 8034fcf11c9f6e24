//! Builds the files of the web page, which the server's build puts into the binary.

use std::path::PathBuf;

use anyhow::Result;

use crate::shell::{self, npm};
use crate::suite::Summary;

/// The folder of the page's sources.
pub(crate) const SOURCES: &str = "web";
/// The programs that build it.
pub(crate) const PROGRAMS: [&str; 2] = ["node", "npm"];

/// The folder with the built files, compressed. The build script of the server reads it.
fn folder() -> PathBuf {
    shell::target_dir().join("web")
}

/// Builds the page. If Node.js is missing, this is reported, and the server is built without the
/// page. In CI a missing Node.js is an error.
pub(crate) fn build(summary: &mut Summary) -> Result<()> {
    if let Some(program) = shell::missing(&PROGRAMS)? {
        summary.skip(
            &format!("`{program}` is not installed: the server is built without its web page"),
            "install Node.js 20 or newer with npm, and run the command again",
        );
        return Ok(());
    }
    packages()?;
    shell::run(npm(SOURCES, &["run", "build"]).env("LANTERN_WEB", folder()))
}

/// Installs the packages that the page is built from, unless they are installed.
pub(crate) fn packages() -> Result<()> {
    let folder = shell::root().join(SOURCES);
    let modified = |path: &str| folder.join(path).metadata().and_then(|of| of.modified());
    // npm writes this file at the end of an installation.
    let installed = modified("node_modules/.package-lock.json");
    if installed.is_ok_and(|at| modified("package-lock.json").is_ok_and(|wanted| wanted <= at)) {
        return Ok(());
    }
    shell::run(&mut npm(SOURCES, &["ci", "--no-audit", "--no-fund"]))
}
