//! Collects the readings of meters by tenant. The projection declares everything that a manifest
//! can declare: typed members, retention, a table per tenant, windows that close and emit, and
//! `park-subject`. So a test with this guest shows whether any of these features depends on the
//! size of batches.
#![forbid(unsafe_code)]

use lantern_sdk::prelude::*;
use lantern_sdk::window::{OpenWindows, Windows};
use serde::Serialize;

/// The length of the windows over which readings are summed.
const WINDOW: Duration = Duration::from_secs(5);
/// The time by which a reading may be late.
const LATENESS: Duration = Duration::from_secs(2);
/// The number of readings of a meter after which the guest accepts a negative one.
const ENOUGH: u64 = 3;
/// The guest emits an event for a reading above this value.
const PEAK_WH: i64 = 90;

#[derive(Tables)]
struct Usage {
    /// The recent readings of each meter.
    #[table(retention = "20s")]
    latest: Table<Latest>,
    /// The readings of each tenant's meters.
    #[table(per_tenant)]
    bills: Table<Bill>,
    /// The same per window, for closed windows.
    #[table(per_tenant)]
    billed: Table<Bill>,
    #[table(private)]
    metered: OpenWindows<i64>,
}

/// The members of a reading.
#[derive(EventData)]
struct Reading<'a> {
    meter: &'a str,
    wh: i64,
    /// The tenant who pays, if it is not the event's tenant.
    owner: Option<&'a str>,
}

/// A meter's readings, in a table with retention.
#[derive(Row, Default)]
struct Latest {
    #[row(merge = sum)]
    readings: u64,
    #[row(merge = sum)]
    late: u64,
    wh: i64,
}

/// The amounts that a tenant pays for.
#[derive(Row, Default)]
struct Bill {
    #[row(merge = sum)]
    wh: i64,
}

#[derive(Serialize)]
struct Measured {
    wh: i64,
}

impl Projection for Usage {
    fn setup(&mut self, _: &Parameters<'_>) -> Result<Manifest, Error> {
        Ok(lantern_sdk::manifest!()
            .subscribe(["usage.read"])
            .attributes([Attribute::Subject, Attribute::Tenant])
            .members::<Reading<'_>>()
            .without_data()
            .event_time(LATENESS, Duration::from_secs(1))
            .emits(["usage.peak", "usage.closed"])
            .on_failure(OnFailure::ParkSubject))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let Reading { meter, wh, owner } = event.members()?;
        let tenant = event.tenant()?;
        let windows = Windows::tumbling(WINDOW);
        let add = |sum: &mut i64| *sum += wh;
        let late = match tenant {
            "" => self.metered.add(event, windows, meter, add)?,
            _ => self.metered.add(event, windows, InTenant(tenant, meter), add)?,
        };
        let owner = owner.unwrap_or(tenant);
        if !owner.is_empty() {
            self.bills.row(InTenant(owner, meter))?.wh += wh;
        }
        let row = self.latest.row((tenant, meter))?;
        row.readings += 1;
        row.late += u64::from(late > 0);
        row.wh = wh;
        // This fails after a row was written, so that the host must discard the write.
        if wh < 0 && row.readings < ENOUGH {
            return Err(Error::new("a negative reading of a new meter"));
        }
        if wh > PEAK_WH {
            event.emit(NewEvent::new("usage.peak", &Measured { wh })?.subject(meter))?;
        }
        Ok(())
    }

    fn on_timer(&mut self, timer: &Timer<'_>) -> Result<(), Error> {
        for closed in self.metered.close(timer)? {
            let measured = Measured { wh: closed.value };
            timer.emit(NewEvent::new("usage.closed", &measured)?.subject(&closed.key))?;
            if !closed.tenant.is_empty() {
                let key = InTenant(&closed.tenant, (closed.window, &*closed.key));
                self.billed.put(key, Bill { wh: closed.value })?;
            }
        }
        Ok(())
    }
}

lantern_sdk::export!(Usage);
