//! Histories that once failed, made as small as possible.

use super::history::{Input, Setting, Step};
use crate::meter::Reading;
use crate::model::Choice;

/// Name, setting and steps of each history.
#[expect(clippy::too_many_lines, reason = "a list of cases, not logic")]
pub(super) fn all() -> Vec<(&'static str, Setting, Vec<Step>)> {
    let setting = Setting {
        batch_events: 1,
        batch_timers: 1,
        chunk_events: 1,
        commit_ms: 0,
        changes_bytes: 200,
        echo_depth: None,
    };
    let read = |ms: i16, value: i64| Input::Read((0, 0), ms, Reading::Value(value));
    let closing = || Step::Append(vec![read(3_031, 0), read(3_969, 0)]);
    let cases = vec![
        (
            "a rebuild lost what was emitted and not yet in the log",
            vec![
                Step::Upload(1, true),
                Step::Turns(1),
                Step::Hold,
                closing(),
                Step::Settle,
                Step::Rebuild(1),
                Step::Release,
            ],
        ),
        (
            "what a rebuild emitted was taken for what was emitted before it",
            vec![
                Step::Upload(0, true),
                Step::Turns(1),
                Step::Append(vec![Input::Read((0, 1), 0, Reading::BadTimer)]),
                closing(),
                Step::Settle,
                Step::Retry(Choice::All),
                Step::Rebuild(0),
                closing(),
            ],
        ),
        (
            "a version pushed again emitted nothing: its events' ids were taken",
            vec![
                Step::Upload(1, true),
                Step::Turns(1),
                closing(),
                Step::Settle,
                Step::Upload(3, true),
                Step::Settle,
                Step::Delete(1),
                Step::Upload(1, true),
                Step::Settle,
                closing(),
            ],
        ),
        (
            "a version that cannot be opened held the others at position 0",
            vec![
                Step::Append(vec![read(0, 0)]),
                Step::Upload(0, true),
                Step::Settle,
                Step::FailStateRead,
                Step::Restart,
                Step::Upload(2, false),
                Step::Activate(2),
            ],
        ),
        (
            "a version whose state could not be opened once stayed halted",
            vec![Step::Upload(0, false), Step::FailStateRead, Step::Restart, Step::Resume],
        ),
        (
            "a shadow's position before its rebuild kept it from emitting",
            vec![
                Step::Append(vec![read(2_856, 0), read(770, 6), read(3_374, 0)]),
                Step::Upload(1, true),
                Step::Turns(4),
                Step::Upload(3, true),
                Step::Turns(5),
                Step::Rollback,
                Step::Rebuild(1),
                Step::Rebuild(3),
            ],
        ),
        (
            "a tick that nothing was due by was not committed",
            vec![
                Step::Upload(0, false),
                Step::Append(vec![read(0, 0)]),
                Step::Settle,
                Step::Append(vec![read(1_000, 0), Input::Heartbeat(1_000)]),
                Step::FailCommit(0),
                Step::Turns(1),
                Step::FailStateRead,
                Step::Wait(100),
                Step::Turns(1),
            ],
        ),
        (
            "a retry came before timers that were due and had not fired yet",
            vec![
                Step::Upload(1, false),
                Step::Append(vec![read(0, 0), Input::Read((0, 0), 0, Reading::Bad), read(64, 0)]),
                Step::Settle,
                Step::FailCalls(1),
                Step::Append(vec![Input::Heartbeat(6_936)]),
                Step::Turns(1),
                Step::Pause,
                Step::Retry(Choice::All),
            ],
        ),
        (
            "a version rebuilt out of a state that could not be opened was taken for stuck",
            vec![
                Step::Append(vec![read(0, 2)]),
                Step::Upload(3, true),
                Step::Turns(2),
                Step::FailStateRead,
                Step::Restart,
                Step::FailCalls(2),
                Step::Rebuild(3),
                Step::Settle,
                Step::Append(vec![Input::Heartbeat(7_000)]),
                Step::Upload(0, true),
                Step::Turns(5),
            ],
        ),
        (
            "a version whose state could not be opened once was deleted with what it had to send",
            vec![
                Step::Hold,
                Step::FailAppend,
                Step::Append(vec![read(0, 0), read(0, 0), read(918, 0)]),
                Step::Upload(3, true),
                Step::Settle,
                Step::Append(vec![read(275, 0), read(1_527, 0), read(1_881, 0), read(2_399, 0)]),
                Step::Upload(0, true),
                Step::Turns(6),
                Step::FailStateRead,
                Step::Restart,
                Step::Retry(Choice::All),
                Step::Delete(3),
            ],
        ),
        (
            "a rebuild that failed left an offset that no fold had reached",
            vec![
                Step::Upload(0, true),
                Step::Turns(1),
                Step::Append(vec![read(447, 0), read(582, 0), read(2_971, 1)]),
                Step::Resume,
                Step::FailCalls(1),
                Step::Settle,
                Step::FailCommit(3),
                Step::Upload(1, true),
                Step::Append(vec![
                    read(0, 0),
                    read(472, 0),
                    read(1_148, 0),
                    read(3_708, 0),
                    read(2_672, 0),
                ]),
                Step::Turns(3),
                Step::Turns(2),
                Step::FailCatalog,
                Step::Rebuild(0),
            ],
        ),
        (
            "readers were not told of the epoch of a state that could be opened later",
            vec![
                Step::Append(vec![read(0, 0)]),
                Step::Upload(1, true),
                Step::Rebuild(1),
                Step::FailStateRead,
                Step::Restart,
                Step::Append(vec![read(0, 0)]),
            ],
        ),
        (
            "a version rebuilt after its state could not be opened once emitted nothing",
            vec![
                Step::Upload(2, true),
                Step::FailStateRead,
                Step::Restart,
                Step::Append(vec![
                    read(1_815, 0),
                    read(2_492, 0),
                    Input::Heartbeat(1_666),
                    read(1_027, 0),
                ]),
                Step::Rebuild(2),
            ],
        ),
    ];
    cases.into_iter().map(|(name, steps)| (name, setting.clone(), steps)).collect()
}
