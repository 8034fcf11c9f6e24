//! Tests invariant 9 of `docs/proof.md`: a feed misses and repeats nothing.
//!
//! Each seed is one case. It has a *world* (a projection with several tables and partitions, whose
//! versions change), a server that is restarted and killed, and clients. The bytes of their
//! connections are split and delayed, and connections are cut at any byte or left half open. The
//! world keeps its history of commits. Every state that a client shows must be in this history, and
//! in the end all clients must show the newest state.
//!
//! The network consists of tokio's in-memory pipes. The feed serves any stream of bytes and opens
//! no connection itself, so a simulator of hosts and sockets (turmoil) would not test more of
//! Lantern's code. The clock is paused, and the case advances it itself, because tokio does not
//! advance it while a streamed snapshot occupies a blocking thread. The commit that such a thread
//! reads depends on the timing of the machine. So a seed repeats a case approximately, but not byte
//! for byte.

mod copy;
mod reader;
mod real;
pub(crate) mod wire;
pub mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use lantern_live::{Hub, LiveConfig};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub use real::CLAIM as CUTS;

use crate::{Claim, Counts, Run};
use copy::Copy;
use reader::Reader;
use wire::{Line, Wire};
use world::World;

/// The claim that this experiment tests, with its numbers of cases.
pub const CLAIM: Claim = Claim {
    invariant: 9,
    name: "feed",
    holds: "every state that a client shows is a committed state, whatever is cut, slow or restarted",
    counts: Counts { ci: 500, longer: 20_000, of: "seeds" },
    experiment: try_seeds,
};

/// The number of cases after which each kind of event that is counted must have occurred.
const CASES_ENOUGH: u64 = 100;
/// The maximum real time that a case may take after its last commit.
const PATIENCE: Duration = Duration::from_secs(60);

/// Counts how often each kind of event occurred in the cases, so that a run can check that all of
/// them were tried.
#[derive(Clone, Copy, Debug, Default)]
struct FeedCounts {
    connections: u64,
    snapshots: u64,
    deltas: u64,
    merged: u64,
    parts: u64,
    ticks: u64,
    resumed: u64,
    resets: u64,
    cuts: u64,
    closed: u64,
    resubscribed: u64,
    given_up: u64,
    deaf: u64,
    restarts: u64,
    crashes: u64,
    flips: u64,
    rollbacks: u64,
}

impl FeedCounts {
    fn figures(&self) -> [(&'static str, u64); 17] {
        [
            ("connections", self.connections),
            ("snapshots", self.snapshots),
            ("deltas", self.deltas),
            ("deltas merged", self.merged),
            ("frames of several parts", self.parts),
            ("ticks", self.ticks),
            ("resumed", self.resumed),
            ("resets", self.resets),
            ("connections cut", self.cuts),
            ("connections closed by the server", self.closed),
            ("subscribed again", self.resubscribed),
            ("silent clients given up", self.given_up),
            ("clients that never read", self.deaf),
            ("restarts", self.restarts),
            ("crashes", self.crashes),
            ("activations", self.flips),
            ("rollbacks", self.rollbacks),
        ]
    }
}

fn try_seeds(run: &mut Run<'_>) -> Result<()> {
    for (name, _) in FeedCounts::default().figures() {
        run.add(name, 0.0);
    }
    let mut all = [0; 17];
    let mut cases = 0;
    run.cases(|run, seed| {
        let seen = case(seed)?;
        cases += 1;
        for (sum, (name, count)) in all.iter_mut().zip(seen.figures()) {
            *sum += count;
            run.add(name, count as f64);
        }
        Ok(())
    });
    let never = FeedCounts::default().figures().into_iter().zip(all).find(|(_, sum)| *sum == 0);
    if let Some(((name, _), _)) = never
        && cases >= CASES_ENOUGH
    {
        run.fail(run.seed(), format!("in {cases} cases there was not one of: {name}"));
    }
    Ok(())
}

/// Runs the case of one seed.
fn case(seed: u64) -> Result<FeedCounts> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let seen = runtime.block_on(simulate(seed));
    runtime.shutdown_timeout(PATIENCE);
    seen
}

/// The simulated world, and the server that currently serves it.
struct Net {
    world: Arc<World>,
    server: Mutex<Server>,
    /// Whether the case has made all its commits.
    done: AtomicBool,
}

struct Server {
    hub: Arc<Hub>,
    config: LiveConfig,
    shutdown: watch::Sender<bool>,
    sessions: Vec<AbortHandle>,
}

impl Net {
    fn new(partitions: usize, rng: &mut Rng) -> Arc<Self> {
        let world = World::new(partitions);
        let server = Mutex::new(Server::start(&world, rng));
        Arc::new(Self { world, server, done: AtomicBool::new(false) })
    }

    /// Replaces the server. The previous server shuts down in order, or its sessions are
    /// aborted.
    fn restart(&self, rng: &mut Rng) {
        let next = Server::start(&self.world, rng);
        let before = std::mem::replace(&mut *self.server.lock(), next);
        if rng.bool() {
            before.shutdown.send_replace(true);
        } else {
            before.sessions.iter().for_each(AbortHandle::abort);
        }
    }

    /// Kills the server, and starts another one. In between, the events of commits without a sync
    /// are committed again.
    fn crash(&self, rng: &mut Rng) {
        let mut server = self.server.lock();
        server.sessions.iter().for_each(AbortHandle::abort);
        *self.world.hub.lock() = None;
        self.world.crash(&mut |most| rng.usize(..most));
        *server = Server::start(&self.world, rng);
    }

    /// Connects to the current server. Returns the connection, and the server's limit on
    /// unacknowledged frames.
    fn connect(&self, line: Line, rng: &mut Rng) -> (Wire, u64) {
        let mut server = self.server.lock();
        let (near, far) = tokio::io::duplex(1 << rng.usize(10..17));
        let mut shutdown = server.shutdown.subscribe();
        let down = async move {
            if shutdown.wait_for(|down| *down).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let session = tokio::spawn(server.hub.clone().serve(near, down));
        server.sessions.push(session.abort_handle());
        let frame_max = server.config.frame_bytes_max;
        let window = u64::from(server.config.window);
        (Wire::new(far, session, line, frame_max, rng.fork()), window)
    }

    /// Returns the maximum time that the server may keep a silent client connected.
    fn patience(&self) -> Duration {
        let server = self.server.lock();
        let LiveConfig { hello_ms, heartbeat_ms, pong_ms, stall_ms, close_ms, .. } = server.config;
        let all = hello_ms + 2 * heartbeat_ms + pong_ms + 2 * stall_ms + close_ms;
        Duration::from_millis(2 * all)
    }
}

impl Drop for Net {
    /// Breaks a cycle of references: the hub reads from the world, and the world publishes to the
    /// hub. Without this, the two would not be released at the end of the case.
    fn drop(&mut self) {
        *self.world.hub.lock() = None;
    }
}

impl Server {
    fn start(world: &Arc<World>, rng: &mut Rng) -> Self {
        let config = LiveConfig {
            heartbeat_ms: 100,
            tick_ms: [2, 10][rng.usize(..2)],
            pong_ms: 200,
            hello_ms: 300,
            close_ms: 50,
            stall_ms: 150,
            // The limit is high, because this time is measured by the paused clock, which advances
            // even while reading threads wait for a processor.
            snapshot_ms_max: 600_000,
            window: rng.u32(1..=8),
            frame_bytes_max: 4_096,
            ring_commits_max: [2, 20, 1_000][rng.usize(..3)],
            merge_keys_max: [10, 1_000][rng.usize(..2)],
            merge_bytes_max: [500, 1 << 20][rng.usize(..2)],
            snapshot_shared_bytes_max: [100, 1 << 20][rng.usize(..2)],
            partitions_ms: 1,
            ..LiveConfig::default()
        };
        let hub = world.serve(config.clone());
        Self { hub, config, shutdown: watch::Sender::new(false), sessions: Vec::new() }
    }
}

async fn simulate(seed: u64) -> Result<FeedCounts> {
    let mut rng = Rng::with_seed(seed);
    let partitions = [1, 1, 2, 3][rng.usize(..4)];
    let net = Net::new(partitions, &mut rng);
    let mut seen = FeedCounts::default();
    let mut readers = Vec::new();
    for place in 0..rng.usize(2..6) {
        let changes = partitions == 1 && place % 3 == 2;
        let copies = match rng.u8(..3) {
            0 => vec![Copy::new(0, changes), Copy::new(1, false), Copy::new(0, false)],
            1 => vec![Copy::new(1, changes), Copy::new(0, false)],
            _ => vec![Copy::new(place % 2, changes)],
        };
        let reader = Reader::new(net.clone(), rng.fork(), copies);
        readers.push(tokio::spawn(reader.run()));
    }
    for _ in 0..rng.u32(40..140) {
        commit(&net.world, &mut rng, partitions);
        match rng.u32(..60) {
            0 => {
                net.world.activate(partitions);
                seen.flips += 1;
            }
            1 => {
                net.world.roll_back();
                seen.rollbacks += 1;
            }
            2 => net.world.forget_changes(),
            3 => {
                net.restart(&mut rng);
                seen.restarts += 1;
            }
            4 => {
                net.crash(&mut rng);
                seen.crashes += 1;
            }
            _ => {}
        }
        turn(&mut rng).await;
    }
    net.world.publish();
    net.done.store(true, Ordering::SeqCst);
    let started = Instant::now();
    for mut reader in readers {
        while !reader.is_finished() {
            let late = format!("a client does not get to {:?}", net.world.head());
            ensure!(started.elapsed() < PATIENCE, late);
            turn(&mut rng).await;
            // The store is read on other threads. This loop must leave a processor to them.
            std::thread::yield_now();
        }
        let of = (&mut reader).await.context("a client panicked")??;
        seen = sum(seen, of);
    }
    all_is_given_back(&net, &mut rng).await?;
    Ok(seen)
}

/// Advances the clock a little and lets all tasks run.
async fn turn(rng: &mut Rng) {
    if rng.u8(..3) != 0 {
        tokio::time::advance(Duration::from_micros(rng.u64(..15_000))).await;
    }
    for _ in 0..rng.usize(..24) {
        tokio::task::yield_now().await;
    }
}

/// Checks that after all clients are gone, the server keeps no sessions and no merged changes.
async fn all_is_given_back(net: &Net, rng: &mut Rng) -> Result<()> {
    let hub = net.server.lock().hub.clone();
    let started = Instant::now();
    while hub.sessions() > 0 || hub.merged_bytes() > 0 {
        let (sessions, bytes) = (hub.sessions(), hub.merged_bytes());
        let left = format!("{sessions} sessions and {bytes} merged bytes are left over");
        ensure!(started.elapsed() < PATIENCE, left);
        turn(rng).await;
        std::thread::yield_now();
    }
    Ok(())
}

/// Makes one random commit.
fn commit(world: &World, rng: &mut Rng, partitions: usize) {
    let most = if rng.u8(..10) == 0 { 200 } else { 20 };
    let table = rng.u32(..2);
    let keys: Vec<String> = (0..rng.usize(..most))
        .map(|_| match rng.u8(..10) {
            0 => format!("t\u{0}\"{}", rng.u8(..9)),
            _ => format!("k{}", rng.u8(..)),
        })
        .collect();
    let write = |key| {
        let table = if rng.u8(..4) == 0 { rng.u32(..2) } else { table };
        (table, key, (rng.u8(..4) != 0).then(|| rng.i64(-1_000..1_000)))
    };
    let writes: Vec<world::Write<'_>> = keys.iter().map(String::as_str).map(write).collect();
    world.commit_unpublished(rng.u32(..partitions as u32), &writes);
    // A view of the state may already contain a commit that is not published yet.
    if rng.u8(..3) != 0 {
        world.publish();
    }
}

fn sum(a: FeedCounts, b: FeedCounts) -> FeedCounts {
    FeedCounts {
        connections: a.connections + b.connections,
        snapshots: a.snapshots + b.snapshots,
        deltas: a.deltas + b.deltas,
        merged: a.merged + b.merged,
        parts: a.parts + b.parts,
        ticks: a.ticks + b.ticks,
        resumed: a.resumed + b.resumed,
        resets: a.resets + b.resets,
        cuts: a.cuts + b.cuts,
        closed: a.closed + b.closed,
        resubscribed: a.resubscribed + b.resubscribed,
        given_up: a.given_up + b.given_up,
        deaf: a.deaf + b.deaf,
        restarts: a.restarts + b.restarts,
        crashes: a.crashes + b.crashes,
        flips: a.flips + b.flips,
        rollbacks: a.rollbacks + b.rollbacks,
    }
}
