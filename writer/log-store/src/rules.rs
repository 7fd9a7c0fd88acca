//! The rules that the promises rest on, each of which a test can switch off to see that something breaks without it.

/// A rule of LOGSTORE.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// What can be read is made durable before anything is built on it.
    SyncBeforeUse,
    /// A log whose write failed is over.
    NothingAfterFailure,
    /// The table is written to both copies, one after the other.
    BothCopies,
    /// After a table whose write failed, nothing is written that rests on the one before: either may be found.
    NoValueAfterTableFailure,
    /// An extent is a log's own on the device before anything is written to it.
    KnownBeforeUse,
    /// An extent is given away only once the device knows that it is free.
    FreeOnceKnown,
    /// Extents of a log whose write failed are not given away before a restart.
    KeptAfterFailure,
    /// A batch continues the chain of its log.
    ChainContinues,
    /// A batch belongs to the present life of its log.
    PresentLife,
    /// The data of a batch is checked before the batch is believed.
    DataChecked,
    /// A log does not end in front of a later batch.
    NoEndBeforeLater,
    /// A log does not end in front of what was noted as durable.
    NoEndBeforeWatermark,
    /// A new value goes beside the old one.
    ValueBesideOld,
    /// Data leaves room for events.
    RoomForEvents,
}

/// Whether a rule is kept: always, but in tests that want to see what happens otherwise.
#[cfg(not(test))]
pub(crate) const fn kept(_rule: Rule) -> bool {
    true
}

#[cfg(test)]
std::thread_local! {
    static OFF: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

/// Whether a rule is kept.
#[cfg(test)]
pub(crate) fn kept(rule: Rule) -> bool {
    OFF.get() != Some(rule)
}

/// Does not keep a rule on this thread while `f` runs.
#[cfg(test)]
pub(crate) fn without<T>(rule: Rule, f: impl FnOnce() -> T) -> T {
    OFF.set(Some(rule));
    let out = f();
    OFF.set(None);
    out
}
