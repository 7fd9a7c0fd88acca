//! The disks as NBD clients find them.

use crate::appliance::Hosts;
use crate::disk::Disk;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tidemark_format::Lsn;
use tidemark_io_filter::{
    ByteRange, Client, Error, ExportInfo, Exports, Geometry, Part, Persist, RangeLock, Result, StatusContext,
    StatusRun, Volume, ZeroOptions,
};

/// Exports of all domains.
pub(crate) struct DiskExports {
    pub(crate) hosts: Arc<Hosts>,
}

impl DiskExports {
    fn disks(&self) -> Vec<(String, Arc<Disk>)> {
        let hosts = self.hosts.all();
        let served = hosts.iter().filter_map(|host| host.served());
        let named = |served: Arc<crate::host::Served>| {
            let disks: Vec<_> = served.disks().values().cloned().collect();
            disks.into_iter().map(|disk| (disk.export_name(), disk)).collect::<Vec<_>>()
        };
        served.flat_map(named).collect()
    }
}

impl Exports for DiskExports {
    fn list(&self, _: &Client) -> Vec<ExportInfo> {
        let info = |(name, disk): (String, Arc<Disk>)| ExportInfo { name, description: disk.address.to_string() };
        self.disks().into_iter().map(info).collect()
    }

    fn open(&self, name: &str, _: &Client) -> Result<Arc<dyn Volume>> {
        let found = self.disks().into_iter().find(|(export, _)| export == name);
        let Some((_, disk)) = found else {
            let name = name.to_owned();
            return Err(Error::NoExport { name });
        };
        Ok(Arc::new(Connected::new(disk)))
    }
}

/// A disk that a client has open: counted while it does.
struct Connected {
    disk: Arc<Disk>,
}

impl Connected {
    fn new(disk: Arc<Disk>) -> Self {
        disk.connections.fetch_add(1, Ordering::Relaxed);
        Self { disk }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.disk.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Volume for Connected {
    fn geometry(&self) -> Geometry {
        self.disk.volume.geometry()
    }

    fn ranges(&self) -> &RangeLock {
        self.disk.volume.ranges()
    }

    fn read(&self, range: ByteRange) -> BoxFuture<'_, Result<Vec<Part>>> {
        Volume::read(&*self.disk.volume, range)
    }

    fn write(&self, offset: u64, data: Bytes, persist: Persist) -> BoxFuture<'_, Result<()>> {
        self.disk.volume.write(offset, data, persist)
    }

    fn zero(&self, range: ByteRange, options: ZeroOptions, persist: Persist) -> BoxFuture<'_, Result<()>> {
        self.disk.volume.zero(range, options, persist)
    }

    fn trim(&self, range: ByteRange, persist: Persist) -> BoxFuture<'_, Result<()>> {
        self.disk.volume.trim(range, persist)
    }

    fn flush(&self) -> BoxFuture<'_, Result<()>> {
        self.disk.volume.flush()
    }

    fn cache(&self, range: ByteRange) -> BoxFuture<'_, Result<()>> {
        self.disk.volume.cache(range)
    }

    fn status<'a>(
        &'a self,
        range: ByteRange,
        context: &'a StatusContext,
        runs_max: usize,
    ) -> BoxFuture<'a, Result<Vec<StatusRun>>> {
        self.disk.volume.status(range, context, runs_max)
    }

    fn knows_changes_since(&self, lsn: Lsn) -> bool {
        self.disk.volume.knows_changes_since(lsn)
    }

    fn offered_changes_since(&self) -> Vec<Lsn> {
        self.disk.volume.offered_changes_since()
    }
}
