//! The part of the binary `lantern` that benchmarks and tests also use: the generator
//! of shop events. The rest of the command line is private to the binary.

pub mod generate;
