//! What can be wrong with the numbers that a controller is set up with.

use tidemark_format::ErrorKind;

/// An option that cannot work.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number outside of its range.
    #[error("{option} is {value}: {why}")]
    Option {
        /// Name of the option, as in the configuration.
        option: &'static str,
        /// What it was set to.
        value: String,
        /// What it has to be.
        why: &'static str,
    },
}

impl Error {
    /// What the caller can do: every error here is about the configuration.
    pub const fn kind(&self) -> ErrorKind {
        ErrorKind::FixRequest
    }
}

/// The result of setting up a controller.
pub type Result<T> = std::result::Result<T, Error>;

/// Refuses `value` of `option` unless `holds`.
pub(crate) fn require(holds: bool, option: &'static str, value: impl ToString, why: &'static str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Option { option, value: value.to_string(), why }) }
}
