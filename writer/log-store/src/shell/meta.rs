//! Small named values of a domain: each replaced as a whole, durable on return.

use super::domain::Domain;
use super::lock;
use crate::buffer::AlignedBuffer;
use crate::core::meta;
use crate::error::{Error, Result};
use crate::rules::{Rule, kept};
use bytes::Bytes;
use std::sync::Arc;
use tidemark_format::logstore::{META_NAME_BYTES_MAX, META_NAMES_MAX, MetaEntry, PAGE_BYTES, pages_of};

impl Domain {
    pub(crate) fn put_meta(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let limit = |what, value, max| Error::Limit { what, value, max };
        if name.is_empty() {
            return Err(Error::BelowLimit { what: "length of a value's name", value: 0, min: 1 });
        }
        if name.len() > META_NAME_BYTES_MAX {
            return Err(limit("length of a value's name", name.len() as u64, META_NAME_BYTES_MAX as u64));
        }
        let _admin = lock(&self.admin);
        if let Some(stopped) = &self.state().stopped {
            return Err(stopped.clone());
        }
        let entry = self.shared.entry_to_change(self.id)?;
        let others = || entry.metas.iter().filter(|meta| meta.name != name);
        if others().count() >= META_NAMES_MAX {
            return Err(limit("number of named values", META_NAMES_MAX as u64 + 1, META_NAMES_MAX as u64));
        }
        let pages = pages_of(bytes.len() as u64);
        let geometry = &self.shared.geometry;
        let total = pages + others().map(|meta| pages_of(meta.len.into())).sum::<u64>();
        let max = u64::from(geometry.meta_pages_max());
        if total > max {
            return Err(limit("size of a domain's named values in bytes", total * PAGE_BYTES, max * PAGE_BYTES));
        }
        let old = if kept(Rule::ValueBesideOld) { &entry.metas[..] } else { &[] };
        let runs = meta::place(old, geometry.extent_pages(), pages as u32)
            .expect("the old values and a new one fit into an extent: each is at most half of it");
        let mut padded = AlignedBuffer::default();
        let padded = padded.bytes((pages * PAGE_BYTES) as usize);
        padded[..bytes.len()].copy_from_slice(bytes);
        let mut rest = &*padded;
        for run in &runs {
            let (now, later) = rest.split_at(run.pages as usize * PAGE_BYTES as usize);
            //= LOGSTORE.md#named-values
            //# LM-2
            if let Err(e) = self.shared.write(now, geometry.page_at(entry.meta_extent, run.page)) {
                self.fail(Error::Poisoned { domain: self.id, source: Arc::new(e.clone()) });
                return Err(e);
            }
            rest = later;
        }
        let hash = *blake3::hash(bytes).as_bytes();
        let value = MetaEntry { name: name.to_owned(), len: bytes.len() as u32, hash, runs };
        self.shared.update_entry(self.id, |entry| {
            match entry.metas.binary_search_by(|meta| meta.name.as_str().cmp(name)) {
                Ok(at) => entry.metas[at] = value,
                Err(at) => entry.metas.insert(at, value),
            }
            Ok(())
        })
    }

    pub(crate) fn remove_meta(&self, name: &str) -> Result<()> {
        let _admin = lock(&self.admin);
        if self.shared.entry(self.id)?.metas.iter().all(|meta| meta.name != name) {
            return Ok(());
        }
        self.shared.update_entry(self.id, |entry| {
            entry.metas.retain(|meta| meta.name != name);
            Ok(())
        })
    }

    pub(crate) fn meta(&self, name: &str) -> Result<Option<Bytes>> {
        let _admin = lock(&self.admin);
        let entry = self.shared.entry(self.id)?;
        let Some(value) = entry.metas.iter().find(|meta| meta.name == name) else { return Ok(None) };
        let mut out = Vec::with_capacity(value.len as usize);
        let mut buffer = AlignedBuffer::default();
        for run in &value.runs {
            let bytes = buffer.bytes(run.pages as usize * PAGE_BYTES as usize);
            self.shared.read(bytes, self.shared.geometry.page_at(entry.meta_extent, run.page))?;
            let wanted = (value.len as usize - out.len()).min(bytes.len());
            out.extend_from_slice(&bytes[..wanted]);
        }
        //= LOGSTORE.md#named-values
        //# LM-3
        if *blake3::hash(&out).as_bytes() == value.hash {
            return Ok(Some(out.into()));
        }
        Err(Error::MetaDamaged { domain: self.id, name: name.to_owned(), extent: entry.meta_extent })
    }
}
