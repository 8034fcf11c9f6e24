//! Measures a projection with many keys while its events arrive: the time from the first
//! request until all events are acknowledged and in the table. The load generator runs on
//! the same cores.

use std::path::Path;

use anyhow::Result;
use bytes::Bytes;

use super::Options;
use super::fold::{Fold, check, empty, reach, settings, start};
use crate::http_sender::{NDJSON, Sender};
use crate::keyed::KeyedLog;
use crate::report::Figures;
use crate::server;

/// The number of connections on which events are sent.
const CLIENTS: u64 = 4;
/// The number of events in one request.
const PER_REQUEST: u64 = 1_000;

/// Measures how long a projection takes to fold events while they arrive.
pub(super) async fn one(options: &Options, fold: &Fold) -> Result<Figures> {
    // The log begins with one event of each key. All other events are sent.
    let log = KeyedLog { events: 0, ..fold.log }.prepare(&options.dir)?;
    let bodies = bodies(&fold.log)?;
    let wasm = std::fs::read(server::guest(&options.guests, "keyed")?)?;
    let data = options.dir.join("data");
    empty(&data)?;
    copy(&log, &data)?;
    let mut server = start(&data, &settings(options, &fold.settings))?;
    server::push(&server, "keyed", &wasm, &fold.parameters, "?check=false").await?;
    reach(&server, fold.log.fill()).await?;
    server.caught_up("keyed").await?;
    let mut clients = Vec::new();
    for bodies in bodies {
        let mut sender = Sender::connect(&server.url).await?;
        clients.push(async move {
            for body in bodies {
                sender.events(NDJSON, body).await?;
            }
            anyhow::Ok(())
        });
    }
    let own = cpu_time::ProcessTime::now();
    let begun = reach(&server, fold.log.fill()).await?;
    let clients: Vec<_> = clients.into_iter().map(tokio::spawn).collect();
    for client in clients {
        client.await??;
    }
    let acknowledged = begun.at.elapsed().as_secs_f64();
    let ended = reach(&server, fold.log.total()).await?;
    let load_cpu_s = own.elapsed().as_secs_f64();
    check(&server, fold).await?;
    server::stop(&mut server)?;
    let events = fold.log.events as f64;
    let million = events / 1e6;
    Ok(vec![
        ("events_per_s", events / (ended.at - begun.at).as_secs_f64()),
        ("acknowledged_per_s", events / acknowledged),
        ("cpu_s_per_million", (ended.usage.cpu_s - begun.usage.cpu_s) / million),
        ("load_cpu_s_per_million", load_cpu_s / million),
        ("peak_rss_mib", ended.usage.peak_rss_mib()),
    ])
}

/// Creates the bodies of the requests that each client sends, before the measurement.
fn bodies(log: &KeyedLog) -> Result<Vec<Vec<Bytes>>> {
    let mut bodies = vec![Vec::new(); usize::try_from(CLIENTS)?];
    let starts = (log.fill()..log.total()).step_by(usize::try_from(PER_REQUEST)?);
    for (number, first) in starts.enumerate() {
        let lines = log.lines(first..(first + PER_REQUEST).min(log.total()))?;
        let client = number % bodies.len();
        bodies[client].push(lines.into());
    }
    Ok(bodies)
}

/// Copies the log to the data folder, because the server appends to it.
fn copy(log: &Path, data: &Path) -> Result<()> {
    std::fs::copy(log, data.join("log.redb"))?;
    Ok(())
}
