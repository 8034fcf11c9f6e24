//! Describes the mistakes in a declaration: what is wrong, and in which place.

use std::fmt::{self, Write as _};

/// A range of bytes in the declaration's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// The index of the first byte.
    pub(crate) start: usize,
    /// The index of the byte after the last one.
    pub(crate) end: usize,
}

impl Place {
    /// Returns the place from the start of this place to the end of `other`.
    pub(crate) fn to(self, other: Self) -> Self {
        Self { start: self.start, end: other.end.max(self.start) }
    }
}

/// A mistake in a declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The place of the mistake; `None` if it is not known yet.
    pub(crate) place: Option<Place>,
    /// What is wrong, as a sentence that begins with a lower-case letter.
    pub(crate) message: String,
    /// What to do about the mistake.
    pub(crate) help: Option<String>,
}

impl Problem {
    pub(crate) fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place: Some(place), message: message.into(), help: None }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds a help text that suggests the candidate that is most similar to `wrong`. If no
    /// candidate is similar, the help lists all of them after `else_list`.
    pub(crate) fn suggest<'a>(
        self,
        wrong: &str,
        candidates: impl IntoIterator<Item = &'a str>,
        else_list: &str,
    ) -> Self {
        let candidates: Vec<&str> = candidates.into_iter().collect();
        match most_similar(wrong, candidates.iter().copied()) {
            Some(best) => self.help(format!("did you mean `{best}`?")),
            None if candidates.is_empty() => self,
            None => {
                let list: Vec<String> = candidates.iter().map(|name| format!("`{name}`")).collect();
                self.help(format!("{else_list} {}", list.join(", ")))
            }
        }
    }

    /// Sets the place of the mistake if it has none.
    pub(crate) fn or_at(mut self, place: Place) -> Self {
        self.place.get_or_insert(place);
        self
    }

    /// Returns the message with the line of the declaration to which it belongs: `NAME:LINE:COLUMN:
    /// …`.
    pub(crate) fn render(&self, name: &str, source: &str) -> String {
        let mut text = String::new();
        let place = self.place.unwrap_or_default();
        let start = floor_boundary(source, place.start);
        let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
        let line = source[line_start..].lines().next().unwrap_or_default();
        let number = source[..line_start].matches('\n').count() + 1;
        let column = source[line_start..start].chars().count() + 1;
        let _ = write!(text, "{name}:{number}:{column}: {}", self.message);
        if !line.trim().is_empty() {
            let end = floor_boundary(source, place.end).clamp(start, line_start + line.len());
            let marks = source[start..end].chars().count().max(1);
            let margin = number.to_string();
            let _ = write!(
                text,
                "\n{margin} | {line}\n{:width$} | {:before$}{}",
                "",
                "",
                "^".repeat(marks),
                width = margin.len(),
                before = column - 1
            );
        }
        if let Some(help) = &self.help {
            let _ = write!(text, "\nhelp: {help}");
        }
        text
    }
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl serde::de::Error for Problem {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { place: None, message: message.to_string(), help: None }
    }
}

/// Returns the candidate that differs from `wrong` in the fewest letters; `None` if more than one
/// letter in three differs.
pub(crate) fn most_similar<'a>(
    wrong: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let simple = |text: &str| text.to_lowercase().replace(['_', ' '], "-");
    let wrong = simple(wrong);
    let distance_to = |candidate: &str| {
        // So `lowercase` suggests `lower`, and `start` suggests `starts_with`.
        let candidate = simple(candidate);
        let begins = wrong.starts_with(&candidate) && candidate.len() >= 3;
        if begins || (candidate.starts_with(&wrong) && wrong.len() >= 3) {
            return 1;
        }
        strsim::osa_distance(&wrong, &candidate)
    };
    candidates
        .into_iter()
        .map(|candidate| (distance_to(candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(wrong.len()).div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_name_is_found() {
        assert_eq!(most_similar("cent", ["cents", "users"]), Some("cents"));
        assert_eq!(most_similar("coutn", ["sum", "count"]), Some("count"));
        assert_eq!(most_similar("on_failure", ["on-failure", "from"]), Some("on-failure"));
        assert_eq!(most_similar("bananas", ["sum", "count"]), None);
    }

    #[test]
    fn a_problem_shows_line_column_and_place() {
        let source = "a: 1\nb: größe x\n";
        let start = source.find('x').unwrap_or_default();
        let problem = Problem::new(Place { start, end: start + 1 }, "no").help("yes");
        assert_eq!(
            problem.render("d.yaml", source),
            "d.yaml:2:10: no\n2 | b: größe x\n  |          ^\nhelp: yes"
        );
    }
}
