//! Implements the cursor of an event stream. It combines the resume tokens of all subscriptions of
//! the stream in one text, which a client sends when it connects again.
//!
//! Subscriptions to tables of one projection usually show the same commit. The cursor contains the
//! checkpoint of this commit once for all of them, so it is shorter than their tokens together.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lantern_core::Checkpoint;
use serde::{Deserialize, Serialize};

use crate::token;

/// The version of the cursor's format. Cursors with another version are refused.
const FORMAT: u8 = 1;

/// The states that a client shows, by the `id` of the subscription.
#[derive(Debug, Default)]
pub(crate) struct Cursor(BTreeMap<u64, Position>);

/// A state from which a subscription can resume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) epoch: Arc<str>,
    pub(crate) commit: u64,
    pub(crate) at: Arc<Checkpoint>,
    /// The hash of the subscription's query.
    pub(crate) query: u64,
}

/// The subscriptions that show the same state.
#[derive(Deserialize)]
struct Group {
    epoch: String,
    commit: u64,
    at: Checkpoint,
    /// The `id` of each subscription, and the hash of its query.
    subs: Vec<(u64, u64)>,
}

#[derive(Serialize)]
struct GroupRef<'a> {
    epoch: &'a str,
    commit: u64,
    at: &'a Checkpoint,
    subs: Vec<(u64, u64)>,
}

impl Cursor {
    /// Returns the contents of a cursor that [`Cursor::encode`] has created; `None` if `text` is
    /// not a cursor of this format.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (format, groups): (u8, Vec<Group>) = postcard::from_bytes(&bytes).ok()?;
        let mut positions = BTreeMap::new();
        for Group { epoch, commit, at, subs } in groups {
            let (epoch, at) = (Arc::<str>::from(epoch), Arc::new(at));
            for (id, query) in subs {
                let (epoch, at) = (epoch.clone(), at.clone());
                positions.insert(id, Position { epoch, commit, at, query });
            }
        }
        (format == FORMAT).then_some(Self(positions))
    }

    /// Returns the text of the cursor.
    pub(crate) fn encode(&self) -> String {
        let mut groups: Vec<GroupRef<'_>> = Vec::new();
        for (id, Position { epoch, commit, at, query }) in &self.0 {
            let same = |group: &&mut GroupRef<'_>| {
                (group.epoch, group.commit, group.at) == (epoch, *commit, at)
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.subs.push((*id, *query)),
                None => {
                    groups.push(GroupRef { epoch, commit: *commit, at, subs: vec![(*id, *query)] })
                }
            }
        }
        let bytes =
            postcard::to_stdvec(&(FORMAT, groups)).expect("strings and numbers always encode");
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Notes the state that the subscription `id` shows.
    pub(crate) fn insert(&mut self, id: u64, position: Position) {
        self.0.insert(id, position);
    }

    /// Removes a subscription.
    pub(crate) fn remove(&mut self, id: u64) {
        self.0.remove(&id);
    }

    /// Removes all subscriptions for which `keep` is false.
    pub(crate) fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        self.0.retain(|id, _| keep(*id));
    }

    /// Returns the token from which the subscription `id` can resume.
    pub(crate) fn token(&self, id: u64) -> Option<String> {
        let Position { epoch, commit, at, query } = self.0.get(&id)?;
        Some(token::encode((epoch, *commit), at, *query))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(epoch: &str, commit: u64, query: u64) -> Position {
        let at = Arc::new(Checkpoint::new([Default::default(), Default::default()]));
        Position { epoch: epoch.into(), commit, at, query }
    }

    #[test]
    fn a_cursor_comes_back_with_the_token_of_each_subscription() {
        let mut cursor = Cursor::default();
        assert!(Cursor::decode(&cursor.encode()).unwrap().0.is_empty());
        cursor.insert(1, position("e", 7, 11));
        cursor.insert(3, position("e", 7, 13));
        cursor.insert(u64::MAX, position("e", 8, 11));
        let read = Cursor::decode(&cursor.encode()).unwrap();
        assert_eq!(read.0, cursor.0);
        let at = &cursor.0[&3].at;
        assert_eq!(read.token(3), Some(token::encode(("e", 7), at, 13)));
        assert_eq!(read.token(2), None);
    }

    #[test]
    fn subscriptions_of_one_commit_share_its_checkpoint() {
        let size = |commits: u64| {
            let mut cursor = Cursor::default();
            (0..10).for_each(|id| cursor.insert(id, position("epoch", id % commits, u64::MAX)));
            cursor.encode().len()
        };
        // An `id` and the hash of a query have at most 11 bytes, which are 15 characters.
        assert!(size(1) < 10 * 16 + size(2) - size(1), "{} and {}", size(1), size(2));
    }

    #[test]
    fn a_damaged_cursor_is_refused() {
        let mut cursor = Cursor::default();
        cursor.insert(1, position("e", 7, 11));
        let text = cursor.encode();
        for wrong in ["", "no cursor!", &text[1..], &text[..text.len() - 2]] {
            assert!(Cursor::decode(wrong).is_none(), "{wrong}");
        }
        let token = token::encode(("e", 7), &Checkpoint::default(), 11);
        assert!(Cursor::decode(&token).is_none());
    }
}
