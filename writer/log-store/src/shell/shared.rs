//! What all domains of a store share: the device, the table on it, and the extents.

use super::lock;
use crate::core::space::Space;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::options::OpenOptions;
use crate::rules::{Rule, kept};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tidemark_format::logstore::{DomainEntry, Geometry, LunId, PAGE_BYTES, Table};
use tidemark_format::{DomainId, Lsn};

/// Shared by a store, its domains and their threads.
pub(crate) struct Shared {
    pub(crate) device: Arc<dyn Device>,
    pub(crate) geometry: Geometry,
    pub(crate) lun: LunId,
    pub(crate) options: OpenOptions,
    /// Locked after a domain's state, never before.
    pub(crate) space: Mutex<Space>,
    table: Mutex<TableFile>,
    /// Through which LSN each log is durable: noted in the table whenever it is written.
    watermarks: Mutex<BTreeMap<DomainId, Arc<AtomicU64>>>,
    /// Memory that each domain may use for recent records.
    cache_share: AtomicU64,
}

/// The table and its two copies on the device.
struct TableFile {
    table: Table,
    /// The copy that is to be written first, because the other one is whole.
    first: usize,
    failed: Option<Arc<Error>>,
}

impl Shared {
    /// `stale` is the copy of the table that is damaged or older, if one is.
    pub(crate) fn new(
        device: Arc<dyn Device>,
        (lun, geometry): (LunId, Geometry),
        (table, stale): (Table, usize),
        options: OpenOptions,
        space: Space,
    ) -> Self {
        let cache_share = AtomicU64::new(options.cache_bytes_max);
        Self {
            device,
            geometry,
            lun,
            options,
            space: Mutex::new(space),
            table: Mutex::new(TableFile { table, first: stale, failed: None }),
            watermarks: Mutex::new(BTreeMap::new()),
            cache_share,
        }
    }

    /// Changes the table, and returns once both copies are durable. If `change` errs, nothing happens.
    //= LOGSTORE.md#table
    //# LT-6
    pub(crate) fn update<R>(&self, change: impl FnOnce(&mut Table) -> Result<R>) -> Result<R> {
        let mut file = lock(&self.table);
        if let Some(source) = &file.failed {
            return Err(Error::TablePoisoned { source: source.clone() });
        }
        let mut table = file.table.clone();
        let watermarks = lock(&self.watermarks);
        for entry in &mut table.domains {
            if let Some(durable) = watermarks.get(&entry.domain) {
                //= LOGSTORE.md#table
                //# LT-7
                entry.durable = entry.durable.max(Lsn::new(durable.load(Ordering::Acquire)));
            }
        }
        drop(watermarks);
        let answer = change(&mut table)?;
        table.generation += 1;
        table.check(&self.geometry).expect("a change keeps the rules of the table");
        let bytes = table.encode();
        let first = file.first;
        for copy in [first, 1 - first].into_iter().take(if kept(Rule::BothCopies) { 2 } else { 1 }) {
            if let Err(e) = self.write(&bytes, self.geometry.tables_at()[copy]) {
                file.failed = Some(Arc::new(e.clone()));
                return Err(e);
            }
        }
        (file.table, file.first) = (table, 0);
        Ok(answer)
    }

    /// Changes a domain's entry.
    pub(crate) fn update_entry<R>(
        &self,
        domain: DomainId,
        change: impl FnOnce(&mut DomainEntry) -> Result<R>,
    ) -> Result<R> {
        self.update(|table| {
            let entry = table.domains.iter_mut().find(|entry| entry.domain == domain);
            change(entry.ok_or(Error::NoDomain { domain })?)
        })
    }

    /// A domain's entry as it is on the device, to write what it will name next.
    ///
    /// Not after a table whose write failed: the device may have that one, and name what this one calls free.
    //= LOGSTORE.md#table
    //# LT-9
    pub(crate) fn entry_to_change(&self, domain: DomainId) -> Result<DomainEntry> {
        let failed = lock(&self.table).failed.clone().filter(|_| kept(Rule::NoValueAfterTableFailure));
        match failed {
            Some(source) => Err(Error::TablePoisoned { source }),
            None => self.entry(domain),
        }
    }

    /// A domain's entry.
    pub(crate) fn entry(&self, domain: DomainId) -> Result<DomainEntry> {
        let file = lock(&self.table);
        file.table.domains.iter().find(|entry| entry.domain == domain).cloned().ok_or(Error::NoDomain { domain })
    }

    /// From now on the table notes how far the domain's log is durable.
    pub(crate) fn watch(&self, domain: DomainId, durable: &Arc<AtomicU64>) {
        lock(&self.watermarks).insert(domain, durable.clone());
        self.share_cache();
    }

    /// The table's own watermark stays as it is.
    pub(crate) fn unwatch(&self, domain: DomainId) {
        lock(&self.watermarks).remove(&domain);
        self.share_cache();
    }

    fn share_cache(&self) {
        let domains = lock(&self.watermarks).len().max(1) as u64;
        self.cache_share.store(self.options.cache_bytes_max / domains, Ordering::Relaxed);
    }
    pub(crate) fn cache_share_bytes(&self) -> u64 {
        self.cache_share.load(Ordering::Relaxed)
    }

    /// Writes all of `bytes`; durable on return.
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        write_all(&*self.device, bytes, offset)
    }

    /// Reads into `buffer`.
    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        read_all(&*self.device, buffer, offset)
    }
}

/// Writes all of `bytes`, whatever their address; durable on return.
pub(crate) fn write_all(device: &dyn Device, bytes: &[u8], offset: u64) -> Result<()> {
    assert!((bytes.len() as u64).is_multiple_of(PAGE_BYTES) && offset.is_multiple_of(PAGE_BYTES), "whole pages");
    let mut room = crate::buffer::AlignedBuffer::default();
    let mut rest = bytes;
    if bytes.as_ptr().align_offset(PAGE_BYTES as usize) != 0 {
        let aligned = room.bytes(bytes.len());
        aligned.copy_from_slice(bytes);
        rest = aligned;
    }
    let (mut at, failed) = (offset, |at, e| Error::device("write", at, bytes.len(), e));
    while !rest.is_empty() {
        let written = device.write_at(rest, at).map_err(|e| failed(at, e))?;
        // Whoever wrote a part of a page has not said which part.
        if written == 0 || written > rest.len() || !(written as u64).is_multiple_of(PAGE_BYTES) {
            return Err(failed(
                at,
                std::io::Error::new(std::io::ErrorKind::WriteZero, format!("wrote {written} bytes")),
            ));
        }
        rest = &rest[written..];
        at += written as u64;
    }
    Ok(())
}

/// Reads into an aligned buffer.
pub(crate) fn read_all(device: &dyn Device, buffer: &mut [u8], offset: u64) -> Result<()> {
    let len = buffer.len();
    device.read_at(buffer, offset).map_err(|e| Error::device("read", offset, len, e))
}
