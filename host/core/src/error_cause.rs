//! Represents the cause of a failed operation, which errors of this crate contain.

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Why an operation failed: a text for people and, if another error caused the failure, that error.
/// The text already includes the text of that error.
#[derive(Clone, Debug)]
pub struct ErrorCause {
    text: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl ErrorCause {
    /// Returns a cause that is `error`, with the text of `error`.
    #[must_use]
    pub fn of(error: impl Error + Send + Sync + 'static) -> Self {
        Self { text: error.to_string(), source: Some(Arc::new(error)) }
    }

    /// Returns a cause that is `error`, with `text` as its text.
    #[must_use]
    pub fn described(text: String, error: impl Error + Send + Sync + 'static) -> Self {
        Self { text, source: Some(Arc::new(error)) }
    }
}

impl fmt::Display for ErrorCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for ErrorCause {
    // `source` is not derived: `thiserror` would return the `Arc` around the error, which a caller
    // cannot downcast to the error's type.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|error| error as _)
    }
}

impl From<String> for ErrorCause {
    fn from(text: String) -> Self {
        Self { text, source: None }
    }
}

impl From<&str> for ErrorCause {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Deref for ErrorCause {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::LogError;

    #[test]
    fn the_error_behind_a_fault_of_the_log_can_be_found() {
        let full = LogError::Full(ErrorCause::of(io::Error::from(io::ErrorKind::StorageFull)));
        let cause = full.source().expect("the cause");
        assert_eq!(full.to_string(), format!("the disk is full: {cause}"));
        let error = cause.source().and_then(|error| error.downcast_ref::<io::Error>());
        assert_eq!(error.expect("the error of the disk").kind(), io::ErrorKind::StorageFull);
        assert!(LogError::Full("no room".into()).source().expect("a text").source().is_none());
    }
}
