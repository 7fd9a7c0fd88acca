//! Which objects of a bucket nobody needs.

use std::collections::HashSet;
use tidemark_format::{Epoch, Ledger, ObjectKey, Role, Seq, Through};

/// All that is needed, and what must not be judged.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// Tables, segments and roots that are named by the newest root, the newest ledger, or a pinned root.
    named: HashSet<ObjectKey>,
    /// The last epoch of the log that a CUT has closed, and that the ledger describes.
    closed: Option<Epoch>,
    /// Log segments behind this position are needed by somebody who pins a root that ends there.
    pinned_from: Option<(Epoch, Seq)>,
    /// Objects of maintenance epochs from this one on are being written.
    own: Epoch,
}

impl Reach {
    /// Nothing of maintenance epoch `own` or a newer one is judged.
    pub(crate) fn new(own: Epoch) -> Self {
        Self { own, ..Self::default() }
    }

    /// These are needed.
    pub(crate) fn need(&mut self, keys: impl IntoIterator<Item = ObjectKey>) {
        self.named.extend(keys);
    }

    /// What the ledger names is needed, and of the log up to its tail nothing else is.
    pub(crate) fn follow(&mut self, ledger: &Ledger) {
        self.closed = Some(ledger.through.epoch);
        self.need(ledger.keys().chain([ledger.key()]));
    }

    /// Somebody reads by a root that ends here: whatever comes behind it in the log is needed.
    pub(crate) fn pin(&mut self, through: &Through) {
        let from = (through.epoch, through.seq);
        self.pinned_from = Some(self.pinned_from.map_or(from, |before| before.min(from)));
    }

    /// Whether an object may be deleted.
    pub(crate) fn is_garbage(&self, key: &ObjectKey) -> bool {
        //= SPEC.md#deleting
        //# D-4, D-5
        let named = || self.named.contains(key);
        match *key {
            ObjectKey::Log { epoch, seq } => {
                let closed = self.closed.is_some_and(|last| epoch <= last);
                let pinned = self.pinned_from.is_some_and(|from| (epoch, seq) > from);
                closed && !pinned && !named()
            }
            ObjectKey::Base { role: Role::Maintenance, epoch, .. }
            | ObjectKey::Index { epoch, .. }
            | ObjectKey::Root { epoch, .. }
            | ObjectKey::Ledger { epoch } => epoch < self.own && !named(),
            ObjectKey::Genesis
            | ObjectKey::Claim { .. }
            | ObjectKey::Base { role: Role::Writer, .. }
            | ObjectKey::Hint
            | ObjectKey::RootCopy
            | ObjectKey::Retention
            | ObjectKey::Pin { .. }
            | ObjectKey::Quarantine { .. }
            | ObjectKey::Probe { .. }
            | ObjectKey::Statistics { .. } => false,
        }
    }
}
