//! Appends the events of an NDJSON stream of any length. It reads lines as the body arrives, and
//! appends them in groups. It reads the body only as fast as the log accepts the events.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use lantern_api::{AppendResult, EventRejection};
use lantern_core::{Appended, Events, LogError};
use lantern_traces::{IngestTrace, RequestTrace};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::append_result::{AppendQuery, INLINE_BYTES_MAX, count, json_of};
use super::content_encoding::broken;
use super::{Shared, export_attributes, now};
use crate::cloudevents::{EventError, LineError, Reader};
use crate::problem::Problem;

/// The number of bytes of white space that a line may have in addition to its event.
const LINE_SLACK_BYTES: usize = 1_024;

/// Appends the events in the lines of `body`.
pub(super) async fn append(
    app: &Shared,
    body: Body,
    query: AppendQuery,
    trace: Option<RequestTrace>,
) -> Result<AppendResult, Problem> {
    let AppendQuery { partial, exact } = query;
    let mut stream = Stream {
        app,
        partial,
        exact,
        trace,
        result: AppendResult { lines: Some(0), ..AppendResult::default() },
        line: 1,
        waiting: VecDeque::new(),
    };
    let mut body = Some(body);
    let read = stream.read(&mut body).await;
    // If the stream stops early, the answer must also include the groups in progress.
    let settled = stream.wait_for_groups(0).await;
    let Err(problem) = read.and(settled) else { return Ok(stream.result) };
    let result = json_of(&stream.result);
    let members = result.as_object().into_iter().flatten();
    Err(members.fold(problem, |problem, (name, value)| match name.as_str() {
        "errors" if problem.more.contains_key("errors") => problem,
        _ => problem.with(name, value.clone()),
    }))
}

struct Stream<'a> {
    app: &'a Shared,
    partial: bool,
    /// Whether the events were exported from another log.
    exact: bool,
    /// The trace of the request; `None` if no traces are recorded.
    trace: Option<RequestTrace>,
    result: AppendResult,
    /// The number of the next line.
    line: u64,
    /// The groups in progress, in order.
    waiting: VecDeque<Group>,
}

/// A group of lines that is being appended.
struct Group {
    done: oneshot::Receiver<Result<Appended, LogError>>,
    /// The number of the last line in the group.
    last: u64,
    bad: Vec<LineError>,
    trace: Option<IngestTrace>,
}

impl Stream<'_> {
    /// Reads the body up to its end or the first error. `body` becomes `None` when it has ended.
    async fn read(&mut self, body: &mut Option<Body>) -> Result<(), Problem> {
        let ingest = &self.app.config.ingest;
        let line_max = ingest.limits().written_bytes_max() + LINE_SLACK_BYTES;
        let mut held = BytesMut::new();
        // The number of bytes of complete lines in `held`.
        let mut whole = 0;
        while let Some(open) = body {
            let full = whole >= ingest.group_bytes;
            match if full { None } else { self.frame(open, whole > 0).await? } {
                Some(Frame::Data(data)) => {
                    if let Some(at) = data.iter().rposition(|&b| b == b'\n') {
                        whole = held.len() + at + 1;
                    }
                    held.extend_from_slice(&data);
                    if held.len() - whole > line_max {
                        return Err(self.endless_line(&held, line_max));
                    }
                }
                Some(Frame::End) => {
                    *body = None;
                    while !held.is_empty() {
                        let end = cut(&held, ingest.group_bytes);
                        self.group(held.split_to(end).freeze()).await?;
                    }
                }
                None => {
                    let end = cut(&held[..whole], ingest.group_bytes);
                    self.group(held.split_to(end).freeze()).await?;
                    whole -= end;
                }
            }
        }
        Ok(())
    }

    /// Returns the next piece of the body. `lines_wait` tells whether complete lines wait to be
    /// appended. If they do, and no piece arrives within the linger time, the result is `None`.
    async fn frame(&self, body: &mut Body, lines_wait: bool) -> Result<Option<Frame>, Problem> {
        let config = &self.app.config;
        let next = async {
            loop {
                match body.frame().await {
                    None => return Ok(Frame::End),
                    Some(Err(error)) => {
                        return Err(broken(error, &format!(" after line {}", self.line - 1)));
                    }
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            return Ok(Frame::Data(data));
                        }
                    }
                }
            }
        };
        if lines_wait {
            let linger = Duration::from_millis(config.ingest.linger_ms);
            return timeout(linger, next).await.ok().transpose();
        }
        let idle = Duration::from_millis(config.http.body_idle_ms_max);
        tokio::select! {
            read = timeout(idle, next) => match read {
                Ok(frame) => frame.map(Some),
                Err(_) => {
                    let detail = format!("the body paused for more than {} s", idle.as_secs());
                    Err(Problem::new("LAN-0408", detail))
                }
            },
            () = self.app.tasks.stopping.cancelled() => {
                Err(Problem::new("LAN-0215", "the server is shutting down"))
            }
        }
    }

    /// Parses a group of complete lines and passes it to the log.
    async fn group(&mut self, block: Bytes) -> Result<(), Problem> {
        self.app.check_open()?;
        let began = self.app.traces.as_ref().zip(self.trace);
        let request = began.map(|(traces, trace)| trace.from_now(traces));
        let (mut limits, first) = (self.app.config.ingest.limits(), self.line);
        let (partial, exact) = (self.partial, self.exact);
        if exact {
            // The times are not checked again, because the exporting log has accepted them.
            limits.time_ahead_s_max = u64::MAX;
        }
        let small = block.len() <= INLINE_BYTES_MAX;
        let read = move || {
            let (mut events, mut bad) = (Events::new(), Vec::new());
            let mut reader = Reader::new(limits, now());
            reader.set_host_events(exact);
            let lines = reader.lines(&block, first, &mut events, |error| {
                bad.push(error);
                partial
            });
            (events, bad, lines)
        };
        let (events, bad, lines) =
            if small { read() } else { self.app.blocking(move |_| Ok(read())).await? };
        if let (false, Some(first_bad)) = (partial, bad.first()) {
            return Err(self.bad_line(first_bad).await);
        }
        let groups_max = self.app.config.ingest.groups_max;
        self.wait_for_groups(groups_max - 1).await?;
        let (done, appended) = oneshot::channel();
        let request = request.filter(|_| !exact && !events.is_empty());
        let trace = self.app.ingest_trace(request, &events);
        if events.is_empty() {
            let _ = done.send(Ok(Appended::default()));
        } else if exact {
            let (events, times) =
                export_attributes::without_export_attributes(&*self.app.log, &events)?;
            self.app.log.import(events, times, Box::new(move |result| drop(done.send(result))));
        } else {
            // If the client has disconnected, there is no receiver. The events stay in the log.
            self.app.log.append(events, Box::new(move |result| drop(done.send(result))));
        }
        self.line += lines;
        self.waiting.push_back(Group { done: appended, last: self.line - 1, bad, trace });
        Ok(())
    }

    /// Waits until at most `left` groups are in progress.
    async fn wait_for_groups(&mut self, left: usize) -> Result<(), Problem> {
        while self.waiting.len() > left {
            let Some(group) = self.waiting.pop_front() else { break };
            let appended = group.done.await.unwrap_or(Err(LogError::Closed));
            self.app.health.appends.note(&appended);
            if let Some(trace) = group.trace {
                trace.end(&appended);
            }
            let appended = match appended {
                Ok(appended) => appended,
                Err(error) => {
                    // Later groups may be in the log already, but the reported number of lines must
                    // end before the first gap. If the client sends the later lines again, the log
                    // recognizes them as duplicates.
                    self.waiting.clear();
                    return Err(error.into());
                }
            };
            count(&mut self.result, &appended);
            self.result.rejected += group.bad.len() as u64;
            self.result.lines = Some(group.last);
            let room = self.app.config.ingest.errors_max.saturating_sub(self.result.errors.len());
            self.result.errors.extend(group.bad.iter().take(room).map(rejection));
        }
        Ok(())
    }

    async fn bad_line(&mut self, bad: &LineError) -> Problem {
        if let Err(problem) = self.wait_for_groups(0).await {
            return problem;
        }
        let done = self.line - 1;
        let detail = match done {
            0 => format!("line {}: {}; nothing was appended", bad.line, bad.error),
            done => format!(
                "line {}: {}; everything up to line {done} is in the log",
                bad.line, bad.error
            ),
        };
        let code = if done == 0 { "LAN-0314" } else { "LAN-0315" };
        Problem::new(code, detail).with("errors", json_of(&[rejection(bad)]))
    }

    fn endless_line(&self, held: &[u8], max: usize) -> Problem {
        let ends = held.iter().filter(|&&b| b == b'\n').count() as u64;
        let error = EventError::TooLarge { bytes: held.len().min(max), max };
        let line = LineError { line: self.line + ends, error };
        Problem::new("LAN-0302", format!("line {}: {}", line.line, line.error))
            .with("errors", json_of(&[rejection(&line)]))
    }
}

/// What was read from the body.
enum Frame {
    Data(Bytes),
    End,
}

fn rejection(bad: &LineError) -> EventRejection {
    EventRejection {
        index: None,
        line: Some(bad.line),
        code: bad.error.code().into(),
        detail: bad.error.to_string(),
    }
}

/// Returns where the first group of `lines` ends. A group ends after the first line that brings it
/// to at least `bytes` bytes.
fn cut(lines: &[u8], bytes: usize) -> usize {
    let rest = lines.get(bytes.saturating_sub(1)..).unwrap_or_default();
    match rest.iter().position(|&b| b == b'\n') {
        Some(at) => bytes.saturating_sub(1) + at + 1,
        None => lines.len(),
    }
}
