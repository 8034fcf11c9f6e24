//! Expressions: their syntax, their kinds, and their evaluation.
//!
//! An expression is read once and checked once, in `setup`. What is evaluated for each
//! event is a tree in which every name is an index and every kind is known.

pub(crate) mod compile;
pub(crate) mod evaluate;
pub(crate) mod fields;
pub(crate) mod functions;
pub(crate) mod syntax;
mod tokens;
