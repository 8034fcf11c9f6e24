//! One connection: subscribes to tables, applies the messages it receives, checks every
//! step, and reports why the connection was lost.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::client::{Shared, backoff};
use crate::table::{Change, Mirrored, Row, Status};
use crate::wire::{Heard, SUBPROTOCOL, Say};
use crate::{Error, Options};

/// Why a connection was lost.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The address is invalid.
    Address,
    /// The server cannot be reached, or the connection broke.
    Cut(Arc<dyn std::error::Error + Send + Sync>),
    /// The server answered with an HTTP status.
    Http(u16),
    /// The server closed it.
    Closed(u16, String),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("the address is invalid"),
            Self::Cut(error) => error.fmt(f),
            Self::Http(status) => write!(f, "status {status}"),
            Self::Closed(code, why) => write!(f, "closed with {code}: {why}"),
        }
    }
}

impl Lost {
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
            Self::Closed(code, _) => is_refusal(*code),
        }
    }

    pub(crate) fn is_shutdown(&self) -> bool {
        matches!(self, Self::Closed(4501, _))
    }

    pub(crate) fn error(self, url: &str) -> Error {
        let url = url.to_owned();
        match self {
            Self::Address => Error::Address { url },
            Self::Cut(source) => Error::Unreachable { url, source },
            Self::Http(status) => Error::Http { url, status },
            Self::Closed(code, why) if is_refusal(code) => Error::Refused { code, why },
            Self::Closed(code, why) => {
                let source = Arc::from(Box::from(format!("closed with {code}: {why}")));
                Error::Unreachable { url, source }
            }
        }
    }
}

/// Whether a close code means that the client must not reconnect unchanged.
fn is_refusal(code: u16) -> bool {
    matches!(code, 1002 | 1003 | 1007 | 4400..4500)
}

impl From<tungstenite::Error> for Lost {
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
    heard_at: Instant,
    useful: bool,
}

struct Sub {
    mirrored: Arc<Mirrored>,
    failures: u32,
    ch: u64,
    /// Rows of a snapshot that is not complete yet.
    snap: Option<BTreeMap<String, Row>>,
    /// Changes of a delta that is not complete yet.
    delta: Option<Parts>,
    /// A snapshot older than the rows shown. It is held back until deltas have brought
    /// it to their commit: the shown rows never go back.
    behind: Option<Behind>,
}

struct Behind {
    commit: u64,
    rows: BTreeMap<String, Row>,
}

#[derive(Default)]
struct Parts {
    from: u64,
    to: u64,
    up: Vec<(String, Row)>,
    del: Vec<String>,
}

/// Added to two heartbeats: after this silence the connection counts as lost.
const SILENCE_GRACE: Duration = Duration::from_secs(5);

impl Connection {
    /// Connects and sends `hello`.
    pub(crate) async fn open(url: &str, options: &Options) -> Result<Self, Lost> {
        let open = Self::open_unbounded(url, options);
        match timeout(options.connect_timeout, open).await {
            Ok(opened) => opened,
            Err(_) => Err(Lost::cut(format!("no welcome within {:?}", options.connect_timeout))),
        }
    }

    async fn open_unbounded(url: &str, options: &Options) -> Result<Self, Lost> {
        let mut request = url.into_client_request().map_err(|_| Lost::Address)?;
        if request.uri().scheme_str() != Some("ws") {
            return Err(Lost::Address);
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
            heard_at: Instant::now(),
            useful: false,
        };
        connection.say(&Say::Hello { token: options.token.as_deref() }).await?;
        loop {
            let Some(heard) = connection.hear().await? else { continue };
            if heard.t == "welcome" {
                connection.heartbeat = Duration::from_millis(heard.heartbeat_ms.max(1));
                connection.ack_every = (heard.limits.window / 4).max(1);
                return Ok(connection);
            }
        }
    }

    /// Whether any table was brought up to date over this connection.
    pub(crate) fn was_useful(&self) -> bool {
        self.useful
    }

    /// Keeps the tables of `shared` up to date until the connection is lost.
    pub(crate) async fn run(&mut self, shared: &Shared) -> Lost {
        loop {
            if let Err(lost) = self.turn(shared).await {
                return lost;
            }
        }
    }

    async fn turn(&mut self, shared: &Shared) -> Result<(), Lost> {
        self.subscribe(shared).await?;
        let silence = self.heard_at + self.heartbeat * 2 + SILENCE_GRACE;
        let later = self.later.iter().map(|(at, _, _)| *at).min().unwrap_or(silence);
        let until = silence.min(later);
        tokio::select! {
            heard = self.hear() => match heard? {
                Some(heard) => self.take(heard, shared).await,
                None => Ok(()),
            },
            () = shared.changed.notified() => Ok(()),
            () = tokio::time::sleep_until(until) => {
                if Instant::now() >= silence {
                    return Err(Lost::cut("the server sent nothing for too long"));
                }
                Ok(())
            }
        }
    }

    /// Subscribes to tables that are new or due for a retry, and unsubscribes from
    /// those without a handle.
    async fn subscribe(&mut self, shared: &Shared) -> Result<(), Lost> {
        let now = Instant::now();
        let dropped: Vec<u64> =
            self.subs.iter().filter(|(_, sub)| sub.mirrored.is_over()).map(|(id, _)| *id).collect();
        for id in dropped {
            self.forget(id);
            self.say(&Say::Unsub { id }).await?;
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

    async fn ask(&mut self, mirrored: Arc<Mirrored>, failures: u32) -> Result<(), Lost> {
        self.id += 1;
        let id = self.id;
        let resume = mirrored.mirror().token.clone();
        mirrored.set_status(Status::CatchingUp);
        let text = Say::Sub {
            id,
            table: &mirrored.name,
            mode: mirrored.options.mode.name(),
            rate_ms: mirrored.options.rate_ms,
            resume: resume.as_deref(),
        }
        .text();
        self.subs
            .insert(id, Sub { mirrored, failures, ch: 0, snap: None, delta: None, behind: None });
        Ok(self.ws.send(Message::text(text)).await?)
    }

    fn forget(&mut self, id: u64) -> Option<Sub> {
        let sub = self.subs.remove(&id)?;
        self.channels.remove(&sub.ch);
        Some(sub)
    }

    async fn say(&mut self, say: &Say<'_>) -> Result<(), Lost> {
        Ok(self.ws.send(Message::text(say.text())).await?)
    }

    /// The next message; `None` if it is not part of the protocol.
    async fn hear(&mut self) -> Result<Option<Heard>, Lost> {
        let message = match self.ws.next().await {
            Some(message) => message?,
            None => return Err(Lost::cut("the connection ended")),
        };
        self.heard_at = Instant::now();
        match message {
            Message::Text(text) => {
                let heard = serde_json::from_str(&text).map_err(Lost::cut)?;
                Ok(Some(heard))
            }
            Message::Close(Some(frame)) => {
                Err(Lost::Closed(frame.code.into(), frame.reason.to_string()))
            }
            Message::Close(None) => Err(Lost::cut("the server closed the connection")),
            _ => Ok(None),
        }
    }

    async fn take(&mut self, heard: Heard, shared: &Shared) -> Result<(), Lost> {
        match heard.t.as_str() {
            "ping" => {
                self.acknowledge().await?;
                self.say(&Say::Pong).await
            }
            "ok" => {
                self.ok(heard);
                Ok(())
            }
            "err" => {
                self.refused(heard, shared);
                Ok(())
            }
            "end" => {
                if let Some(sub) = self.forget(heard.id) {
                    let table = sub.mirrored.name.clone();
                    sub.mirrored.end(Error::Ended { table, why: heard.why });
                }
                Ok(())
            }
            "reset" => {
                self.reset(heard);
                Ok(())
            }
            "snap" | "delta" | "tick" => self.data(heard).await,
            // `expiring`, and messages of later servers.
            _ => Ok(()),
        }
    }

    fn ok(&mut self, heard: Heard) {
        let Some(sub) = self.subs.get_mut(&heard.id) else { return };
        sub.ch = heard.ch;
        self.channels.insert(heard.ch, heard.id);
        let mut mirror = sub.mirrored.mirror();
        if let Some(fields) = heard.fields {
            mirror.fields = fields;
        }
        // The rows are also those of this commit, whatever their commit was before.
        if let Some(commit) = heard.commit
            && mirror.commit.replace(commit).is_some_and(|before| before != commit)
        {
            sub.mirrored.tell(mirror, Change::Resumed { commit });
        }
    }

    fn refused(&mut self, heard: Heard, shared: &Shared) {
        let Some(sub) = self.forget(heard.id) else { return };
        if heard.retry {
            let at = Instant::now() + backoff(&shared.options, sub.failures);
            self.later.push((at, sub.failures.saturating_add(1), sub.mirrored));
        } else {
            sub.mirrored.end(Error::Table { code: heard.code, message: heard.msg });
        }
    }

    /// Discards partly received frames; a snapshot follows.
    fn reset(&mut self, heard: Heard) {
        let Some(sub) = self.sub(heard.ch) else { return };
        sub.snap = None;
        sub.delta = None;
        sub.behind = None;
        if let Some(fields) = heard.fields {
            sub.mirrored.mirror().fields = fields;
        }
        sub.mirrored.set_status(Status::CatchingUp);
    }

    fn sub(&mut self, ch: u64) -> Option<&mut Sub> {
        self.channels.get(&ch).and_then(|id| self.subs.get_mut(id))
    }

    /// Applies a data frame. Frames of an unknown channel count as received, too.
    async fn data(&mut self, heard: Heard) -> Result<(), Lost> {
        self.received += 1;
        let ch = heard.ch;
        if let Some(sub) = self.sub(ch) {
            match sub.apply(heard) {
                Ok(true) => self.useful = true,
                Ok(false) => {}
                Err(OutOfStep) => self.anew(ch).await?,
            }
        }
        if self.received - self.acked >= self.ack_every {
            self.acknowledge().await?;
        }
        Ok(())
    }

    async fn acknowledge(&mut self) -> Result<(), Lost> {
        if self.acked < self.received {
            self.acked = self.received;
            self.say(&Say::Ack { n: self.received }).await?;
        }
        Ok(())
    }

    /// Subscribes again without a token. The delta received does not continue the shown
    /// rows, so only a snapshot is safe.
    async fn anew(&mut self, ch: u64) -> Result<(), Lost> {
        let Some(id) = self.channels.get(&ch).copied() else { return Ok(()) };
        let Some(sub) = self.forget(id) else { return Ok(()) };
        tracing::warn!(
            table = sub.mirrored.name,
            "a delta does not continue the rows; subscribing again"
        );
        self.say(&Say::Unsub { id }).await?;
        sub.mirrored.mirror().token = None;
        self.ask(sub.mirrored, 0).await
    }
}

/// A delta that does not begin at the table's commit.
struct OutOfStep;

impl Sub {
    /// Applies a data frame; returns whether the table is up to date after it.
    fn apply(&mut self, heard: Heard) -> Result<bool, OutOfStep> {
        if heard.t == "snap" {
            return Ok(self.snap(heard));
        }
        let behind = self.behind.as_ref().map(|behind| behind.commit);
        let at = behind.or(self.mirrored.mirror().commit);
        if at.is_some_and(|commit| commit != heard.from) {
            return Err(OutOfStep);
        }
        let shown = match heard.t.as_str() {
            "delta" => self.delta(heard)?,
            _ => self.tick(heard)?,
        };
        if shown {
            self.live();
        }
        Ok(shown)
    }

    /// Collects a snapshot; its last part replaces all rows at once.
    fn snap(&mut self, heard: Heard) -> bool {
        let rows = self.snap.get_or_insert_default();
        rows.extend(heard.rows.into_iter().map(|(key, row)| (key, Row::from(row))));
        if heard.more {
            return false;
        }
        let rows = self.snap.take().unwrap_or_default();
        self.behind = None;
        let mut mirror = self.mirrored.mirror();
        let same = mirror.epoch.as_ref() == Some(&heard.epoch);
        let commit = heard.commit.unwrap_or_default();
        if same && mirror.commit.is_some_and(|shown| commit < shown) {
            self.behind = Some(Behind { commit, rows });
            return false;
        }
        mirror.rows = rows;
        mirror.commit = Some(commit);
        mirror.offsets = heard.offsets;
        mirror.epoch = Some(heard.epoch.clone());
        mirror.token = heard.tok;
        self.mirrored.tell(mirror, Change::Snapshot { epoch: heard.epoch, commit });
        self.live();
        true
    }

    fn tick(&mut self, heard: Heard) -> Result<bool, OutOfStep> {
        if self.delta.is_some() {
            return Err(OutOfStep);
        }
        if let Some(behind) = &mut self.behind {
            behind.commit = heard.to;
            return Ok(self.catch_up(heard.tok, heard.offsets));
        }
        let mut mirror = self.mirrored.mirror();
        mirror.commit = Some(heard.to);
        mirror.offsets = heard.offsets;
        mirror.lag = heard.lag.or(mirror.lag);
        mirror.token = heard.tok.or(mirror.token.take());
        self.mirrored.tell(mirror, Change::Tick { commit: heard.to, lag: heard.lag });
        Ok(true)
    }

    /// Collects a delta; its last part applies all of it at once.
    fn delta(&mut self, heard: Heard) -> Result<bool, OutOfStep> {
        let fresh = Parts { from: heard.from, to: heard.to, ..Parts::default() };
        let parts = self.delta.get_or_insert(fresh);
        if (parts.from, parts.to) != (heard.from, heard.to) {
            return Err(OutOfStep);
        }
        parts.up.extend(heard.up.into_iter().map(|(key, row)| (key, Row::from(row))));
        parts.del.extend(heard.del);
        if heard.more {
            return Ok(false);
        }
        let Parts { from, to, up, del } = self.delta.take().unwrap_or_default();
        if let Some(behind) = &mut self.behind {
            change(&mut behind.rows, &up, &del);
            behind.commit = to;
            return Ok(self.catch_up(heard.tok, heard.offsets));
        }
        let mut mirror = self.mirrored.mirror();
        change(&mut mirror.rows, &up, &del);
        mirror.commit = Some(to);
        mirror.offsets = heard.offsets;
        mirror.token = heard.tok.or(mirror.token.take());
        self.mirrored.tell(mirror, Change::Delta { from, to, up, del, merged: heard.merged });
        Ok(true)
    }

    /// Shows the rows that were held back when they are no longer older than the rows
    /// shown.
    fn catch_up(&mut self, token: Option<String>, offsets: BTreeMap<u32, u64>) -> bool {
        let mut mirror = self.mirrored.mirror();
        let shown = mirror.commit;
        let Some(Behind { commit, rows }) = self.behind.take_if(|at| Some(at.commit) >= shown)
        else {
            return false;
        };
        mirror.rows = rows;
        mirror.commit = Some(commit);
        mirror.offsets = offsets;
        mirror.token = token;
        let epoch = mirror.epoch.clone().unwrap_or_default();
        self.mirrored.tell(mirror, Change::Snapshot { epoch, commit });
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
