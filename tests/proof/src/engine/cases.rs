//! Lists histories of the experiment that once failed, made as short as possible.

use super::history::{HistoryAction, Input, Setting};
use crate::model::Choice;
use crate::test_projection::Reading;

/// Returns the name, the settings and the steps of each history.
#[expect(clippy::too_many_lines, reason = "a list of cases, not logic")]
pub(super) fn all() -> Vec<(&'static str, Setting, Vec<HistoryAction>)> {
    let setting = Setting {
        batch_events: 1,
        batch_timers: 1,
        chunk_events: 1,
        commit_ms: 0,
        sync_ms: 1 << 40,
        unsynced_events: 1_000,
        changes_bytes: 200,
        echo_depth: None,
    };
    let read = |ms: i16, value: i64| Input::Read((0, 0), ms, Reading::Value(value));
    let closing = || HistoryAction::Append(vec![read(3_031, 0), read(3_969, 0)]);
    let cases = vec![
        (
            "a rebuild lost what was emitted and not yet in the log",
            vec![
                HistoryAction::Upload(1, true),
                HistoryAction::Turns(1),
                HistoryAction::Hold,
                closing(),
                HistoryAction::Settle,
                HistoryAction::Rebuild(1),
                HistoryAction::Release,
            ],
        ),
        (
            "what a rebuild emitted was taken for what was emitted before it",
            vec![
                HistoryAction::Upload(0, true),
                HistoryAction::Turns(1),
                HistoryAction::Append(vec![Input::Read((0, 1), 0, Reading::BadTimer)]),
                closing(),
                HistoryAction::Settle,
                HistoryAction::Retry(Choice::All),
                HistoryAction::Rebuild(0),
                closing(),
            ],
        ),
        (
            "a version pushed again emitted nothing: its events' ids were taken",
            vec![
                HistoryAction::Upload(1, true),
                HistoryAction::Turns(1),
                closing(),
                HistoryAction::Settle,
                HistoryAction::Upload(3, true),
                HistoryAction::Settle,
                HistoryAction::Delete(1),
                HistoryAction::Upload(1, true),
                HistoryAction::Settle,
                closing(),
            ],
        ),
        (
            "a version that cannot be opened held the others at position 0",
            vec![
                HistoryAction::Append(vec![read(0, 0)]),
                HistoryAction::Upload(0, true),
                HistoryAction::Settle,
                HistoryAction::FailStateRead,
                HistoryAction::Restart,
                HistoryAction::Upload(2, false),
                HistoryAction::Activate(2),
            ],
        ),
        (
            "a version whose state could not be opened once stayed halted",
            vec![
                HistoryAction::Upload(0, false),
                HistoryAction::FailStateRead,
                HistoryAction::Restart,
                HistoryAction::Resume,
            ],
        ),
        (
            "a shadow's position before its rebuild kept it from emitting",
            vec![
                HistoryAction::Append(vec![read(2_856, 0), read(770, 6), read(3_374, 0)]),
                HistoryAction::Upload(1, true),
                HistoryAction::Turns(4),
                HistoryAction::Upload(3, true),
                HistoryAction::Turns(5),
                HistoryAction::Rollback,
                HistoryAction::Rebuild(1),
                HistoryAction::Rebuild(3),
            ],
        ),
        (
            "a tick that nothing was due by was not committed",
            vec![
                HistoryAction::Upload(0, false),
                HistoryAction::Append(vec![read(0, 0)]),
                HistoryAction::Settle,
                HistoryAction::Append(vec![read(1_000, 0), Input::Heartbeat(1_000)]),
                HistoryAction::FailCommit(0),
                HistoryAction::Turns(1),
                HistoryAction::FailStateRead,
                HistoryAction::Wait(100),
                HistoryAction::Turns(1),
            ],
        ),
        (
            "a retry came before timers that were due and had not fired yet",
            vec![
                HistoryAction::Upload(1, false),
                HistoryAction::Append(vec![
                    read(0, 0),
                    Input::Read((0, 0), 0, Reading::Bad),
                    read(64, 0),
                ]),
                HistoryAction::Settle,
                HistoryAction::FailCalls(1),
                HistoryAction::Append(vec![Input::Heartbeat(6_936)]),
                HistoryAction::Turns(1),
                HistoryAction::Pause,
                HistoryAction::Retry(Choice::All),
            ],
        ),
        (
            "a version rebuilt out of a state that could not be opened was taken for stuck",
            vec![
                HistoryAction::Append(vec![read(0, 2)]),
                HistoryAction::Upload(3, true),
                HistoryAction::Turns(2),
                HistoryAction::FailStateRead,
                HistoryAction::Restart,
                HistoryAction::FailCalls(2),
                HistoryAction::Rebuild(3),
                HistoryAction::Settle,
                HistoryAction::Append(vec![Input::Heartbeat(7_000)]),
                HistoryAction::Upload(0, true),
                HistoryAction::Turns(5),
            ],
        ),
        (
            "a version whose state could not be opened once was deleted with what it had to send",
            vec![
                HistoryAction::Hold,
                HistoryAction::FailAppend,
                HistoryAction::Append(vec![read(0, 0), read(0, 0), read(918, 0)]),
                HistoryAction::Upload(3, true),
                HistoryAction::Settle,
                HistoryAction::Append(vec![
                    read(275, 0),
                    read(1_527, 0),
                    read(1_881, 0),
                    read(2_399, 0),
                ]),
                HistoryAction::Upload(0, true),
                HistoryAction::Turns(6),
                HistoryAction::FailStateRead,
                HistoryAction::Restart,
                HistoryAction::Retry(Choice::All),
                HistoryAction::Delete(3),
            ],
        ),
        (
            "a rebuild that failed left an offset that no fold had reached",
            vec![
                HistoryAction::Upload(0, true),
                HistoryAction::Turns(1),
                HistoryAction::Append(vec![read(447, 0), read(582, 0), read(2_971, 1)]),
                HistoryAction::Resume,
                HistoryAction::FailCalls(1),
                HistoryAction::Settle,
                HistoryAction::FailCommit(3),
                HistoryAction::Upload(1, true),
                HistoryAction::Append(vec![
                    read(0, 0),
                    read(472, 0),
                    read(1_148, 0),
                    read(3_708, 0),
                    read(2_672, 0),
                ]),
                HistoryAction::Turns(3),
                HistoryAction::Turns(2),
                HistoryAction::FailCatalog,
                HistoryAction::Rebuild(0),
            ],
        ),
        (
            "readers were not told of the epoch of a state that could be opened later",
            vec![
                HistoryAction::Append(vec![read(0, 0)]),
                HistoryAction::Upload(1, true),
                HistoryAction::Rebuild(1),
                HistoryAction::FailStateRead,
                HistoryAction::Restart,
                HistoryAction::Append(vec![read(0, 0)]),
            ],
        ),
        (
            "a version rebuilt after its state could not be opened once emitted nothing",
            vec![
                HistoryAction::Upload(2, true),
                HistoryAction::FailStateRead,
                HistoryAction::Restart,
                HistoryAction::Append(vec![
                    read(1_815, 0),
                    read(2_492, 0),
                    Input::Heartbeat(1_666),
                    read(1_027, 0),
                ]),
                HistoryAction::Rebuild(2),
            ],
        ),
    ];
    cases.into_iter().map(|(name, steps)| (name, setting.clone(), steps)).collect()
}
