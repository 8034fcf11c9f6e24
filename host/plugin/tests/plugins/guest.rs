//! Creates guests for the tests. They are core modules in text form. Their manifest is encoded by
//! hand. A test sets the bodies of `setup` and `apply`.

use std::fmt::Write as _;

use lantern_core::{Attributes, Manifest};
use wit_parser::Resolve;

/// The WIT file of the contract.
pub(crate) const WIT: &str = include_str!("../../../../wit/projection.wit");

/// The address of the result of `apply`. The byte there means "ok" unless the guest changes it.
const ANSWER: u32 = 512;
/// The address of the manifest that `setup` returns.
const MANIFEST: u32 = 1024;
/// The address of the memory that the guest's allocator uses.
const HEAP: u32 = 1 << 16;

/// The parts of a guest. [`Guest::build`] makes a plugin of them.
pub(crate) struct Guest {
    pub(crate) manifest: Manifest,
    /// The WIT of the guest's world. This is the WIT of the contract, except in tests that change
    /// it.
    pub(crate) wit: String,
    pub(crate) world: Option<&'static str>,
    /// The imports of the module, in text form.
    pub(crate) imports: String,
    /// Further fields of the module, in text form.
    pub(crate) fields: String,
    /// The instructions of `setup`, whose parameters are `$ptr` and `$len`.
    pub(crate) setup: String,
    /// The instructions of `apply`. Their parameter `$batch` is the address of the batch.
    pub(crate) apply: String,
    /// The texts in the guest's memory, with their addresses; see [`Guest::text`].
    texts: Vec<(u32, String)>,
    pub(crate) memory: &'static str,
    pub(crate) option: Option<&'static str>,
}

impl Guest {
    /// Returns a guest whose `apply` does nothing.
    pub(crate) fn new() -> Self {
        let manifest = Manifest {
            name: "guest".into(),
            version: "1.2.3".into(),
            description: "Übt".into(),
            subscribes: vec!["order.*".into(), "page.viewed".into()],
            attributes: Attributes { subject: true, data: true, ..Attributes::default() },
            tables: vec![lantern_core::TableSpec { name: "rows".into(), ..Default::default() }],
            ..Manifest::default()
        };
        Self {
            manifest,
            wit: WIT.into(),
            world: None,
            imports: String::new(),
            fields: String::new(),
            setup: String::new(),
            apply: String::new(),
            texts: Vec::new(),
            memory: "2",
            option: None,
        }
    }

    pub(crate) fn apply(mut self, body: &str) -> Self {
        self.apply = body.into();
        self
    }

    pub(crate) fn setup(mut self, body: &str) -> Self {
        self.setup = body.into();
        self
    }

    /// Imports the function `function` of the contract's interface `interface`, under the name
    /// `$function`.
    pub(crate) fn import(mut self, interface: &str, function: &str, params: &str) -> Self {
        let _ = writeln!(
            self.imports,
            "(import \"lantern:projection/{interface}@0.2.0\" \"{function}\" \
             (func ${function} {params}))"
        );
        self
    }

    /// Puts `text` into the guest's memory, and returns the two instructions that push its address
    /// and length.
    pub(crate) fn text(&mut self, text: &str) -> String {
        let at = self.texts.last().map_or(16 << 10, |(at, text)| at + text.len() as u32);
        self.texts.push((at, text.into()));
        format!("(i32.const {at}) (i32.const {})", text.len())
    }

    /// Builds the core module, without metadata.
    pub(crate) fn module(&self) -> Vec<u8> {
        let mut image = Image { base: MANIFEST, bytes: Vec::new() };
        image.manifest(&self.manifest, self.option);
        let mut data = format!("(data (i32.const {MANIFEST}) \"{}\")\n", escape(&image.bytes));
        for (at, text) in &self.texts {
            let _ = writeln!(data, "(data (i32.const {at}) \"{}\")", escape(text.as_bytes()));
        }
        let Self { imports, fields, setup, apply, memory, .. } = self;
        let text = format!(
            "(module $guest.wasm
              {imports}
              (memory (export \"memory\") {memory})
              (global $heap (mut i32) (i32.const {HEAP}))
              {fields}
              (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32)
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
                (local.get $at))
              (func $setup (export \"lantern:projection/projector@0.2.0#setup\")
                (param $ptr i32) (param $len i32) (result i32)
                {setup}
                (global.set $heap (i32.const {HEAP}))
                (i32.const {MANIFEST}))
              (func $apply (export \"lantern:projection/projector@0.2.0#apply\")
                (param $batch i32) (result i32)
                {apply}
                (global.set $heap (i32.const {HEAP}))
                (i32.const {ANSWER}))
              {data})"
        );
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// Builds the core module with metadata, as an SDK does.
    pub(crate) fn build(&self) -> Vec<u8> {
        self.describe(self.module())
    }

    /// Builds the module like [`Guest::build`], and replaces `from` by `to` in the names of imports
    /// and exports. Both must have the same length.
    pub(crate) fn renamed(&self, from: &str, to: &str) -> Vec<u8> {
        assert_eq!(from.len(), to.len());
        let mut module = self.module();
        let places: Vec<_> =
            (0..module.len()).filter(|&at| module[at..].starts_with(from.as_bytes())).collect();
        for at in places {
            module[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
        self.describe(module)
    }

    fn describe(&self, mut module: Vec<u8>) -> Vec<u8> {
        let mut resolve = Resolve::default();
        let package = resolve.push_source("test.wit", &self.wit).unwrap();
        let world = resolve.select_world(&[package], self.world.or(Some("projection"))).unwrap();
        wit_component::embed_component_metadata(
            &mut module,
            &resolve,
            world,
            wit_component::StringEncoding::UTF8,
        )
        .unwrap();
        module
    }
}

/// Returns instructions that make `apply` return an error with the message `text` and the cause
/// `cause`.
pub(crate) fn fail(cause: Option<u32>, text: &str) -> String {
    let mut code = format!("(i32.store8 (i32.const {ANSWER}) (i32.const 1))");
    if let Some(cause) = cause {
        let _ = write!(
            code,
            "(i32.store8 (i32.const {}) (i32.const 1)) (i32.store (i32.const {}) (i32.const {cause}))",
            ANSWER + 4,
            ANSWER + 8
        );
    }
    // `text` is a result of `Guest::text`: the address and then the length.
    let [address, length] = [0, 1].map(|n| text.split(") (").nth(n).unwrap());
    let [address, length] = [address, length].map(|t| t.trim_matches(['(', ')']).to_owned());
    let _ = write!(
        code,
        "(i32.store (i32.const {}) ({address})) (i32.store (i32.const {}) ({length}))",
        ANSWER + 12,
        ANSWER + 16
    );
    code
}

/// A part of the guest's memory in the layout of the canonical ABI for `result<manifest, string>`.
struct Image {
    base: u32,
    bytes: Vec<u8>,
}

impl Image {
    fn manifest(&mut self, m: &Manifest, option: Option<&str>) {
        // The discriminant, and then the record, which is aligned to 8 bytes.
        self.bytes.resize(8 + 120, 0);
        let at = 8;
        self.string(at, &m.name);
        self.string(at + 8, &m.version);
        self.string(at + 16, &m.description);
        self.strings(at + 24, &m.subscribes);
        let a = m.attributes;
        let flags = [
            a.id,
            a.source,
            a.subject,
            a.tenant,
            a.dataschema,
            a.datacontenttype,
            a.extensions,
            a.data,
        ];
        self.bytes[at + 32] =
            flags.iter().enumerate().fold(0, |bits, (n, &on)| bits | (u8::from(on) << n));
        let members = self.list(at + 36, m.members.len(), 12);
        for (n, member) in m.members.iter().enumerate() {
            self.string(members + n * 12, &member.name);
            self.bytes[members + n * 12 + 8] = member.kind as u8;
        }
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
        if let Some(parameters) = &m.parameters {
            self.bytes[at + 100] = 1;
            self.string(at + 104, parameters);
        }
        if let Some(depth) = m.cycle_depth_max {
            self.bytes[at + 60] = 1;
            self.u32(at + 64, depth);
        }
        if let Some(option) = option {
            let options = self.list(at + 112, 1, 16);
            self.string(options, option);
            self.string(options + 8, "on");
        }
    }

    fn table(&mut self, at: usize, table: &lantern_core::TableSpec) {
        self.string(at, &table.name);
        self.string(at + 8, &table.description);
        self.bytes[at + 16] = u8::from(table.public);
        self.bytes[at + 17] = u8::from(table.per_tenant);
        let fields = self.list(at + 20, table.fields.len(), 24);
        for (n, field) in table.fields.iter().enumerate() {
            let at = fields + n * 24;
            self.string(at, &field.name);
            self.bytes[at + 8] = field.kind as u8;
            self.string(at + 12, &field.unit);
            self.bytes[at + 20] = field.merge as u8;
        }
        if let Some(field) = &table.newest_by {
            self.bytes[at + 28] = 1;
            self.string(at + 32, field);
        }
        if let Some(retention) = table.retention_us {
            self.bytes[at + 40] = 1;
            self.u64(at + 48, retention);
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
        self.u32(at, self.base + start as u32);
        self.u32(at + 4, len as u32);
        start
    }

    fn string(&mut self, at: usize, text: &str) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text.as_bytes());
        self.u32(at, self.base + start as u32);
        self.u32(at + 4, text.len() as u32);
    }

    fn u32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
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
