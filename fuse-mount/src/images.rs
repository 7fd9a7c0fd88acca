//! Disk images that are open, or were a moment ago: opening one again costs nothing.

use crate::nodes::Shown;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tidemark_format::DiskId;
use tidemark_reader::DiskImage;

/// Images kept though nobody has them open.
const IDLE_IMAGES_MAX: usize = 8;

/// Open images, and the last few that were closed.
#[derive(Default)]
pub(crate) struct Images {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: HashMap<(Shown, DiskId), Weak<DiskImage>>,
    recent: VecDeque<Arc<DiskImage>>,
}

impl Images {
    pub(crate) fn get(&self, point: Shown, disk: DiskId) -> Option<Arc<DiskImage>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.live.get(&(point, disk))?.upgrade()
    }

    pub(crate) fn keep(&self, point: Shown, disk: DiskId, image: &Arc<DiskImage>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.recent.len() == IDLE_IMAGES_MAX {
            state.recent.pop_front();
        }
        state.recent.push_back(image.clone());
        state.live.retain(|_, image| image.strong_count() > 0);
        state.live.insert((point, disk), Arc::downgrade(image));
    }
}
