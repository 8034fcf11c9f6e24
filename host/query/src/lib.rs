//! Runs queries of tables. A query filters rows, chooses columns, orders rows by a field, or
//! computes a roll-up.
//!
//! [`Plan::new`] checks a [`QueryRequest`] against a table, and returns a [`Plan`]. The plan reads
//! the rows of one committed state from a [`lantern_core::RowSource`], within the limits of a
//! [`Budget`]. Rows are JSON objects; only the fields that the query needs are decoded.
//!
//! This crate knows neither HTTP nor the store, and starts no threads.

mod aggregate;
mod bucket;
mod budget;
mod civil;
mod columnar;
mod config;
mod error;
mod exact_sum;
mod fill;
mod follow;
mod group_value;
mod live;
mod plan;
mod render;
mod request;
mod roll_up;
mod rows;

pub use budget::{Budget, Cancel};
pub use columnar::{ColumnError, ColumnFormat, ColumnWriter};
pub use config::QueryConfig;
pub use error::QueryError;
pub use group_value::GroupValue;
pub use lantern_core::RequestError;
pub use live::LiveRollUps;
pub use plan::Plan;
pub use request::{AggregateRequest, ConditionRequest, OutputColumn, QueryRequest};
pub use roll_up::{GroupPosition, GroupsPage};
pub use rows::{PageSize, RowPosition, RowsPage};
