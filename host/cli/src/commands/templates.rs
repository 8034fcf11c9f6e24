//! Contains the templates of `lantern new`. A template is a script, which needs no tools, or a
//! project for the tools of a language.

use clap::ValueEnum;

/// A file of a template: its path and its text. In both, names in double braces are replaced.
type File = (&'static str, &'static str);

/// Includes a file of the folder `sdk` in the binary.
macro_rules! sdk {
    ($path:literal) => {
        include_str!(concat!("../../../../sdk/", $path))
    };
}

/// The files that every template has.
pub(super) const SHARED: [File; 3] = [
    ("README.md", sdk!("template/README.md.tmpl")),
    ("AGENTS.md", sdk!("template/AGENTS.md.tmpl")),
    ("events.ndjson", sdk!("template/events.ndjson.tmpl")),
];

/// The kinds of files that the server runs without a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Script {
    /// A script in Python.
    Py,
    /// A script in JavaScript.
    Js,
    /// A script in TypeScript.
    Ts,
    /// A declaration: no code.
    Yaml,
}

/// A project that is built into a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    /// Python; needs Python 3.11 or newer.
    Python,
    /// JavaScript; needs Node.js 20 or newer.
    Js,
    /// TypeScript; needs Node.js 20 or newer.
    Ts,
    /// C; needs make and `pip install ziglang`, or clang with wasi-libc.
    C,
    /// Go; needs Go 1.24 or newer.
    Go,
    /// Rust; needs cargo.
    Rust,
}

/// The files and texts of a template.
pub(super) struct Template {
    /// The files that only this template has. The first one contains the source code.
    pub(super) files: &'static [File],
    /// The commands that build, test and push the plugin, one on each line.
    pub(super) commands: &'static str,
    /// The folder of the SDK in a checkout of Lantern; empty if the template needs no SDK.
    pub(super) sdk: &'static str,
    /// How the name of a package of the SDK ends that the language's tool installs as it is;
    /// empty if there is none.
    pub(super) package: &'static str,
    /// Where the reference of the SDK is.
    pub(super) reference: &'static str,
}

const IGNORED: &str = "/target\n/build\n/node_modules\n/.venv\n__pycache__/\n";
const SCRIPT: &str = "\
lantern test events.ndjson {{source}}          # tables, parked events, determinism
lantern plugin push {{source}} --wait
lantern table watch {{name}}/by_type           # live";
const PYTHON: &str = "\
lantern build                                  # installs the SDK into .venv first
.venv/bin/python -m pytest -q                  # without WebAssembly
lantern plugin push build/{{name}}.wasm --wait
lantern table watch {{name}}/by_type           # live";
const NODE: &str = "\
lantern build                                  # runs npm install first
npm test                                       # without WebAssembly
lantern plugin push build/{{name}}.wasm --wait
lantern table watch {{name}}/by_type           # live";
const MAKE: &str = "\
pip install ziglang==0.17.1                    # once: the compiler for WebAssembly
lantern build                                  # runs make
make test                                      # without WebAssembly
lantern plugin push build/{{name}}.wasm --wait
lantern table watch {{name}}/by_type           # live";
const GO: &str = "\
lantern build                                  # runs go build
go test ./...                                  # without WebAssembly
lantern plugin push build/{{name}}.wasm --wait
lantern table watch {{name}}/by_type           # live";
const CARGO: &str = "\
lantern build                                  # runs cargo
cargo test                                     # without WebAssembly
lantern plugin push target/wasm32-unknown-unknown/release/{{module}}.wasm --wait
lantern table watch {{name}}/by_type           # live";

impl Script {
    /// Returns the template of a script.
    pub(super) fn template(self) -> Template {
        let (files, reference): (&[File], _) = match self {
            Self::Py => (
                &[("{{module}}.py", sdk!("python/template/projection.py.tmpl"))],
                "`sdk/python/README.md` describes the SDK for Python.",
            ),
            Self::Js => (
                &[("{{name}}.js", sdk!("js/template/projection.js.tmpl"))],
                "`sdk/js/README.md` describes the SDK for JavaScript.",
            ),
            Self::Ts => (
                &[("{{name}}.ts", sdk!("js/template/projection.ts.tmpl"))],
                "`sdk/js/README.md` describes the SDK for TypeScript.",
            ),
            Self::Yaml => (
                &[("{{name}}.yaml", sdk!("template/declaration.yaml.tmpl"))],
                "`docs/guide/declarations.md` describes declarations.",
            ),
        };
        Template { files, commands: SCRIPT, sdk: "", package: "", reference }
    }
}

impl Language {
    /// Returns the template of a project.
    #[expect(clippy::too_many_lines, reason = "a list of the templates, one for each language")]
    pub(super) fn template(self) -> Template {
        match self {
            Self::Python => Template {
                files: &[
                    ("{{module}}.py", sdk!("python/template/projection.py.tmpl")),
                    ("test_{{module}}.py", sdk!("python/template/test_projection.py.tmpl")),
                    ("requirements.txt", sdk!("python/template/requirements.txt.tmpl")),
                    (".gitignore", IGNORED),
                ],
                commands: PYTHON,
                sdk: "sdk/python",
                package: ".whl",
                reference: "`sdk/python/README.md` describes the SDK for Python.",
            },
            Self::Js => Template {
                files: &[
                    ("src/index.js", sdk!("js/template/projection.js.tmpl")),
                    ("{{name}}.test.js", sdk!("js/template/projection.test.js.tmpl")),
                    ("package.json", sdk!("js/template/package.json.tmpl")),
                    (".gitignore", IGNORED),
                ],
                commands: NODE,
                sdk: "sdk/js",
                package: ".tgz",
                reference: "`sdk/js/README.md` describes the SDK for JavaScript.",
            },
            Self::Ts => Template {
                files: &[
                    ("src/index.ts", sdk!("js/template/projection.ts.tmpl")),
                    ("{{name}}.test.js", sdk!("js/template/projection.test.js.tmpl")),
                    ("package.json", sdk!("js/template/package.json.tmpl")),
                    ("tsconfig.json", sdk!("js/template/tsconfig.json.tmpl")),
                    (".gitignore", IGNORED),
                ],
                commands: NODE,
                sdk: "sdk/js",
                package: ".tgz",
                reference: "`sdk/js/README.md` describes the SDK for TypeScript.",
            },
            Self::C => Template {
                files: &[
                    ("{{module}}.c", sdk!("c/template/projection.c.tmpl")),
                    ("test.c", sdk!("c/template/test.c.tmpl")),
                    ("Makefile", sdk!("c/template/Makefile.tmpl")),
                    (".gitignore", IGNORED),
                ],
                commands: MAKE,
                sdk: "sdk/c",
                package: "",
                reference: "`sdk/c/README.md` and `sdk/c/src/lantern.h` describe the SDK for C.",
            },
            Self::Go => Template {
                files: &[
                    ("projection.go", sdk!("go/template/projection.go.tmpl")),
                    ("projection_test.go", sdk!("go/template/projection_test.go.tmpl")),
                    ("go.mod", sdk!("go/template/go.mod.tmpl")),
                    (".gitignore", IGNORED),
                ],
                commands: GO,
                sdk: "sdk/go",
                package: "",
                reference: "`sdk/go/README.md` describes the SDK for Go.",
            },
            Self::Rust => Template {
                files: &[
                    ("src/lib.rs", sdk!("rust/template/src/lib.rs.tmpl")),
                    ("Cargo.toml", sdk!("rust/template/Cargo.toml.tmpl")),
                    (".gitignore", IGNORED),
                ],
                commands: CARGO,
                sdk: "sdk/rust",
                package: "",
                reference: "`sdk/rust/README.md` describes the SDK for Rust.",
            },
        }
    }
}

/// Returns the extension of the source file: `ts` or `js`.
pub(super) fn ending(template: &Template) -> &'static str {
    template.files[0].0.rsplit_once('.').map_or("", |(_, ending)| ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_has_a_source_and_commands_that_push_it() {
        let scripts = Script::value_variants().iter().map(|script| script.template());
        let projects = Language::value_variants().iter().map(|language| language.template());
        for template in scripts.chain(projects) {
            assert!(!ending(&template).is_empty());
            assert!(template.commands.contains("lantern plugin push"));
            assert!(template.reference.starts_with('`'));
        }
    }
}
