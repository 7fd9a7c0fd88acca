//! Objects that are as they should be.

use super::{Vector, at_ms, domain, log_key};
use crate::forge::{self, Parts};
use tidemark_format::*;

pub(super) fn all() -> Vec<Vector> {
    let mut all =
        vec![mixed(), every_event(), no_rows(), no_events(), split_write(), chunks(), widths(), end_of_numbers()];
    all.extend(bases());
    all.extend(cuts());
    all.extend(records());
    all.extend(later_minor_versions());
    all
}

fn vector(name: &str, about: &str, rules: &[&'static str], key: ObjectKey, bytes: Vec<u8>) -> Vector {
    let (rules, error) = (rules.to_vec(), None);
    let about = about.to_owned();
    Vector {
        name: name.to_owned(),
        about,
        rules,
        expect: Expect { domain: domain(), key },
        bytes,
        canonical: true,
        error,
    }
}

pub(super) fn identity(kind: SegmentKind, epoch: u64, seq: u64) -> SegmentIdentity {
    let (epoch, seq) = (Epoch::new(epoch), Seq::new(seq));
    SegmentIdentity { domain: domain(), kind, role: Role::Writer, epoch, seq }
}

pub(super) fn row(disk: u32, start: u64, len: u64, lsn: u64, kind: RowKind) -> Row {
    Row { disk: DiskId::new(disk), extent: Extent::new(start, len), lsn: Lsn::new(lsn), kind }
}

pub(super) fn step(lsn: u64, ms: u64) -> TimeStep {
    TimeStep { lsn: Lsn::new(lsn), time: at_ms(ms) }
}

pub(super) fn event(lsn: u64, body: EventBody) -> Event {
    Event { lsn: Lsn::new(lsn), body }
}

/// `len` bytes that zstd shrinks.
fn text(len: usize, word: &str) -> Vec<u8> {
    word.bytes().cycle().take(len).collect()
}

/// `len` bytes that zstd does not shrink, always the same.
fn noise(len: usize, seed: &str) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new_derive_key("tidemark golden vectors noise")
        .update(seed.as_bytes())
        .finalize_xof()
        .fill(&mut out);
    out
}

/// A segment with everything that a test wants to vary.
pub(super) struct Sample {
    pub(super) identity: SegmentIdentity,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) acked: u64,
    pub(super) tick_ns: u32,
    pub(super) times: Vec<TimeStep>,
    pub(super) rows: Vec<Row>,
    pub(super) events: Vec<Event>,
    /// Plaintext of each frame.
    pub(super) frames: Vec<Vec<u8>>,
}

impl Sample {
    pub(super) fn log(seq: u64, first: u64, last: u64) -> Self {
        Self {
            identity: identity(SegmentKind::Log, 2, seq),
            first,
            last,
            acked: first - 1,
            tick_ns: TICK_NS_DEFAULT,
            times: vec![step(first, 0)],
            rows: Vec::new(),
            events: Vec::new(),
            frames: Vec::new(),
        }
    }

    pub(super) fn seal(mut self) -> Vec<u8> {
        self.rows.sort_by_key(|row| (row.disk, row.extent.start, row.lsn));
        let stored: Vec<_> =
            self.frames.iter().map(|plain| compress_frame(plain, 1).expect("a whole number of blocks")).collect();
        let base = matches!(self.identity.kind, SegmentKind::Base | SegmentKind::Compact);
        let head = seal_segment(&SegmentDraft {
            identity: self.identity,
            first_lsn: Lsn::new(self.first),
            last_lsn: Lsn::new(self.last),
            acked_through: Lsn::new(self.acked),
            prev_header_hash: if base { [0; 32] } else { *blake3::hash(b"the segment before").as_bytes() },
            salt: *blake3::hash(self.identity.key().to_string().as_bytes()).as_bytes(),
            tick_ns: self.tick_ns,
            times: &self.times,
            rows: &self.rows,
            events: &self.events,
            frames: &stored.iter().map(|frame| frame.entry).collect::<Vec<_>>(),
        })
        .expect("a sample keeps the rules");
        let mut bytes = head.bytes;
        stored.iter().for_each(|frame| bytes.extend_from_slice(&frame.bytes));
        bytes
    }
}

/// Two disks, all kinds of rows, a compressed and a raw frame, two events. Negative vectors are made from it.
pub(super) fn mixed_bytes() -> Vec<u8> {
    let (disk, level) = (DiskId::new(1), Level::FileSystem);
    Sample {
        times: vec![step(100, 0), step(102, 5), step(106, 90)],
        rows: vec![
            row(1, 64, 2, 100, RowKind::Data),
            row(1, 8, 8, 101, RowKind::Zero),
            row(2, 1024, 1, 102, RowKind::Data),
            row(1, 65, 1, 103, RowKind::Data),
            row(2, 0, 2048, 104, RowKind::Unmap),
        ],
        events: vec![
            event(105, EventBody::Flush { disk }),
            event(106, EventBody::Bookmark { name: "before upgrade".into(), level }),
        ],
        frames: vec![text(3 * 512, "tidemark "), noise(512, "mixed")],
        ..Sample::log(7, 100, 106)
    }
    .seal()
}

/// A segment whose two frames are raw and of equal length.
pub(super) fn two_raw_frames() -> Vec<u8> {
    Sample {
        rows: vec![row(1, 0, 1, 100, RowKind::Data), row(1, 1, 1, 101, RowKind::Data)],
        frames: vec![noise(512, "first"), noise(512, "second")],
        ..Sample::log(7, 100, 101)
    }
    .seal()
}

fn mixed() -> Vector {
    let about = "two disks; data, zero and unmap; a compressed and a raw frame; two events";
    vector("log-mixed", about, &["I-1", "I-2", "I-4", "FR-1", "O-1"], log_key(2, 7), mixed_bytes())
}

fn every_event() -> Vector {
    let disk = DiskId::new(1);
    let text = |text: &str| text.to_owned();
    let hash = *blake3::hash(b"a base segment").as_bytes();
    let base = BaseRef { role: Role::Writer, epoch: Epoch::new(2), seq: Seq::new(1), header_hash: hash };
    let fields = Fields::default()
        .with("list", Value::List(vec![Fields::default().with("x", 1), Fields::default()]))
        .with("text", "é")
        .with("bytes", [0u8, 255].as_slice())
        .with("number", u64::MAX);
    let bodies = [
        EventBody::DiskAdd { disk, vm: text("db"), name: text("vda"), blocks: 1 << 21 },
        EventBody::DiskResize { disk, blocks: 1 << 22 },
        EventBody::VmConfig { vm: text("db"), format: text("libvirt-xml"), body: b"<domain/>".to_vec() },
        EventBody::Flush { disk },
        EventBody::Barrier,
        EventBody::Bookmark { name: text("nightly"), level: Level::Crash },
        EventBody::Bookmark { name: text("nightly"), level: Level::FileSystem },
        EventBody::Bookmark { name: text(""), level: Level::Application },
        EventBody::SeedStart { disk },
        EventBody::SeedExtent { disk, base, extent: Extent::new(2048, 128) },
        EventBody::SeedDone { disk },
        EventBody::Gap { disk, from: Lsn::new(3), to: Lsn::new(4) },
        EventBody::ResyncStart { disk },
        EventBody::ResyncDone { disk },
        EventBody::ConsistentFrom { disk },
        EventBody::KeyGeneration { generation: 0 },
        EventBody::ClockStep { from: at_ms(0), to: at_ms(3_600_000) },
        EventBody::Other { code: 128, fields: Fields::default() },
        EventBody::Other { code: u64::MAX, fields },
        EventBody::DiskRemove { disk },
    ];
    let events: Vec<_> = (1..).zip(bodies).map(|(lsn, body)| event(lsn, body)).collect();
    let bytes = Sample { events, ..Sample::log(1, 1, 20) }.seal();
    vector(
        "log-every-event",
        "each event once, two of unknown code that may be skipped",
        &["E-1", "E-2"],
        log_key(2, 1),
        bytes,
    )
}

fn no_rows() -> Vector {
    let bytes = Sample { events: vec![event(9, EventBody::Barrier)], ..Sample::log(3, 9, 9) }.seal();
    vector("log-no-rows", "one event, no rows: INDEX and FRAMEDIR are empty", &["I-4", "FR-1"], log_key(2, 3), bytes)
}

fn no_events() -> Vector {
    let bytes = Sample {
        rows: vec![row(3, 0, 128, 50, RowKind::Data)],
        frames: vec![text(65_536, "0123456789abcdef")],
        ..Sample::log(4, 50, 50)
    }
    .seal();
    vector("log-full-frame", "one write of 64 KiB in one frame, no event", &["FR-1", "FR-5"], log_key(2, 4), bytes)
}

fn split_write() -> Vector {
    let bytes = Sample {
        rows: vec![
            row(1, 0, 1, 20, RowKind::Data),
            row(1, 1, 6, 20, RowKind::Zero),
            row(1, 7, 1, 20, RowKind::Data),
            row(1, 0, 8, 21, RowKind::Data),
        ],
        // A row that spans two frames, and a frame that begins in the middle of it.
        frames: vec![noise(1024, "split"), text(3 * 512, "a"), noise(5 * 512, "span")],
        ..Sample::log(5, 20, 21)
    }
    .seal();
    let about = "one write of three rows whose middle is zero; a row that spans frames";
    vector("log-split-write", about, &["I-3"], log_key(2, 5), bytes)
}

fn chunks() -> Vector {
    let (first, count) = (1000, 300);
    let rows = (0..count)
        .map(|i| match i % 50 {
            49 => row(2, i * 16, 16, first + i, RowKind::Unmap),
            7 => row(1, 8 * (i * 7919 % 4096), 8, first + i, RowKind::Zero),
            _ => row(1, 8 * (i * 7919 % 4096), 1, first + i, RowKind::Data),
        })
        .collect::<Vec<_>>();
    let data = rows.iter().filter(|row| row.kind == RowKind::Data).count();
    let plain = text(data * 512, "chunk");
    let bytes = Sample {
        times: (0..150).map(|i| step(first + 2 * i, 3 * i + i % 3)).collect(),
        rows,
        frames: plain.chunks(65_536).map(<[u8]>::to_vec).collect(),
        ..Sample::log(6, first, first + count - 1)
    }
    .seal();
    let about = "300 writes in chunks of 128 rows, two disks, three frames, 150 time steps in two chunks";
    vector("log-chunks", about, &["I-1", "PC-1", "T-1", "T-2"], log_key(2, 6), bytes)
}

/// Columns of every kind of width: constant, one bit, wide steps with and without a common power of two.
fn widths() -> Vector {
    let last_block = DISK_BLOCKS_MAX - 1;
    let bytes = Sample {
        tick_ns: 1,
        times: vec![
            TimeStep { lsn: Lsn::new(1), time: TimeNs::new(0) },
            TimeStep { lsn: Lsn::new(2), time: TimeNs::new(1) },
            TimeStep { lsn: Lsn::new(3), time: TimeNs::new(u64::MAX) },
        ],
        rows: vec![
            row(0, 0, DISK_BLOCKS_MAX, 1, RowKind::Zero),
            row(0, last_block, 1, 2, RowKind::Unmap),
            row(1, 0, 1, 3, RowKind::Zero),
            row(1, 1 << 53, 1 << 53, 4, RowKind::Zero),
            row(u32::MAX, 0, 1, 5, RowKind::Zero),
            row(u32::MAX, 1, 1 << 40, 6, RowKind::Unmap),
            row(u32::MAX, last_block, 1, 7, RowKind::Zero),
            row(u32::MAX - 1, 5, 3, 8, RowKind::Data),
        ],
        frames: vec![noise(3 * 512, "widths")],
        ..Sample::log(8, 1, 8)
    }
    .seal();
    let about =
        "the widest and the narrowest packed columns: largest disk, largest disk id, largest time, tick of 1 ns";
    vector("log-widths", about, &["PC-1", "I-2", "T-2"], log_key(2, 8), bytes)
}

fn end_of_numbers() -> Vector {
    let top = u64::MAX;
    let bytes = Sample {
        identity: SegmentIdentity { epoch: Epoch::new(top), ..identity(SegmentKind::Log, 1, top) },
        rows: vec![row(1, 0, 1, top - 1, RowKind::Zero), row(1, 0, 1, top, RowKind::Unmap)],
        events: vec![event(top - 2, EventBody::Barrier)],
        ..Sample::log(1, top - 2, top)
    }
    .seal();
    vector(
        "log-end-of-numbers",
        "the last LSNs, epoch and seq that 64 bits hold",
        &["O-1", "H-5"],
        log_key(top, top),
        bytes,
    )
}

/// A base segment of two runs of data with zeros between.
pub(super) fn base_bytes(role: Role, epoch: u64, seq: u64) -> Vec<u8> {
    Sample {
        identity: SegmentIdentity { role, ..identity(SegmentKind::Base, epoch, seq) },
        acked: 0,
        rows: vec![
            row(1, 0, 4, 30, RowKind::Data),
            row(1, 4, 252, 30, RowKind::Zero),
            row(1, 256, 2, 30, RowKind::Data),
        ],
        frames: vec![text(6 * 512, "base ")],
        ..Sample::log(seq, 30, 30)
    }
    .seal()
}

fn bases() -> Vec<Vector> {
    let key = |role, epoch, seq| ObjectKey::Base { role, epoch: Epoch::new(epoch), seq: Seq::new(seq) };
    let about = "what a disk held when its protection began; all rows at the LSN of the SEED_START";
    let by_writer = vector("base-writer", about, &["R-1"], key(Role::Writer, 2, 1), base_bytes(Role::Writer, 2, 1));
    let about = "a base segment of the maintenance role, seq 0";
    let key = key(Role::Maintenance, 5, 0);
    let by_maintenance = vector("base-maintenance", about, &["R-1"], key, base_bytes(Role::Maintenance, 5, 0));
    let key = ObjectKey::Base { role: Role::Maintenance, epoch: Epoch::new(5), seq: Seq::new(1) };
    let about = "what retained points need of 21 LSNs, in place of the log segments that held them";
    let compact = vector("compact", about, &["H-5", "CS-1", "CS-2"], key, compact_bytes());
    vec![by_writer, by_maintenance, compact]
}

/// What is left of LSNs 100 to 120: two versions of a block, a part of a row, zeros, and an event.
pub(super) fn compact_bytes() -> Vec<u8> {
    Sample {
        identity: SegmentIdentity { role: Role::Maintenance, ..identity(SegmentKind::Compact, 5, 1) },
        first: 100,
        last: 120,
        acked: 0,
        times: vec![step(100, 0), step(107, 40), step(118, 95)],
        rows: vec![
            row(1, 64, 2, 101, RowKind::Data),
            row(1, 64, 1, 107, RowKind::Data),
            row(1, 70, 3, 107, RowKind::Data),
            row(2, 0, 4, 120, RowKind::Zero),
        ],
        events: vec![event(118, EventBody::DiskRemove { disk: DiskId::new(3) })],
        frames: vec![text(6 * 512, "compact ")],
        ..Sample::log(1, 100, 120)
    }
    .seal()
}

pub(super) fn cut_bytes(epoch: u64, cut: &Cut) -> Vec<u8> {
    let salt = *blake3::hash(b"cut").as_bytes();
    let identity = identity(SegmentKind::Cut, epoch, 0);
    let draft = CutDraft { identity, cut, time: at_ms(1), tick_ns: TICK_NS_DEFAULT, salt };
    seal_cut(&draft).expect("a sample keeps the rules").bytes
}

pub(super) fn cut_with_disks() -> Cut {
    let disk = |disk, name: &str| DiskState {
        disk: DiskId::new(disk),
        vm: "db".into(),
        name: name.into(),
        blocks: 131_072,
        consistent_from: None,
        seeded_at: None,
        removed_at: None,
    };
    let header_hash = *blake3::hash(b"the tail").as_bytes();
    Cut {
        predecessor: Some(Tail { epoch: Epoch::new(2), seq: Seq::new(9), header_hash }),
        next_lsn: Lsn::new(4_711),
        claim_nonce: *b"nonce of claim 4",
        disks: vec![
            disk(1, "not restorable yet"),
            DiskState { consistent_from: Some(Lsn::new(3)), ..disk(2, "made blank") },
            DiskState { consistent_from: Some(Lsn::new(900)), seeded_at: Some(Lsn::new(40)), ..disk(3, "seeded") },
            DiskState { removed_at: Some(Lsn::new(4_710)), blocks: 0, ..disk(u32::MAX, "removed") },
        ],
    }
}

fn cuts() -> Vec<Vector> {
    let first = Cut { predecessor: None, next_lsn: Lsn::new(1), claim_nonce: [1; 16], disks: Vec::new() };
    let header_hash = *blake3::hash(b"a cut that nothing followed").as_bytes();
    let tail = Tail { epoch: Epoch::new(1), seq: Seq::new(0), header_hash };
    let after_cut = Cut { predecessor: Some(tail), ..first.clone() };
    let rules = &["C-1", "C-2", "C-3", "C-4"];
    vec![
        vector("cut-first", "the CUT of a domain's first epoch", rules, log_key(1, 0), cut_bytes(1, &first)),
        vector(
            "cut-successor",
            "a CUT that follows a log, with a disk in each state",
            rules,
            log_key(4, 0),
            cut_bytes(4, &cut_with_disks()),
        ),
        vector(
            "cut-after-cut",
            "a CUT whose predecessor has only its CUT",
            rules,
            log_key(2, 0),
            cut_bytes(2, &after_cut),
        ),
    ]
}

pub(super) fn claim() -> Claim {
    Claim {
        domain: domain(),
        role: Role::Writer,
        epoch: Epoch::new(4),
        nonce: *b"nonce of claim 4",
        mode: ClaimMode::Cas,
        owner: "drva-7, process 4242".into(),
        time: at_ms(0),
    }
}

pub(super) fn genesis_of(name: &str, features: Features) -> Genesis {
    Genesis { domain: domain(), name: name.into(), created: at_ms(0), features }
}

fn records() -> Vec<Vector> {
    let cas = claim();
    let single =
        Claim { mode: ClaimMode::AttestedSingle, owner: String::new(), time: TimeNs::new(u64::MAX), ..claim() };
    let maintenance = Claim { role: Role::Maintenance, epoch: Epoch::new(1), owner: "é".into(), ..claim() };
    let hint = Hint { domain: domain(), epoch: Epoch::new(4), seq: Seq::new(300) };
    let plain = genesis_of("payroll", Features::default());
    let odd = genesis_of("\"pay\"\\roll\n\u{e9}\u{1f30a}", Features::default());
    let later = Features { read: 0, write: 1, gc: 1 << 63, compat: u64::MAX };
    vec![
        vector("claim-cas", "a writer's claim, mode cas", &["RC-1", "CB-1"], cas.key(), cas.encode()),
        vector("claim-attested-single", "mode attested-single, no owner", &["RC-1"], single.key(), single.encode()),
        vector(
            "claim-maintenance",
            "a claim of the maintenance role",
            &["RC-1"],
            maintenance.key(),
            maintenance.encode(),
        ),
        vector("hint", "a hint", &["RC-1", "RC-2"], ObjectKey::Hint, hint.encode()),
        vector("genesis", "a domain", &["G-1"], ObjectKey::Genesis, plain.encode()),
        vector("genesis-odd-name", "a name that JSON must escape", &["G-1"], ObjectKey::Genesis, odd.encode()),
        vector(
            "genesis-unknown-features",
            "unknown bits that do not forbid reading",
            &["V-2"],
            ObjectKey::Genesis,
            genesis_of("later", later).encode(),
        ),
    ]
}

/// What a reader of version 1.0 must accept from later minor versions. It cannot write them again.
fn later_minor_versions() -> Vec<Vector> {
    let later = |name: &str, about: &str, rules: &[&'static str], key, bytes| Vector {
        canonical: false,
        ..vector(name, about, rules, key, bytes)
    };
    let mut minor = Parts::split(&mixed_bytes());
    minor.set("minor", 9).set("features_write", 1).set("features_gc", 2).set("features_compat", 1 << 63);
    let mut section = Parts::split(&mixed_bytes());
    section.section(9).extend_from_slice(b"for a later reader");
    section.sections.last_mut().expect("just added").flags = 0;
    let mut empty_section = Parts::split(&cut_bytes(4, &cut_with_disks()));
    empty_section.section(u16::MAX);
    empty_section.sections.last_mut().expect("just added").flags = 0;
    // A FLUSH with fields of types that records do not have: a negative number, a float, a map, a tag, null.
    let mut types = Parts::split(&mixed_bytes());
    *types.section(4) = cbor_events_with_unknown_types();
    // A BARRIER with lists of numbers, of lists, of records and numbers.
    let mut lists = Parts::split(&mixed_bytes());
    lists.section(4).clear();
    lists.section(4).extend_from_slice(b"\x82\x83\x18\x69\x06\xa3\x61a\x82\x01\x02\x61b\x81\x81\xa0\x61c\x82\xa0\x01");
    lists.section(4).extend_from_slice(b"\x83\x18\x6a\x06\xa0");
    let mut claim_body = Vec::from([0xa8]);
    claim_body.extend_from_slice(&claim().encode()[49..]);
    claim_body.extend_from_slice(b"\x6blater_field\xf6");
    let genesis = String::from_utf8(genesis_of("payroll", Features::default()).encode()).expect("JSON");
    let lines = &genesis[..genesis.find("  \"check\"").expect("a check line")];
    let lines = format!("{}  \"later\": [1, 2],\n", lines.replace("\"minor\": 0", "\"minor\": 9"));
    vec![
        later(
            "log-later-minor",
            "minor version 9, unknown bits in write, gc and compat",
            &["V-2"],
            log_key(2, 7),
            minor.build(),
        ),
        later(
            "log-unknown-section",
            "an unknown section that is not critical",
            &["V-3"],
            log_key(2, 7),
            section.build(),
        ),
        later(
            "cut-unknown-section",
            "an empty unknown section, not critical",
            &["V-3"],
            log_key(4, 0),
            empty_section.build(),
        ),
        later("log-unknown-field-types", "unknown fields of unknown types", &["CB-1"], log_key(2, 7), types.build()),
        later(
            "log-unknown-lists",
            "unknown lists of other things than records",
            &["CB-1"],
            log_key(2, 7),
            lists.build(),
        ),
        later(
            "claim-unknown-field",
            "an unknown field of unknown type",
            &["CB-1"],
            claim().key(),
            forge::record(1, 1, &claim_body),
        ),
        later(
            "genesis-later-minor",
            "minor version 9 with a new member",
            &["G-1"],
            ObjectKey::Genesis,
            forge::genesis(&lines),
        ),
    ]
}

fn cbor_events_with_unknown_types() -> Vec<u8> {
    let mut out = b"\x82\x83\x18\x69\x05\xa6".to_vec();
    out.extend_from_slice(b"\x61a\x20"); // -1
    out.extend_from_slice(b"\x61b\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00"); // 1.0
    out.extend_from_slice(b"\x61c\xa1\x01\x82\x02\x03"); // {1: [2, 3]}
    out.extend_from_slice(b"\x61d\xc1\x1a\x51\x4b\x67\xb0"); // 1(1363896240)
    out.extend_from_slice(b"\x61e\xf6"); // null
    out.extend_from_slice(b"\x64disk\x01");
    out.extend_from_slice(b"\x83\x18\x6a\x06\xa1\x61z\x9f\x01\xff"); // BARRIER with an indefinite list
    out
}
