//! Lists hostile scripts and declarations, which the shipped interpreters run. Each script
//! misbehaves at every event of the type to which it subscribes.

use anyhow::{Result, ensure};
use lantern_tests::check_source;

use super::frame;
use super::guests::Expected;

/// A language in which a source can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Python,
    JavaScript,
    Declaration,
}

/// A hostile source, which an interpreter runs.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    /// The script's name, which is also the name of its projection's events.
    pub name: &'static str,
    language: Language,
    /// The code that misbehaves: statements, or for a declaration an expression.
    body: &'static str,
    /// Words that occur in the reason for which the script's events are parked.
    says: &'static str,
}

impl Script {
    /// All hostile scripts and declarations.
    pub const ALL: &'static [Self] = &[
        python("python-loop", "while True: pass", "it used up its fuel"),
        python("python-memory", "kept.append(bytearray(1 << 20))", "MemoryError, at totals.py:9"),
        python("python-recursion", "(lambda f: f(f))(lambda f: f(f))", "RecursionError"),
        python("python-exception", "{}[\"key\"]", "totals.py:9"),
        javascript("javascript-loop", "for (;;);", "it used up its fuel"),
        javascript("javascript-memory", "kept.push(new Uint8Array(1 << 20).fill(1));", "memory"),
        javascript(
            "javascript-recursion",
            "(function f() { f(); f(); })();",
            "call stack exhausted",
        ),
        javascript("javascript-exception", "event.missing.member();", "totals.js:7"),
        Self {
            name: "declaration-of-large-texts",
            language: Language::Declaration,
            body: DOUBLES,
            says: "longer than 65536 bytes",
        },
    ];

    /// Returns one source of each language. Together they use all interpreters.
    fn of_each_language() -> impl Iterator<Item = &'static Self> {
        let languages = [Language::Python, Language::JavaScript, Language::Declaration];
        languages
            .into_iter()
            .filter_map(|language| Self::ALL.iter().find(|s| s.language == language))
    }

    /// Returns the name of the source's file.
    #[must_use]
    pub fn file(&self) -> &'static str {
        match self.language {
            Language::Python => "totals.py",
            Language::JavaScript => "totals.js",
            Language::Declaration => "totals.yaml",
        }
    }

    /// Returns the complete text of the source.
    #[must_use]
    pub fn text(&self) -> String {
        let frame = match self.language {
            Language::Python => PYTHON,
            Language::JavaScript => JAVASCRIPT,
            Language::Declaration => DECLARATION,
        };
        frame.replace("EVENT", &frame::probe(self.name)).replace("BODY", self.body)
    }

    /// Returns the result that the script must have.
    #[must_use]
    pub fn expected(&self) -> Expected {
        Expected::Parks(self.says)
    }
}

const fn python(name: &'static str, body: &'static str, says: &'static str) -> Script {
    Script { name, language: Language::Python, body, says }
}

const fn javascript(name: &'static str, body: &'static str, says: &'static str) -> Script {
    Script { name, language: Language::JavaScript, body, says }
}

const PYTHON: &str = r#"from lantern import Table, integer, projection
rows = Table("rows", events=integer("sum"))
kept = []

@projection(name="totals", version="1.0.0", subscribes=["EVENT"], on_failure="park-event")
def apply(event):
    rows.row("key")["events"] += 1
    while True:
        BODY
"#;

const JAVASCRIPT: &str = r#"import { integer, projection, table } from "lantern-sdk";
const rows = table("rows", { events: integer("sum") });
const kept = [];

function apply(event) {
  rows.row("key").events += 1;
  for (;;) BODY
}

const how = { name: "totals", version: "1.0.0", subscribes: ["EVENT"], onFailure: "park-event" };
export default projection({ ...how, apply });
"#;

const DECLARATION: &str = r#"name: totals
from: EVENT
tables:
  rows:
    columns:
      events: count()
      text: last(BODY)
"#;

/// An expression whose text becomes sixteen times longer with each call.
const DOUBLES: &str = "replace(replace(replace(replace(replace(source, 'p', 'pppppppppppppppp'), \
     'p', 'pppppppppppppppp'), 'p', 'pppppppppppppppp'), 'p', 'pppppppppppppppp'), 'p', 'pppp')";

/// Compiles all interpreters and stores the results in the cache that the server uses.
///
/// # Errors
/// Fails if a source is refused.
pub fn compile_interpreters() -> Result<()> {
    for script in Script::of_each_language() {
        let checked = check_source(script.file(), &script.text())?;
        ensure!(
            checked.status.success(),
            "{}: {}",
            script.name,
            String::from_utf8_lossy(&checked.stderr)
        );
    }
    Ok(())
}
