//! Opens that the kernel serves from a local file by itself.
//!
//! The kernel wants one and the same backing for all such opens of a node at a time. Whatever cannot be had so is served by us.

use fuser::{BackingId, INodeNo};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Backings in use.
#[derive(Default)]
pub(crate) struct Passed {
    permitted: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    by_node: HashMap<u64, Weak<BackingId>>,
    by_open: HashMap<u64, Arc<BackingId>>,
}

impl Passed {
    /// Whether the kernel can do it.
    pub(crate) fn permit(&self, permitted: bool) {
        self.permitted.store(permitted, Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The backing of a node: the one in use, or one that `register` makes of its local file.
    pub(crate) fn backing(
        &self,
        node: INodeNo,
        local: impl FnOnce() -> Option<File>,
        register: impl FnOnce(&File) -> io::Result<BackingId>,
    ) -> Option<Arc<BackingId>> {
        if !self.permitted.load(Relaxed) {
            return None;
        }
        let mut state = self.state();
        let file = local()?;
        if let Some(known) = state.by_node.get(&node.0).and_then(Weak::upgrade) {
            return Some(known);
        }
        match register(&file) {
            Ok(backing) => {
                let backing = Arc::new(backing);
                state.by_node.retain(|_, backing| backing.strong_count() > 0);
                state.by_node.insert(node.0, Arc::downgrade(&backing));
                Some(backing)
            }
            Err(error) => {
                // Needs CAP_SYS_ADMIN, and a file system that is not stacked itself.
                tracing::debug!(%error, "the kernel does not read the local file by itself");
                self.permit(false);
                None
            }
        }
    }

    /// An open was answered with a backing.
    pub(crate) fn opened(&self, open: u64, backing: Arc<BackingId>) {
        self.state().by_open.insert(open, backing);
    }

    /// It was closed.
    pub(crate) fn released(&self, open: u64) {
        self.state().by_open.remove(&open);
    }
}
