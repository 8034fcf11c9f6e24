//! Implements one session. A session is a task that reads the client's messages, asks its
//! subscriptions for frames, and enforces the acknowledgement window, the heartbeat and the reasons
//! for closing. [`crate::web_socket`] and [`crate::event_stream`] run it.
//!
//! A session has no queue of frames. It builds a frame when the frame can be written, from data
//! that all subscribers share. An idle session needs only the read buffer of its socket (1 KiB by
//! default) and the state of its subscriptions.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::client_shape::ClientShape;
use crate::config::ms;
use crate::frame::Frame;
use crate::open_sessions::SessionEntry;
use crate::projection_feed::ProjectionFeeds;
use crate::protocol::{
    BAD_QUERY, BadSubscribe, ClientMessage, Mode, Refused, ServerMessage, Subscribe, close,
    refused, refused_member, welcome,
};
use crate::query::Query;
use crate::resources::Resources;
use crate::session_end::SessionStop;
use crate::session_signal::SessionSignal;
use crate::subscription::{SessionContext, Subscription, SubscriptionAction};
use crate::subscription_opening::{ParsedSub, SubscriptionOpening};
use crate::transport::{Inbound, Outbound, Transport};

/// A session with a client, over the connection `T`.
pub(crate) struct Session<'a, T> {
    resources: &'a Arc<Resources>,
    feeds: &'a ProjectionFeeds,
    entry: &'a SessionEntry,
    socket: &'a mut T,
    signal: Arc<SessionSignal>,
    subs: Vec<Subscription>,
    /// The last commit that the client got of each query whose subscription has ended. A client
    /// that subscribes again must not get an older commit. The list has at most `live.subs_max`
    /// entries.
    former: VecDeque<FormerSubscription>,
    /// The index of the subscription that is asked first for a frame. It changes with every pass,
    /// so that each subscription gets its turn.
    first: usize,
    /// The number of the channel that the next subscription gets. Each number is used only once.
    ch: u64,
    /// The number of data frames sent. The client has acknowledged the first `acked` of them.
    sent: u64,
    acked: u64,
    ping_at: Instant,
    /// The time at which the session is closed unless the client sends a message before.
    pong_by: Option<Instant>,
}

/// The commit that a subscription had shown when it ended.
struct FormerSubscription {
    query: Query,
    epoch: Arc<str>,
    commit: u64,
}

impl<'a, T: Transport> Session<'a, T> {
    pub(crate) fn new(
        resources: &'a Arc<Resources>,
        feeds: &'a ProjectionFeeds,
        entry: &'a SessionEntry,
        socket: &'a mut T,
    ) -> Self {
        Self {
            resources,
            feeds,
            entry,
            socket,
            signal: Arc::default(),
            subs: Vec::new(),
            former: VecDeque::new(),
            first: 0,
            ch: 1,
            sent: 0,
            acked: 0,
            ping_at: Instant::now() + ms(resources.config.heartbeat_ms),
            pong_by: None,
        }
    }

    /// Waits for `hello`, and answers it.
    pub(crate) async fn hello(&mut self) -> Result<(), SessionStop> {
        let deadline = Instant::now() + ms(self.resources.config.hello_ms);
        let message = loop {
            let inbound = timeout_at(deadline, self.socket.read());
            match inbound
                .await
                .map_err(|_| SessionStop::close(close::BAD_MESSAGE, "no hello in time"))??
            {
                Inbound::Control => {}
                inbound => break parse(&inbound)?,
            }
        };
        let ClientMessage::Hello { .. } = message else {
            return Err(SessionStop::close(
                close::BAD_MESSAGE,
                "the first message must be `hello`",
            ));
        };
        self.welcome().await?;
        Ok(self.socket.flush().await?)
    }

    /// Tells the client the limits of the session.
    pub(crate) async fn welcome(&mut self) -> Result<(), SessionStop> {
        let welcome = welcome(&self.resources.config).text();
        self.send(&welcome).await
    }

    /// Waits until each subscription is open or cannot be opened. Returns the refusals of those
    /// that were removed because they cannot be opened.
    pub(crate) async fn wait_for_openings(&mut self) -> Result<Vec<Refused>, SessionStop> {
        let (mut refusals, signal) = (Vec::new(), self.signal.clone());
        loop {
            let (mut index, mut pending) = (0, false);
            while index < self.subs.len() {
                let context = SessionContext {
                    resources: self.resources,
                    feeds: self.feeds,
                    signal: &self.signal,
                    now: Instant::now(),
                    window_open: true,
                };
                match self.subs[index].opening(&context)? {
                    SubscriptionOpening::Refused(refused) => {
                        self.subs.remove(index);
                        self.entry.unsubscribed(refused.id);
                        self.socket.forget(refused.id);
                        refusals.push(refused);
                        continue;
                    }
                    SubscriptionOpening::Pending => pending = true,
                    SubscriptionOpening::Open => {}
                }
                index += 1;
            }
            if !pending {
                return Ok(refusals);
            }
            tokio::select! {
                inbound = self.socket.read() => self.receive(&inbound?).await?,
                () = signal.notify.notified() => {}
            }
        }
    }

    /// Returns whether the session has subscriptions.
    pub(crate) fn has_subscriptions(&self) -> bool {
        !self.subs.is_empty()
    }

    /// Sends everything that can be sent, and then waits for the next event: a message, a signal or
    /// a time.
    pub(crate) async fn run_once(&mut self) -> Result<(), SessionStop> {
        // The signal is armed before the subscriptions are checked. Otherwise a commit after the
        // check would not wake the session.
        self.signal.arm(true);
        self.send_pending().await?;
        self.beat().await?;
        self.socket.flush().await?;
        let (signal, now) = (self.signal.clone(), Instant::now());
        let window_open = self.window_open();
        if !window_open || !self.subs.iter().any(|sub| sub.waits_for_changes(now)) {
            signal.arm(false);
        }
        let due = self.due(now);
        tokio::select! {
            inbound = self.socket.read() => {
                let inbound = inbound?;
                self.pong_by = None;
                self.receive(&inbound).await
            }
            () = signal.notify.notified() => Ok(()),
            () = sleep_until(due) => Ok(()),
        }
    }

    fn window_open(&self) -> bool {
        self.sent - self.acked < u64::from(self.resources.config.window)
    }

    /// Returns the time at which the session continues even if nothing wakes it.
    fn due(&self, now: Instant) -> Instant {
        let context = self.context(now);
        let subs = self.subs.iter().filter_map(|sub| sub.due(&context));
        subs.chain(self.pong_by).fold(self.ping_at, Instant::min)
    }

    fn context(&self, now: Instant) -> SessionContext<'_> {
        SessionContext {
            resources: self.resources,
            feeds: self.feeds,
            signal: &self.signal,
            now,
            window_open: self.window_open(),
        }
    }

    /// Asks the subscriptions for frames in turn, until none of them has anything to send.
    async fn send_pending(&mut self) -> Result<(), SessionStop> {
        self.first = self.first.wrapping_add(1);
        loop {
            let mut progress = false;
            for turn in 0..self.subs.len() {
                let count = self.subs.len();
                if count == 0 {
                    break;
                }
                let index = self.first.wrapping_add(turn) % count;
                let context = SessionContext {
                    resources: self.resources,
                    feeds: self.feeds,
                    signal: &self.signal,
                    now: Instant::now(),
                    window_open: self.window_open(),
                };
                match self.subs[index].next(&context)? {
                    SubscriptionAction::Idle => {}
                    SubscriptionAction::Over(last) => {
                        let sub = self.subs.swap_remove(index);
                        self.entry.unsubscribed(sub.id);
                        self.socket.forget(sub.id);
                        self.send(&last).await?;
                        progress = true;
                    }
                    SubscriptionAction::Frame(frame) => {
                        self.write(frame, index).await?;
                        progress = true;
                    }
                }
            }
            if !progress {
                return Ok(());
            }
        }
    }

    async fn write(&mut self, frame: Frame, index: usize) -> Result<(), SessionStop> {
        let Frame { head, body, tail, data, moved, kind } = frame;
        let shows_another_state = moved || kind == "tick";
        if data {
            self.sent += 1;
            let bytes = head.len() + body.len() + tail.len();
            self.entry.sending(&self.subs[index], bytes, shows_another_state);
        }
        if moved && self.subs.len() > 1 {
            let reached = self.subs[index].reached();
            self.subs.iter_mut().for_each(|sub| sub.follow(&reached));
        }
        metrics::counter!("lantern_feed_frames_total", "t" => kind).increment(1);
        let sub = &self.subs[index];
        let reached = shows_another_state.then(|| (sub.id, sub.position()));
        self.socket.write(Outbound { head: &head, body, tail: &tail, reached }).await?;
        if let Some(traces) = &self.resources.traces
            && shows_another_state
        {
            self.subs[index].trace_sent(&**traces, self.entry.id(), kind);
        }
        if data && !T::CLIENT_TALKS {
            self.acked = self.sent;
            self.entry.acknowledged(0);
        }
        Ok(())
    }

    async fn send(&mut self, text: &str) -> Result<(), SessionStop> {
        metrics::counter!("lantern_feed_frames_total", "t" => "control").increment(1);
        Ok(self.socket.write(Outbound::text(text)).await?)
    }

    /// Sends a ping if one is due. Fails if the client has not answered the previous ping in time.
    async fn beat(&mut self) -> Result<(), SessionStop> {
        let now = Instant::now();
        if self.pong_by.is_some_and(|by| by <= now) {
            return Err(SessionStop::close(close::NO_PONG, "no pong in time"));
        }
        if self.ping_at <= now {
            metrics::counter!("lantern_feed_frames_total", "t" => "control").increment(1);
            self.socket.ping().await?;
            self.ping_at = now + ms(self.resources.config.heartbeat_ms);
            if T::CLIENT_TALKS {
                self.pong_by.get_or_insert(Instant::now() + ms(self.resources.config.pong_ms));
            }
        }
        Ok(())
    }

    async fn receive(&mut self, inbound: &Inbound) -> Result<(), SessionStop> {
        if let Inbound::Control = inbound {
            return Ok(());
        }
        let message = match (parse(inbound), inbound) {
            (Ok(message), _) => message,
            (Err(stop), Inbound::Text(text)) => {
                let refused = self.bad_subscribe(text).ok_or(stop)?;
                return self.refuse(refused).await;
            }
            (Err(stop), _) => return Err(stop),
        };
        match message {
            ClientMessage::Hello { .. } => {
                Err(SessionStop::close(close::BAD_MESSAGE, "`hello` may be sent only once"))
            }
            ClientMessage::Sub(sub) => self.subscribe(*sub).await,
            ClientMessage::Unsub { id } => {
                // The client may name a subscription that the server has just ended, which is no
                // longer in the list.
                if let Some(index) = self.subs.iter().position(|sub| sub.id == id) {
                    let sub = self.subs.swap_remove(index);
                    self.remember(&sub);
                    self.entry.unsubscribed(sub.id);
                    self.send(&sub.end("unsubscribed")).await?;
                }
                Ok(())
            }
            ClientMessage::Ack { n } if n > self.sent => {
                let why = format!("`ack` of {n} frames, of which {} were sent", self.sent);
                Err(SessionStop::close(close::BAD_MESSAGE, why))
            }
            ClientMessage::Ack { n } => {
                self.acked = self.acked.max(n);
                self.entry.acknowledged(self.sent - self.acked);
                Ok(())
            }
            // The feed does not check access yet, so a new token has no effect.
            ClientMessage::Auth { .. } | ClientMessage::Pong => Ok(()),
        }
    }

    /// Remembers the commit that the subscription `sub` has shown.
    fn remember(&mut self, sub: &Subscription) {
        let Some((epoch, commit)) = sub.shown() else { return };
        let query = sub.query();
        let before = self.former.iter().position(|former| former.query == *query);
        let before = before.and_then(|index| self.former.remove(index));
        // If there were two subscriptions with this query, the one that ended first may
        // have shown a newer commit.
        let commit = before
            .filter(|former| former.epoch == epoch)
            .map_or(commit, |former| former.commit.max(commit));
        if self.former.len() >= self.resources.config.subs_max {
            self.former.pop_front();
        }
        self.former.push_back(FormerSubscription { query: query.clone(), epoch, commit });
    }

    async fn subscribe(&mut self, sub: Subscribe) -> Result<(), SessionStop> {
        match self.open(sub) {
            Ok(()) => Ok(()),
            Err(refused) => self.refuse(refused).await,
        }
    }

    /// Starts a subscription, unless `sub` is malformed.
    pub(crate) fn open(&mut self, sub: Subscribe) -> Result<(), Refused> {
        let parsed = self.check(sub)?;
        let sub = Subscription::open(&self.context(Instant::now()), parsed);
        self.entry.subscribed(&sub);
        self.subs.push(sub);
        self.ch += 1;
        Ok(())
    }

    /// Returns the refusal of a `sub` message from which only the `id` could be parsed.
    fn bad_subscribe(&self, text: &str) -> Option<Refused> {
        let BadSubscribe { id, member, detail } = Subscribe::diagnose(text)?;
        let wrong = || refused_member(id, BAD_QUERY, detail, member);
        Some(self.check_id(id).err().unwrap_or_else(wrong))
    }

    /// Tells the client that a subscription is refused.
    pub(crate) async fn refuse(&mut self, refused: Refused) -> Result<(), SessionStop> {
        self.send(&ServerMessage::Err(refused).text()).await
    }

    /// Refuses a second subscription with `id`.
    fn check_id(&self, id: u64) -> Result<(), Refused> {
        if self.subs.iter().any(|other| other.id == id) {
            let msg = format!("the id {id} is in use: `unsub` it first, or take another");
            return Err(refused_member(id, "id_in_use", msg, "id"));
        }
        Ok(())
    }

    /// Checks a `sub` message without access to the tables.
    fn check(&self, mut sub: Subscribe) -> Result<ParsedSub, Refused> {
        let id = sub.id;
        self.check_id(id)?;
        let max = self.resources.config.subs_max;
        if self.subs.len() >= max {
            let msg = format!("there are already {max} subscriptions, the limit of a session");
            return Err(refused(id, "too_many_subs", msg));
        }
        if let Some(member) = sub.unknown.keys().next() {
            let msg = format!("`{member}` is not supported by this server: leave it out");
            return Err(refused_member(id, "not_supported", msg, member.clone()));
        }
        let mode = match sub.mode.as_deref() {
            None => Mode::default(),
            Some(name) => Mode::of(name).ok_or_else(|| {
                let msg = format!("there is no mode `{name}`: take `state` or `changes`");
                refused_member(id, "not_supported", msg, "mode")
            })?,
        };
        if sub.rollup.is_some() && mode == Mode::Changes {
            let msg = "a roll-up does not have a state for each commit: use mode `state`";
            return Err(refused_member(id, "not_supported", msg, "mode"));
        }
        if sub.rollup.is_some() && sub.cols.is_some() {
            let msg =
                "`cols`: a roll-up has the columns of `bucket`, `by` and `agg`: leave `cols` out";
            return Err(refused_member(id, BAD_QUERY, msg, "cols"));
        }
        let shape = sub.shape.take().map(ClientShape::new).transpose();
        let shape =
            shape.map_err(|error| refused_member(id, BAD_QUERY, error.to_string(), "shape"))?;
        if let (Some(shape), Some(roll_up)) = (&shape, &mut sub.rollup) {
            shape.name_time(roll_up);
        }
        let Some(query) = Query::of(&sub) else {
            let msg = format!("`table` is `{}`: write it as `projection/table`", sub.table);
            return Err(refused_member(id, "no_such_table", msg, "table"));
        };
        let former = self.former.iter().find(|former| former.query == query);
        Ok(ParsedSub {
            shown: former.map(|former| (former.epoch.clone(), former.commit)),
            id,
            ch: self.ch,
            query,
            mode,
            rate: ms(sub.rate_ms.unwrap_or(0).min(RATE_MS_MAX)),
            resume: sub.resume,
            shape,
            // Without messages, a client cannot subscribe again.
            repeats: !T::CLIENT_TALKS,
        })
    }
}

/// The longest pause between changes that a client may request.
const RATE_MS_MAX: u64 = 3_600_000;

fn parse(inbound: &Inbound) -> Result<ClientMessage, SessionStop> {
    match inbound {
        Inbound::Text(text) => serde_json::from_str(text).map_err(|error| {
            SessionStop::close(
                close::BAD_MESSAGE,
                format!("not a message of this protocol: {error}"),
            )
        }),
        Inbound::Close(code) => Err(SessionStop::Client(*code)),
        Inbound::Binary | Inbound::Control => {
            Err(SessionStop::close(close::UNSUPPORTED, "messages are JSON in text frames"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_waits_is_small() {
        let views = Arc::new(NoViews);
        let lag = Arc::new(|_: &str| None);
        let hub = crate::Hub::new(views, None, lag, None, crate::LiveConfig::default());
        let (io, _) = tokio::io::duplex(64);
        let session = hub.serve(io, std::future::pending());
        let (task, sub) = (size_of_val(&session), size_of::<Subscription>());
        println!("a session's task has {task} bytes, a subscription {sub}");
        // The limit for a client is 8 KiB. A session has a read buffer of 1 KiB, and must stay far
        // below this limit.
        assert!(task < 3_000 && sub < 600, "{task} and {sub}");
    }

    struct NoViews;

    impl lantern_core::Views for NoViews {
        fn view(&self, name: &str) -> Result<lantern_core::View, lantern_core::ViewError> {
            Err(lantern_core::ViewError::NoProjection(name.into()))
        }

        fn view_version(
            &self,
            name: &str,
            _: &lantern_core::VersionId,
        ) -> Result<lantern_core::View, lantern_core::ViewError> {
            self.view(name)
        }
    }
}
