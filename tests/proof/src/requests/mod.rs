//! Tests invariant 8 of `docs/proof.md`, for whole requests. A client may send any bytes over a
//! socket: the real server must not fail, hang, exit or use ever more memory. If a request can be
//! parsed, the refusal quotes its invalid part.

mod cases;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use fastrand::Rng;
use lantern_tests::Server;
use serde_json::Value;

use crate::{Claim, Counts, Run};
use cases::{Answered, Case};

/// The claim that this experiment tests, with its numbers of cases.
pub const CLAIM: Claim = Claim {
    invariant: 8,
    name: "malformed-http",
    holds: "no request makes the server fail, hang or grow",
    counts: Counts { ci: 1_000, longer: 100_000, of: "requests" },
    experiment: try_requests,
};

/// The maximum time that an answer may take. The server's own limits are far lower.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// The maximum memory that the server's process may use, in MiB.
const MEMORY_MIB_MAX: u64 = 1_024;
/// The number of requests after which the experiment checks the server's memory.
const LOOK_EVERY: u64 = 50;

fn try_requests(run: &mut Run<'_>) -> Result<()> {
    let server = Server::start(&[
        "http.headers_ms_max=400",
        "http.body_idle_ms_max=400",
        "live.hello_ms=400",
        "live.close_ms=200",
    ])?;
    let address = server.url.trim_start_matches("http://").to_owned();
    let pools = cases::Pools::load()?;
    let pid = server.pid();
    let mut tried = 0;
    run.cases(|run, seed| {
        let mut rng = Rng::with_seed(seed);
        let case = cases::random(&pools, &address, &mut rng);
        let status = attempt(&address, &case, &mut rng);
        let status =
            status.with_context(|| format!("{}: {}", case.name, quote_bytes(&case.bytes)))?;
        run.add(&format!("answers {}xx", status / 100), 1.0);
        tried += 1;
        if tried % LOOK_EVERY == 0 {
            let mib = memory_mib(pid)?;
            run.most("server's memory, MiB", mib as f64);
            ensure!(mib < MEMORY_MIB_MAX, "the server holds {mib} MiB after: {}", case.name);
        }
        Ok(())
    });
    // A valid event checks that the same process still works.
    let healthy = Case::honest(&address);
    for _ in 0..3 {
        let status = attempt(&address, &healthy, &mut Rng::with_seed(1))?;
        ensure!(status == 200, "an honest event is answered with {status}");
    }
    run.most("server's memory, MiB", memory_mib(pid)? as f64);
    Ok(())
}

/// Sends the request of one case and checks the answer. Returns the status of the answer, or 0 if
/// there was none.
fn attempt(address: &str, case: &Case, rng: &mut Rng) -> Result<u16> {
    let mut stream = TcpStream::connect(address).context("the server is gone")?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    stream.set_nodelay(true)?;
    let sent = send(&mut stream, &case.bytes, rng);
    if case.broken_off {
        // The server may already have answered and closed the connection.
        let _ = stream.shutdown(Shutdown::Write);
    }
    let answer = read(&mut stream)?;
    if answer.is_empty() {
        ensure!(case.answered != Answered::Always, "no answer; sending ended with {sent:?}");
        return Ok(0);
    }
    let status = status_of(&answer)?;
    // 501 is the documented answer for features that are not supported yet.
    ensure!(status < 500 || status == 501, "answered {}", quote_bytes(&answer));
    if case.answered == Answered::Always {
        sent.context("the answer came before all was read")?;
    }
    if let Some(wanted) = &case.status {
        ensure!(wanted.contains(&status), "answered {}", quote_bytes(&answer));
    }
    if let Some(quoted) = &case.quoted {
        let problem = problem_of(&answer)?;
        let detail = problem["detail"].as_str().context("no detail")?;
        ensure!(detail.contains(quoted.as_str()), "`{detail}` does not quote `{quoted}`");
        let helps = problem["help"].as_str().is_some_and(|help| !help.is_empty());
        ensure!(helps, "no help: {problem}");
    }
    Ok(status)
}

/// Sends the bytes in several pieces.
fn send(stream: &mut TcpStream, bytes: &[u8], rng: &mut Rng) -> std::io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let most = if rng.bool() { rest.len() } else { rng.usize(1..=rest.len()) };
        stream.write_all(&rest[..most])?;
        rest = &rest[most..];
    }
    Ok(())
}

/// Reads until the server closes the connection. A reset counts as a close; a
/// connection that stays open is a failure.
fn read(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut piece = [0; 1 << 14];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return Ok(answer),
            Ok(read) => answer.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(answer),
            Err(error) => {
                bail!("neither an answer nor an end ({error}) after {}", quote_bytes(&answer))
            }
        }
    }
}

fn status_of(answer: &[u8]) -> Result<u16> {
    let line = answer.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
    status.and_then(|status| status.parse().ok()).with_context(|| format!("answered `{line}`"))
}

fn problem_of(answer: &[u8]) -> Result<Value> {
    let text = String::from_utf8_lossy(answer);
    let body = text.split_once("\r\n\r\n").context("no body")?.1;
    serde_json::from_str(body).with_context(|| format!("no problem: {body}"))
}

fn quote_bytes(bytes: &[u8]) -> String {
    format!("{} bytes: {}", bytes.len(), bytes[..bytes.len().min(400)].escape_ascii())
}

fn memory_mib(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(Path::new(&path)).context("the server is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kib.context("the server is gone")? >> 10)
}
