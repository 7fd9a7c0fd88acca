//! Whole domains: every object at its key, and what a reader must make of all of them together.

use super::negatives::varint;
use super::positives::{event, row};
use super::{at_ms, domain};
use crate::r0::{Broken, Bucket, History};
use serde_json::json;
use tidemark_format::*;

/// A domain and what is to be said of it.
pub(super) struct Domain {
    pub(super) name: String,
    about: String,
    rules: Vec<&'static str>,
    pub(super) bucket: Bucket,
    /// What is wrong with it, if anything.
    broken: Option<Broken>,
}

impl Domain {
    /// The JSON beside the domain's folder.
    pub(super) fn json(&self) -> String {
        let mut out = json!({ "about": self.about, "rules": self.rules });
        match (History::open(&self.bucket), &self.broken) {
            (Err(got), Some(wanted)) if got == *wanted => {
                out["error"] = got.error.into();
                out["key"] = got.key.to_string().into();
            }
            (Ok(history), None) => out["meaning"] = history.meaning(),
            (got, wanted) => panic!("domain {}: wanted {wanted:?}, got {:?}", self.name, got.map(|h| h.last_lsn())),
        }
        format!("{out:#}\n")
    }
}

/// Writes a domain as an owner would, one segment at a time.
struct Owner {
    bucket: Bucket,
    epoch: u64,
    seq: u64,
    next_lsn: u64,
    prev: [u8; 32],
    acked: u64,
    ms: u64,
    disks: Vec<DiskState>,
}

/// What takes one LSN. Writes have disk and first block, then a letter for each block or a number of blocks.
enum Entry {
    Data(u32, u64, &'static str),
    Zero(u32, u64, u64),
    Unmap(u32, u64, u64),
    Event(EventBody),
}
use Entry::{Data, Unmap, Zero};

/// A block for each letter, filled with it.
fn blocks_of(letters: &str) -> Vec<u8> {
    letters.bytes().flat_map(|letter| [letter; BLOCK_BYTES as usize]).collect()
}

impl Owner {
    fn new() -> Self {
        let mut bucket = Bucket::new();
        let genesis = super::positives::genesis_of("golden", Features::default());
        bucket.insert(ObjectKey::Genesis, genesis.encode());
        let (disks, prev) = (Vec::new(), [0; 32]);
        Self { bucket, epoch: 0, seq: 0, next_lsn: 1, prev, acked: 0, ms: 0, disks }
    }

    fn identity(&self, kind: SegmentKind, seq: u64) -> SegmentIdentity {
        SegmentIdentity {
            domain: domain(),
            kind,
            role: Role::Writer,
            epoch: Epoch::new(self.epoch),
            seq: Seq::new(seq),
        }
    }

    /// Claims the next epoch, and does nothing with it yet.
    fn claim(&mut self) -> Option<Tail> {
        let header_hash = self.prev;
        let tail =
            (self.epoch > 0).then(|| Tail { epoch: Epoch::new(self.epoch), seq: Seq::new(self.seq), header_hash });
        self.epoch += 1;
        let claim = Claim { epoch: Epoch::new(self.epoch), nonce: [self.epoch as u8; 16], ..super::positives::claim() };
        self.bucket.insert(claim.key(), claim.encode());
        tail
    }

    /// Puts the CUT of the claimed epoch.
    fn cut(&mut self, predecessor: Option<Tail>) {
        let claim_nonce = [self.epoch as u8; 16];
        let cut = Cut { predecessor, next_lsn: Lsn::new(self.next_lsn), claim_nonce, disks: self.disks.clone() };
        let salt = *blake3::hash(&[self.epoch as u8]).as_bytes();
        let identity = self.identity(SegmentKind::Cut, 0);
        let draft = CutDraft { identity, cut: &cut, time: at_ms(self.ms), tick_ns: TICK_NS_DEFAULT, salt };
        let sealed = seal_cut(&draft).expect("a sample keeps the rules");
        self.bucket.insert(identity.key(), sealed.bytes);
        (self.seq, self.prev) = (0, sealed.header_hash);
    }

    /// Puts the next log segment.
    fn segment(&mut self, entries: Vec<Entry>) {
        self.seq += 1;
        let first = self.next_lsn;
        let (mut rows, mut events) = (Vec::new(), Vec::new());
        for entry in entries {
            let lsn = self.next_lsn;
            self.next_lsn += 1;
            match entry {
                Data(disk, start, letters) => {
                    rows.push((row(disk, start, letters.len() as u64, lsn, RowKind::Data), letters));
                }
                Zero(disk, start, len) => rows.push((row(disk, start, len, lsn, RowKind::Zero), "")),
                Unmap(disk, start, len) => rows.push((row(disk, start, len, lsn, RowKind::Unmap), "")),
                Entry::Event(body) => events.push(event(lsn, body)),
            }
        }
        for event in &events {
            DiskState::apply(&mut self.disks, event).expect("a sample keeps the rules");
        }
        rows.sort_by_key(|(row, _)| (row.disk, row.extent.start, row.lsn));
        self.ms += 10;
        let times = [TimeStep { lsn: Lsn::new(first), time: at_ms(self.ms) }];
        let identity = self.identity(SegmentKind::Log, self.seq);
        let lsns = (first, self.next_lsn - 1, self.acked);
        self.prev = self.seal(identity, lsns, &times, &rows, &events);
        self.acked = self.next_lsn - 1;
    }

    /// Puts a base segment that stands at `start`, and returns the event that names it.
    fn base(&mut self, seq: u64, disk: u32, start: u64, first_block: u64, letters: &'static str) -> Entry {
        let len = letters.len() as u64;
        let rows = [(row(disk, first_block, len, start, RowKind::Data), letters)];
        let times = [TimeStep { lsn: Lsn::new(start), time: at_ms(self.ms) }];
        let identity = self.identity(SegmentKind::Base, seq);
        let header_hash = self.seal(identity, (start, start, 0), &times, &rows, &[]);
        let base = BaseRef { role: Role::Writer, epoch: identity.epoch, seq: identity.seq, header_hash };
        Entry::Event(EventBody::SeedExtent { disk: DiskId::new(disk), base, extent: Extent::new(first_block, len) })
    }

    fn seal(
        &mut self,
        identity: SegmentIdentity,
        (first, last, acked): (u64, u64, u64),
        times: &[TimeStep],
        rows: &[(Row, &str)],
        events: &[Event],
    ) -> [u8; 32] {
        let plain: Vec<u8> = rows.iter().flat_map(|(_, letters)| blocks_of(letters)).collect();
        let frames: Vec<_> =
            plain.chunks(2048).map(|plain| compress_frame(plain, 1).expect("a whole number of blocks")).collect();
        let base = matches!(identity.kind, SegmentKind::Base | SegmentKind::Compact);
        let head = seal_segment(&SegmentDraft {
            identity,
            first_lsn: Lsn::new(first),
            last_lsn: Lsn::new(last),
            acked_through: Lsn::new(acked),
            prev_header_hash: if base { [0; 32] } else { self.prev },
            salt: *blake3::hash(identity.key().to_string().as_bytes()).as_bytes(),
            tick_ns: TICK_NS_DEFAULT,
            times,
            rows: &rows.iter().map(|(row, _)| *row).collect::<Vec<_>>(),
            events,
            frames: &frames.iter().map(|frame| frame.entry).collect::<Vec<_>>(),
        })
        .expect("a sample keeps the rules");
        let mut bytes = head.bytes;
        frames.iter().for_each(|frame| bytes.extend_from_slice(&frame.bytes));
        self.bucket.insert(identity.key(), bytes);
        head.header_hash
    }
}

fn add(disk: u32, name: &str, blocks: u64) -> Entry {
    Entry::Event(EventBody::DiskAdd { disk: DiskId::new(disk), vm: "db".into(), name: name.into(), blocks })
}

fn on(disk: u32, body: fn(DiskId) -> EventBody) -> Entry {
    Entry::Event(body(DiskId::new(disk)))
}

fn consistent(disk: u32) -> Entry {
    on(disk, |disk| EventBody::ConsistentFrom { disk })
}

fn resize(disk: u32, blocks: u64) -> Entry {
    Entry::Event(EventBody::DiskResize { disk: DiskId::new(disk), blocks })
}

fn bookmark(name: &str) -> Entry {
    Entry::Event(EventBody::Bookmark { name: name.into(), level: Level::FileSystem })
}

/// Epoch 1 with two segments and one that came too late, epoch 2 claimed and abandoned, epoch 3 with the rest.
fn grown() -> Owner {
    grown_from(|_, tail| tail)
}

/// `grown` whose second CUT names what `tail_of` makes of the true tail.
fn grown_from(tail_of: fn(&Bucket, Option<Tail>) -> Option<Tail>) -> Owner {
    let mut owner = Owner::new();
    let tail = owner.claim();
    owner.cut(tail);
    owner.segment(vec![add(1, "vda", 16), Zero(1, 0, 16), consistent(1), Data(1, 2, "ab"), Data(1, 3, "cde")]);
    owner.segment(vec![Unmap(1, 4, 2), on(1, |disk| EventBody::Flush { disk }), bookmark("first"), Data(1, 15, "f")]);
    // The owner of epoch 1 stalls here; the segment it writes when it goes on is behind the tail that the CUT names.
    let (seq, prev, next_lsn, acked, ms) = (owner.seq, owner.prev, owner.next_lsn, owner.acked, owner.ms);
    owner.segment(vec![Data(1, 0, "XXXX")]);
    (owner.seq, owner.prev, owner.next_lsn, owner.acked, owner.ms) = (seq, prev, next_lsn, acked, ms);
    let tail = owner.claim();
    owner.claim();
    owner.cut(tail_of(&owner.bucket, tail));
    owner.segment(vec![Data(1, 0, "g"), add(2, "vdb", 8), on(2, |disk| EventBody::SeedStart { disk })]);
    let started = owner.next_lsn - 1;
    let first = owner.base(1, 2, started, 0, "hijk");
    owner.segment(vec![Data(2, 1, "l"), first, Data(2, 6, "m")]);
    let second = owner.base(2, 2, started, 4, "nopq");
    owner.segment(vec![second, on(2, |disk| EventBody::SeedDone { disk }), consistent(2), bookmark("seeded")]);
    owner.segment(vec![resize(1, 4), Data(1, 1, "r"), resize(1, 8), Zero(1, 4, 4), Data(1, 5, "s"), bookmark("first")]);
    let gap = EventBody::Gap { disk: DiskId::new(2), from: Lsn::new(20), to: Lsn::new(25) };
    owner.segment(vec![
        Entry::Event(gap),
        on(2, |disk| EventBody::ResyncStart { disk }),
        Data(2, 0, "t"),
        on(2, |disk| EventBody::ResyncDone { disk }),
        consistent(2),
        on(1, |disk| EventBody::DiskRemove { disk }),
    ]);
    let hint = Hint { domain: domain(), epoch: Epoch::new(1), seq: Seq::new(1) };
    owner.bucket.insert(ObjectKey::Hint, hint.encode());
    owner
}

/// `grown` after a pass that keeps points 4 and 9 of epoch 1, and everything from its end on.
fn cleaned() -> Owner {
    let mut owner = grown();
    let claim = |epoch| Claim { role: Role::Maintenance, epoch: Epoch::new(epoch), ..super::positives::claim() };
    for epoch in 1..=4 {
        owner.bucket.insert(claim(epoch).key(), claim(epoch).encode());
    }
    let mark = |lsn: u64| Mark { lsn: Lsn::new(lsn), time: at_ms(if lsn > 5 { 20 } else { 10 }) };
    let retained = Retained { horizon: mark(9), kept: vec![mark(4)] };
    let tail = ObjectKey::Log { epoch: Epoch::new(1), seq: Seq::new(2) };
    let expect = Expect { domain: domain(), key: tail };
    let header = SegmentHeader::decode(&owner.bucket[&tail]).expect("it was sealed");
    header.check_identity(&expect).expect("it lies there");
    let compact = |owner: &mut Owner, epoch, seq, (first, last), rows: &[(Row, &str)], events: &[Event], ms| {
        let (kind, role) = (SegmentKind::Compact, Role::Maintenance);
        let identity =
            SegmentIdentity { kind, role, epoch: Epoch::new(epoch), seq: Seq::new(seq), ..owner.identity(kind, seq) };
        let times = [TimeStep { lsn: Lsn::new(first), time: at_ms(ms) }];
        let header_hash = owner.seal(identity, (first, last, 0), &times, rows, events);
        let (epoch, seq, last_lsn) = (identity.epoch, identity.seq, Lsn::new(last));
        LedgerPart { kind, epoch, first: seq, last: seq, last_lsn, header_hash }
    };
    let first = [
        (row(1, 0, 16, 2, RowKind::Zero), ""),
        (row(1, 2, 2, 4, RowKind::Data), "ab"),
        (row(1, 3, 3, 5, RowKind::Data), "cde"),
    ];
    let disk = DiskId::new(1);
    let (vm, name) = ("db".to_owned(), "vda".to_owned());
    let added =
        [event(1, EventBody::DiskAdd { disk, vm, name, blocks: 16 }), event(3, EventBody::ConsistentFrom { disk })];
    let second = [(row(1, 4, 2, 6, RowKind::Unmap), ""), (row(1, 15, 1, 9, RowKind::Data), "f")];
    let parts = vec![
        compact(&mut owner, 3, 1, (1, 5), &first, &added, 10),
        compact(&mut owner, 3, 2, (6, 9), &second, &[], 20),
    ];
    let through = Through {
        epoch: Epoch::new(1),
        seq: Seq::new(2),
        header_hash: header.header_hash,
        lsn: header.last_lsn,
        time: header.last_time,
    };
    let epochs = vec![EpochStart { epoch: Epoch::new(1), first_lsn: Lsn::new(1) }];
    let (domain, first_time) = (domain(), at_ms(10));
    let ledger = Ledger { domain, epoch: Epoch::new(3), through, first_time, epochs, parts, retained };
    // An older one that nobody may go by any more.
    let older = Ledger {
        epoch: Epoch::new(2),
        parts: vec![LedgerPart {
            kind: SegmentKind::Log,
            epoch: Epoch::new(1),
            first: Seq::new(1),
            last: Seq::new(2),
            last_lsn: through.lsn,
            header_hash: through.header_hash,
        }],
        retained: Retained { horizon: Mark { lsn: Lsn::new(1), time: first_time }, kept: Vec::new() },
        ..ledger.clone()
    };
    for ledger in [ledger, older] {
        owner.bucket.insert(ledger.key(), ledger.encode().expect("a sample keeps the rules"));
    }
    owner.bucket.retain(|key, _| !matches!(key, ObjectKey::Log { epoch, .. } if epoch.get() == 1));
    owner
}

pub(super) fn all() -> Vec<Domain> {
    let good = |name: &str, about: &str, rules: &[&'static str], owner: Owner| Domain {
        name: name.to_owned(),
        about: about.to_owned(),
        rules: rules.to_vec(),
        bucket: owner.bucket,
        broken: None,
    };
    let mut claimed = Owner::new();
    claimed.claim();
    let mut cut_only = Owner::new();
    let tail = cut_only.claim();
    cut_only.cut(tail);
    let mut cloned = grown();
    cloned.prev = [0xcc; 32];
    cloned.segment(vec![Data(2, 0, "YYYY")]);
    let mut overtaken = grown();
    overtaken.claim();
    let mut all = vec![
        good(
            "grown",
            "three epochs, one abandoned; a segment behind the tail; seeding, resizes, a gap, a stale hint",
            &["R-3", "R-4", "R-5", "R-6", "R-7", "RC-2", "O-3", "C-2", "C-3"],
            grown(),
        ),
        good("claimed", "a domain that was claimed and never written", &["R-3"], claimed),
        good("cut-only", "a domain of one CUT", &["R-3", "R-4"], cut_only),
        good(
            "cloned",
            "a segment that a clone of the owner wrote where the log ends, with a hash of a segment of its own",
            &["R-3", "F-7"],
            cloned,
        ),
        good(
            "cleaned",
            "epoch 1 replaced by two compact segments, two of its points kept; older ledgers and orphans not yet deleted",
            &["LG-2", "LG-4", "CS-1", "RN-1"],
            cleaned(),
        ),
        good("overtaken", "a newer claim without CUT: only what was acknowledged is final", &["R-4"], overtaken),
    ];
    all.extend(broken());
    all
}

/// `grown` with one thing wrong.
fn broken() -> Vec<Domain> {
    let log = |epoch, seq| ObjectKey::Log { epoch: Epoch::new(epoch), seq: Seq::new(seq) };
    let claim = |epoch| ObjectKey::writer_claim(Epoch::new(epoch));
    let base = ObjectKey::Base { role: Role::Writer, epoch: Epoch::new(3), seq: Seq::new(1) };
    let bad = |name: &str, about: &str, rules: &[&'static str], error, key, change: &dyn Fn(&mut Bucket)| {
        let mut bucket = grown().bucket;
        change(&mut bucket);
        let (about, rules, broken) = (about.to_owned(), rules.to_vec(), Some(Broken { error, key }));
        Domain { name: format!("bad-{name}"), about, rules, bucket, broken }
    };
    // A segment with header fields changed and right hashes of its own.
    let edit = |bucket: &mut Bucket, key, change: &dyn Fn(&mut crate::forge::Parts)| {
        let mut parts = crate::forge::Parts::split(&bucket[&key]);
        change(&mut parts);
        bucket.insert(key, parts.build());
    };
    let o3: &[_] = &["O-3"];
    vec![
        bad("missing-segment", "a segment inside of the history is gone", &["R-3"], "Missing", log(1, 1), &|bucket| {
            bucket.remove(&log(1, 1));
        }),
        bad("missing-predecessor", "the CUT of a predecessor is gone", &["R-3"], "Missing", log(1, 0), &|bucket| {
            bucket.remove(&log(1, 0));
        }),
        bad("missing-claim", "a claim is gone, later ones are there", &["R-8"], "Missing", claim(2), &|bucket| {
            bucket.remove(&claim(2));
        }),
        bad("missing-claim-1", "the only claim is gone: no empty domain", &["R-8"], "Missing", claim(1), &|bucket| {
            bucket.retain(|key, _| !matches!(key, ObjectKey::Claim { .. }));
        }),
        bad(
            "missing-cut",
            "the CUT of the newest epoch is gone: no older history",
            &["R-8"],
            "Missing",
            log(3, 0),
            &|bucket| {
                bucket.remove(&log(3, 0));
            },
        ),
        bad("missing-genesis", "no tidemark.json", &[], "Missing", ObjectKey::Genesis, &|bucket| {
            bucket.remove(&ObjectKey::Genesis);
        }),
        bad("missing-base", "a base segment that the log names is gone", &["R-7"], "Missing", base, &|bucket| {
            bucket.remove(&base);
        }),
        bad(
            "chain-hash",
            "a segment was replaced by another that is whole in itself",
            o3,
            "Chain",
            log(3, 3),
            &|bucket| {
                edit(bucket, log(3, 2), &|parts| parts.header[184] ^= 1);
            },
        ),
        bad("chain-lsn", "a segment that leaves out an LSN", o3, "Chain", log(3, 1), &|bucket| {
            let next = crate::forge::Parts::split(&bucket[&log(3, 1)]).get("first_lsn");
            bucket.remove(&log(3, 2));
            edit(bucket, log(3, 1), &|parts| {
                parts.set("first_lsn", next + 1).set("last_lsn", next + 1).set("row_count", 0).set("stream_blocks", 0);
                parts.set("frame_count", 0);
                parts.data.clear();
                parts.section(1).clear();
                parts.section(2).clear();
                let ticks = parts.get("first_time_ns") / u64::from(TICK_NS_DEFAULT);
                *parts.section(3) = [vec![0], varint(next + 1), varint(ticks), vec![0; 6]].concat();
                *parts.section(4) = [&[0x81, 0x83, 0x18][..], &[next as u8 + 1, 6, 0xa0]].concat();
            });
        }),
        bad(
            "chain-time",
            "a segment whose time is before that of its predecessor",
            &["T-1"],
            "Chain",
            log(3, 5),
            &|bucket| {
                edit(bucket, log(3, 5), &|parts| {
                    let time = parts.get("first_time_ns") - 20_000_000;
                    parts.set("first_time_ns", time).set("last_time_ns", time);
                    let lsn = parts.get("first_lsn");
                    *parts.section(3) =
                        [vec![0], varint(lsn), varint(time / u64::from(TICK_NS_DEFAULT)), vec![0; 6]].concat();
                });
            },
        ),
        bad(
            "cut-hash",
            "a CUT that names another tail than the one there is",
            &["C-3"],
            "Chain",
            log(3, 0),
            &|bucket| {
                edit(bucket, log(1, 2), &|parts| parts.header[184] ^= 1);
            },
        ),
        Domain {
            bucket: grown_from(|bucket, tail| {
                let before = bucket[&ObjectKey::Log { epoch: Epoch::new(1), seq: Seq::new(1) }].get(448..480)?;
                Some(Tail { seq: Seq::new(1), header_hash: before.try_into().ok()?, ..tail? })
            })
            .bucket,
            ..bad(
                "cut-stale",
                "a CUT that leaves out the last segment of its predecessor",
                &["C-2"],
                "Chain",
                log(3, 0),
                &|_| {},
            )
        },
        bad(
            "stale-epoch",
            "a segment of epoch 1 in the place of one of epoch 3",
            &["R-1"],
            "Misplaced",
            log(3, 2),
            &|bucket| {
                let stale = bucket[&log(1, 2)].clone();
                bucket.insert(log(3, 2), stale);
            },
        ),
        bad("swapped", "two segments in each other's place", &["R-1"], "Misplaced", log(3, 1), &|bucket| {
            let (one, two) = (bucket[&log(3, 1)].clone(), bucket[&log(3, 2)].clone());
            bucket.insert(log(3, 1), two);
            bucket.insert(log(3, 2), one);
        }),
        bad("flipped-bit", "a bit of a frame inside of the history", &["FR-4"], "FrameHash", log(1, 1), &|bucket| {
            *bucket.get_mut(&log(1, 1)).and_then(|bytes| bytes.last_mut()).expect("it has data") ^= 1;
        }),
        bad("base-hash", "another base segment than the one that the log names", &["R-7"], "Chain", base, &|bucket| {
            edit(bucket, base, &|parts| parts.header[184] ^= 1);
        }),
        bad(
            "foreign-claim",
            "a claim of another domain",
            &["R-1"],
            "WrongDomain",
            ObjectKey::writer_claim(Epoch::new(2)),
            &|bucket| {
                let epoch = Epoch::new(2);
                let claim = Claim { domain: DomainId::new([9; 16]), epoch, ..super::positives::claim() };
                bucket.insert(claim.key(), claim.encode());
            },
        ),
    ]
}
