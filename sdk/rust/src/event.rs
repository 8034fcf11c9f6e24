//! Represents the events and timers that a projection processes.

use serde::Deserialize;

use crate::Timestamp;
use crate::bindings::lantern::projection::types::Batch;
use crate::call::{Call, NewEvent};
use crate::column::{Texts, Values};
use crate::error::Error;
use crate::json;
use crate::key::{Key, split_tenant};
use crate::members::{EventData, MemberLookup, MemberView, Members};

/// The first character of the keys of the timers that the SDK itself sets.
pub(crate) const OWN_TIMER: char = '\u{1}';

/// A batch that was checked, so that it can be read.
pub(crate) struct EventBatch<'a> {
    batch: &'a Batch,
    call: &'a Call,
    id: Texts<'a>,
    source: Texts<'a>,
    subject: Texts<'a>,
    tenant: Texts<'a>,
    dataschema: Texts<'a>,
    datacontenttype: Texts<'a>,
    extensions: Texts<'a>,
    data: Values<'a>,
    members: Vec<MemberView<'a>>,
    /// The column `data` as text, if all of it is UTF-8. Then the text of each event need not be
    /// checked again.
    text: Option<Texts<'a>>,
}

impl<'a> EventBatch<'a> {
    pub(crate) fn new(batch: &'a Batch, call: &'a Call) -> Result<Self, Error> {
        let count = batch.offsets.len();
        let same = |len: usize| len == count;
        if ![batch.times.len(), batch.watermarks.len(), batch.types.len()].into_iter().all(same) {
            return Err(Error::Batch("offsets, times, watermarks and types differ in length"));
        }
        let names = batch.type_names.len();
        if batch.types.iter().any(|place| usize::from(*place) >= names) {
            return Err(Error::Batch("an event's type is not among the batch's"));
        }
        Ok(Self {
            batch,
            call,
            id: Texts::new(&batch.id, count)?,
            source: Texts::new(&batch.source, count)?,
            subject: Texts::new(&batch.subject, count)?,
            tenant: Texts::new(&batch.tenant, count)?,
            dataschema: Texts::new(&batch.dataschema, count)?,
            datacontenttype: Texts::new(&batch.datacontenttype, count)?,
            extensions: Texts::new(&batch.extensions, count)?,
            data: Values::new(&batch.data, count)?,
            members: batch
                .members
                .iter()
                .map(|column| MemberView::new(column, count))
                .collect::<Result<_, _>>()?,
            text: Texts::new(&batch.data, count).ok(),
        })
    }

    pub(crate) fn events(&'a self) -> Events<'a> {
        Events { view: self, next: 0 }
    }
}

/// The events of a batch, oldest first.
#[derive(Clone)]
pub struct Events<'a> {
    view: &'a EventBatch<'a>,
    next: usize,
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    #[inline]
    fn next(&mut self) -> Option<Event<'a>> {
        let place = self.next;
        (place < self.view.batch.offsets.len()).then(|| {
            self.next += 1;
            Event { view: self.view, place }
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.view.batch.offsets.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Events<'_> {}

/// One event. Its values borrow from the batch, so reading copies nothing.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    view: &'a EventBatch<'a>,
    place: usize,
}

macro_rules! attribute {
    ($(#[$doc:meta])* $name:ident, $variant:literal) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// Returns [`Error::NotAsked`] unless the manifest requests it.
        #[inline]
        pub fn $name(&self) -> Result<&'a str, Error> {
            if self.view.call.declared.asked.$name {
                Ok(self.view.$name.get(self.place))
            } else {
                Err(Error::NotAsked {
                    attribute: stringify!($name),
                    variant: $variant,
                })
            }
        }
    };
}

impl<'a> Event<'a> {
    /// Returns the type of the event: CloudEvents `type`.
    #[inline]
    #[must_use]
    pub fn kind(&self) -> &'a str {
        let batch = self.view.batch;
        &batch.type_names[usize::from(batch.types[self.place])]
    }

    /// Returns the time of the event: CloudEvents `time`.
    #[inline]
    #[must_use]
    pub fn time(&self) -> Timestamp {
        Timestamp::from_micros(self.view.batch.times[self.place])
    }

    /// Returns the offset of the event in its partition.
    #[inline]
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.view.batch.offsets[self.place]
    }

    /// Returns the partition of the log that contains the event.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.view.batch.partition
    }

    /// Returns the watermark at the moment when the event is applied. An event with an earlier time
    /// is late.
    #[inline]
    #[must_use]
    pub fn watermark(&self) -> Timestamp {
        Timestamp::from_micros(self.view.batch.watermarks[self.place])
    }

    /// Returns whether the event is late, which means that it arrived after the watermark had
    /// passed its time. The projection decides what to do with late events; windows report them
    /// separately.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.time() < self.watermark()
    }

    /// Returns the members of the event's data that the manifest declares, as the host decoded
    /// them.
    ///
    /// # Errors
    /// - [`Error::Member`] if a member is missing or of another kind. If `apply` returns this
    ///   error, the event is parked.
    /// - [`Error::MemberNotDeclared`] if the manifest has no [`members`](crate::Manifest::members).
    #[inline]
    pub fn members<T: EventData<'a>>(&self) -> Result<T, Error> {
        T::read(&Members {
            declared: &self.view.call.declared.members,
            columns: &self.view.members,
            place: self.place,
        })
    }

    /// Looks up the declared member with the number `index`, in the order in which the manifest
    /// names members.
    ///
    /// # Errors
    /// Returns [`Error::Batch`] if the manifest declares fewer members.
    #[inline]
    pub fn member(&self, index: usize) -> Result<MemberLookup<'a>, Error> {
        match self.view.members.get(index) {
            Some(column) => Ok(column.look_up(self.place)),
            None => Err(Error::Batch("a declared member is missing in the batch")),
        }
    }

    /// Returns the event's data, parsed as JSON.
    ///
    /// Text that is only read can be borrowed: a field `#[serde(borrow)] product:
    /// Cow<'a, str>`. (A plain `&'a str` refuses text with escapes in it, such as
    /// `"caf\u00e9"`.)
    ///
    /// # Errors
    /// Returns [`Error::Data`] or [`Error::NotText`] if the data is not the JSON of a `T`. If
    /// `apply` returns this error, the event is parked with the reason.
    #[inline]
    pub fn data<T: Deserialize<'a>>(&self) -> Result<T, Error> {
        if !self.view.call.declared.asked.data {
            return Err(Error::new("the manifest does not request data: remove `.without_data()`"));
        }
        let text = match &self.view.text {
            Some(text) => text.get(self.place),
            None => std::str::from_utf8(self.data_bytes()).map_err(Error::NotText)?,
        };
        json::from_str(text).map_err(Error::Data)
    }

    /// Reads the text of the member `name` of the event's data. [`prepare`] uses it to find out
    /// quickly which rows the events of a batch need. Parsing stops after this member, so the rest
    /// of the data is not checked. Returns `None` if the member is missing, is not a text or has
    /// escapes, or if the data before the member is not JSON.
    ///
    /// [`prepare`]: crate::Projection::prepare
    #[inline]
    #[must_use]
    pub fn glance(&self, name: &str) -> Option<&'a str> {
        let text = self.view.text.as_ref()?.get(self.place);
        json::member(text, name)
    }

    /// Returns the data of the event, as bytes.
    #[inline]
    #[must_use]
    pub fn data_bytes(&self) -> &'a [u8] {
        self.view.data.get(self.place)
    }

    attribute!(
        /// CloudEvents `id`.
        id, "Id"
    );
    attribute!(
        /// CloudEvents `source`.
        source, "Source"
    );
    attribute!(
        /// CloudEvents `subject`; empty if the event has none.
        subject, "Subject"
    );
    attribute!(
        /// The extension `tenant`; empty if the event has none.
        tenant, "Tenant"
    );
    attribute!(
        /// CloudEvents `dataschema`; empty if the event has none.
        dataschema, "Dataschema"
    );
    attribute!(
        /// CloudEvents `datacontenttype`; empty if the event has none.
        datacontenttype, "Datacontenttype"
    );
    attribute!(
        /// All other extensions, as a JSON object.
        extensions, "Extensions"
    );

    pub(crate) fn call(&self) -> &'a Call {
        self.view.call
    }

    /// Returns the index of the event in the batch. Events come after the timers of the batch.
    #[inline]
    pub(crate) fn index(&self) -> u32 {
        (self.view.batch.timers.len() + self.place) as u32
    }

    /// Returns the tenant of the event, even if the manifest does not request it.
    pub(crate) fn owner(&self) -> &'a str {
        self.view.tenant.get(self.place)
    }
}

/// A timer that fires because the watermark has reached its time.
#[derive(Clone, Copy)]
pub struct Timer<'a> {
    pub(crate) call: &'a Call,
    pub(crate) full_key: &'a str,
    pub(crate) at: Timestamp,
    pub(crate) watermark: Timestamp,
    /// The index of the timer in the batch.
    pub(crate) index: u32,
    /// The offset of the event that set the timer.
    pub(crate) offset: u64,
}

impl<'a> Timer<'a> {
    /// Returns the key with which the timer was set, without the tenant.
    #[must_use]
    pub fn key(&self) -> &'a str {
        self.full_key.split_once('\0').map_or(self.full_key, |(_, rest)| rest)
    }

    /// Returns the tenant of the timer, if it was set under an [`InTenant`](crate::InTenant);
    /// otherwise an empty text.
    #[must_use]
    pub fn tenant(&self) -> &'a str {
        self.owner().unwrap_or_default()
    }

    /// Returns the tenant of the timer, if it has one.
    pub(crate) fn owner(&self) -> Option<&'a str> {
        self.full_key.split_once('\0').map(|(tenant, _)| tenant)
    }

    /// Returns the time for which the timer was set.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Returns the watermark when the timer fires. An event with an earlier time is late.
    #[must_use]
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }
}

/// An event or a timer: the one that the projection is processing.
pub trait Trigger: private::Sealed {
    /// Returns the time of the event. For a timer, this is the time when the timer was due.
    fn now(&self) -> Timestamp;

    /// Returns the offset of the event. For a timer, this is the offset of the event that set the
    /// timer. If several events set a timer for the same time, it is the offset of the first of
    /// them. So for the timer of a tumbling or hopping window, it is the offset of the first event
    /// of the window.
    fn cause(&self) -> u64;

    /// Emits `event`. The host appends it to the log if this call succeeds. The cause of `event` is
    /// [`Self::cause`].
    ///
    /// # Errors
    /// Returns [`Error::NotDeclared`] if the manifest does not name the type of `event` in `emits`.
    fn emit(&self, event: NewEvent) -> Result<(), Error>;

    /// Sets the timer with the key `key`. If this timer is already set, its time is changed. The
    /// timer fires when the watermark reaches `at`, or at the next tick if the watermark is already
    /// past `at`.
    ///
    /// If a timer must write to `per_tenant` tables, set it under an [`InTenant`](crate::InTenant).
    /// The timer may then write the rows of that tenant. Only an event or timer of the same tenant
    /// can set such a timer.
    ///
    /// # Errors
    /// Returns [`Error::NoEventTime`] if the manifest has no event time; [`Error::Key`] if the key
    /// is empty or begins with U+0001.
    fn set_timer(&self, at: Timestamp, key: impl Key) -> Result<(), Error>;

    /// Cancels the timer with the key `key`, if one is set.
    ///
    /// # Errors
    /// Returns the errors of [`Self::set_timer`].
    fn cancel_timer(&self, key: impl Key) -> Result<(), Error>;
}

mod private {
    use crate::call::Call;

    pub trait Sealed {
        #[doc(hidden)]
        fn call_of(&self) -> &Call;
    }
}

impl private::Sealed for Event<'_> {
    fn call_of(&self) -> &Call {
        self.view.call
    }
}

impl private::Sealed for Timer<'_> {
    fn call_of(&self) -> &Call {
        self.call
    }
}

macro_rules! trigger {
    ($type:ident, $now:ident, $cause:expr, $index:expr) => {
        impl Trigger for $type<'_> {
            fn now(&self) -> Timestamp {
                self.$now()
            }

            fn cause(&self) -> u64 {
                $cause(self)
            }

            fn emit(&self, event: NewEvent) -> Result<(), Error> {
                private::Sealed::call_of(self).emit($index(self), self.now(), event)
            }

            fn set_timer(&self, at: Timestamp, key: impl Key) -> Result<(), Error> {
                let key = timer_key(key)?;
                private::Sealed::call_of(self).set_timer($index(self), at, &key)
            }

            fn cancel_timer(&self, key: impl Key) -> Result<(), Error> {
                let key = timer_key(key)?;
                private::Sealed::call_of(self).cancel_timer($index(self), &key);
                Ok(())
            }
        }
    };
}

trigger!(Event, time, Event::offset, Event::index);
trigger!(Timer, at, |timer: &Timer<'_>| timer.offset, |timer: &Timer<'_>| timer.index);

fn timer_key(key: impl Key) -> Result<String, Error> {
    let whole = key.to_key();
    let why = match split_tenant(key) {
        Err((_, why)) => why,
        Ok((_, rest)) if rest.is_empty() => "a key cannot be empty",
        Ok((_, rest)) if rest.starts_with(OWN_TIMER) => {
            "keys that begin with U+0001 are reserved for the SDK's windows"
        }
        Ok(_) => return Ok(whole),
    };
    Err(Error::Key { table: "timers", key: whole, why })
}
