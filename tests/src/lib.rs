//! Provides the base of the end-to-end tests: it runs the real binary as a process on a free port
//! and in a folder of its own, and sends requests to it over HTTP.
//!
//! The log is a parameter of the suite: with `LANTERN_TEST_LOG=kafka` each server of
//! [`Server::start`] has a fresh topic of a real broker instead of the embedded log.

pub mod dev;
pub mod kafka;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

/// The maximum time that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Returns the path of the program `lantern`, which `cargo xtask test` builds.
#[must_use]
pub fn lantern() -> PathBuf {
    built("LANTERN_BIN", "debug/lantern")
}

/// Returns the path of a guest that `cargo xtask test` has built: an example plugin or one of
/// `tests/guests`.
///
/// # Panics
/// Panics if the guest is missing.
#[must_use]
pub fn guest(name: &str) -> PathBuf {
    let folders = [built("LANTERN_PLUGINS", "plugins"), built("LANTERN_GUESTS", "guests")];
    let found = folders.iter().map(|dir| dir.join(format!("{name}.wasm"))).find(|p| p.is_file());
    found.unwrap_or_else(|| panic!("the guest `{name}` is not built: run `cargo xtask test`"))
}

/// Returns the folder of the interpreters for scripts and declarations, which `cargo xtask test`
/// builds.
#[must_use]
pub fn interpreters() -> PathBuf {
    built("LANTERN_INTERPRETERS", "interpreters")
}

/// Prepares a call of `lantern` with the interpreters, and with the shared cache of compiled
/// plugins.
#[must_use]
pub fn lantern_with_interpreters() -> Command {
    with_interpreters(&lantern())
}

/// Prepares a call of a program that itself starts `lantern`, with the interpreters and the shared
/// cache.
#[must_use]
pub fn with_interpreters(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("LANTERN_PLUGIN__INTERPRETERS_DIR", interpreters());
    command.env("XDG_CACHE_HOME", shared_cache());
    command
}

/// Returns the settings of a server with the same interpreters and the same cache.
#[must_use]
pub fn interpreter_settings() -> [String; 2] {
    let setting = |key: &str, folder: PathBuf| format!("plugin.{key}={}", folder.display());
    [
        setting("interpreters_dir", interpreters()),
        setting("cache_dir", shared_cache().join("lantern/compiled")),
    ]
}

/// Runs `lantern plugin check` on the text of a source, which compiles the interpreter into the
/// shared cache. Without this, the interpreter would be compiled during an upload, and the request
/// would take too long.
///
/// # Errors
/// Fails if the program cannot be run.
pub fn check_source(name: &str, text: &str) -> Result<Output> {
    let folder = TempDir::new()?;
    let path = folder.path().join(name);
    std::fs::write(&path, text)?;
    Ok(lantern_with_interpreters().args(["plugin", "check"]).arg(path).output()?)
}

/// Returns the cache folder for compiled plugins, which all tests share because an interpreter
/// takes many seconds to compile.
#[must_use]
pub fn shared_cache() -> PathBuf {
    root().join("target/tests-cache")
}

/// Returns the folder of the repository.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Returns whether a program that a test starts is missing on this machine. `cargo xtask test`
/// lists the missing ones, and fails on CI.
#[must_use]
pub fn without(program: &str) -> bool {
    std::env::var("LANTERN_WITHOUT").is_ok_and(|list| list.split(',').any(|p| p == program))
}

/// The version of Go that builds plugins. If another version is installed, the `go` command fetches
/// this one.
const GO_TOOLCHAIN: &str = "go1.26.8";

/// Prepares a call of `go` in the version that builds plugins.
#[must_use]
pub fn go() -> Command {
    let mut command = Command::new("go");
    command.env("GOTOOLCHAIN", GO_TOOLCHAIN);
    command
}

/// Builds the project in `folder` with `lantern build`. Returns the path of the component.
///
/// # Errors
/// Fails if it cannot be built. The error contains the output of the tools.
pub fn build_project(folder: &Path) -> Result<PathBuf> {
    build_project_with(folder, &[])
}

/// Like [`build_project`], with further environment variables.
///
/// # Errors
/// Fails if it cannot be built. The error contains the output of the tools.
pub fn build_project_with(folder: &Path, variables: &[(&str, &OsStr)]) -> Result<PathBuf> {
    let mut build = lantern_with_interpreters();
    build.args(["build", "--json"]).current_dir(folder).env("GOTOOLCHAIN", GO_TOOLCHAIN);
    build.envs(variables.iter().copied());
    let output = build.output()?;
    if !output.status.success() {
        bail!("{build:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let built: Value = serde_json::from_slice(&output.stdout)?;
    Ok(folder.join(built["file"].as_str().context("no file")?))
}

/// Builds a project in Go of this repository, such as `sdk/conformance/go`, in `folder`.
/// Returns the path of the component.
///
/// # Errors
/// Fails if it cannot be built.
pub fn go_component(project: &str, folder: &Path) -> Result<PathBuf> {
    let source = root().join(project);
    for entry in std::fs::read_dir(&source)? {
        let path = entry?.path();
        if path.is_file() {
            std::fs::copy(&path, folder.join(path.file_name().unwrap_or_default()))?;
        }
    }
    // The path of the SDK there is relative.
    let sdk = format!("lantern => {}", root().join("sdk/go").display());
    let module = std::fs::read_to_string(source.join("go.mod"))?;
    let module = module.lines().map(|line| match line.split_once("lantern => ") {
        Some((before, _)) => format!("{before}{sdk}"),
        None => line.to_owned(),
    });
    std::fs::write(folder.join("go.mod"), module.collect::<Vec<_>>().join("\n"))?;
    build_project(folder)
}

fn built(variable: &str, default: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from);
    let path = path.unwrap_or_else(|| root().join("target").join(default));
    assert!(path.exists(), "`{}` is not there: run `cargo xtask test`", path.display());
    path
}

/// Runs `lantern` with `arguments` to its end.
///
/// # Errors
/// Fails if it cannot be started.
pub fn run(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(lantern()).args(arguments).output()?)
}

/// Returns a new log for a server that a test starts itself. It is the address of a new topic, such
/// as `kafka://127.0.0.1:9092/topic`. `None` means the embedded log.
///
/// # Errors
/// Fails if the topic cannot be created.
pub fn fresh_log() -> Result<Option<String>> {
    if !kafka::is_the_log() {
        return Ok(None);
    }
    let (broker, topic) = (kafka::shared(), kafka::fresh_name("test"));
    kafka::create_topic(broker, &topic, 1, &[])?;
    Ok(Some(format!("kafka://{}/{topic}", broker.address())))
}

/// The settings with which a server is started.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// The data folder of the server.
    pub folder: PathBuf,
    /// The address on which the server listens. Port 0 takes a free one.
    pub address: String,
    /// The address of the log, such as `kafka://127.0.0.1:9092/events`. `None` means the embedded
    /// log.
    pub log: Option<String>,
    /// Settings of the server, such as `engine.threads=2`.
    pub settings: Vec<String>,
    /// A file that contains settings of the server.
    pub config: Option<PathBuf>,
    /// A program that runs the server, with its arguments, for instance `strace -f`.
    pub under: Vec<String>,
    /// The file for the server's error output. `None` means the output of the test.
    pub stderr: Option<PathBuf>,
    /// Whether the server and its child processes form a process group, which can be killed at
    /// once.
    pub grouped: bool,
}

/// A running server. It is killed when this value is dropped.
pub struct Server {
    process: Child,
    /// The server's address, `http://127.0.0.1:PORT`.
    pub url: String,
    launch: Launch,
    http: reqwest::Client,
    /// The temporary data folder. It is removed with the last server that uses it.
    _temporary: Option<TempDir>,
}

impl Server {
    /// Starts a server on a fresh folder and a fresh log, with settings such as
    /// `engine.threads=2`.
    ///
    /// # Errors
    /// Fails if it does not start.
    pub fn start(settings: &[&str]) -> Result<Self> {
        Self::start_over(fresh_log()?.as_deref(), settings)
    }

    /// Like [`Server::start`], but with `log` as the log, such as
    /// `kafka://127.0.0.1:9092/events`. `None` means the embedded log.
    ///
    /// # Errors
    /// Fails if it does not start.
    pub fn start_over(log: Option<&str>, settings: &[&str]) -> Result<Self> {
        let temporary = TempDir::new()?;
        let mut server = Self::launch(Launch {
            folder: temporary.path().join("data"),
            address: "127.0.0.1:0".into(),
            log: log.map(str::to_owned),
            settings: settings.iter().map(|s| (*s).to_owned()).collect(),
            ..Launch::default()
        })?;
        server._temporary = Some(temporary);
        Ok(server)
    }

    /// Starts a server on the data folder `folder`, which listens at `address`.
    ///
    /// # Errors
    /// Fails if it does not start. The error contains its output.
    pub fn start_in(folder: &Path, address: &str, settings: &[&str]) -> Result<Self> {
        let settings = settings.iter().map(|s| (*s).to_owned()).collect();
        Self::launch(Launch {
            folder: folder.into(),
            address: address.into(),
            settings,
            ..Launch::default()
        })
    }

    /// Starts a server as `launch` describes.
    ///
    /// # Errors
    /// Fails if it does not start.
    pub fn launch(launch: Launch) -> Result<Self> {
        let (process, url) = spawn(&launch)?;
        let http = reqwest::Client::builder().timeout(PATIENCE).build()?;
        Ok(Self { process, url, launch, http, _temporary: None })
    }

    /// Returns a server that was started in another way, and answers at `url`.
    ///
    /// # Errors
    /// Fails if no client can be created.
    pub fn attach(url: &str, process: Child) -> Result<Self> {
        Ok(Self {
            process,
            url: url.into(),
            launch: Launch::default(),
            http: reqwest::Client::builder().timeout(PATIENCE).build()?,
            _temporary: None,
        })
    }

    /// Asks the process to end, as a service manager does, and waits for it.
    ///
    /// # Errors
    /// Fails if it cannot be signalled, or does not end in time.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        self.stop()
    }

    /// Stops the server like [`Server::terminate`], so that it can be started again later.
    ///
    /// # Errors
    /// See [`Server::terminate`].
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let ask = format!("kill -TERM {}", self.pid());
        Command::new("sh").args(["-c", &ask]).status()?;
        let started = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            if started.elapsed() > PATIENCE {
                bail!("the server did not end");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns the process id of the server.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Returns the data folder of the server.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.launch.folder
    }

    /// Returns whether the process of the server still runs.
    ///
    /// # Errors
    /// Fails if its state cannot be read.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_none())
    }

    /// Kills the server's whole process group at once, while other tasks may still use the server.
    /// [`Server::kill`] also waits until the server has ended.
    ///
    /// # Errors
    /// Fails if it was not launched as a group, or cannot be killed.
    pub fn kill_group(&self) -> Result<()> {
        if !self.launch.grouped {
            bail!("the server has no group of its own");
        }
        // The shell's built-in `kill` starts no further process, so there is no delay.
        let kill = format!("kill -9 -{}", self.pid());
        if !Command::new("sh").args(["-c", &kill]).status()?.success() {
            bail!("`{kill}` failed");
        }
        Ok(())
    }

    /// Ends the process of the server as `kill -9` does.
    ///
    /// # Errors
    /// Fails if it cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        let pid = self.pid();
        if self.launch.grouped && self.runs()? {
            self.kill_group()?;
        }
        self.process.kill()?;
        self.process.wait()?;
        // A process that runs under another program ends a little later.
        let left = format!("kill -0 -{pid} 2>/dev/null");
        let started = Instant::now();
        while !self.launch.under.is_empty()
            && started.elapsed() < PATIENCE / 60
            && Command::new("sh").args(["-c", &left]).status()?.success()
        {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Starts the server again in its folder, on the same port.
    ///
    /// # Errors
    /// Fails if it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.restart_as(self.launch.clone())
    }

    /// Starts the server again as `launch` describes, on the same port.
    ///
    /// # Errors
    /// Fails if it does not start.
    pub fn restart_as(&mut self, launch: Launch) -> Result<()> {
        let address = self.url.trim_start_matches("http://").to_owned();
        self.launch = Launch { address, ..launch };
        (self.process, self.url) = spawn(&self.launch)?;
        Ok(())
    }

    /// Returns the settings with which the server was started.
    #[must_use]
    pub fn launched(&self) -> &Launch {
        &self.launch
    }

    /// Sends a request. Returns the answer's status and body (`null` if the body is not JSON).
    ///
    /// # Errors
    /// Fails if there is no answer.
    pub async fn request(
        &self,
        method: reqwest::Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<(u16, Value)> {
        let request = self.http.request(method, format!("{}{path}", self.url));
        let answer = request.header("content-type", content_type).body(body).send().await?;
        let status = answer.status().as_u16();
        let text = answer.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    /// Sends a `GET` request, and returns the answer's JSON.
    ///
    /// # Errors
    /// Fails if the answer's status is not 200.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if !status.is_success() {
            bail!("GET {path}: {status}: {text}");
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// Sends a `GET` request, and returns the answer's text.
    ///
    /// # Errors
    /// Fails if there is no answer.
    pub async fn text(&self, path: &str) -> Result<String> {
        Ok(self.http.get(format!("{}{path}", self.url)).send().await?.text().await?)
    }

    /// Sends events as lines of JSON.
    ///
    /// # Errors
    /// Fails if not all are appended. The error contains the server's answer.
    pub async fn events(&self, lines: impl Into<Vec<u8>>) -> Result<Value> {
        let (status, answer) = self
            .request(reqwest::Method::POST, "/v1/events", "application/x-ndjson", lines.into())
            .await?;
        if status != 200 {
            bail!("{status}: {answer}");
        }
        Ok(answer)
    }

    /// Uploads a guest with parameters. Returns the answer's status and body.
    ///
    /// # Errors
    /// Fails if there is no answer.
    pub async fn push(&self, name: &str, guest: &Path, parameters: &str) -> Result<(u16, Value)> {
        let wasm = std::fs::read(guest)?;
        self.push_bytes(name, &wasm, parameters, "").await
    }

    /// Uploads a plugin like [`Server::push`], but from its bytes, and with a query such as
    /// `?activate=false`.
    ///
    /// # Errors
    /// Fails if there is no answer.
    pub async fn push_bytes(
        &self,
        name: &str,
        wasm: &[u8],
        parameters: &str,
        query: &str,
    ) -> Result<(u16, Value)> {
        let boundary = "------------------------lantern";
        let mut body = format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"parameters\"\r\n\r\n{parameters}\r\n\
             --{boundary}\r\ncontent-disposition: form-data; name=\"plugin\"; filename=\"p.wasm\"\r\n\
             content-type: application/wasm\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(wasm);
        body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        let path = format!("/v1/projections/{name}/versions{query}");
        let kind = format!("multipart/form-data; boundary={boundary}");
        self.request(reqwest::Method::POST, &path, &kind, body).await
    }

    /// Uploads a guest, and waits until its version has folded all of the log and serves readers.
    ///
    /// # Errors
    /// Fails if it is refused or does not reach the end.
    pub async fn project(&self, name: &str, guest: &Path, parameters: &str) -> Result<Value> {
        let (status, answer) = self.push(name, guest, parameters).await?;
        if !(200..300).contains(&status) {
            bail!("{status}: {answer}");
        }
        let version = answer["version"].as_str().unwrap_or_default().to_owned();
        self.until(name, |status| status["active"] == version.as_str() && folded(status)).await?;
        Ok(answer)
    }

    /// Waits until the active version of `name` has folded all of the log.
    ///
    /// # Errors
    /// Fails if it does not reach the end.
    pub async fn caught_up(&self, name: &str) -> Result<Value> {
        self.until(name, |status| !status["active"].is_null() && folded(status)).await
    }

    /// Waits until `wanted` holds for the status of projection `name`.
    ///
    /// # Errors
    /// Fails if the condition does not hold in time. The error contains the last status.
    pub async fn until(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let started = Instant::now();
        loop {
            let status = self.get(&format!("/v1/projections/{name}")).await?;
            if wanted(&status) {
                return Ok(status);
            }
            if started.elapsed() > PATIENCE {
                bail!("`{name}` did not get there: {status:#}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Reads all rows of a table with their keys, in the order of keys. In a table per tenant,
    /// U+0000 separates tenant and key.
    ///
    /// # Errors
    /// Fails if it cannot be read.
    pub async fn rows(&self, table: &str) -> Result<Vec<(String, Value)>> {
        let mut rows = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/tables/{table}?limit=1000{cursor}");
            let page = self.get(&path).await?;
            let of_page = page["rows"].as_object().context("`rows` is no object")?;
            if page["per_tenant"] == true {
                for (tenant, of_tenant) in of_page {
                    let of_tenant = of_tenant.as_object().context("a tenant is no object")?;
                    let keyed = of_tenant.iter();
                    rows.extend(keyed.map(|(key, row)| (format!("{tenant}\0{key}"), row.clone())));
                }
            } else {
                rows.extend(of_page.iter().map(|(key, row)| (key.clone(), row.clone())));
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(rows)
    }

    /// Reads all rows of a table, byte for byte as the server writes them: one line of JSON each.
    ///
    /// # Errors
    /// Fails if it cannot be read.
    pub async fn lines(&self, table: &str) -> Result<String> {
        let mut lines = String::new();
        let mut cursor = String::new();
        loop {
            let url = format!("{}/v1/tables/{table}?limit=10000{cursor}", self.url);
            let request = self.http.get(url).header("accept", "application/x-ndjson");
            let answer = request.send().await?.error_for_status()?;
            let next = answer.headers().get("lantern-next").map(|next| next.to_str());
            let next = next.transpose()?.map(str::to_owned);
            lines.push_str(&answer.text().await?);
            match next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(lines),
            }
        }
    }

    /// Reads all events of the log's first partition, in order.
    ///
    /// # Errors
    /// Fails if it cannot be read.
    pub async fn log(&self) -> Result<Vec<Value>> {
        self.log_of(0).await
    }

    /// Reads all events of a partition of the log, in order.
    ///
    /// # Errors
    /// Fails if it cannot be read.
    pub async fn log_of(&self, partition: u32) -> Result<Vec<Value>> {
        let mut events = Vec::new();
        let mut from = 0;
        loop {
            let path = format!("/v1/events?partition={partition}&from={from}&limit=10000");
            let page = self.get(&path).await?;
            let of_page = page["events"].as_array().context("`events` is no list")?;
            events.extend(of_page.iter().cloned());
            if page["next"] == page["end"] {
                return Ok(events);
            }
            from = page["next"].as_u64().context("`next` is no offset")?;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended already, so its state is checked first.
        if self.launch.grouped && self.runs().unwrap_or(false) {
            drop(self.kill_group());
        }
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Returns whether the active version of a projection has nothing left to fold.
#[must_use]
pub fn folded(status: &Value) -> bool {
    let versions = status["versions"].as_array();
    let active = versions.and_then(|all| all.iter().find(|v| v["id"] == status["active"]));
    let shards = active.and_then(|version| version["shards"].as_array());
    shards.is_some_and(|shards| {
        shards.iter().all(|s| s["activity"] == "idle" && s["lag_events"] == 0)
    })
}

fn spawn(launch: &Launch) -> Result<(Child, String)> {
    let Launch { folder, address, log, settings, config, under, stderr, grouped } = launch;
    let mut command = match under.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(lantern());
            command
        }
        None => Command::new(lantern()),
    };
    command.args(["serve", "--listen", address, "--log-filter", "warn", "--data"]).arg(folder);
    // The servers of tests have empty caches, so none of them may compile all interpreters.
    command.args(["--set", "plugin.compile_interpreters=false"]);
    if let Some(log) = log {
        command.args(["--log", log]);
    }
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    for setting in settings {
        command.args(["--set", setting]);
    }
    if *grouped {
        command.process_group(0);
    }
    let said = stderr.as_ref().map(|path| File::options().create(true).append(true).open(path));
    let said = said.transpose()?.map_or_else(Stdio::inherit, Stdio::from);
    let mut process = command.stdout(Stdio::piped()).stderr(said).spawn()?;
    let stdout = process.stdout.take().context("it was piped")?;
    let mut lines = BufReader::new(stdout).lines();
    for line in lines.by_ref() {
        let line = line?;
        if let Some(at) = line.find("http://") {
            let url = line[at..].split([',', ' ']).next().unwrap_or_default().to_owned();
            // Later output must not fill the pipe, which would block the server.
            std::thread::spawn(move || lines.for_each(drop));
            return Ok((process, url));
        }
    }
    let status = process.wait()?;
    bail!("the server ended with {status} before it was ready")
}
