//! Wakes sessions. Each session has a signal, and each topic has a list of the sessions that wait
//! for its changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A signal that wakes one session.
#[derive(Default)]
pub(crate) struct SessionSignal {
    /// Whether the session could send changes if there were any. New commits do not wake a session
    /// whose acknowledgement window is full, or whose rate does not allow changes yet.
    armed: AtomicBool,
    pub(crate) notify: Notify,
}

impl SessionSignal {
    pub(crate) fn arm(&self, armed: bool) {
        self.armed.store(armed, Ordering::SeqCst);
    }

    /// Wakes the session if `armed` is set, and clears `armed`.
    pub(crate) fn offer(&self) {
        if self.armed.swap(false, Ordering::SeqCst) {
            self.notify.notify_one();
        }
    }

    /// Wakes the session, whether `armed` is set or not.
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
    /// Adds `signal`. Returns the number with which the caller can remove it.
    pub(crate) fn add(&self, signal: &Arc<SessionSignal>) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.signals.lock().insert(id, signal.clone());
        id
    }

    pub(crate) fn remove(&self, id: u64) {
        self.signals.lock().remove(&id);
    }

    /// Returns the number of sessions that wait.
    pub(crate) fn count(&self) -> usize {
        self.signals.lock().len()
    }

    /// Calls `wake` for the signal of each session.
    pub(crate) fn for_each(&self, wake: impl Fn(&SessionSignal)) {
        self.signals.lock().values().for_each(|signal| wake(signal));
    }
}
