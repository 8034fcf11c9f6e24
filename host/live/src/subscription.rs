//! Implements one subscription. It decides what is sent to its client next. It is a state machine
//! without I/O. The session asks it for a frame whenever the session can write one.

use std::collections::VecDeque;
use std::sync::Arc;

use lantern_core::{Checkpoint, EventTraces, SentFrame};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::advance;
use crate::client_shape::ClientShape;
use crate::config::ms;
use crate::cursor::Position;
use crate::delta::ReadyDelta;
use crate::frame::{Frame, FrameState};
use crate::projection_feed::{ProjectionFeed, ProjectionFeeds, SubscriptionEnd, TopicListener};
use crate::protocol::{
    Ended, Mode, OTHER_SHAPE, Reset, ResetReason, ServerMessage, Subscribed, close,
};
use crate::query::Query;
use crate::resources::Resources;
use crate::resume::{
    ReadRequest, Resume, SnapshotPart, SnapshotRows, StartKind, SubscriptionStart,
};
use crate::roll_up_task;
use crate::schedule::Schedule;
use crate::session_end::SessionStop;
use crate::session_signal::SessionSignal;
use crate::shape::{SelectedTable, Shape};
use crate::snapshot_reader;
use crate::subscribe_error::SubscribeError;
use crate::subscription_opening::{
    LastMessage, ParsedSub, Repeat, SubscriptionOpening, repeat_after,
};
use crate::topic::NextAction;

/// The state of one subscription.
pub(crate) struct Subscription {
    pub(crate) id: u64,
    ch: u64,
    listener: TopicListener,
    /// The hash of the subscription's query, which tokens contain.
    query_hash: u64,
    /// The shape for which the client was written.
    client_shape: Option<ClientShape>,
    /// What the subscription selects; `None` before the first read.
    table: Option<SelectedTable>,
    mode: Mode,
    shown: ShownState,
    generation: u64,
    phase: Phase,
    outgoing: Outgoing,
    schedule: Schedule,
    /// Why the subscription starts again with a snapshot. `None` if the client already knows the
    /// reason.
    reset_reason: Option<ResetReason>,
    /// What is needed to try again if the subscription cannot be opened yet. `None` if it is open,
    /// or if the client tries again itself.
    repeat: Option<Box<Repeat>>,
}

/// The state that the client shows: its epoch, its commit and its checkpoint.
struct ShownState {
    /// The epoch; empty before the first snapshot.
    epoch: Arc<str>,
    commit: u64,
    at: Arc<Checkpoint>,
}

/// The commit that a subscription shows.
pub(crate) struct ReachedState {
    feed: Arc<ProjectionFeed>,
    commit: u64,
    /// Whether the subscription is one to a roll-up.
    roll_up: bool,
}

/// What a subscription has to send.
#[derive(Default)]
struct Outgoing {
    /// Messages that are sent before anything else: `ok` and `reset`.
    control: VecDeque<String>,
    /// Deltas to be sent. Some parts of the first one may have been sent already.
    ready: VecDeque<ReadyDelta>,
    /// The index of the part that is sent next, in the snapshot or in the first delta.
    part: usize,
    /// When the client began to receive the current snapshot or the current deltas; `None` if it
    /// receives none.
    busy_since: Option<Instant>,
}

enum Phase {
    Opening {
        opened: oneshot::Receiver<Result<SubscriptionStart, SubscribeError>>,
        /// Whether the client has not yet received `ok`.
        first: bool,
    },
    /// The subscription cannot be opened yet. It tries again at this time.
    Waiting(Instant),
    Snapshot {
        rows: SnapshotRows,
    },
    Live,
}

/// What a session must do for a subscription next.
pub(crate) enum SubscriptionAction {
    /// There is nothing to do now.
    Idle,
    Frame(Frame),
    /// The subscription has ended. This message is the last that it sends.
    Over(String),
}

/// The parts of the session that a subscription uses.
pub(crate) struct SessionContext<'a> {
    pub(crate) resources: &'a Arc<Resources>,
    pub(crate) feeds: &'a ProjectionFeeds,
    pub(crate) signal: &'a Arc<SessionSignal>,
    pub(crate) now: Instant,
    /// Whether the acknowledgement window allows another data frame.
    pub(crate) window_open: bool,
}

impl Subscription {
    /// Starts a subscription.
    pub(crate) fn open(context: &SessionContext<'_>, parsed: ParsedSub) -> Self {
        let ParsedSub { id, ch, query, mode, rate, resume, shape, shown, repeats } = parsed;
        let feed = advance::feed_of(context.resources, context.feeds, query.projection());
        // The listener is registered before any row is read, so that no commit is missed.
        let listener = feed.listen(&query, context.signal);
        if listener.topic.roll_up.is_some() {
            roll_up_task::start(context.resources, &feed);
        }
        let repeat = repeats.then(|| Box::new(Repeat { resume: resume.clone(), told: false }));
        let resume = resume.map_or(Resume::No { shown }, Resume::Token);
        metrics::gauge!("lantern_feed_subscriptions").increment(1.0);
        let query_hash = query.token_hash();
        let client_shape = shape.clone();
        let request = ReadRequest { query, mode, resume, shape };
        let topic = (&listener.feed, &listener.topic);
        let opened = snapshot_reader::open(context.resources, topic, request, context.signal);
        Self {
            id,
            ch,
            listener,
            query_hash,
            client_shape,
            table: None,
            mode,
            shown: ShownState { epoch: Arc::from(""), commit: 0, at: Arc::default() },
            generation: 0,
            phase: Phase::Opening { opened, first: true },
            outgoing: Outgoing::default(),
            schedule: Schedule::new(context.now, rate),
            reset_reason: None,
            repeat,
        }
    }

    /// Returns the query of the subscription.
    pub(crate) fn query(&self) -> &Query {
        &self.listener.topic.query
    }

    /// Returns the epoch and commit that the client shows; `None` before the first snapshot.
    pub(crate) fn shown(&self) -> Option<(Arc<str>, u64)> {
        let ShownState { epoch, commit, .. } = &self.shown;
        (!epoch.is_empty()).then(|| (epoch.clone(), *commit))
    }

    /// Tells `traces` that the client has got the frame `kind`, which brought it to the commit that
    /// it shows now.
    pub(crate) fn trace_sent(&self, traces: &dyn EventTraces, session: u64, kind: &'static str) {
        let ShownState { epoch, commit, at } = &self.shown;
        traces.sent(&SentFrame {
            session,
            subscription: self.id,
            projection: self.query().projection(),
            kind,
            epoch,
            commit: *commit,
            at,
        });
    }

    /// Returns the state that the client shows, for the session's other subscriptions.
    pub(crate) fn reached(&self) -> ReachedState {
        let (feed, commit) = (self.listener.feed.clone(), self.shown.commit);
        ReachedState { feed, commit, roll_up: self.is_roll_up() }
    }

    /// Returns the state that the client shows, from which it can resume.
    pub(crate) fn position(&self) -> Position {
        let ShownState { epoch, commit, at } = &self.shown;
        Position { epoch: epoch.clone(), commit: *commit, at: at.clone(), query: self.query_hash }
    }

    /// The feed of the projection.
    pub(crate) fn feed(&self) -> &Arc<ProjectionFeed> {
        &self.listener.feed
    }

    fn is_roll_up(&self) -> bool {
        self.listener.topic.roll_up.is_some()
    }

    /// Notes that another subscription of the session has reached a state. If this subscription
    /// has the same feed and shows an older commit, a tick becomes due.
    pub(crate) fn follow(&mut self, other: &ReachedState) {
        // Roll-ups reach a commit later than tables, and together with each other.
        let comparable = other.roll_up || !self.is_roll_up();
        let same_feed = Arc::ptr_eq(&self.listener.feed, &other.feed);
        if comparable && same_feed && self.shown.commit < other.commit {
            self.schedule.tick_now = true;
        }
    }

    /// Returns whether the subscription could send something if there was a new commit.
    pub(crate) fn waits_for_changes(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Live) && self.schedule.may_change(now)
    }

    /// Returns the time at which the subscription must be asked for a frame even if nothing wakes
    /// the session.
    pub(crate) fn due(&self, context: &SessionContext<'_>) -> Option<Instant> {
        let config = &context.resources.config;
        let give_up = self.outgoing.busy_since.map(|since| since + ms(config.snapshot_ms_max));
        let live = matches!(self.phase, Phase::Live) && context.window_open;
        let live = live.then(|| self.schedule.due(context.now, config));
        let repeat = if let Phase::Waiting(until) = self.phase { Some(until) } else { None };
        give_up.into_iter().chain(live).chain(repeat).min()
    }

    /// Decides what the session does next for the subscription.
    ///
    /// # Errors
    /// Returns [`SessionStop`] if the whole session must end.
    pub(crate) fn next(
        &mut self,
        context: &SessionContext<'_>,
    ) -> Result<SubscriptionAction, SessionStop> {
        if let Some(last) = self.take_in(context)? {
            return Ok(SubscriptionAction::Over(last.text()));
        }
        if let Some(text) = self.outgoing.control.pop_front() {
            return Ok(SubscriptionAction::Frame(Frame::control(text)));
        }
        self.check_patience(context)?;
        if !context.window_open {
            return Ok(SubscriptionAction::Idle);
        }
        match self.phase {
            Phase::Opening { .. } | Phase::Waiting(_) => Ok(SubscriptionAction::Idle),
            Phase::Snapshot { .. } => self.snapshot_part(context),
            Phase::Live => self.change(context),
        }
    }

    /// Returns whether the subscription is open. The caller must not have called [`Self::next`].
    ///
    /// # Errors
    /// Returns [`SessionStop`] if the whole session must end.
    pub(crate) fn opening(
        &mut self,
        context: &SessionContext<'_>,
    ) -> Result<SubscriptionOpening, SessionStop> {
        let Phase::Opening { .. } = self.phase else { return Ok(SubscriptionOpening::Open) };
        Ok(match (self.take_in(context)?, &self.phase) {
            (Some(LastMessage::Refused(refused)), _) => SubscriptionOpening::Refused(refused),
            (_, Phase::Opening { .. }) => SubscriptionOpening::Pending,
            _ => SubscriptionOpening::Open,
        })
    }

    /// Uses the result of a finished read, and reacts to a change of the epoch. If the subscription
    /// has ended, it returns the last message.
    fn take_in(
        &mut self,
        context: &SessionContext<'_>,
    ) -> Result<Option<LastMessage>, SessionStop> {
        if let Phase::Waiting(until) = self.phase {
            if until > context.now {
                return Ok(None);
            }
            let resume = self.repeat.as_ref().and_then(|repeat| repeat.resume.clone());
            let resume = resume.map_or(Resume::No { shown: None }, Resume::Token);
            self.read(context, resume, true);
        }
        if let Phase::Opening { opened, first } = &mut self.phase {
            let first = *first;
            return match opened.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => Ok(None),
                Err(oneshot::error::TryRecvError::Closed) => {
                    Err(SessionStop::close(close::ERROR, "the table could not be read"))
                }
                Ok(Ok(opened)) => {
                    self.opened(context, opened, first);
                    Ok(None)
                }
                Ok(Err(error)) => self.refused(context, error, first),
            };
        }
        let feed = &self.listener.feed;
        let Some((generation, change)) = feed.change_since(&self.shown.epoch, self.generation)
        else {
            return Ok(None);
        };
        self.generation = generation;
        match change {
            None => Ok(None),
            Some(SubscriptionEnd::Gone) => {
                Ok(Some(LastMessage::Ended(self.end("the projection was deleted"))))
            }
            Some(SubscriptionEnd::Reset(why)) => {
                // The `reset` is sent once the new table and its fields are known.
                self.reset_reason = Some(why);
                self.reopen(context, Resume::No { shown: self.shown() });
                // The snapshot of another subscriber may be there already. Nothing wakes the
                // session in this case.
                self.take_in(context)
            }
        }
    }

    fn opened(&mut self, context: &SessionContext<'_>, opened: SubscriptionStart, first: bool) {
        self.repeat = None;
        let shape = &opened.table.shape;
        let commit = match &opened.start {
            StartKind::Resumed { commit, .. } => Some(*commit),
            StartKind::Snapshot { .. } => None,
        };
        if first {
            let resumed = commit.is_some();
            let (id, ch, fields) = (self.id, self.ch, shape.fields.clone());
            let ok = Subscribed { id, ch, fields, shape: shape.table_hash(), resumed, commit };
            self.outgoing.control.push_back(ServerMessage::Ok(ok).text());
        }
        self.shown.epoch = opened.epoch;
        self.generation = opened.generation;
        self.outgoing.part = 0;
        match opened.start {
            StartKind::Resumed { commit, at, ready } => {
                (self.shown.commit, self.shown.at) = (commit, at);
                self.outgoing.busy_since = (!ready.is_empty()).then_some(context.now);
                self.outgoing.ready = ready.into();
                self.phase = Phase::Live;
                // A tick is sent at once, so that the client knows that it is up to date.
                self.schedule.send_at_once(context.now);
            }
            StartKind::Snapshot { why, rows } => {
                self.schedule.rate_at = context.now;
                if let Some(why) = why.or(self.reset_reason.take()) {
                    self.reset(why, Some(shape));
                }
                self.outgoing.busy_since = Some(context.now);
                self.phase = Phase::Snapshot { rows };
            }
        }
        self.table = Some(opened.table);
    }

    /// Returns the last message of a subscription that cannot start or go on. Returns `None` if the
    /// subscription tries again.
    fn refused(
        &mut self,
        context: &SessionContext<'_>,
        error: SubscribeError,
        first: bool,
    ) -> Result<Option<LastMessage>, SessionStop> {
        if let (SubscribeError::Failed(error), false) = (&error, first) {
            tracing::warn!(projection = self.query().projection(), error, "a feed lost its table");
            return Err(SessionStop::close(close::ERROR, "the table could not be read"));
        }
        let refused = error.refused(self.id, self.query());
        if !first {
            // The reasons that have a code in `end` are the shape and those of the HTTP API.
            let code =
                Some(refused.code).filter(|code| code == OTHER_SHAPE || code.starts_with("LAN-"));
            let (id, why, changes) = (self.id, refused.msg, refused.changes);
            let end = ServerMessage::End(Ended { id, why, code, changes });
            return Ok(Some(LastMessage::Ended(end.text())));
        }
        match &mut self.repeat {
            Some(repeat) if refused.retry => {
                let after = repeat_after(&refused.code);
                if !std::mem::replace(&mut repeat.told, true) {
                    self.outgoing.control.push_back(ServerMessage::Err(refused).text());
                }
                self.phase = Phase::Waiting(context.now + after);
                Ok(None)
            }
            _ => Ok(Some(LastMessage::Refused(refused))),
        }
    }

    /// Returns the `end` message, which is the last message of a subscription.
    pub(crate) fn end(&self, why: &str) -> String {
        let (id, why) = (self.id, why.to_owned());
        ServerMessage::End(Ended { id, why, code: None, changes: Vec::new() }).text()
    }

    /// Sends `reset`. `shape` is the form of the rows that follow, if it may have changed.
    fn reset(&mut self, why: ResetReason, shape: Option<&Shape>) {
        metrics::counter!("lantern_feed_resets_total", "why" => why.name()).increment(1);
        let fields = shape.map(|shape| shape.fields.clone());
        let shape = shape.and_then(Shape::table_hash);
        let reset = Reset { ch: self.ch, why, fields, shape };
        self.outgoing.control.push_back(ServerMessage::Reset(reset).text());
    }

    fn reopen(&mut self, context: &SessionContext<'_>, resume: Resume) {
        let control = std::mem::take(&mut self.outgoing.control);
        self.outgoing = Outgoing { control, ..Outgoing::default() };
        self.read(context, resume, false);
    }

    /// Starts the read that the subscription needs.
    fn read(&mut self, context: &SessionContext<'_>, resume: Resume, first: bool) {
        let (query, shape) = (self.query().clone(), self.client_shape.clone());
        let request = ReadRequest { query, mode: self.mode, resume, shape };
        let topic = (&self.listener.feed, &self.listener.topic);
        let opened = snapshot_reader::open(context.resources, topic, request, context.signal);
        self.phase = Phase::Opening { opened, first };
    }

    /// Fails if the client takes too long to receive a snapshot or deltas, because these hold
    /// memory or a read transaction until they are sent.
    fn check_patience(&self, context: &SessionContext<'_>) -> Result<(), SessionStop> {
        let patience = ms(context.resources.config.snapshot_ms_max);
        match self.outgoing.busy_since {
            Some(since) if context.now >= since + patience => Err(SessionStop::close(
                close::TOO_SLOW,
                "too slow: a snapshot or delta took too long",
            )),
            _ => Ok(()),
        }
    }

    fn snapshot_part(
        &mut self,
        context: &SessionContext<'_>,
    ) -> Result<SubscriptionAction, SessionStop> {
        let Phase::Snapshot { rows } = &mut self.phase else { return Ok(SubscriptionAction::Idle) };
        let (commit, at, body, last) = match rows {
            SnapshotRows::Shared(snapshot) => {
                let body = snapshot.parts[self.outgoing.part].clone();
                let last = self.outgoing.part + 1 == snapshot.parts.len();
                (snapshot.commit, snapshot.at.clone(), body, last)
            }
            SnapshotRows::Streamed { commit, at, parts } => match parts.try_recv() {
                Ok(SnapshotPart::Rows { rows, last }) => (*commit, at.clone(), rows, last),
                Ok(SnapshotPart::Unsendable(why)) => {
                    return Ok(SubscriptionAction::Over(self.end(&why)));
                }
                Ok(SnapshotPart::Failed(error)) => {
                    tracing::warn!(
                        projection = self.listener.feed.name,
                        error,
                        "a snapshot failed"
                    );
                    return Err(SessionStop::close(close::ERROR, "the table could not be read"));
                }
                Err(TryRecvError::Empty) => return Ok(SubscriptionAction::Idle),
                Err(TryRecvError::Disconnected) => {
                    return Err(SessionStop::close(
                        close::TOO_SLOW,
                        "too slow: a snapshot took too long",
                    ));
                }
            },
        };
        self.outgoing.part += 1;
        if last {
            (self.shown.commit, self.shown.at) = (commit, at);
            self.phase = Phase::Live;
            self.outgoing.part = 0;
            self.outgoing.busy_since = None;
            self.schedule.sent(context.now, &context.resources.config);
        }
        let state = last.then(|| self.frame_state());
        let frame = Frame::snapshot(self.ch, (&self.shown.epoch, commit), body, state);
        Ok(SubscriptionAction::Frame(frame))
    }

    fn change(&mut self, context: &SessionContext<'_>) -> Result<SubscriptionAction, SessionStop> {
        if self.outgoing.ready.is_empty() {
            match self.next_action(context) {
                NextAction::Current if self.schedule.must_tick_unmoved(context.now) => {
                    let ShownState { commit, at, .. } = &self.shown;
                    let tick = ReadyDelta::tick(*commit, *commit, at.clone());
                    self.outgoing.ready.push_back(tick);
                }
                NextAction::Moved(ready) if self.schedule.must_tick_moved(context.now) => {
                    self.outgoing.ready.push_back(ready);
                }
                NextAction::Current | NextAction::Moved(_) => return Ok(SubscriptionAction::Idle),
                NextAction::Changes { ready, more } => {
                    self.outgoing.ready = ready.into();
                    self.outgoing.busy_since = Some(context.now);
                    if !more {
                        self.schedule.changed(context.now);
                    }
                }
                NextAction::Gone if self.mode == Mode::Changes => {
                    let why = "too slow: mode `changes` keeps nothing for a slow reader";
                    return Err(SessionStop::close(close::TOO_SLOW, why));
                }
                NextAction::Gone => {
                    let ShownState { epoch, commit, at } = &self.shown;
                    let (epoch, commit, at) = (epoch.clone(), *commit, at.clone());
                    self.reopen(context, Resume::Own { epoch, commit, at });
                    return Ok(SubscriptionAction::Idle);
                }
                NextAction::Overflow => {
                    self.reset(ResetReason::Overflow, None);
                    self.reopen(context, Resume::No { shown: self.shown() });
                    return self.next(context);
                }
                NextAction::Unsendable(why) => return Ok(SubscriptionAction::Over(self.end(&why))),
                NextAction::RollUpEnded(error) => {
                    let last = self.refused(context, error.into(), false)?;
                    let over = |last: LastMessage| SubscriptionAction::Over(last.text());
                    return Ok(last.map_or(SubscriptionAction::Idle, over));
                }
            }
        }
        Ok(SubscriptionAction::Frame(self.ready_part(context)))
    }

    /// Asks the topic what the client needs next.
    fn next_action(&mut self, context: &SessionContext<'_>) -> NextAction {
        if !self.schedule.may_change(context.now) {
            self.schedule.tick_now = false;
            return NextAction::Current;
        }
        let commits_max = match self.mode {
            Mode::State => usize::MAX,
            // These deltas stay in memory until they are sent. Therefore there may be no more of
            // them than fit into the acknowledgement window.
            Mode::Changes => context.resources.config.window.max(1) as usize,
        };
        let TopicListener { feed, topic, .. } = &self.listener;
        let Some(table) = &self.table else { return NextAction::Current };
        let ShownState { epoch, commit, .. } = &self.shown;
        let config = &context.resources.config;
        let range = topic.since(&**feed, (epoch, *commit), table, config, commits_max);
        let range = match range {
            Ok(range) => range,
            Err(error) => return NextAction::RollUpEnded(error),
        };
        let of = (table.id, self.mode);
        topic.next_action(context.resources, (epoch, *commit), range, of)
    }

    /// Builds the next frame of the first delta or tick in `ready`.
    fn ready_part(&mut self, context: &SessionContext<'_>) -> Frame {
        let Outgoing { ready, part, .. } = &mut self.outgoing;
        let first = ready.front().expect("something is ready");
        let commits = (first.from, first.to);
        let Some(parts) = &first.parts else {
            self.arrive(context);
            let lag = self.listener.feed.lag(&context.resources.lag);
            return Frame::tick(self.ch, commits, lag, self.frame_state());
        };
        let body = parts.parts[*part].clone();
        if *part + 1 < parts.parts.len() {
            *part += 1;
            return Frame::delta(self.ch, commits, body, None);
        }
        let merged = first.merged;
        self.arrive(context);
        Frame::delta(self.ch, commits, body, Some((self.frame_state(), merged)))
    }

    /// Notes that all frames of the first delta or tick in `ready` were built.
    fn arrive(&mut self, context: &SessionContext<'_>) {
        let ready = self.outgoing.ready.pop_front().expect("something is ready");
        (self.shown.commit, self.shown.at) = (ready.to, ready.at);
        self.outgoing.part = 0;
        if self.outgoing.ready.is_empty() {
            self.outgoing.busy_since = None;
        }
        self.schedule.sent(context.now, &context.resources.config);
    }

    fn frame_state(&self) -> FrameState<'_> {
        let ShownState { epoch, commit, at } = &self.shown;
        FrameState { epoch, commit: *commit, at, query: self.query_hash }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        metrics::gauge!("lantern_feed_subscriptions").decrement(1.0);
    }
}
