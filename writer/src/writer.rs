//! The writer as its users see it.

use crate::core::disks::{Content, NAME_BYTES_MAX, check_name};
use crate::core::layout::Body;
use crate::core::log::{Limits, Log, Submission};
use crate::core::opening::Inputs;
use crate::domain::{check_writable, open_domain};
use crate::error::{Error, Result};
use crate::options::{Attach, SEGMENT_ENTRIES_MAX, WRITE_BYTES_MAX, WriterOptions};
use crate::shell::build::Compressors;
use crate::shell::driver::Driver;
use crate::shell::open::take_over;
use crate::shell::shared::Shared;
use crate::status::WriterStatus;
use crate::ticket::{Committed, Ticket};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tidemark_bucket::{Appender, Attestation, StoreMode, attach_probe};
use tidemark_env::Env;
use tidemark_format::{
    BLOCK_BYTES, ClaimMode, DiskId, DiskState, DomainId, Epoch, EventBody, Extent, Level, Lsn, Tail, TimeNs,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Bytes of a VM's configuration at most.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Room for a DISK_ADD with two names, a row of zeros and a CONSISTENT_FROM.
const DISK_ADD_UNITS: u32 = 3 + (2 * NAME_BYTES_MAX / BLOCK_BYTES) as u32;

/// Owns one domain and writes to it.
///
/// The order of calls is the order of LSNs, so completion(A) before submit(B) gives lsn(A) < lsn(B), and of two
/// overlapping writes the later call wins. Dropping it is a crash: what is not committed may be lost. [`Self::close`]
/// commits everything first.
pub struct DomainWriter {
    pub(crate) shared: Arc<Shared>,
    pub(crate) bucket: Appender,
    pub(crate) compressors: Compressors,
    /// Base objects of this epoch so far.
    pub(crate) base_seq: AtomicU64,
    predecessor: Option<Tail>,
    driver: JoinHandle<()>,
}

/// One thing to log; it takes one LSN.
#[derive(Clone, Debug)]
pub enum Request {
    /// The guest wrote bytes.
    Write {
        /// Where.
        disk: DiskId,
        /// First byte, on a block edge.
        offset: u64,
        /// Whole blocks, at most [`WRITE_BYTES_MAX`] bytes.
        data: Bytes,
    },
    /// The guest zeroed a range.
    Zero {
        /// Where.
        disk: DiskId,
        /// First byte, on a block edge.
        offset: u64,
        /// Bytes, whole blocks.
        len: u64,
    },
    /// The guest discarded a range: it reads as zeros and counts as a hole.
    Unmap {
        /// Where.
        disk: DiskId,
        /// First byte, on a block edge.
        offset: u64,
        /// Bytes, whole blocks.
        len: u64,
    },
    /// The guest asked for all earlier writes of a disk to be durable.
    Flush {
        /// The disk.
        disk: DiskId,
    },
    /// All disks were held for a moment: nothing was in flight.
    Barrier,
    /// Names this point in time.
    Bookmark {
        /// Its name.
        name: String,
        /// How consistent the guests are at it.
        level: Level,
    },
    /// The configuration of a VM from here on.
    VmConfig {
        /// The VM.
        vm: String,
        /// What `body` is, e.g. `libvirt-xml`.
        format: String,
        /// The configuration, verbatim, at most 1 MiB.
        body: Vec<u8>,
    },
}

/// The time that a write gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// What the wall clock shows.
    Now,
    /// What the caller says, for imports. Like the clock's, it never goes back: an earlier time becomes the last one.
    At(TimeNs),
}

impl When {
    fn time(self) -> Option<TimeNs> {
        match self {
            Self::Now => None,
            Self::At(time) => Some(time),
        }
    }
}

/// A disk that joins the domain.
#[derive(Clone, Debug)]
pub struct NewDisk {
    /// The VM that it belongs to.
    pub vm: String,
    /// Its name within the VM.
    pub name: String,
    /// Its size in bytes, whole blocks.
    pub size_bytes: u64,
}

impl DomainWriter {
    /// Takes over the domain in `bucket`: claims the next epoch, which fences any other writer, finds where the log ends,
    /// and goes on from there.
    ///
    /// # Errors
    /// Kind `NotFound` if there is no domain, `Fenced` if yet another writer came by meanwhile, `DataLoss` if
    /// acknowledged writes are missing (nothing is changed then), `FixRequest` for options or a store that cannot work,
    /// `Retry` if the store is out of reach.
    pub async fn open(bucket: Appender, options: WriterOptions, env: Env) -> Result<Self> {
        options.check()?;
        let genesis = open_domain(&bucket).await?;
        check_writable(&genesis)?;
        //= SPEC.md#store-assumptions
        //# S-1
        let mode = attach(&bucket, &options, &env).await?;
        let mut salt = [0; 32];
        env.entropy.fill(&mut salt);
        let inputs = Inputs {
            domain: genesis.domain,
            owner: options.owner.clone(),
            mode,
            nonce: env.entropy.nonce(),
            salt,
            wall: env.clock.wall(),
        };
        let compressors = Compressors::new(options.compress_threads_max, options.zstd_level, options.compress_niceness)
            .map_err(|source| Error::Threads { source: Arc::new(source) })?;
        let start = take_over(&bucket, inputs).await?;
        tracing::info!(domain = %genesis.domain, epoch = %start.epoch, next_lsn = %start.next_lsn, "took the domain over");
        let limits = Limits {
            segment_bytes_max: options.segment_bytes_max,
            segment_entries_max: SEGMENT_ENTRIES_MAX,
            segment_age_max: options.age_max(),
            in_flight_segments_max: options.in_flight_segments_max as usize,
            hint_every_segments: options.hint_every_segments,
        };
        let (epoch, predecessor) = (start.epoch, start.predecessor);
        let log = Log::new(limits, start);
        let shared = Arc::new(Shared::new(genesis.domain, epoch, options, env, log));
        let driver = Driver::new(shared.clone(), bucket.clone(), compressors.clone());
        let driver = tokio::spawn(driver.run());
        Ok(Self { shared, bucket, compressors, base_seq: AtomicU64::new(0), predecessor, driver })
    }

    /// The domain.
    pub fn domain(&self) -> DomainId {
        self.shared.domain
    }

    /// The epoch that this writer owns.
    pub fn epoch(&self) -> Epoch {
        self.shared.epoch
    }

    /// Where the log of the epochs before this one ended; `None` in the first epoch.
    pub fn predecessor(&self) -> Option<Tail> {
        self.predecessor
    }

    /// Follows how the writer is doing.
    pub fn status(&self) -> watch::Receiver<WriterStatus> {
        self.shared.publish();
        self.shared.status()
    }

    /// Every disk that the domain ever had, as of the newest LSN.
    pub fn disks(&self) -> Vec<DiskState> {
        self.shared.log().disks().states().to_vec()
    }

    /// Time of [`Self::last_lsn`].
    pub fn last_time(&self) -> TimeNs {
        self.shared.log().last_time()
    }

    /// Newest LSN given to a write or event.
    pub fn last_lsn(&self) -> Lsn {
        self.shared.log().last_lsn()
    }

    /// Gives a write or event its LSN. Waits only while the writer holds as many bytes as it may.
    ///
    /// The writer keeps the request's `Bytes` until its segment is compressed: a small slice of a large buffer keeps the
    /// whole buffer alive.
    ///
    /// # Errors
    /// Kind `FixRequest` for a request that makes no sense, and why the writer stopped, if it did.
    pub async fn submit(&self, request: Request, when: When) -> Result<Ticket> {
        let what = self.checked(request)?;
        let (lsn, time) = self.shared.submit(when.time(), what).await?;
        Ok(self.ticket(lsn, time))
    }

    /// Logs what got its position and time elsewhere: in a replication log that acknowledged it. Waits like
    /// [`Self::submit`].
    ///
    /// # Errors
    /// `NotNext` if `lsn` is not the next one here, kind `FixRequest` for what makes no sense at this position, and why the
    /// writer stopped, if it did.
    pub async fn replay(&self, lsn: Lsn, time: TimeNs, what: Submission) -> Result<Ticket> {
        let units = what.units();
        let plan = |log: &Log| log.admit_at(lsn, &what).map(|()| vec![what]);
        let (lsn, time) = self.shared.submit_planned(Some(time), units, plan).await?;
        Ok(self.ticket(lsn, time))
    }

    /// Logs a write of whole blocks at `offset` bytes.
    pub async fn submit_write(&self, disk: DiskId, offset: u64, data: Bytes) -> Result<Ticket> {
        self.submit(Request::Write { disk, offset, data }, When::Now).await
    }

    /// Logs a write and waits until it is durable.
    pub async fn write(&self, disk: DiskId, offset: u64, data: Bytes) -> Result<Committed> {
        self.submit_write(disk, offset, data).await?.committed().await
    }

    /// Logs zeros and waits until they are durable.
    pub async fn zero(&self, disk: DiskId, offset: u64, len: u64) -> Result<Committed> {
        self.submit(Request::Zero { disk, offset, len }, When::Now).await?.committed().await
    }

    /// Logs a discard and waits until it is durable.
    pub async fn unmap(&self, disk: DiskId, offset: u64, len: u64) -> Result<Committed> {
        self.submit(Request::Unmap { disk, offset, len }, When::Now).await?.committed().await
    }

    /// Logs a guest's flush and waits until it, and so everything before it, is durable. Cuts the segment.
    pub async fn flush(&self, disk: DiskId) -> Result<Committed> {
        self.committed_now(Request::Flush { disk }).await
    }

    /// Names this point in time and waits until it is durable. Cuts the segment.
    pub async fn bookmark(&self, name: &str, level: Level) -> Result<Committed> {
        self.committed_now(Request::Bookmark { name: name.to_owned(), level }).await
    }

    /// Logs a VM's configuration and waits until it is durable. Cuts the segment.
    pub async fn vm_config(&self, vm: &str, format: &str, body: Vec<u8>) -> Result<Committed> {
        self.committed_now(Request::VmConfig { vm: vm.to_owned(), format: format.to_owned(), body }).await
    }

    /// Adds a disk and returns its id and the ticket of its last event.
    pub async fn submit_disk_add(&self, disk: &NewDisk, content: Content, when: When) -> Result<(DiskId, Ticket)> {
        let blocks = whole_blocks(DiskId::default(), 0, disk.size_bytes)?.len;
        let mut id = DiskId::default();
        let plan = |log: &Log| {
            let (given, plan) = log.disks().plan_add(&disk.vm, &disk.name, blocks, content)?;
            id = given;
            Ok(plan)
        };
        let (lsn, time) = self.shared.submit_planned(when.time(), DISK_ADD_UNITS, plan).await?;
        Ok((id, self.ticket(lsn, time)))
    }

    /// Adds a disk and waits until that is durable. Cuts the segment.
    pub async fn disk_add(&self, disk: &NewDisk, content: Content) -> Result<DiskId> {
        let (id, ticket) = self.submit_disk_add(disk, content, When::Now).await?;
        self.cut_now();
        ticket.committed().await?;
        Ok(id)
    }

    /// Changes a disk's size. What it gains is zeros; what it loses is gone for good.
    pub async fn submit_disk_resize(&self, disk: DiskId, size_bytes: u64, when: When) -> Result<Ticket> {
        let blocks = whole_blocks(disk, 0, size_bytes)?.len;
        let plan = |log: &Log| log.disks().plan_resize(disk, blocks);
        let (lsn, time) = self.shared.submit_planned(when.time(), 2, plan).await?;
        Ok(self.ticket(lsn, time))
    }

    /// Changes a disk's size and waits until that is durable. Cuts the segment.
    pub async fn disk_resize(&self, disk: DiskId, size_bytes: u64) -> Result<Committed> {
        let ticket = self.submit_disk_resize(disk, size_bytes, When::Now).await?;
        self.cut_now();
        ticket.committed().await
    }

    /// Takes a disk out of the domain; its history stays.
    pub async fn submit_disk_remove(&self, disk: DiskId, when: When) -> Result<Ticket> {
        let (lsn, time) = self.submit_disk_event(disk, EventBody::DiskRemove { disk }, when).await?;
        Ok(self.ticket(lsn, time))
    }

    /// Takes a disk out of the domain and waits until that is durable. Cuts the segment.
    pub async fn disk_remove(&self, disk: DiskId) -> Result<Committed> {
        let ticket = self.submit_disk_remove(disk, When::Now).await?;
        self.cut_now();
        ticket.committed().await
    }

    /// Cuts the open segment now instead of when it is full or old, and waits until everything submitted so far is durable.
    pub async fn sync(&self) -> Result<()> {
        let last = self.last_lsn();
        self.cut_now();
        self.ticket(last, TimeNs::default()).committed().await.map(drop)
    }

    /// Commits everything, refreshes the hint, and ends the writer. Later submissions fail.
    ///
    /// # Errors
    /// Why the writer stopped before it was done, if it did.
    pub async fn close(&self) -> Result<()> {
        let mut promise = self.shared.durability.promise();
        self.shared.log().close();
        self.shared.work.notify_one();
        match promise.wait_for(|p| p.stopped.is_some()).await {
            Ok(promise) => match &promise.stopped {
                Some(Error::Closed) | None => Ok(()),
                Some(stop) => Err(stop.clone()),
            },
            Err(_) => Err(Error::Closed),
        }
    }

    pub(crate) fn ticket(&self, lsn: Lsn, time: TimeNs) -> Ticket {
        Ticket::new(lsn, time, self.shared.durability.promise())
    }

    /// Cuts the open segment now instead of when it is full or old. Does not wait for it; [`Self::sync`] does.
    pub fn cut_now(&self) {
        self.shared.log().cut_now();
        self.shared.work.notify_one();
    }

    /// Logs an event about a disk that is there.
    pub(crate) async fn submit_disk_event(&self, disk: DiskId, event: EventBody, when: When) -> Result<(Lsn, TimeNs)> {
        let plan = |log: &Log| log.disks().get(disk).map(|_| vec![Submission::Event(event)]);
        self.shared.submit_planned(when.time(), 1, plan).await
    }

    async fn committed_now(&self, request: Request) -> Result<Committed> {
        let ticket = self.submit(request, When::Now).await?;
        self.cut_now();
        ticket.committed().await
    }

    /// Refuses what can be refused without looking at the log's state; the log checks disks and ranges.
    fn checked(&self, request: Request) -> Result<Submission> {
        let write = |disk, extent, body| Ok(Submission::Write { disk, extent, body });
        match request {
            Request::Write { disk, offset, data } => {
                let len = data.len() as u64;
                if len > WRITE_BYTES_MAX {
                    return Err(Error::Limit {
                        what: "length of the write in bytes",
                        value: len,
                        max: WRITE_BYTES_MAX,
                    });
                }
                write(disk, whole_blocks(disk, offset, len)?, Body::Data(data))
            }
            Request::Zero { disk, offset, len } => write(disk, whole_blocks(disk, offset, len)?, Body::Zero),
            Request::Unmap { disk, offset, len } => write(disk, whole_blocks(disk, offset, len)?, Body::Unmap),
            Request::Flush { disk } => {
                self.shared.log().disks().get(disk)?;
                Ok(Submission::Event(EventBody::Flush { disk }))
            }
            Request::Barrier => Ok(Submission::Event(EventBody::Barrier)),
            Request::Bookmark { name, level } => {
                check_name("name of the bookmark", &name)?;
                Ok(Submission::Event(EventBody::Bookmark { name, level }))
            }
            Request::VmConfig { vm, format, body } => {
                check_name("name of the vm", &vm)?;
                check_name("format of the configuration", &format)?;
                let (value, max) = (body.len() as u64, CONFIG_BYTES_MAX);
                if value > max {
                    return Err(Error::Limit { what: "length of the configuration in bytes", value, max });
                }
                Ok(Submission::Event(EventBody::VmConfig { vm, format, body }))
            }
        }
    }
}

impl Drop for DomainWriter {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl std::fmt::Debug for DomainWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DomainWriter")
            .field("domain", &self.domain())
            .field("epoch", &self.epoch())
            .finish_non_exhaustive()
    }
}

async fn attach(bucket: &Appender, options: &WriterOptions, env: &Env) -> Result<ClaimMode> {
    let mode = match options.attach {
        Attach::Probe => attach_probe(bucket, &*env.entropy, Attestation::None)
            .await
            .map_err(|e| Error::store("probe the store", e))?,
        Attach::AttestedSingle => attach_probe(bucket, &*env.entropy, Attestation::SingleWriterAttested)
            .await
            .map_err(|e| Error::store("probe the store", e))?,
        Attach::KnownCas => {
            bucket.set_mode(StoreMode::Cas);
            StoreMode::Cas
        }
    };
    Ok(match mode {
        StoreMode::Cas => ClaimMode::Cas,
        StoreMode::AttestedSingle => ClaimMode::AttestedSingle,
    })
}

/// Bytes as blocks.
pub(crate) fn whole_blocks(disk: DiskId, offset: u64, len: u64) -> Result<Extent> {
    Extent::from_bytes(offset, len).ok_or(Error::Unaligned { disk, offset, len })
}
