//! Declares the imports of the contract.

pub(crate) use crate::bindings::lantern::projection::logging::log;
pub(crate) use crate::bindings::lantern::projection::outbox::emit;
pub(crate) use crate::bindings::lantern::projection::source::{
    name as source_name, text as source_text,
};
pub(crate) use crate::bindings::lantern::projection::tables::{
    delete_many, get, get_many, put_many, scan,
};
pub(crate) use crate::bindings::lantern::projection::timers::{
    cancel as cancel_timer, set as set_timer,
};
