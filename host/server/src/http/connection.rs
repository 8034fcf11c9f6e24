//! Carries the bytes of one HTTP connection, between its socket and hyper.
//!
//! This module does two things that hyper cannot do. If hyper refuses a request that it cannot
//! parse, the module replaces hyper's answer by a problem with a code. It also enforces separate
//! time limits for the headers of a request and for the idle time between two requests.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::problem::{PROBLEM, Problem};

/// How long the server reads from a client after it has refused a request. If the server closed the
/// connection while the client still sends, the client would not see the answer.
const DRAIN: Duration = Duration::from_secs(2);
/// The maximum size of the head of hyper's own answers, whose heads are smaller.
const OWN_HEAD_BYTES_MAX: usize = 1_024;

/// The time limits of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionTimeouts {
    /// The time limit for receiving the headers of a request. It begins with the first byte of the
    /// headers or, for the first request of a connection, when the connection is opened.
    pub(super) headers: Duration,
    /// The time limit for waiting for the next request.
    pub(super) idle: Duration,
}

/// The progress of the current request. The code that answers requests sets it, and the code that
/// writes to the socket reads it.
#[derive(Debug, Default)]
pub(super) struct RequestProgress(AtomicU8);

/// No request was read completely. A response that hyper writes in this state is its own refusal of
/// a request.
const AWAITING: u8 = 0;
/// A request is being answered.
const ANSWERING: u8 = 1;
/// The complete answer was passed to hyper, which writes it.
const ANSWERED: u8 = 2;
/// The connection was upgraded and is no longer used for HTTP.
const UPGRADED: u8 = 3;

impl RequestProgress {
    /// Notes that a request was read.
    pub(super) fn begin(&self) {
        self.0.store(ANSWERING, Ordering::Relaxed);
    }

    /// Notes the end of `response` when its body ends.
    pub(super) fn follow(self: &Arc<Self>, response: Response) -> http::Response<AnswerBody> {
        if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            self.0.store(UPGRADED, Ordering::Relaxed);
        }
        let progress = Arc::clone(self);
        response.map(|body| AnswerBody { body, progress })
    }
}

/// The body of an answer. It reports its end.
#[derive(Debug)]
pub(super) struct AnswerBody {
    body: Body,
    progress: Arc<RequestProgress>,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        let (from, to) = (ANSWERING, ANSWERED);
        // After an upgrade, the progress does not change any more.
        let _ = self.progress.0.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The socket of a connection. It adds a code to hyper's refusals, and enforces separate time
/// limits for the headers of a request and for the idle time.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    progress: Arc<RequestProgress>,
    timeouts: ConnectionTimeouts,
    timer: Pin<Box<Sleep>>,
    /// Whether a part of the head of a request has arrived, but not all of it.
    started: bool,
    /// The head of an answer that hyper writes by itself.
    own_head: Vec<u8>,
    refusal: Option<FinalAnswer>,
}

/// The last answer on a connection.
#[derive(Debug)]
struct FinalAnswer {
    bytes: Vec<u8>,
    written: usize,
    /// Whether the server has closed its side of the connection, so that the client knows that
    /// nothing follows.
    closed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(
        stream: S,
        progress: Arc<RequestProgress>,
        timeouts: ConnectionTimeouts,
    ) -> Self {
        Self {
            stream,
            progress,
            timeouts,
            timer: Box::pin(tokio::time::sleep(timeouts.headers)),
            started: false,
            own_head: Vec::new(),
            refusal: None,
        }
    }

    fn state(&self) -> u8 {
        self.progress.0.load(Ordering::Relaxed)
    }

    /// Starts a time limit. The task is woken when the time has passed.
    fn arm(&mut self, time: Duration, cx: &mut Context<'_>) {
        self.timer.as_mut().reset(Instant::now() + time);
        let _ = self.timer.as_mut().poll(cx);
    }

    /// Keeps back the bytes of hyper's own answer. A problem is sent in their place.
    fn withhold<'a>(&mut self, slices: impl Iterator<Item = &'a [u8]>) -> usize {
        let mut bytes = 0;
        for slice in slices {
            let room = OWN_HEAD_BYTES_MAX.saturating_sub(self.own_head.len());
            self.own_head.extend_from_slice(&slice[..slice.len().min(room)]);
            bytes += slice.len();
        }
        bytes
    }

    fn refuse(&mut self, problem: &Problem) {
        metrics::counter!(
            "lantern_http_requests_total",
            "route" => "other", "method" => "other", "status" => problem.status.to_string()
        )
        .increment(1);
        self.refusal = Some(FinalAnswer { bytes: answer(problem), written: 0, closed: false });
    }

    /// Sends the refusal, closes the server's side of the connection, and reads what the client
    /// still sends.
    fn poll_refuse(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(refusal) = &mut self.refusal else { return Poll::Ready(Ok(())) };
        if !refusal.closed {
            while refusal.written < refusal.bytes.len() {
                let rest = &refusal.bytes[refusal.written..];
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                refusal.written += written;
            }
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            refusal.closed = true;
            self.arm(DRAIN, cx);
        }
        let mut room = [0; 4_096];
        loop {
            let mut buf = ReadBuf::new(&mut room);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() && !self.timer.is_elapsed() => (),
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return self.timer.as_mut().poll(cx).map(Ok),
            }
        }
    }
}

/// Returns the bytes of an answer with `problem`, after which the connection is closed.
fn answer(problem: &Problem) -> Vec<u8> {
    let status = http::StatusCode::from_u16(problem.status).unwrap_or_default();
    let reason = status.canonical_reason().unwrap_or_default();
    let body = problem.json();
    let date = jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&jiff::Timestamp::now())
        .unwrap_or_default();
    let mut bytes = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: {PROBLEM}\r\ncontent-length: {}\r\n\
         cache-control: no-store\r\nvary: Origin\r\nconnection: close\r\ndate: {date}\r\n\r\n",
        status.as_u16(),
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(&body);
    bytes
}

/// Returns the problem to send if hyper has refused a request. `head` is the head of hyper's
/// answer.
fn own_refusal(head: &[u8]) -> Problem {
    match head.get(9..12) {
        Some(b"431" | b"414") => {
            Problem::new("LAN-0416", "the request's first line and headers are too large")
        }
        _ => Problem::new("LAN-0415", "the request's first line or a header cannot be read"),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.refusal.is_some() {
            // hyper reads the end of the input after the refusal.
            return this.poll_refuse(cx);
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if this.state() != AWAITING {
            return read;
        }
        match read {
            Poll::Ready(Ok(())) if !this.started && buf.filled().len() > before => {
                this.started = true;
                this.arm(this.timeouts.headers, cx);
                Poll::Ready(Ok(()))
            }
            Poll::Pending if this.timer.as_mut().poll(cx).is_ready() => {
                if !this.started {
                    return Poll::Ready(Ok(()));
                }
                let time = this.timeouts.headers.as_secs_f64();
                let detail = format!("the request's headers took longer than {time} s");
                this.refuse(&Problem::new("LAN-0417", detail));
                this.poll_refuse(cx)
            }
            read => read,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.state() == AWAITING {
            return Poll::Ready(Ok(self.withhold(std::iter::once(bytes))));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.state() == AWAITING {
            return Poll::Ready(Ok(self.withhold(slices.iter().map(|slice| &**slice))));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        if this.state() == ANSWERED {
            this.progress.0.store(AWAITING, Ordering::Relaxed);
            this.started = false;
            this.arm(this.timeouts.idle, cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.refusal.is_none() && !this.own_head.is_empty() {
            this.refuse(&own_refusal(&this.own_head));
        }
        if this.refusal.is_some() {
            return this.poll_refuse(cx);
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
