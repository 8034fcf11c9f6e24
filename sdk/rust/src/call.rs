//! What one call of `apply` gathers besides rows: events to emit, and which
//! event caused which timer.

use std::cell::RefCell;

use serde::Serialize;

use crate::Timestamp;
use crate::bindings::lantern::projection::types as wit;
use crate::error::Error;
use crate::host;
use crate::manifest::Asked;
use crate::table::{Table, TableField, TableSpec};

/// What of the manifest matters while events are applied.
#[derive(Debug)]
pub(crate) struct Declared {
    pub(crate) asked: Asked,
    pub(crate) timers: bool,
    pub(crate) emits: Vec<String>,
}

/// The state of a call, shared by its events and timers.
#[doc(hidden)]
#[derive(Debug)]
pub struct Call {
    pub(crate) declared: Declared,
    outbox: RefCell<Vec<wit::NewEvent>>,
    /// The offset of the event that set a timer, by the timer's key; only
    /// where the projection both emits events and uses event time.
    causes: Option<RefCell<Table<u64>>>,
}

impl Call {
    pub(crate) fn new(declared: Declared, causes: Option<&'static TableSpec>) -> Self {
        Self {
            declared,
            outbox: RefCell::default(),
            causes: causes.map(|spec| RefCell::new(Table::open(spec))),
        }
    }

    /// Sends what was gathered to the host.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        if let Some(causes) = &self.causes {
            causes.borrow_mut().flush()?;
        }
        let mut outbox = self.outbox.borrow_mut();
        if !outbox.is_empty() {
            host::emit(&outbox);
            outbox.clear();
        }
        Ok(())
    }

    /// Takes the cause of a timer that fires.
    pub(crate) fn take_cause(&self, key: &str) -> Result<u64, Error> {
        match &self.causes {
            Some(causes) => {
                let cause = causes.borrow_mut().take(cause_key(key))?;
                Ok(cause.unwrap_or_default())
            }
            None => Ok(0),
        }
    }

    pub(crate) fn emit(&self, cause: u64, now: Timestamp, event: NewEvent) -> Result<(), Error> {
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

    /// Sets a timer. Where `first`, the cause of one that is already set
    /// stays, as many events may set the timer of one window.
    pub(crate) fn set_timer(
        &self,
        cause: u64,
        at: Timestamp,
        key: &str,
        first: bool,
    ) -> Result<(), Error> {
        if !self.declared.timers {
            return Err(Error::NoEventTime(key.to_owned()));
        }
        if let Some(causes) = &self.causes {
            let mut causes = causes.borrow_mut();
            let key = cause_key(key);
            if !first || causes.get(key)?.is_none() {
                causes.put(key, cause)?;
            }
        }
        host::set_timer(at.micros(), key);
        Ok(())
    }

    pub(crate) fn cancel_timer(&self, key: &str) -> Result<(), Error> {
        if let Some(causes) = &self.causes {
            causes.borrow_mut().delete(cause_key(key))?;
        }
        host::cancel_timer(key);
        Ok(())
    }
}

/// A timer's key as a row's: of two parts, as U+0000 cannot be in it. Only
/// tenants come before U+0000, and none is empty.
fn cause_key(timer: &str) -> (&str, &str) {
    timer.split_once('\0').unwrap_or(("", timer))
}

/// An event to append to the log.
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
    /// An event of the type `kind` with `data` as its JSON. Its time is that
    /// of the event or timer that emits it, unless [`Self::time`] says
    /// otherwise.
    ///
    /// # Errors
    /// If `data` cannot be written as JSON.
    pub fn new(kind: impl Into<String>, data: &impl Serialize) -> Result<Self, Error> {
        Ok(Self {
            kind: kind.into(),
            subject: String::new(),
            tenant: String::new(),
            time: None,
            data: serde_json::to_vec(data)?,
        })
    }

    /// With this `subject`.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    /// With this `tenant`.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = tenant.into();
        self
    }

    /// With this time.
    pub fn time(mut self, time: Timestamp) -> Self {
        self.time = Some(time);
        self
    }
}
