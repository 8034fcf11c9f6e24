//! Runs one connection. It subscribes to tables, applies the messages that it receives, checks
//! every step, and reports why the connection was lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use lantern_api::feed::{
    ClientMessage, Ended, Refused, Reset, SUBPROTOCOL, ServerMessage, Subscribe, Subscribed,
};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::backoff::backoff;
use crate::connection_end::ConnectionEnd;
use crate::error::{Error, SHAPE};
use crate::mirror::{Mirrored, Status};
use crate::options::{Options, TableOptions};
use crate::shared::Shared;
use crate::subscription::{CommitMismatch, Subscription};

/// A connection that has received `welcome`.
pub(crate) struct Connection {
    ws: WebSocketStream<MaybeTlsStream<TcpStream>>,
    heartbeat: Duration,
    /// The number of data frames after which the client sends an acknowledgement.
    ack_every: u64,
    received: u64,
    acked: u64,
    id: u64,
    subs: HashMap<u64, Subscription>,
    /// The subscription of each channel.
    channels: HashMap<u64, u64>,
    /// The subscriptions that the server refused temporarily, each with the time of the next try
    /// and the number of tries so far.
    later: Vec<(Instant, u32, Arc<Mirrored>)>,
    received_at: Instant,
    useful: bool,
}

/// If nothing arrives for this time plus twice the heartbeat interval, the connection counts as
/// lost.
const SILENCE_GRACE: Duration = Duration::from_secs(5);

impl Connection {
    /// Connects to the server and sends `hello`.
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
        // Without this option, the system would delay a small message until the previous message is
        // acknowledged.
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

    /// Returns whether this connection has brought a table up to date.
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

    /// Subscribes to tables that are new or due for another try, and ends the subscriptions of
    /// tables without handles.
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
                Some(index) if self.later[index].0 > now => continue,
                Some(index) => self.later.swap_remove(index).1,
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
        let TableOptions { conditions, columns, roll_up, rate_ms, mode, shape, .. } =
            &mirrored.options;
        let subscribe = ClientMessage::Sub(Box::new(Subscribe {
            id,
            table: mirrored.name.clone(),
            conditions: conditions.clone(),
            cols: columns.clone(),
            rollup: roll_up.clone(),
            mode: Some(mode.name().to_owned()),
            rate_ms: (*rate_ms > 0).then_some(*rate_ms),
            resume,
            shape: shape.clone(),
            ..Subscribe::default()
        }));
        self.subs.insert(id, Subscription::new(mirrored, failures));
        self.send(&subscribe).await
    }

    fn remove(&mut self, id: u64) -> Option<Subscription> {
        let sub = self.subs.remove(&id)?;
        self.channels.remove(&sub.ch);
        Some(sub)
    }

    async fn send(&mut self, message: &ClientMessage) -> Result<(), ConnectionEnd> {
        Ok(self.ws.send(Message::text(message.text())).await?)
    }

    /// Receives the next message. Returns `None` if the message is not part of the protocol.
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
                    let Ended { why, code, changes, .. } = ended;
                    sub.mirrored.end(match code.as_deref() {
                        Some(SHAPE) => Error::shape(&table, why, changes),
                        _ => Error::Ended { table, why },
                    });
                }
            }
            // Only the first message may be `welcome`, so this one is ignored.
            // A WebSocket is closed with a close frame.
            ServerMessage::Welcome(_) | ServerMessage::Close(_) => {}
        }
        Ok(())
    }

    fn ok(&mut self, subscribed: Subscribed) {
        let Subscribed { id, ch, fields, shape, commit, .. } = subscribed;
        let Some(sub) = self.subs.get_mut(&id) else { return };
        sub.ch = ch;
        self.channels.insert(ch, id);
        sub.accepted(fields, shape, commit);
    }

    fn refused(&mut self, refused: Refused, shared: &Shared) {
        let Some(sub) = self.remove(refused.id) else { return };
        if refused.retry {
            let at = Instant::now() + backoff(&shared.options, sub.failures);
            self.later.push((at, sub.failures.saturating_add(1), sub.mirrored));
        } else if refused.code == SHAPE {
            let error = Error::shape(&sub.mirrored.name, refused.msg, refused.changes);
            sub.mirrored.end(error);
        } else {
            let code = refused.code.into_owned();
            sub.mirrored.end(Error::Table { code, message: refused.msg });
        }
    }

    /// Drops snapshots and deltas that were received in part, because the server sends a new
    /// snapshot.
    fn reset(&mut self, reset: Reset) {
        let Some(sub) = self.sub(reset.ch) else { return };
        sub.reset(reset.fields, reset.shape);
    }

    fn sub(&mut self, ch: u64) -> Option<&mut Subscription> {
        self.channels.get(&ch).and_then(|id| self.subs.get_mut(id))
    }

    /// Applies a data frame with `apply`, which returns whether the table is up to date after the
    /// frame. A frame of an unknown channel also counts as received, so that it is acknowledged.
    async fn data(
        &mut self,
        ch: u64,
        apply: impl FnOnce(&mut Subscription) -> Result<bool, CommitMismatch>,
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

    /// Subscribes again without a token, because the received delta does not begin at the commit of
    /// the rows. After such an error only a snapshot gives correct rows.
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
