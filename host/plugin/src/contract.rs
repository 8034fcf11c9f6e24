//! Checks whether a component follows the plugin contract, before it is compiled. The error names
//! the function or version that differs, and says what to do.

use std::fmt::Write as _;
use std::sync::LazyLock;

use wit_parser::{
    Function, Handle, InterfaceId, Resolve, Type, TypeDefKind, TypeId, WorldId, WorldItem, WorldKey,
};

use crate::LoadError;
use crate::wasi;

/// The WIT file of the contract, the same as in the SDKs.
const WIT: &str = include_str!("../../../wit/projection.wit");
/// The name of its package.
pub(crate) const PACKAGE: &str = "lantern:projection";
/// The interface that a projection exports.
const PROJECTOR: &str = "lantern:projection/projector";
/// The interface that an interpreter imports.
const SOURCE: &str = "lantern:projection/source";
/// The maximum length of the text for a type, in bytes. Types can be nested without limit, so their
/// texts need a limit.
const TYPE_BYTES_MAX: usize = 2_000;
/// The maximum number of names that an error lists.
const NAMES_MAX: usize = 8;

/// The contract that this host supports.
static CONTRACT: LazyLock<Contract> = LazyLock::new(Contract::parse);

/// The contract after its WIT file was parsed.
struct Contract {
    resolve: Resolve,
    world: WorldId,
    version: String,
}

impl Contract {
    fn parse() -> Self {
        let mut resolve = Resolve::default();
        let package = resolve
            .push_source("projection.wit", WIT)
            .expect("the contract is checked with the code");
        let world = resolve.select_world(&[package], Some("interpreter"));
        // This world has all imports of the contract. The other world lacks `source`.
        let world = world.expect("the contract has this world");
        let version = resolve.packages[package].name.version.as_ref();
        let version = version.expect("the contract has a version").to_string();
        Self { resolve, world, version }
    }

    /// Returns the interface `name` (without a version) of the contract, if the contract's world
    /// imports or exports it.
    fn interface(&self, name: &str) -> Option<InterfaceId> {
        let world = &self.resolve.worlds[self.world];
        world.imports.values().chain(world.exports.values()).find_map(|item| match item {
            WorldItem::Interface { id, .. } => {
                let full = self.resolve.id_of(*id)?;
                (split(&full).0 == name).then_some(*id)
            }
            _ => None,
        })
    }
}

/// Adds a description of the contract's world to a core module that has none. So a module that was
/// written by hand can be uploaded without another tool.
///
/// # Errors
/// Fails if the description cannot be encoded.
pub(crate) fn describe_module(module: &mut Vec<u8>) -> Result<(), String> {
    let Contract { resolve, world, .. } = &*CONTRACT;
    let utf8 = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(module, resolve, *world, utf8)
        .map_err(|error| format!("{error:#}"))
}

/// Checks the imports and exports of the component whose bytes are `component`. A component that
/// cannot be decoded passes this check; the linker later refuses it with an error of its own.
///
/// # Errors
/// Returns [`LoadError`] for the first import, export or function that does not match.
pub(crate) fn check(component: &[u8], allow_wasi: bool) -> Result<(), LoadError> {
    let Ok(wit_component::DecodedWasm::Component(resolve, world)) =
        wit_component::decode(component)
    else {
        return Ok(());
    };
    let contract = &*CONTRACT;
    let world = &resolve.worlds[world];
    for (key, item) in &world.imports {
        let name = name_of(&resolve, key);
        match item {
            WorldItem::Type { .. } => {}
            WorldItem::Function(_) => return Err(no_such(&name)),
            WorldItem::Interface { id, .. } => {
                check_import(&name, allow_wasi)?;
                check_functions(contract, &resolve, *id, &name)?;
            }
        }
    }
    let mut exports = Vec::new();
    for (key, item) in &world.exports {
        let name = name_of(&resolve, key);
        let (stem, version) = split(&name);
        if stem == PROJECTOR
            && let WorldItem::Interface { id, .. } = item
        {
            check_version(&name, version, "exports", &contract.version)?;
            check_functions(contract, &resolve, *id, &name)?;
            return check_projector_is_whole(contract, &resolve, *id);
        }
        exports.push(name);
    }
    Err(no_projector(&contract.version, &exports))
}

/// Checks whether a component may have an import with this name.
///
/// # Errors
/// Returns a [`LoadError`] with the probable reason why the plugin has the import.
pub(crate) fn check_import(name: &str, allow_wasi: bool) -> Result<(), LoadError> {
    let (stem, version) = split(name);
    if stem.starts_with("wasi:") {
        return check_wasi(name, stem, version, allow_wasi);
    }
    if stem.split('/').next() != Some(PACKAGE) {
        return Err(no_such(name));
    }
    let contract = &*CONTRACT;
    check_version(name, version, "imports", &contract.version)?;
    if contract.interface(stem).is_none() { Err(no_such(name)) } else { Ok(()) }
}

/// Returns whether a plugin with an import of this name is an interpreter.
pub(crate) fn is_source(name: &str) -> bool {
    split(name).0 == SOURCE
}

/// Returns the error for a component that does not export the interface of a projection.
pub(crate) fn no_projector(version: &str, exports: &[String]) -> LoadError {
    let names = list(exports.iter().map(String::as_str));
    let exports = if exports.iter().any(|name| name.starts_with("wasi:cli/run")) {
        format!("{names}: it is a command-line program")
    } else if exports.iter().any(|name| name.starts_with("wasi:http/")) {
        format!("{names}: it is a web server")
    } else {
        names
    };
    LoadError::NoProjector { expected: format!("{PROJECTOR}@{version}"), exports }
}

/// Returns the contract, as a base for worlds that use its interfaces.
pub(crate) fn resolve() -> Resolve {
    CONTRACT.resolve.clone()
}

/// Returns the version of the contract that this host supports.
pub(crate) fn version() -> String {
    CONTRACT.version.clone()
}

fn check_wasi(
    name: &str,
    stem: &str,
    version: Option<&str>,
    allow_wasi: bool,
) -> Result<(), LoadError> {
    let why = if !allow_wasi {
        "this host runs plugins without WASI; in Rust, build for wasm32-unknown-unknown, or set \
         `plugin.allow_wasi`"
    } else if version.and_then(track) != Some((0, 2)) {
        "this host has WASI 0.2; build the plugin for wasm32-wasip2"
    } else if wasi::INTERFACES.contains(&stem) {
        return Ok(());
    } else if stem.starts_with("wasi:sockets/") || stem.starts_with("wasi:http/") {
        "a projection has no network, because a replay could not give the same answer"
    } else {
        "projections cannot use this part of WASI"
    };
    Err(LoadError::Wasi { name: name.into(), why: why.into() })
}

fn check_version(
    name: &str,
    version: Option<&str>,
    verb: &str,
    have: &str,
) -> Result<(), LoadError> {
    // Compatible versions differ only in additions to the contract.
    if version.is_some() && version.and_then(track) == track(have) {
        return Ok(());
    }
    Err(LoadError::Version {
        name: name.into(),
        verb: verb.into(),
        expected: version.unwrap_or("none").into(),
        have: have.into(),
    })
}

/// Checks every function of an interface that the plugin exports. The contract must have a function
/// of the same name and signature.
fn check_functions(
    contract: &Contract,
    resolve: &Resolve,
    id: InterfaceId,
    name: &str,
) -> Result<(), LoadError> {
    let Some(expected) = contract.interface(split(name).0) else {
        return Ok(());
    };
    let expected = &contract.resolve.interfaces[expected];
    for (function, actual) in &resolve.interfaces[id].functions {
        let Some(expected) = expected.functions.get(function) else {
            return Err(LoadError::Import {
                name: format!("{name}#{function}"),
                have: format!("it has {}", list(expected.functions.keys().map(String::as_str))),
            });
        };
        check_signature(contract, resolve, &format!("{name}#{function}"), (actual, expected))?;
    }
    Ok(())
}

fn check_projector_is_whole(
    contract: &Contract,
    resolve: &Resolve,
    id: InterfaceId,
) -> Result<(), LoadError> {
    let expected = contract.interface(PROJECTOR).expect("the contract has a projector");
    let missing = contract.resolve.interfaces[expected]
        .functions
        .keys()
        .find(|name| !resolve.interfaces[id].functions.contains_key(*name));
    match missing {
        Some(name) => Err(LoadError::NoProjector {
            expected: format!("{PROJECTOR}@{}#{name}", contract.version),
            exports: list(resolve.interfaces[id].functions.keys().map(String::as_str)),
        }),
        None => Ok(()),
    }
}

fn check_signature(
    contract: &Contract,
    resolve: &Resolve,
    function: &str,
    (actual, expected): (&Function, &Function),
) -> Result<(), LoadError> {
    let spell = |resolve, function, deep| {
        let mut speller = TypeFormatter { resolve, deep, text: String::new() };
        speller.function(function);
        speller.text
    };
    let deep = [spell(resolve, actual, true), spell(&contract.resolve, expected, true)];
    if deep[0] == deep[1] {
        return Ok(());
    }
    let short = [spell(resolve, actual, false), spell(&contract.resolve, expected, false)];
    // If the difference is within a named type, the text contains the definitions of all types.
    let [actual, expected] = if short[0] == short[1] { deep } else { short };
    Err(LoadError::Signature {
        function: function.into(),
        actual,
        expected,
        version: contract.version.clone(),
    })
}

fn no_such(name: &str) -> LoadError {
    let contract = &*CONTRACT;
    let world = &contract.resolve.worlds[contract.world];
    let have: Vec<_> = world.imports.keys().map(|key| name_of(&contract.resolve, key)).collect();
    let have = list(have.iter().map(String::as_str).filter(|name| !name.contains("/types@")));
    LoadError::Import { name: name.into(), have: format!("it has {have}") }
}

/// Splits `name@version` into the name and the version.
fn split(name: &str) -> (&str, Option<&str>) {
    name.split_once('@').map_or((name, None), |(stem, version)| (stem, Some(version)))
}

/// Returns the numbers of `version` that all compatible versions of the contract share: the major
/// version and, before 1.0, the minor version.
fn track(version: &str) -> Option<(u64, u64)> {
    let mut numbers = version.split(['.', '-', '+']).map(str::parse);
    match (numbers.next()?.ok()?, numbers.next()?.ok()?) {
        (0, minor) => Some((0, minor)),
        (major, _) => Some((major, 0)),
    }
}

fn name_of(resolve: &Resolve, key: &WorldKey) -> String {
    resolve.name_world_key(key)
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    let mut text = String::new();
    for (index, name) in names.iter().take(NAMES_MAX).enumerate() {
        let _ = write!(text, "{}`{name}`", if index == 0 { "" } else { ", " });
    }
    match names.len() {
        0 => "nothing".into(),
        more if more > NAMES_MAX => format!("{text} and {} more", more - NAMES_MAX),
        _ => text,
    }
}

/// Writes types in WIT syntax. Named types are written by name or, for a comparison, with their
/// definition.
struct TypeFormatter<'a> {
    resolve: &'a Resolve,
    deep: bool,
    text: String,
}

impl TypeFormatter<'_> {
    fn function(&mut self, function: &Function) {
        self.text.push_str("func(");
        for (index, param) in function.params.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let _ = write!(self.text, "{comma}{}: ", param.name);
            self.spell(&param.ty);
        }
        self.text.push(')');
        if let Some(result) = &function.result {
            self.text.push_str(" -> ");
            self.spell(result);
        }
    }

    fn spell(&mut self, ty: &Type) {
        let simple = match ty {
            Type::Bool => "bool",
            Type::U8 => "u8",
            Type::U16 => "u16",
            Type::U32 => "u32",
            Type::U64 => "u64",
            Type::S8 => "s8",
            Type::S16 => "s16",
            Type::S32 => "s32",
            Type::S64 => "s64",
            Type::F32 => "f32",
            Type::F64 => "f64",
            Type::Char => "char",
            Type::String => "string",
            Type::ErrorContext => "error-context",
            Type::Id(id) => return self.defined(*id),
        };
        self.text.push_str(simple);
    }

    fn defined(&mut self, id: TypeId) {
        if self.text.len() > TYPE_BYTES_MAX {
            return;
        }
        let def = &self.resolve.types[id];
        if let TypeDefKind::Type(alias) = &def.kind {
            return self.spell(alias);
        }
        if let (false, Some(name)) = (self.deep, &def.name) {
            self.text.push_str(name);
            return;
        }
        match &def.kind {
            TypeDefKind::Record(record) => self.fields(
                "record",
                record.fields.iter().map(|field| (field.name.as_str(), Some(&field.ty))),
            ),
            TypeDefKind::Variant(variant) => self.fields(
                "variant",
                variant.cases.iter().map(|case| (case.name.as_str(), case.ty.as_ref())),
            ),
            TypeDefKind::Enum(cases) => {
                self.fields("enum", cases.cases.iter().map(|case| (case.name.as_str(), None)));
            }
            TypeDefKind::Flags(flags) => {
                self.fields("flags", flags.flags.iter().map(|flag| (flag.name.as_str(), None)));
            }
            TypeDefKind::Tuple(tuple) => {
                self.list("tuple", tuple.types.iter().map(Some));
            }
            TypeDefKind::Option(of) => self.list("option", [Some(of)].into_iter()),
            TypeDefKind::List(of) => self.list("list", [Some(of)].into_iter()),
            TypeDefKind::Result(result) => {
                self.list("result", [result.ok.as_ref(), result.err.as_ref()].into_iter());
            }
            TypeDefKind::Handle(Handle::Own(id) | Handle::Borrow(id)) => {
                self.text.push_str(def.kind.as_str());
                let name = self.resolve.types[*id].name.as_deref().unwrap_or("resource");
                let _ = write!(self.text, "<{name}>");
            }
            other => self.text.push_str(other.as_str()),
        }
    }

    fn fields<'t>(
        &mut self,
        what: &str,
        fields: impl Iterator<Item = (&'t str, Option<&'t Type>)>,
    ) {
        let _ = write!(self.text, "{what} {{");
        for (index, (name, ty)) in fields.enumerate() {
            let _ = write!(self.text, "{} {name}", if index == 0 { "" } else { "," });
            if let Some(ty) = ty {
                self.text.push_str(": ");
                self.spell(ty);
            }
        }
        self.text.push_str(" }");
    }

    fn list<'t>(&mut self, what: &str, types: impl Iterator<Item = Option<&'t Type>>) {
        let _ = write!(self.text, "{what}<");
        for (index, ty) in types.enumerate() {
            self.text.push_str(if index == 0 { "" } else { ", " });
            match ty {
                Some(ty) => self.spell(ty),
                None => self.text.push('_'),
            }
        }
        self.text.push('>');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, allow_wasi: bool, expected: &str) {
        let message = check_import(name, allow_wasi)
            .map_or_else(|e| format!("{} {e}", e.code()), |()| "fine".into());
        assert!(message.contains(expected), "{name}: {message} does not say {expected}");
    }

    #[test]
    fn an_import_is_accepted_or_refused_with_a_reason() {
        check("lantern:projection/tables@0.2.0", false, "fine");
        check("lantern:projection/types@0.2.7", false, "fine");
        check("lantern:projection/tables@0.1.0", true, "built for version 0.1.0 of the contract");
        check("lantern:projection/tables", true, "built for version none");
        check("lantern:projection/clocks@0.2.0", true, "`lantern:projection/tables@0.2.0`");
        check("other:thing/api@1.0.0", true, "LAN-0108");
        check("env", true, "LAN-0108");
        check("wasi:clocks/wall-clock@0.2.3", true, "fine");
        check("wasi:clocks/wall-clock@0.2.3", false, "wasm32-unknown-unknown");
        check("wasi:clocks/wall-clock@0.3.0", true, "has WASI 0.2");
        check("wasi:sockets/tcp@0.2.0", true, "no network");
        check("wasi:nn/graph@0.2.0", true, "cannot use this part");
    }

    #[test]
    fn tracks_are_major_versions_and_minor_ones_before_the_first() {
        assert_eq!(track("0.1.0"), Some((0, 1)));
        assert_eq!(track("0.1.0-rc.1"), Some((0, 1)));
        assert_eq!(track("3.1.4"), Some((3, 0)));
        assert_eq!(track("x"), None);
    }
}
