//! A volume in memory, for tests, examples and measuring. Nothing of it survives its process.

use crate::error::{Error, Result};
use crate::range::{ByteRange, RangeLock};
use crate::volume::{Geometry, Part, Persist, RunState, StatusContext, StatusRun, Volume, ZeroOptions};
use bytes::{Bytes, BytesMut};
use futures::future::{BoxFuture, ready};
use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tidemark_format::Lsn;

/// Size of a volume in memory, at most: bounds what its bookkeeping takes.
pub const MEMORY_BYTES_MAX: u64 = 16 << 30;

const PAGE_BYTES: u64 = 4096;

/// A disk of zeros that keeps what is written to it. Each change gets the next LSN, from 1.
#[derive(Debug)]
pub struct MemoryVolume {
    ranges: RangeLock,
    disk: RwLock<Disk>,
}

#[derive(Debug)]
struct Disk {
    geometry: Geometry,
    pages: BTreeMap<u64, Page>,
    last: Lsn,
}

/// A page that was changed at least once.
#[derive(Debug)]
struct Page {
    changed: Lsn,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Data(Box<[u8; PAGE_BYTES as usize]>),
    Zero,
    Hole,
}

impl MemoryVolume {
    /// An empty disk of at most [`MEMORY_BYTES_MAX`].
    pub fn new(size_bytes: u64) -> Result<Self> {
        Self::with_geometry(Geometry::of_size(size_bytes))
    }

    /// An empty disk of at most [`MEMORY_BYTES_MAX`] that shows these habits.
    pub fn with_geometry(geometry: Geometry) -> Result<Self> {
        check_size(geometry.size_bytes)?;
        let disk = Disk { geometry, pages: BTreeMap::new(), last: Lsn::ZERO };
        Ok(Self { ranges: RangeLock::new(), disk: RwLock::new(disk) })
    }

    /// Makes it longer or shorter while clients are connected.
    pub fn resize(&self, size_bytes: u64) -> Result<()> {
        check_size(size_bytes)?;
        let mut disk = self.change();
        disk.geometry.size_bytes = size_bytes;
        drop(disk.pages.split_off(&size_bytes.div_ceil(PAGE_BYTES)));
        // What is left of a page beyond the end must not come back.
        let last = size_bytes - size_bytes % PAGE_BYTES;
        let cut = (size_bytes - last) as usize;
        if let Some(Page { content: Content::Data(bytes), .. }) = disk.pages.get_mut(&(last / PAGE_BYTES)) {
            bytes[cut..].fill(0);
        }
        Ok(())
    }

    /// The LSN of the last change; 0 if there was none.
    pub fn last_lsn(&self) -> Lsn {
        self.disk().last
    }

    fn disk(&self) -> RwLockReadGuard<'_, Disk> {
        self.disk.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Disk> {
        self.disk.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_size(size_bytes: u64) -> Result<()> {
    if size_bytes > MEMORY_BYTES_MAX {
        let what = "volume in memory";
        return Err(Error::TooLarge { what, wanted_bytes: size_bytes, max_bytes: MEMORY_BYTES_MAX });
    }
    Ok(())
}

/// The pieces of a range within one page each: the page, and where in it.
fn pieces(range: ByteRange) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let pages = range.offset / PAGE_BYTES..range.end().div_ceil(PAGE_BYTES);
    pages.map(move |page| {
        let start = page * PAGE_BYTES;
        let from = range.offset.max(start) - start;
        let to = range.end().min(start + PAGE_BYTES) - start;
        (page, from as usize..to as usize)
    })
}

impl Disk {
    fn check(&self, range: ByteRange, changes: bool) -> Result<()> {
        if changes && self.geometry.read_only {
            return Err(Error::NotPermitted { what: "the volume is read-only".into() });
        }
        if range.end() > self.geometry.size_bytes {
            return Err(Error::NoSpace { what: format!("{range} in {} bytes", self.geometry.size_bytes) });
        }
        Ok(())
    }

    fn read(&self, range: ByteRange) -> Result<Vec<Part>> {
        self.check(range, false)?;
        let mut parts = Vec::with_capacity(1);
        let mut run = BytesMut::with_capacity(range.len.min(1 << 20) as usize);
        let mut zeros = 0_u64;
        for (page, within) in pieces(range) {
            match self.pages.get(&page) {
                Some(Page { content: Content::Data(bytes), .. }) => {
                    if zeros > 0 {
                        parts.push(Part::Zero(std::mem::take(&mut zeros)));
                    }
                    run.extend_from_slice(&bytes[within]);
                }
                _ => {
                    if !run.is_empty() {
                        parts.push(Part::Data(run.split().freeze()));
                    }
                    zeros += within.len() as u64;
                }
            }
        }
        if zeros > 0 {
            parts.push(Part::Zero(zeros));
        }
        if !run.is_empty() {
            parts.push(Part::Data(run.freeze()));
        }
        Ok(parts)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        let range = ByteRange::new(offset, data.len() as u64);
        self.check(range, true)?;
        self.last = self.last.next();
        let mut data = data;
        for (page, within) in pieces(range) {
            let (piece, rest) = data.split_at(within.len());
            data = rest;
            let page = self.pages.entry(page).or_insert(Page { changed: self.last, content: Content::Hole });
            page.changed = self.last;
            match &mut page.content {
                Content::Data(bytes) => bytes[within].copy_from_slice(piece),
                content => {
                    let mut bytes = Box::new([0; PAGE_BYTES as usize]);
                    bytes[within].copy_from_slice(piece);
                    *content = Content::Data(bytes);
                }
            }
        }
        Ok(())
    }

    /// Makes a range zeros, with backing or without.
    fn clear(&mut self, range: ByteRange, hole: bool) -> Result<()> {
        self.check(range, true)?;
        self.last = self.last.next();
        let changed = self.last;
        let all = 0..PAGE_BYTES as usize;
        if !hole {
            for (page, _) in pieces(range).filter(|(_, within)| *within == all) {
                self.pages.entry(page).or_insert(Page { changed, content: Content::Hole }).content = Content::Zero;
            }
        }
        // What was never written is zero and stays as it is.
        let pages = range.offset / PAGE_BYTES..range.end().div_ceil(PAGE_BYTES);
        for (page, content) in self.pages.range_mut(pages) {
            let start = page * PAGE_BYTES;
            let within = (range.offset.max(start) - start) as usize..(range.end() - start).min(PAGE_BYTES) as usize;
            content.changed = changed;
            match &mut content.content {
                Content::Data(bytes) if within != all => bytes[within].fill(0),
                Content::Data(_) | Content::Zero if within == all && hole => content.content = Content::Hole,
                _ => {}
            }
        }
        Ok(())
    }

    fn state(&self, page: u64, context: &StatusContext) -> RunState {
        let page = self.pages.get(&page);
        match (context, page) {
            (StatusContext::Allocation, Some(Page { content: Content::Data(_), .. })) => RunState::Data,
            (StatusContext::Allocation, Some(Page { content: Content::Zero, .. })) => RunState::Zero,
            (StatusContext::Allocation, _) => RunState::Hole,
            (StatusContext::ChangedSince(lsn), Some(page)) if page.changed > *lsn => RunState::Changed,
            (StatusContext::ChangedSince(_), _) => RunState::Same,
        }
    }

    fn status(&self, range: ByteRange, context: &StatusContext, runs_max: usize) -> Result<Vec<StatusRun>> {
        self.check(range, false)?;
        let mut runs: Vec<StatusRun> = Vec::new();
        for (page, within) in pieces(range) {
            let (state, bytes) = (self.state(page, context), within.len() as u64);
            let full = runs.len() == runs_max;
            match runs.last_mut() {
                Some(run) if run.state == state => run.bytes += bytes,
                _ if full => break,
                _ => runs.push(StatusRun { bytes, state }),
            }
        }
        Ok(runs)
    }
}

impl Volume for MemoryVolume {
    fn geometry(&self) -> Geometry {
        self.disk().geometry
    }

    fn ranges(&self) -> &RangeLock {
        &self.ranges
    }

    fn read(&self, range: ByteRange) -> BoxFuture<'_, Result<Vec<Part>>> {
        Box::pin(ready(self.disk().read(range)))
    }

    fn write(&self, offset: u64, data: Bytes, _: Persist) -> BoxFuture<'_, Result<()>> {
        Box::pin(ready(self.change().write(offset, &data)))
    }

    fn zero(&self, range: ByteRange, options: ZeroOptions, _: Persist) -> BoxFuture<'_, Result<()>> {
        if options.fast_only && !self.geometry().fast_zero {
            return Box::pin(ready(Err(Error::Unsupported { what: "fast zeros".into() })));
        }
        Box::pin(ready(self.change().clear(range, options.may_unmap)))
    }

    fn trim(&self, range: ByteRange, _: Persist) -> BoxFuture<'_, Result<()>> {
        Box::pin(ready(self.change().clear(range, true)))
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(ready(Ok(())))
    }

    fn status<'a>(
        &'a self,
        range: ByteRange,
        context: &'a StatusContext,
        runs_max: usize,
    ) -> BoxFuture<'a, Result<Vec<StatusRun>>> {
        Box::pin(ready(self.disk().status(range, context, runs_max)))
    }

    fn knows_changes_since(&self, lsn: Lsn) -> bool {
        lsn <= self.last_lsn()
    }

    fn offered_changes_since(&self) -> Vec<Lsn> {
        vec![Lsn::ZERO]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn a_volume_in_memory_is_bounded() {
        let volume = MemoryVolume::new(MEMORY_BYTES_MAX).expect("the bound itself fits");
        assert!(matches!(volume.resize(MEMORY_BYTES_MAX + 1), Err(Error::TooLarge { .. })));
        assert!(matches!(MemoryVolume::new(MEMORY_BYTES_MAX + 1), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn what_was_cut_off_does_not_come_back() {
        let volume = MemoryVolume::new(16 << 10).expect("small");
        let write = volume.write(0, vec![7; 16 << 10].into(), Persist::Normal);
        write.now_or_never().expect("at once").expect("within the volume");
        volume.resize(512).expect("small");
        volume.resize(16 << 10).expect("small");
        let read =
            volume.read(ByteRange::new(0, 16 << 10)).now_or_never().expect("at once").expect("within the volume");
        let mut page = vec![0; 4096];
        page[..512].fill(7);
        assert_eq!(read, [Part::Data(page.into()), Part::Zero(12 << 10)]);
    }

    #[test]
    fn zeros_that_must_be_fast_are_refused_where_they_are_not() {
        let geometry = Geometry { fast_zero: false, ..Geometry::of_size(4096) };
        let volume = MemoryVolume::with_geometry(geometry).expect("small");
        let options = ZeroOptions { may_unmap: true, fast_only: true };
        let zero = volume.zero(ByteRange::new(0, 4096), options, Persist::Normal).now_or_never().expect("at once");
        assert!(matches!(zero, Err(Error::Unsupported { .. })));
    }
}
