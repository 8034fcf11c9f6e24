//! A client of Lantern's feed: tables mirrored in memory and kept up to date
//! over a WebSocket.
//!
//! Every state a [`Table`] shows is a committed state of the server's table.
//! When the connection is lost the client comes back by itself, with growing
//! random pauses, and goes on where it was: nothing is missed, nothing repeats.
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
//! To read one's own write, wait for its offset, as an append answers it:
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
//! Plain `ws://` only: put a proxy in front where the way to the server is not
//! private.

mod client;
mod connection;
mod error;
mod options;
mod table;
mod wire;

pub use client::Client;
pub use error::Error;
pub use options::{Mode, Options, Resume, TableOptions};
pub use table::{Change, Changes, Field, Row, Status, Table};
pub use wire::Lag;
