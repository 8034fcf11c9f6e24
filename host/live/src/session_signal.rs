//! Wakes sessions: a signal per session, and the list of the sessions of a topic.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Wakes one session.
#[derive(Default)]
pub(crate) struct SessionSignal {
    /// Whether the session could send changes if there were any. If its window is full or
    /// its rate allows no changes yet, new commits do not wake it.
    armed: AtomicBool,
    pub(crate) notify: Notify,
}

impl SessionSignal {
    pub(crate) fn arm(&self, armed: bool) {
        self.armed.store(armed, Ordering::SeqCst);
    }

    /// Wakes the session if it is armed, and disarms it.
    pub(crate) fn offer(&self) {
        if self.armed.swap(false, Ordering::SeqCst) {
            self.notify.notify_one();
        }
    }

    /// Wakes the session in any case.
    pub(crate) fn wake(&self) {
        self.notify.notify_one();
    }
}

/// The sessions that wait for changes of one topic.
#[derive(Default)]
pub(crate) struct Listeners {
    signals: Mutex<HashMap<u64, Arc<SessionSignal>>>,
    next: AtomicU64,
}

impl Listeners {
    /// Adds `signal`, and returns the number with which it can be removed.
    pub(crate) fn add(&self, signal: &Arc<SessionSignal>) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.signals.lock().insert(id, signal.clone());
        id
    }

    pub(crate) fn remove(&self, id: u64) {
        self.signals.lock().remove(&id);
    }

    /// Calls `wake` for each session.
    pub(crate) fn for_each(&self, wake: impl Fn(&SessionSignal)) {
        self.signals.lock().values().for_each(|signal| wake(signal));
    }
}
