//! `docs/config.md`: the settings of `ServerConfig` and all structs below it,
//! with the documentation and the defaults that stand in the sources.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::check::Repository;
use crate::lex::{self, Kind, Token};

/// The struct that holds all settings.
const ROOT: &str = "ServerConfig";
/// Fields of the root that stand in the section of another.
const MOVED: [(&str, &str); 1] = [("kafka", "log.kafka")];
/// The default of what only its text can tell.
const TOLD: &str = "see there";
/// How deep sections may lie in each other.
const DEPTH_MAX: usize = 8;

const INTRO: &str = "\
# Configuration

Nothing has to be set. What is, is taken from, the later beating the earlier: the defaults below, \
the file `lantern.toml` in the working folder (or the one that `lantern serve --config` names), \
the environment, flags of `lantern serve`.

In the file, a key stands in its section:

```toml
data = \"/var/lib/lantern\"

[http]
listen = \"127.0.0.1:7420\"
```

In the environment, its name begins with `LANTERN_`, and two underscores part section and key: \
`LANTERN_HTTP__LISTEN=127.0.0.1:7420`, `LANTERN_DATA=/var/lib/lantern`. A key that is not known is \
an error that names it.
";

/// A struct's or an enum's own documentation, and that of its parts.
#[derive(Default)]
struct Type {
    docs: String,
    /// Fields with their types, or variants with none.
    parts: Vec<Part>,
    /// What `Default` gives each field; the default variant's name.
    defaults: BTreeMap<String, Vec<Token>>,
    is_enum: bool,
}

struct Part {
    name: String,
    /// The last name of the type: of `Option<u64>` it is `Option`.
    kind: String,
    docs: String,
    is_default: bool,
}

struct Types {
    types: BTreeMap<String, Type>,
    constants: BTreeMap<String, Vec<Token>>,
}

/// The whole document.
pub(crate) fn document(repository: &Repository) -> String {
    let mut types = Types { types: BTreeMap::new(), constants: BTreeMap::new() };
    for source in repository.sources.iter().filter(|source| source.in_folder("host")) {
        let (tokens, _) = lex::without_tests(&source.tokens);
        types.read(&tokens);
    }
    let mut text = INTRO.to_owned();
    types.section(ROOT, "", "", &mut text, 0);
    text
}

impl Types {
    /// Collects the types, defaults and constants of one file.
    fn read(&mut self, tokens: &[Token]) {
        let mut docs = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            let next = tokens.get(at + 1).and_then(Token::ident);
            match (&tokens[at].kind, next) {
                (Kind::Doc(line), _) => docs.push(line.clone()),
                (Kind::Comment(_) | Kind::InnerDoc(_), _) => (),
                (Kind::Punct('#'), _) => at = lex::closing(tokens, at + 1),
                (Kind::Ident(word), _) if word == "pub" => {
                    if tokens.get(at + 1).is_some_and(|t| t.punct('(')) {
                        at = lex::closing(tokens, at + 1);
                    }
                }
                (Kind::Ident(word), Some(name)) if word == "struct" || word == "enum" => {
                    let (name, is_enum) = (name.to_owned(), word == "enum");
                    at = self.definition(tokens, at + 2, &name, prose(&docs), is_enum);
                    docs.clear();
                }
                (Kind::Ident(word), Some("Default")) if word == "impl" => {
                    at = self.default_of(tokens, at + 2);
                    docs.clear();
                }
                (Kind::Ident(word), Some(name)) if word == "const" => {
                    let end = statement_end(tokens, at);
                    if let Some(equals) = (at..end).find(|i| tokens[*i].punct('=')) {
                        self.constants.insert(name.into(), lex::code(&tokens[equals + 1..end]));
                    }
                    docs.clear();
                    at = end;
                }
                _ => docs.clear(),
            }
            at += 1;
        }
    }

    /// A struct with named fields or an enum; returns the place of its end.
    fn definition(
        &mut self,
        tokens: &[Token],
        start: usize,
        name: &str,
        docs: String,
        is_enum: bool,
    ) -> usize {
        if !tokens.get(start).is_some_and(|token| token.punct('{')) {
            return start;
        }
        let end = lex::closing(tokens, start);
        let entry = self.types.entry(name.to_owned()).or_default();
        entry.docs = docs;
        entry.is_enum = is_enum;
        entry.parts = parts(&tokens[start + 1..end]);
        end
    }

    /// `impl Default for X { … Self { field: value, … } … }`.
    fn default_of(&mut self, tokens: &[Token], start: usize) -> usize {
        let name = tokens.get(start + 1).and_then(Token::ident);
        let (Some(name), true) = (name, tokens[start].is("for")) else { return start };
        let open = start + 2;
        let end = lex::closing(tokens, open);
        let literal = (open..end).find(|at| {
            let braced = tokens.get(at + 1).is_some_and(|token| token.punct('{'));
            braced && tokens[*at].is("Self") && !tokens[at - 1].punct('>')
        });
        if let Some(literal) = literal {
            let inside = &tokens[literal + 2..lex::closing(tokens, literal + 1)];
            let entry = self.types.entry(name.to_owned()).or_default();
            for value in split(&lex::code(inside)) {
                let Some(field) = value.first().and_then(Token::ident) else { continue };
                let expression = value.get(2..).unwrap_or_default().to_vec();
                entry.defaults.insert(field.to_owned(), expression);
            }
        }
        end
    }

    /// Writes the settings of `name`, then those of the sections in it.
    fn section(&self, name: &str, prefix: &str, docs: &str, text: &mut String, depth: usize) {
        let Some(found) = self.types.get(name).filter(|_| depth < DEPTH_MAX) else { return };
        let title = if prefix.is_empty() { "At the top".into() } else { format!("`[{prefix}]`") };
        let _ = writeln!(text, "\n## {title}\n");
        if !docs.is_empty() {
            let _ = writeln!(text, "{docs}\n");
        }
        let is_section =
            |part: &&Part| self.types.get(&part.kind).is_some_and(|found| !found.is_enum);
        // A field without a type of a name is not set: it stands for another's section.
        let is_setting = |part: &&Part| !is_section(part) && !part.kind.is_empty();
        let settings: Vec<_> = found.parts.iter().filter(is_setting).collect();
        if !settings.is_empty() {
            text.push_str("| key | default | |\n|---|---|---|\n");
        }
        for part in settings {
            let default = self.default_text(found, part);
            // What the column says need not be said again.
            let told = part.docs.rsplit_once(" Default ").filter(|_| default != TOLD);
            let docs = told.map_or(part.docs.as_str(), |(docs, _)| docs);
            let docs = format!("{docs}{}", self.choices(&part.kind));
            let _ =
                writeln!(text, "| `{}` | {default} | {} |", part.name, docs.replace('|', "\\|"));
        }
        for part in found.parts.iter().filter(is_section) {
            let dot = if prefix.is_empty() { "" } else { "." };
            let moved = MOVED.iter().find(|(name, _)| prefix.is_empty() && *name == part.name);
            let path = moved.map_or_else(
                || format!("{prefix}{dot}{}", part.name),
                |(_, section)| (*section).to_owned(),
            );
            self.section(&part.kind, &path, &part.docs, text, depth + 1);
        }
    }

    /// What an enum's values are.
    fn choices(&self, kind: &str) -> String {
        let Some(found) = self.types.get(kind).filter(|found| found.is_enum) else {
            return String::new();
        };
        let listed = found.parts.iter().map(|part| {
            let docs = part.docs.trim_end_matches('.');
            format!("`{}` ({})", part.name.to_lowercase(), lower(docs))
        });
        format!(" One of {}.", listed.collect::<Vec<_>>().join(", "))
    }

    fn default_text(&self, owner: &Type, part: &Part) -> String {
        if let Some(choice) = self.types.get(&part.kind).filter(|found| found.is_enum) {
            let default = choice.parts.iter().find(|part| part.is_default);
            return default.map_or(String::new(), |p| format!("`\"{}\"`", p.name.to_lowercase()));
        }
        match owner.defaults.get(&part.name) {
            Some(value) => self.value_text(value, &part.name, owner),
            None => match part.kind.as_str() {
                "bool" => "`false`".into(),
                "Option" => "not set".into(),
                "Vec" | "BTreeMap" => "none".into(),
                "String" | "PathBuf" => "`\"\"`".into(),
                _ => "`0`".into(),
            },
        }
    }

    /// A default as TOML has it; nothing where the text must tell.
    fn value_text(&self, value: &[Token], name: &str, owner: &Type) -> String {
        if let Some(number) = self.number(value, owner, 0) {
            return number_text(number, name);
        }
        match value.first().map(|token| &token.kind) {
            Some(Kind::Str(text)) => format!("`\"{text}\"`"),
            Some(Kind::Ident(word)) if word == "true" || word == "false" => format!("`{word}`"),
            Some(Kind::Ident(word)) if word == "None" => "not set".into(),
            Some(Kind::Ident(word)) if word == "Some" => {
                self.value_text(value.get(2..value.len() - 1).unwrap_or_default(), name, owner)
            }
            Some(Kind::Ident(word)) if word == "Vec" || word == "BTreeMap" => "none".into(),
            _ => TOLD.into(),
        }
    }

    /// The value of an expression of numbers, constants and fields of other
    /// defaults; `depth` bounds how far those lead.
    fn number(&self, value: &[Token], owner: &Type, depth: usize) -> Option<i128> {
        if depth > DEPTH_MAX {
            return None;
        }
        // The operators that bind least first; the last of them splits.
        for operators in [&["<<"][..], &["+", "-"], &["*", "/"]] {
            if let Some((at, operator)) = last_operator(value, operators) {
                let left = self.number(&value[..at], owner, depth + 1)?;
                let right = self.number(&value[at + operator.len()..], owner, depth + 1)?;
                return match operator {
                    "<<" => left.checked_shl(u32::try_from(right).ok()?),
                    "+" => left.checked_add(right),
                    "-" => left.checked_sub(right),
                    "*" => left.checked_mul(right),
                    _ => left.checked_div(right),
                };
            }
        }
        let end = value.iter().position(|token| token.is("as")).unwrap_or(value.len());
        match &value[..end] {
            [token] => match &token.kind {
                Kind::Number(text) => parse(text),
                Kind::Ident(name) => self.number(self.constants.get(name)?, owner, depth + 1),
                _ => None,
            },
            [open, inside @ .., close] if open.punct('(') && close.punct(')') => {
                self.number(inside, owner, depth + 1)
            }
            // A field of another struct's defaults.
            [_, dot, field] if dot.punct('.') => {
                let mut others = self.types.values().filter(|other| !std::ptr::eq(*other, owner));
                others.find_map(|other| {
                    self.number(other.defaults.get(field.ident()?)?, other, depth + 1)
                })
            }
            _ => None,
        }
    }
}

/// The last of these operators outside of brackets.
fn last_operator<'a>(value: &[Token], operators: &[&'a str]) -> Option<(usize, &'a str)> {
    let mut at = 0;
    let mut found = None;
    while at < value.len() {
        if value[at].punct('(') {
            at = lex::closing(value, at);
        }
        for operator in operators {
            let matched = operator
                .chars()
                .enumerate()
                .all(|(i, c)| value.get(at + i).is_some_and(|token| token.punct(c)));
            if matched && at > 0 {
                found = Some((at, *operator));
            }
        }
        at += 1;
    }
    found
}

fn parse(text: &str) -> Option<i128> {
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

fn number_text(number: i128, name: &str) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && digits.len() > 4 && (digits.len() - place).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    let unit = |bits: u32, unit: &str| {
        let size = 1_i128 << bits;
        (number >= size && number % size == 0).then(|| format!(" ({} {unit})", number / size))
    };
    let human = if name.contains("bytes") {
        unit(30, "GiB").or_else(|| unit(20, "MiB")).or_else(|| unit(10, "KiB"))
    } else {
        None
    };
    format!("`{text}`{}", human.unwrap_or_default())
}

/// The place of the semicolon that ends a statement.
fn statement_end(tokens: &[Token], start: usize) -> usize {
    let mut at = start;
    while at < tokens.len() {
        match tokens[at].kind {
            Kind::Punct(';') => return at,
            Kind::Punct('{') => return lex::closing(tokens, at),
            Kind::Punct('(' | '[') => at = lex::closing(tokens, at) + 1,
            _ => at += 1,
        }
    }
    tokens.len() - 1
}

/// Parts between commas outside of brackets.
fn split(tokens: &[Token]) -> Vec<&[Token]> {
    let mut found = Vec::new();
    let (mut start, mut at, mut angles) = (0, 0, 0_i32);
    while at < tokens.len() {
        match tokens[at].kind {
            Kind::Punct('(' | '[' | '{') => at = lex::closing(tokens, at),
            Kind::Punct('<') => angles += 1,
            Kind::Punct('>') => angles -= 1,
            // A shift has two of them that nothing closes.
            Kind::Punct(',') if angles % 2 == 0 => {
                found.push(&tokens[start..at]);
                (start, angles) = (at + 1, 0);
            }
            _ => (),
        }
        at += 1;
    }
    if start < tokens.len() {
        found.push(&tokens[start..]);
    }
    found
}

/// The fields or variants in a body.
fn parts(body: &[Token]) -> Vec<Part> {
    split(body).into_iter().filter_map(part).collect()
}

fn part(tokens: &[Token]) -> Option<Part> {
    let (mut docs, mut is_default, mut at) = (Vec::new(), false, 0);
    loop {
        let token = tokens.get(at)?;
        match &token.kind {
            Kind::Doc(line) => docs.push(line.clone()),
            Kind::Comment(_) => (),
            Kind::Punct('#') => {
                let end = lex::closing(tokens, at + 1);
                let names = |name: &str| tokens[at..end].iter().any(|token| token.is(name));
                if names("serde") && names("skip") {
                    return None;
                }
                is_default |= names("default");
                at = end;
            }
            Kind::Ident(word) if word == "pub" => {
                if tokens.get(at + 1).is_some_and(|token| token.punct('(')) {
                    at = lex::closing(tokens, at + 1);
                }
            }
            _ => break,
        }
        at += 1;
    }
    let name = tokens.get(at)?.ident()?.to_owned();
    let generic = |token: &&Token| !token.punct('<');
    let kind = tokens[at + 1..].iter().take_while(generic).filter_map(Token::ident).last();
    let kind = kind.unwrap_or_default().to_owned();
    Some(Part { name, kind, docs: prose(&docs), is_default })
}

/// Lines of documentation as one line of Markdown without links to code.
fn prose(docs: &[String]) -> String {
    let text = docs.join(" ").replace("[`", "`").replace("`]", "`");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    let second = text.chars().nth(1).is_some_and(char::is_uppercase);
    match chars.next() {
        // An abbreviation stays as it is.
        Some(first) if !second => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Workspace;

    const SOURCE: &str = r#"
        /// All.
        pub struct ServerConfig {
            /// The folder, see [`Other`].
            pub data: PathBuf,
            /// The HTTP API.
            pub http: HttpConfig,
            pub how: How,
        }
        impl Default for ServerConfig {
            fn default() -> Self {
                let limits = Limits::default();
                Self { data: "data".into(), http: HttpConfig::default(), how: How::default() }
            }
        }
        const MOST: usize = 3 * 1_000;
        #[derive(Default)]
        pub struct HttpConfig {
            /// Bytes. Default 16 MiB.
            #[serde(rename = "x")]
            pub body_bytes: u64,
            /// With | a bar.
            pub names: BTreeMap<String, u64>,
            /// Not to be set.
            #[serde(skip)]
            pub hidden: u64,
            pub most: usize, pub sum: u64, pub other: u32, pub age: Option<u64>, pub on: bool,
        }
        impl Default for HttpConfig {
            fn default() -> Self {
                Self { body_bytes: 16 << 20, names: BTreeMap::new(), most: MOST,
                       sum: 128 * 1024 - 256, other: limits.other, age: None, on: true }
            }
        }
        impl Default for Limits { fn default() -> Self { Self { other: 7 } } }
        pub enum How { /// Not at all.
            None, /// LZ4.
            #[default] Lz4 }
    "#;

    #[test]
    fn every_setting_has_its_text_and_its_default() {
        let files = [("host/a/src/config.rs", SOURCE)];
        let text = document(&Repository::of(Workspace::default(), &files));
        for line in [
            "| `data` | `\"data\"` | The folder, see `Other`. |",
            "| `how` | `\"lz4\"` |  One of `none` (not at all), `lz4` (LZ4). |",
            "## `[http]`\n\nThe HTTP API.\n",
            "| `body_bytes` | `16_777_216` (16 MiB) | Bytes. |",
            "| `names` | none | With \\| a bar. |",
            "| `most` | `3000` |",
            "| `sum` | `130_816` |",
            "| `other` | `7` |",
            "| `age` | not set |",
            "| `on` | `true` |",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
        assert!(!text.contains("hidden"), "{text}");
    }
}
