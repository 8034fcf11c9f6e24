//! Implements `lantern completions`, which prints a script for the completion of commands in a
//! shell.

use clap_complete::Shell;

/// The options of the command.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lantern completions bash > ~/.local/share/bash-completion/completions/lantern
  lantern completions zsh > ~/.zfunc/_lantern
  lantern completions fish > ~/.config/fish/completions/lantern.fish")]
pub(crate) struct Args {
    /// The shell.
    #[arg(value_parser = shell())]
    shell: Shell,
}

/// Returns the shells that are supported. Each of them is tested.
fn shell() -> impl clap::builder::TypedValueParser<Value = Shell> {
    use clap::builder::TypedValueParser;
    clap::builder::PossibleValuesParser::new(["bash", "zsh", "fish"])
        .map(|name| name.parse::<Shell>().expect("clap supports these shells"))
}

/// Prints the completions of `command` for a shell.
pub(crate) fn run(args: &Args, command: &mut clap::Command) {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "lantern", &mut script);
    crate::output::raw(&script);
}
