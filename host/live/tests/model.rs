//! Many subscribers, random commits, slow readers, cuts, restarts and
//! activations under one seed: every state a client shows is one the table
//! had, and in the end all show the newest.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fastrand::Rng;
use lantern_live::{Hub, LiveConfig};
use parking_lot::Mutex;
use serde_json::{Value, json};
use world::{PATIENCE, Rows, Wire, World};

/// The server of the moment.
type Hubs = Mutex<Arc<Hub>>;

/// A client's copy of a table, checked with every step.
struct Reader {
    world: Arc<World>,
    table: usize,
    mode: &'static str,
    shown: Option<(String, u64)>,
    rows: Rows,
    snap: Rows,
    delta: Option<(Rows, Vec<String>)>,
    token: Option<String>,
    seen: Seen,
}

/// What a run came across, so that a test can tell it tried all.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    deltas: u64,
    merged: u64,
    parts: u64,
    ticks: u64,
    resumed: u64,
    resets: u64,
    cuts: u64,
    closed: u64,
}

impl Reader {
    /// Applies a frame as any client must.
    fn apply(&mut self, frame: &Value) {
        match frame["t"].as_str().unwrap() {
            "ok" => {
                self.snap.clear();
                self.delta = None;
                if frame["resumed"] == true {
                    self.seen.resumed += 1;
                }
            }
            "reset" => {
                self.snap.clear();
                self.delta = None;
                self.seen.resets += 1;
            }
            "snap" => {
                self.snap.extend(rows(&frame["rows"]));
                if frame["more"] == true {
                    self.seen.parts += 1;
                    return;
                }
                let epoch = frame["epoch"].as_str().unwrap().to_owned();
                let pos = frame["pos"].as_u64().unwrap();
                if let Some((shown, at)) = &self.shown {
                    assert!(*shown != epoch || *at <= pos, "went back from {at} to {pos}");
                }
                self.rows = std::mem::take(&mut self.snap);
                self.show(epoch, pos, frame);
            }
            "delta" => self.delta(frame),
            "tick" => {
                self.seen.ticks += 1;
                self.follows(frame);
                let (epoch, _) = self.shown.clone().unwrap();
                self.show(epoch, frame["pos"].as_u64().unwrap(), frame);
            }
            other => panic!("unexpected {other}: {frame}"),
        }
    }

    fn delta(&mut self, frame: &Value) {
        self.follows(frame);
        let (up, del) = self.delta.get_or_insert_default();
        for (key, row) in rows(&frame["up"]) {
            assert!(up.insert(key, row).is_none(), "a key stands twice in a delta");
        }
        let keys = frame["del"].as_array().unwrap();
        del.extend(keys.iter().map(|key| key.as_str().unwrap().to_owned()));
        if frame["more"] == true {
            self.seen.parts += 1;
            return;
        }
        self.seen.deltas += 1;
        self.seen.merged += u64::from(frame["merged"] == true);
        let (up, del) = self.delta.take().unwrap();
        assert!(del.iter().all(|key| !up.contains_key(key)), "a key stands twice in a delta");
        self.rows.extend(up);
        del.iter().for_each(|key| drop(self.rows.remove(key)));
        let (epoch, _) = self.shown.clone().unwrap();
        self.show(epoch, frame["pos"].as_u64().unwrap(), frame);
    }

    fn follows(&self, frame: &Value) {
        let (_, pos) = self.shown.as_ref().unwrap();
        assert_eq!(frame["from"].as_u64(), Some(*pos), "does not follow: {frame}");
    }

    fn show(&mut self, epoch: String, pos: u64, frame: &Value) {
        assert_eq!(self.rows, self.world.rows_at(&epoch, pos, self.table), "at {epoch} {pos}");
        self.token = Some(frame["tok"].as_str().unwrap().to_owned());
        self.shown = Some((epoch, pos));
    }

    /// One connection: until it is cut, or, once all is `done`, until the
    /// newest state is shown.
    async fn session(&mut self, hubs: &Hubs, rng: &mut Rng, done: &AtomicBool) -> bool {
        let hub = hubs.lock().clone();
        let mut wire = Wire::silent(&hub, 1 << rng.usize(10..17)).await;
        wire.say(json!({"t":"hello"})).await;
        let window = wire.hear().await["limits"]["window"].as_u64().unwrap();
        let table = ["shop/a", "shop/b"][self.table];
        let rate = [0, 0, 1, 7][rng.usize(..4)];
        let mut sub = json!({"t":"sub","id":7,"table":table,"mode":self.mode,"rate_ms":rate});
        if let Some(token) = &self.token {
            sub["resume"] = json!(token);
        }
        wire.say(sub).await;
        let (mut received, mut acked) = (0_u64, 0_u64);
        let ack_every = rng.u64(1..=window.min(4));
        let life = rng.usize(1..60);
        for turn in 0.. {
            let is_done = done.load(Ordering::SeqCst);
            // The old server is gone after a restart.
            let restarted = !Arc::ptr_eq(&hub, &hubs.lock());
            if restarted || (!is_done && turn >= life) {
                self.seen.cuts += 1;
                return false;
            }
            let Some(frame) = hear(&mut wire).await else {
                self.seen.closed += 1;
                return false;
            };
            if frame["t"] == "ping" {
                wire.say(json!({"t":"pong"})).await;
                continue;
            }
            self.apply(&frame);
            received +=
                u64::from(["snap", "delta", "tick"].contains(&frame["t"].as_str().unwrap()));
            if is_done && self.shown == Some(self.world.head()) {
                return true;
            }
            if received - acked >= ack_every || is_done {
                acked = received;
                wire.say(json!({"t":"ack","n":received})).await;
            }
            for _ in 0..rng.usize(..8) {
                tokio::task::yield_now().await;
            }
        }
        false
    }
}

/// The next message; `None` where the server closed.
async fn hear(wire: &mut Wire) -> Option<Value> {
    use futures_util::StreamExt as _;
    use tokio_tungstenite::tungstenite::Message;
    match tokio::time::timeout(PATIENCE, wire.ws.next()).await.expect("something comes") {
        Some(Ok(Message::Text(text))) => Some(serde_json::from_str(&text).unwrap()),
        Some(Ok(Message::Close(frame))) => {
            let code: u16 = frame.unwrap().code.into();
            assert!([4501, 4502].contains(&code), "closed with {code}");
            None
        }
        _ => None,
    }
}

fn rows(value: &Value) -> Rows {
    value.as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn config(rng: &mut Rng) -> LiveConfig {
    LiveConfig {
        heartbeat_ms: 50,
        tick_ms: 5,
        window: rng.u32(1..=8),
        frame_bytes_max: 4096,
        ring_commits_max: [2, 20, 1000][rng.usize(..3)],
        merge_keys_max: [10, 1000][rng.usize(..2)],
        snapshot_shared_bytes_max: [100, 1 << 20][rng.usize(..2)],
        partitions_ms: 1,
        stall_ms: 60_000,
        pong_ms: 60_000,
        ..LiveConfig::default()
    }
}

/// One random commit.
fn commit(world: &World, rng: &mut Rng, partitions: u32) {
    let keys: Vec<String> = (0..rng.usize(..40))
        .map(|_| {
            if rng.u8(..10) == 0 {
                format!("t\u{0}\"{}", rng.u8(..9))
            } else {
                format!("k{}", rng.u8(..))
            }
        })
        .collect();
    let table = rng.u32(..2);
    let writes: Vec<world::Write<'_>> = keys
        .iter()
        .map(|key| {
            let table = if rng.u8(..4) == 0 { rng.u32(..2) } else { table };
            (table, key.as_str(), (rng.u8(..4) != 0).then(|| rng.i64(-1000..1000)))
        })
        .collect();
    world.commit_unpublished(rng.u32(..partitions), &writes);
    // A view may be ahead of what was published.
    if rng.u8(..3) != 0 {
        world.publish();
    }
}

async fn run(seed: u64, partitions: u32, steps: u32) -> Seen {
    println!("seed {seed}, {partitions} partitions");
    let mut rng = Rng::with_seed(seed);
    let world = World::new(partitions as usize);
    let hub = Arc::new(Mutex::new(world.serve(config(&mut rng))));
    let done = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for place in 0..6 {
        let (world, hub, done) = (world.clone(), hub.clone(), done.clone());
        let mut rng = rng.fork();
        let mode = if partitions == 1 && place == 5 { "changes" } else { "state" };
        readers.push(tokio::spawn(async move {
            let mut reader = Reader {
                world,
                table: place % 2,
                mode,
                shown: None,
                rows: Rows::new(),
                snap: Rows::new(),
                delta: None,
                token: None,
                seen: Seen::default(),
            };
            loop {
                if reader.session(&hub, &mut rng, &done).await {
                    return reader.seen;
                }
                tokio::task::yield_now().await;
            }
        }));
    }
    for _ in 0..steps {
        commit(&world, &mut rng, partitions);
        match rng.u32(..200) {
            0 => {
                world.activate(partitions as usize);
            }
            1 => world.forget_changes(),
            // A restart.
            2 => *hub.lock() = world.serve(config(&mut rng)),
            _ => {}
        }
        for _ in 0..rng.usize(..30) {
            tokio::task::yield_now().await;
        }
    }
    world.publish();
    *hub.lock() = world.serve(config(&mut rng));
    world.activate(partitions as usize);
    commit(&world, &mut rng, partitions);
    world.publish();
    done.store(true, Ordering::SeqCst);
    let mut all = Seen::default();
    for reader in readers {
        let seen = tokio::time::timeout(PATIENCE * 3, reader).await.expect("readers end").unwrap();
        all.deltas += seen.deltas;
        all.merged += seen.merged;
        all.parts += seen.parts;
        all.ticks += seen.ticks;
        all.resumed += seen.resumed;
        all.resets += seen.resets;
        all.cuts += seen.cuts;
        all.closed += seen.closed;
    }
    println!("{all:?}");
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_state_shown_is_a_state_the_table_had() {
    let from: u64 = std::env::var("LANTERN_SEED").map_or(1, |seed| seed.parse().unwrap());
    let count: u64 = std::env::var("LANTERN_SEEDS").map_or(10, |count| count.parse().unwrap());
    let mut all = [Seen::default(); 2];
    for seed in from..from + count {
        for (place, partitions) in [1, 3].into_iter().enumerate() {
            let seen = run(seed, partitions, 600).await;
            let sum = &mut all[place];
            sum.deltas += seen.deltas;
            sum.merged += seen.merged;
            sum.parts += seen.parts;
            sum.resumed += seen.resumed;
            sum.resets += seen.resets;
            sum.cuts += seen.cuts;
        }
    }
    for seen in all {
        println!("{seen:?}");
        assert!(seen.deltas > 0 && seen.parts > 0 && seen.resumed > 0, "{seen:?}");
        assert!(seen.merged > 0 && seen.resets > 0 && seen.cuts > 0, "{seen:?}");
    }
}
