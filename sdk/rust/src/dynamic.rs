//! Supports tables that are declared at run time, for projections that interpret a declaration or a
//! script.
//!
//! `#[derive(Tables)]` declares tables at compile time, but an interpreter learns its tables only
//! in `setup`. So it implements [`Tables`](crate::Tables) by hand: the list of declarations is
//! empty, and `specs` returns the declarations. In `setup` it creates a [`TableSpec`] for each
//! table with [`declare`], and opens a [`Table`](crate::Table) or a window's table for it with
//! [`TableField::open`]. All rows have one type, whose [`Stored::decode`](crate::Stored::decode)
//! keeps the bytes until the row is used.
//!
//! Members of events' data are declared with [`Manifest::member`](crate::Manifest::member)
//! and read with [`Event::member`](crate::Event::member).

pub use crate::error::FlushError;
pub use crate::table::TableField;
pub use crate::table_spec::TableSpec;

/// Keeps the declaration of a table until the end of the instance, because tables need it. The
/// memory is never released, but this is bounded: an instance calls `setup` once, so it keeps each
/// declaration once.
#[must_use]
pub fn declare(spec: TableSpec) -> &'static TableSpec {
    Box::leak(Box::new(spec))
}

/// Keeps a text until the end of the instance. The names in declarations need this.
#[must_use]
pub fn keep(text: &str) -> &'static str {
    Box::leak(Box::from(text))
}
