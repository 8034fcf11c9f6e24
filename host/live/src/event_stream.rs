//! Runs sessions whose client gets an event stream (server-sent events) and sends nothing. All
//! subscriptions are in the request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::{mpsc, oneshot};

use crate::config::ms;
use crate::event_sink::EventSink;
use crate::open_sessions::SessionEntry;
use crate::projection_feed::ProjectionFeeds;
use crate::protocol::{Refused, Subscribe, close};
use crate::resources::Resources;
use crate::session::Session;
use crate::session_end::{SessionEnd, SessionStop};
use crate::stream_request::{StreamRefusal, StreamRequest};

/// The shortest and longest time after which a client connects again, in milliseconds. The server
/// chooses a random time for each stream, so that not all clients connect at the same moment.
const RETRY_MS: std::ops::Range<u64> = 1_000..3_000;

/// An event stream whose session runs. Dropping it ends the session.
#[derive(Debug)]
pub struct EventStream {
    opened: oneshot::Receiver<Result<(), StreamRefusal>>,
    pieces: mpsc::Receiver<Bytes>,
}

impl EventStream {
    /// Waits until each subscription is open or refused. Then returns the bytes of the stream, in
    /// pieces. The session waits until a piece is taken, and ends when the pieces are dropped.
    ///
    /// # Errors
    /// Returns [`StreamRefusal`] if the stream is not opened.
    pub async fn open(self) -> Result<impl Stream<Item = Bytes> + Send + 'static, StreamRefusal> {
        let Self { opened, mut pieces } = self;
        let ended = |_| Err(StreamRefusal::Failed("the session ended unexpectedly".into()));
        opened.await.unwrap_or_else(ended)?;
        Ok(stream::poll_fn(move |context| pieces.poll_recv(context)))
    }
}

/// The side of an event stream that its session uses.
pub(crate) struct StreamSender {
    opened: Option<oneshot::Sender<Result<(), StreamRefusal>>>,
    pieces: mpsc::Sender<Bytes>,
}

impl StreamSender {
    /// Creates both sides of an event stream.
    pub(crate) fn new() -> (Self, EventStream) {
        let (opened, receiver) = oneshot::channel();
        let (sender, pieces) = mpsc::channel(1);
        let sender = Self { opened: Some(opened), pieces: sender };
        (sender, EventStream { opened: receiver, pieces })
    }

    /// Opens or refuses the stream, unless that was done before. The result is dropped if the client
    /// no longer waits.
    pub(crate) fn decide(&mut self, result: Result<(), StreamRefusal>) {
        if let Some(opened) = self.opened.take() {
            let _ = opened.send(result);
        }
    }
}

/// Runs a session until it ends. `entry` describes it to operators.
pub(crate) async fn run<S: Future<Output = ()> + Send>(
    resources: &Arc<Resources>,
    feeds: &ProjectionFeeds,
    (request, mut sender): (StreamRequest, StreamSender),
    shutdown: S,
    entry: &Arc<SessionEntry>,
) -> SessionEnd {
    let config = &resources.config;
    let (subs, cursor) = match request.read() {
        Ok(read) => read,
        Err(refused) => {
            sender.decide(Err(StreamRefusal::Subscription(refused)));
            return SessionEnd::Server(close::BAD_MESSAGE);
        }
    };
    let retry = Duration::from_millis(fastrand::u64(RETRY_MS));
    let mut sink = EventSink::new(sender.pieces.clone(), (cursor, retry), config);
    let stop = {
        let mut session = Session::new(resources, feeds, entry, &mut sink);
        tokio::select! {
            stop = live(&mut session, subs, request.cursor.is_some(), &mut sender) => stop,
            // This can interrupt the writing of a message. The sink remembers that it must not
            // write another one.
            () = shutdown => SessionStop::close(close::SHUTTING_DOWN, "the server shuts down"),
        }
    };
    let SessionStop::Close(code, why) = stop else { return SessionEnd::Cut };
    tracing::debug!(code, %why, "closed an event stream");
    metrics::counter!("lantern_feed_closed_total", "code" => code.to_string()).increment(1);
    if sender.opened.is_some() {
        sender.decide(Err(StreamRefusal::Failed(why.into_owned())));
    } else {
        sink.close(code, &why, ms(config.close_ms)).await;
    }
    SessionEnd::Server(code)
}

/// Opens the subscriptions `subs`, and sends their frames until the session must end. `resumes`
/// tells whether the client has received a part of the stream before.
async fn live(
    session: &mut Session<'_, EventSink>,
    subs: Vec<Subscribe>,
    resumes: bool,
    sender: &mut StreamSender,
) -> SessionStop {
    let refused = |sender: &mut StreamSender, refused: Refused| {
        let stop = SessionStop::close(close::BAD_MESSAGE, refused.msg.clone());
        sender.decide(Err(StreamRefusal::Subscription(refused)));
        stop
    };
    let mut refusals = Vec::new();
    for sub in subs {
        if let Err(refusal) = session.open(sub) {
            if !resumes {
                return refused(sender, refusal);
            }
            refusals.push(refusal);
        }
    }
    match session.wait_for_openings().await {
        Ok(later) => refusals.extend(later),
        Err(stop) => return stop,
    }
    // A client that connects again keeps the subscriptions that can still be opened.
    let goes_on = refusals.is_empty() || resumes && session.has_subscriptions();
    if !goes_on {
        return refused(sender, refusals.swap_remove(0));
    }
    sender.decide(Ok(()));
    match send(session, refusals).await {
        Err(stop) => stop,
        Ok(()) => SessionStop::close(close::NORMAL, "every subscription has ended"),
    }
}

/// Sends the frames of the subscriptions until none is left.
async fn send(
    session: &mut Session<'_, EventSink>,
    refusals: Vec<Refused>,
) -> Result<(), SessionStop> {
    session.welcome().await?;
    for refused in refusals {
        session.refuse(refused).await?;
    }
    while session.has_subscriptions() {
        session.run_once().await?;
    }
    Ok(())
}
