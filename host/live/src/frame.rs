//! The frames of a subscription: a short header around bytes that all
//! subscribers share.

use std::fmt::Write as _;

use bytes::Bytes;
use lantern_api::feed::Lag;
use lantern_core::Checkpoint;

use crate::token;

/// A frame to be written: the body is shared, head and tail are not.
pub(crate) struct Frame {
    pub(crate) head: String,
    pub(crate) body: Bytes,
    pub(crate) tail: String,
    /// Counts against the window.
    pub(crate) data: bool,
    /// The client shows a new commit with it.
    pub(crate) moved: bool,
    /// For the metrics.
    pub(crate) kind: &'static str,
}

/// The state that a client shows after the last part of a frame.
pub(crate) struct FrameState<'a> {
    pub(crate) epoch: &'a str,
    pub(crate) at: &'a Checkpoint,
    /// The hash of the query, for the token.
    pub(crate) query: u64,
}

impl FrameState<'_> {
    /// Writes the offsets, and the token to resume from.
    fn push(&self, text: &mut String) {
        text.push_str(",\"offsets\":{");
        for (partition, next) in self.at.offsets().enumerate() {
            let comma = if partition == 0 { "" } else { "," };
            let _ = write!(text, "{comma}\"{partition}\":{next}");
        }
        text.push_str("},\"tok\":\"");
        text.push_str(&token::encode(self.epoch, self.at, self.query));
        text.push('"');
    }
}

impl Frame {
    /// A message without rows.
    pub(crate) fn control(text: String) -> Self {
        let (body, tail) = (Bytes::new(), String::new());
        Self { head: text, body, tail, data: false, moved: false, kind: "control" }
    }

    /// A part of a snapshot; the last one has its `state`.
    pub(crate) fn snapshot(
        ch: u64,
        (epoch, commit): (&str, u64),
        rows: Bytes,
        state: Option<FrameState<'_>>,
    ) -> Self {
        let epoch = serde_json::to_string(epoch).expect("a string always encodes");
        let head =
            format!("{{\"t\":\"snap\",\"ch\":{ch},\"epoch\":{epoch},\"commit\":{commit},\"rows\":");
        let last = state.is_some();
        let mut tail = format!(",\"more\":{}", !last);
        if let Some(state) = state {
            state.push(&mut tail);
        }
        tail.push('}');
        Self { head, body: rows, tail, data: true, moved: last, kind: "snap" }
    }

    /// A part of a delta; the last one has its `state` and whether it is `merged`.
    pub(crate) fn delta(
        ch: u64,
        (from, to): (u64, u64),
        changes: Bytes,
        last: Option<(FrameState<'_>, bool)>,
    ) -> Self {
        let head = format!("{{\"t\":\"delta\",\"ch\":{ch},\"from\":{from},\"to\":{to},");
        let moved = last.is_some();
        let mut tail = String::new();
        if let Some((state, merged)) = last {
            if merged {
                tail.push_str(",\"merged\":true");
            }
            state.push(&mut tail);
        } else {
            tail.push_str(",\"more\":true");
        }
        tail.push('}');
        Self { head, body: changes, tail, data: true, moved, kind: "delta" }
    }

    /// The commit moves, and no row changes.
    pub(crate) fn tick(
        ch: u64,
        (from, to): (u64, u64),
        lag: Option<Lag>,
        state: FrameState<'_>,
    ) -> Self {
        let mut head = format!("{{\"t\":\"tick\",\"ch\":{ch},\"from\":{from},\"to\":{to}");
        if let Some(lag) = lag {
            let _ = write!(head, ",\"lag\":{{\"events\":{},\"ms\":{}}}", lag.events, lag.ms);
        }
        state.push(&mut head);
        head.push('}');
        let (body, tail) = (Bytes::new(), String::new());
        Self { head, body, tail, data: true, moved: false, kind: "tick" }
    }
}
