//! Defines the steps of a random history of the experiment `fold`: everything that can happen to an
//! engine, and the probability of each step.

use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

use crate::model::Choice;
use crate::test_projection::{Kind, Policy, Reading};

/// The variants of the plugin that can be uploaded as versions.
pub const KINDS: [Kind; 4] = [
    Kind { offset: 0, mended: false, on_failure: Policy::ParkSubject },
    Kind { offset: 1, mended: false, on_failure: Policy::ParkEvent },
    Kind { offset: 2, mended: true, on_failure: Policy::ParkSubject },
    Kind { offset: 3, mended: true, on_failure: Policy::ParkEvent },
];

/// The settings with which the engine runs during one history.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The maximum number of events in a batch.
    pub batch_events: usize,
    /// The maximum number of timers in a batch.
    pub batch_timers: usize,
    /// The maximum number of events in a chunk.
    pub chunk_events: usize,
    /// How long a commit may be delayed to collect more changes, in milliseconds.
    pub commit_ms: u64,
    /// How long a commit may remain without a sync of the disk, in milliseconds.
    pub sync_ms: u64,
    /// The maximum number of events, and of commits, that may wait for a sync of the disk.
    pub unsynced_events: u64,
    /// The maximum size of a state's change log, in bytes.
    pub changes_bytes: u64,
    /// The limit on the emit depth. `None` if there is no second projection that answers
    /// emitted events.
    pub echo_depth: Option<u32>,
}

/// A record that a step appends to the log.
#[derive(Clone, Debug)]
pub enum Input {
    /// A reading: its tenant and subject, the time since the previous reading in milliseconds
    /// (may be negative), and its content.
    Read(Actor, i16, Reading),
    /// A reading whose time is this many seconds ahead of the log's clock.
    Ahead(Actor, u8),
    /// A record that is not an event. It contains an index into [`CLAIMED`]: the event type that
    /// the record claims to have.
    Unreadable(u8),
    /// An event of a type to which no projection subscribes.
    Other,
    /// A heartbeat, this many milliseconds after the log's clock.
    Heartbeat(u16),
}

/// The tenant and subject of an event. The tenant is an index into [`TENANTS`].
pub(super) type Actor = (u8, u8);

/// The tenants that events can have. An empty text means no tenant.
pub(super) const TENANTS: [&str; 3] = ["", "a", "b"];

/// The event types that unreadable records can claim to have. An empty text means no type.
pub(super) const CLAIMED: [&str; 3] = ["", "m.read", "x.other"];

/// One step of a history. Versions are indices into [`KINDS`].
#[derive(Clone, Debug)]
pub enum HistoryAction {
    /// Appends events to the log.
    Append(Vec<Input>),
    /// Lets the engine take this many turns.
    Turns(u8),
    /// Lets the engine take turns until nothing is left to do.
    Settle,
    /// Kills the process, and starts it again.
    Restart,
    /// Advances the clock by this many milliseconds.
    Wait(u16),
    /// Makes a commit fail, after this many others have succeeded.
    FailCommit(u8),
    /// Makes the next read of a state fail.
    FailStateRead,
    /// Makes the next read of the log fail.
    FailLogRead,
    /// Makes the next append of emitted events fail.
    FailAppend,
    /// Makes the next write of the catalogue fail.
    FailCatalog,
    /// Makes this many calls of plugins fail through a fault of the host.
    FailCalls(u8),
    /// Holds back the appends to the log from now on.
    Hold,
    /// Lets the appends that are held back continue.
    Release,
    /// Sets whether the log refuses large events from now on.
    Limit(bool),
    /// Uploads a version. The flag determines whether the version becomes active by itself.
    Upload(u8, bool),
    /// Activates a version.
    Activate(u8),
    /// Activates the previously active version again.
    Rollback,
    /// Deletes a version.
    Delete(u8),
    /// Deletes the whole projection.
    DeleteAll,
    /// Rebuilds a version from the log.
    Rebuild(u8),
    /// Pauses the projection.
    Pause,
    /// Resumes the projection.
    Resume,
    /// Retries the parked events that the operator chooses.
    Retry(Choice),
    /// Drops the parked events that the operator chooses.
    Discard(Choice),
}

/// Generates random histories, in which any step may follow any other.
#[derive(Debug)]
pub struct History;

impl ReferenceStateMachine for History {
    type State = Setting;
    type Transition = HistoryAction;

    fn init_state() -> BoxedStrategy<Setting> {
        (
            prop::sample::select(vec![1, 2, 5, 1_000]),
            prop::sample::select(vec![1, 2, 1_000]),
            prop::sample::select(vec![1, 3, 50]),
            prop::sample::select(vec![0, 1_000]),
            prop::sample::select(vec![(0, 10), (1_000, 1), (10_000, 3), (1 << 40, 1_000)]),
            prop::sample::select(vec![200, 1 << 20]),
            prop::sample::select(vec![None, Some(1), Some(2), Some(5)]),
        )
            .prop_map(|(batch_events, batch_timers, chunk_events, commit_ms, sync, bytes, echo)| {
                let (sync_ms, unsynced_events) = sync;
                Setting {
                    batch_events,
                    batch_timers,
                    chunk_events,
                    commit_ms,
                    sync_ms,
                    unsynced_events,
                    changes_bytes: bytes,
                    echo_depth: echo,
                }
            })
            .boxed()
    }

    fn transitions(_: &Setting) -> BoxedStrategy<HistoryAction> {
        let version = || 0..u8::try_from(KINDS.len()).unwrap_or(1);
        prop_oneof![
            8 => prop::collection::vec(input(), 1..12).prop_map(HistoryAction::Append),
            8 => (1_u8..8).prop_map(HistoryAction::Turns),
            6 => Just(HistoryAction::Settle),
            3 => Just(HistoryAction::Restart),
            2 => (0_u16..3_000).prop_map(HistoryAction::Wait),
            2 => (0_u8..4).prop_map(HistoryAction::FailCommit),
            1 => Just(HistoryAction::FailStateRead),
            1 => Just(HistoryAction::FailLogRead),
            1 => Just(HistoryAction::FailAppend),
            1 => Just(HistoryAction::FailCatalog),
            2 => (1_u8..4).prop_map(HistoryAction::FailCalls),
            1 => Just(HistoryAction::Hold),
            2 => Just(HistoryAction::Release),
            1 => any::<bool>().prop_map(HistoryAction::Limit),
            4 => (version(), any::<bool>()).prop_map(|(v, on)| HistoryAction::Upload(v, on)),
            3 => version().prop_map(HistoryAction::Activate),
            2 => Just(HistoryAction::Rollback),
            1 => version().prop_map(HistoryAction::Delete),
            1 => Just(HistoryAction::DeleteAll),
            2 => version().prop_map(HistoryAction::Rebuild),
            1 => Just(HistoryAction::Pause),
            2 => Just(HistoryAction::Resume),
            4 => choice().prop_map(HistoryAction::Retry),
            1 => choice().prop_map(HistoryAction::Discard),
        ]
        .boxed()
    }

    fn apply(state: Setting, _: &HistoryAction) -> Setting {
        state
    }
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        12 => (who(), -3_000_i16..4_000, reading()).prop_map(|(w, t, r)| Input::Read(w, t, r)),
        1 => (who(), 1_u8..90).prop_map(|(w, s)| Input::Ahead(w, s)),
        1 => (0_u8..3).prop_map(Input::Unreadable),
        1 => Just(Input::Other),
        1 => (0_u16..9_000).prop_map(Input::Heartbeat),
    ]
}

/// Generates a tenant and a subject from a few, so that tenants share subjects and batches contain
/// several tenants.
fn who() -> impl Strategy<Value = Actor> {
    (prop::sample::select(vec![0_u8, 1, 1, 2, 2]), 0_u8..3)
}

fn reading() -> impl Strategy<Value = Reading> {
    prop_oneof![
        16 => (0_i64..20).prop_map(Reading::Value),
        2 => Just(Reading::Bad),
        1 => Just(Reading::Trap),
        1 => Just(Reading::BadTimer),
        1 => Just(Reading::Poison),
        2 => Just(Reading::Foreign),
        1 => Just(Reading::Loud),
        1 => Just(Reading::Large),
    ]
}

fn choice() -> impl Strategy<Value = Choice> {
    prop_oneof![
        3 => Just(Choice::All),
        1 => who().prop_map(|(tenant, subject)| {
            Choice::Subject(TENANTS[usize::from(tenant)].into(), format!("s{subject}"))
        }),
        1 => (0_u64..40).prop_map(Choice::Offset),
    ]
}
