//! What a caller can do about an error, and what people are told of it. Every error enum of the workspace maps onto the
//! kinds here.

use std::error::Error;

/// The classes of errors that callers tell apart; everything else about an error is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// It is proven not to be there.
    NotFound,
    /// It may work later, unchanged: the store is slow, overloaded or out of reach.
    Retry,
    /// It will never work as asked: a wrong argument, a refused operation, an unsupported format.
    FixRequest,
    /// Credentials are missing or lack the right.
    Denied,
    /// Another owner has taken over; stop.
    Fenced,
    /// Stored data is damaged, missing or contradicts itself.
    DataLoss,
}

/// An error with all that caused it, on one line: messages of ours never repeat their source.
pub fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{what}")]
    struct Told {
        what: &'static str,
        source: Option<Box<Told>>,
    }

    #[test]
    fn causes_follow_an_error_from_the_outside_in() {
        let disk = Told { what: "no space", source: None };
        let write = Told { what: "cannot write", source: Some(Box::new(disk)) };
        assert_eq!(with_causes(&write), "cannot write: no space");
        assert_eq!(with_causes(&Told { what: "alone", source: None }), "alone");
    }
}
