//! Disk images that are open, or were a moment ago: opening one again costs nothing.

use crate::nodes::Shown;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tidemark_format::{DiskId, Epoch, Lsn};
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
    /// By disk and LSN: the epochs whose write it is, with the image. Hardly ever more than one.
    live: HashMap<(Lsn, DiskId), Vec<Version>>,
    recent: VecDeque<Arc<DiskImage>>,
}

/// One epoch's write of a number.
type Version = (Epoch, Weak<DiskImage>);

impl Images {
    /// The image of a disk at a point, if it is open or was a moment ago.
    pub(crate) fn get(&self, point: Shown, disk: DiskId) -> Option<Arc<DiskImage>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let images = state.live.get(&(point.lsn, disk))?;
        images.iter().find(|(epoch, _)| *epoch == point.epoch)?.1.upgrade()
    }

    /// Remembers the image of a disk at a point. False if it is that of another epoch's write of the same number.
    #[must_use]
    pub(crate) fn keep(&self, point: Shown, disk: DiskId, image: &Arc<DiskImage>) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.live.retain(|_, images| {
            images.retain(|(_, image)| image.strong_count() > 0);
            !images.is_empty()
        });
        let images = state.live.entry((point.lsn, disk)).or_default();
        for (epoch, known) in images.iter() {
            if std::ptr::eq(known.as_ptr(), Arc::as_ptr(image)) {
                return *epoch == point.epoch;
            }
        }
        images.push((point.epoch, Arc::downgrade(image)));
        if state.recent.len() == IDLE_IMAGES_MAX {
            state.recent.pop_front();
        }
        state.recent.push_back(image.clone());
        true
    }

    /// Lets go of what nobody has open.
    pub(crate) fn forget_idle(&self) {
        let idle = std::mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).recent);
        drop(idle);
    }
}
