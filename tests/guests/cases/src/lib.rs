//! Implements the projections of the end-to-end cases. One guest contains all of them, because the
//! build has to link each guest separately. The parameter `projection` selects one, and a test
//! pushes the guest under the name of this projection.
#![forbid(unsafe_code)]

use std::borrow::Cow;

use lantern_sdk::prelude::*;
use lantern_sdk::window::{OpenWindows, Windows};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The length of a window of `wins`.
const WINDOW: Duration = Duration::from_secs(60);
/// Iterations of the loop that makes an event of `slow` slow.
const SLOW_TURNS: u64 = 600_000;

#[derive(Tables)]
struct Cases {
    /// `docs`: documents as they were sent.
    docs: Table<Doc>,
    /// `emitter`: requests by size.
    asked: Table<Asked>,
    /// `slow`: events by type.
    counted: Table<Counted>,
    /// `subj`: events by tenant and subject.
    sums: Table<Sum>,
    /// `tenants`: notes by owner.
    #[table(per_tenant)]
    notes: Table<Note>,
    /// `wins`: closed windows.
    done: Table<Done>,
    /// `wins`: late events.
    late: Table<Late>,
    #[table(private)]
    open: OpenWindows<u64>,
    #[table(skip)]
    settings: Settings,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    projection: Which,
    /// The type that `emitter` emits.
    #[serde(default)]
    emits: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Which {
    #[default]
    Docs,
    Emitter,
    Slow,
    Subj,
    Tenants,
    Wins,
}

#[derive(Row)]
struct Doc {
    doc: Json<Box<RawValue>>,
    note: String,
}

#[derive(Row, Default)]
struct Asked {
    #[row(merge = sum)]
    n: u64,
}

#[derive(Row, Default)]
struct Counted {
    #[row(merge = sum)]
    n: u64,
    #[row(merge = max)]
    x: u64,
}

#[derive(Row, Default)]
struct Sum {
    #[row(merge = sum)]
    events: u64,
}

#[derive(Row, Default)]
struct Note {
    #[row(merge = sum)]
    saved: u64,
}

#[derive(Row, Default)]
struct Done {
    key: String,
    #[row(merge = sum)]
    events: u64,
    tenant: String,
}

#[derive(Row, Default)]
struct Late {
    #[row(merge = sum)]
    late: u64,
}

#[derive(Deserialize)]
struct WithDoc {
    doc: Box<RawValue>,
}

#[derive(Deserialize)]
struct Size {
    size: usize,
}

#[derive(Serialize)]
struct Text {
    text: String,
}

#[derive(Deserialize)]
struct Account {
    #[serde(default)]
    bad: bool,
}

#[derive(Deserialize)]
struct Saved<'a> {
    #[serde(borrow)]
    owner: Cow<'a, str>,
    #[serde(borrow)]
    key: Cow<'a, str>,
}

#[derive(Deserialize)]
struct View<'a> {
    #[serde(borrow, default)]
    product: Cow<'a, str>,
}

impl Projection for Cases {
    fn setup(&mut self, parameters: &Parameters<'_>) -> Result<Manifest, Error> {
        self.settings = parameters.parse()?;
        let manifest = lantern_sdk::manifest!().parameters(r#"{"type":"object"}"#);
        Ok(match self.settings.projection {
            Which::Docs => manifest
                .subscribe(["doc.saved", "doc.whole"])
                .attributes([Attribute::Subject])
                .on_failure(OnFailure::ParkEvent),
            Which::Emitter => manifest.subscribe(["go"]).emits([self.emitted_type()]),
            Which::Slow => manifest.subscribe(["*"]),
            Which::Subj => manifest
                .subscribe(["acct.*"])
                .attributes([Attribute::Subject, Attribute::Tenant])
                .on_failure(OnFailure::ParkSubject),
            Which::Tenants => manifest.subscribe(["note.saved"]).attributes([Attribute::Tenant]),
            Which::Wins => {
                manifest.subscribe(["*"]).event_time(Duration::ZERO, Duration::from_secs(1))
            }
        })
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        match self.settings.projection {
            Which::Docs => self.save(event),
            Which::Emitter => self.emit(event),
            Which::Slow => self.count(event),
            Which::Subj => self.account(event),
            Which::Tenants => self.note(event),
            Which::Wins => self.view(event),
        }
    }

    fn on_timer(&mut self, timer: &Timer<'_>) -> Result<(), Error> {
        for closed in self.open.close(timer)? {
            let row = Done {
                key: closed.key.clone(),
                events: closed.value,
                tenant: closed.tenant.clone(),
            };
            self.done.put((closed.window, &*closed.key), row)?;
        }
        Ok(())
    }
}

impl Cases {
    fn emitted_type(&self) -> String {
        self.settings.emits.clone().unwrap_or_else(|| "went".to_owned())
    }

    /// Copies the member `doc` of `data`, or `data` as a whole.
    fn save(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let read = |error: serde_json::Error| Error::new(error.to_string());
        let doc = match event.kind() {
            "doc.whole" => serde_json::from_slice(event.data_bytes()).map_err(read)?,
            _ => serde_json::from_slice::<WithDoc>(event.data_bytes()).map_err(read)?.doc,
        };
        self.docs.put(event.subject()?, Doc { doc: Json(doc), note: "kept".to_owned() })
    }

    fn emit(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let Size { size } = event.data()?;
        self.asked.row(size.to_string().as_str())?.n += 1;
        event.emit(NewEvent::new(self.emitted_type(), &Text { text: "x".repeat(size) })?)
    }

    fn count(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let mut x: u64 = event.offset();
        for turn in 0..SLOW_TURNS {
            x = std::hint::black_box(x ^ turn).rotate_left(7);
        }
        let row = self.counted.row(event.kind())?;
        row.n += 1;
        row.x = row.x.max(x >> 40);
        Ok(())
    }

    fn account(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let account: Account = event.data()?;
        if account.bad {
            return Err(Error::new("bad"));
        }
        self.sums.row((event.tenant()?, event.subject()?))?.events += 1;
        Ok(())
    }

    fn note(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let saved: Saved<'_> = event.data()?;
        self.notes.row(InTenant(&saved.owner, &saved.key))?.saved += 1;
        Ok(())
    }

    fn view(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let view: View<'_> = event.data()?;
        let windows = Windows::tumbling(WINDOW);
        let late = self.open.add(event, windows, &*view.product, |events| *events += 1)?;
        if late > 0 {
            self.late.row(&*view.product)?.late += 1;
        }
        Ok(())
    }
}

lantern_sdk::export!(Cases);
