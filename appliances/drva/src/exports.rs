//! The disks as NBD clients find them.

use crate::appliance::Hosts;
use crate::changes::Changes;
use crate::disk::Disk;
use crate::host::State;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tidemark_format::Lsn;
use tidemark_io_filter::{
    ByteRange, Claimed, Client, Error, ExportInfo, Exports, Geometry, Part, Persist, RangeLock, Result, StatusContext,
    StatusRun, Volume, ZeroOptions,
};

/// A client whose disk is known, and not served yet, waits for so long before it is told why.
pub(crate) const OPEN_PATIENCE: Duration = Duration::from_secs(30);

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

    fn open(&self, name: &str, client: &Client) -> Result<Arc<dyn Volume>> {
        if let Some((_, disk)) = self.disks().into_iter().find(|(export, _)| export == name) {
            let claim = disk.claim.clone();
            return Ok(Arc::new(Claimed::new(Arc::new(Connected::new(disk)), claim, client)));
        }
        match self.hosts.all().into_iter().find(|host| host.is_to_export(name)).map(|host| host.state()) {
            Some(State::Waiting { why, .. } | State::Failed { why }) => {
                Err(Error::failed(format!("open {name:?}"), format!("its domain is not open: {why}")))
            }
            Some(State::Serving(_)) | None => Err(Error::NoExport { name: name.to_owned() }),
        }
    }

    /// A VM may start together with the appliance: its disk is waited for while its domain is being opened.
    fn known<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        let opening = self.hosts.all().into_iter().filter(|host| host.is_to_export(name)).map(|host| async move {
            host.settled().await;
        });
        let opened = futures::future::join_all(opening);
        Box::pin(async move {
            let _ = tokio::time::timeout(OPEN_PATIENCE, opened).await;
        })
    }
}

/// A disk that a client has open: counted while it does.
struct Connected {
    disk: Arc<Disk>,
    changes: Changes,
}

impl Connected {
    fn new(disk: Arc<Disk>) -> Self {
        disk.connections.fetch_add(1, Ordering::Relaxed);
        Self { disk, changes: Changes::default() }
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
        match context {
            StatusContext::Allocation => self.disk.volume.status(range, context, runs_max),
            StatusContext::ChangedSince(lsn) => {
                Box::pin(async move { Ok(self.changes.runs(&self.disk, *lsn, range, runs_max).await) })
            }
        }
    }

    /// Of every point at which the disk can be restored, up to now.
    fn knows_changes_since(&self, lsn: Lsn) -> bool {
        self.disk.restorable_from().is_some_and(|from| from <= lsn) && lsn <= self.disk.volume.domain.durable_lsn()
    }

    /// The first of them, and the last that the bucket has: clients that want another know its number.
    fn offered_changes_since(&self) -> Vec<Lsn> {
        let Some(from) = self.disk.restorable_from() else { return Vec::new() };
        let committed = self.disk.volume.domain.status().committed;
        if committed > from { vec![from, committed] } else { vec![from] }
    }
}
