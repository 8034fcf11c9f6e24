//! Stores boards, which are JSON documents of dashboards, in the catalogue. A document is returned
//! byte for byte as it was sent.

use std::sync::Arc;

use lantern_api::BoardSummary;
use lantern_core::{Documents, StoreError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::clock::now;
use crate::config::BoardsConfig;
use crate::problem::Problem;

/// The kind of the documents in the catalogue.
const KIND: &str = "board";
/// The most characters of a title in a list.
const TITLE_CHARS_MAX: usize = 200;
/// The bytes of a document's hash in its tag.
const TAG_BYTES: usize = 16;

/// Whether a request may replace or delete the board with this tag; `None` means that there is no
/// such board.
type MayWrite<'a> = &'a dyn Fn(Option<&str>) -> bool;

/// The boards of the server.
pub(crate) struct Boards {
    documents: Arc<dyn Documents>,
    config: BoardsConfig,
    /// The lock for writes. A write holds it from the check of its conditions to its end. Only this
    /// process has the catalogue open, so this is sufficient.
    writing: Mutex<()>,
}

/// A board with its document.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) summary: BoardSummary,
    /// The document, as it was sent.
    pub(crate) document: String,
}

/// What is stored before a document, on a line of its own.
#[derive(Serialize, Deserialize)]
struct Header {
    changed_us: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    /// The document's hash, as text.
    hash: String,
}

impl Header {
    fn summary(self, name: &str, document: &str) -> BoardSummary {
        BoardSummary {
            name: name.to_owned(),
            title: self.title,
            changed_us: self.changed_us,
            bytes: document.len() as u64,
            etag: format!("\"{}\"", self.hash),
        }
    }
}

impl Boards {
    /// Boards in `documents`, within the limits of `config`.
    pub(crate) fn new(documents: Arc<dyn Documents>, config: BoardsConfig) -> Self {
        Self { documents, config, writing: Mutex::default() }
    }

    /// All boards, by name.
    pub(crate) fn list(&self) -> Result<Vec<BoardSummary>, Problem> {
        let mut boards = Vec::new();
        self.documents.visit_documents(KIND, &mut |name, stored| match separate(stored) {
            Some((header, document)) => boards.push(header.summary(name, document)),
            None => tracing::warn!(board = name, "a stored board cannot be read"),
        })?;
        Ok(boards)
    }

    /// The board `name`.
    pub(crate) fn get(&self, name: &str) -> Result<Board, Problem> {
        self.find(name)?.ok_or_else(|| missing(name))
    }

    /// Stores `document` as the board `name` if `may_write` allows it. Returns whether the board
    /// is new.
    pub(crate) fn put(
        &self,
        name: &str,
        document: &str,
        may_write: MayWrite<'_>,
    ) -> Result<(bool, BoardSummary), Problem> {
        let header = describe(document)?;
        let encoded = serde_json::to_string(&header).expect("a header always encodes");
        let _writing = self.writing.lock();
        let current = self.find(name);
        // If the stored board cannot be read, a request may replace it, unless the request names a
        // tag.
        let current = match current {
            Err(_) if may_write(None) => None,
            current => current?,
        };
        check(name, current.as_ref(), may_write)?;
        if current.is_none() {
            self.check_count()?;
        }
        let replaced =
            self.documents.save_document(KIND, name, &format!("{encoded}\n{document}"))?;
        Ok((!replaced, header.summary(name, document)))
    }

    /// Deletes the board `name` if `may_write` allows it.
    pub(crate) fn delete(&self, name: &str, may_write: MayWrite<'_>) -> Result<(), Problem> {
        let _writing = self.writing.lock();
        // Without conditions, a board that cannot be read can be deleted.
        if !may_write(None) {
            let current = self.find(name)?.ok_or_else(|| missing(name))?;
            check(name, Some(&current), may_write)?;
        }
        if self.documents.delete_document(KIND, name)? { Ok(()) } else { Err(missing(name)) }
    }

    fn find(&self, name: &str) -> Result<Option<Board>, Problem> {
        let Some(stored) = self.documents.document(KIND, name)? else { return Ok(None) };
        let Some((header, document)) = separate(&stored) else {
            return Err(StoreError::Damaged(format!("the board `{name}` cannot be read")).into());
        };
        let summary = header.summary(name, document);
        let document = document.to_owned();
        Ok(Some(Board { summary, document }))
    }

    fn check_count(&self) -> Result<(), Problem> {
        let mut count = 0;
        self.documents.visit_documents(KIND, &mut |_, _| count += 1)?;
        let max = self.config.count_max;
        if count < max {
            return Ok(());
        }
        let detail = format!("there are {count} boards: the limit is {max} (`boards.count_max`)");
        Err(Problem::new("LAN-0436", detail))
    }
}

fn separate(stored: &str) -> Option<(Header, &str)> {
    let (header, document) = stored.split_once('\n')?;
    Some((serde_json::from_str(header).ok()?, document))
}

/// Checks that `document` is a JSON object, and describes it.
fn describe(document: &str) -> Result<Header, Problem> {
    let members: Map<String, Value> = serde_json::from_str(document).map_err(|error| {
        Problem::new("LAN-0434", format!("the document of a board must be a JSON object: {error}"))
    })?;
    let title = members.get("title").and_then(Value::as_str);
    let hash = Sha256::digest(document);
    Ok(Header {
        changed_us: now().0,
        title: title.map(|title| title.chars().take(TITLE_CHARS_MAX).collect()),
        hash: hex::encode(&hash[..TAG_BYTES]),
    })
}

fn check(name: &str, current: Option<&Board>, may_write: MayWrite<'_>) -> Result<(), Problem> {
    let etag = current.map(|board| board.summary.etag.as_str());
    if may_write(etag) {
        return Ok(());
    }
    let (state, etag) = match etag {
        Some(etag) => (format!("it is stored with the tag `{etag}`"), Value::from(etag)),
        None => ("it is not stored".into(), Value::Null),
    };
    let detail =
        format!("the board `{name}` is not in the state that the request expects: {state}");
    Err(Problem::new("LAN-0437", detail).with("etag", etag))
}

fn missing(name: &str) -> Problem {
    let name: String = name.chars().take(128).collect();
    Problem::new("LAN-0433", format!("there is no board `{name}`"))
}
