//! Listens for connections, and serves the HTTP API.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::config::ServerConfig;
use crate::http;
use crate::start_error::StartError;

/// Listens on the configured address. It must be a loopback address, because the server has no
/// authentication.
pub(super) async fn listen(config: &ServerConfig) -> Result<(TcpListener, SocketAddr), StartError> {
    let address = config.http.listen;
    if !address.ip().is_loopback() {
        return Err(StartError::Public(address));
    }
    let refused = |source: std::io::Error| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

/// Starts a task that answers requests until the server stops.
pub(super) fn serve(app: &Arc<App>, listener: TcpListener) -> JoinHandle<()> {
    let router = http::router(Arc::clone(app));
    let (config, stopping) = (app.config.http.clone(), app.tasks.stopping.clone());
    tokio::spawn(async move { http::serve(listener, router, &config, stopping).await })
}
