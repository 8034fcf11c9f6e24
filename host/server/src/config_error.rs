//! Writes errors in settings in the format of this project.

use thiserror::Error;

/// Why the settings are invalid. The text names the setting.
#[derive(Clone, Debug, Error)]
#[error("the configuration is wrong: {0}")]
pub struct ConfigError(pub String);

impl From<figment::Error> for ConfigError {
    fn from(error: figment::Error) -> Self {
        Self(explain(&error))
    }
}

/// Returns the error in the format of this project: first the setting, and then the place where it
/// was set.
fn explain(error: &figment::Error) -> String {
    use figment::error::Kind;
    let key = error.path.join(".");
    let place = error
        .metadata
        .as_ref()
        .map(|m| match &m.source {
            Some(source) => format!(" ({} {source})", m.name),
            // The library names a flag by its types, which users do not know. So only `a flag` is
            // shown.
            None if m.name.starts_with('(') => " (a flag)".to_owned(),
            None => format!(" ({})", m.name),
        })
        .unwrap_or_default();
    match &error.kind {
        Kind::UnknownField(field, known) => {
            let key = if key.is_empty() || key == *field || key.ends_with(&format!(".{field}")) {
                if key.is_empty() { field.clone() } else { key }
            } else {
                format!("{key}.{field}")
            };
            format!(
                "there is no setting `{key}`{place}; the settings here are {}",
                known.join(", ")
            )
        }
        Kind::InvalidType(actual, expected) => {
            format!("`{key}` is {actual}; it must be {expected}{place}")
        }
        kind if key.is_empty() => format!("{kind}{place}"),
        kind => format!("`{key}`: {kind}{place}"),
    }
}
