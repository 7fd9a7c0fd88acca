//! What a caller can do about an error. Every error enum of the workspace maps onto these.

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
