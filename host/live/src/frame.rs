//! Builds the frames of a subscription. A frame consists of a short header and of bytes that all
//! subscribers share.

use std::fmt::Write as _;

use bytes::Bytes;
use lantern_api::feed::Lag;
use lantern_core::Checkpoint;

use crate::token;

/// A frame to be written. All subscribers of a topic share the body. The head and the tail are
/// written for each subscriber.
pub(crate) struct Frame {
    pub(crate) head: String,
    pub(crate) body: Bytes,
    pub(crate) tail: String,
    /// Whether this is a data frame, which counts towards the acknowledgement window.
    pub(crate) data: bool,
    /// Whether this frame completes a snapshot or a delta, so that the client then shows another
    /// commit.
    pub(crate) moved: bool,
    /// The kind of the frame, for metrics.
    pub(crate) kind: &'static str,
}

/// The state that a client has reached after the last part of a snapshot or delta, or after a tick.
pub(crate) struct FrameState<'a> {
    pub(crate) epoch: &'a str,
    pub(crate) commit: u64,
    pub(crate) at: &'a Checkpoint,
    /// The hash of the subscription's query, which the token contains.
    pub(crate) query: u64,
}

impl FrameState<'_> {
    /// Appends the offsets, and the token with which the client can resume, to `text`.
    fn push(&self, text: &mut String) {
        text.push_str(",\"offsets\":{");
        for (partition, next) in self.at.offsets().enumerate() {
            let comma = if partition == 0 { "" } else { "," };
            let _ = write!(text, "{comma}\"{partition}\":{next}");
        }
        text.push_str("},\"tok\":\"");
        text.push_str(&token::encode((self.epoch, self.commit), self.at, self.query));
        text.push('"');
    }
}

impl Frame {
    /// Creates a control frame, which contains no rows.
    pub(crate) fn control(text: String) -> Self {
        let (body, tail) = (Bytes::new(), String::new());
        Self { head: text, body, tail, data: false, moved: false, kind: "control" }
    }

    /// Creates a frame with a part of a snapshot. Only the last part has a `state`.
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

    /// Creates a frame with a part of a delta. Only the last part has a `state`, and only this part
    /// tells whether the delta merges several commits.
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

    /// Creates a tick, which reports a new commit that changed no row.
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
