//! Implements the engine, which connects the registry, the scheduler and the ports.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lantern_core::{PartitionId, Recovering, VersionId, View, ViewError, Views};
use parking_lot::Mutex;

use crate::emit_quota::EmitQuota;
use crate::ports::Ports;
use crate::registry::{Projection, Registry};
use crate::scheduler::{RunTurn, Scheduler};
use crate::shard_handle::{IntakeRate, ShardHandle};
use crate::{EngineConfig, EngineError};

/// The number of shards that commit at the same time when the server shuts down.
const LAST_COMMITS: usize = 16;

/// Folds the log into the tables of every projection. All methods may block, so do not call them on
/// a thread that must not block.
pub struct Engine {
    pub(crate) config: Arc<EngineConfig>,
    pub(crate) ports: Ports,
    pub(crate) registry: Registry,
    pub(crate) scheduler: Scheduler,
    /// Locked during every change of the catalogue. A thread that needs this lock and locks of
    /// shards must take this lock first.
    pub(crate) lifecycle: Mutex<()>,
    /// Whether a verification is running. Only one may run at a time.
    pub(crate) verifying: AtomicBool,
    /// How fast each partition of the log grows. This is measured while a shard has not caught up.
    pub(crate) intake: Vec<Mutex<IntakeRate>>,
    /// The quota for emitted events of each projection.
    pub(crate) emit_quotas: Mutex<BTreeMap<String, Arc<EmitQuota>>>,
}

impl Engine {
    /// Creates an engine. It reads the catalogue and opens every shard's state. It folds nothing
    /// before [`Engine::start`]. If the state of a shard is damaged, the shard is halted with the
    /// reason. If the state cannot be opened for another reason, opening is tried again later. The
    /// other shards are not affected.
    ///
    /// # Errors
    /// Returns [`EngineError::Store`] if the catalogue cannot be read.
    pub fn open(config: EngineConfig, ports: Ports) -> Result<Arc<Self>, EngineError> {
        let engine = Arc::new(Self {
            config: Arc::new(config),
            registry: Registry::default(),
            scheduler: Scheduler::default(),
            lifecycle: Mutex::default(),
            verifying: AtomicBool::default(),
            intake: (0..ports.log.partitions()).map(|_| Mutex::default()).collect(),
            emit_quotas: Mutex::default(),
            ports,
        });
        for record in engine.ports.catalog.projections()? {
            let projection = Projection::open(&engine.ports, record);
            engine.registry.write().insert(projection.record.key(), projection);
        }
        Ok(engine)
    }

    /// Starts the threads of the engine. Every shard continues to fold at its committed offset.
    pub fn start(self: &Arc<Self>) {
        self.start_with(|| ());
    }

    /// Starts the threads like [`Engine::start`]. Each thread that runs slow shards calls
    /// `give_way` first, for example to lower its priority.
    pub fn start_with(self: &Arc<Self>, give_way: impl Fn() + Clone + Send + 'static) {
        self.attach();
        let threads = match self.config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        self.scheduler.start(threads, &self.ports.clock, &self.run_turn(), give_way);
    }

    /// Registers the engine with the log and wakes all shards, but starts no threads. A simulation
    /// of the engine on one thread then calls [`Engine::turn_once`] for each step.
    pub fn attach(self: &Arc<Self>) {
        let engine = Arc::downgrade(self);
        self.ports.log.on_append(Arc::new(move |partition, types| {
            if let Some(engine) = engine.upgrade() {
                engine.wake_partition(partition, types);
            }
        }));
        for handle in self.registry.handles() {
            self.scheduler.queues.wake(&handle);
        }
    }

    /// Ends the threads without a commit, as a crash does. For tests.
    pub fn abandon(&self) {
        self.scheduler.stop();
    }

    /// Ends the threads, and then commits all applied changes and next offsets.
    pub fn shutdown(&self) {
        self.abandon();
        let handles = self.registry.handles();
        // Several shards commit at the same time, because each commit waits for the disk.
        std::thread::scope(|scope| {
            for share in handles.chunks(handles.len().div_ceil(LAST_COMMITS).max(1)) {
                scope.spawn(move || share.iter().for_each(|handle| self.commit_last(handle)));
            }
        });
    }

    fn commit_last(&self, handle: &ShardHandle) {
        let mut shard = handle.shard.lock();
        let Some(shard) = shard.as_mut() else {
            return;
        };
        if let Err(error) = shard.close(self.ports.clock.monotonic()) {
            // No event is lost, because the log contains all events.
            tracing::warn!(projection = %handle.id.projection, %error, "a shard's last commit before the shutdown failed; after the next start, its events are folded again from the log, and reads are refused until then");
        }
    }

    /// Runs one step of a shard that waits for a turn, on the caller's thread. Returns `false` if
    /// no shard waits.
    pub fn turn_once(self: &Arc<Self>) -> bool {
        self.scheduler.turn_once(&*self.ports.clock, &self.run_turn())
    }

    /// Returns the function that the engine's threads run. It keeps the engine alive until the
    /// threads have ended.
    fn run_turn(self: &Arc<Self>) -> RunTurn {
        let engine = self.clone();
        Arc::new(move |handle| engine.run_shard_turn(handle))
    }

    /// Wakes the shards of `partition`. A shard that subscribes to none of `types` is woken later,
    /// because it would only advance its next offset.
    fn wake_partition(&self, partition: PartitionId, types: Option<&[String]>) {
        let now = self.ports.clock.monotonic();
        for projection in self.registry.read().values() {
            for build in projection.builds.values() {
                let Some(handle) = build.handles.get(partition.0 as usize) else {
                    continue;
                };
                let runs = handle.active.load(Ordering::Acquire)
                    || handle.awaits_log.load(Ordering::Acquire)
                    || projection.record.active.is_none();
                if !runs {
                    continue;
                }
                if types.is_none_or(|types| types.iter().any(|kind| build.types.matches(kind))) {
                    self.scheduler.queues.wake(handle);
                } else {
                    self.scheduler.queues.wake_lazily(handle, now);
                }
            }
        }
    }
}

impl Views for Engine {
    fn view(&self, projection: &str) -> Result<View, ViewError> {
        let (build, epoch) = self.registry.active_build(projection)?;
        build.view(&self.ports, projection, epoch)
    }

    fn recovering(&self, projection: &str) -> Option<Recovering> {
        let (build, _) = self.registry.active_build(projection).ok()?;
        build.recovering(projection)
    }

    fn view_version(&self, projection: &str, version: &VersionId) -> Result<View, ViewError> {
        let (build, epoch) = self.registry.shadow_build(projection, version)?;
        build.view(&self.ports, projection, epoch)
    }
}
