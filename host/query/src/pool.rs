//! Threads that run queries, so that queries never run on threads that fold.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use thiserror::Error;

type Task = Box<dyn FnOnce() + Send>;

/// A fixed number of threads with a bounded queue. When the pool is dropped, waiting tasks are
/// dropped, and the drop waits until the running tasks have ended.
pub struct QueryPool {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
    waiting_max: usize,
}

struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    /// The number of threads that run no task.
    idle: usize,
    closed: bool,
}

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "all threads for queries are busy and {waiting} queries wait: the limit is {waiting} (`query.waiting_max`)"
)]
pub struct PoolBusy {
    /// The number of waiting queries.
    pub waiting: usize,
}

impl QueryPool {
    /// Starts `threads` threads. Up to `waiting_max` tasks wait for one.
    ///
    /// # Errors
    /// The system's error if it cannot start a thread.
    pub fn new(threads: usize, waiting_max: usize) -> std::io::Result<Self> {
        let state = State { idle: threads, ..State::default() };
        let queue = Arc::new(Queue { state: Mutex::new(state), changed: Condvar::new() });
        let mut pool = Self { queue: Arc::clone(&queue), threads: Vec::new(), waiting_max };
        for index in 0..threads {
            let queue = Arc::clone(&queue);
            let name = format!("query-{index}");
            let thread = std::thread::Builder::new().name(name).spawn(move || queue.run())?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Runs `task` on one of the threads. The task must not panic.
    ///
    /// # Errors
    /// [`PoolBusy`] if all threads are busy and too many tasks wait.
    pub fn run(&self, task: impl FnOnce() + Send + 'static) -> Result<(), PoolBusy> {
        let mut state = self.queue.state.lock();
        let waiting = state.tasks.len().saturating_sub(state.idle);
        if state.tasks.len() >= state.idle && waiting >= self.waiting_max {
            return Err(PoolBusy { waiting });
        }
        state.tasks.push_back(Box::new(task));
        self.queue.changed.notify_one();
        Ok(())
    }
}

impl Drop for QueryPool {
    fn drop(&mut self) {
        {
            let mut state = self.queue.state.lock();
            state.closed = true;
            state.tasks.clear();
            self.queue.changed.notify_all();
        }
        for thread in self.threads.drain(..) {
            // A thread that drops the pool itself cannot wait for itself.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Queue {
    fn run(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(task) = state.tasks.pop_front() {
                state.idle -= 1;
                drop(state);
                task();
                state = self.state.lock();
                state.idle += 1;
            } else if state.closed {
                return;
            } else {
                self.changed.wait(&mut state);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn no_more_tasks_wait_than_allowed() {
        let pool = QueryPool::new(1, 1).unwrap();
        let (started, running) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let (done, finished) = mpsc::channel();
        pool.run(move || {
            started.send(()).unwrap();
            released.recv().unwrap();
        })
        .unwrap();
        running.recv().unwrap();
        pool.run(move || done.send(()).unwrap()).unwrap();
        assert_eq!(pool.run(|| ()), Err(PoolBusy { waiting: 1 }));
        release.send(()).unwrap();
        finished.recv().unwrap();
    }

    #[test]
    fn a_dropped_pool_awaits_its_running_tasks() {
        let pool = QueryPool::new(2, 8).unwrap();
        let (started, running) = mpsc::channel();
        let (done, finished) = mpsc::channel();
        pool.run(move || {
            started.send(()).unwrap();
            done.send(()).unwrap();
        })
        .unwrap();
        running.recv().unwrap();
        drop(pool);
        assert!(finished.try_recv().is_ok());
    }
}
