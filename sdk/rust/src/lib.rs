//! Provides the SDK for Lantern projections in Rust. A projection is a struct of typed tables, a
//! function that turns an event into row changes, and one line that exports it.
//!
//! ```
//! use std::borrow::Cow;
//!
//! use lantern_sdk::prelude::*;
//! use serde::Deserialize;
//!
//! /// The revenue of one product.
//! #[derive(Row, Default)]
//! struct Product {
//!     product: String,
//!     #[row(merge = sum)]
//!     orders: u64,
//!     #[row(unit = "cent", merge = sum)]
//!     cents: i64,
//! }
//!
//! #[derive(Tables)]
//! struct Revenue {
//!     /// Orders and revenue by product.
//!     by_product: Table<Product>,
//! }
//!
//! #[derive(Deserialize)]
//! struct Order<'a> {
//!     #[serde(borrow)]
//!     product: Cow<'a, str>,
//!     cents: i64,
//! }
//!
//! impl Projection for Revenue {
//!     fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
//!         Ok(lantern_sdk::manifest!().subscribe(["order.placed"]))
//!     }
//!
//!     fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
//!         let order: Order<'_> = event.data()?;
//!         let row = self.by_product.row_or(&order.product, || Product {
//!             product: order.product.to_string(),
//!             ..Product::default()
//!         })?;
//!         row.orders += 1;
//!         row.cents += order.cents;
//!         Ok(())
//!     }
//! }
//!
//! lantern_sdk::export!(Revenue);
//! # fn main() {}
//! ```
//!
//! Build it with `cargo build --release --target wasm32-unknown-unknown` as a `cdylib`;
//! the host accepts the module unchanged.
//!
//! * [`Table`]: rows under [`Key`]s, kept in memory as values and sent to the host once
//!   per call. `#[derive(Row)]` makes a struct a row.
//! * [`Event`]: type, time, attributes, and JSON data that borrows from the
//!   batch.
//! * [`Trigger`]: timers and emitted events.
//! * [`window`]: tumbling, hopping, sliding and session windows.
//! * [`TopN`]: the N largest values of each group.
//! * [`zone`]: hours, days, weeks and months of a named time zone.
//! * [`dynamic`]: tables that are declared at run time.
//! * `testing`: a host in memory, so that `cargo test` can test a plugin. Wasm builds
//!   do not contain it.
//!

extern crate self as lantern_sdk;

#[doc(hidden)]
pub mod bindings;
mod cache;
mod call;
mod column;
pub mod dynamic;
mod error;
mod event;
mod host;
mod json;
mod json_check;
mod key;
pub mod log;
mod manifest;
mod members;
mod projection;
mod row;
mod source;
mod table;
mod table_spec;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod time;
mod top;
mod trigger;
pub mod window;
pub mod zone;

pub use call::NewEvent;
pub use error::{Error, RowError};
pub use event::{Event, Events, Timer, Trigger};
pub use key::{InTenant, Key, Narrow, key_part};
pub use lantern_sdk_macros::{EventData, Row, Tables};
pub use lantern_sketch::{Distinct, Percentiles};
pub use manifest::{Attribute, Manifest, OnFailure};
pub use members::{EventData, Member, MemberLookup, MemberValue, Scalar};
pub use projection::{Parameters, Projection};
pub use row::{Field, FieldKind, JSON_DEPTH_MAX, Json, Merge, Row, Stored, Value};
pub use source::{Source, source};
pub use table::{CACHE_ROWS, Scan, Table, Tables};
pub use time::{ParseTimestampError, Timestamp};
pub use top::{Ranked, TopN};

/// Contains everything that most plugins use: `use lantern_sdk::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Attribute, Distinct, Error, Event, EventData, Events, InTenant, Json, Key, Manifest,
        NewEvent, OnFailure, Parameters, Percentiles, Projection, Row, Scan, Table, Tables, Timer,
        Timestamp, TopN, Trigger,
    };
    pub use std::time::Duration;
}

/// Items that the code which macros generate uses.
#[doc(hidden)]
pub mod __private {
    pub use crate::error::FlushError;
    pub use crate::members::Members;
    #[cfg(target_arch = "wasm32")]
    pub use crate::projection::guest;
    pub use crate::projection::{Failure, Instance, check_projection};
    pub use crate::row::{from_json, take};
    pub use crate::table::{PublicTable, TableField};
    pub use crate::table_spec::TableSpec;
    pub use lantern_sdk_macros::zone_bytes;
    pub use serde;
}

/// Creates a [`Manifest`] with the name, version and description in the plugin's `Cargo.toml`.
#[macro_export]
macro_rules! manifest {
    () => {
        $crate::Manifest::new(
            ::core::env!("CARGO_PKG_NAME"),
            ::core::env!("CARGO_PKG_VERSION"),
            ::core::env!("CARGO_PKG_DESCRIPTION"),
        )
    };
}

/// Exports a [`Projection`] from this plugin, so that the host can call it. The macro has an effect
/// only in Wasm.
#[macro_export]
macro_rules! export {
    ($projection:ty) => {
        const _: () = $crate::__private::check_projection::<$projection>();

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::exports::lantern::projection::projector::Guest;
            use $crate::bindings::lantern::projection::types;

            ::std::thread_local! {
                static INSTANCE: $crate::__private::guest::InstanceCell<$projection> =
                    const { ::std::cell::RefCell::new(::core::option::Option::None) };
            }

            struct Plugin;

            impl Guest for Plugin {
                fn setup(
                    parameters: ::std::string::String,
                ) -> ::core::result::Result<types::Manifest, ::std::string::String> {
                    INSTANCE.with(|slot| $crate::__private::guest::setup(slot, &parameters))
                }

                fn apply(batch: types::Batch) -> ::core::result::Result<(), types::Failure> {
                    INSTANCE.with(|slot| $crate::__private::guest::apply(slot, &batch))
                }
            }

    $crate::bindings::export_projector!(Plugin with_types_in $crate::bindings);
        };
    };
}
