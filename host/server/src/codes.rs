//! Contains the one table of all error codes. Long because each code has an entry of its own.

/// One error code. Its page in the documentation is generated from this.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    /// The stable code: `LAN-` and four digits.
    pub code: &'static str,
    /// The HTTP status of answers with this code; 0 if no answer has it.
    pub status: u16,
    /// What went wrong, in a few words.
    pub title: &'static str,
    /// What to do about the error.
    pub help: &'static str,
}

/// Returns the entry for `code`, if there is one.
#[must_use]
pub fn find(code: &str) -> Option<&'static Code> {
    CODES.binary_search_by_key(&code, |c| c.code).ok().map(|place| &CODES[place])
}

/// The entry that is used for a code without an entry.
pub(crate) const UNKNOWN: Code = Code {
    code: "LAN-0413",
    status: 500,
    title: "an error inside the server",
    help: "see the server's log; this is a bug worth reporting",
};

const fn code(code: &'static str, status: u16, title: &'static str, help: &'static str) -> Code {
    Code { code, status, title, help }
}

/// The codes of all errors, in order.
pub const CODES: &[Code] = &[
    // Starting.
    code(
        "LAN-0001",
        0,
        "the configuration is wrong",
        "correct the key that the message names; `lantern serve --help` and docs/config.md list them all",
    ),
    code(
        "LAN-0002",
        0,
        "the data folder is in use",
        "stop the other process, or give this one another folder with `--data`",
    ),
    code(
        "LAN-0003",
        0,
        "the address is public and there is no authentication",
        "listen on 127.0.0.1 and put a proxy that authenticates in front, or reach the server through an SSH tunnel",
    ),
    code(
        "LAN-0004",
        0,
        "the server cannot listen on the address",
        "stop the program that listens there, or choose another address with `--listen`",
    ),
    code(
        "LAN-0005",
        0,
        "the data folder cannot be opened",
        "make it writable for this user and free space; if it is damaged, `lantern doctor` shows the damage and what to do",
    ),
    code(
        "LAN-0006",
        0,
        "the data folder belongs to another log",
        "configure the log that the folder belongs to, or use another data folder (`--data`)",
    ),
    code(
        "LAN-0007",
        0,
        "the Kafka log cannot be opened",
        "check `log.kafka.servers`, `log.kafka.topics` and the settings for TLS and SASL in `log.kafka.properties`; `lantern serve --log-filter debug` shows the messages of the Kafka client",
    ),
    // Plugins. The plugin host gives more detail, and a remedy, with each error.
    code("LAN-0101", 422, "not WebAssembly", "upload the .wasm file that your compiler produced"),
    code(
        "LAN-0102",
        413,
        "the plugin is too large",
        "reduce its size, or raise `plugin.limits.upload_bytes_max`",
    ),
    code(
        "LAN-0103",
        413,
        "the parameters are too long",
        "shorten them, or raise `plugin.limits.parameters_bytes_max`",
    ),
    code(
        "LAN-0104",
        422,
        "a core module without metadata",
        "build it with Lantern's SDK for your language",
    ),
    code(
        "LAN-0105",
        422,
        "a core module with foreign imports",
        "in Rust, build for wasm32-unknown-unknown, and use `chrono` without its default features (`clock` and `wasmbind` import JavaScript); elsewhere, use the SDK's own build step",
    ),
    code(
        "LAN-0106",
        422,
        "the module cannot be turned into a component",
        "build it with the SDK of this host's version",
    ),
    code(
        "LAN-0107",
        422,
        "the WebAssembly is not supported",
        "build it without threads, 64-bit memory, tail calls, garbage collection, exceptions or relaxed SIMD",
    ),
    code(
        "LAN-0108",
        422,
        "a foreign import",
        "remove the code that needs it: a projection can import only the contract",
    ),
    code(
        "LAN-0109",
        422,
        "another version of the contract",
        "build the plugin with the SDK of the host's version",
    ),
    code(
        "LAN-0110",
        422,
        "a part of WASI that plugins cannot have",
        "remove the code that needs it: a projection can access events and tables, never files, the network or the time of day",
    ),
    code(
        "LAN-0111",
        422,
        "a function with another signature",
        "build the plugin against this host's wit/projection.wit, unchanged",
    ),
    code(
        "LAN-0112",
        422,
        "the component is not a projection",
        "build it with Lantern's SDK, which exports the contract's interface",
    ),
    code(
        "LAN-0113",
        422,
        "the plugin does not match the contract",
        "build the plugin against this host's wit/projection.wit, unchanged",
    ),
    code(
        "LAN-0114",
        422,
        "compiling took too much processor time",
        "look for one huge generated function and split it, or raise `plugin.limits.compile_cpu_s`",
    ),
    code(
        "LAN-0115",
        422,
        "compiling took too much memory",
        "look for one huge generated function and split it, or raise `plugin.limits.compile_memory_bytes`",
    ),
    code(
        "LAN-0116",
        422,
        "compiling took too long",
        "look for one huge generated function and split it, or raise `plugin.limits.compile_wall_s`",
    ),
    code(
        "LAN-0117",
        422,
        "the compiler crashed",
        "build the plugin with another version of its compiler, or at a lower level of optimisation, and report it",
    ),
    code(
        "LAN-0118",
        503,
        "too many plugins are waiting to be compiled",
        "wait, or raise `plugin.compile_queue_max`",
    ),
    code(
        "LAN-0119",
        422,
        "no instance can be created",
        "reduce the plugin's initial memory and tables, or raise the limit that the message names",
    ),
    code("LAN-0120", 422, "setup failed", "correct the parameters that the message names"),
    code(
        "LAN-0121",
        422,
        "setup trapped",
        "run the plugin's tests with the same parameters, and see the backtrace",
    ),
    code(
        "LAN-0122",
        422,
        "setup ran out of fuel",
        "look for an endless loop in setup, or raise `plugin.limits.fuel_setup`",
    ),
    code(
        "LAN-0123",
        422,
        "setup returns different results",
        "use no randomness, clock or map order in setup",
    ),
    code(
        "LAN-0124",
        422,
        "the manifest breaks a rule",
        "correct the manifest that the plugin's setup returns",
    ),
    code(
        "LAN-0125",
        503,
        "the plugin cannot be loaded now",
        "the plugin is not at fault: see the server's log, and try again",
    ),
    code(
        "LAN-0126",
        422,
        "an interpreter without a source",
        "upload the script or declaration itself: the host runs it with the interpreter for its kind of file",
    ),
    code(
        "LAN-0127",
        422,
        "a source for a plugin that is no interpreter",
        "upload the plugin without a source, or import `lantern:projection/source` in it",
    ),
    code(
        "LAN-0128",
        413,
        "the source is too long",
        "shorten it, or raise `plugin.limits.source_bytes_max`",
    ),
    code(
        "LAN-0129",
        422,
        "the source is refused",
        "correct the source at the line that the message names",
    ),
    code(
        "LAN-0130",
        422,
        "not the name of a source",
        "name the source as its file is named, such as `totals.py`",
    ),
    code("LAN-0131", 422, "the source is not text", "save the source as UTF-8"),
    code(
        "LAN-0132",
        422,
        "no interpreter for the source",
        "put the interpreter into the folder that the message names (`cargo xtask interpreters` builds it), or set `plugin.interpreters_dir`",
    ),
    code(
        "LAN-0133",
        503,
        "the compiler was killed",
        "upload the plugin again; if that fails too, look in the system's log for a process that was killed because memory ran out",
    ),
    // Projections.
    code("LAN-0201", 404, "no such projection", "`GET /v1/projections` lists all projections"),
    code("LAN-0202", 404, "no such version", "`GET /v1/projections/{name}` lists all versions"),
    code(
        "LAN-0203",
        409,
        "no version serves readers yet",
        "wait until the first version has caught up; its status shows the progress, or why it has stopped",
    ),
    code(
        "LAN-0204",
        409,
        "the version has not caught up",
        "wait, or upload with `activate=true` so that it is activated automatically",
    ),
    code(
        "LAN-0205",
        409,
        "nothing to roll back to",
        "a rollback needs a version that was active before",
    ),
    code(
        "LAN-0206",
        409,
        "the version is active",
        "activate another version first, or delete the whole projection",
    ),
    code(
        "LAN-0207",
        422,
        "the manifest breaks a rule",
        "correct the plugin's manifest as the message says",
    ),
    code(
        "LAN-0208",
        422,
        "the plugin is not deterministic",
        "keep all state in tables; the host may drop the plugin's memory between two calls",
    ),
    code(
        "LAN-0209",
        422,
        "the plugin cannot be run",
        "run `lantern test` with the plugin and some events to see why",
    ),
    code(
        "LAN-0210",
        409,
        "the projection is halted",
        "see its parked events and logs, push a fixed version, or resume it",
    ),
    code(
        "LAN-0211",
        400,
        "nothing was selected",
        "select parked events: `all`, a `subject`, or `offsets` with their `partition`",
    ),
    code(
        "LAN-0212",
        400,
        "not a cursor of this list",
        "pass `next` unchanged, or leave `cursor` out to start at the beginning",
    ),
    code(
        "LAN-0213",
        503,
        "the state cannot be read or written",
        "free space or repair the disk, as the message says; then the server continues by itself",
    ),
    code(
        "LAN-0214",
        503,
        "the log cannot be read",
        "free space or repair the disk, or bring Kafka back, as the message says; then the server continues by itself",
    ),
    code("LAN-0215", 503, "the server is shutting down", "try again once it is up"),
    code(
        "LAN-0216",
        409,
        "a verification is running",
        "wait until it ends; the projection's status shows the progress",
    ),
    code(
        "LAN-0217",
        0,
        "the tables differ from the log",
        "stop the server and run `lantern doctor`; if it finds no damage in log and state, fold the log again with `lantern plugin rebuild`, and keep a copy of the data folder to find the cause",
    ),
    code(
        "LAN-0218",
        409,
        "emitted events are not in the log yet",
        "the log accepts no events at the moment, or not fast enough; try again once `GET /v1/projections/{name}` shows no fault",
    ),
    code(
        "LAN-0219",
        409,
        "there is no dead-letter topic",
        "set `log.kafka.dead_letter_topic`, with the log on Kafka; `lantern parked retry` works without one",
    ),
    code(
        "LAN-0220",
        409,
        "the version fails on events that the active one has applied",
        "see why with `lantern parked list NAME --version-id ID`, and push a corrected version; `lantern plugin activate NAME ID --force` activates it anyway (over HTTP: `force=true`)",
    ),
    code(
        "LAN-0221",
        409,
        "projections would trigger each other without end",
        "let one of the projections subscribe to narrower types; if the cycle is intended, set `cycle-depth-max` in the manifest of each of its projections: the maximum length of a chain of emitted events",
    ),
    code(
        "LAN-0222",
        500,
        "a plugin is not deterministic",
        "the server logs this code if a live batch gives a different result when it is folded a second time: look for state outside of the plugin's tables, randomness or map order, correct the plugin and push it; `engine.second_fold_halts` halts such a projection",
    ),
    code(
        "LAN-0223",
        503,
        "the machine cannot run the plugin now",
        "the plugin is not at fault: free memory or address space (`ulimit -v`), or see the server's log, and try again",
    ),
    code(
        "LAN-0224",
        503,
        "the projection recovers from a crash",
        "events that its tables had shown before the crash are folded again from the log: try again; if the reason names a halt, a pause or a fault, end that first (`lantern plugin status NAME`)",
    ),
    code(
        "LAN-0225",
        404,
        "the version has no source",
        "only versions that were uploaded as a script or declaration have one",
    ),
    // Events.
    code("LAN-0301", 400, "not a CloudEvents event", "send CloudEvents 1.0 as UTF-8 JSON"),
    code(
        "LAN-0302",
        413,
        "an event is too large",
        "send less in one event, keep large payloads elsewhere and send their address, or raise `ingest.event_bytes_max`",
    ),
    code(
        "LAN-0303",
        400,
        "an event is nested too deeply",
        "flatten the data, or raise `ingest.json_depth_max`",
    ),
    code(
        "LAN-0304",
        400,
        "a required attribute is missing or empty",
        "give every event `specversion`, `id`, `source` and `type`",
    ),
    code("LAN-0305", 400, "an attribute is wrong", "correct the attribute that the message quotes"),
    code("LAN-0306", 400, "another version of CloudEvents", "send events with `specversion` `1.0`"),
    code(
        "LAN-0307",
        400,
        "a reserved event type or source",
        "choose a type that does not begin with `lantern.`, and a source other than `lantern` and `lantern/…`: those are reserved for the server",
    ),
    code(
        "LAN-0308",
        400,
        "a time cannot be read",
        "write RFC 3339 with a zone, such as `2026-01-31T23:59:59.999Z`",
    ),
    code(
        "LAN-0309",
        400,
        "a time is too far in the future",
        "check the producer's clock, or raise `ingest.time_ahead_s_max`",
    ),
    code(
        "LAN-0310",
        400,
        "the event's data is wrong",
        "send JSON in `data`, or bytes in `data_base64` with their `datacontenttype`",
    ),
    code(
        "LAN-0311",
        413,
        "too many event types at once",
        "send fewer events in one request; a log should have few event types",
    ),
    code(
        "LAN-0312",
        415,
        "a content type that is not supported",
        "send `application/cloudevents+json`, `application/cloudevents-batch+json`, `application/x-ndjson`, or binary mode with `ce-*` headers",
    ),
    code(
        "LAN-0313",
        413,
        "the body is too large",
        "send it as NDJSON, which may be of any length, or raise `http.body_bytes_max`",
    ),
    code(
        "LAN-0314",
        400,
        "some events are invalid and none was appended",
        "correct them, or send with `?partial=true` to append the valid ones",
    ),
    code(
        "LAN-0315",
        400,
        "the stream stopped at an invalid line",
        "correct the line and send the stream again from there: events already appended are recognised by tenant, `source` and `id`",
    ),
    code(
        "LAN-0320",
        410,
        "these events were deleted",
        "read from the first offset that the message names, or leave `from` out",
    ),
    code(
        "LAN-0321",
        404,
        "no such partition",
        "partitions are counted from 0; `GET /v1/status` shows how many there are",
    ),
    code(
        "LAN-0322",
        503,
        "the disk is full",
        "free space, shorten the log's retention, or move the data folder; nothing was lost",
    ),
    code(
        "LAN-0323",
        503,
        "the log accepts no events now",
        "try again; events are recognised by tenant, `source` and `id`, so sending them twice is safe",
    ),
    code(
        "LAN-0324",
        500,
        "the log is damaged",
        "stop the server and run `lantern doctor`: it shows which offsets are lost; restore the log from a backup",
    ),
    code(
        "LAN-0326",
        413,
        "an event is too large for the log",
        "send less in one event, keep large payloads elsewhere and send their address, or raise the limit that the message names; the events that were appended are recognised if they are sent again",
    ),
    code(
        "LAN-0327",
        422,
        "the log refuses an event",
        "correct the event as the message says; sending it again unchanged cannot succeed, and the events that were appended are recognised if they are sent again",
    ),
    code(
        "LAN-0328",
        409,
        "the events cannot be imported as they are",
        "start a server with a new data folder and as many partitions as the exported log had, import before any plugin is pushed, and use the output of `lantern events tail --json`; or import without `exact`",
    ),
    // Requests.
    code("LAN-0401", 404, "no such address", "`GET /v1/openapi.json` lists every address"),
    code(
        "LAN-0402",
        405,
        "a method that is not accepted here",
        "`GET /v1/openapi.json` lists the methods of every address",
    ),
    code("LAN-0403", 400, "a parameter is wrong", "correct the parameter that the message names"),
    code(
        "LAN-0404",
        404,
        "no such table",
        "`GET /v1/projections/{name}` lists the tables of every version",
    ),
    code("LAN-0405", 501, "not supported yet", "leave the parameter out"),
    code(
        "LAN-0406",
        410,
        "the cursor is of another history of the table",
        "start again without `cursor`: another version was activated, or the table was recreated, rebuilt or restored",
    ),
    code(
        "LAN-0407",
        503,
        "the offset was not reached in time",
        "wait longer with `wait=`, at most 30s, or check whether the projection lags",
    ),
    code("LAN-0408", 400, "the body is wrong", "correct the body as the message says"),
    code(
        "LAN-0409",
        403,
        "the request names another host",
        "call the server as localhost or 127.0.0.1, or add the name to `http.hosts`",
    ),
    code(
        "LAN-0410",
        403,
        "the request comes from another site",
        "add the page's origin to `http.origins` if it may use this server",
    ),
    code(
        "LAN-0411",
        415,
        "not a plugin's content type",
        "send a component as `application/wasm`, a script as `text/x-python`, `text/javascript` or `text/typescript`, a declaration as `application/yaml` or `application/json`, or a multipart form with the parts `plugin`, `source` and `parameters`",
    ),
    code(
        "LAN-0412",
        426,
        "not a WebSocket",
        "connect with a WebSocket client and the subprotocol `lantern.v1.json`",
    ),
    code(
        "LAN-0413",
        500,
        "an error inside the server",
        "see the server's log; this is a bug worth reporting",
    ),
    code(
        "LAN-0414",
        503,
        "the server is busy",
        "try again; `http.queries_max` limits the reads at a time",
    ),
    code(
        "LAN-0415",
        400,
        "the request is malformed",
        "send HTTP/1.1 with one `Host` header, and any other header that the message names only once; see RFC 9112",
    ),
    code(
        "LAN-0416",
        431,
        "the request's headers are too large",
        "send at most 64 KiB of them, the first line included; move long values into the body",
    ),
    code(
        "LAN-0417",
        408,
        "the request's headers did not come in time",
        "send them at once, or raise `http.headers_ms_max`",
    ),
    code(
        "LAN-0418",
        400,
        "the WebSocket handshake is wrong",
        "connect with a WebSocket client and the subprotocol `lantern.v1.json`; see RFC 6455",
    ),
    code(
        "LAN-0419",
        415,
        "a content coding that is not supported",
        "send the body as it is, or packed with gzip or zstd, and name that in `Content-Encoding`",
    ),
    code(
        "LAN-0420",
        503,
        "too many connections",
        "close connections that are not in use and try again, or raise `http.connections_max`",
    ),
    code(
        "LAN-0421",
        412,
        "the state differs from the one in `If-Match`",
        "read the table again without `If-Match`",
    ),
    code(
        "LAN-0422",
        413,
        "the body unpacks to too much",
        "compress it less, or raise `http.unpack_ratio_max`",
    ),
    code(
        "LAN-0423",
        503,
        "too many large bodies at a time",
        "try again, send smaller ones, or raise `http.bodies_max`",
    ),
    code(
        "LAN-0425",
        404,
        "no row under this key",
        "check the key: keys are compared byte by byte, and `prefix` lists keys with the same beginning",
    ),
    code(
        "LAN-0426",
        400,
        "the query is wrong",
        "correct the parameter that the message names; docs/guide/tables.md lists the operators and functions",
    ),
    code(
        "LAN-0427",
        400,
        "the query exceeds a limit",
        "narrow it with `prefix`, `from` and `to`, which read fewer rows, or group by fewer values; or raise the setting that the message names",
    ),
    code(
        "LAN-0428",
        422,
        "a result of the query does not fit",
        "narrow the query with `where`, or group by more fields",
    ),
    code(
        "LAN-0429",
        503,
        "too many queries wait",
        "try again, or raise the setting that the message names",
    ),
    code(
        "LAN-0430",
        404,
        "there is no such named query",
        "`GET /v1/queries` and `lantern query list` list the names",
    ),
    code(
        "LAN-0431",
        400,
        "the definition of a named query is wrong",
        "correct the member that the message names; docs/guide/queries.md describes definitions",
    ),
    code(
        "LAN-0432",
        400,
        "a parameter of a named query is missing or wrong",
        "correct the parameter that the message names; `GET /v1/queries/{name}/definition` describes all of them",
    ),
    code("LAN-0433", 404, "there is no such board", "`GET /v1/boards` lists the names"),
    code(
        "LAN-0434",
        400,
        "the board is wrong",
        "correct the name or the document as the message says: a document is one JSON object",
    ),
    code(
        "LAN-0435",
        413,
        "the document of a board is too large",
        "make it smaller, or raise `boards.bytes_max`",
    ),
    code(
        "LAN-0436",
        409,
        "there are too many boards",
        "delete boards that are not in use, or raise `boards.count_max`",
    ),
    code(
        "LAN-0437",
        412,
        "the board was changed in the meantime",
        "read the board again, apply your change to its new document, and send it with the new `ETag` in `If-Match`",
    ),
    code(
        "LAN-0440",
        503,
        "the server folds the log again for other requests",
        "try again when they have ended, or raise `replay.at_once_max`",
    ),
    code(
        "LAN-0441",
        409,
        "the versions are at different offsets",
        "resume the projection with `lantern plugin resume`, and compare the versions again",
    ),
    code(
        "LAN-0442",
        404,
        "no event at this offset",
        "`GET /v1/events` lists events with their offsets, and `GET /v1/status` the ends of the partitions",
    ),
    code(
        "LAN-0443",
        503,
        "the fold of a sample was ended",
        "fold fewer events with `events`, or raise the setting that the message names",
    ),
    code(
        "LAN-0444",
        503,
        "too many clients of the feed",
        "close streams that are not in use and try again, or raise `live.sessions_max`",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_in_order_and_say_what_to_do() {
        assert!(CODES.is_sorted_by(|a, b| a.code < b.code), "a code is out of order or twice");
        for code in CODES {
            assert!(!code.title.is_empty() && !code.help.is_empty(), "{}", code.code);
            assert_eq!(code.title.to_lowercase().chars().next(), code.title.chars().next());
        }
    }
}
