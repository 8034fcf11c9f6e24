//! The source of a version, for plugins that are interpreters.

use crate::host;

/// A script or declaration that was uploaded in place of a plugin. The host runs it with
/// the interpreter for its kind of file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The name of the file, without folders: `totals.yaml`.
    pub name: String,
    /// The text.
    pub text: String,
}

/// The source of this version. Call it in [`Projection::setup`](crate::Projection::setup).
///
/// A plugin that contains a call of this function is an interpreter: the host refuses it
/// if it is uploaded without a source. In native tests,
/// [`testing::set_source`](crate::testing::set_source) sets the source.
#[must_use]
pub fn source() -> Source {
    Source { name: host::source_name(), text: host::source_text() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn native_instances_get_the_source_that_the_test_sets() {
        crate::testing::set_source("totals.yaml", "name: totals");
        let source = super::source();
        assert_eq!((source.name.as_str(), source.text.as_str()), ("totals.yaml", "name: totals"));
    }
}
