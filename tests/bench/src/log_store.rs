//! The log store alone against a bare group-commit loop on the same device: what checksums, index, space and recovery
//! cost. Both have the same callers, one thread that writes, and the same batches; the loop keeps nothing.

use crate::report::{Goal, Report, median};
use anyhow::{Context, Result};
use bytes::Bytes;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tidemark_env::Clock;
use tidemark_format::{BLOCK_BYTES, DiskId, DomainId, Extent, Lsn, TimeNs};
use tidemark_log_store::{DomainLog, FormatOptions, LogStore, Record, RecordBody, SpaceLimits};
use tokio::sync::oneshot;

/// What one measurement does.
pub(crate) struct Options {
    /// Where the files lie: the device that is measured.
    pub(crate) dir: PathBuf,
    /// Size of each file in MiB.
    pub(crate) file_mib: u64,
    /// Rounds of all shapes, the two in turn.
    pub(crate) rounds: usize,
    /// Milliseconds of one measurement.
    pub(crate) round_ms: u64,
}

const PAGE_BYTES: usize = 4096;
/// As in the store.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// A load: callers that each have one write under way.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    callers: u64,
    bytes: usize,
}

const SHAPES: &[Shape] = &[
    Shape { name: "4 KiB, 1 caller", callers: 1, bytes: 4 << 10 },
    Shape { name: "4 KiB, 4 callers", callers: 4, bytes: 4 << 10 },
    Shape { name: "4 KiB, 16 callers", callers: 16, bytes: 4 << 10 },
    Shape { name: "4 KiB, 64 callers", callers: 64, bytes: 4 << 10 },
    Shape { name: "1 MiB, 1 caller", callers: 1, bytes: 1 << 20 },
    Shape { name: "1 MiB, 4 callers", callers: 4, bytes: 1 << 20 },
];

/// Something that makes writes durable.
trait Sink: Send + Sync + 'static {
    fn write(&self, data: Bytes) -> impl Future<Output = Result<()>> + Send;
}

pub(crate) async fn run(options: &Options, clock: &dyn Clock) -> Result<Report> {
    let dir = tempfile::tempdir_in(&options.dir)?;
    let file_bytes = options.file_mib << 20;
    let bare = Arc::new(Bare::start(&dir.path().join("bare"), file_bytes)?);
    let path = dir.path().join("lun");
    LogStore::format(&path, &FormatOptions { size_bytes: Some(file_bytes), ..Default::default() })?;
    let store = LogStore::open(&path, tidemark_log_store::OpenOptions::default())?;
    let limits = SpaceLimits { min_bytes: 0, max_bytes: u64::MAX };
    let log = store.create_domain(DomainId::new([1; 16]), limits, Lsn::new(1))?;
    let ours = Arc::new(Ours { next: Mutex::new(1), trimmed: AtomicU64::new(0), log, room_bytes: file_bytes / 4 });

    let mut report = Report::default();
    let duration = Duration::from_millis(options.round_ms);
    for shape in SHAPES {
        let (mut of_bare, mut of_ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            let theirs = load(bare.clone(), *shape, duration, clock).await?;
            let own = load(ours.clone(), *shape, duration, clock).await?;
            of_bare.push(theirs);
            of_ours.push(own);
            ratios.push(own / theirs);
        }
        let name = shape.name;
        report.figure(format!("{name}: bare loop"), median(&of_bare), "writes/s");
        report.figure(format!("{name}: log store"), median(&of_ours), "writes/s");
        report.goal(format!("{name}: ratio"), median(&ratios), "", Goal::AtLeast(0.9));
    }
    store.close()?;
    Ok(report)
}

/// Writes a second.
async fn load<S: Sink>(sink: Arc<S>, shape: Shape, duration: Duration, clock: &dyn Clock) -> Result<f64> {
    let stop = Arc::new(AtomicBool::new(false));
    let start = clock.monotonic();
    let callers: Vec<_> = (0..shape.callers)
        .map(|n| {
            let (sink, stop) = (sink.clone(), stop.clone());
            let data = Bytes::from(vec![n as u8 + 1; shape.bytes]);
            tokio::spawn(async move {
                let mut count = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    sink.write(data.clone()).await?;
                    count += 1;
                }
                anyhow::Ok(count)
            })
        })
        .collect();
    tokio::time::sleep(duration).await;
    stop.store(true, Ordering::Relaxed);
    let mut count = 0;
    for caller in callers {
        count += caller.await??;
    }
    Ok(count as f64 / (clock.monotonic() - start).as_secs_f64())
}

/// The log store, trimmed behind the writes as a shipper would.
struct Ours {
    next: Mutex<u64>,
    trimmed: AtomicU64,
    log: DomainLog,
    room_bytes: u64,
}

impl Sink for Ours {
    async fn write(&self, data: Bytes) -> Result<()> {
        let (lsn, appended) = {
            let mut next = self.next.lock().expect("no caller panics");
            let lsn = *next;
            let extent = Extent::new(lsn % (1 << 30), data.len() as u64 / BLOCK_BYTES);
            let body = RecordBody::Write { disk: DiskId::new(1), extent, data };
            let record = Record { lsn: Lsn::new(lsn), time: TimeNs::new(lsn), body };
            let appended = self.log.append(vec![record])?;
            *next += 1;
            (lsn, appended)
        };
        appended.await?;
        // Whoever finds a quarter of the device in use trims it, aside.
        if lsn.is_multiple_of(64) && self.log.usage().used_bytes > self.room_bytes {
            let before = self.trimmed.fetch_max(lsn, Ordering::Relaxed);
            if before < lsn {
                let log = self.log.clone();
                tokio::task::spawn_blocking(move || log.trim(Lsn::new(lsn)));
            }
        }
        Ok(())
    }
}

/// The loop that is the limit: a ring, a thread, one write at a time of whatever came in.
struct Bare {
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Vec<(Bytes, oneshot::Sender<bool>)>>,
    wake: Condvar,
}

impl Bare {
    fn start(path: &Path, file_bytes: u64) -> Result<Self> {
        // Filled with zeros, like the store's: blocks that were never written cost more.
        let zeros = vec![0; 4 << 20];
        let plain = File::create(path)?;
        for at in (0..file_bytes).step_by(zeros.len()) {
            plain.write_all_at(&zeros, at)?;
        }
        plain.sync_all()?;
        let flags = libc::O_DIRECT | libc::O_DSYNC;
        let file = OpenOptions::new().write(true).custom_flags(flags).open(path).context("open for direct writes")?;
        let queue = Arc::new(Queue::default());
        let of_thread = queue.clone();
        std::thread::spawn(move || commit(&of_thread, &file, file_bytes));
        Ok(Self { queue })
    }
}

impl Sink for Bare {
    async fn write(&self, data: Bytes) -> Result<()> {
        let (answer, durable) = oneshot::channel();
        self.queue.waiting.lock().expect("no caller panics").push((data, answer));
        self.queue.wake.notify_one();
        anyhow::ensure!(durable.await?, "the write failed");
        Ok(())
    }
}

fn commit(queue: &Queue, file: &File, file_bytes: u64) {
    let mut room = vec![0; BATCH_BYTES_MAX + (2 << 20)];
    let start = room.as_ptr().align_offset(PAGE_BYTES);
    let mut at = 0;
    loop {
        let taken: Vec<_> = {
            let mut waiting = queue.waiting.lock().expect("no caller panics");
            while waiting.is_empty() {
                waiting = queue.wake.wait(waiting).expect("no caller panics");
            }
            let (mut bytes, mut count) = (0, 0);
            while count < waiting.len() && (count == 0 || bytes + waiting[count].0.len() < BATCH_BYTES_MAX) {
                bytes += waiting[count].0.len();
                count += 1;
            }
            waiting.drain(..count).collect()
        };
        // A page in front, as any log needs.
        let mut len = PAGE_BYTES;
        for (data, _) in &taken {
            room[start + len..start + len + data.len()].copy_from_slice(data);
            len += data.len();
        }
        if at + len as u64 > file_bytes {
            at = 0;
        }
        let written = file.write_all_at(&room[start..start + len], at).is_ok();
        at += len as u64;
        for (_, answer) in taken {
            let _ = answer.send(written);
        }
    }
}
