//! Accepts connections and speaks HTTP on them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::HttpConfig;

/// The most bytes hyper holds of a connection; a request's headers must fit.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// How long to wait after the system refuses a connection (too many open files).
const ACCEPT_WAIT: Duration = Duration::from_millis(100);

/// Serves `router` until `stopping`; then gives requests under way the time
/// that `config` allows, and cuts them.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    config: &HttpConfig,
    stopping: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(config.connections_max));
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(config.headers_ms_max))
        .max_buf_size(BUFFER_BYTES_MAX);
    loop {
        let place = tokio::select! {
            () = stopping.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => {
                place.expect("the semaphore is never closed")
            }
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
        let talk = connection(&http, stream, router.clone(), stopping.clone());
        let cut = cut.clone();
        connections.spawn(async move {
            let _place = place;
            tokio::select! {
                () = talk => (),
                () = cut.cancelled() => (),
            }
        });
    }
    connections.close();
    let patience = Duration::from_millis(config.shutdown_ms_max);
    if tokio::time::timeout(patience, connections.wait()).await.is_err() {
        tracing::warn!(left = connections.len(), "requests were cut at shutdown");
        cut.cancel();
        connections.wait().await;
    }
}

fn connection(
    http: &http1::Builder,
    stream: TcpStream,
    router: Router,
    stopping: CancellationToken,
) -> impl Future<Output = ()> + Send + use<> {
    // Answers and deltas are small and must not wait for one another.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
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
