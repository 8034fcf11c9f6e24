//! Named queries.

use std::io::Write;

use lantern_api::{NamedQueries, NamedQuery, QueryDefinition, QueryPage, TablePage};
use reqwest::Method;

use super::transport::{Body, JSON, Path, escaped};
use super::{Answer, Api, ApiError, flattened};

/// The answer of a named query.
pub(crate) enum QueryAnswer {
    /// Rows in key order.
    ByKey(TablePage),
    /// Rows in the order of a field, or groups.
    InOrder(QueryPage),
}

impl Api {
    /// All named queries.
    pub(crate) async fn queries(&self) -> Answer<Vec<NamedQuery>> {
        let list: NamedQueries = self.get(&Path::new("/v1/queries")).await?;
        Ok(list.queries)
    }

    /// Stores a named query.
    pub(crate) async fn save_query(&self, name: &str, definition: Vec<u8>) -> Answer<NamedQuery> {
        let length = definition.len() as u64;
        let body = Body { media: JSON.into(), length, content: definition.into() };
        self.send(Method::PUT, &query(name, "").0, Some(body)).await?.json().await
    }

    /// The definition of a named query.
    pub(crate) async fn query_definition(&self, name: &str) -> Answer<QueryDefinition> {
        self.get(&query(name, "/definition")).await
    }

    /// Deletes a named query.
    pub(crate) async fn delete_query(&self, name: &str) -> Answer<()> {
        self.send(Method::DELETE, &query(name, "").0, None).await.map(drop)
    }

    /// Runs a named query.
    pub(crate) async fn run_query(
        &self,
        name: &str,
        parameters: &[(String, String)],
    ) -> Answer<QueryAnswer> {
        let path = with(query(name, ""), parameters);
        let text = self.send(Method::GET, &path.0, None).await?.text().await?;
        if let Ok(page) = serde_json::from_str::<QueryPage>(&text) {
            return Ok(QueryAnswer::InOrder(page));
        }
        let page = serde_json::from_str(&text).map_err(|e| ApiError::Answer(e.to_string()))?;
        Ok(QueryAnswer::ByKey(flattened(page)))
    }

    /// Writes the answer of a named query to `target`.
    pub(crate) async fn export_query(
        &self,
        name: &str,
        parameters: &[(String, String)],
        target: &mut dyn Write,
    ) -> Answer<()> {
        let path = with(query(name, ""), parameters);
        self.send(Method::GET, &path.0, None).await?.write_to(target).await
    }
}

fn query(name: &str, rest: &str) -> Path {
    Path::new(&format!("/v1/queries/{}{rest}", escaped(name)))
}

fn with(mut path: Path, parameters: &[(String, String)]) -> Path {
    for (name, value) in parameters {
        path.add(&escaped(name), value);
    }
    path
}
