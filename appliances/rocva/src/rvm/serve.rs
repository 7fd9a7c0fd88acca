//! The process of a representation VM: opens the domain, makes the disks, serves and hydrates them until it is told to stop.

use super::{Reached, Spec, socket, stem};
use crate::durable;
use crate::error::{Error, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidemark_bucket::{Bucket, BucketOptions};
use tidemark_env::Env;
use tidemark_format::{DiskId, Lsn, with_causes};
use tidemark_io_filter::nbd::{Limits, Listener, Server};
use tidemark_io_filter::{
    ByteRange, Client, ExportInfo, Exports, Geometry, Part, Persist, RangeLock, RunState, StatusContext, StatusRun,
    Volume, ZeroOptions,
};
use tidemark_overlay::{HydrateOptions, Hydrator, ImageSource, Overlay, UNIT_BYTES};
use tidemark_reader::{Domain, PinOptions, ReaderOptions};
use tokio::sync::watch;

/// Who may connect to the socket: its owner.
const SOCKET_MODE: u32 = 0o600;
/// Between two notes of how far it is.
const NOTE_EVERY: Duration = Duration::from_millis(250);
/// How long what the disks are read by stays in the bucket if the process dies: time to start it again.
const PIN_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Serves the disks of the VM whose directory this is, until `stop` comes.
///
/// # Errors
/// If another process serves them, the domain cannot be opened, or the local disk fails.
pub async fn serve_rvm(dir: &Path, env: Env, stop: impl Future<Output = ()>) -> Result<()> {
    let own = |source: std::io::Error| Error::Local { path: dir.to_owned(), source };
    let _lock = alone(dir)?;
    let vm = dir.display().to_string();
    let failed = |why: String| Error::Disks { vm: vm.clone(), why };
    let spec: Option<Spec> = durable::load(&dir.join("rvm.json")).map_err(own)?;
    let spec = spec.ok_or_else(|| Error::NoRecovery { dir: dir.to_owned() })?;
    let url = spec.url.parse().map_err(|e: tidemark_bucket::Error| failed(with_causes(&e)))?;
    let bucket = Bucket::open(&url, &BucketOptions::default()).map_err(|e| failed(with_causes(&e)))?;
    // The guest's disks are in the bucket alone until they are local: maintenance must leave them there.
    let pin = PinOptions { pinner: bucket.pinner(), owner: format!("recovery in {vm}"), lifetime: PIN_LIFETIME };
    let reader = ReaderOptions { pin: Some(pin), ..ReaderOptions::default() };
    let domain = Domain::open(bucket.read_only(), reader, env.clone()).await?;
    let mut disks = Vec::new();
    for disk in &spec.disks {
        let image = domain.disk(DiskId::new(disk.id), Lsn::new(spec.lsn)).await?;
        let (files, stem, env) = (dir.join("disks"), stem(disk), env.clone());
        let open = move || Overlay::open_at(&files, &stem, Arc::new(ImageSource::new(image)), &env);
        let opened = tokio::task::spawn_blocking(open).await.map_err(|e| failed(e.to_string()))?;
        disks.push((super::stem(disk), opened.map_err(|e| failed(with_causes(&e)))?));
    }
    let overlays: Vec<Arc<Overlay>> = disks.iter().map(|(_, overlay)| overlay.clone()).collect();
    let volumes = disks.into_iter().map(|(name, overlay)| (name, Arc::new(RecoveryDisk::new(overlay)))).collect();
    let server =
        Server::new(Arc::new(Served(volumes)), Limits::default(), None).map_err(|e| failed(with_causes(&e)))?;
    let listener = Listener::unix(&socket(dir), SOCKET_MODE).map_err(|e| failed(with_causes(&e)))?;
    let (end, ending) = watch::channel(false);
    let ended = async move |mut ending: watch::Receiver<bool>| {
        // A sender that is gone ends everything, too.
        let _ = ending.wait_for(|end| *end).await;
    };
    let serving = tokio::spawn({
        let ending = ending.clone();
        async move { server.serve(vec![listener], ended(ending)).await }
    });
    let mut stop = std::pin::pin!(stop);
    tokio::select! {
        () = &mut stop => {}
        hydrated = hydrate(dir, &spec, &overlays, &env) => {
            hydrated?;
            // Nothing is left to do but to serve.
            stop.await;
        }
    }
    end.send_replace(true);
    serving.await.ok();
    let all_local = overlays.iter().all(|overlay| overlay.finished().is_some());
    let close = move || overlays.iter().try_for_each(|overlay| overlay.close());
    let closed = tokio::task::spawn_blocking(close).await.map_err(|e| failed(e.to_string()))?;
    // Else it may be started again, and then needs the same point.
    if all_local && let Err(error) = domain.unpin().await {
        tracing::warn!(error = with_causes(&error), "a pin is left, and runs out by itself");
    }
    closed.map_err(|e| failed(with_causes(&e)))
}

/// Takes the place of the one process that serves the disks, and leaves its number there.
fn alone(dir: &Path) -> Result<File> {
    use std::io::{Seek, Write};
    let path = dir.join("rvm.pid");
    let own = |source| Error::Local { path: path.clone(), source };
    let mut file = File::options().create(true).truncate(false).write(true).open(&path).map_err(own)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Err(Error::InUse { dir: dir.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => return Err(Error::Local { path: path.clone(), source }),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(own)?;
    Ok(file)
}

/// Brings everything to the local disk, if that is wanted, and notes how far it is.
async fn hydrate(dir: &Path, spec: &Spec, overlays: &[Arc<Overlay>], env: &Env) -> Result<()> {
    let failed = |why: String| Error::Disks { vm: dir.display().to_string(), why };
    let note = || {
        let stats = overlays.iter().map(|overlay| overlay.stats());
        let (mut local_bytes, mut total_bytes) = (0, 0);
        for stats in stats {
            local_bytes += stats.size_bytes.saturating_sub(stats.units.absent * UNIT_BYTES);
            total_bytes += stats.size_bytes;
        }
        let finished = spec.hydrate && overlays.iter().all(|overlay| overlay.finished().is_some());
        let path = dir.join("hydration.json");
        let reached = Reached { local_bytes, total_bytes, finished };
        durable::save(&path, &reached).map_err(|source| Error::Local { path, source })
    };
    note()?;
    if !spec.hydrate {
        return Ok(());
    }
    let one = |overlay: &Arc<Overlay>| {
        let hydrator = Hydrator::new(overlay.clone(), HydrateOptions::default(), env.clone());
        async move { hydrator.run().await }
    };
    let mut all = std::pin::pin!(futures::future::try_join_all(overlays.iter().map(one)));
    loop {
        tokio::select! {
            hydrated = &mut all => {
                for disk in hydrated.map_err(|e| failed(with_causes(&e)))? {
                    if disk.unfilled_bytes > 0 {
                        tracing::error!(bytes = disk.unfilled_bytes, first = ?disk.unfilled.first(), "nobody has these bytes");
                    }
                }
                return note();
            }
            () = tokio::time::sleep(NOTE_EVERY) => note()?,
        }
    }
}

/// The disks, by name.
struct Served(Vec<(String, Arc<RecoveryDisk>)>);

impl Exports for Served {
    fn list(&self, _: &Client) -> Vec<ExportInfo> {
        let info = |(name, _): &(String, _)| ExportInfo { name: name.clone(), description: String::new() };
        self.0.iter().map(info).collect()
    }

    fn open(&self, name: &str, _: &Client) -> tidemark_io_filter::Result<Arc<dyn Volume>> {
        match self.0.iter().find(|(known, _)| known == name) {
            Some((_, disk)) => Ok(disk.clone()),
            None => Err(tidemark_io_filter::Error::NoExport { name: name.to_owned() }),
        }
    }
}

/// A writable disk as NBD clients find it.
struct RecoveryDisk {
    overlay: Arc<Overlay>,
    ranges: RangeLock,
}

type Answer<'a, T> = BoxFuture<'a, tidemark_io_filter::Result<T>>;

impl RecoveryDisk {
    fn new(overlay: Arc<Overlay>) -> Self {
        Self { overlay, ranges: RangeLock::new() }
    }

    async fn persisted(&self, persist: Persist) -> tidemark_overlay::Result<()> {
        match persist {
            Persist::Normal => Ok(()),
            Persist::Fua => self.overlay.flush().await,
        }
    }
}

fn refused(what: String) -> impl FnOnce(tidemark_overlay::Error) -> tidemark_io_filter::Error {
    move |error| tidemark_io_filter::Error::Failed { what, source: Box::new(error) }
}

impl Volume for RecoveryDisk {
    fn geometry(&self) -> Geometry {
        Geometry::of_size(self.overlay.size_bytes())
    }

    fn ranges(&self) -> &RangeLock {
        &self.ranges
    }

    fn read(&self, range: ByteRange) -> Answer<'_, Vec<Part>> {
        Box::pin(async move {
            let bytes = self.overlay.read(range.offset, range.len as usize).await;
            Ok(vec![Part::Data(bytes.map_err(refused(format!("read {range}")))?)])
        })
    }

    fn write(&self, offset: u64, data: Bytes, persist: Persist) -> Answer<'_, ()> {
        Box::pin(async move {
            let range = ByteRange::new(offset, data.len() as u64);
            let written = async {
                self.overlay.write(offset, data).await?;
                self.persisted(persist).await
            };
            written.await.map_err(refused(format!("write {range}")))
        })
    }

    fn zero(&self, range: ByteRange, _: ZeroOptions, persist: Persist) -> Answer<'_, ()> {
        self.trim(range, persist)
    }

    fn trim(&self, range: ByteRange, persist: Persist) -> Answer<'_, ()> {
        Box::pin(async move {
            let zeroed = async {
                self.overlay.discard(range.offset..range.end()).await?;
                self.persisted(persist).await
            };
            zeroed.await.map_err(refused(format!("clear {range}")))
        })
    }

    fn flush(&self) -> Answer<'_, ()> {
        Box::pin(async move { self.overlay.flush().await.map_err(refused("flush".to_owned())) })
    }

    fn status<'a>(&'a self, range: ByteRange, _: &'a StatusContext, runs_max: usize) -> Answer<'a, Vec<StatusRun>> {
        Box::pin(async move {
            let (mut runs, mut at) = (Vec::new(), range.offset);
            while at < range.end() && runs.len() < runs_max {
                let failed = |error| refused(format!("tell what {range} holds"))(error);
                let data = self.overlay.next_data(at).await.map_err(failed)?.unwrap_or(range.end());
                let (state, end) = if data > at {
                    (RunState::Hole, data)
                } else {
                    let hole = self.overlay.next_hole(at).await.map_err(failed)?;
                    (RunState::Data, hole.unwrap_or(range.end()))
                };
                let end = end.min(range.end());
                runs.push(StatusRun { bytes: end - at, state });
                at = end;
            }
            Ok(runs)
        })
    }
}
