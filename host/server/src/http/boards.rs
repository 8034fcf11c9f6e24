//! `/v1/boards`: JSON documents of dashboards, which are stored in the catalogue.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use http::{HeaderMap, StatusCode};
use lantern_api::{BoardList, BoardSummary};

use super::conditional::{Conditions, Verdict};
use super::params::{self, Names};
use super::queries::check_name;
use super::{App, Shared};
use crate::problem::Problem;

/// Lists all boards.
#[utoipa::path(get, path = "/v1/boards", tag = "boards",
    responses((status = 200, body = BoardList)))]
pub(crate) async fn list(State(app): State<Shared>) -> Result<Json<BoardList>, Problem> {
    let list = |app: &App| Ok(BoardList { boards: app.boards.list()? });
    app.blocking(list).await.map(Json)
}

/// Returns the document of a board, byte for byte as it was stored.
///
/// If `If-None-Match` contains the board's tag, the document is not sent again.
#[utoipa::path(get, path = "/v1/boards/{name}", tag = "boards",
    params(("name" = String, Path),
           ("If-None-Match" = Option<String>, Header, description = "`ETag` of an earlier answer")),
    responses((status = 200, body = Object, headers(("ETag" = String))),
              (status = 304, description = "the document has the tag in `If-None-Match`"),
              (status = 404, body = Problem), (status = 412, body = Problem)))]
pub(crate) async fn show(
    State(app): State<Shared>,
    Names(name): Names<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let board = app.blocking(move |app| app.boards.get(&name)).await?;
    let etag = board.summary.etag;
    let described = [(ETAG, etag.clone()), (CACHE_CONTROL, "no-cache".into())];
    Ok(match Conditions::read(&headers).evaluate(&etag) {
        Verdict::Answer => {
            (described, [(CONTENT_TYPE, "application/json")], board.document).into_response()
        }
        Verdict::NotModified => (StatusCode::NOT_MODIFIED, described).into_response(),
        Verdict::Failed => {
            let detail = format!("the board has the tag `{etag}`");
            return Err(Problem::new("LAN-0437", detail).with("etag", etag));
        }
    })
}

/// Stores a board, or replaces it.
///
/// The body is a JSON object, which is stored as it is. With `If-Match: ETAG`, the board is
/// replaced only if it still has this tag. With `If-None-Match: *`, it is stored only if there is
/// no board of this name. Otherwise the answer is 412.
#[utoipa::path(put, path = "/v1/boards/{name}", tag = "boards",
    params(("name" = String, Path, description = "letters, digits, `-` and `_`, at most 64"),
           ("If-Match" = Option<String>, Header, description = "`ETag` of the board to replace"),
           ("If-None-Match" = Option<String>, Header, description = "`*`: store only a new board")),
    request_body = Object,
    responses((status = 200, description = "replaced", body = BoardSummary, headers(("ETag" = String))),
              (status = 201, description = "created", body = BoardSummary, headers(("ETag" = String))),
              (status = 400, body = Problem), (status = 409, body = Problem),
              (status = 412, body = Problem), (status = 413, body = Problem)))]
pub(crate) async fn store(
    State(app): State<Shared>,
    Names(name): Names<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    app.check_open()?;
    check_name("board", &name, "LAN-0434")?;
    let max = app.config.boards.bytes_max;
    let body = params::body(&app, &headers, body, max).await.map_err(|problem| {
        if problem.code != params::BODY_TOO_LARGE {
            return problem;
        }
        let detail = format!("the document is larger than {max} bytes (`boards.bytes_max`)");
        Problem::new("LAN-0435", detail)
    })?;
    let conditions = Conditions::read(&headers);
    let store = move |app: &App| {
        let document = std::str::from_utf8(&body).map_err(|error| {
            Problem::new("LAN-0434", format!("the document of a board is not UTF-8: {error}"))
        })?;
        app.boards.put(&name, document, &|etag| conditions.allow_write(etag))
    };
    let (created, summary) = app.blocking(store).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, [(ETAG, summary.etag.clone())], Json(summary)).into_response())
}

/// Deletes a board.
///
/// With `If-Match: ETAG`, the board is deleted only if it still has this tag; otherwise the answer
/// is 412.
#[utoipa::path(delete, path = "/v1/boards/{name}", tag = "boards",
    params(("name" = String, Path),
           ("If-Match" = Option<String>, Header, description = "`ETag` of the board to delete")),
    responses((status = 204), (status = 404, body = Problem), (status = 412, body = Problem)))]
pub(crate) async fn delete(
    State(app): State<Shared>,
    Names(name): Names<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    app.check_open()?;
    let conditions = Conditions::read(&headers);
    let delete = move |app: &App| app.boards.delete(&name, &|etag| conditions.allow_write(etag));
    app.blocking(delete).await?;
    Ok(StatusCode::NO_CONTENT)
}
