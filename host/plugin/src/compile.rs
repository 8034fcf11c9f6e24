//! Compiles plugins in a separate process, which has limits for time and memory, and no environment
//! variables or secrets. A limit for the size of an upload would not be sufficient: compiling one
//! valid function of 255 KiB can take minutes and gigabytes.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};
use wasmtime::Engine;

use crate::pipeline::{PrepareError, prepare};
use crate::{Compiler, LoadError, PluginConfig, engine};

/// The first argument of a process that is a compiling child.
const CHILD_ARGUMENT: &str = "__compile";
/// The maximum size of compiled code, in bytes.
const CODE_BYTES_MAX: u64 = 256 << 20;
/// The time within which a child must exit after it has closed its output.
const END_MAX: Duration = Duration::from_secs(2);
/// The interval at which the parent checks whether the child has exited.
const END_POLL: Duration = Duration::from_millis(1);
/// The interval at which the parent checks whether compilations are stopped.
const STOP_POLL: Duration = Duration::from_millis(100);
/// The beginning of the message that Rust's standard library writes to standard error when an
/// allocation fails.
const NO_MEMORY: &str = "memory allocation of";
/// How many bytes of a child's standard error are read.
const STDERR_BYTES_MAX: u64 = 16 << 10;
/// How far the child's priority is lowered (its `nice` value).
const NICE: i32 = 10;
/// The first byte of the child's answer if compiled code follows.
const ANSWER_CODE: u8 = 0;
/// The first byte of the child's answer if a [`LoadError`] follows, as JSON.
const ANSWER_ERROR: u8 = 1;
/// The only byte of the child's answer if it got no memory.
const ANSWER_NO_MEMORY: u8 = 2;

/// What a child must compile. It is passed as the child's second argument.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CompileRequest {
    allow_wasi: bool,
    cpu_s: u64,
    memory_bytes: u64,
}

/// Compiles uploads. A limited number are compiled at the same time; further uploads wait in a
/// queue.
pub(crate) struct Compilers {
    compiler: Compiler,
    wall: Duration,
    request: CompileRequest,
    at_once: u32,
    queue_max: u32,
    queue: Mutex<QueueCounts>,
    freed: Condvar,
    started: AtomicU64,
    stopped: AtomicBool,
}

/// Whether a compilation has to wait for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CompileOrder {
    /// The compilation waits while the maximum number of compilations is running.
    Queued,
    /// The compilation begins at once, and no other compilation waits for it.
    AtOnce,
}

#[derive(Default)]
struct QueueCounts {
    running: u32,
    waiting: u32,
}

impl Compilers {
    pub(crate) fn new(config: &PluginConfig) -> Self {
        Self {
            compiler: config.compiler.clone(),
            wall: Duration::from_secs(config.limits.compile_wall_s),
            request: CompileRequest {
                allow_wasi: config.allow_wasi,
                cpu_s: config.limits.compile_cpu_s,
                memory_bytes: config.limits.compile_memory_bytes,
            },
            at_once: config.compiles_at_once.max(1),
            queue_max: config.compile_queue_max,
            queue: Mutex::default(),
            freed: Condvar::new(),
            started: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    /// Returns the number of compilations that were started.
    pub(crate) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// Ends the compilations that are running or waiting, and refuses new ones. A compilation that
    /// runs in this process cannot be ended, and goes on until it is finished.
    pub(crate) fn stop(&self) {
        let _queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        self.stopped.store(true, Ordering::Release);
        self.freed.notify_all();
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Checks and compiles the upload `bytes` for `engine`. A core module is first converted to a
    /// component. With [`CompileOrder::Queued`], the call waits while the maximum number of
    /// compilations is running. Each compilation has a time limit, so the wait ends.
    pub(crate) fn compile(
        &self,
        engine: &Engine,
        bytes: &[u8],
        order: CompileOrder,
    ) -> Result<Vec<u8>, LoadError> {
        let _turn = match order {
            CompileOrder::Queued => Some(self.wait_for_permit()?),
            CompileOrder::AtOnce => None,
        };
        if self.is_stopped() {
            return Err(stopped());
        }
        self.started.fetch_add(1, Ordering::Relaxed);
        let started = Instant::now();
        let result = match &self.compiler {
            Compiler::InProcess => {
                prepare(engine, bytes, self.request.allow_wasi).map_err(|error| match error {
                    PrepareError::Load(error) => error,
                    // This compilation has no limit for memory, so the machine lacks memory.
                    PrepareError::NoMemory => host(error.to_string()),
                })
            }
            Compiler::Child { command } => self.in_child(command.as_deref(), bytes),
        };
        metrics::histogram!("lantern_plugin_compile_seconds").record(started.elapsed());
        let outcome = if result.is_ok() { "ok" } else { "refused" };
        metrics::counter!("lantern_plugin_compiles_total", "outcome" => outcome).increment(1);
        result
    }

    fn wait_for_permit(&self) -> Result<CompilePermit<'_>, LoadError> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.running >= self.at_once {
            if queue.waiting >= self.queue_max {
                return Err(LoadError::CompileQueue { waiting: queue.waiting });
            }
            queue.waiting += 1;
            while queue.running >= self.at_once && !self.is_stopped() {
                queue = self.freed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            queue.waiting -= 1;
        }
        queue.running += 1;
        Ok(CompilePermit(self))
    }

    fn in_child(&self, command: Option<&Path>, bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
        let command = command.map_or_else(this_program, |path| Ok(path.to_owned()))?;
        let request = serde_json::to_string(&self.request).expect("three fields");
        let mut child = Command::new(&command)
            .arg(CHILD_ARGUMENT)
            .arg(request)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                host(format!("`{} {CHILD_ARGUMENT}` cannot be started: {error}", command.display()))
            })?;
        let answer = self.converse(&mut child, bytes);
        let status = child
            .wait()
            .map_err(|error| host(format!("waiting for the compiler's process failed: {error}")))?;
        let answer = answer?;
        match answer.stdout.split_first() {
            Some((&ANSWER_CODE, code)) if status.success() => Ok(code.to_vec()),
            Some((&ANSWER_ERROR, error)) if status.success() => {
                let error = serde_json::from_slice(error).map_err(|error| {
                    host(format!("the compiler's answer cannot be decoded: {error}"))
                })?;
                Err(error)
            }
            Some((&ANSWER_NO_MEMORY, _)) if status.success() => Err(self.out_of_memory()),
            _ => Err(self.exit_error(status, &answer.stderr)),
        }
    }

    /// Sends the upload to the child and reads its answer. Ends when the child closes its output or
    /// its time has passed.
    fn converse(&self, child: &mut Child, bytes: &[u8]) -> Result<CompileReply, LoadError> {
        let mut stdin = child.stdin.take().expect("piped");
        let stdout = child.stdout.take().expect("piped");
        let stderr = child.stderr.take().expect("piped");
        std::thread::scope(|scope| {
            // This write fails if the child exits before it has read everything. The error is
            // ignored: the exit status of the child is examined later.
            scope.spawn(move || {
                let _ = stdin.write_all(bytes);
            });
            let errors = scope.spawn(move || read(stderr, STDERR_BYTES_MAX));
            let (sender, receiver) = mpsc::channel();
            scope.spawn(move || sender.send(read(stdout, CODE_BYTES_MAX)));
            let stdout = self.reply(&receiver);
            // A child that has closed its output normally exits soon. Its exit status then shows
            // whether it failed. The child is killed in two cases: its time has passed, or it
            // continues to run after it has closed its output. Once the child is dead, its pipes
            // are closed, so the threads of this scope end.
            if stdout.is_err() || !ends_by_itself(child) {
                let _ = child.kill();
            }
            let stderr = errors.join().unwrap_or_default();
            stdout.map(|stdout| CompileReply { stdout, stderr })
        })
    }

    /// Waits for the output of the child, until its time has passed or compilations are stopped.
    fn reply(&self, stdout: &mpsc::Receiver<Vec<u8>>) -> Result<Vec<u8>, LoadError> {
        let started = Instant::now();
        loop {
            let left = self.wall.saturating_sub(started.elapsed());
            if self.is_stopped() {
                return Err(stopped());
            }
            match stdout.recv_timeout(left.min(STOP_POLL)) {
                Ok(stdout) => return Ok(stdout),
                Err(RecvTimeoutError::Timeout) if left > STOP_POLL => {}
                Err(_) => return Err(LoadError::CompileWall { limit_s: self.wall.as_secs() }),
            }
        }
    }

    fn out_of_memory(&self) -> LoadError {
        LoadError::CompileMemory { limit_bytes: self.request.memory_bytes }
    }

    fn exit_error(&self, status: ExitStatus, stderr: &[u8]) -> LoadError {
        use std::os::unix::process::ExitStatusExt as _;

        let words = String::from_utf8_lossy(stderr);
        let words = words.trim();
        match status.signal() {
            Some(signal) if signal == Signal::XCPU.as_raw() => {
                LoadError::CompileCpu { limit_s: self.request.cpu_s }
            }
            Some(signal) if signal == Signal::KILL.as_raw() => LoadError::CompilerKilled,
            // A Rust process aborts if an allocation fails. Stable Rust cannot call a function
            // before the abort, so the message is the only sign of the reason.
            Some(signal) if signal == Signal::ABORT.as_raw() && words.contains(NO_MEMORY) => {
                self.out_of_memory()
            }
            Some(signal) => LoadError::CompilerBroke {
                reason: format!("it was ended by signal {signal}: {words}"),
            },
            None => LoadError::CompilerBroke { reason: format!("it ended with {status}: {words}") },
        }
    }
}

fn stopped() -> LoadError {
    host("the server stops, so nothing more is compiled".to_owned())
}

/// Returns whether a child that has closed its output exits within [`END_MAX`].
fn ends_by_itself(child: &mut Child) -> bool {
    let closed = Instant::now();
    while closed.elapsed() < END_MAX {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(END_POLL),
            _ => return true,
        }
    }
    false
}

struct CompileReply {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// The permit to run one compilation. It is returned when this is dropped.
struct CompilePermit<'a>(&'a Compilers);

impl Drop for CompilePermit<'_> {
    fn drop(&mut self) {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner).running -= 1;
        self.0.freed.notify_one();
    }
}

/// Runs the compiling child: reads an upload from standard input, and writes the code or an error
/// to standard output. A program must call this at once if its first argument is `__compile`.
#[must_use]
pub fn compile_child_main() -> ExitCode {
    let request = std::env::args().nth(2).and_then(|json| serde_json::from_str(&json).ok());
    let Some(request) = request else {
        eprintln!("`{CHILD_ARGUMENT}` is how lantern starts itself to compile a plugin");
        return ExitCode::from(2);
    };
    match child(&request) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn child(request: &CompileRequest) -> Result<(), Box<dyn std::error::Error>> {
    limit_this_process(request)?;
    let mut upload = Vec::new();
    std::io::stdin().lock().read_to_end(&mut upload)?;
    let engine = engine::new().map_err(|error| format!("{error:#}"))?;
    let answer = prepare(&engine, &upload, request.allow_wasi);
    let mut stdout = std::io::stdout().lock();
    match answer {
        Ok(code) => {
            stdout.write_all(&[ANSWER_CODE])?;
            stdout.write_all(&code)?;
        }
        Err(PrepareError::NoMemory) => stdout.write_all(&[ANSWER_NO_MEMORY])?,
        Err(PrepareError::Load(error)) => {
            stdout.write_all(&[ANSWER_ERROR])?;
            serde_json::to_writer(&mut stdout, &error)?;
        }
    }
    Ok(stdout.flush()?)
}

fn limit_this_process(request: &CompileRequest) -> rustix::io::Result<()> {
    let limit = |resource, current, maximum| {
        rustix::process::setrlimit(
            resource,
            Rlimit { current: Some(current), maximum: Some(maximum) },
        )
    };
    // If the parent ends, nothing reads the answer. So the kernel is asked to kill the child too.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    limit(Resource::Core, 0, 0)?;
    limit(Resource::Fsize, 0, 0)?;
    // At the first limit the child gets the signal `XCPU`, whose number shows the reason. If it
    // survives this signal, it gets `KILL` at the second limit, which it cannot catch.
    limit(Resource::Cpu, request.cpu_s, request.cpu_s + 1)?;
    limit(Resource::As, request.memory_bytes, request.memory_bytes)?;
    rustix::process::nice(NICE)?;
    Ok(())
}

/// Returns the path of the running program. On Linux, the path stays valid even if the program's
/// file is replaced.
fn this_program() -> Result<PathBuf, LoadError> {
    let running = Path::new("/proc/self/exe");
    if cfg!(target_os = "linux") && running.exists() {
        return Ok(running.to_owned());
    }
    std::env::current_exe().map_err(|error| host(format!("this program has no name: {error}")))
}

fn read(from: impl Read, bytes_max: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // If there is an error, the bytes that were read before it are returned.
    let _ = from.take(bytes_max).read_to_end(&mut bytes);
    bytes
}

fn host(reason: String) -> LoadError {
    LoadError::Host { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_compilation_too_many_is_refused_while_others_wait() {
        let config = PluginConfig {
            compiles_at_once: 1,
            compile_queue_max: 0,
            compiler: Compiler::InProcess,
            ..PluginConfig::default()
        };
        let compilers = Compilers::new(&config);
        let turn = compilers.wait_for_permit().expect("no other compiles");
        let error = compilers.wait_for_permit().err().expect("there is no room to wait");
        assert!(matches!(error, LoadError::CompileQueue { waiting: 0 }), "{error}");
        drop(turn);
        assert!(compilers.wait_for_permit().is_ok());
    }

    #[test]
    fn a_compilation_that_waits_ends_when_compilations_are_stopped() {
        let config = PluginConfig {
            compiles_at_once: 1,
            compiler: Compiler::InProcess,
            ..PluginConfig::default()
        };
        let compilers = Compilers::new(&config);
        let engine = engine::new().expect("an engine");
        let turn = compilers.wait_for_permit().expect("no other compiles");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| compilers.compile(&engine, b"", CompileOrder::Queued));
            while compilers.queue.lock().unwrap_or_else(PoisonError::into_inner).waiting == 0 {
                std::thread::yield_now();
            }
            compilers.stop();
            let error = waits.join().expect("no panic").expect_err("the server stops");
            assert!(error.to_string().contains("the server stops"), "{error}");
        });
        drop(turn);
    }
}
