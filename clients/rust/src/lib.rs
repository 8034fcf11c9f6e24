//! Implements a client of Lantern's feed. The client mirrors tables in memory, and keeps them up to
//! date over a WebSocket.
//!
//! Every state that a [`Table`] shows is a committed state of the server's table. If
//! the connection is lost, the client reconnects by itself, with growing random pauses,
//! and continues where it stopped: no change is missed, and none is repeated.
//!
//! ```no_run
//! use futures_util::StreamExt as _;
//! use lantern_client::{Change, Client, Options};
//! use serde::Deserialize;
//!
//! #[derive(Debug, Deserialize)]
//! struct Revenue {
//!     product: String,
//!     cents: i64,
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("ws://127.0.0.1:7420/v1/feed", Options::default()).await?;
//! let revenue = client.table("revenue/by_product");
//! let mut changes = revenue.changes();
//! while let Some(change) = changes.next().await {
//!     match change {
//!         Change::Snapshot { commit, .. } => println!("{} rows at {commit}", revenue.len()),
//!         Change::Delta { up, .. } => {
//!             for (key, row) in up {
//!                 let row: Revenue = row.read()?;
//!                 println!("{key}: {} {}", row.product, row.cents);
//!             }
//!         }
//!         Change::Ended(error) => return Err(error.into()),
//!         Change::Resumed { .. } | Change::Tick { .. } | Change::Missed(_) => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! To read your own write, wait for its offset, which the append returned:
//!
//! ```no_run
//! # use lantern_client::{Client, Error, Options};
//! # async fn example(client: Client, partition: u32, offset: u64) -> Result<(), Error> {
//! let orders = client.table("funnel/by_user");
//! orders.wait_for(partition, offset).await?;
//! orders.with(|rows, commit| println!("{} rows at {commit:?}", rows.len()));
//! # Ok(())
//! # }
//! ```
//!
//! Only plain `ws://` is supported: use a proxy if the network to the server is not
//! private.

mod backoff;
mod client;
mod connection;
mod connection_end;
mod error;
mod mirror;
mod options;
mod row;
mod shared;
mod subscription;
mod table;

pub use client::Client;
pub use error::Error;
pub use lantern_api::feed::{Condition, Field, Lag, Mode, RollUp};
pub use lantern_api::{Aggregates, ShapeChange, TableShape};
pub use mirror::{Change, Status};
pub use options::{Options, Resume, TableOptions};
pub use row::Row;
pub use table::{Changes, Table};
