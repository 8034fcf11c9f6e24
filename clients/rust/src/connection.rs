//! One connection: subscribes to tables, applies the messages it receives, checks every
//! step, and reports why the connection was lost.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use lantern_api::feed::{
    self, ClientMessage, Delta, Refused, Reset, SUBPROTOCOL, ServerMessage, Snapshot, Subscribe,
    Subscribed, Tick,
};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::client::{Shared, backoff};
use crate::table::{Change, Mirrored, Row, Status};
use crate::{Error, Options};

/// Why a connection was lost.
#[derive(Debug)]
pub(crate) enum ConnectionEnd {
    /// The address is invalid.
    Address,
    /// The server cannot be reached, or the connection broke.
    Cut(Arc<dyn std::error::Error + Send + Sync>),
    /// The server answered with an HTTP status.
    Http(u16),
    /// The server closed it.
    Closed(u16, String),
}

impl fmt::Display for ConnectionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("the address is invalid"),
            Self::Cut(error) => error.fmt(f),
            Self::Http(status) => write!(f, "status {status}"),
            Self::Closed(code, why) => write!(f, "closed with {code}: {why}"),
        }
    }
}

impl ConnectionEnd {
    fn cut(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Cut(Arc::from(error.into()))
    }

    /// Whether the same connection would fail again.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Address => true,
            Self::Cut(_) => false,
            // Too many requests and a request timeout are temporary.
            Self::Http(status) => (400..500).contains(status) && ![408, 429].contains(status),
            Self::Closed(code, _) => feed::close::is_refusal(*code),
        }
    }

    pub(crate) fn is_shutdown(&self) -> bool {
        matches!(self, Self::Closed(feed::close::SHUTTING_DOWN, _))
    }

    pub(crate) fn error(self, url: &str) -> Error {
        let url = url.to_owned();
        match self {
            Self::Address => Error::Address { url },
            Self::Cut(source) => Error::Unreachable { url, source },
            Self::Http(status) => Error::Http { url, status },
            Self::Closed(code, why) if feed::close::is_refusal(code) => {
                Error::Refused { code, why }
            }
            Self::Closed(code, why) => {
                let source = Arc::from(Box::from(format!("closed with {code}: {why}")));
                Error::Unreachable { url, source }
            }
        }
    }
}

impl From<tungstenite::Error> for ConnectionEnd {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Url(_) | tungstenite::Error::HttpFormat(_) => Self::Address,
            tungstenite::Error::Http(answer) => Self::Http(answer.status().as_u16()),
            error => Self::cut(error),
        }
    }
}

/// A connection that received `welcome`.
pub(crate) struct Connection {
    ws: WebSocketStream<MaybeTlsStream<TcpStream>>,
    heartbeat: Duration,
    /// The number of data frames after which they are acknowledged.
    ack_every: u64,
    received: u64,
    acked: u64,
    id: u64,
    subs: HashMap<u64, Sub>,
    /// Subscriptions by channel.
    channels: HashMap<u64, u64>,
    /// Subscriptions that were refused temporarily: when to retry, and how often it was
    /// tried.
    later: Vec<(Instant, u32, Arc<Mirrored>)>,
    received_at: Instant,
    useful: bool,
}

struct Sub {
    mirrored: Arc<Mirrored>,
    failures: u32,
    ch: u64,
    /// Rows of a snapshot that is not complete yet.
    snap: Option<BTreeMap<String, Row>>,
    /// Changes of a delta that is not complete yet.
    delta: Option<DeltaParts>,
    /// A snapshot older than the rows shown. It is held back until deltas have brought
    /// it to their commit: the shown rows never go back.
    behind: Option<MirrorLag>,
}

struct MirrorLag {
    commit: u64,
    rows: BTreeMap<String, Row>,
}

#[derive(Default)]
struct DeltaParts {
    from: u64,
    to: u64,
    up: Vec<(String, Row)>,
    del: Vec<String>,
}

/// Added to two heartbeats: after this silence the connection counts as lost.
const SILENCE_GRACE: Duration = Duration::from_secs(5);

impl Connection {
    /// Connects and sends `hello`.
    pub(crate) async fn open(url: &str, options: &Options) -> Result<Self, ConnectionEnd> {
        let open = Self::open_unbounded(url, options);
        match timeout(options.connect_timeout, open).await {
            Ok(opened) => opened,
            Err(_) => {
                Err(ConnectionEnd::cut(format!("no welcome within {:?}", options.connect_timeout)))
            }
        }
    }

    async fn open_unbounded(url: &str, options: &Options) -> Result<Self, ConnectionEnd> {
        let mut request = url.into_client_request().map_err(|_| ConnectionEnd::Address)?;
        if request.uri().scheme_str() != Some("ws") {
            return Err(ConnectionEnd::Address);
        }
        let protocol = HeaderValue::from_static(SUBPROTOCOL);
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        let config = WebSocketConfig::default()
            .max_message_size(Some(options.message_bytes_max))
            .max_frame_size(Some(options.message_bytes_max));
        // Without this, small messages would wait for one another.
        let no_delay = true;
        let (ws, _) = connect_async_with_config(request, Some(config), no_delay).await?;
        let mut connection = Self {
            ws,
            heartbeat: Duration::from_secs(15),
            ack_every: 1,
            received: 0,
            acked: 0,
            id: 0,
            subs: HashMap::new(),
            channels: HashMap::new(),
            later: Vec::new(),
            received_at: Instant::now(),
            useful: false,
        };
        connection.send(&ClientMessage::Hello { token: options.token.clone() }).await?;
        loop {
            let Some(message) = connection.receive().await? else { continue };
            if let ServerMessage::Welcome(welcome) = message {
                connection.heartbeat = Duration::from_millis(welcome.heartbeat_ms.max(1));
                connection.ack_every = u64::from(welcome.limits.window / 4).max(1);
                return Ok(connection);
            }
        }
    }

    /// Whether any table was brought up to date over this connection.
    pub(crate) fn was_useful(&self) -> bool {
        self.useful
    }

    /// Keeps the tables of `shared` up to date until the connection is lost.
    pub(crate) async fn run(&mut self, shared: &Shared) -> ConnectionEnd {
        loop {
            if let Err(end) = self.run_once(shared).await {
                return end;
            }
        }
    }

    async fn run_once(&mut self, shared: &Shared) -> Result<(), ConnectionEnd> {
        self.subscribe(shared).await?;
        let silence = self.received_at + self.heartbeat * 2 + SILENCE_GRACE;
        let later = self.later.iter().map(|(at, _, _)| *at).min().unwrap_or(silence);
        let until = silence.min(later);
        tokio::select! {
            message = self.receive() => match message? {
                Some(message) => self.take(message, shared).await,
                None => Ok(()),
            },
            () = shared.changed.notified() => Ok(()),
            () = tokio::time::sleep_until(until) => {
                if Instant::now() >= silence {
                    return Err(ConnectionEnd::cut("the server sent nothing for too long"));
                }
                Ok(())
            }
        }
    }

    /// Subscribes to tables that are new or due for a retry, and unsubscribes from
    /// those without a handle.
    async fn subscribe(&mut self, shared: &Shared) -> Result<(), ConnectionEnd> {
        let now = Instant::now();
        let dropped: Vec<u64> =
            self.subs.iter().filter(|(_, sub)| sub.mirrored.is_over()).map(|(id, _)| *id).collect();
        for id in dropped {
            self.remove(id);
            self.send(&ClientMessage::Unsub { id }).await?;
        }
        self.later.retain(|(_, _, table)| !table.is_over());
        for table in shared.tables() {
            let same = |other: &Arc<Mirrored>| Arc::ptr_eq(other, &table);
            if self.subs.values().any(|sub| same(&sub.mirrored)) {
                continue;
            }
            let waiting = self.later.iter().position(|(_, _, other)| same(other));
            let failures = match waiting {
                Some(place) if self.later[place].0 > now => continue,
                Some(place) => self.later.swap_remove(place).1,
                None => 0,
            };
            self.ask(table, failures).await?;
        }
        Ok(())
    }

    async fn ask(&mut self, mirrored: Arc<Mirrored>, failures: u32) -> Result<(), ConnectionEnd> {
        self.id += 1;
        let id = self.id;
        let resume = mirrored.mirror().token.clone();
        mirrored.set_status(Status::CatchingUp);
        let rate_ms = mirrored.options.rate_ms;
        let subscribe = ClientMessage::Sub(Box::new(Subscribe {
            id,
            table: mirrored.name.clone(),
            mode: Some(mirrored.options.mode.name().to_owned()),
            rate_ms: (rate_ms > 0).then_some(rate_ms),
            resume,
            unknown: serde_json::Map::new(),
        }));
        self.subs
            .insert(id, Sub { mirrored, failures, ch: 0, snap: None, delta: None, behind: None });
        self.send(&subscribe).await
    }

    fn remove(&mut self, id: u64) -> Option<Sub> {
        let sub = self.subs.remove(&id)?;
        self.channels.remove(&sub.ch);
        Some(sub)
    }

    async fn send(&mut self, message: &ClientMessage) -> Result<(), ConnectionEnd> {
        Ok(self.ws.send(Message::text(message.text())).await?)
    }

    /// The next message; `None` if it is not part of the protocol.
    async fn receive(&mut self) -> Result<Option<ServerMessage>, ConnectionEnd> {
        let message = match self.ws.next().await {
            Some(message) => message?,
            None => return Err(ConnectionEnd::cut("the connection ended")),
        };
        self.received_at = Instant::now();
        match message {
            Message::Text(text) => ServerMessage::parse(&text).map_err(ConnectionEnd::cut),
            Message::Close(Some(frame)) => {
                Err(ConnectionEnd::Closed(frame.code.into(), frame.reason.to_string()))
            }
            Message::Close(None) => Err(ConnectionEnd::cut("the server closed the connection")),
            _ => Ok(None),
        }
    }

    async fn take(&mut self, message: ServerMessage, shared: &Shared) -> Result<(), ConnectionEnd> {
        match message {
            ServerMessage::Ping => {
                self.acknowledge().await?;
                return self.send(&ClientMessage::Pong).await;
            }
            ServerMessage::Snap(snap) => {
                return self.data(snap.ch, |sub| Ok(sub.snap(snap))).await;
            }
            ServerMessage::Delta(delta) => {
                return self.data(delta.ch, |sub| sub.delta(delta)).await;
            }
            ServerMessage::Tick(tick) => return self.data(tick.ch, |sub| sub.tick(tick)).await,
            ServerMessage::Ok(subscribed) => self.ok(subscribed),
            ServerMessage::Err(refused) => self.refused(refused, shared),
            ServerMessage::Reset(reset) => self.reset(reset),
            ServerMessage::End(ended) => {
                if let Some(sub) = self.remove(ended.id) {
                    let table = sub.mirrored.name.clone();
                    sub.mirrored.end(Error::Ended { table, why: ended.why });
                }
            }
            // Only the first message is one.
            ServerMessage::Welcome(_) => {}
        }
        Ok(())
    }

    fn ok(&mut self, subscribed: Subscribed) {
        let Subscribed { id, ch, fields, commit, .. } = subscribed;
        let Some(sub) = self.subs.get_mut(&id) else { return };
        sub.ch = ch;
        self.channels.insert(ch, id);
        let mut mirror = sub.mirrored.mirror();
        mirror.fields = fields;
        // The rows are also those of this commit, whatever their commit was before.
        if let Some(commit) = commit
            && mirror.commit.replace(commit).is_some_and(|before| before != commit)
        {
            sub.mirrored.notify(mirror, Change::Resumed { commit });
        }
    }

    fn refused(&mut self, refused: Refused, shared: &Shared) {
        let Some(sub) = self.remove(refused.id) else { return };
        if refused.retry {
            let at = Instant::now() + backoff(&shared.options, sub.failures);
            self.later.push((at, sub.failures.saturating_add(1), sub.mirrored));
        } else {
            let code = refused.code.into_owned();
            sub.mirrored.end(Error::Table { code, message: refused.msg });
        }
    }

    /// Discards partly received frames; a snapshot follows.
    fn reset(&mut self, reset: Reset) {
        let Some(sub) = self.sub(reset.ch) else { return };
        sub.snap = None;
        sub.delta = None;
        sub.behind = None;
        if let Some(fields) = reset.fields {
            sub.mirrored.mirror().fields = fields;
        }
        sub.mirrored.set_status(Status::CatchingUp);
    }

    fn sub(&mut self, ch: u64) -> Option<&mut Sub> {
        self.channels.get(&ch).and_then(|id| self.subs.get_mut(id))
    }

    /// Applies a data frame with `apply`, which returns whether the table is up to date
    /// after it. Frames of an unknown channel count as received, too.
    async fn data(
        &mut self,
        ch: u64,
        apply: impl FnOnce(&mut Sub) -> Result<bool, CommitMismatch>,
    ) -> Result<(), ConnectionEnd> {
        self.received += 1;
        if let Some(sub) = self.sub(ch) {
            match apply(sub) {
                Ok(true) => self.useful = true,
                Ok(false) => {}
                Err(CommitMismatch) => self.resubscribe(ch).await?,
            }
        }
        if self.received - self.acked >= self.ack_every {
            self.acknowledge().await?;
        }
        Ok(())
    }

    async fn acknowledge(&mut self) -> Result<(), ConnectionEnd> {
        if self.acked < self.received {
            self.acked = self.received;
            self.send(&ClientMessage::Ack { n: self.received }).await?;
        }
        Ok(())
    }

    /// Subscribes again without a token. The delta received does not continue the shown
    /// rows, so only a snapshot is safe.
    async fn resubscribe(&mut self, ch: u64) -> Result<(), ConnectionEnd> {
        let Some(id) = self.channels.get(&ch).copied() else { return Ok(()) };
        let Some(sub) = self.remove(id) else { return Ok(()) };
        tracing::warn!(
            table = sub.mirrored.name,
            "a delta does not continue the rows; subscribing again"
        );
        self.send(&ClientMessage::Unsub { id }).await?;
        sub.mirrored.mirror().token = None;
        self.ask(sub.mirrored, 0).await
    }
}

/// A delta that does not begin at the table's commit.
struct CommitMismatch;

impl Sub {
    /// Checks that a delta or tick begins at the commit that this side has.
    fn check_from(&self, from: u64) -> Result<(), CommitMismatch> {
        let behind = self.behind.as_ref().map(|behind| behind.commit);
        let at = behind.or(self.mirrored.mirror().commit);
        if at.is_some_and(|commit| commit != from) { Err(CommitMismatch) } else { Ok(()) }
    }

    /// Collects a snapshot; its last part replaces all rows at once.
    fn snap(&mut self, snap: Snapshot) -> bool {
        let Snapshot { epoch, commit, offsets, tok, .. } = snap;
        let rows = self.snap.get_or_insert_default();
        rows.extend(snap.rows.into_iter().map(|(key, row)| (key, Row::from(row))));
        if snap.more {
            return false;
        }
        let rows = self.snap.take().unwrap_or_default();
        self.behind = None;
        let mut mirror = self.mirrored.mirror();
        let same = mirror.epoch.as_ref() == Some(&epoch);
        if same && mirror.commit.is_some_and(|shown| commit < shown) {
            self.behind = Some(MirrorLag { commit, rows });
            return false;
        }
        mirror.rows = rows;
        mirror.commit = Some(commit);
        mirror.offsets = offsets;
        mirror.epoch = Some(epoch.clone());
        mirror.token = tok;
        self.mirrored.notify(mirror, Change::Snapshot { epoch, commit });
        self.live();
        true
    }

    fn tick(&mut self, tick: Tick) -> Result<bool, CommitMismatch> {
        self.check_from(tick.from)?;
        if self.delta.is_some() {
            return Err(CommitMismatch);
        }
        if let Some(behind) = &mut self.behind {
            behind.commit = tick.to;
            return Ok(self.catch_up(tick.tok, tick.offsets));
        }
        let mut mirror = self.mirrored.mirror();
        mirror.commit = Some(tick.to);
        mirror.offsets = tick.offsets;
        mirror.lag = tick.lag.or(mirror.lag);
        mirror.token = tick.tok.or(mirror.token.take());
        self.mirrored.notify(mirror, Change::Tick { commit: tick.to, lag: tick.lag });
        self.live();
        Ok(true)
    }

    /// Collects a delta; its last part applies all of it at once.
    fn delta(&mut self, delta: Delta) -> Result<bool, CommitMismatch> {
        self.check_from(delta.from)?;
        let Delta { merged, offsets, tok, .. } = delta;
        let fresh = DeltaParts { from: delta.from, to: delta.to, ..DeltaParts::default() };
        let parts = self.delta.get_or_insert(fresh);
        if (parts.from, parts.to) != (delta.from, delta.to) {
            return Err(CommitMismatch);
        }
        parts.up.extend(delta.up.into_iter().map(|(key, row)| (key, Row::from(row))));
        parts.del.extend(delta.del);
        if delta.more {
            return Ok(false);
        }
        let DeltaParts { from, to, up, del } = self.delta.take().unwrap_or_default();
        if let Some(behind) = &mut self.behind {
            change(&mut behind.rows, &up, &del);
            behind.commit = to;
            return Ok(self.catch_up(tok, offsets));
        }
        let mut mirror = self.mirrored.mirror();
        change(&mut mirror.rows, &up, &del);
        mirror.commit = Some(to);
        mirror.offsets = offsets;
        mirror.token = tok.or(mirror.token.take());
        self.mirrored.notify(mirror, Change::Delta { from, to, up, del, merged });
        self.live();
        Ok(true)
    }

    /// Shows the rows that were held back when they are no longer older than the rows
    /// shown.
    fn catch_up(&mut self, token: Option<String>, offsets: BTreeMap<u32, u64>) -> bool {
        let mut mirror = self.mirrored.mirror();
        let shown = mirror.commit;
        let Some(MirrorLag { commit, rows }) = self.behind.take_if(|at| Some(at.commit) >= shown)
        else {
            return false;
        };
        mirror.rows = rows;
        mirror.commit = Some(commit);
        mirror.offsets = offsets;
        mirror.token = token;
        let epoch = mirror.epoch.clone().unwrap_or_default();
        self.mirrored.notify(mirror, Change::Snapshot { epoch, commit });
        self.live();
        true
    }

    fn live(&self) {
        self.mirrored.status.send_if_modified(|status| {
            let changed = !status.is_live();
            *status = Status::Live;
            changed
        });
    }
}

fn change(rows: &mut BTreeMap<String, Row>, up: &[(String, Row)], del: &[String]) {
    rows.extend(up.iter().cloned());
    for key in del {
        rows.remove(key);
    }
}
