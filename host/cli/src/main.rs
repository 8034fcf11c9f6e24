//! Implements the binary `lantern`, which contains the server and the commands that use a server.
//!
//! This file only parses the command line and calls the command. A command never opens the data
//! folder of a running server; it uses HTTP.

mod api;
mod commands;
mod error;
mod event_file;
mod output;
mod raw_json;
mod sender;
mod text_table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::api::Api;
use crate::error::{Failure, Outcome};

// Folding makes many small allocations on several threads at the same time. This allocator is fast
// in that case.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The first argument of the process that compiles a plugin. The server starts this binary with it
/// as a separate process.
const COMPILE_CHILD: &str = "__compile";

const AFTER_HELP: &str = "\
Exit codes:
  0    it worked
  1    it failed, or a check found an error
  2    wrong usage
  3    no server answers
  4    there is no such file, projection, version, table or row
  5    refused: wrong events, a wrong plugin, or a request that conflicts with the state
  6    the server is too busy, or did not reach the requested offset in time
  7    not everything could be checked (`doctor`, `verify`, `explain`)
  130  ended by Ctrl-C before its work was done

Errors go to standard error; with --json as one JSON object
{\"error\":{\"code\",\"message\",\"help\",\"details\",\"exit\"}}.

First steps:
  lantern new my-plugin && cd my-plugin             # a script; --lang makes a project
  lantern dev                                       # each saved change is live at once
  lantern test events.ndjson my_plugin.py           # without a server
Then, with a server (`lantern serve`):
  lantern plugin push my_plugin.py --wait
  lantern events import events.ndjson
  lantern plugin status my-plugin";

/// Folds event logs into live tables with sandboxed plugins.
#[derive(Parser)]
#[command(name = "lantern", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// The options of every command.
#[derive(clap::Args)]
pub(crate) struct Global {
    /// The address of the server.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "LANTERN_SERVER",
        default_value = "http://127.0.0.1:7420",
        value_parser = server_address
    )]
    server: String,
    /// Print JSON, for scripts.
    #[arg(long, global = true)]
    json: bool,
}

impl Global {
    fn api(&self) -> Api {
        Api::new(&self.server)
    }
}

#[derive(Subcommand)]
enum Command {
    /// Run the server.
    Serve(commands::serve::Args),
    /// Run the server on real flights and generated shop events.
    Demo(commands::demo::Args),
    /// Send, generate and read events.
    #[command(subcommand)]
    Events(commands::events::Command),
    /// Upload plugins and manage their projections.
    #[command(subcommand)]
    Plugin(commands::plugin::Command),
    /// List events that could not be applied; retry or drop them.
    #[command(subcommand)]
    Parked(commands::parked::Command),
    /// Read tables, once or live.
    #[command(subcommand)]
    Table(commands::table::Command),
    /// Filter, order and group the rows of a table, as `table scan` does. Also store such a query
    /// under a name, and run it.
    Query(Box<commands::named_query::QueryArgs>),
    /// Show which events have changed a row, and how.
    Explain(commands::explain::Args),
    /// Let the server fold the log again, and compare the result with its tables.
    Verify(commands::verify::Args),
    /// Check the files of a stopped server, and print what is damaged and how to recover.
    Doctor(commands::doctor::Args),
    /// Create a plugin from a template.
    New(commands::new::Args),
    /// Build a plugin with the tool of its language.
    Build(commands::build::Args),
    /// Run a server for a plugin's source: each saved change is live at once.
    Dev(commands::dev::Args),
    /// Fold a file of events with a plugin, without a server, and print its tables.
    Test(commands::test::Args),
    /// Write the types of tables' rows for clients in TypeScript.
    Types(commands::types::Args),
    /// Print the shell completions for this command.
    Completions(commands::completions::Args),
}

fn main() -> ExitCode {
    lantern_cli::memory::without_huge_pages();
    if std::env::args_os().nth(1).is_some_and(|arg| arg == COMPILE_CHILD) {
        return lantern_plugin::compile_child_main();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // `--help` and `--version` print a text and are not failures.
        Err(help) if !help.use_stderr() => help.exit(),
        Err(error) => {
            let failure = Failure::usage(&error);
            failure.report(std::env::args_os().any(|arg| arg == "--json"));
            return failure.exit_code();
        }
    };
    let json = cli.global.json;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(json);
            failure.exit_code()
        }
    }
}

fn run(cli: Cli) -> Outcome {
    let global = &cli.global;
    match cli.command {
        Command::Serve(args) => commands::serve::run(args, global.json),
        Command::Demo(args) => commands::demo::run(args, global),
        Command::Events(command) => client(commands::events::run(command, global)),
        Command::Plugin(command) => client(commands::plugin::run(command, global)),
        Command::Parked(command) => client(commands::parked::run(command, global)),
        Command::Table(command) => client(commands::table::run(command, global)),
        Command::Query(args) => client(commands::named_query::run(*args, global)),
        Command::Explain(args) => client(commands::explain::run(&args, global)),
        Command::Verify(args) => client(commands::verify::run(args, global)),
        Command::Doctor(args) => commands::doctor::run(&args, global.json),
        Command::New(args) => commands::new::run(&args, global),
        Command::Build(args) => commands::build::run(&args, global),
        Command::Dev(args) => commands::dev::run(args, global),
        Command::Test(args) => commands::test::run(&args, global),
        Command::Types(args) => commands::types::run(&args, global),
        Command::Completions(args) => {
            commands::completions::run(&args, &mut <Cli as clap::CommandFactory>::command());
            Ok(())
        }
    }
}

/// Runs a command that sends requests to a server and waits for the answers.
fn client<T>(command: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)?
        .block_on(command)
}

fn server_address(text: &str) -> Result<String, String> {
    if text.starts_with("https://") {
        return Err("this command uses plain HTTP: give the address behind the proxy, \
                    or tunnel to it (`ssh -L 7420:localhost:7420 host`)"
            .into());
    }
    let host = text.strip_prefix("http://").unwrap_or_default();
    if host.trim_matches('/').is_empty() || host.contains([' ', '?', '#']) {
        return Err("write it as `http://host:port`".into());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound_and_every_command_has_examples() {
        let mut cli = Cli::command();
        cli.build();
        cli.clone().debug_assert();
        let mut bare = Vec::new();
        let mut queue = vec![cli];
        while let Some(command) = queue.pop() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            if !help.contains("Examples:") && !help.contains("First steps:") {
                bare.push(command.get_name().to_owned());
            }
            queue.extend(command.get_subcommands().filter(|c| c.get_name() != "help").cloned());
        }
        assert!(bare.is_empty(), "no examples in --help of {bare:?}");
    }

    #[test]
    fn an_address_is_checked_when_it_is_typed() {
        assert!(server_address("http://localhost:7420").is_ok());
        assert!(server_address("localhost:7420").is_err());
        assert!(server_address("http://").is_err());
        assert!(server_address("https://x").is_err_and(|e| e.contains("plain HTTP")));
    }
}
