//! Boards of the dashboard.

use lantern_api::{BoardList, BoardSummary};
use reqwest::Method;

use super::transport::{Body, JSON, Path, escaped};
use super::{Answer, Api};

impl Api {
    /// Stores a board unless there is one of this name. Returns whether it was stored.
    pub(crate) async fn add_board(&self, name: &str, document: &'static str) -> Answer<bool> {
        let list: BoardList = self.get(&Path::new("/v1/boards")).await?;
        if list.boards.iter().any(|board| board.name == name) {
            return Ok(false);
        }
        let length = document.len() as u64;
        let body = Body { media: JSON.into(), length, content: document.into() };
        let path = format!("/v1/boards/{}", escaped(name));
        let _: BoardSummary = self.send(Method::PUT, &path, Some(body)).await?.json().await?;
        Ok(true)
    }
}
