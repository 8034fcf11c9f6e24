//! Rust source as tokens with their lines: enough to look for names, measure
//! functions and read documentation comments, without a parser.
//!
//! It never fails: what it does not know becomes punctuation.

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A name or keyword.
    Ident(String),
    /// A string's content, escapes of quotes and backslashes resolved.
    Str(String),
    /// A number, as written.
    Number(String),
    /// A character or a lifetime.
    Other,
    /// One line of `///`, without its marks.
    Doc(String),
    /// One line of `//!`, without its marks.
    InnerDoc(String),
    /// Any other comment.
    Comment(String),
    /// One character of anything else.
    Punct(char),
}

/// A token and the line it begins on, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) line: usize,
}

impl Token {
    /// Whether it is this name.
    pub(crate) fn is(&self, name: &str) -> bool {
        matches!(&self.kind, Kind::Ident(text) if text == name)
    }

    /// Whether it is this character.
    pub(crate) fn punct(&self, c: char) -> bool {
        self.kind == Kind::Punct(c)
    }

    /// The name, where it is one.
    pub(crate) fn ident(&self) -> Option<&str> {
        match &self.kind {
            Kind::Ident(text) => Some(text),
            _ => None,
        }
    }

    fn is_comment(&self) -> bool {
        matches!(self.kind, Kind::Doc(_) | Kind::InnerDoc(_) | Kind::Comment(_))
    }
}

/// All tokens of `source`, comments included.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { chars: source.chars().collect(), at: 0, line: 1 };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.next() {
        tokens.push(token);
    }
    tokens
}

/// The tokens without comments.
pub(crate) fn code(tokens: &[Token]) -> Vec<Token> {
    tokens.iter().filter(|token| !token.is_comment()).cloned().collect()
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn bump(&mut self) -> char {
        let c = self.peek(0);
        if c == '\n' {
            self.line += 1;
        }
        self.at += 1;
        c
    }

    fn take_while(&mut self, test: impl Fn(char) -> bool) -> String {
        let mut text = String::new();
        while self.at < self.chars.len() && test(self.peek(0)) {
            text.push(self.bump());
        }
        text
    }

    fn next(&mut self) -> Option<Token> {
        self.take_while(char::is_whitespace);
        if self.at >= self.chars.len() {
            return None;
        }
        let line = self.line;
        let kind = match (self.peek(0), self.peek(1)) {
            ('/', '/') => self.line_comment(),
            ('/', '*') => self.block_comment(),
            ('"', _) => self.string(),
            ('\'', _) => self.quote(),
            (c, _) if c.is_ascii_digit() => {
                Kind::Number(self.take_while(|c| c.is_alphanumeric() || c == '_'))
            }
            (c, _) if c.is_alphabetic() || c == '_' => self.word(),
            _ => Kind::Punct(self.bump()),
        };
        Some(Token { kind, line })
    }

    fn line_comment(&mut self) -> Kind {
        let text = self.take_while(|c| c != '\n');
        if let Some(doc) = text.strip_prefix("//!") {
            return Kind::InnerDoc(doc.strip_prefix(' ').unwrap_or(doc).to_owned());
        }
        match text.strip_prefix("///") {
            Some(doc) if !doc.starts_with('/') => {
                Kind::Doc(doc.strip_prefix(' ').unwrap_or(doc).to_owned())
            }
            _ => Kind::Comment(text.trim_start_matches('/').trim().to_owned()),
        }
    }

    fn block_comment(&mut self) -> Kind {
        let mut depth = 0_usize;
        let mut text = String::new();
        while self.at < self.chars.len() {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {
                    text.push(self.bump());
                    continue;
                }
            }
            self.bump();
            self.bump();
            if depth == 0 {
                break;
            }
        }
        Kind::Comment(text.trim().to_owned())
    }

    fn string(&mut self) -> Kind {
        self.bump();
        let mut text = String::new();
        while self.at < self.chars.len() {
            match self.bump() {
                '"' => break,
                // A backslash at a line's end joins it with the next.
                '\\' if self.peek(0) == '\n' => {
                    self.take_while(char::is_whitespace);
                }
                '\\' => match self.bump() {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    c => text.push(c),
                },
                c => text.push(c),
            }
        }
        Kind::Str(text)
    }

    /// A character or a lifetime.
    fn quote(&mut self) -> Kind {
        self.bump();
        if self.peek(0) == '\\' {
            self.bump();
            self.bump();
            self.take_while(|c| c != '\'');
            self.bump();
        } else if self.peek(1) == '\'' {
            self.bump();
            self.bump();
        } else {
            self.take_while(|c| c.is_alphanumeric() || c == '_');
        }
        Kind::Other
    }

    /// A name, a keyword, or a literal with a prefix.
    fn word(&mut self) -> Kind {
        let word = self.take_while(|c| c.is_alphanumeric() || c == '_');
        match (word.as_str(), self.peek(0), self.peek(1)) {
            ("r" | "br" | "cr", '"' | '#', _) if self.raw_follows() => self.raw_string(),
            ("b" | "c", '"', _) => self.string(),
            ("b", '\'', _) => self.quote(),
            // A raw identifier is the name itself.
            ("r", '#', c) if c.is_alphabetic() || c == '_' => {
                self.bump();
                Kind::Ident(self.take_while(|c| c.is_alphanumeric() || c == '_'))
            }
            _ => Kind::Ident(word),
        }
    }

    fn raw_follows(&self) -> bool {
        let hashes = (0..).take_while(|i| self.peek(*i) == '#').count();
        self.peek(hashes) == '"'
    }

    fn raw_string(&mut self) -> Kind {
        let hashes = self.take_while(|c| c == '#').len();
        self.bump();
        let mut text = String::new();
        while self.at < self.chars.len() {
            let closes = self.peek(0) == '"' && (1..=hashes).all(|i| self.peek(i) == '#');
            let c = self.bump();
            if closes {
                self.take_while(|c| c == '#');
                break;
            }
            text.push(c);
        }
        Kind::Str(text)
    }
}

/// The place of the bracket that closes the one at `open`, or the end.
pub(crate) fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (place, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            Kind::Punct('(' | '[' | '{') => depth += 1,
            Kind::Punct(')' | ']' | '}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return place;
                }
            }
            _ => (),
        }
    }
    tokens.len().saturating_sub(1)
}

/// The tokens that are not of tests, and how many lines tests take.
///
/// Of tests are items under `#[cfg(test)]`, `#[test]` or an attribute that ends
/// in `::test`.
pub(crate) fn without_tests(tokens: &[Token]) -> (Vec<Token>, usize) {
    let mut kept = Vec::new();
    let mut lines = 0;
    let mut at = 0;
    while at < tokens.len() {
        let attribute = tokens[at].punct('#') && tokens.get(at + 1).is_some_and(|t| t.punct('['));
        if !attribute {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let end = closing(tokens, at + 1);
        if is_test(&tokens[at + 2..end]) {
            let last = item_end(tokens, end + 1);
            lines += tokens[last].line - tokens[at].line + 1;
            at = last + 1;
        } else {
            kept.extend_from_slice(&tokens[at..=end]);
            at = end + 1;
        }
    }
    (kept, lines)
}

/// Whether an attribute's inside marks a test.
fn is_test(inside: &[Token]) -> bool {
    let names: Vec<_> = inside.iter().filter_map(Token::ident).collect();
    match names.first() {
        Some(&"cfg") => names.contains(&"test") && !names.contains(&"not"),
        Some(_) => {
            let path = inside.iter().take_while(|t| !t.punct('(')).filter_map(Token::ident);
            path.last() == Some("test")
        }
        None => false,
    }
}

/// The place of an item's last token: its closing brace, or its semicolon.
fn item_end(tokens: &[Token], start: usize) -> usize {
    let mut at = start;
    while at < tokens.len() {
        match tokens[at].kind {
            Kind::Punct(';') => return at,
            Kind::Punct('{') => return closing(tokens, at),
            Kind::Punct('(' | '[') => at = closing(tokens, at) + 1,
            _ => at += 1,
        }
    }
    tokens.len() - 1
}

/// All paths of two names or more, those of `use` trees written out, with their
/// lines. A path of one name in a `use` counts too.
pub(crate) fn paths(code: &[Token]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < code.len() {
        if code[at].is("use") {
            at = use_tree(code, at + 1, "", &mut found);
            continue;
        }
        let Some(first) = code[at].ident() else {
            at += 1;
            continue;
        };
        let (mut path, line) = (first.to_owned(), code[at].line);
        at += 1;
        let mut parts = 1;
        while let (true, Some(name)) = (joined(code, at), code.get(at + 2).and_then(Token::ident)) {
            path = format!("{path}::{name}");
            parts += 1;
            at += 3;
        }
        if parts > 1 {
            found.push((path, line));
        }
    }
    found
}

/// Whether `::` stands at `at`.
fn joined(code: &[Token], at: usize) -> bool {
    let colon = |at: usize| code.get(at).is_some_and(|t| t.punct(':'));
    colon(at) && colon(at + 1)
}

/// Reads one tree of a `use`; returns the place behind it.
fn use_tree(code: &[Token], start: usize, prefix: &str, found: &mut Vec<(String, usize)>) -> usize {
    let mut at = start;
    let mut path = prefix.to_owned();
    while let Some(token) = code.get(at) {
        match &token.kind {
            Kind::Ident(name) if name == "as" => at += 2,
            Kind::Ident(name) => {
                let join = if path.is_empty() { "" } else { "::" };
                path = format!("{path}{join}{name}");
                at += 1;
                if !joined(code, at) {
                    found.push((path.trim_end_matches("::self").to_owned(), token.line));
                }
            }
            Kind::Punct(':') => at += 1,
            Kind::Punct('*') => {
                found.push((format!("{path}::*"), token.line));
                at += 1;
            }
            Kind::Punct('{') => {
                let end = closing(code, at);
                at += 1;
                while at < end {
                    at = use_tree(code, at, &path, found).max(at + 1);
                }
                return end + 1;
            }
            Kind::Punct(',') => return at + 1,
            _ => return at,
        }
    }
    at
}

/// A function's name, first and last line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) first: usize,
    pub(crate) last: usize,
}

/// Every function with a body.
pub(crate) fn functions(code: &[Token]) -> Vec<Function> {
    let mut found = Vec::new();
    for at in 0..code.len() {
        let Some(name) = code.get(at + 1).and_then(Token::ident) else { continue };
        if !code[at].is("fn") {
            continue;
        }
        let end = item_end(code, at + 2);
        if code[end].punct('}') {
            let (first, last) = (code[at].line, code[end].line);
            found.push(Function { name: name.to_owned(), first, last });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &str) -> Vec<String> {
        tokens(source).iter().filter_map(|t| t.ident().map(str::to_owned)).collect()
    }

    #[test]
    fn names_in_comments_and_strings_are_not_names() {
        let source = r###"
            // a
            /* b /* c */ d */
            let e = "f \" g"; let h = r#"i " j"#; let k = b"l"; let m = 'n'; let o: &'p u8 = b'"';
            fn r#q() {} '\'' r
        "###;
        assert_eq!(
            names(source),
            ["let", "e", "let", "h", "let", "k", "let", "m", "let", "o", "u8", "fn", "q", "r"]
        );
    }

    #[test]
    fn lines_are_counted_through_strings_and_comments() {
        let last = tokens("/* \n\n */ \"a\nb\" x").pop().unwrap();
        assert_eq!((last.ident(), last.line), (Some("x"), 4));
    }

    #[test]
    fn tests_are_cut_out_and_counted() {
        let source = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() {}\n}\n#[cfg(not(test))]\n\
                      fn c() {}\n#[tokio::test(flavor = \"x\")]\nasync fn d() {}\n#[cfg(test)]\nmod e;\n";
        let (kept, lines) = without_tests(&tokens(source));
        let kept: Vec<_> = kept.iter().filter_map(Token::ident).collect();
        assert_eq!(kept, ["fn", "a", "cfg", "not", "test", "fn", "c"]);
        assert_eq!(lines, 4 + 2 + 2);
    }

    #[test]
    fn use_trees_are_written_out() {
        let source = "use std::{fs, time::{Duration, Instant as I}, sync::*, io::{self, Read}};\n\
                      use tokio; fn f() { crate::a::b(); let x = y; std::net::lookup() }";
        let found: Vec<_> = paths(&tokens(source)).into_iter().map(|(path, _)| path).collect();
        assert_eq!(
            found,
            [
                "std::fs",
                "std::time::Duration",
                "std::time::Instant",
                "std::sync::*",
                "std::io",
                "std::io::Read",
                "tokio",
                "crate::a::b",
                "std::net::lookup"
            ]
        );
    }

    #[test]
    fn functions_are_measured_from_name_to_brace() {
        let source =
            "trait T { fn declared(a: [u8; 2]); }\nfn two(\n  a: [u8; 3],\n) -> u8 {\n  {}\n}";
        let found = functions(&tokens(source));
        assert_eq!(found, [Function { name: "two".into(), first: 2, last: 6 }]);
    }
}
