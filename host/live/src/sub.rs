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
use crate::protocol::{Mode, ResetWhy, ServerMessage, close};
use crate::reader::{self, Opened, Part, Refusal, Request, Resume, Rows, Start};
use crate::session::Stop;
use crate::token;
use crate::topic::{Listening, Pending, Ready, Signal, Topic, Turned};

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
    pub(crate) pos: u64,
    at: Arc<Checkpoint>,
    phase: Phase,
    /// Sent before anything else: `ok`, `reset`.
    control: VecDeque<String>,
    /// Deltas to be sent; the first may be sent in part.
    ready: VecDeque<Ready>,
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
    reset_why: Option<ResetWhy>,
    listening: Option<Listening>,
}

enum Phase {
    Opening {
        opened: oneshot::Receiver<Result<Opened, Refusal>>,
        /// Whether the client still waits for `ok`.
        first: bool,
    },
    Snapshot {
        rows: Rows,
    },
    Live,
}

/// What a subscription does next.
pub(crate) enum Next {
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
pub(crate) struct Around<'a> {
    pub(crate) hub: &'a Arc<Hub>,
    pub(crate) signal: &'a Arc<Signal>,
    pub(crate) now: Instant,
    /// Whether one more data frame may be sent unacknowledged.
    pub(crate) window_open: bool,
}

/// What is asked for, taken apart.
pub(crate) struct Asked {
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
    pub(crate) fn open(around: &Around<'_>, asked: Asked) -> Option<Self> {
        let (projection, table) = asked.name.split_once('/')?;
        let query = token::query_hash(&asked.name);
        // Registered before any row is read: no commit in between is missed.
        let topic = Topic::of(around.hub, projection);
        let resume = match asked.resume {
            Some(token) => Resume::Token(token),
            None => Resume::No { shown: asked.shown },
        };
        let request = Request { table: table.to_owned(), query, mode: asked.mode, resume };
        let opened = reader::open(around.hub, &topic, request, around.signal);
        let now = around.now;
        metrics::gauge!("lantern_feed_subscriptions").increment(1.0);
        Some(Self {
            id: asked.id,
            ch: asked.ch,
            topic,
            table_name: table.to_owned(),
            table: TableId(0),
            mode: asked.mode,
            rate: asked.rate,
            query,
            epoch: Arc::from(""),
            generation: 0,
            pos: 0,
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
        (!self.epoch.is_empty()).then(|| (self.epoch.clone(), self.pos))
    }

    /// Another table of the projection was brought to `pos`: this one follows.
    pub(crate) fn follow(&mut self, topic: &Arc<Topic>, pos: u64) {
        if Arc::ptr_eq(&self.topic, topic) && self.pos < pos {
            self.tick_now = true;
        }
    }

    /// Whether a new commit could make it send something.
    pub(crate) fn waits_for_changes(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Live) && self.rate_at <= now
    }

    /// When it must be looked at again though nothing happened.
    pub(crate) fn due(&self, around: &Around<'_>) -> Option<Instant> {
        let give_up = self.busy_since.map(|since| since + ms(around.hub.config.snapshot_ms_max));
        let live = matches!(self.phase, Phase::Live) && around.window_open;
        let live = live.then(|| {
            // Commits that do not change the table wake no session, so whether the
            // commit moved is looked up now and then.
            let tick_ms = ms(around.hub.config.tick_ms.max(1));
            let tick_at =
                if self.tick_at > around.now { self.tick_at } else { around.now + tick_ms };
            let next = if self.rate_at > around.now { self.rate_at } else { tick_at };
            next.min(self.idle_at)
        });
        give_up.into_iter().chain(live).min()
    }

    /// What to send next.
    ///
    /// # Errors
    /// [`Stop`] where the whole session must end.
    pub(crate) fn next(&mut self, around: &Around<'_>) -> Result<Next, Stop> {
        if let Some(over) = self.settle(around)? {
            return Ok(Next::Over(over));
        }
        if let Some(text) = self.control.pop_front() {
            let (head, tail) = (text, String::new());
            let body = Bytes::new();
            let kind = "control";
            return Ok(Next::Frame(Frame { head, body, tail, data: false, moved: false, kind }));
        }
        self.check_patience(around)?;
        if !around.window_open {
            return Ok(Next::Idle);
        }
        match self.phase {
            Phase::Opening { .. } => Ok(Next::Idle),
            Phase::Snapshot { .. } => self.snapshot_part(around),
            Phase::Live => self.change(around),
        }
    }

    /// Takes in what happened: the store's answer, another epoch. Returns
    /// the last frame if it has ended.
    fn settle(&mut self, around: &Around<'_>) -> Result<Option<String>, Stop> {
        if let Phase::Opening { opened, first } = &mut self.phase {
            let first = *first;
            return match opened.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => Ok(None),
                Err(oneshot::error::TryRecvError::Closed) => {
                    Err(Stop::close(close::ERROR, "the table could not be read"))
                }
                Ok(Ok(opened)) => {
                    self.opened(around, opened, first);
                    Ok(None)
                }
                Ok(Err(refusal)) => self.refused(refusal, first).map(Some),
            };
        }
        let Some((generation, turned)) = self.topic.turned(&self.epoch, self.generation) else {
            return Ok(None);
        };
        self.generation = generation;
        match turned {
            None => Ok(None),
            Some(Turned::Gone) => Ok(Some(self.end("the projection was deleted"))),
            Some(Turned::Reset(why)) => {
                // Said when the new table is known, with its fields.
                self.reset_why = Some(why);
                self.reopen(around, Resume::No { shown: Some((self.epoch.clone(), self.pos)) });
                Ok(None)
            }
        }
    }

    fn opened(&mut self, around: &Around<'_>, opened: Opened, first: bool) {
        let fields = &*opened.table.fields;
        let commit = match &opened.start {
            Start::Resumed { pos, .. } => Some(*pos),
            Start::Snapshot { .. } => None,
        };
        if first {
            let resumed = commit.is_some();
            let ok = ServerMessage::Ok { id: self.id, ch: self.ch, fields, resumed, commit };
            self.control.push_back(ok.text());
        }
        if self.listening.is_none() || self.table != opened.table.id {
            self.listening = Some(self.topic.listen(opened.table.id, around.signal));
        }
        self.table = opened.table.id;
        self.epoch = opened.epoch;
        self.generation = opened.generation;
        self.part = 0;
        self.rate_at = around.now;
        match opened.start {
            Start::Resumed { pos, at, ready } => {
                (self.pos, self.at) = (pos, at);
                self.busy_since = (!ready.is_empty()).then_some(around.now);
                self.ready = ready.into();
                self.phase = Phase::Live;
                // Says at once that the client is up to date.
                self.tick_now = true;
                self.idle_at = around.now;
            }
            Start::Snapshot { why, rows } => {
                if let Some(why) = why.or(self.reset_why.take()) {
                    self.reset(why, Some(&opened.table.fields));
                }
                self.busy_since = Some(around.now);
                self.phase = Phase::Snapshot { rows };
            }
        }
    }

    fn refused(&mut self, refusal: Refusal, first: bool) -> Result<String, Stop> {
        let (code, msg, retry): (_, Cow<'_, str>, _) = match refusal {
            Refusal::NoTable => {
                let msg =
                    format!("there is no public table `{}/{}`", self.topic.name, self.table_name);
                ("no_such_table", msg.into(), false)
            }
            Refusal::NotActive(msg) => ("not_active", msg.into(), true),
            Refusal::NotSupported(msg) => ("not_supported", msg.into(), false),
            Refusal::Unsendable(msg) => ("too_large", msg.into(), false),
            Refusal::Failed(msg) if first => ("unavailable", msg.into(), true),
            Refusal::Failed(msg) => {
                tracing::warn!(projection = self.topic.name, error = msg, "a feed lost its table");
                return Err(Stop::close(close::ERROR, "the table could not be read"));
            }
        };
        if first {
            return Ok(ServerMessage::Err { id: self.id, code, msg: &msg, retry }.text());
        }
        Ok(self.end(&msg))
    }

    /// The last word of a subscription.
    pub(crate) fn end(&self, why: &str) -> String {
        ServerMessage::End { id: self.id, why }.text()
    }

    fn reset(&mut self, why: ResetWhy, fields: Option<&serde_json::value::RawValue>) {
        metrics::counter!("lantern_feed_resets_total", "why" => why.name()).increment(1);
        self.control.push_back(ServerMessage::Reset { ch: self.ch, why, fields }.text());
    }

    fn reopen(&mut self, around: &Around<'_>, resume: Resume) {
        self.ready.clear();
        self.part = 0;
        self.busy_since = None;
        let (table, query, mode) = (self.table_name.clone(), self.query, self.mode);
        let request = Request { table, query, mode, resume };
        let opened = reader::open(around.hub, &self.topic, request, around.signal);
        self.phase = Phase::Opening { opened, first: false };
    }

    /// A snapshot or a delta in parts must not take for ever: it holds memory
    /// or a read transaction.
    fn check_patience(&self, around: &Around<'_>) -> Result<(), Stop> {
        let patience = ms(around.hub.config.snapshot_ms_max);
        match self.busy_since {
            Some(since) if around.now >= since + patience => {
                Err(Stop::close(close::TOO_SLOW, "too slow: a snapshot or delta took too long"))
            }
            _ => Ok(()),
        }
    }

    fn snapshot_part(&mut self, around: &Around<'_>) -> Result<Next, Stop> {
        let Phase::Snapshot { rows } = &mut self.phase else { return Ok(Next::Idle) };
        let (pos, at, body, last) = match rows {
            Rows::Shared(snapshot) => {
                let body = snapshot.parts[self.part].clone();
                let last = self.part + 1 == snapshot.parts.len();
                (snapshot.pos, snapshot.at.clone(), body, last)
            }
            Rows::Streamed { pos, at, parts } => match parts.try_recv() {
                Ok(Part::Rows { rows, last }) => (*pos, at.clone(), rows, last),
                Ok(Part::Unsendable(why)) => return Ok(Next::Over(self.end(&why))),
                Ok(Part::Failed(error)) => {
                    tracing::warn!(projection = self.topic.name, error, "a snapshot failed");
                    return Err(Stop::close(close::ERROR, "the table could not be read"));
                }
                Err(TryRecvError::Empty) => return Ok(Next::Idle),
                Err(TryRecvError::Disconnected) => {
                    return Err(Stop::close(close::TOO_SLOW, "too slow: a snapshot took too long"));
                }
            },
        };
        self.part += 1;
        let mut head = format!("{{\"t\":\"snap\",\"ch\":{},\"epoch\":", self.ch);
        push_string(&mut head, &self.epoch);
        let _ = write!(head, ",\"commit\":{pos},\"rows\":");
        let mut tail = format!(",\"more\":{}", !last);
        if last {
            (self.pos, self.at) = (pos, at);
            self.push_token(&mut tail);
            self.phase = Phase::Live;
            self.part = 0;
            self.busy_since = None;
            self.said(around);
        }
        tail.push('}');
        Ok(Next::Frame(Frame { head, body, tail, data: true, moved: last, kind: "snap" }))
    }

    fn change(&mut self, around: &Around<'_>) -> Result<Next, Stop> {
        if self.ready.is_empty() {
            let pending = if around.now < self.rate_at {
                self.tick_now = false;
                Pending::Current
            } else {
                self.topic.pending(around.hub, &self.epoch, self.pos, self.table, self.mode)
            };
            match pending {
                Pending::Current if self.tick_now || around.now >= self.idle_at => {
                    let (from, to, at) = (self.pos, self.pos, self.at.clone());
                    self.ready.push_back(Ready { from, to, at, fragment: None, merged: false });
                }
                Pending::Moved(ready) if self.tick_now || around.now >= self.tick_at => {
                    self.ready.push_back(ready);
                }
                Pending::Current | Pending::Moved(_) => return Ok(Next::Idle),
                Pending::Changes { ready, more } => {
                    self.ready = ready.into();
                    self.busy_since = Some(around.now);
                    if !more {
                        self.rate_at = around.now + self.rate;
                    }
                }
                Pending::Gone if self.mode == Mode::Changes => {
                    let why = "too slow: mode `changes` keeps nothing for a slow reader";
                    return Err(Stop::close(close::TOO_SLOW, why));
                }
                Pending::Gone => {
                    let (epoch, at) = (self.epoch.clone(), self.at.clone());
                    self.reopen(around, Resume::Own { epoch, at });
                    return Ok(Next::Idle);
                }
                Pending::Overflow => {
                    self.reset(ResetWhy::Overflow, None);
                    self.reopen(around, Resume::No { shown: Some((self.epoch.clone(), self.pos)) });
                    return self.next(around);
                }
                Pending::Unsendable(why) => return Ok(Next::Over(self.end(&why))),
            }
        }
        Ok(Next::Frame(self.ready_part(around)))
    }

    /// The next frame of the first delta or tick that is ready.
    fn ready_part(&mut self, around: &Around<'_>) -> Frame {
        let ready = self.ready.front().expect("something is ready");
        let (from, to, ch) = (ready.from, ready.to, self.ch);
        let Some(fragment) = &ready.fragment else {
            return self.tick(around);
        };
        let body = fragment.parts[self.part].clone();
        let last = self.part + 1 == fragment.parts.len();
        let head = format!("{{\"t\":\"delta\",\"ch\":{ch},\"from\":{from},\"to\":{to},");
        let mut tail = String::new();
        if last {
            if ready.merged {
                tail.push_str(",\"merged\":true");
            }
            self.arrive(around);
            self.push_token(&mut tail);
        } else {
            tail.push_str(",\"more\":true");
            self.part += 1;
        }
        tail.push('}');
        Frame { head, body, tail, data: true, moved: last, kind: "delta" }
    }

    fn tick(&mut self, around: &Around<'_>) -> Frame {
        let ready = self.ready.front().expect("something is ready");
        let (from, to) = (ready.from, ready.to);
        self.arrive(around);
        let mut head = format!("{{\"t\":\"tick\",\"ch\":{},\"from\":{from},\"to\":{to}", self.ch);
        if let Some(lag) = self.topic.lag(&around.hub.lag) {
            let _ = write!(head, ",\"lag\":{{\"events\":{},\"ms\":{}}}", lag.events, lag.ms);
        }
        self.push_token(&mut head);
        head.push('}');
        let (body, tail) = (Bytes::new(), String::new());
        Frame { head, body, tail, data: true, moved: false, kind: "tick" }
    }

    /// The first of what is ready has been handed out whole.
    fn arrive(&mut self, around: &Around<'_>) {
        let ready = self.ready.pop_front().expect("something is ready");
        (self.pos, self.at) = (ready.to, ready.at);
        self.part = 0;
        if self.ready.is_empty() {
            self.busy_since = None;
        }
        self.said(around);
    }

    fn said(&mut self, around: &Around<'_>) {
        let config = &around.hub.config;
        self.tick_now = false;
        self.tick_at = around.now + ms(config.tick_ms);
        self.idle_at = around.now + ms(config.heartbeat_ms);
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
