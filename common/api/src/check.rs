//! Rules that hold for what is asked, whether it comes in through the API or stands in a file.

use crate::problem::{Problem, ProblemKind};
use std::fmt;

/// Bytes of the name of a domain, VM, disk or export at most.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes in which disks are counted.
const BLOCK_BYTES: u64 = 512;

/// What can be found wrong without an appliance.
pub trait Check {
    /// Refuses what cannot work.
    fn check(&self) -> Result<(), Complaint>;
}

/// What is wrong with a member of a request or a key of a file. The text does not name it: files have other names for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Complaint {
    member: String,
    what: String,
    hint: Option<&'static str>,
}

impl Complaint {
    /// A member, such as `disks[1].size_bytes`, and what is wrong with it.
    pub fn new(member: impl Into<String>, what: impl Into<String>) -> Self {
        Self { member: member.into(), what: what.into(), hint: None }
    }

    /// With what to do about it.
    #[must_use]
    pub fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    /// About another member.
    #[must_use]
    pub fn at(self, member: impl Into<String>) -> Self {
        Self { member: member.into(), ..self }
    }

    /// About a member of `outer`.
    #[must_use]
    pub fn within(self, outer: impl fmt::Display) -> Self {
        Self { member: format!("{outer}.{}", self.member), ..self }
    }

    /// Which member.
    pub fn member(&self) -> &str {
        &self.member
    }

    /// What to do about it.
    pub fn hint_text(&self) -> Option<&'static str> {
        self.hint
    }
}

impl From<Complaint> for Problem {
    fn from(complaint: Complaint) -> Self {
        let problem = Self::new(ProblemKind::InvalidRequest, format!("{}: {}", complaint.member, complaint.what));
        match complaint.hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }
}

/// A name that people type as `VM/DISK` and that stands in paths.
pub(crate) fn check_name(member: &str, name: &str) -> Result<(), Complaint> {
    check_length(member, name)?;
    if name.contains('/') {
        let what = format!("{name:?} has a slash");
        return Err(Complaint::new(member, what).hint("people name disks VM/DISK"));
    }
    Ok(())
}

/// A text that says something, in bounds and without line breaks.
pub(crate) fn check_length(member: &str, text: &str) -> Result<(), Complaint> {
    if text.is_empty() {
        return Err(Complaint::new(member, "the text is empty"));
    }
    if text.len() > NAME_BYTES_MAX {
        let what = format!("{} bytes, at most {NAME_BYTES_MAX} are allowed", text.len());
        return Err(Complaint::new(member, what));
    }
    if text.chars().any(char::is_control) {
        return Err(Complaint::new(member, format!("{text:?} has a control character")));
    }
    Ok(())
}

/// A size that a disk can have.
pub(crate) fn check_size(member: &str, size_bytes: u64) -> Result<(), Complaint> {
    if size_bytes == 0 || !size_bytes.is_multiple_of(BLOCK_BYTES) {
        let what = format!("{size_bytes} bytes is not a multiple of {BLOCK_BYTES} above 0");
        return Err(Complaint::new(member, what).hint("disks are whole blocks of 512 bytes"));
    }
    Ok(())
}
