//! Runs sessions over a WebSocket.

use std::pin::pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::config::ms;
use crate::open_sessions::SessionEntry;
use crate::projection_feed::ProjectionFeeds;
use crate::protocol::close;
use crate::resources::Resources;
use crate::session::Session;
use crate::session_end::{SessionEnd, SessionStop};
use crate::socket::Socket;
use crate::transport::Transport;

/// Runs a session until it ends. `entry` describes it to operators. It is `None` if there are too
/// many sessions; then this one is closed at once.
pub(crate) async fn run<I, S>(
    resources: &Arc<Resources>,
    feeds: &ProjectionFeeds,
    io: I,
    shutdown: S,
    entry: Option<&Arc<SessionEntry>>,
) -> SessionEnd
where
    I: AsyncRead + AsyncWrite + Unpin + Send,
    S: Future<Output = ()> + Send,
{
    let config = &resources.config;
    let mut socket = Socket::new(io, config).await;
    let mut shutdown = pin!(shutdown);
    let stop = if let Some(entry) = entry {
        let mut session = Session::new(resources, feeds, entry, &mut socket);
        tokio::select! {
            stop = live(&mut session) => stop,
            // This can interrupt the writing of a frame. The socket remembers that it must not
            // write another frame.
            () = &mut shutdown => SessionStop::close(close::SHUTTING_DOWN, "the server shuts down"),
        }
    } else {
        let max = config.sessions_max;
        SessionStop::close(close::TOO_MANY, format!("there are already {max} sessions"))
    };
    let patience = ms(config.close_ms);
    match stop {
        SessionStop::Close(code, why) => {
            tracing::debug!(code, %why, "closed a feed session");
            metrics::counter!("lantern_feed_closed_total", "code" => code.to_string()).increment(1);
            socket.close(code, &why, patience).await;
            SessionEnd::Server(code)
        }
        SessionStop::Client(code) => {
            socket.closed(patience).await;
            SessionEnd::Client(code)
        }
        SessionStop::Cut => SessionEnd::Cut,
    }
}

async fn live<T: Transport>(session: &mut Session<'_, T>) -> SessionStop {
    if let Err(stop) = session.hello().await {
        return stop;
    }
    loop {
        if let Err(stop) = session.run_once().await {
            return stop;
        }
    }
}
