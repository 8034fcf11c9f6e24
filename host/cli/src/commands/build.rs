//! Implements `lantern build`, which builds a plugin with the tool of its language.

use std::path::PathBuf;

use super::project::Project;
use crate::Global;
use crate::error::Outcome;
use crate::output;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern build
  lantern build order-counts
  lantern plugin push $(lantern build --json | jq -r .file) --wait

The folder's files select the tool: Cargo.toml selects cargo, package.json npm, pyproject.toml
and requirements.txt python3, go.mod go, Makefile make. A script or a declaration needs no build.")]
pub(crate) struct Args {
    /// The project's folder.
    #[arg(default_value = ".")]
    project: PathBuf,
}

/// Builds the plugin, and prints the path of the file to push.
pub(crate) fn run(args: &Args, global: &Global) -> Outcome {
    let file = Project::find(&args.project)?.build()?;
    let bytes = file.metadata().map_or(0, |data| data.len());
    if global.json {
        output::json(&serde_json::json!({"file": file, "bytes": bytes}));
    } else {
        output::line(format!("{} ({} bytes)", file.display(), output::count(bytes)));
    }
    Ok(())
}
