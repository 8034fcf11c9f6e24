//! Defines the declarations of tables.

use crate::row::Field;

/// The declaration of a table. `#[derive(Tables)]` writes it for each field of the
/// struct; see [`crate::dynamic`] for tables that are declared at run time.
#[derive(Debug)]
pub struct TableSpec {
    /// The index of the table in the manifest.
    pub id: u32,
    /// The name of the table.
    pub name: &'static str,
    /// The description of the table for people.
    pub description: &'static str,
    /// Whether readers can see the table.
    pub public: bool,
    /// Whether every row of the table belongs to a tenant.
    pub per_tenant: bool,
    /// The fields of the rows, if the table is public.
    pub fields: &'static [Field],
    /// The timestamp field that decides which partition's value is used for fields with merge
    /// `newest`: the value of the row with the latest time.
    pub newest_by: Option<&'static str>,
    /// How long a row is kept after its last change, in microseconds; `None` if it is kept forever.
    pub retention_us: Option<u64>,
    /// The number of rows that are kept in memory.
    pub cache_rows: usize,
}
