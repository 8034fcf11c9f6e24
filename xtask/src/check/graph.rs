//! Finds which file of a crate imports which other file: by `use`, or by a path that
//! begins with `crate`, `super` or `self`. Files that import each other in a circle
//! cannot be understood or tested separately.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Repository, code_of};

/// The maximum number of files in circles, for each crate. Lower a ceiling when a
/// circle is removed, and never raise it.
const CEILINGS: [(&str, usize); 11] = [
    ("clients/rust", 0),
    ("host/engine", 0),
    ("host/kafka", 0),
    ("host/live", 0),
    ("host/log", 0),
    ("host/query", 0),
    ("host/redb-file", 0),
    ("host/server", 0),
    ("host/store", 0),
    ("host/traces", 0),
    ("sdk/rust", 0),
];

/// The files of a crate by module path (`a::b`, or empty for `lib.rs`), each with the modules that
/// it imports.
#[derive(Default)]
pub(crate) struct Graph {
    files: BTreeMap<String, String>,
    imports: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// Reads the sources of the crate in `folder`, without their tests.
    pub(crate) fn new(repository: &Repository, folder: &str) -> Self {
        let src = format!("{folder}/src/");
        let texts: BTreeMap<_, _> = repository
            .texts
            .iter()
            .filter_map(|(path, text)| Some((module(path.strip_prefix(&src)?)?, (path, text))))
            .filter(|(_, (path, _))| !super::is_test_file(path))
            .map(|(module, (path, text))| (module, (path.clone(), code_of(text))))
            .collect();
        let mut graph = Self::default();
        for (module, (path, _)) in &texts {
            graph.files.insert(module.clone(), path.clone());
        }
        // If a module re-exports a name, then an import of this name from the module
        // counts as an import of the file that defines the name.
        let mut passed_on = BTreeMap::new();
        for (module, (_, text)) in &texts {
            for path in statements(text).filter(|text| is_public_use(text)).flat_map(paths) {
                // A re-export from an inline module of the same file is left out: this
                // file itself defines the name.
                if let Some((file, Some(name))) = graph.resolve(&absolute(module, &path))
                    && file != *module
                {
                    passed_on.insert(join(module, &name), file);
                }
            }
        }
        for (module, (_, text)) in &texts {
            let imports = graph.imports.entry(module.clone()).or_default();
            for path in statements(text).filter(|text| !is_public_use(text)).flat_map(paths) {
                let path = absolute(module, &path);
                let direct = resolve(&graph.files, &path);
                let Some((mut file, rest)) = direct else { continue };
                let mut name = rest.map(|name| join(&file, &name));
                while let Some(next) = name.as_ref().and_then(|name| passed_on.get(name)) {
                    let last = name.as_deref().and_then(|name| name.rsplit("::").next());
                    name = last.map(|last| join(next, last));
                    file.clone_from(next);
                }
                if file != *module {
                    imports.insert(file);
                }
            }
        }
        graph
    }

    fn resolve(&self, path: &str) -> Option<(String, Option<String>)> {
        resolve(&self.files, path)
    }

    /// Finds the circles. Each is a list of files that import each other, directly or through other
    /// files.
    pub(crate) fn circles(&self) -> Vec<Vec<&str>> {
        let reached: BTreeMap<_, _> =
            self.files.keys().map(|module| (module, self.reach(module))).collect();
        let mut circles: Vec<Vec<&str>> = Vec::new();
        for (module, file) in &self.files {
            let together = |other: &str| reached[module].contains(other);
            let known = circles.iter().flatten().any(|known| known == file);
            if known || !together(module) {
                continue;
            }
            let members = self
                .files
                .iter()
                .filter(|(other, _)| together(other) && reached[other].contains(module.as_str()));
            circles.push(members.map(|(_, file)| file.as_str()).collect());
        }
        circles
    }

    /// Finds the modules that `start` imports, directly or through other modules.
    fn reach<'a>(&'a self, start: &'a str) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::new();
        let mut open = vec![start];
        while let Some(module) = open.pop() {
            let imports = self.imports.get(module).into_iter().flatten();
            open.extend(imports.map(String::as_str).filter(|next| reached.insert(*next)));
        }
        reached
    }
}

impl std::fmt::Display for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let circles = self.circles();
        for (module, file) in &self.files {
            writeln!(f, "{file}")?;
            for import in &self.imports[module] {
                let target = &self.files[import];
                let both = |circle: &&Vec<&str>| {
                    circle.contains(&file.as_str()) && circle.contains(&target.as_str())
                };
                let mark =
                    if circles.iter().any(|circle| both(&circle)) { " (circle)" } else { "" };
                writeln!(f, "    {target}{mark}")?;
            }
        }
        for circle in &circles {
            writeln!(f, "\ncircle of {} files: {}", circle.len(), circle.join(", "))?;
        }
        Ok(())
    }
}

/// Computes the path of the module in a file below `src`. Returns `None` for `main.rs` and for
/// files that are not Rust.
fn module(file: &str) -> Option<String> {
    let path = file.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    match path {
        "lib" => Some(String::new()),
        "main" => None,
        path => Some(path.replace('/', "::")),
    }
}

fn join(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

/// Splits the text after each semicolon, so that a `use` is not split.
fn statements(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(';')
}

fn is_public_use(statement: &str) -> bool {
    let mut lines = statement
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//") && !line.starts_with("#["));
    let first = lines.next().unwrap_or_default();
    first.starts_with("pub") && first.contains(" use ")
}

/// Finds the paths in a statement that begin with `crate`, `super` or `self`; if the statement is a
/// `use`, also the paths that begin with another name. The braces of a `use` are expanded.
fn paths(statement: &str) -> Vec<String> {
    let code: String = statement
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, " "])
        .collect();
    let mut found = Vec::new();
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '$')) {
                tree(&code[at..], "", &mut found);
            }
        }
    }
    if let Some((head, path)) = code.split_once("use ")
        && head.chars().next_back().is_none_or(|c| c.is_whitespace() || c == ']')
        && (head.trim().is_empty() || head.trim_start().starts_with(['#', 'p']))
        && !["crate", "super", "self"].iter().any(|root| path.trim_start().starts_with(root))
    {
        tree(path.trim_start(), "", &mut found);
    }
    found
}

/// Reads a path, or a path with braces, at the start of `text`. Returns its length in
/// bytes.
fn tree(text: &str, prefix: &str, found: &mut Vec<String>) -> usize {
    let mut path = prefix.to_owned();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let name = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if name > 0 {
            path = join(&path, &rest[..name]);
            at += name;
        } else if rest.starts_with('{') {
            at += 1;
            while !text[at..].starts_with('}') && at < text.len() {
                at += tree(&text[at..], &path, found).max(1);
            }
            return (at + 1).min(text.len());
        }
        if !text[at..].starts_with("::") {
            break;
        }
        at += 2;
    }
    if at > 0 {
        found.push(path);
    }
    at
}

/// Converts a path that is used in `module` to a path from the crate's root.
fn absolute(module: &str, path: &str) -> String {
    let mut base: Vec<_> = module.split("::").filter(|part| !part.is_empty()).collect();
    let mut parts: Vec<_> = path.split("::").collect();
    match parts[0] {
        "crate" => base.clear(),
        "super" | "self" => (),
        // The path is from a `use`, and this name is the name of a child module or of another
        // crate. If it is another crate, the path matches no file.
        _ => parts.insert(0, "self"),
    }
    for part in parts {
        match part {
            "crate" | "self" => (),
            "super" => drop(base.pop()),
            part => base.push(part),
        }
    }
    base.join("::")
}

/// Finds the module whose file defines the item that the path names. Also returns the next name in
/// the path.
fn resolve(files: &BTreeMap<String, String>, path: &str) -> Option<(String, Option<String>)> {
    let parts: Vec<_> = path.split("::").collect();
    (0..=parts.len()).rev().find_map(|length| {
        let module = parts[..length].join("::");
        files.contains_key(&module).then(|| (module, parts.get(length).map(|n| (*n).to_owned())))
    })
}

/// Checks that the number of files in circles of each crate is at most its ceiling.
pub(super) fn files_import_one_way(repository: &Repository) -> Findings {
    circles_below(repository, &CEILINGS)
}

fn circles_below(repository: &Repository, ceilings: &[(&str, usize)]) -> Findings {
    let mut findings = Findings::default();
    for &(folder, ceiling) in ceilings {
        let graph = Graph::new(repository, folder);
        let circles = graph.circles();
        let files: Vec<_> = circles.iter().map(|circle| circle.join(", ")).collect();
        let what = format!(
            "files of `{folder}` that import each other in circles (`cargo xtask graph {folder}` \
             shows them: {})",
            files.join("; ")
        );
        findings.ceiling(&what, circles.iter().map(Vec::len).sum(), ceiling);
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Workspace;

    fn graph(files: &[(&str, &str)]) -> Graph {
        Graph::new(&Repository::of(Workspace::default(), files), "host/live")
    }

    #[test]
    fn files_that_import_each_other_are_a_circle() {
        let files = [
            ("host/live/src/lib.rs", "//! L.\nmod a;\nmod b;\nmod c;\npub use c::{d::D, C};"),
            ("host/live/src/a.rs", "use std::fmt;\nuse crate::{\n    b::{B, Other},\n};"),
            ("host/live/src/b.rs", "fn f() -> u8 { crate::C::new(); 1 }"),
            ("host/live/src/c/mod.rs", "mod d;\n// use crate::b;\nuse d::D;"),
            ("host/live/src/c/d.rs", "use super::super::a::A;\n#[cfg(test)]\nmod tests {}"),
            ("host/live/src/e.rs", "use crate::a;\n#[cfg(test)]\nmod tests { use crate::f; }"),
            ("host/live/src/f.rs", "use crate::e::E;\nmod inner { fn g() {} }\npub use inner::g;"),
            ("host/live/src/g.rs", "use crate::f::inner;"),
            ("host/live/src/h.rs", "pub fn h(c: &C) { match c.cause { C::A => h(c); _ => {} } }"),
        ];
        let found = graph(&files);
        let circle = ["a.rs", "b.rs", "c/mod.rs", "c/d.rs"].map(|f| format!("host/live/src/{f}"));
        assert_eq!(found.circles(), [circle]);
        assert!(found.to_string().contains("src/f.rs\n    host/live/src/e.rs\n"), "{found}");
        for (ceiling, breaches) in [(3, 1), (4, 0)] {
            let repository = Repository::of(Workspace::default(), &files);
            let found = circles_below(&repository, &[("host/live", ceiling)]);
            assert_eq!(found.breaches.len(), breaches, "{found:?}");
        }
        // `lib.rs` only re-exports a name of its child, so `lib.rs` is in no circle.
        assert_eq!(graph(&files[..3]).circles().len(), 0);
    }
}
