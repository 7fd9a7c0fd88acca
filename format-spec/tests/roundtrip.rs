//! What is sealed decodes to what was said, and arbitrary bytes never do harm.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::disallowed_macros, reason = "cargo test shows what a test prints")]

#[allow(unreachable_pub)]
mod forge;

use proptest::prelude::*;
use tidemark_format::*;

const DOMAIN: DomainId = DomainId::new(*b"0123456789abcdef");
const TICK_NS: u32 = TICK_NS_DEFAULT;

fn log_identity(seq: u64) -> SegmentIdentity {
    let (epoch, seq) = (Epoch::new(3), Seq::new(seq));
    SegmentIdentity { domain: DOMAIN, kind: SegmentKind::Log, role: Role::Writer, epoch, seq }
}

/// Rows of distinct LSNs from `first` on, at any place, and the events that fill the rest of the range.
fn any_segment() -> impl Strategy<Value = (u64, Vec<Row>, Vec<Event>)> {
    let write = (1u32..4, 0u64..5_000, 1u64..100, 0u8..4);
    (1u64..1 << 40, proptest::collection::vec(write, 1..600)).prop_map(|(first, writes)| {
        let (mut rows, mut events) = (Vec::new(), Vec::new());
        for (i, (disk, start, len, kind)) in writes.into_iter().enumerate() {
            let (lsn, disk) = (Lsn::new(first + i as u64), DiskId::new(disk));
            let kind = match kind {
                0 | 1 => RowKind::Data,
                2 => RowKind::Zero,
                _ if start % 2 == 0 => RowKind::Unmap,
                _ => {
                    events.push(Event { lsn, body: EventBody::Flush { disk } });
                    continue;
                }
            };
            rows.push(Row { disk, extent: Extent::new(start * 8, len), lsn, kind });
        }
        rows.sort_by_key(|row| (row.disk, row.extent.start, row.lsn));
        (first, rows, events)
    })
}

fn stored_frames(rows: &[Row]) -> (Vec<FrameEntry>, Vec<u8>, Vec<u8>) {
    let plain: Vec<u8> = rows
        .iter()
        .filter(|row| row.kind == RowKind::Data)
        .flat_map(|row| (0..row.extent.byte_len()).map(|i| (row.lsn.get() as u8).wrapping_add((i / 64) as u8)))
        .collect();
    let (mut entries, mut stored) = (Vec::new(), Vec::new());
    for chunk in plain.chunks(FRAME_PLAIN_BYTES_MAX as usize) {
        let frame = compress_frame(chunk, 1).unwrap();
        entries.push(frame.entry);
        stored.extend(frame.bytes);
    }
    (entries, stored, plain)
}

fn object(first: u64, rows: &[Row], events: &[Event]) -> (SegmentDraftOwned, Vec<u8>, Vec<u8>) {
    let (frames, stored, plain) = stored_frames(rows);
    let count = rows.len() + events.len();
    let times: Vec<_> = (0..count as u64)
        .step_by(3)
        .map(|i| TimeStep {
            lsn: Lsn::new(first + i),
            time: TimeNs::new((1_700_000_000_000 + i * i) * u64::from(TICK_NS)),
        })
        .collect();
    let owned = SegmentDraftOwned {
        first,
        last: first + count as u64 - 1,
        times,
        rows: rows.to_vec(),
        events: events.to_vec(),
        frames,
    };
    let head = seal_segment(&owned.draft()).unwrap();
    assert_eq!(head.total_len, (head.bytes.len() + stored.len()) as u64);
    let mut bytes = head.bytes;
    bytes.extend(stored);
    (owned, bytes, plain)
}

struct SegmentDraftOwned {
    first: u64,
    last: u64,
    times: Vec<TimeStep>,
    rows: Vec<Row>,
    events: Vec<Event>,
    frames: Vec<FrameEntry>,
}

impl SegmentDraftOwned {
    fn draft(&self) -> SegmentDraft<'_> {
        SegmentDraft {
            identity: log_identity(7),
            first_lsn: Lsn::new(self.first),
            last_lsn: Lsn::new(self.last),
            acked_through: Lsn::new(self.first - 1),
            prev_header_hash: [1; 32],
            salt: [2; 32],
            tick_ns: TICK_NS,
            times: &self.times,
            rows: &self.rows,
            events: &self.events,
            frames: &self.frames,
        }
    }
}

const EXPECT: Expect = Expect { domain: DOMAIN, key: ObjectKey::Log { epoch: Epoch::new(3), seq: Seq::new(7) } };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn prop_segments_read_back_as_sealed((first, rows, events) in any_segment(), probe in (1u32..4, 0u64..40_000, 1u64..4_000)) {
        let (owned, bytes, plain) = object(first, &rows, &events);
        let head = SegmentHead::decode(&bytes, &EXPECT).unwrap();
        prop_assert_eq!(head.check_dense(), Ok(()));
        prop_assert_eq!(head.check_total_len(bytes.len() as u64), Ok(()));
        prop_assert_eq!(head.index.iter().map(|placed| placed.row).collect::<Vec<_>>(), rows.clone());
        prop_assert_eq!(&head.events, &events);
        let times = head.times.as_ref().unwrap();
        prop_assert_eq!(times.iter().collect::<Vec<_>>(), owned.times.clone());
        for step in &owned.times {
            prop_assert_eq!(times.time_of(step.lsn), Some(step.time));
            prop_assert_eq!(times.first_after(TimeNs::new(step.time.get() - 1)), Some(step.lsn));
        }
        prop_assert_eq!(times.first_after(owned.times.last().unwrap().time), None);

        // Every Data row's bytes are where the index and the frame directory say.
        for placed in head.index.iter().filter(|placed| placed.row.kind == RowKind::Data) {
            let (frame, offset) = head.frames.locate(placed.stream_block * BLOCK_BYTES).unwrap();
            let range = head.frames.object_range(frame).unwrap();
            let stored = &bytes[range.start as usize..range.end as usize];
            let frame_plain = decode_frame(head.frames.entry(frame).unwrap(), stored).unwrap();
            prop_assert_eq!(frame_plain[offset as usize], plain[(placed.stream_block * BLOCK_BYTES) as usize]);
        }

        // Looking up a range finds the same rows as a scan.
        let (disk, extent) = (DiskId::new(probe.0), Extent::new(probe.1, probe.2));
        let mut found = Vec::new();
        head.index.for_each_overlapping(disk, extent, |placed| found.push(placed));
        let scanned: Vec<_> =
            head.index.iter().filter(|placed| placed.row.disk == disk && placed.row.extent.overlaps(extent)).collect();
        prop_assert_eq!(found, scanned);
    }

    #[test]
    fn prop_one_flipped_bit_in_a_head_is_refused((first, rows, events) in any_segment(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (_, mut bytes, _) = object(first, &rows, &events);
        let head_len = SegmentHeader::decode(&bytes).unwrap().head_len() as usize;
        bytes[at.index(head_len)] ^= 1 << bit;
        prop_assert!(SegmentHead::decode(&bytes, &EXPECT).is_err());
    }

    /// Hashes stop random damage early; with hashes made right again, the checks behind them are reached.
    #[test]
    fn prop_damage_behind_right_hashes_never_panics((first, rows, events) in any_segment(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let (_, mut bytes, _) = object(first, &rows, &events);
        let head_len = SegmentHeader::decode(&bytes).unwrap().head_len() as usize;
        bytes[at.index(head_len)] = byte;
        forge::rehash_segment(&mut bytes);
        if let Ok(head) = SegmentHead::decode(&bytes, &EXPECT) {
            let _ = head.check_dense();
            let _ = head.index.iter().count();
        }
    }
}

#[test]
fn uniform_random_4k_writes_cost_at_most_5_bytes_of_index_each() {
    // 64 MiB of 4 KiB writes over a 1 TiB disk, uniformly random: the worst case of the format's bar.
    let (writes, disk_blocks) = (16_384u64, 1u64 << 31);
    let mut seed = 1u64;
    let mut rows: Vec<_> = (0..writes)
        .map(|i| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let extent = Extent::new((seed >> 20) % (disk_blocks / 8) * 8, 8);
            Row { disk: DiskId::new(1), extent, lsn: Lsn::new(1 + i), kind: RowKind::Data }
        })
        .collect();
    rows.sort_by_key(|row| (row.disk, row.extent.start, row.lsn));
    let frame = compress_frame(&[0; 65_536], 1).unwrap().entry;
    let frames = vec![frame; (writes * 4096 / 65_536) as usize];
    let times = [TimeStep { lsn: Lsn::new(1), time: TimeNs::new(0) }];
    let owned = SegmentDraftOwned { first: 1, last: writes, times: times.to_vec(), rows, events: vec![], frames };
    let head = seal_segment(&owned.draft()).unwrap();
    let index_bytes = head.bytes.len() - 512 - 28 * owned.frames.len();
    let per_write = index_bytes as f64 / writes as f64;
    println!(
        "{per_write:.2} B of front index a write; {:.2} B with frame directory",
        (head.bytes.len() - 512) as f64 / writes as f64
    );
    assert!(per_write <= 5.0, "{per_write:.2} B a write");
}

fn claim() -> Claim {
    Claim {
        domain: DOMAIN,
        role: Role::Writer,
        epoch: Epoch::new(3),
        nonce: [5; 16],
        mode: ClaimMode::Cas,
        owner: "drva-1".into(),
        time: TimeNs::new(7),
    }
}

#[test]
fn cuts_claims_hints_and_genesis_read_back_as_written() {
    let cut = Cut {
        predecessor: Some(Tail { epoch: Epoch::new(2), seq: Seq::new(9), header_hash: [9; 32] }),
        next_lsn: Lsn::new(100),
        claim_nonce: [5; 16],
        disks: vec![DiskState {
            disk: DiskId::new(1),
            vm: "db".into(),
            name: "vda".into(),
            blocks: 131_072,
            consistent_from: Some(Lsn::new(4)),
            seeded_at: None,
            removed_at: None,
        }],
    };
    let identity = SegmentIdentity { kind: SegmentKind::Cut, seq: Seq::new(0), ..log_identity(0) };
    let draft = CutDraft { identity, cut: &cut, time: TimeNs::new(5_000_000), tick_ns: TICK_NS, salt: [3; 32] };
    let sealed = seal_cut(&draft).unwrap();
    let expect = Expect { domain: DOMAIN, key: identity.key() };
    assert_eq!(SegmentHead::decode(&sealed.bytes, &expect).unwrap().cut, Some(cut));

    let claim = claim();
    assert_eq!(Claim::decode(&claim.encode(), &Expect { domain: DOMAIN, key: claim.key() }), Ok(claim));
    let hint = Hint { domain: DOMAIN, epoch: Epoch::new(3), seq: Seq::new(4) };
    assert_eq!(Hint::decode(&hint.encode(), DOMAIN), Ok(hint));
    let features = Features { compat: 1 << 63, ..Features::default() };
    let genesis = Genesis { domain: DOMAIN, name: "pay\"roll\n".into(), created: TimeNs::new(u64::MAX), features };
    assert_eq!(Genesis::decode(&genesis.encode()), Ok(genesis));
}

#[test]
fn every_bit_of_small_objects_is_guarded() {
    let claim = claim();
    let expect = Expect { domain: DOMAIN, key: claim.key() };
    let genesis = Genesis { domain: DOMAIN, name: "n".into(), created: TimeNs::new(1), features: Features::default() };
    for (bytes, refuses) in [
        (claim.encode(), &(|b: &[u8]| Claim::decode(b, &expect).is_err()) as &dyn Fn(&[u8]) -> bool),
        (genesis.encode(), &|b: &[u8]| Genesis::decode(b).is_err()),
    ] {
        for at in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(refuses(&damaged), "bit {at}");
        }
    }
}

/// A segment of more LSNs than are looked at in one pass.
#[test]
fn density_is_checked_over_long_ranges_too() {
    let count = 300_000u64;
    let rows = |missing: Option<u64>, twice: Option<u64>| {
        let row = |i: u64, start: u64| Row {
            disk: DiskId::new(1),
            extent: Extent::new(start, 8),
            lsn: Lsn::new(1 + i),
            kind: RowKind::Zero,
        };
        let mut rows: Vec<_> = (0..count).filter(|i| Some(*i) != missing).map(|i| row(i, i * 8)).collect();
        // Another row of the same write, far from the first or over a block of it.
        rows.extend((1..10).map(|i| row(i, (count + i) * 8)));
        let between = |i| row((i + count / 2) % count, i * 8 + 3);
        rows.extend(twice.into_iter().flat_map(|i| [between(i), row(i, i * 8 + 7)]));
        rows.sort_by_key(|row| (row.disk, row.extent.start, row.lsn));
        let times = vec![TimeStep { lsn: Lsn::new(1), time: TimeNs::new(0) }];
        let owned = SegmentDraftOwned { first: 1, last: count, times, rows, events: vec![], frames: vec![] };
        let sealed = seal_segment(&owned.draft()).map_err(|e| e.name())?;
        SegmentHead::decode(&sealed.bytes, &EXPECT).unwrap().check_dense().map_err(|e| e.name())
    };
    assert_eq!(rows(None, None), Ok(()));
    for at in [0, 1 << 18, count - 1] {
        assert_eq!(rows(Some(at), None), Err("NotDense"), "lsn {at}");
        assert_eq!(rows(None, Some(at)), Err("Row"), "lsn {at}");
    }
}
