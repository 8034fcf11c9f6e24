//! Implements a simulated client. It connects again and again, and each connection ends in a random
//! way (see [`SessionOutcome`]). The client checks every state that it shows.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fastrand::Rng;
use lantern_live::SessionEnd;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::copy::Copy;
use super::wire::{Line, ServerMessage, Wire};
use super::{FeedCounts, Net};

/// The way in which a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SessionOutcome {
    /// The connection lasts until the client has all changes.
    Lasts,
    /// The connection is cut at some byte.
    Cut,
    /// The number of frames after which the client neither reads nor writes. Its end of the
    /// connection stays open.
    HalfOpen(u64),
    /// The client never reads, but it sends `pong`.
    Deaf,
}

/// A simulated client, with its copies of the tables.
pub(super) struct Reader {
    net: Arc<Net>,
    rng: Rng,
    copies: Vec<Copy>,
    /// An earlier state of one of the copies, with the number of the copy. The client can resume
    /// from it.
    saved: Option<(usize, Copy)>,
    pub(super) seen: FeedCounts,
}

/// The state of one connection.
struct Session {
    wire: Wire,
    fate: SessionOutcome,
    window: u64,
    ack_every: u64,
    /// The number of data frames that the client has received and acknowledged.
    received: u64,
    acked: u64,
    next_id: u64,
    /// The copy to which the frames of each subscription or channel belong.
    ids: HashMap<u64, usize>,
    channels: HashMap<u64, usize>,
}

impl Reader {
    pub(super) fn new(net: Arc<Net>, rng: Rng, copies: Vec<Copy>) -> Self {
        Self { net, rng, copies, saved: None, seen: FeedCounts::default() }
    }

    /// Connects again and again until, after the last commit, all copies show the newest state.
    pub(super) async fn run(mut self) -> Result<FeedCounts> {
        while !self.session().await? {
            self.seen.connections += 1;
            tokio::task::yield_now().await;
        }
        Ok(self.seen)
    }

    /// Uses one connection until it ends. Returns `true` if all copies show the newest state.
    async fn session(&mut self) -> Result<bool> {
        let done = self.net.done.load(Ordering::SeqCst);
        let fate = match self.rng.u8(..12) {
            _ if done => SessionOutcome::Lasts,
            0..6 => SessionOutcome::Cut,
            6 => SessionOutcome::HalfOpen(self.rng.u64(..20)),
            7 => SessionOutcome::Deaf,
            _ => SessionOutcome::Lasts,
        };
        let line = self.line(fate);
        let (wire, window) = self.net.connect(line, &mut self.rng);
        let mut session = Session {
            wire,
            fate,
            window,
            ack_every: self.rng.u64(1..=window.min(4)),
            received: 0,
            acked: 0,
            next_id: 0,
            ids: HashMap::new(),
            channels: HashMap::new(),
        };
        self.copies.iter_mut().for_each(Copy::interrupt);
        if let Some((place, copy)) = &self.saved
            && self.rng.u8(..3) == 0
        {
            self.copies[*place] = copy.clone();
        }
        if !session.wire.say(&json!({"t":"hello"})).await {
            self.seen.cuts += 1;
            return Ok(false);
        }
        for place in 0..self.copies.len() {
            if !self.subscribe(&mut session, place, true).await {
                self.seen.cuts += 1;
                return Ok(false);
            }
        }
        match fate {
            SessionOutcome::Deaf => self.stay_deaf(session).await,
            _ => self.listen(session).await,
        }
    }

    fn line(&mut self, fate: SessionOutcome) -> Line {
        let rng = &mut self.rng;
        let cut = |rng: &mut Rng, most: usize| 1 << rng.usize(4..most);
        let (mut read, mut written) = (usize::MAX, usize::MAX);
        if fate == SessionOutcome::Cut {
            // The connection breaks at any byte, more likely at an early one.
            if rng.u8(..4) == 0 {
                written = cut(rng, 11) + rng.usize(..64);
            } else {
                read = cut(rng, 17) + rng.usize(..512);
            }
        }
        Line {
            piece: 1 << rng.usize(0..13),
            pause_one_in: [0, 0, 4, 40][rng.usize(..4)],
            pause_ms: [1, 20, 200][rng.usize(..3)],
            cut_after_read: read,
            cut_after_written: written,
        }
    }

    /// Subscribes to a table. If `resume`, continues from the token of the client's copy. Returns
    /// `false` if the connection broke.
    async fn subscribe(&mut self, session: &mut Session, place: usize, resume: bool) -> bool {
        let copy = &self.copies[place];
        session.next_id += 1;
        let id = session.next_id;
        session.ids.insert(id, place);
        let table = ["shop/a", "shop/b"][copy.table];
        let rate = [0, 0, 1, 7][self.rng.usize(..4)];
        let mode = if copy.changes { "changes" } else { "state" };
        let mut sub = json!({"t":"sub","id":id,"table":table,"mode":mode,"rate_ms":rate});
        if let (true, Some(token)) = (resume, &copy.token) {
            sub["resume"] = match self.rng.u8(..24) {
                // The server answers an invalid token with a snapshot.
                0 => json!(token[..token.len() / 2]),
                _ => json!(token),
            };
        }
        session.wire.say(&sub).await
    }

    /// Reads until the connection ends, or the newest state is shown.
    async fn listen(&mut self, mut session: Session) -> Result<bool> {
        let mut frames = 0;
        loop {
            if session.fate == SessionOutcome::HalfOpen(frames) {
                return self.given_up(session.wire).await;
            }
            frames += 1;
            let done = self.net.done.load(Ordering::SeqCst);
            if done {
                session.wire.heal();
            }
            match session.wire.hear().await? {
                ServerMessage::Message(frame) => {
                    if !self.receive(&mut session, &frame).await? {
                        self.seen.cuts += 1;
                        return Ok(false);
                    }
                }
                ServerMessage::Cut => {
                    self.seen.cuts += 1;
                    return Ok(false);
                }
                ServerMessage::Closed(code) => {
                    ensure!([4501, 4502, 4504].contains(&code), "closed with {code}");
                    self.seen.closed += 1;
                    return Ok(false);
                }
            }
            let head = self.net.world.head();
            if done && self.copies.iter().all(|copy| copy.shown.as_ref() == Some(&head)) {
                return Ok(true);
            }
        }
    }

    /// Handles a message and answers it. Returns `false` if the connection broke.
    async fn receive(&mut self, session: &mut Session, frame: &Value) -> Result<bool> {
        let kind = frame["t"].as_str().context("no `t`")?;
        match kind {
            "ping" => return Ok(session.wire.say(&json!({"t":"pong"})).await),
            "welcome" | "end" => return Ok(true),
            "ok" => {
                let id = frame["id"].as_u64().context("no id")?;
                let place = *session.ids.get(&id).context("an `ok` without a request")?;
                let ch = frame["ch"].as_u64().context("no channel")?;
                ensure!(session.channels.insert(ch, place).is_none(), "channel {ch} comes twice");
                self.copies[place].interrupt();
                self.copies[place].resumed(&self.net.world, frame)?;
                self.seen.resumed += u64::from(frame["resumed"] == true);
                return Ok(true);
            }
            "snap" | "delta" | "tick" => session.received += 1,
            "reset" => {}
            _ => bail!("unexpected: {frame}"),
        }
        let under_way = session.received - session.acked;
        ensure!(
            under_way <= session.window,
            "{under_way} frames without an acknowledgement: {}",
            session.window
        );
        let ch = frame["ch"].as_u64().context("no channel")?;
        // The client acknowledges frames of a released channel, and ignores them.
        if let Some(place) = session.channels.get(&ch).copied() {
            let copy = &mut self.copies[place];
            copy.apply(&self.net.world, frame, &mut self.seen)?;
            if self.rng.u8(..30) == 0 {
                self.saved = Some((place, copy.clone()));
            }
            if self.rng.u8(..40) == 0 && !self.resubscribe(session, place, ch).await {
                return Ok(false);
            }
        }
        let done = self.net.done.load(Ordering::SeqCst);
        if under_way >= session.ack_every || done {
            session.acked = session.received;
            return Ok(session.wire.say(&json!({"t":"ack","n":session.received})).await);
        }
        Ok(true)
    }

    /// Subscribes again without a token, like a client that trusts only a snapshot.
    async fn resubscribe(&mut self, session: &mut Session, place: usize, ch: u64) -> bool {
        session.channels.remove(&ch);
        let id = session.ids.iter().filter(|(_, of)| **of == place).map(|(id, _)| *id).max();
        self.copies[place].interrupt();
        self.seen.resubscribed += 1;
        session.wire.say(&json!({"t":"unsub","id":id})).await
            && self.subscribe(session, place, false).await
    }

    /// Sends `pong` a few times, and never reads. The acknowledgement window and the size of
    /// the pipe limit how much the server can send. The server may keep such a connection or
    /// close it.
    async fn stay_deaf(&mut self, mut session: Session) -> Result<bool> {
        for _ in 0..self.rng.u32(1..8) {
            if !session.wire.say(&json!({"t":"pong"})).await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(self.rng.u64(..100))).await;
        }
        self.seen.deaf += 1;
        self.given_up(session.wire).await
    }

    /// Stops reading and writing. Checks that the server closes the connection within its time
    /// limits.
    async fn given_up(&mut self, mut wire: Wire) -> Result<bool> {
        match timeout(self.net.patience(), &mut wire.session).await {
            Ok(Ok(SessionEnd::Cut)) => {}
            Ok(Ok(SessionEnd::Server(code))) => {
                ensure!([4501, 4502, 4504].contains(&code), "a silent client: {code}");
            }
            Ok(Ok(SessionEnd::Client(code))) => bail!("a silent client closed with {code:?}"),
            // The server was killed, which ends the session.
            Ok(Err(error)) => ensure!(error.is_cancelled(), "a session panicked: {error}"),
            Err(_) => bail!("a client that is silent is not given up"),
        }
        self.seen.given_up += 1;
        Ok(false)
    }
}
