//! One subscription: what it sends next. A state machine without I/O of its
//! own; the session asks it for frames whenever it could write one.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lantern_core::{Checkpoint, TableId};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::ms;
use crate::hub::Hub;
use crate::protocol::{
    Ended, Field, Mode, Reset, ResetReason, ServerMessage, Subscribed, close, refused,
};
use crate::session::SessionStop;
use crate::snapshot_reader::{
    self, ReadRequest, Resume, SnapshotPart, SnapshotRows, StartKind, SubscriptionStart,
};
use crate::subscribe_error::SubscribeError;
use crate::token;
use crate::topic::{ListenerGuard, NextAction, ReadyDelta, SessionSignal, SubscriptionEnd, Topic};

/// See the module.
pub(crate) struct Subscription {
    pub(crate) id: u64,
    pub(crate) ch: u64,
    pub(crate) topic: Arc<Topic>,
    table_name: String,
    table: TableId,
    mode: Mode,
    rate: Duration,
    query: u64,
    epoch: Arc<str>,
    generation: u64,
    /// What the client shows: the commit, and where each shard is.
    pub(crate) commit: u64,
    at: Arc<Checkpoint>,
    phase: Phase,
    /// Sent before anything else: `ok`, `reset`.
    control: VecDeque<String>,
    /// Deltas to be sent; the first may be sent in part.
    ready: VecDeque<ReadyDelta>,
    part: usize,
    /// Since when the client has been getting a snapshot or a delta in parts.
    busy_since: Option<Instant>,
    /// Not before then may changes be sent.
    rate_at: Instant,
    /// When a `tick` is due for commits without changes.
    tick_at: Instant,
    /// A frame is sent by then, so that quiet differs from stale.
    idle_at: Instant,
    /// Another table of the projection has just been brought further.
    tick_now: bool,
    /// Why it starts again, if the client does not know yet.
    reset_why: Option<ResetReason>,
    listening: Option<ListenerGuard>,
}

enum Phase {
    Opening {
        opened: oneshot::Receiver<Result<SubscriptionStart, SubscribeError>>,
        /// Whether the client still waits for `ok`.
        first: bool,
    },
    Snapshot {
        rows: SnapshotRows,
    },
    Live,
}

/// What a subscription does next.
pub(crate) enum SubscriptionAction {
    /// Nothing for now.
    Idle,
    Frame(Frame),
    /// It is over; this is said last.
    Over(String),
}

/// A frame to be written: the body is shared, head and tail are not.
pub(crate) struct Frame {
    pub(crate) head: String,
    pub(crate) body: Bytes,
    pub(crate) tail: String,
    /// Counts against the window.
    pub(crate) data: bool,
    /// The client shows a new commit with it.
    pub(crate) moved: bool,
    /// For the metrics.
    pub(crate) kind: &'static str,
}

/// What a subscription may use of its session.
pub(crate) struct SessionContext<'a> {
    pub(crate) hub: &'a Arc<Hub>,
    pub(crate) signal: &'a Arc<SessionSignal>,
    pub(crate) now: Instant,
    /// Whether one more data frame may be sent unacknowledged.
    pub(crate) window_open: bool,
}

/// A `sub` message after its checks.
pub(crate) struct ParsedSub {
    pub(crate) id: u64,
    pub(crate) ch: u64,
    /// Projection and table, as the client wrote them.
    pub(crate) name: String,
    pub(crate) mode: Mode,
    pub(crate) rate: Duration,
    pub(crate) resume: Option<String>,
    /// What an earlier subscription of the session to the same table showed.
    pub(crate) shown: Option<(Arc<str>, u64)>,
}

impl Subscription {
    /// Starts a subscription; `None` where the name is not `projection/table`.
    pub(crate) fn open(context: &SessionContext<'_>, parsed: ParsedSub) -> Option<Self> {
        let (projection, table) = parsed.name.split_once('/')?;
        let query = token::query_hash(&parsed.name);
        // Registered before any row is read: no commit in between is missed.
        let topic = Topic::of(context.hub, projection);
        let resume = match parsed.resume {
            Some(token) => Resume::Token(token),
            None => Resume::No { shown: parsed.shown },
        };
        let request = ReadRequest { table: table.to_owned(), query, mode: parsed.mode, resume };
        let opened = snapshot_reader::open(context.hub, &topic, request, context.signal);
        let now = context.now;
        metrics::gauge!("lantern_feed_subscriptions").increment(1.0);
        Some(Self {
            id: parsed.id,
            ch: parsed.ch,
            topic,
            table_name: table.to_owned(),
            table: TableId(0),
            mode: parsed.mode,
            rate: parsed.rate,
            query,
            epoch: Arc::from(""),
            generation: 0,
            commit: 0,
            at: Arc::default(),
            phase: Phase::Opening { opened, first: true },
            control: VecDeque::new(),
            ready: VecDeque::new(),
            part: 0,
            busy_since: None,
            rate_at: now,
            tick_at: now,
            idle_at: now,
            tick_now: false,
            reset_why: None,
            listening: None,
        })
    }

    /// What was subscribed to, as the client wrote it.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.topic.name, self.table_name)
    }

    /// The epoch and commit the client shows; `None` before the first
    /// snapshot.
    pub(crate) fn shown(&self) -> Option<(Arc<str>, u64)> {
        (!self.epoch.is_empty()).then(|| (self.epoch.clone(), self.commit))
    }

    /// Another table of the projection was brought to `commit`: this one follows.
    pub(crate) fn follow(&mut self, topic: &Arc<Topic>, commit: u64) {
        if Arc::ptr_eq(&self.topic, topic) && self.commit < commit {
            self.tick_now = true;
        }
    }

    /// Whether a new commit could make it send something.
    pub(crate) fn waits_for_changes(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Live) && self.rate_at <= now
    }

    /// When it must be looked at again though nothing happened.
    pub(crate) fn due(&self, context: &SessionContext<'_>) -> Option<Instant> {
        let give_up = self.busy_since.map(|since| since + ms(context.hub.config.snapshot_ms_max));
        let live = matches!(self.phase, Phase::Live) && context.window_open;
        let live = live.then(|| {
            // Commits that do not change the table wake no session, so whether the
            // commit moved is looked up now and then.
            let tick_ms = ms(context.hub.config.tick_ms.max(1));
            let tick_at =
                if self.tick_at > context.now { self.tick_at } else { context.now + tick_ms };
            let next = if self.rate_at > context.now { self.rate_at } else { tick_at };
            next.min(self.idle_at)
        });
        give_up.into_iter().chain(live).min()
    }

    /// What to send next.
    ///
    /// # Errors
    /// [`SessionStop`] where the whole session must end.
    pub(crate) fn next(
        &mut self,
        context: &SessionContext<'_>,
    ) -> Result<SubscriptionAction, SessionStop> {
        if let Some(over) = self.take_in(context)? {
            return Ok(SubscriptionAction::Over(over));
        }
        if let Some(text) = self.control.pop_front() {
            let (head, tail) = (text, String::new());
            let body = Bytes::new();
            let kind = "control";
            return Ok(SubscriptionAction::Frame(Frame {
                head,
                body,
                tail,
                data: false,
                moved: false,
                kind,
            }));
        }
        self.check_patience(context)?;
        if !context.window_open {
            return Ok(SubscriptionAction::Idle);
        }
        match self.phase {
            Phase::Opening { .. } => Ok(SubscriptionAction::Idle),
            Phase::Snapshot { .. } => self.snapshot_part(context),
            Phase::Live => self.change(context),
        }
    }

    /// Takes in what happened: the store's answer, another epoch. Returns
    /// the last frame if it has ended.
    fn take_in(&mut self, context: &SessionContext<'_>) -> Result<Option<String>, SessionStop> {
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
                Ok(Err(error)) => self.refused(error, first).map(Some),
            };
        }
        let Some((generation, change)) = self.topic.change_since(&self.epoch, self.generation)
        else {
            return Ok(None);
        };
        self.generation = generation;
        match change {
            None => Ok(None),
            Some(SubscriptionEnd::Gone) => Ok(Some(self.end("the projection was deleted"))),
            Some(SubscriptionEnd::Reset(why)) => {
                // Said when the new table is known, with its fields.
                self.reset_why = Some(why);
                self.reopen(context, Resume::No { shown: Some((self.epoch.clone(), self.commit)) });
                Ok(None)
            }
        }
    }

    fn opened(&mut self, context: &SessionContext<'_>, opened: SubscriptionStart, first: bool) {
        let fields = &opened.table.fields;
        let commit = match &opened.start {
            StartKind::Resumed { commit, .. } => Some(*commit),
            StartKind::Snapshot { .. } => None,
        };
        if first {
            let resumed = commit.is_some();
            let (id, ch, fields) = (self.id, self.ch, fields.to_vec());
            let ok = Subscribed { id, ch, fields, resumed, commit };
            self.control.push_back(ServerMessage::Ok(ok).text());
        }
        if self.listening.is_none() || self.table != opened.table.id {
            self.listening = Some(self.topic.listen(opened.table.id, context.signal));
        }
        self.table = opened.table.id;
        self.epoch = opened.epoch;
        self.generation = opened.generation;
        self.part = 0;
        self.rate_at = context.now;
        match opened.start {
            StartKind::Resumed { commit, at, ready } => {
                (self.commit, self.at) = (commit, at);
                self.busy_since = (!ready.is_empty()).then_some(context.now);
                self.ready = ready.into();
                self.phase = Phase::Live;
                // Says at once that the client is up to date.
                self.tick_now = true;
                self.idle_at = context.now;
            }
            StartKind::Snapshot { why, rows } => {
                if let Some(why) = why.or(self.reset_why.take()) {
                    self.reset(why, Some(opened.table.fields.to_vec()));
                }
                self.busy_since = Some(context.now);
                self.phase = Phase::Snapshot { rows };
            }
        }
    }

    fn refused(&mut self, error: SubscribeError, first: bool) -> Result<String, SessionStop> {
        let (code, msg, retry): (_, Cow<'_, str>, _) = match error {
            SubscribeError::NoTable => {
                let msg =
                    format!("there is no public table `{}/{}`", self.topic.name, self.table_name);
                ("no_such_table", msg.into(), false)
            }
            SubscribeError::NotActive(msg) => ("not_active", msg.into(), true),
            SubscribeError::NotSupported(msg) => ("not_supported", msg.into(), false),
            SubscribeError::Unsendable(msg) => ("too_large", msg.into(), false),
            SubscribeError::Failed(msg) if first => ("unavailable", msg.into(), true),
            SubscribeError::Failed(msg) => {
                tracing::warn!(projection = self.topic.name, error = msg, "a feed lost its table");
                return Err(SessionStop::close(close::ERROR, "the table could not be read"));
            }
        };
        if first {
            return Ok(refused(self.id, code, msg, retry).text());
        }
        Ok(self.end(&msg))
    }

    /// The last word of a subscription.
    pub(crate) fn end(&self, why: &str) -> String {
        ServerMessage::End(Ended { id: self.id, why: why.to_owned() }).text()
    }

    fn reset(&mut self, why: ResetReason, fields: Option<Vec<Field>>) {
        metrics::counter!("lantern_feed_resets_total", "why" => why.name()).increment(1);
        let reset = Reset { ch: self.ch, why, fields };
        self.control.push_back(ServerMessage::Reset(reset).text());
    }

    fn reopen(&mut self, context: &SessionContext<'_>, resume: Resume) {
        self.ready.clear();
        self.part = 0;
        self.busy_since = None;
        let (table, query, mode) = (self.table_name.clone(), self.query, self.mode);
        let request = ReadRequest { table, query, mode, resume };
        let opened = snapshot_reader::open(context.hub, &self.topic, request, context.signal);
        self.phase = Phase::Opening { opened, first: false };
    }

    /// A snapshot or a delta in parts must not take for ever: it holds memory
    /// or a read transaction.
    fn check_patience(&self, context: &SessionContext<'_>) -> Result<(), SessionStop> {
        let patience = ms(context.hub.config.snapshot_ms_max);
        match self.busy_since {
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
                let body = snapshot.parts[self.part].clone();
                let last = self.part + 1 == snapshot.parts.len();
                (snapshot.commit, snapshot.at.clone(), body, last)
            }
            SnapshotRows::Streamed { commit, at, parts } => match parts.try_recv() {
                Ok(SnapshotPart::Rows { rows, last }) => (*commit, at.clone(), rows, last),
                Ok(SnapshotPart::Unsendable(why)) => {
                    return Ok(SubscriptionAction::Over(self.end(&why)));
                }
                Ok(SnapshotPart::Failed(error)) => {
                    tracing::warn!(projection = self.topic.name, error, "a snapshot failed");
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
        self.part += 1;
        let mut head = format!("{{\"t\":\"snap\",\"ch\":{},\"epoch\":", self.ch);
        push_string(&mut head, &self.epoch);
        let _ = write!(head, ",\"commit\":{commit},\"rows\":");
        let mut tail = format!(",\"more\":{}", !last);
        if last {
            (self.commit, self.at) = (commit, at);
            self.push_token(&mut tail);
            self.phase = Phase::Live;
            self.part = 0;
            self.busy_since = None;
            self.schedule_ticks(context);
        }
        tail.push('}');
        Ok(SubscriptionAction::Frame(Frame {
            head,
            body,
            tail,
            data: true,
            moved: last,
            kind: "snap",
        }))
    }

    fn change(&mut self, context: &SessionContext<'_>) -> Result<SubscriptionAction, SessionStop> {
        if self.ready.is_empty() {
            let pending = if context.now < self.rate_at {
                self.tick_now = false;
                NextAction::Current
            } else {
                self.topic.pending(context.hub, &self.epoch, self.commit, self.table, self.mode)
            };
            match pending {
                NextAction::Current if self.tick_now || context.now >= self.idle_at => {
                    let (from, to, at) = (self.commit, self.commit, self.at.clone());
                    self.ready.push_back(ReadyDelta {
                        from,
                        to,
                        at,
                        fragment: None,
                        merged: false,
                    });
                }
                NextAction::Moved(ready) if self.tick_now || context.now >= self.tick_at => {
                    self.ready.push_back(ready);
                }
                NextAction::Current | NextAction::Moved(_) => return Ok(SubscriptionAction::Idle),
                NextAction::Changes { ready, more } => {
                    self.ready = ready.into();
                    self.busy_since = Some(context.now);
                    if !more {
                        self.rate_at = context.now + self.rate;
                    }
                }
                NextAction::Gone if self.mode == Mode::Changes => {
                    let why = "too slow: mode `changes` keeps nothing for a slow reader";
                    return Err(SessionStop::close(close::TOO_SLOW, why));
                }
                NextAction::Gone => {
                    let (epoch, at) = (self.epoch.clone(), self.at.clone());
                    self.reopen(context, Resume::Own { epoch, at });
                    return Ok(SubscriptionAction::Idle);
                }
                NextAction::Overflow => {
                    self.reset(ResetReason::Overflow, None);
                    self.reopen(
                        context,
                        Resume::No { shown: Some((self.epoch.clone(), self.commit)) },
                    );
                    return self.next(context);
                }
                NextAction::Unsendable(why) => return Ok(SubscriptionAction::Over(self.end(&why))),
            }
        }
        Ok(SubscriptionAction::Frame(self.ready_part(context)))
    }

    /// The next frame of the first delta or tick that is ready.
    fn ready_part(&mut self, context: &SessionContext<'_>) -> Frame {
        let ready = self.ready.front().expect("something is ready");
        let (from, to, ch) = (ready.from, ready.to, self.ch);
        let Some(fragment) = &ready.fragment else {
            return self.tick(context);
        };
        let body = fragment.parts[self.part].clone();
        let last = self.part + 1 == fragment.parts.len();
        let head = format!("{{\"t\":\"delta\",\"ch\":{ch},\"from\":{from},\"to\":{to},");
        let mut tail = String::new();
        if last {
            if ready.merged {
                tail.push_str(",\"merged\":true");
            }
            self.arrive(context);
            self.push_token(&mut tail);
        } else {
            tail.push_str(",\"more\":true");
            self.part += 1;
        }
        tail.push('}');
        Frame { head, body, tail, data: true, moved: last, kind: "delta" }
    }

    fn tick(&mut self, context: &SessionContext<'_>) -> Frame {
        let ready = self.ready.front().expect("something is ready");
        let (from, to) = (ready.from, ready.to);
        self.arrive(context);
        let mut head = format!("{{\"t\":\"tick\",\"ch\":{},\"from\":{from},\"to\":{to}", self.ch);
        if let Some(lag) = self.topic.lag(&context.hub.lag) {
            let _ = write!(head, ",\"lag\":{{\"events\":{},\"ms\":{}}}", lag.events, lag.ms);
        }
        self.push_token(&mut head);
        head.push('}');
        let (body, tail) = (Bytes::new(), String::new());
        Frame { head, body, tail, data: true, moved: false, kind: "tick" }
    }

    /// The first of what is ready has been handed out whole.
    fn arrive(&mut self, context: &SessionContext<'_>) {
        let ready = self.ready.pop_front().expect("something is ready");
        (self.commit, self.at) = (ready.to, ready.at);
        self.part = 0;
        if self.ready.is_empty() {
            self.busy_since = None;
        }
        self.schedule_ticks(context);
    }

    fn schedule_ticks(&mut self, context: &SessionContext<'_>) {
        let config = &context.hub.config;
        self.tick_now = false;
        self.tick_at = context.now + ms(config.tick_ms);
        self.idle_at = context.now + ms(config.heartbeat_ms);
    }

    /// Where the client is with this frame: offsets, and the token to resume from.
    fn push_token(&self, text: &mut String) {
        text.push_str(",\"offsets\":{");
        for (partition, next) in self.at.offsets().enumerate() {
            let comma = if partition == 0 { "" } else { "," };
            let _ = write!(text, "{comma}\"{partition}\":{next}");
        }
        text.push_str("},\"tok\":\"");
        text.push_str(&token::encode(&self.epoch, &self.at, self.query));
        text.push('"');
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        metrics::gauge!("lantern_feed_subscriptions").decrement(1.0);
    }
}

fn push_string(text: &mut String, value: &str) {
    text.push_str(&serde_json::to_string(value).expect("a string always encodes"));
}
