//! Builds a guest from its text, and adds the parts that every guest needs: a memory, an
//! allocator, a manifest and return values, all valid. The text may replace each of these
//! parts.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use lantern_core::{
    Attributes, EventTime, FieldKind, FieldSpec, Manifest, Merge, OnFailure, TableSpec,
};
use wit_parser::Resolve;

/// The text of the contract between the host and its guests.
const WIT: &str = include_str!("../../../../wit/projection.wit");

/// The parts of WASI that guests may import.
const WASI: &str = "
    package wasi:clocks@0.2.0 {
      interface wall-clock {
        record datetime { seconds: u64, nanoseconds: u32 }
        now: func() -> datetime;
      }
      interface monotonic-clock {
        use wasi:io/poll@0.2.0.{pollable};
        now: func() -> u64;
        subscribe-duration: func(when: u64) -> pollable;
      }
    }
    package wasi:random@0.2.0 {
      interface random {
        get-random-bytes: func(len: u64) -> list<u8>;
        get-random-u64: func() -> u64;
      }
    }
    package wasi:io@0.2.0 {
      interface error { resource error; }
      interface poll { resource pollable { block: func(); } }
      interface streams {
        use error.{error};
        variant stream-error { last-operation-failed(error), closed }
        resource output-stream {
          blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
        }
      }
    }
    package wasi:cli@0.2.0 {
      interface stderr {
        use wasi:io/streams@0.2.0.{output-stream};
        get-stderr: func() -> output-stream;
      }
      interface exit { exit: func(status: result); }
    }";

/// The WIT world of a guest that imports WASI.
const WORLD: &str = "
    package test:guest;
    world guest {
      include lantern:projection/projection@0.2.0;
      import wasi:clocks/wall-clock@0.2.0;
      import wasi:clocks/monotonic-clock@0.2.0;
      import wasi:io/poll@0.2.0;
      import wasi:random/random@0.2.0;
      import wasi:cli/stderr@0.2.0;
      import wasi:cli/exit@0.2.0;
    }";

/// The address of the return value of `apply`, which is `ok` unless a guest overwrites
/// it.
const ANSWER: u32 = 512;
/// The address of the return value of `setup`. The manifest begins 8 bytes later.
const MANIFEST: u32 = 1024;
/// The start of the allocator's memory. Guests use the memory before it: from 8 KiB on for return
/// values of the host, and from 16 KiB on for their own data.
const HEAP: u32 = 1 << 16;

/// Returns the event type to which the guest named `name` subscribes.
#[must_use]
pub fn probe(name: &str) -> String {
    format!("hostile.{name}")
}

/// Builds the guest named `name` from its text. The text is a whole module or component, or a list
/// of fields of a module that this function completes.
///
/// # Errors
/// Fails if the text is invalid.
pub fn build(name: &str, text: &str) -> Result<Vec<u8>> {
    let code = text.lines().find(|line| !line.starts_with(";;")).unwrap_or_default();
    if code.starts_with("(component") || code.starts_with("(module") {
        return wat::parse_str(text).with_context(|| format!("`{name}.wat`"));
    }
    let module = framed(name, text);
    let module = wat::parse_str(&module).with_context(|| format!("`{name}.wat`"))?;
    describe(module, text.contains("(import \"wasi:"), WIT)
}

/// Like [`build`], for a guest that has its own contract.
///
/// # Errors
/// Fails if the text or the contract is invalid.
pub fn build_for(name: &str, text: &str, change: (&str, &str)) -> Result<Vec<u8>> {
    describe(wat::parse_str(framed(name, text))?, false, &WIT.replace(change.0, change.1))
}

/// Converts a core module to a component.
///
/// # Errors
/// Fails if the module cannot be a component.
pub fn component(module: &[u8]) -> Result<Vec<u8>> {
    wit_component::ComponentEncoder::default().module(module)?.encode()
}

/// Completes the module's text: adds the fields that the guest's text lacks.
fn framed(name: &str, text: &str) -> String {
    let mut module = format!("(module ${name}\n{text}\n");
    let mut add = |unless: &str, fields: &str| {
        if !text.contains(unless) {
            module.push_str(fields);
        }
    };
    add("(export \"memory\")", "(memory (export \"memory\") 2)\n");
    add(
        "\"cabi_realloc\"",
        "(func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32)
           (local $at i32)
           (local.set $at (i32.and
             (i32.add (global.get $heap) (i32.sub (local.get 2) (i32.const 1)))
             (i32.sub (i32.const 0) (local.get 2))))
           (global.set $heap (i32.add (local.get $at) (local.get 3)))
           (if (i32.gt_u (global.get $heap) (i32.shl (memory.size) (i32.const 16)))
             (then (if (i32.lt_s (memory.grow (i32.add (i32.const 1) (i32.shr_u
                 (i32.sub (global.get $heap) (i32.shl (memory.size) (i32.const 16)))
                 (i32.const 16)))) (i32.const 0))
               (then unreachable))))
           (local.get $at))\n",
    );
    let (on_setup, on_apply) = (text.contains("$on_setup"), text.contains("$on_apply"));
    add(
        "projector@0.2.0#setup\" (param i32 i32)",
        &format!(
            "(func (export \"lantern:projection/projector@0.2.0#setup\")
               (param i32 i32) (result i32) {} (i32.const {MANIFEST}))\n",
            if on_setup { "(call $on_setup)" } else { "" }
        ),
    );
    add(
        "(export \"lantern:projection/projector@0.2.0#apply\"",
        &format!(
            "(func (export \"lantern:projection/projector@0.2.0#apply\")
               (param i32) (result i32)
               {}
               (global.set $heap (i32.const {HEAP}))
               (i32.const {ANSWER}))\n",
            if on_apply { "(call $on_apply (local.get 0))" } else { "" }
        ),
    );
    // An address is as wide as the addresses of the guest's memory.
    let address = if text.contains("(memory (export \"memory\") i64") { "i64" } else { "i32" };
    let mut image = Image { bytes: Vec::new() };
    image.manifest(&manifest(name));
    let _ = write!(
        module,
        "(global $heap (mut i32) (i32.const {HEAP}))
         (data ({address}.const {MANIFEST}) \"{}\"))",
        escape(&image.bytes)
    );
    module
}

/// Returns the manifest of the guest, unless the text contains its own.
fn manifest(name: &str) -> Manifest {
    let field = FieldSpec {
        name: "n".into(),
        kind: FieldKind::Integer,
        unit: String::new(),
        merge: Merge::Same,
    };
    let table = |name: &str| TableSpec { name: name.into(), ..TableSpec::default() };
    Manifest {
        name: name.into(),
        version: "1.0.0".into(),
        description: "harms".into(),
        subscribes: vec![probe(name)],
        attributes: Attributes { data: true, ..Attributes::default() },
        tables: vec![
            TableSpec { public: true, fields: vec![field], ..table("rows") },
            table("kept"),
            TableSpec { per_tenant: true, ..table("owned") },
        ],
        emits: vec![format!("echo.{name}")],
        event_time: Some(EventTime { allowed_lateness_us: 0, tick_us: 1_000_000 }),
        on_failure: OnFailure::ParkEvent,
        ..Manifest::default()
    }
}

/// Adds the section that names the module's world, as SDKs do.
fn describe(mut module: Vec<u8>, wasi: bool, wit: &str) -> Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    let wit = if wasi {
        let contract = wit.replacen("package lantern:projection@0.2.0;", "", 1);
        format!("{WORLD}{WASI}\npackage lantern:projection@0.2.0 {{ {contract} }}")
    } else {
        wit.to_owned()
    };
    let package = resolve.push_source("guest.wit", &wit)?;
    let world =
        resolve.select_world(&[package], Some(if wasi { "guest" } else { "projection" }))?;
    let encoding = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut module, &resolve, world, encoding)?;
    Ok(module)
}

/// A memory image that contains a `result<manifest, string>` in the canonical ABI.
struct Image {
    bytes: Vec<u8>,
}

impl Image {
    fn manifest(&mut self, m: &Manifest) {
        // The result begins with its discriminant. The record follows, aligned to 8 bytes.
        self.bytes.resize(8 + 120, 0);
        let at = 8;
        self.string(at, &m.name);
        self.string(at + 8, &m.version);
        self.string(at + 16, &m.description);
        self.strings(at + 24, &m.subscribes);
        self.bytes[at + 32] = u8::from(m.attributes.data) << 7;
        let tables = self.list(at + 44, m.tables.len(), 64);
        for (n, table) in m.tables.iter().enumerate() {
            self.table(tables + n * 64, table);
        }
        self.strings(at + 52, &m.emits);
        if let Some(time) = m.event_time {
            self.bytes[at + 72] = 1;
            self.u64(at + 80, time.allowed_lateness_us);
            self.u64(at + 88, time.tick_us);
        }
        self.bytes[at + 96] = m.on_failure as u8;
    }

    fn table(&mut self, at: usize, table: &TableSpec) {
        self.string(at, &table.name);
        self.bytes[at + 16] = u8::from(table.public);
        self.bytes[at + 17] = u8::from(table.per_tenant);
        let fields = self.list(at + 20, table.fields.len(), 24);
        for (n, field) in table.fields.iter().enumerate() {
            let at = fields + n * 24;
            self.string(at, &field.name);
            self.bytes[at + 8] = field.kind as u8;
            self.bytes[at + 20] = field.merge as u8;
        }
    }

    fn strings(&mut self, at: usize, texts: &[String]) {
        let list = self.list(at, texts.len(), 8);
        for (n, text) in texts.iter().enumerate() {
            self.string(list + n * 8, text);
        }
    }

    fn list(&mut self, at: usize, len: usize, size: usize) -> usize {
        let start = self.bytes.len().next_multiple_of(8);
        self.bytes.resize(start + len * size, 0);
        self.pair(at, start, len);
        start
    }

    fn string(&mut self, at: usize, text: &str) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text.as_bytes());
        self.pair(at, start, text.len());
    }

    /// Writes an address and a length, each as 32 bits.
    fn pair(&mut self, at: usize, start: usize, len: usize) {
        self.u64(at, (start as u64 + u64::from(MANIFEST)) | (len as u64) << 32);
    }

    fn u64(&mut self, at: usize, value: u64) {
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}

fn escape(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "\\{byte:02x}");
        text
    })
}
