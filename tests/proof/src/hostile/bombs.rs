//! Generates guests that cannot be written as text, because they are large or malformed in the
//! binary format.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};

use super::frame;

/// The first bytes of every WebAssembly component: the magic number and the version.
const COMPONENT: &[u8] = b"\0asm\x0D\0\x01\0";
/// The id of a component's section that contains a nested component.
const NESTED: u8 = 4;
/// The id of a component's section that contains a core module.
const CORE_MODULE: u8 = 1;
/// The id of a component's section that creates core instances.
const CORE_INSTANCE: u8 = 2;
/// The id of a module's section that lists the types of its functions.
const FUNCTIONS: u8 = 3;
/// The id of a module's section that contains the functions' bodies.
const CODE: u8 = 10;
/// A size of one byte more than an upload may have by default.
const TOO_LARGE_BYTES: usize = (32 << 20) + 1;

/// A guest that code generates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bomb {
    /// Has one valid function of a mebibyte that keeps a compiler busy for minutes.
    HugeFunction,
    /// Has fifty thousand functions.
    ManyFunctions,
    /// Has ten thousand blocks, each inside the previous one.
    DeepBlocks,
    /// Has jump tables that fill the maximum size of an upload.
    HugeJumpTables,
    /// Has a function with the maximum number of local variables.
    ManyLocals,
    /// Has thousands of functions. Each has the maximum number of local variables and takes only a
    /// few bytes.
    LocalsInEach,
    /// Declares component types, each of which contains the previous one twice.
    DoublingTypes,
    /// Declares component types, each of which contains the previous one.
    NestedTypes,
    /// Declares components, each of which contains the previous one.
    NestedComponents,
    /// Has more tables than a module may have.
    ManyTables,
    /// Has more memories than a component may have, each in a core module of its own.
    ManyMemories,
    /// Has more core instances than a component may have.
    ManyInstances,
    /// Exports a function `setup` that takes a number instead of a text.
    OtherSignature,
    /// Is one byte longer than an upload may be.
    TooLarge,
    /// Has ten mebibytes of custom sections.
    HugeCustomSections,
    /// Is an upload of no bytes.
    Empty,
}

impl Bomb {
    /// All guests that code generates.
    pub const ALL: &[Self] = &[
        Self::HugeFunction,
        Self::ManyFunctions,
        Self::DeepBlocks,
        Self::HugeJumpTables,
        Self::ManyLocals,
        Self::LocalsInEach,
        Self::DoublingTypes,
        Self::NestedTypes,
        Self::NestedComponents,
        Self::ManyTables,
        Self::ManyMemories,
        Self::ManyInstances,
        Self::OtherSignature,
        Self::TooLarge,
        Self::HugeCustomSections,
        Self::Empty,
    ];

    /// Returns the name of the guest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HugeFunction => "huge-function",
            Self::ManyFunctions => "many-functions",
            Self::DeepBlocks => "deep-blocks",
            Self::HugeJumpTables => "huge-jump-tables",
            Self::ManyLocals => "many-locals",
            Self::LocalsInEach => "locals-in-each",
            Self::DoublingTypes => "doubling-types",
            Self::NestedTypes => "nested-types",
            Self::NestedComponents => "nested-components",
            Self::ManyTables => "many-tables",
            Self::ManyMemories => "many-memories",
            Self::ManyInstances => "many-instances",
            Self::OtherSignature => "other-signature",
            Self::TooLarge => "too-large",
            Self::HugeCustomSections => "huge-custom-sections",
            Self::Empty => "empty",
        }
    }

    /// Generates the guest's bytes.
    ///
    /// # Errors
    /// Fails if the text on which it is based is invalid.
    pub fn build(self) -> Result<Vec<u8>> {
        let name = self.name();
        match self {
            Self::HugeFunction => frame::build(name, &huge_function()),
            Self::ManyFunctions => {
                let one = "(func (param i32) (result i32)
                    (if (result i32) (i32.rem_u (local.get 0) (i32.const 7))
                      (then (i32.mul (local.get 0) (i32.const 3))) (else (i32.const 1))))\n";
                frame::build(name, &one.repeat(50_000))
            }
            Self::DeepBlocks => {
                let text = format!("(func {}{})\n", "block ".repeat(10_000), "end ".repeat(10_000));
                frame::build(name, &text)
            }
            Self::HugeJumpTables => frame::build(name, &huge_jump_tables()),
            Self::ManyLocals => {
                let text = format!("(func (local {}))\n", "i64 ".repeat(50_000));
                frame::build(name, &text)
            }
            Self::LocalsInEach => locals_in_each(),
            Self::DoublingTypes => doubling_types(),
            Self::NestedTypes => nested_types(),
            Self::NestedComponents => Ok((0..2_000).fold(COMPONENT.to_vec(), |inner, _| {
                let mut outer = COMPONENT.to_vec();
                section(&mut outer, NESTED, &inner);
                outer
            })),
            Self::ManyTables => frame::build(name, &"(table 1 funcref)\n".repeat(101)),
            Self::ManyMemories => with_instances(name, "(module (memory 1))", 17),
            Self::ManyInstances => with_instances(name, "(module)", 101),
            Self::OtherSignature => frame::build_for(
                name,
                "(func (export \"lantern:projection/projector@0.2.0#setup\")
                   (param i32) (result i32) (i32.const 1024))
                 ;; Replaces `projector@0.2.0#setup\" (param i32 i32)`.\n",
                ("setup: func(parameters: string)", "setup: func(parameters: u32)"),
            ),
            Self::TooLarge => {
                Ok(b"\0asm\x01\0\0\0".repeat(TOO_LARGE_BYTES / 8 + 1)[..TOO_LARGE_BYTES].to_vec())
            }
            Self::HugeCustomSections => {
                let mut module = frame::build(name, "")?;
                for _ in 0..10 {
                    section(&mut module, 0, &[b"\x04junk".as_slice(), &[0xFF; 1 << 20]].concat());
                }
                Ok(module)
            }
            Self::Empty => Ok(Vec::new()),
        }
    }
}

/// Generates a function whose many variables stay live over many joins, which makes register
/// allocation slow.
fn huge_function() -> String {
    let mut text = "(func (param i64) (result i64) (local".to_owned();
    (0..500).for_each(|_| text.push_str(" i64"));
    text.push(')');
    for n in 0..60_000_u32 {
        let (a, b, c) = (1 + n % 500, 1 + n * 7 % 500, 1 + n * 13 % 500);
        let _ = writeln!(
            text,
            "(if (i64.eqz (local.get {a})) (then (local.set {b} \
             (i64.mul (local.get {c}) (local.get {a})))))"
        );
    }
    text.push_str("(local.get 3))\n");
    text
}

/// Generates three jump tables of fifty thousand targets.
fn huge_jump_tables() -> String {
    let targets = " 0 1 2 3 4 5 6 7 8 9".repeat(5_000);
    let mut text = String::new();
    for _ in 0..3 {
        let _ = writeln!(
            text,
            "(func (param i32) {} (br_table {targets} (local.get 0)) {})",
            "block ".repeat(10),
            "end ".repeat(10)
        );
    }
    text
}

/// Generates the functions of an honest guest, and after them ten thousand functions with fifty
/// thousand local variables each. Each of these functions takes a dozen bytes.
fn locals_in_each() -> Result<Vec<u8>> {
    const COUNT: usize = 10_000;
    let honest = frame::build("locals-in-each", "(type (func))\n")?;
    // The body declares one group of 64-bit locals, and ends.
    let body = [&[1][..], &leb(50_000), &[0x7E, 0x0B]].concat();
    let body = [leb(body.len()), body].concat();
    let mut module = honest[..8].to_vec();
    for (id, content) in sections(&honest, 8)? {
        let more = match id {
            // Each function has the first type of the module.
            FUNCTIONS => vec![0; COUNT],
            CODE => body.repeat(COUNT),
            _ => {
                section(&mut module, id, &content);
                continue;
            }
        };
        // The number of functions is so small that its encoding takes one byte.
        let count = usize::from(content[0]);
        ensure!(count < 0x80, "the honest guest has {count} functions");
        section(&mut module, id, &[&leb(count + COUNT)[..], &content[1..], &more].concat());
    }
    Ok(module)
}

/// Generates a type with 2^40 parts, defined in forty lines.
fn doubling_types() -> Result<Vec<u8>> {
    let mut text = "(component (type (tuple u8 u8))".to_owned();
    for n in 0..40 {
        let _ = writeln!(text, "(type (tuple {n} {n}))");
    }
    text.push_str("(import \"f\" (func (param \"x\" 40))))");
    Ok(wat::parse_str(text)?)
}

/// Generates a list type whose elements are lists of lists, and so on.
fn nested_types() -> Result<Vec<u8>> {
    let mut text = "(component (type (list u8))".to_owned();
    for n in 0..50_000 {
        let _ = writeln!(text, "(type (list {n}))");
    }
    text.push_str("(import \"f\" (func (param \"x\" 50000))))");
    Ok(wat::parse_str(text)?)
}

/// Generates an honest component that also creates `count` instances of a module.
fn with_instances(name: &str, module: &str, count: usize) -> Result<Vec<u8>> {
    let mut component = frame::component(&frame::build(name, "")?)?;
    let modules = sections(&component, 8)?.iter().filter(|(id, _)| *id == CORE_MODULE).count();
    section(&mut component, CORE_MODULE, &wat::parse_str(module)?);
    let mut instances = leb(count);
    for _ in 0..count {
        // Creates an instance of this module without imports.
        instances.push(0);
        instances.extend(leb(modules));
        instances.push(0);
    }
    section(&mut component, CORE_INSTANCE, &instances);
    Ok(component)
}

/// Appends a section with this id and content to the bytes.
pub(crate) fn section(to: &mut Vec<u8>, id: u8, body: &[u8]) {
    to.push(id);
    to.extend(leb(body.len()));
    to.extend_from_slice(body);
}

/// Splits the bytes into their outermost sections, each with its id and content.
pub(crate) fn sections(of: &[u8], mut at: usize) -> Result<Vec<(u8, Vec<u8>)>> {
    let mut found = Vec::new();
    while at < of.len() {
        let (id, mut len, mut shift) = (of[at], 0_usize, 0);
        loop {
            at += 1;
            let byte = *of.get(at).context("a length is cut off")?;
            len |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            ensure!(shift < 35, "a length is too long");
        }
        at += 1;
        found.push((id, of.get(at..at + len).context("a section is cut off")?.to_vec()));
        at += len;
    }
    Ok(found)
}

/// Encodes an unsigned number in LEB128.
pub(crate) fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7F).unwrap_or_default();
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
