//! Returns the source code of a version, for plugins that are interpreters.

use crate::host;

/// A script or declaration that was uploaded in place of a plugin. The host runs it with the
/// interpreter for its kind of file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The name of the file, without folders: `totals.yaml`.
    pub name: String,
    /// The content of the file.
    pub text: String,
}

/// Returns the source code of this version. Call this function in
/// [`Projection::setup`](crate::Projection::setup).
///
/// A plugin that contains a call of this function is an interpreter. If it is uploaded without
/// source code, the host refuses it. In native tests,
/// [`testing::set_source`](crate::testing::set_source) sets the source code.
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
