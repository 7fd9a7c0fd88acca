//! EVENTS: what happened besides writes, each at an LSN of its own (SPEC.md §events).

use crate::error::{FormatError, Result};
use crate::fields::Fields;
use crate::ids::{DiskId, Epoch, Extent, Lsn, Role, Seq, TimeNs};
use crate::index::DISK_BLOCKS_MAX;
use minicbor::{Decoder, Encoder};

/// Event codes from here on may be skipped by readers that do not know them (SPEC.md §events).
const FIRST_OPTIONAL_CODE: u64 = 128;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its position; its time is the segment's time at that LSN.
    pub lsn: Lsn,
    /// What happened.
    pub body: EventBody,
}

/// How consistent a bookmark is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// As after pulling the plug.
    Crash,
    /// The guest's file systems were flushed or frozen.
    FileSystem,
    /// The guest's applications were quiesced.
    Application,
}

impl Level {
    /// The word in records, tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::FileSystem => "fs",
            Self::Application => "app",
        }
    }
    /// The level of a word.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Crash, Self::FileSystem, Self::Application].into_iter().find(|level| level.name() == name)
    }
}

/// A base object as named by the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseRef {
    /// Role that wrote it.
    pub role: Role,
    /// Epoch of that role.
    pub epoch: Epoch,
    /// Position in that epoch.
    pub seq: Seq,
    /// Header hash of the object.
    pub header_hash: [u8; 32],
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventBody {
    /// A disk joins the domain. Its blocks are unknown until written, zeroed or seeded.
    DiskAdd {
        /// New id.
        disk: DiskId,
        /// The VM that it belongs to.
        vm: String,
        /// Its name within the VM.
        name: String,
        /// Its size in blocks.
        blocks: u64,
    },
    /// A disk changes its size. Blocks at or above a smaller size become unknown for good.
    DiskResize {
        /// The disk.
        disk: DiskId,
        /// New size in blocks.
        blocks: u64,
    },
    /// A disk leaves the domain; its history stays.
    DiskRemove {
        /// The disk.
        disk: DiskId,
    },
    /// The configuration of a VM from here on.
    VmConfig {
        /// The VM.
        vm: String,
        /// What `body` is, e.g. `libvirt-xml`.
        format: String,
        /// The configuration, verbatim.
        body: Vec<u8>,
    },
    /// The guest asked for all earlier writes of a disk to be durable.
    Flush {
        /// The disk.
        disk: DiskId,
    },
    /// All disks were held for a moment: nothing was in flight.
    Barrier,
    /// A named point in time.
    Bookmark {
        /// Its name; the newest of a name wins.
        name: String,
        /// How consistent it is.
        level: Level,
    },
    /// Seeding of a disk begins: base objects for it are logically at this LSN.
    SeedStart {
        /// The disk.
        disk: DiskId,
    },
    /// A base object is durable and part of the disk's seed.
    SeedExtent {
        /// The disk.
        disk: DiskId,
        /// The object.
        base: BaseRef,
        /// The blocks that it covers, every one of them.
        extent: Extent,
    },
    /// Seeding of a disk is complete.
    SeedDone {
        /// The disk.
        disk: DiskId,
    },
    /// Writes to a disk may have been lost between two positions.
    Gap {
        /// The disk.
        disk: DiskId,
        /// Last position known good before the loss.
        from: Lsn,
        /// Last position that may miss writes.
        to: Lsn,
    },
    /// Comparison of a disk after a gap begins.
    ResyncStart {
        /// The disk.
        disk: DiskId,
    },
    /// Comparison of a disk after a gap is complete.
    ResyncDone {
        /// The disk.
        disk: DiskId,
    },
    /// From here on the disk is restorable, until the next gap.
    ConsistentFrom {
        /// The disk.
        disk: DiskId,
    },
    /// Frames from here on use another key generation.
    KeyGeneration {
        /// The generation.
        generation: u32,
    },
    /// The wall clock jumped.
    ClockStep {
        /// What it would have shown.
        from: TimeNs,
        /// What it showed.
        to: TimeNs,
    },
    /// An event of a later minor version that may be skipped.
    Other {
        /// Its code, 128 or above.
        code: u64,
        /// Its fields.
        fields: Fields,
    },
}

impl EventBody {
    /// True of events that a timeline is made of, which tables of events hold (SPEC.md §tables-of-events).
    pub const fn is_of_timeline(&self) -> bool {
        !matches!(self, Self::Flush { .. } | Self::Barrier | Self::ClockStep { .. })
    }

    /// Code in the EVENTS section.
    pub const fn code(&self) -> u64 {
        match self {
            Self::DiskAdd { .. } => 1,
            Self::DiskResize { .. } => 2,
            Self::DiskRemove { .. } => 3,
            Self::VmConfig { .. } => 4,
            Self::Flush { .. } => 5,
            Self::Barrier => 6,
            Self::Bookmark { .. } => 7,
            Self::SeedStart { .. } => 8,
            Self::SeedExtent { .. } => 9,
            Self::SeedDone { .. } => 10,
            Self::Gap { .. } => 11,
            Self::ResyncStart { .. } => 12,
            Self::ResyncDone { .. } => 13,
            Self::ConsistentFrom { .. } => 14,
            Self::KeyGeneration { .. } => 15,
            Self::ClockStep { .. } => 16,
            Self::Other { code, .. } => *code,
        }
    }

    /// Name of the code, as in SPEC.md.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::DiskAdd { .. } => "DISK_ADD",
            Self::DiskResize { .. } => "DISK_RESIZE",
            Self::DiskRemove { .. } => "DISK_REMOVE",
            Self::VmConfig { .. } => "VM_CONFIG",
            Self::Flush { .. } => "FLUSH",
            Self::Barrier => "BARRIER",
            Self::Bookmark { .. } => "BOOKMARK",
            Self::SeedStart { .. } => "SEED_START",
            Self::SeedExtent { .. } => "SEED_EXTENT",
            Self::SeedDone { .. } => "SEED_DONE",
            Self::Gap { .. } => "GAP",
            Self::ResyncStart { .. } => "RESYNC_START",
            Self::ResyncDone { .. } => "RESYNC_DONE",
            Self::ConsistentFrom { .. } => "CONSISTENT_FROM",
            Self::KeyGeneration { .. } => "KEYGEN",
            Self::ClockStep { .. } => "CLOCK_STEP",
            Self::Other { .. } => "OTHER",
        }
    }

    /// The fields, as they stand in the object.
    pub fn fields(&self) -> Fields {
        let none = Fields::default;
        let of = |disk: &DiskId| none().with("disk", u64::from(disk.get()));
        match self {
            Self::DiskAdd { disk, vm, name, blocks } => {
                of(disk).with("vm", vm.as_str()).with("name", name.as_str()).with("blocks", *blocks)
            }
            Self::DiskResize { disk, blocks } => of(disk).with("blocks", *blocks),
            Self::DiskRemove { disk }
            | Self::Flush { disk }
            | Self::SeedStart { disk }
            | Self::SeedDone { disk }
            | Self::ResyncStart { disk }
            | Self::ResyncDone { disk }
            | Self::ConsistentFrom { disk } => of(disk),
            Self::VmConfig { vm, format, body } => {
                none().with("vm", vm.as_str()).with("format", format.as_str()).with("body", body.as_slice())
            }
            Self::Barrier => none(),
            Self::Bookmark { name, level } => none().with("name", name.as_str()).with("level", level.name()),
            Self::SeedExtent { disk, base, extent } => of(disk)
                .with("role", base.role.name())
                .with("epoch", base.epoch.get())
                .with("seq", base.seq.get())
                .with("hash", base.header_hash.as_slice())
                .with("start", extent.start)
                .with("blocks", extent.len),
            Self::Gap { disk, from, to } => of(disk).with("from", from.get()).with("to", to.get()),
            Self::KeyGeneration { generation } => none().with("generation", u64::from(*generation)),
            Self::ClockStep { from, to } => none().with("from", from.get()).with("to", to.get()),
            Self::Other { fields, .. } => fields.clone(),
        }
    }

    /// The event of a code and its fields; `None` for a critical code that is unknown.
    fn from_fields(code: u64, fields: Fields) -> Result<Option<Self>> {
        let what = "event";
        let missing = |field| FormatError::Field { what, field };
        let disk = || fields.uint32(what, "disk").map(DiskId::new);
        let blocks = || {
            fields.uint(what, "blocks").and_then(|n| if n <= DISK_BLOCKS_MAX { Ok(n) } else { Err(missing("blocks")) })
        };
        let lsn = |field| fields.uint(what, field).map(Lsn::new);
        let time = |field| fields.uint(what, field).map(TimeNs::new);
        let text = |field| fields.text(what, field);
        Ok(Some(match code {
            1 => Self::DiskAdd { disk: disk()?, vm: text("vm")?, name: text("name")?, blocks: blocks()? },
            2 => Self::DiskResize { disk: disk()?, blocks: blocks()? },
            3 => Self::DiskRemove { disk: disk()? },
            4 => Self::VmConfig { vm: text("vm")?, format: text("format")?, body: fields.blob(what, "body")? },
            5 => Self::Flush { disk: disk()? },
            6 => Self::Barrier,
            7 => {
                let level = Level::from_name(&text("level")?).ok_or(missing("level"))?;
                Self::Bookmark { name: text("name")?, level }
            }
            8 => Self::SeedStart { disk: disk()? },
            9 => {
                let start = fields.uint(what, "start")?;
                let len = blocks()?;
                if len == 0 || start.saturating_add(len) > DISK_BLOCKS_MAX {
                    return Err(missing("start"));
                }
                Self::SeedExtent {
                    disk: disk()?,
                    base: BaseRef {
                        role: Role::from_name(&text("role")?).ok_or(missing("role"))?,
                        epoch: Epoch::new(fields.uint(what, "epoch")?),
                        seq: Seq::new(fields.uint(what, "seq")?),
                        header_hash: fields.bytes(what, "hash")?,
                    },
                    extent: Extent::new(start, len),
                }
            }
            10 => Self::SeedDone { disk: disk()? },
            11 => Self::Gap { disk: disk()?, from: lsn("from")?, to: lsn("to")? },
            12 => Self::ResyncStart { disk: disk()? },
            13 => Self::ResyncDone { disk: disk()? },
            14 => Self::ConsistentFrom { disk: disk()? },
            15 => Self::KeyGeneration { generation: fields.uint32(what, "generation")? },
            16 => Self::ClockStep { from: time("from")?, to: time("to")? },
            code if code >= FIRST_OPTIONAL_CODE => Self::Other { code, fields },
            _ => return Ok(None),
        }))
    }
}

impl EventBody {
    /// The event on its own, as a log store keeps it: a CBOR array of `[code, fields]` (LOGSTORE.md §records).
    pub fn to_cbor(&self) -> Vec<u8> {
        let infallible = "writing to a Vec cannot fail";
        let mut out = Vec::new();
        let mut to = Encoder::new(&mut out);
        to.array(2).and_then(|to| to.u64(self.code())).expect(infallible);
        self.fields().put(to.writer_mut());
        out
    }

    /// Reads what [`Self::to_cbor`] wrote; `lsn` is where it stands, for errors.
    ///
    /// # Errors
    /// `Cbor`, `Field`, `TrailingBytes` or `UnknownCriticalEvent`.
    pub fn from_cbor(bytes: &[u8], lsn: Lsn) -> Result<Self> {
        let what = "event";
        let bad = |e: minicbor::decode::Error| FormatError::Cbor { what, why: e.to_string() };
        let mut from = Decoder::new(bytes);
        if from.array().map_err(bad)? != Some(2) {
            return Err(FormatError::Cbor { what, why: "an event is not a list of two".to_owned() });
        }
        let code = from.u64().map_err(bad)?;
        let fields = Fields::take(&mut from, what)?;
        match bytes.len() - from.position() {
            0 => Self::from_fields(code, fields)?.ok_or(FormatError::UnknownCriticalEvent { code, lsn }),
            extra => Err(FormatError::TrailingBytes { what, extra: extra as u64 }),
        }
    }
}

/// Appends the EVENTS section: a CBOR array of `[lsn, code, fields]`.
pub(crate) fn put_events(out: &mut Vec<u8>, events: &[Event]) {
    let infallible = "writing to a Vec cannot fail";
    let mut to = Encoder::new(&mut *out);
    to.array(events.len() as u64).expect(infallible);
    for event in events {
        to.array(3).and_then(|to| to.u64(event.lsn.get())).and_then(|to| to.u64(event.body.code())).expect(infallible);
        event.body.fields().put(to.writer_mut());
    }
}

/// Reads the EVENTS section of a segment that spans `first..=last`.
///
/// # Errors
/// `Cbor` or `Field` for malformed rows, `Event` for wrong positions, `UnknownCriticalEvent`.
pub(crate) fn take_events(section: &[u8], first: Lsn, last: Lsn) -> Result<Vec<Event>> {
    let what = "events";
    let bad = |e: minicbor::decode::Error| FormatError::Cbor { what, why: e.to_string() };
    let shape = |why: &str| FormatError::Cbor { what, why: why.to_owned() };
    let mut from = Decoder::new(section);
    let count = from.array().map_err(bad)?.ok_or_else(|| shape("list of indefinite length"))?;
    let mut events: Vec<Event> = Vec::new();
    for _ in 0..count {
        if from.array().map_err(bad)? != Some(3) {
            return Err(shape("an event is not a list of three"));
        }
        let lsn = Lsn::new(from.u64().map_err(bad)?);
        let code = from.u64().map_err(bad)?;
        let fields = Fields::take(&mut from, "event")?;
        //= SPEC.md#events
        //# E-2
        if lsn < first || lsn > last {
            return Err(FormatError::Event { lsn, why: "lies outside of the segment" });
        }
        if events.last().is_some_and(|before| before.lsn >= lsn) {
            return Err(FormatError::Event { lsn, why: "out of lsn order" });
        }
        //= SPEC.md#events
        //# E-1
        let body = EventBody::from_fields(code, fields)?.ok_or(FormatError::UnknownCriticalEvent { code, lsn })?;
        events.push(Event { lsn, body });
    }
    match section.len() - from.position() {
        0 => Ok(events),
        extra => Err(FormatError::TrailingBytes { what, extra: extra as u64 }),
    }
}
