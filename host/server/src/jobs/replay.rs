//! Runs folds of the log for requests. A fold has limits, and ends when its client disconnects.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::throttle::Throttle;
use crate::app::App;
use crate::config::ReplayConfig;
use crate::problem::Problem;

/// A fold of the log for one request. It holds one of the permits of
/// `replay.at_once_max`.
pub(crate) struct Replay {
    app: Arc<App>,
    cancelled: CancellationToken,
    throttle: Throttle,
    pub(crate) started: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Replay {
    /// Begins a fold, and returns a guard that ends it when it is dropped.
    pub(crate) fn begin(app: &Arc<App>) -> Result<(Self, DropGuard), Problem> {
        app.check_open()?;
        let ReplayConfig { at_once_max, thread_percent, .. } = app.config.replay;
        let permit = Arc::clone(&app.permits.replays).try_acquire_owned().map_err(|_| {
            let detail = format!(
                "{at_once_max} requests fold the log again: the limit is {at_once_max} (`replay.at_once_max`)"
            );
            Problem::new("LAN-0440", detail)
        })?;
        let cancelled = app.tasks.stopping.child_token();
        let guard = cancelled.clone().drop_guard();
        let replay = Self {
            app: Arc::clone(app),
            cancelled,
            throttle: Throttle::new(thread_percent),
            started: Instant::now(),
            _permit: permit,
        };
        Ok((replay, guard))
    }

    /// Runs `work` on a thread that may block. It must call [`Replay::pace`] regularly.
    pub(crate) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce(Self) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let app = Arc::clone(&self.app);
        // The server waits for the thread before it stops, even if the client has gone.
        let tracked = app.tasks.verifications.token();
        app.blocking(move |_| {
            let _tracked = tracked;
            work(self)
        })
        .await
    }

    /// Pauses as `replay.thread_percent` requires, after `events` events were folded.
    ///
    /// # Errors
    /// The reason why the fold must end now: a limit, the client has gone, or the server
    /// stops.
    pub(crate) fn pace(&mut self, events: u64) -> Result<(), String> {
        let ReplayConfig { events_max, time_s_max, .. } = self.app.config.replay;
        self.throttle.pause(&self.cancelled);
        if self.app.tasks.stopping.is_cancelled() {
            return Err("the server is shutting down".into());
        }
        if self.cancelled.is_cancelled() {
            return Err("the client has disconnected".into());
        }
        if events >= events_max {
            return Err(format!("the limit is {events_max} events (`replay.events_max`)"));
        }
        if self.started.elapsed() >= Duration::from_secs(time_s_max) {
            return Err(format!("the limit is {time_s_max} seconds (`replay.time_s_max`)"));
        }
        Ok(())
    }
}
