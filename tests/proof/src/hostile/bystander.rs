//! Implements an honest projection that runs in parallel with hostile ones, and receives events all
//! the time. The experiment computes the expected rows of its tables separately, and measures the
//! time until each event reaches a client of the feed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use lantern_client::{Client, Options, Status, Table};
use lantern_tests::{PATIENCE, Server, guest};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// The time between the arrival of an event and the next event.
const PAUSE: Duration = Duration::from_millis(4);
/// If an event takes longer than this, it counts as several slow events, one for each period of
/// this length. Otherwise a stall of several seconds would count as only one slow event among
/// thousands.
const STALL: Duration = Duration::from_millis(20);
/// How many of the slowest events the report lists.
const TOLD: usize = 8;
/// The number of products that the events name.
const PRODUCTS: u64 = 20;

/// Classifies what runs in parallel while a latency is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Nothing else runs.
    Baseline = 0,
    /// A hostile guest is loaded and runs.
    Hostile = 1,
    /// More hostile guests run than the server has threads.
    Many = 2,
}

/// The number of orders, the quantity and the cents of a product or minute.
type Sums = (u64, u64, i64);

/// The honest projection that must not be affected. The experiment calls it the victim.
pub struct Bystander {
    shared: Arc<Shared>,
    feeding: JoinHandle<Result<()>>,
    _client: Client,
}

struct Shared {
    server: Arc<Server>,
    table: Table,
    /// The expected tables. They are locked while an event is pending.
    books: Mutex<ExpectedTables>,
    window: AtomicUsize,
    /// The name of the guest that runs in parallel.
    running_guest: parking_lot::Mutex<&'static str>,
    over: AtomicBool,
}

/// The expected rows of the tables, and the measurements.
#[derive(Default)]
struct ExpectedTables {
    sent: u64,
    by_product: BTreeMap<String, Sums>,
    /// The sums of each minute, by the minute's number.
    by_minute: BTreeMap<u64, Sums>,
    latencies: [Vec<Duration>; 3],
    /// The latencies of the slowest events, each with the guest that ran in parallel.
    slowest: Vec<(Duration, &'static str)>,
}

impl Bystander {
    /// Uploads the projection and begins to send events to it.
    ///
    /// # Errors
    /// Fails if the server does not accept it.
    pub async fn start(server: Arc<Server>, seed: u64) -> Result<Self> {
        server.project("victim", &guest("revenue"), "").await?;
        let url = format!("{}/v1/feed", server.url.replacen("http", "ws", 1));
        let client = Client::connect(&url, Options::default()).await?;
        let table = client.table("victim/by_product");
        tokio::time::timeout(PATIENCE, table.wait_for_status(Status::is_live)).await?;
        let shared = Arc::new(Shared {
            server,
            table,
            books: Mutex::default(),
            window: AtomicUsize::new(Window::Baseline as usize),
            running_guest: parking_lot::Mutex::new(""),
            over: AtomicBool::new(false),
        });
        let feeding = tokio::spawn(feed(shared.clone(), seed));
        Ok(Self { shared, feeding, _client: client })
    }

    /// Records that `guest` runs in parallel from now on, alone or with others.
    pub fn in_background(&self, guest: &'static str, window: Window) {
        *self.shared.running_guest.lock() = guest;
        self.shared.window.store(window as usize, Ordering::SeqCst);
    }

    /// Records that no guest runs in parallel from now on.
    pub fn alone(&self) {
        self.shared.window.store(Window::Baseline as usize, Ordering::SeqCst);
    }

    /// Waits until `more` further events have reached the client.
    ///
    /// # Errors
    /// Fails if they do not arrive within the time limit.
    pub async fn events(&self, more: u64) -> Result<()> {
        let until = self.shared.books.lock().await.sent + more;
        let started = Instant::now();
        while self.shared.books.lock().await.sent < until {
            self.check_fed()?;
            ensure!(started.elapsed() < PATIENCE, "the victim's events do not arrive");
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Compares the victim's tables with the expected rows, at a moment when no event is pending.
    ///
    /// # Errors
    /// The error describes the difference.
    pub async fn check(&self) -> Result<()> {
        self.check_fed()?;
        let books = self.shared.books.lock().await;
        self.shared.server.caught_up("victim").await?;
        let rows = self.shared.server.rows("victim/by_product").await?;
        let found: BTreeMap<_, _> =
            rows.iter().map(|(key, row)| (key.clone(), sums(row))).collect();
        ensure!(found == books.by_product, "by product: {found:?}, not {:?}", books.by_product);
        let rows = self.shared.server.rows("victim/by_minute").await?;
        let found: Vec<_> = rows.iter().map(|(_, row)| sums(row)).collect();
        let wanted: Vec<_> = books.by_minute.values().map(|s| (s.0, 0, s.2)).collect();
        ensure!(found == wanted, "by minute: {found:?}, not {wanted:?}");
        let parked = self.shared.server.get("/v1/projections/victim/parked").await?;
        ensure!(parked["total"] == 0, "the victim parks: {parked}");
        Ok(())
    }

    /// Returns the 99th percentile of the latencies during one kind of [`Window`], and the number
    /// of these latencies.
    pub async fn p99(&self, window: Window) -> (Duration, usize) {
        let mut of = self.shared.books.lock().await.latencies[window as usize].clone();
        of.sort_unstable();
        let rank = (of.len() * 99 / 100).min(of.len().saturating_sub(1));
        (of.get(rank).copied().unwrap_or_default(), of.len())
    }

    /// Returns the slowest events that ran in parallel with guests, the slowest first.
    pub async fn slowest(&self) -> Vec<(Duration, &'static str)> {
        self.shared.books.lock().await.slowest.clone()
    }

    /// Returns the number of events that were sent to the victim.
    pub async fn sent(&self) -> u64 {
        self.shared.books.lock().await.sent
    }

    /// Stops sending.
    ///
    /// # Errors
    /// Fails if sending had already ended, with the reason.
    pub async fn end(self) -> Result<()> {
        self.shared.over.store(true, Ordering::SeqCst);
        self.feeding.await?
    }

    fn check_fed(&self) -> Result<()> {
        ensure!(!self.feeding.is_finished(), "the victim is not fed any more");
        Ok(())
    }
}

/// Sends one event after another, and waits until each has reached the client of the feed.
async fn feed(shared: Arc<Shared>, seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    while !shared.over.load(Ordering::SeqCst) {
        shared.one(&mut random).await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

impl Shared {
    async fn one(&self, random: &mut fastrand::Rng) -> Result<()> {
        let mut books = self.books.lock().await;
        let product = format!("p{}", random.u64(..PRODUCTS));
        let (quantity, cents) = (random.u64(1..9), random.i64(1..100_000));
        let (number, before) = (books.sent, self.window.load(Ordering::SeqCst));
        // Each event is one second of event time after the previous one, so the events cover
        // several days.
        let (day, hour) = (1 + number / 86_400 % 28, number / 3_600 % 24);
        let time =
            format!("2026-01-{day:02}T{hour:02}:{:02}:{:02}Z", number / 60 % 60, number % 60);
        let line = format!(
            "{{\"specversion\":\"1.0\",\"id\":\"o{number}\",\"source\":\"shop\",\
             \"type\":\"order.placed\",\"subject\":\"{product}\",\"time\":\"{time}\",\
             \"data\":{{\"product\":\"{product}\",\"quantity\":{quantity},\"cents\":{cents}}}}}\n"
        );
        self.server.events(line).await?;
        let acknowledged = Instant::now();
        books.sent += 1;
        let by_product = books.by_product.entry(product.clone()).or_default();
        add(by_product, quantity, cents);
        let orders = by_product.0;
        add(books.by_minute.entry(number / 60).or_default(), quantity, cents);
        self.wait_for_orders(&product, orders).await?;
        let after = self.window.load(Ordering::SeqCst);
        let mut latency = acknowledged.elapsed();
        let window = before.max(after);
        if window != Window::Baseline as usize {
            books.slowest.push((latency, *self.running_guest.lock()));
            books.slowest.sort_unstable_by(|a, b| b.cmp(a));
            books.slowest.truncate(TOLD);
        }
        let latencies = &mut books.latencies[window];
        latencies.push(latency);
        while latency > STALL {
            latency -= STALL;
            latencies.push(latency);
        }
        Ok(())
    }

    /// Waits until the table shows this many orders of a product.
    async fn wait_for_orders(&self, product: &str, orders: u64) -> Result<()> {
        let arrives = async {
            loop {
                let next = self.table.offsets().get(&0).copied();
                let row: Option<Value> = self.table.get(product)?;
                if row.is_some_and(|row| row["orders"].as_u64() >= Some(orders)) {
                    return anyhow::Ok(());
                }
                self.table.wait_for(0, next.context("there are no rows yet")?).await?;
            }
        };
        match tokio::time::timeout(PATIENCE, arrives).await {
            Ok(arrived) => arrived,
            Err(_) => bail!("order {orders} of `{product}` does not reach the feed"),
        }
    }
}

fn add(sums: &mut Sums, quantity: u64, cents: i64) {
    *sums = (sums.0 + 1, sums.1 + quantity, sums.2 + cents);
}

fn sums(row: &Value) -> Sums {
    let number = |field: &str| row[field].as_u64().unwrap_or_default();
    (number("orders"), number("quantity"), row["cents"].as_i64().unwrap_or_default())
}
