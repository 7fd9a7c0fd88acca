//! The numbers of the tree's nodes.
//!
//! A number is a hash of what the node is, so the same disk at the same point has the same number in every mount and at
//! every look. A node is kept only as long as the kernel refers to it, so a walk over a million points needs no memory.

use crate::error::{Error, Result};
use crate::fs::Ino;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tidemark_format::{DiskId, Epoch, Lsn, TimeNs};

/// A point as the tree shows it. An LSN that a successor of its writer cut off may be given again: the epoch tells the two
/// apart, and what an LSN of an epoch stands for never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shown {
    pub(crate) lsn: Lsn,
    /// The writer epoch that wrote it.
    pub(crate) epoch: Epoch,
    /// When that was.
    pub(crate) time: TimeNs,
}

/// What a number stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    /// `/` of a mount of all time.
    Root,
    /// `/at`
    Times,
    /// `/lsn`
    Lsns,
    /// `/bookmarks`
    Bookmarks,
    /// `/latest`, a link.
    Latest,
    /// `/at/<any time>`, a link.
    At(Box<str>),
    /// `/bookmarks/<name>`, a link; the name as people wrote it.
    Bookmark(Box<str>),
    /// `/lsn/<n>`, or `/` of a mount of one point.
    Point(Shown),
    /// `<point>/<vm>`; the VM's name as a file name.
    Vm(Shown, Box<str>),
    /// `<point>/<vm>/<disk>.raw`
    Disk(Shown, DiskId),
}

impl Node {
    /// The number it gets unless, once in 2^64, that is taken.
    pub(crate) fn ino(&self) -> Ino {
        self.ino_salted(0)
    }

    fn ino_salted(&self, salt: u32) -> Ino {
        let mut hasher = blake3::Hasher::new();
        let mut tagged = |tag: u8, parts: &[&[u8]]| {
            hasher.update(&[tag]);
            for part in parts {
                hasher.update(part);
            }
        };
        let point = |shown: &Shown| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&shown.lsn.get().to_le_bytes());
            bytes[8..].copy_from_slice(&shown.epoch.get().to_le_bytes());
            bytes
        };
        match self {
            Self::Root => tagged(0, &[]),
            Self::Times => tagged(1, &[]),
            Self::Lsns => tagged(2, &[]),
            Self::Bookmarks => tagged(3, &[]),
            Self::Latest => tagged(4, &[]),
            Self::At(spec) => tagged(5, &[spec.as_bytes()]),
            Self::Bookmark(name) => tagged(6, &[name.as_bytes()]),
            Self::Point(shown) => tagged(7, &[&point(shown)]),
            Self::Vm(shown, vm) => tagged(8, &[&point(shown), vm.as_bytes()]),
            Self::Disk(shown, disk) => tagged(9, &[&point(shown), &disk.get().to_le_bytes()]),
        }
        hasher.update(&salt.to_le_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        // Never 0 and never the root's 1.
        Ino::new(u64::from_le_bytes(first) | 1 << 63)
    }
}

/// The nodes that the kernel refers to.
pub(crate) struct Nodes {
    root: Node,
    known: Mutex<HashMap<Ino, Known>>,
}

struct Known {
    node: Node,
    lookups: u64,
}

impl Nodes {
    pub(crate) fn new(root: Node) -> Self {
        Self { root, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Ino, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of `node`, with one more reference to it.
    pub(crate) fn refer(&self, node: &Node) -> Ino {
        let mut known = self.known();
        let mut salt = 0;
        loop {
            let ino = node.ino_salted(salt);
            match known.entry(ino) {
                Entry::Vacant(free) => {
                    free.insert(Known { node: node.clone(), lookups: 1 });
                    return ino;
                }
                Entry::Occupied(mut taken) if taken.get().node == *node => {
                    taken.get_mut().lookups += 1;
                    return ino;
                }
                Entry::Occupied(_) => salt += 1,
            }
        }
    }

    /// Drops references.
    pub(crate) fn forget(&self, ino: Ino, lookups: u64) {
        if let Entry::Occupied(mut entry) = self.known().entry(ino) {
            let left = entry.get().lookups.saturating_sub(lookups);
            if left == 0 {
                entry.remove();
            } else {
                entry.get_mut().lookups = left;
            }
        }
    }

    /// What a number stands for.
    pub(crate) fn get(&self, ino: Ino) -> Result<Node> {
        if ino == Ino::ROOT {
            return Ok(self.root.clone());
        }
        self.known().get(&ino).map(|known| known.node.clone()).ok_or(Error::Stale { ino: ino.get() })
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.known().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(lsn: u64, epoch: u64) -> Shown {
        Shown { lsn: Lsn::new(lsn), epoch: Epoch::new(epoch), time: TimeNs::default() }
    }

    #[test]
    fn a_node_is_kept_while_it_is_referred_to_and_then_comes_back_under_its_old_number() {
        let nodes = Nodes::new(Node::Root);
        let node = Node::Disk(shown(7, 1), DiskId::new(1));
        let ino = nodes.refer(&node);
        assert_eq!(nodes.refer(&node), ino);
        nodes.forget(ino, 1);
        assert_eq!(nodes.get(ino).unwrap(), node);
        nodes.forget(ino, 1);
        assert_eq!(nodes.get(ino).unwrap_err().errno(), libc::ESTALE);
        assert_eq!(nodes.len(), 0);
        assert_eq!(nodes.refer(&node), ino);
    }

    #[test]
    fn different_things_have_different_numbers() {
        let (a, b) = (shown(7, 1), shown(7, 2));
        let nodes = [
            Node::Root,
            Node::Times,
            Node::Latest,
            Node::At("x".into()),
            Node::Bookmark("x".into()),
            Node::Point(a),
            Node::Point(b),
            Node::Vm(a, "x".into()),
            Node::Disk(a, DiskId::new(1)),
            Node::Disk(b, DiskId::new(1)),
            Node::Disk(a, DiskId::new(2)),
        ];
        let inos: std::collections::HashSet<_> = nodes.iter().map(Node::ino).collect();
        assert_eq!(inos.len(), nodes.len());
    }
}
