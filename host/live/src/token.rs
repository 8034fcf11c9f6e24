//! Implements the resume token. It contains the point that a subscription had reached; clients
//! cannot read it. It grants no access: a client with a token is checked like any other client.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lantern_core::Checkpoint;
use serde::{Deserialize, Serialize};

/// The version of the token's format. Tokens with another version are refused.
const FORMAT: u8 = 3;

/// The contents of a token: the point that a subscription had reached.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Token {
    format: u8,
    pub(crate) epoch: String,
    /// The number of the commit that the client has. It cannot be derived from `at`. After a crash,
    /// the events of lost commits are committed again, and these new commits can have other numbers
    /// and other boundaries.
    pub(crate) commit: u64,
    pub(crate) at: Checkpoint,
    /// The hash ([`crate::query::Query::token_hash`]) of the query of the subscription.
    pub(crate) query: u64,
}

#[derive(Serialize)]
struct TokenRef<'a> {
    format: u8,
    epoch: &'a str,
    commit: u64,
    at: &'a Checkpoint,
    query: u64,
}

/// Creates the token for a commit and the checkpoint that belongs to it.
pub(crate) fn encode((epoch, commit): (&str, u64), at: &Checkpoint, query: u64) -> String {
    let bytes = postcard::to_stdvec(&TokenRef { format: FORMAT, epoch, commit, at, query })
        .expect("strings and numbers always encode");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Returns the contents of a token that [`encode`] has created; `None` if `token` is not a token of
/// this format.
pub(crate) fn decode(token: &str) -> Option<Token> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    postcard::from_bytes(&bytes).ok().filter(|token: &Token| token.format == FORMAT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_and_a_damaged_one_does_not() {
        let at = Checkpoint::new([Default::default(), Default::default()]);
        let text = encode(("3.abc.0", 7), &at, 42);
        let token = decode(&text).unwrap();
        assert_eq!((token.epoch.as_str(), token.commit), ("3.abc.0", 7));
        assert_eq!((&token.at, token.query), (&at, 42));
        assert_eq!(decode(&text[1..]), None);
        assert_eq!(decode("no token!"), None);
        assert_eq!(decode(""), None);
    }
}
