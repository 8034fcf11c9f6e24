//! `/v1/queries`: named queries, which are stored in the catalogue.

mod binding;
mod definition;

#[cfg(test)]
pub(crate) use self::definition::check as check_definition;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri, Version};
use lantern_api::{NamedQueries, NamedQuery, QueryDefinition};
use lantern_core::Views as _;

pub(super) use self::definition::check_name;

use self::binding::{RunParameters, bind};
use super::conditional::Conditions;
use super::params::{Names, SmallBody};
use super::tables::{self, TableAnswer, TableQuery};
use super::{App, Shared};
use crate::problem::Problem;

/// The kind of the documents.
const KIND: &str = "query";
/// The code of an error in a definition.
const DEFINITION: &str = "LAN-0431";

/// Lists all named queries with their parameters.
#[utoipa::path(get, path = "/v1/queries", tag = "queries",
    responses((status = 200, body = NamedQueries)))]
pub(crate) async fn list(State(app): State<Shared>) -> Result<Json<NamedQueries>, Problem> {
    let list = |app: &App| {
        let stored = app.documents.documents(KIND)?;
        let queries = stored.into_iter().filter_map(|(name, text)| {
            Some(NamedQuery::new(name, serde_json::from_str(&text).ok()?))
        });
        Ok(NamedQueries { queries: queries.collect() })
    };
    app.blocking(list).await.map(Json)
}

/// Stores a named query, or replaces it.
///
/// The query is checked against its table. So the table's projection must have an active version.
#[utoipa::path(put, path = "/v1/queries/{name}", tag = "queries",
    params(("name" = String, Path, description = "letters, digits, `-` and `_`, at most 64")),
    request_body = QueryDefinition,
    responses((status = 200, description = "replaced", body = NamedQuery),
              (status = 201, description = "created", body = NamedQuery),
              (status = 400, body = Problem), (status = 404, body = Problem),
              (status = 409, body = Problem)))]
pub(crate) async fn define(
    State(app): State<Shared>,
    Names(name): Names<String>,
    SmallBody(body): SmallBody,
) -> Result<(StatusCode, Json<NamedQuery>), Problem> {
    app.check_open()?;
    check_name("query", &name, DEFINITION)?;
    let query = definition::read(&body)?;
    let save = move |app: &App| {
        definition::check(&query)?;
        check_table(app, &query)?;
        let known = app.documents.documents(KIND)?;
        let max = app.config.query.named_max;
        if known.len() >= max && !known.iter().any(|(known, _)| *known == name) {
            let detail = format!(
                "there are {} named queries: the limit is {max} (`query.named_max`)",
                known.len()
            );
            return Err(Problem::new(DEFINITION, detail));
        }
        let text = serde_json::to_string(&query).expect("a definition always encodes");
        let replaced = app.documents.save_document(KIND, &name, &text)?;
        let status = if replaced { StatusCode::OK } else { StatusCode::CREATED };
        Ok((status, Json(NamedQuery::new(name, query))))
    };
    app.blocking(save).await
}

/// Checks a definition against the table of the active version, with a value for each
/// parameter.
fn check_table(app: &App, query: &QueryDefinition) -> Result<(), Problem> {
    let (projection, table) = definition::table_of(query)?;
    let view = app.engine.view(projection)?;
    for given in definition::samples(query) {
        let (_, request) = TableQuery::of_body(bind(query, &given)?)?;
        tables::check_query(&view, table, &request)?;
    }
    Ok(())
}

/// Shows the definition of a named query.
#[utoipa::path(get, path = "/v1/queries/{name}/definition", tag = "queries",
    params(("name" = String, Path)),
    responses((status = 200, body = QueryDefinition), (status = 404, body = Problem)))]
pub(crate) async fn show(
    State(app): State<Shared>,
    Names(name): Names<String>,
) -> Result<Json<QueryDefinition>, Problem> {
    app.blocking(move |app| find(app, &name)).await.map(Json)
}

/// Deletes a named query.
#[utoipa::path(delete, path = "/v1/queries/{name}", tag = "queries",
    params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn delete(
    State(app): State<Shared>,
    Names(name): Names<String>,
) -> Result<StatusCode, Problem> {
    app.check_open()?;
    let delete = move |app: &App| {
        if app.documents.delete_document(KIND, &name)? { Ok(()) } else { Err(missing(&name)) }
    };
    app.blocking(delete).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Runs a named query.
///
/// Takes the parameters that the query defines. The answer has the same formats and members as a
/// read of the query's table.
#[utoipa::path(get, path = "/v1/queries/{name}", tag = "queries",
    params(("name" = String, Path), RunParameters),
    responses((status = 200, body = TableAnswer),
              (status = 304, description = "the table has not changed since `If-None-Match`"),
              (status = 400, body = Problem), (status = 404, body = Problem),
              (status = 409, body = Problem), (status = 410, body = Problem),
              (status = 412, body = Problem), (status = 422, body = Problem),
              (status = 503, body = Problem)))]
pub(crate) async fn run(
    State(app): State<Shared>,
    Names(name): Names<String>,
    version: Version,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let find = move |app: &App| find(app, &name);
    let query = app.blocking(find).await?;
    let (run, given) = RunParameters::read(&uri)?;
    let (which, request) = TableQuery::of_body(bind(&query, &given)?)?;
    let which = run.apply(which)?;
    which.check_version(version)?;
    let (projection, table) = definition::table_of(&query)?;
    let names = (projection.to_owned(), table.to_owned());
    let conditions = Some(Conditions::read(&headers));
    tables::answer_query(Arc::clone(&app), names, which, request, &headers, conditions).await
}

fn find(app: &App, name: &str) -> Result<QueryDefinition, Problem> {
    let text = app.documents.document(KIND, name)?.ok_or_else(|| missing(name))?;
    serde_json::from_str(&text).map_err(|error| {
        let detail = format!("the stored definition of `{name}` cannot be read: {error}");
        Problem::new(DEFINITION, detail).help("store it again, or delete it")
    })
}

fn missing(name: &str) -> Problem {
    Problem::new("LAN-0430", format!("there is no named query `{name}`"))
}
