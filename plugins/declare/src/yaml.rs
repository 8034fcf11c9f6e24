//! Reads YAML or JSON into a tree. Each node has its place in the text.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

use crate::problem::{Place, Problem};

/// The maximum depth to which a declaration may be nested.
const DEPTH_MAX: usize = 32;

/// A value in the text, with its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: NodeValue,
}

/// The value of a [`Node`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum NodeValue {
    /// A text, a number or a boolean. `quoted` distinguishes `"1"` from `1`.
    Scalar {
        text: String,
        quoted: bool,
    },
    Sequence(Vec<Node>),
    /// A mapping: keys and values in the order of the text. No key occurs twice.
    Mapping(Vec<(Node, Node)>),
}

impl Node {
    /// Returns whether the value is null: nothing is written, or `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, NodeValue::Scalar { text, quoted: false }
            if matches!(text.as_str(), "" | "~" | "null"))
    }

    /// Returns the text of a scalar; `None` for other values.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            NodeValue::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Returns a word for the kind of value, for people.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            _ if self.is_null() => "nothing".to_owned(),
            NodeValue::Scalar { text, .. } => format!("`{}`", excerpt(text)),
            NodeValue::Sequence(_) => "a list".to_owned(),
            NodeValue::Mapping(_) => "a mapping".to_owned(),
        }
    }
}

/// Returns the beginning of `text` on one line; at most 40 characters.
pub(crate) fn excerpt(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() > 40 || line.len() < text.trim_end().len() {
        format!("{}…", line.chars().take(40).collect::<String>())
    } else {
        line.to_owned()
    }
}

/// Reads one YAML or JSON document.
///
/// # Errors
/// Returns the first place at which it is not YAML, or uses a part of YAML that declarations do not
/// have: anchors, aliases, tags and several documents.
pub(crate) fn read(source: &str) -> Result<Node, Problem> {
    let mut reader =
        TreeReader { lines: line_starts(source), source, parser: Parser::new_from_str(source) };
    reader.document()
}

fn line_starts(source: &str) -> Vec<usize> {
    let after = source.match_indices('\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(after).collect()
}

struct TreeReader<'a> {
    source: &'a str,
    lines: Vec<usize>,
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
}

impl<'a> TreeReader<'a> {
    fn document(&mut self) -> Result<Node, Problem> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::Nothing | Event::DocumentEnd => {}
                Event::StreamEnd => break,
                Event::DocumentStart(_) if root.is_some() => {
                    let place = self.place(span);
                    return Err(Problem::new(place, "a second document begins here")
                        .help("put each declaration into a file of its own"));
                }
                Event::DocumentStart(_) => {
                    let (event, span) = self.next()?;
                    root = Some(self.node(event, span, 0)?);
                }
                _ => return Err(Problem::new(self.place(span), "a document was expected")),
            }
        }
        match root {
            Some(root) if !root.is_null() => Ok(root),
            _ => Err(Problem::new(Place::default(), "the declaration is empty")
                .help("begin with `name: my-projection`, `from: order.placed` and `tables:`")),
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let start = self.offset(error.marker());
                let problem = Problem::new(
                    Place { start, end: start + 1 },
                    format!("this is not YAML: {}", error.info()),
                );
                Err(problem.help(match error.info() {
                    info if info.contains("tab") => "indent with spaces",
                    _ => "close every `[` and `{`, and put a text that contains `: ` or ` #` or begins with a quote, or one with a `,` within brackets, between single quotes",
                }))
            }
            None => Err(Problem::new(Place::default(), "the text ends too early")),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Problem> {
        let place = self.place(span);
        if depth > DEPTH_MAX {
            return Err(Problem::new(
                place,
                format!("it is nested more than {DEPTH_MAX} levels deep"),
            ));
        }
        let refused = |what: &str, help: &str| {
            Err(Problem::new(place, format!("{what} are not part of declarations")).help(help))
        };
        let anchors = || {
            let help = "write the value wherever you need it";
            refused("anchors and aliases (`&`, `*`)", help)
        };
        match event {
            Event::Alias(_) => anchors(),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                anchors()
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                refused("tags (`!`)", "write `not` instead of `!` in an expression")
            }
            Event::Scalar(text, style, ..) => {
                let quoted = style != ScalarStyle::Plain;
                Ok(Node { place, value: NodeValue::Scalar { text: text.into_owned(), quoted } })
            }
            Event::SequenceStart(..) => self.sequence(place, depth),
            Event::MappingStart(..) => self.mapping(place, depth),
            _ => Err(Problem::new(place, "a value was expected")),
        }
    }

    fn sequence(&mut self, start: Place, depth: usize) -> Result<Node, Problem> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                let place = start.to(self.place(span));
                return Ok(Node { place, value: NodeValue::Sequence(items) });
            }
            items.push(self.node(event, span, depth + 1)?);
        }
    }

    fn mapping(&mut self, start: Place, depth: usize) -> Result<Node, Problem> {
        let mut entries: Vec<(Node, Node)> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                let place = start.to(self.place(span));
                return Ok(Node { place, value: NodeValue::Mapping(entries) });
            }
            let key = self.node(event, span, depth + 1)?;
            let Some(name) = key.text() else {
                return Err(Problem::new(key.place, "a key must be a text"));
            };
            if entries.iter().any(|(other, _)| other.text() == Some(name)) {
                return Err(Problem::new(key.place, format!("`{}` is given twice", excerpt(name)))
                    .help("remove or rename one of them"));
            }
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            entries.push((key, value));
        }
    }

    fn place(&self, span: Span) -> Place {
        let (start, end) = (self.offset(&span.start), self.offset(&span.end));
        let text = self.source.get(start..end).unwrap_or_default();
        Place { start, end: start + text.trim_end().len() }
    }

    /// Returns the index of the byte at a marker of the library, which counts lines from 1 and
    /// characters from 0.
    fn offset(&self, marker: &Marker) -> usize {
        let line = marker.line().saturating_sub(1).min(self.lines.len() - 1);
        let start = self.lines[line];
        let rest = &self.source[start..];
        rest.char_indices().nth(marker.col()).map_or(self.source.len(), |(at, _)| start + at)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn nodes_know_their_place() {
        let source = "größe: [a, 'b']\nc: { d: \"e\" }\n";
        let root = read(source).unwrap();
        let NodeValue::Mapping(entries) = root.value else { panic!() };
        let text = |node: &Node| source[node.place.start..node.place.end].to_owned();
        assert_eq!(text(&entries[0].0), "größe");
        let NodeValue::Sequence(items) = &entries[0].1.value else { panic!() };
        assert_eq!((text(&items[0]), text(&items[1])), ("a".into(), "'b'".into()));
        let NodeValue::Mapping(inner) = &entries[1].1.value else { panic!() };
        assert_eq!(text(&inner[0].1), "\"e\"");
    }

    #[test]
    fn json_is_read_too() {
        let source = "{\n\t\"a\": {\"b\": [1, \"2\", null]}\n}";
        let root = read(source).unwrap();
        let NodeValue::Mapping(entries) = root.value else { panic!() };
        assert_eq!(entries[0].0.text(), Some("a"));
    }
}
