//! How a command ends: exit codes and hints, from whatever error reached the top.

use crate::logwrites::LogError;
use std::error::Error as StdError;
use std::process::ExitCode;
use tidemark_api::ProblemKind;
use tidemark_format::{ErrorKind, FormatError, ObjectKey};

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All of it is done.
    Done,
    /// Damage was found and reported.
    Corrupt,
    /// Stopped by SIGINT or SIGTERM.
    Interrupted,
}

impl Outcome {
    /// What the shell is told.
    pub(crate) fn exit_code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Done => 0,
            Self::Corrupt => 13,
            Self::Interrupted => 130,
        })
    }
}

/// A mistake in a request that only the command line can see.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Refused {
    what: String,
    hint: Option<String>,
    code: u8,
}

impl Refused {
    /// A request that cannot be carried out.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), hint: None, code: 1 }
    }

    /// Options that make no sense together.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { code: 2, ..Self::new(what) }
    }

    /// What stopped after part of it was done.
    pub(crate) fn partial(what: impl Into<String>) -> Self {
        Self { code: 3, ..Self::new(what) }
    }

    /// What was stopped by SIGINT or SIGTERM before it was of use.
    pub(crate) fn interrupted(what: impl Into<String>) -> Self {
        Self { code: 130, ..Self::new(what) }
    }

    /// With what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What the shell and the person are told about an error.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) code: u8,
    pub(crate) hint: Option<String>,
}

/// Looks through an error and its sources for the first that knows what it means.
pub(crate) fn verdict(error: &anyhow::Error) -> Verdict {
    let verdicts = || error.chain().filter_map(of_one);
    let code = verdicts().next().map_or(1, |verdict| verdict.code);
    Verdict { code, hint: verdicts().find_map(|verdict| verdict.hint) }
}

fn of_one(error: &(dyn StdError + 'static)) -> Option<Verdict> {
    let of_kind = |kind, hint: Option<&str>| Some(Verdict { code: code_of(kind), hint: hint.map(str::to_owned) });
    if let Some(refused) = error.downcast_ref::<Refused>() {
        return Some(Verdict { code: refused.code, hint: refused.hint.clone() });
    }
    if let Some(error) = error.downcast_ref::<tidemark_reader::Error>() {
        return match error {
            tidemark_reader::Error::NoDomain { .. } => {
                Some(Verdict { code: 10, hint: error.hint().map(str::to_owned) })
            }
            tidemark_reader::Error::Store { source, .. } => of_one(source),
            tidemark_reader::Error::Shared(inner) => of_one(&**inner),
            _ => of_kind(error.kind(), error.hint()),
        };
    }
    if let Some(error) = error.downcast_ref::<tidemark_writer::Error>() {
        return match error {
            tidemark_writer::Error::NoDomain { .. } => {
                Some(Verdict { code: 10, hint: error.hint().map(str::to_owned) })
            }
            tidemark_writer::Error::Store { source, .. } => of_one(&**source),
            _ => of_kind(error.kind(), error.hint()),
        };
    }
    if let Some(error) = error.downcast_ref::<tidemark_gc::Error>() {
        return match error {
            tidemark_gc::Error::NoDomain { .. } => Some(Verdict { code: 10, hint: error.hint().map(str::to_owned) }),
            tidemark_gc::Error::Store { source, .. } => of_one(source),
            _ => of_kind(error.kind(), error.hint()),
        };
    }
    if let Some(error) = error.downcast_ref::<tidemark_bucket::Error>() {
        let code = match error {
            tidemark_bucket::Error::NotFound(at) if at.key == ObjectKey::Genesis.to_string() => 10,
            tidemark_bucket::Error::BadUrl { .. } => 2,
            _ if error.is_no_bucket() => 10,
            _ => code_of(error.kind()),
        };
        return Some(Verdict { code, hint: error.hint().map(str::to_owned) });
    }
    if let Some(error) = error.downcast_ref::<tidemark_fuse::Error>() {
        return Some(Verdict { code: code_of(error.kind()), hint: error.hint() });
    }
    if let Some(error) = error.downcast_ref::<tidemark_overlay::Error>() {
        return of_kind(error.kind(), error.hint());
    }
    if let Some(error) = error.downcast_ref::<tidemark_api::Error>() {
        return Some(Verdict { code: code_of_problem(error.kind()), hint: error.hint().map(str::to_owned) });
    }
    if let Some(error) = error.downcast_ref::<tidemark_drva::config::ConfigError>() {
        return Some(Verdict { code: 2, hint: error.hint().map(str::to_owned) });
    }
    if let Some(error) = error.downcast_ref::<tidemark_drva::Error>() {
        let code = if matches!(error, tidemark_drva::Error::Config(_)) { 2 } else { code_of(error.kind()) };
        return Some(Verdict { code, hint: error.hint().map(str::to_owned) });
    }
    if let Some(error) = error.downcast_ref::<tidemark_runbook::PlanError>() {
        return Some(Verdict { code: 1, hint: Some(error.hint()) });
    }
    if let Some(error) = error.downcast_ref::<tidemark_rocva::Error>() {
        return match error {
            tidemark_rocva::Error::Domain(inner) => of_one(inner),
            _ => Some(Verdict { code: code_of(error.kind()), hint: error.hint() }),
        };
    }
    if let Some(error) = error.downcast_ref::<LogError>() {
        return of_kind(error.kind(), error.hint());
    }
    if let Some(error) = error.downcast_ref::<FormatError>() {
        return of_kind(error.kind(), None);
    }
    let denied = error.downcast_ref::<std::io::Error>()?.kind() == std::io::ErrorKind::PermissionDenied;
    denied.then_some(Verdict { code: 12, hint: None })
}

fn code_of(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Fenced => 11,
        ErrorKind::Denied => 12,
        ErrorKind::DataLoss => 13,
        ErrorKind::NotFound | ErrorKind::Retry | ErrorKind::FixRequest => 1,
    }
}

fn code_of_problem(kind: ProblemKind) -> u8 {
    match kind {
        ProblemKind::NoDomain => 10,
        ProblemKind::Fenced => 11,
        ProblemKind::Denied => 12,
        ProblemKind::Corrupt => 13,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_first_error_that_knows_its_meaning_decides() {
        let inner = LogError::Magic { found: 1 };
        let error = Err::<(), _>(inner).context("ingest disk.log").expect_err("it is one");
        let want = Verdict { code: 1, hint: Some("for a plain disk image use `--format raw`".into()) };
        assert_eq!(verdict(&error), want);
        let error = anyhow::Error::new(Refused::partial("half of it").hint("again"));
        assert_eq!(verdict(&error), Verdict { code: 3, hint: Some("again".into()) });
        assert_eq!(verdict(&anyhow::anyhow!("whatever")), Verdict { code: 1, hint: None });
    }

    #[test]
    fn every_class_of_error_has_its_code() {
        for (kind, code) in [
            (ErrorKind::NotFound, 1),
            (ErrorKind::Retry, 1),
            (ErrorKind::FixRequest, 1),
            (ErrorKind::Fenced, 11),
            (ErrorKind::Denied, 12),
            (ErrorKind::DataLoss, 13),
        ] {
            assert_eq!(code_of(kind), code, "{kind:?}");
        }
    }
}
