//! What is wrong with a file, and where.

/// What is wrong with a configuration file: `drva.toml:12:5: ...`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {file}: {why}")]
    Unreadable {
        /// The file, as it was named.
        file: String,
        /// What the system said.
        why: String,
        /// What to do about it.
        hint: String,
    },
    /// Something in it cannot work.
    #[error("{file}:{line}:{column}: {what}")]
    Wrong {
        /// The file, as it was named.
        file: String,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// What is wrong.
        what: String,
        /// What to do about it.
        hint: String,
    },
}

impl ConfigError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Unreadable { hint, .. } | Self::Wrong { hint, .. } => Some(hint),
        }
    }
}
