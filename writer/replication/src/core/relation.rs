//! How a log store and a bucket belong together when a domain is opened.
//!
//! The log store holds what was acknowledged, the bucket what was committed. Between the two lie a restart, perhaps
//! another owner, perhaps a log store that was lost or restored. Only LSNs that this log store gave may be continued from
//! it: the same number given by somebody else is another write.

use tidemark_format::Lsn;

/// What the log store holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// Oldest LSN that it can still give.
    pub(crate) first: Lsn,
    /// Newest LSN; one less than `first` if it is empty.
    pub(crate) last: Lsn,
}

/// What the bucket says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// Next LSN of the epoch just claimed.
    pub(crate) next: Lsn,
    /// Whose writes the end of its log is.
    pub(crate) by: By,
}

/// Who wrote the end of the bucket's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// Nobody: the domain is new.
    Nobody,
    /// An epoch that this log store fed.
    Us,
    /// Somebody else, whose first LSN is `from`: what came before is ours. 1 if that is not known.
    Others {
        /// That LSN.
        from: Lsn,
    },
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// Ship from here on.
    Continues { next: Lsn },
    /// The bucket has writes that this log store does not know: it lost its end, or is older than it should be. Begin anew
    /// behind them; the disks may differ from the bucket.
    LogBehind { next: Lsn },
    /// Somebody else has gone on from where we were, and we hold writes from LSN `lacks` on that the bucket lacks. Only a
    /// person can say which branch counts.
    Diverged { next: Lsn, lacks: Lsn },
    /// Somebody else has gone on, and we hold nothing that the bucket lacks.
    Succeeded { next: Lsn },
    /// The log store begins behind the bucket's end: committed objects are gone.
    BucketLost { next: Lsn },
}

pub(crate) fn relate(held: Held, found: Found) -> Relation {
    let next = found.next;
    match found.by {
        By::Nobody | By::Us if next < held.first => Relation::BucketLost { next },
        By::Nobody | By::Us if next > held.last.next() => Relation::LogBehind { next },
        By::Nobody | By::Us => Relation::Continues { next },
        // From there on the same numbers are other writes.
        By::Others { from } if held.last >= held.first && held.last >= from => {
            Relation::Diverged { next, lacks: from.max(held.first) }
        }
        By::Others { .. } => Relation::Succeeded { next },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(first: u64, last: u64, next: u64, by: By) -> Relation {
        relate(Held { first: Lsn::new(first), last: Lsn::new(last) }, Found { next: Lsn::new(next), by })
    }

    #[test]
    fn each_relation_is_told_apart() {
        let at = Lsn::new;
        // (first, last, next, by): the log holds first..=last; empty if last < first.
        assert_eq!(case(1, 0, 1, By::Nobody), Relation::Continues { next: at(1) }, "both are new");
        assert_eq!(case(5, 9, 5, By::Us), Relation::Continues { next: at(5) }, "nothing of it was shipped");
        assert_eq!(case(5, 9, 8, By::Us), Relation::Continues { next: at(8) }, "a part was shipped, not yet trimmed");
        assert_eq!(case(5, 9, 10, By::Us), Relation::Continues { next: at(10) }, "all was shipped");
        assert_eq!(case(5, 9, 11, By::Us), Relation::LogBehind { next: at(11) }, "the log lost its end");
        assert_eq!(case(5, 9, 4, By::Us), Relation::BucketLost { next: at(4) }, "the bucket lost objects");
        assert_eq!(case(5, 9, 1, By::Nobody), Relation::BucketLost { next: at(1) }, "the bucket was emptied");
        let others = |from| By::Others { from: at(from) };
        let diverged = |next, lacks| Relation::Diverged { next: at(next), lacks: at(lacks) };
        assert_eq!(case(5, 9, 7, others(1)), diverged(7, 5), "their 5 and 6 are not ours");
        assert_eq!(case(5, 9, 30, others(8)), diverged(30, 8), "7 was committed before they came");
        assert_eq!(case(5, 9, 30, others(9)), diverged(30, 9));
        assert_eq!(
            case(5, 9, 30, others(10)),
            Relation::Succeeded { next: at(30) },
            "all was committed, not yet trimmed"
        );
        assert_eq!(case(10, 9, 30, others(1)), Relation::Succeeded { next: at(30) });
    }
}
