//! What the binary `lantern` shares with benchmarks and tests: the generator of
//! shop events. Everything else of the command line is private to the binary.

pub mod generate;
