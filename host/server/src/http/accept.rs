//! Accepts connections, and answers HTTP requests on them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{AnswerBody, Connection, ConnectionTimeouts, RequestProgress};
use super::connection_control::{ConnectionControl, ConnectionLimits};
use super::feed::{self, FeedConnection};
use super::feed_stream;
use super::reserved_connections::Reserved;
use crate::config::HttpConfig;

/// The maximum number of bytes that hyper buffers for a connection. The headers of a request
/// must fit in this buffer.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// The wait after the system could not accept a connection, for example because there are too many
/// open files.
const ACCEPT_WAIT: Duration = Duration::from_millis(100);
/// The time limit for the headers of a request on a reserved connection. It is short, so that such
/// a connection is soon free for another client.
const RESERVED_HEADERS: Duration = Duration::from_secs(1);

/// Answers requests with `router` until `stopping` is cancelled. Requests in progress may then
/// continue for the time that `config` allows, before their connections are closed.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    config: &HttpConfig,
    stopping: CancellationToken,
) {
    let limits = ConnectionLimits::new(config);
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    loop {
        let permit = tokio::select! {
            () = stopping.cancelled() => break,
            permit = limits.free() => permit,
        };
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_WAIT).await;
                continue;
            }
        };
        // In the meantime, an unreserved permit may have become free.
        let permit = limits.better(permit);
        let reserved = permit.reserved;
        let control = ConnectionControl::new(permit);
        let talk = connection(stream, router.clone(), (reserved, &control), config, &stopping);
        let cut = cut.clone();
        connections.spawn(async move {
            tokio::select! {
                () = talk => (),
                () = control.until_cut() => (),
                () = cut.cancelled() => (),
            }
            control.release();
        });
    }
    connections.close();
    let patience = Duration::from_millis(config.shutdown_ms_max);
    if tokio::time::timeout(patience, connections.wait()).await.is_err() {
        tracing::warn!(left = connections.len(), "requests were cut off at shutdown");
        cut.cancel();
        connections.wait().await;
    }
}

fn connection(
    stream: TcpStream,
    router: Router,
    (reserved, control): (bool, &Arc<ConnectionControl>),
    config: &HttpConfig,
    stopping: &CancellationToken,
) -> impl Future<Output = ()> + Send + use<> {
    // Without this option, the operating system would delay answers and deltas, which are small, in
    // order to send several of them together.
    let _ = stream.set_nodelay(true);
    let mut timeouts = ConnectionTimeouts {
        headers: Duration::from_millis(config.headers_ms_max),
        idle: Duration::from_millis(config.idle_ms_max),
    };
    if reserved {
        timeouts.headers = timeouts.headers.min(RESERVED_HEADERS);
    }
    let address = stream.peer_addr().ok();
    let progress = Arc::<RequestProgress>::default();
    let io = TokioIo::new(Connection::new(stream, Arc::clone(&progress), timeouts));
    let router = TowerToHyperService::new(router);
    let control = Arc::clone(control);
    let requests = Requests { router, progress, reserved, address, control };
    let stopping = stopping.clone();
    let mut http = http1::Builder::new();
    // hyper's own time limit is off: `Connection` enforces all time limits.
    http.header_read_timeout(None).max_buf_size(BUFFER_BYTES_MAX).keep_alive(!reserved);
    let connection = http.serve_connection(io, requests).with_upgrades();
    async move {
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke");
        }
    }
}

/// Answers the requests of one connection.
struct Requests {
    router: TowerToHyperService<Router>,
    progress: Arc<RequestProgress>,
    reserved: bool,
    address: Option<SocketAddr>,
    control: Arc<ConnectionControl>,
}

impl Service<http::Request<Incoming>> for Requests {
    type Response = http::Response<AnswerBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: http::Request<Incoming>) -> Self::Future {
        self.progress.begin();
        if self.reserved {
            request.extensions_mut().insert(Reserved);
        }
        if let Some(address) = self.address
            && [feed::PATH, feed_stream::PATH].contains(&request.uri().path())
        {
            let control = Arc::clone(&self.control);
            request.extensions_mut().insert(FeedConnection { address, control });
        }
        let (answer, progress) = (self.router.call(request), Arc::clone(&self.progress));
        Box::pin(async move { Ok(progress.follow(answer.await?)) })
    }
}
