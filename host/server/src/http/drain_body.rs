//! Reads the rest of a body after the request was answered. If the server closed the connection
//! while the client still sends, the client would not see the answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::header::EXPECT;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;

/// How long the server reads from a client after the answer.
const DRAIN: Duration = Duration::from_secs(2);

/// Sends the answer only after one of these: the body has arrived completely, its sender has
/// aborted it, or the server has read the unread rest of the body for [`DRAIN`].
pub(super) async fn drain(
    request: Request,
    next: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    if request.body().is_end_stream() {
        return next(request).await;
    }
    // A client that waits for `100 Continue` has not sent a body yet.
    let waits = request.headers().contains_key(EXPECT);
    let left: UnreadBody = Arc::default();
    let slot = Arc::clone(&left);
    let track = |body| Body::new(TrackedBody { body: Some(body), touched: false, slot });
    let response = next(request.map(track)).await;
    let left = left.lock().take();
    if let Some((mut body, touched)) = left
        && (touched || !waits)
    {
        let end = async { while let Some(Ok(_)) = body.frame().await {} };
        // The answer is sent whether the body has ended or not.
        let _ = tokio::time::timeout(DRAIN, end).await;
    }
    response
}

/// A body that was not read to its end. The flag tells whether any of it was read.
type UnreadBody = Arc<Mutex<Option<(Body, bool)>>>;

/// A body that is being read. If it is dropped before its end, its unread rest is put back into
/// `slot`.
struct TrackedBody {
    body: Option<Body>,
    touched: bool,
    slot: UnreadBody,
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.touched = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            *self.slot.lock() = Some((body, self.touched));
        }
    }
}
