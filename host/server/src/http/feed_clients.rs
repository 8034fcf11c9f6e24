//! `GET /v1/feed/clients`: the clients that are connected to the feed.

use std::cmp::Reverse;

use axum::Json;
use axum::extract::State;
use lantern_api::{FeedClient, FeedClients, FeedSubscription};
use lantern_live::SessionStatus;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Shared;
use super::params::{Params, limit};
use crate::problem::Problem;

/// The number of clients in an answer if `limit` is not given.
const LIMIT_DEFAULT: usize = 1_000;

/// Which clients to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct ClientsQuery {
    /// The maximum number of clients; 1,000 if left out.
    limit: Option<usize>,
}

/// Lists the clients that are connected to the feed, with their subscriptions and what they have
/// not acknowledged.
///
/// Clients with the most bytes waiting come first.
#[utoipa::path(get, path = "/v1/feed/clients", tag = "server", params(ClientsQuery),
    responses((status = 200, body = FeedClients)))]
pub(crate) async fn list(
    State(app): State<Shared>,
    Params(query): Params<ClientsQuery>,
) -> Result<Json<FeedClients>, Problem> {
    let most = limit(query.limit, LIMIT_DEFAULT, app.config.http.query_rows_max)?;
    let list = move |app: &super::App| {
        let mut sessions = app.hub.open_sessions();
        let open = sessions.len();
        sessions.sort_by_key(|session| (Reverse(session.bytes_waiting), session.id));
        let clients = sessions.into_iter().take(most).map(client).collect();
        Ok(Json(FeedClients { open, clients }))
    };
    app.blocking(list).await
}

fn client(it: SessionStatus) -> FeedClient {
    let SessionStatus { id, transport, open_ms, frames_waiting, bytes_waiting, waiting_ms, .. } =
        it;
    let subscriptions = it.subscriptions.into_iter().map(|sub| FeedSubscription {
        id: sub.id,
        table: sub.table,
        commit: sub.commit,
        commits_behind: sub.commits_behind,
    });
    FeedClient {
        id,
        address: it.address.map(|address| address.to_string()),
        transport,
        open_ms,
        subscriptions: subscriptions.collect(),
        frames_waiting,
        bytes_waiting,
        waiting_ms,
    }
}
