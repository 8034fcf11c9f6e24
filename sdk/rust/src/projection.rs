//! Defines the trait that a plugin implements, and the code that calls it. The contract has two
//! functions, `setup` and `apply`, which the host calls.

use std::cell::Cell;

use serde::de::DeserializeOwned;

use crate::Timestamp;
use crate::bindings::lantern::projection::types as wit;
use crate::call::{Call, CallSettings};
use crate::error::Error;
use crate::event::{Event, EventBatch, Events, Timer};
use crate::manifest::Manifest;
use crate::table::Tables;
use crate::trigger;

/// A projection: a deterministic fold of an event log into tables.
///
/// The tables must depend only on the events. They must not depend on memory left by an earlier
/// call, because the host drops instances at any time. They must not depend on where a batch ends
/// either. If all state is in tables, the SDK takes care of both.
pub trait Projection: Tables {
    /// Describes the projection, and reads its parameters. It is called once on every new instance.
    /// The same parameters must always give the same manifest.
    ///
    /// # Errors
    /// Fails if the parameters are wrong. The person who uploads the plugin gets the message.
    fn setup(&mut self, parameters: &Parameters<'_>) -> Result<Manifest, Error>;

    /// Applies one event to the tables.
    ///
    /// # Errors
    /// Fails if the event cannot be applied. All its changes are then dropped. The host parks the
    /// event, or does what the manifest requests, and shows the message.
    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error>;

    /// Handles a timer that this projection or one of its windows has set.
    ///
    /// # Errors
    /// Returns the errors of [`Self::apply`].
    fn on_timer(&mut self, timer: &Timer<'_>) -> Result<(), Error> {
        let _ = timer;
        Ok(())
    }

    /// Gets all events of a batch before the first of them is applied, in order to
    /// [`prefetch`](crate::Table::prefetch) rows. This function must not change anything, because
    /// the tables must not depend on where a batch ends.
    ///
    /// # Errors
    /// Returns the errors of [`Self::apply`]. The error belongs to no single event.
    fn prepare(&mut self, events: Events<'_>) -> Result<(), Error> {
        let _ = events;
        Ok(())
    }
}

/// The parameters of a version: JSON, or an empty text.
#[derive(Debug)]
pub struct Parameters<'a> {
    json: &'a str,
    read: Cell<bool>,
}

impl<'a> Parameters<'a> {
    fn new(json: &'a str) -> Self {
        Self { json: json.trim(), read: Cell::new(false) }
    }

    /// Returns the parameters as text; empty if there are none.
    #[must_use]
    pub fn json(&self) -> &'a str {
        self.read.set(true);
        self.json
    }

    /// Parses the parameters as a `T`. If there are none, they are parsed as `{}`. With
    /// `#[serde(default, deny_unknown_fields)]` on `T`, a missing parameter has its default, and a
    /// misspelled name is an error.
    ///
    /// # Errors
    /// Returns [`Error::Parameters`] if the parameters are not a `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.read.set(true);
        let json = if self.json.is_empty() { "{}" } else { self.json };
        serde_json::from_str(json).map_err(|error| Error::Parameters(error.to_string()))
    }

    fn check_taken(&self, manifest: &Manifest) -> Result<(), Error> {
        let given = !self.json.is_empty() && self.json != "{}";
        if given && !self.read.get() && !manifest.takes_parameters() {
            let why = format!("`{}` was given, but this projection takes none", self.json);
            return Err(Error::Parameters(why));
        }
        Ok(())
    }
}

/// Why a call of `apply` failed.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The index in the batch of the timer or event that caused the failure.
    pub cause: Option<u32>,
    pub message: String,
}

/// An instance of a projection. Its functions are the two functions of the contract.
#[doc(hidden)]
pub struct Instance<P> {
    projection: P,
    call: Call,
    /// Whether the projection has tables whose rows belong to tenants.
    per_tenant: bool,
    failed: bool,
}

impl<P: Projection> Instance<P> {
    /// Returns the function `setup` of the contract.
    pub fn setup(parameters: &str) -> Result<(Self, wit::Manifest), Error> {
        let parameters = Parameters::new(parameters);
        let mut projection = P::open();
        let manifest = projection.setup(&parameters)?;
        parameters.check_taken(&manifest)?;
        let specs = projection.specs();
        let per_tenant = specs.iter().any(|spec| spec.per_tenant);
        let mut requested = manifest.asked();
        requested.tenant |= per_tenant;
        let declared = CallSettings {
            asked: requested,
            members: manifest.declared_members().to_vec(),
            timers: manifest.has_event_time(),
            emits: manifest.emitted_types().to_vec(),
        };
        let manifest = manifest.into_wit(specs.into_iter())?;
        let instance = Self { projection, call: Call::new(declared), per_tenant, failed: false };
        Ok((instance, manifest))
    }

    /// Returns the function `apply` of the contract.
    pub fn apply(&mut self, batch: &wit::Batch) -> Result<(), Failure> {
        if self.failed {
            return Err(Failure {
                cause: None,
                message: "an earlier call failed; the instance should have been dropped".to_owned(),
            });
        }
        let result = self.fold(batch);
        self.failed = result.is_err();
        result
    }

    fn fold(&mut self, batch: &wit::Batch) -> Result<(), Failure> {
        let Self { projection, call, per_tenant, .. } = self;
        let per_tenant = *per_tenant;
        let view = EventBatch::new(batch, call).map_err(unnamed)?;
        for (index, timer) in (0..).zip(&batch.timers) {
            trigger::enter(index);
            let fired = Timer {
                call,
                full_key: &timer.key,
                at: Timestamp::from_micros(timer.at),
                watermark: Timestamp::from_micros(batch.watermark),
                index,
                offset: timer.offset,
            };
            if per_tenant {
                trigger::enter_tenant(fired.owner());
            }
            projection
                .on_timer(&fired)
                .and_then(|()| projection.check())
                .map_err(|error| of_timer(index, timer, &error))?;
        }
        if !batch.offsets.is_empty() {
            trigger::enter(batch.timers.len() as u32);
            projection.prepare(view.events()).map_err(unnamed)?;
        }
        for event in view.events() {
            trigger::enter(event.index());
            if per_tenant {
                trigger::enter_tenant(Some(event.owner()));
            }
            if let Err(error) = projection.apply(&event).and_then(|()| projection.check()) {
                return Err(of_event(&event, &error));
            }
        }
        projection.flush().map_err(|failed| {
            let Some(cause) = failed.cause else { return unnamed(failed.error) };
            if let Some(timer) = batch.timers.get(cause as usize) {
                return of_timer(cause, timer, &failed.error);
            }
            match view.events().find(|event| event.index() == cause) {
                Some(event) => of_event(&event, &failed.error),
                None => unnamed(failed.error),
            }
        })?;
        call.finish();
        Ok(())
    }
}

fn of_timer(index: u32, timer: &wit::Timer, error: &Error) -> Failure {
    let due = Timestamp::from_micros(timer.at);
    Failure { cause: Some(index), message: format!("timer {:?} due at {due}: {error}", timer.key) }
}

fn of_event(event: &Event<'_>, error: &Error) -> Failure {
    let message = format!("`{}` at offset {}: {error}", event.kind(), event.offset());
    Failure { cause: Some(event.index()), message }
}

fn unnamed(error: Error) -> Failure {
    Failure { cause: None, message: error.to_string() }
}

/// Uses a projection, so that the compiler does not report it as dead code in a native build.
#[doc(hidden)]
pub const fn check_projection<P: Projection>() {
    let _: fn(&mut P, &Event<'_>) -> Result<(), Error> = P::apply;
}

/// The functions that the plugin's exported functions call.
#[doc(hidden)]
#[cfg(target_arch = "wasm32")]
pub mod guest {
    use std::cell::RefCell;

    use super::{Instance, Projection};
    use crate::bindings::lantern::projection::types as wit;
    use crate::host;
    use crate::trigger;

    /// The cell that contains the only instance of the plugin.
    pub type InstanceCell<P> = RefCell<Option<Instance<P>>>;

    pub fn setup<P: Projection>(
        cell: &InstanceCell<P>,
        parameters: &str,
    ) -> Result<wit::Manifest, String> {
        // Without this hook, a panic would become a trap without a message.
        std::panic::set_hook(Box::new(|panic| {
            host::log(trigger::cause(), wit::Level::Error, &panic.to_string());
        }));
        match Instance::setup(parameters) {
            Ok((instance, manifest)) => {
                *cell.borrow_mut() = Some(instance);
                Ok(manifest)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    pub fn apply<P: Projection>(
        cell: &InstanceCell<P>,
        batch: &wit::Batch,
    ) -> Result<(), wit::Failure> {
        match cell.borrow_mut().as_mut() {
            Some(instance) => instance
                .apply(batch)
                .map_err(|failure| wit::Failure { cause: failure.cause, message: failure.message }),
            None => Err(wit::Failure {
                cause: None,
                message: "`apply` was called before `setup`".to_owned(),
            }),
        }
    }
}
