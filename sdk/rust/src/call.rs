//! Collects the part of a call's output that does not consist of rows: timers and emitted events.

use std::cell::RefCell;

use serde::Serialize;

use crate::Timestamp;
use crate::bindings::lantern::projection::types as wit;
use crate::error::Error;
use crate::host;
use crate::manifest::RequestedAttributes;
use crate::members::Member;

/// The parts of the manifest that are needed while events are applied.
#[derive(Debug)]
pub(crate) struct CallSettings {
    pub(crate) asked: RequestedAttributes,
    pub(crate) members: Vec<Member>,
    pub(crate) timers: bool,
    pub(crate) emits: Vec<String>,
}

/// The state of a call, which its events and timers share.
#[doc(hidden)]
#[derive(Debug)]
pub struct Call {
    pub(crate) declared: CallSettings,
    outbox: RefCell<Vec<wit::NewEvent>>,
}

impl Call {
    pub(crate) fn new(declared: CallSettings) -> Self {
        Self { declared, outbox: RefCell::default() }
    }

    /// Sends the collected events to the host.
    pub(crate) fn finish(&self) {
        let mut outbox = self.outbox.borrow_mut();
        if !outbox.is_empty() {
            host::emit(&outbox);
            outbox.clear();
        }
    }

    /// Emits `event`. `cause` is the index in the batch of the timer or event that causes it.
    pub(crate) fn emit(&self, cause: u32, now: Timestamp, event: NewEvent) -> Result<(), Error> {
        if !self.declared.emits.contains(&event.kind) {
            return Err(Error::NotDeclared(event.kind));
        }
        self.outbox.borrow_mut().push(wit::NewEvent {
            cause,
            type_: event.kind,
            subject: event.subject,
            tenant: event.tenant,
            time: event.time.unwrap_or(now).micros(),
            data: event.data,
        });
        Ok(())
    }

    /// Sets a timer. `cause` is the index in the batch of the timer or event that sets it.
    pub(crate) fn set_timer(&self, cause: u32, at: Timestamp, key: &str) -> Result<(), Error> {
        if !self.declared.timers {
            return Err(Error::NoEventTime(key.to_owned()));
        }
        host::set_timer(cause, at.micros(), key);
        Ok(())
    }

    pub(crate) fn cancel_timer(&self, cause: u32, key: &str) {
        host::cancel_timer(cause, key);
    }
}

/// An event that a projection emits, so that it is appended to the log.
///
/// ```
/// # use lantern_sdk::NewEvent;
/// # #[derive(serde::Serialize)]
/// # struct Alert { rate: u64 }
/// let event = NewEvent::new("alert.raised", &Alert { rate: 3 })?.subject("order.placed");
/// # let _ = event;
/// # Ok::<(), lantern_sdk::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct NewEvent {
    kind: String,
    subject: String,
    tenant: String,
    time: Option<Timestamp>,
    data: Vec<u8>,
}

impl NewEvent {
    /// Creates an event of the type `kind`. `data` is written as JSON. Unless [`Self::time`] sets
    /// another time, it gets the time of the event or timer that the projection is processing when
    /// it emits.
    ///
    /// # Errors
    /// Fails if `data` cannot be written as JSON.
    pub fn new(kind: impl Into<String>, data: &impl Serialize) -> Result<Self, Error> {
        Ok(Self {
            kind: kind.into(),
            subject: String::new(),
            tenant: String::new(),
            time: None,
            data: serde_json::to_vec(data)?,
        })
    }

    /// Sets `subject`.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    /// Sets `tenant`. It must be the tenant of the event or timer that the projection is
    /// processing when it emits. This tenant is also the default.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = tenant.into();
        self
    }

    /// Sets the time of the event.
    pub fn time(mut self, time: Timestamp) -> Self {
        self.time = Some(time);
        self
    }
}
