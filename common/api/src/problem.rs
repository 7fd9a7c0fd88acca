//! What went wrong, as RFC 9457 problem details.

use serde::{Deserialize, Serialize};
use tidemark_format::ErrorKind;
use utoipa::ToSchema;

/// Classes of failure that callers tell apart. Kinds are only ever added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The request makes no sense, or will never work as asked.
    InvalidRequest,
    /// There is no such domain here, or none in its bucket.
    NoDomain,
    /// There is no such VM, disk, point or path.
    NotFound,
    /// The path is there, the method is not.
    MethodNotAllowed,
    /// It cannot be done in the present state: it is there already, is under way, or is not ready.
    Conflict,
    /// The request is larger than allowed.
    TooLarge,
    /// The request did not arrive in time.
    RequestTimeout,
    /// Another appliance owns the domain.
    Fenced,
    /// Credentials are missing, wrong or lack the right.
    Denied,
    /// Stored data is damaged or missing.
    Corrupt,
    /// It may work later, unchanged.
    Unavailable,
    /// A bug, or a machine that fails.
    Internal,
}

impl ProblemKind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::InvalidRequest,
        Self::NoDomain,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::TooLarge,
        Self::RequestTimeout,
        Self::Fenced,
        Self::Denied,
        Self::Corrupt,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The word on the wire.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status that goes with it.
    pub const fn status(self) -> u16 {
        self.row().1
    }

    /// A few words for people.
    pub const fn title(self) -> &'static str {
        self.row().2
    }

    const fn row(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::InvalidRequest => ("invalid-request", 400, "The request makes no sense"),
            Self::NoDomain => ("no-domain", 404, "No such domain"),
            Self::NotFound => ("not-found", 404, "Not found"),
            Self::MethodNotAllowed => ("method-not-allowed", 405, "No such method here"),
            Self::Conflict => ("conflict", 409, "Not in this state"),
            Self::TooLarge => ("too-large", 413, "The request is too large"),
            Self::RequestTimeout => ("request-timeout", 408, "The request did not arrive in time"),
            Self::Fenced => ("fenced", 409, "Another appliance owns the domain"),
            Self::Denied => ("denied", 403, "Denied"),
            Self::Corrupt => ("corrupt", 500, "Stored data is damaged"),
            Self::Unavailable => ("unavailable", 503, "Not now"),
            Self::Internal => ("internal", 500, "The appliance failed"),
        }
    }
}

impl From<ErrorKind> for ProblemKind {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Retry => Self::Unavailable,
            ErrorKind::FixRequest => Self::InvalidRequest,
            ErrorKind::Denied => Self::Denied,
            ErrorKind::Fenced => Self::Fenced,
            ErrorKind::DataLoss => Self::Corrupt,
        }
    }
}

/// What went wrong: `application/problem+json` (RFC 9457) with a kind and a hint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// `urn:tidemark:problem:KIND`.
    #[serde(rename = "type")]
    pub type_uri: String,
    /// The kind in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong this time: the thing, the bound and the value.
    pub detail: String,
    /// What to match on.
    pub kind: ProblemKind,
    /// What a person can do about it, if that is known.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem of a kind.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            type_uri: format!("urn:tidemark:problem:{}", kind.name()),
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: detail.into(),
            kind,
            hint: None,
        }
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// There is no domain of that name on the appliance.
    pub fn no_domain(name: &str) -> Self {
        Self::new(ProblemKind::NoDomain, format!("no domain {name:?} on this appliance"))
            .hint("`tidemark drva status` lists the domains")
    }

    /// There is no such disk on the appliance.
    pub fn no_disk(disk: &crate::DiskAddress) -> Self {
        Self::new(ProblemKind::NotFound, format!("no disk {disk} on this appliance"))
            .hint("`tidemark drva status` lists the disks")
    }

    /// It cannot be done in the present state.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(ProblemKind::Conflict, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_name_that_is_on_the_wire() {
        for kind in ProblemKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            let problem = Problem::new(kind, "x").hint("y");
            let text = serde_json::to_string(&problem).unwrap();
            assert_eq!(serde_json::from_str::<Problem>(&text).unwrap(), problem);
        }
    }
}
