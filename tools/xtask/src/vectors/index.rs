//! Tables of the index and roots that name them.

use super::positives::{Sample, event, row, step};
use super::{Vector, at_ms, domain};
use tidemark_format::*;

const EPOCH: Epoch = Epoch::new(5);

pub(super) fn all() -> Vec<Vector> {
    let mut all = vec![];
    let (rows, rows_ref) = rows();
    let (segments, segments_ref) = segments();
    let (events, events_ref) = events();
    let root = root(vec![rows_ref, segments_ref, events_ref]);
    let encoded = root.encode().expect("a valid root");
    let good = |name: &str, about: &str, rules: &[&'static str], key, bytes: &[u8], canonical| Vector {
        name: name.to_owned(),
        about: about.to_owned(),
        rules: rules.to_vec(),
        expect: Expect { domain: domain(), key },
        bytes: bytes.to_vec(),
        canonical,
        error: None,
    };
    all.push(good("table-rows", "rows of two disks, of every kind", &["IX-1", "IX-5"], rows_ref.key(), &rows, false));
    all.push(good(
        "table-segments",
        "three segments with times and events",
        &["IX-1", "IX-6"],
        segments_ref.key(),
        &segments,
        false,
    ));
    all.push(good(
        "table-events",
        "events that a timeline is made of",
        &["IX-1", "IX-7"],
        events_ref.key(),
        &events,
        false,
    ));
    all.push(good("root", "a root that names a table of each kind", &["RT-2", "RT-3"], root.key(), &encoded, true));
    let (image, image_ref) = image();
    all.push(good("table-images", "the newest rows of a region", &["IX-1", "IX-5"], image_ref.key(), &image, false));
    let imaged = Root { seq: Seq::new(3), tables: [&root.tables[..], &[image_ref]].concat(), ..root.clone() };
    let bytes = imaged.encode().expect("a valid root");
    all.push(good("root-images", "a root that names an image", &["IX-8", "RT-3"], imaged.key(), &bytes, true));
    all.extend(bad_images(&imaged));
    let mark = |lsn: u64| Mark { lsn: Lsn::new(lsn), time: at_ms(lsn * 10) };
    let retained = Retained { horizon: mark(20), kept: vec![mark(3), mark(11)] };
    let thinned = Root { seq: Seq::new(2), retained: Some(retained), ..root.clone() };
    let bytes = thinned.encode().expect("a valid root");
    all.push(good(
        "root-retained",
        "a root that offers some points only",
        &["RN-1", "RN-2"],
        thinned.key(),
        &bytes,
        true,
    ));
    let policy = Policy {
        window_ns: 7 * 86_400 * 1_000_000_000,
        bookmarks_ns: 0,
        hourly: 48,
        daily: 30,
        weekly: 0,
        monthly: 12,
    };
    let hold = Hold { point: mark(11), until: TimeNs::new(u64::MAX) };
    let wish = Retention { domain: domain(), policy: Some(policy), holds: vec![hold] };
    let bytes = wish.encode().expect("a valid wish");
    all.push(good("retention", "a policy and a hold for ever", &["RN-3"], ObjectKey::Retention, &bytes, true));

    let ledger = ledger();
    let bytes = ledger.encode().expect("a valid ledger");
    all.push(good(
        "ledger",
        "a compact segment between log segments of two epochs",
        &["LG-1", "RN-2"],
        ledger.key(),
        &bytes,
        true,
    ));
    let pin = Pin {
        domain: domain(),
        epoch: EPOCH,
        seq: Seq::new(2),
        until: at_ms(3_600_000),
        owner: "tidemark mount".into(),
    };
    all.push(good("pin", "a root that somebody reads by", &[], ObjectKey::Pin { nonce: [7; 16] }, &pin.encode(), true));
    let quarantine = Quarantine {
        domain: domain(),
        object: ObjectKey::Log { epoch: EPOCH, seq: Seq::new(9) },
        hash: [0x5a; 32],
        len: 4711,
        why: "its header hash differs".into(),
    };
    let about = "a segment that was found damaged";
    all.push(good("quarantine", about, &["Q-1"], quarantine.key(), &quarantine.encode(), true));
    all.extend(bad_ledgers(&ledger));

    let mut bad = |name: &str, about: &str, rules: &[&'static str], expect, bytes: Vec<u8>, error| {
        let (name, about, rules) = (name.to_owned(), about.to_owned(), rules.to_vec());
        all.push(Vector { name, about, rules, expect, bytes, canonical: false, error: Some(error) });
    };
    let expect = |key| Expect { domain: domain(), key };
    let stranger = Expect { domain: DomainId::new([9; 16]), key: rows_ref.key() };
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    bad(
        "bad-table-group-bit",
        "one bit of a row group",
        &["IX-2"],
        expect(rows_ref.key()),
        flipped(&rows, 40),
        "TableHash",
    );
    bad(
        "bad-table-magic",
        "one bit of the last four bytes",
        &["IX-1"],
        expect(rows_ref.key()),
        flipped(&rows, rows.len() - 1),
        "Table",
    );
    bad(
        "bad-table-cut-short",
        "its last byte is missing",
        &["IX-1"],
        expect(rows_ref.key()),
        rows[..rows.len() - 1].to_vec(),
        "Table",
    );
    bad("bad-table-wrong-domain", "of another domain", &["IX-3"], stranger, rows.clone(), "WrongDomain");
    bad("bad-table-misplaced", "at another key", &["IX-3"], expect(segments_ref.key()), rows.clone(), "Misplaced");
    let elsewhere = ObjectKey::Root { epoch: EPOCH, seq: Seq::new(2) };
    bad("bad-root-bit", "one bit of the body", &["RC-1"], expect(root.key()), flipped(&encoded, 60), "RecordHash");
    bad("bad-root-misplaced", "at another key", &["R-1"], expect(elsewhere), encoded, "Misplaced");
    all
}

fn build<R: TableRow>(seq: u64, rows: Vec<R>) -> (Vec<u8>, TableRef) {
    let mut table = TableBuilder::new(domain(), EPOCH, Seq::new(seq)).expect("a valid schema");
    rows.into_iter().for_each(|row| table.push(row).expect("a valid row"));
    table.finish(0, (Lsn::new(1), Lsn::new(30))).expect("a small table")
}

fn rows() -> (Vec<u8>, TableRef) {
    let few =
        [(0, 1, 3, RowKind::Zero), (4, 8, 9, RowKind::Data), (4, 8, 12, RowKind::Unmap), (6, 1, 2, RowKind::Data)];
    let mut rows: Vec<PlacedRow> = few
        .into_iter()
        .map(|(start, len, lsn, kind)| PlacedRow {
            row: row(1, start, len, lsn, kind),
            stream_block: if kind == RowKind::Data { lsn * 8 } else { 0 },
        })
        .collect();
    let many = (0..12u64).map(|n| PlacedRow { row: row(2, n * 8, 8, 30 - n, RowKind::Data), stream_block: n * 8 });
    rows.extend(many);
    build(1, rows)
}

fn segments() -> (Vec<u8>, TableRef) {
    let segment = |seq: u64| {
        let (first, last) = (seq * 10 - 9, seq * 10);
        let mut sample = Sample::log(seq, first, last);
        sample.times = vec![step(first, seq * 100), step(first + 3, seq * 100 + 7)];
        sample.events = (first..=last).map(|lsn| event(lsn, EventBody::Flush { disk: DiskId::new(1) })).collect();
        let key = sample.identity.key();
        let bytes = sample.seal();
        let head = SegmentHead::decode(&bytes, &Expect { domain: domain(), key }).expect("it was sealed just now");
        SegmentRow::of(&head).expect("a log segment")
    };
    build(2, (1..=3).map(segment).collect())
}

fn events() -> (Vec<u8>, TableRef) {
    let disk = DiskId::new(1);
    let bodies = [
        EventBody::DiskAdd { disk, vm: "db".into(), name: "vda".into(), blocks: 4096 },
        EventBody::ConsistentFrom { disk },
        EventBody::Bookmark { name: "vor dem Umbau".into(), level: Level::Application },
        EventBody::Gap { disk, from: Lsn::new(4), to: Lsn::new(7) },
    ];
    let row = |(lsn, body)| EventRow { event: event(lsn, body), time: at_ms(lsn * 10) };
    build(3, (1..).zip(bodies).map(row).collect())
}

/// What the first disk of [`rows`] holds at LSN 10.
fn image() -> (Vec<u8>, TableRef) {
    let mut table = TableBuilder::image(domain(), EPOCH, Seq::new(4)).expect("a valid schema");
    let rows = [(0, 1, 3, RowKind::Zero, 0), (4, 8, 9, RowKind::Data, 72)];
    for (start, len, lsn, kind, stream_block) in rows {
        table.push(PlacedRow { row: row(1, start, len, lsn, kind), stream_block }).expect("a valid row");
    }
    let (bytes, table) = table.finish(0, (Lsn::new(10), Lsn::new(10))).expect("a small table");
    (bytes, TableRef { region: Extent::new(0, DISK_BLOCKS_MAX), rows_since: 13, ..table })
}

/// A root that breaks IX-8 cannot be made by the codec, so each is a good one with the fields of its image changed.
fn bad_images(good: &Root) -> Vec<Vector> {
    let bad = |name: &str, about: &str, error, change: &dyn Fn(&mut Vec<TableRef>)| {
        let mut root = good.clone();
        change(&mut root.tables);
        let expect = Expect { domain: domain(), key: good.key() };
        let bytes = crate::forge::record(3, 1, &root.fields().to_cbor());
        let (name, about, rules) = (format!("bad-root-image-{name}"), about.to_owned(), vec!["IX-8"]);
        Vector { name, about, rules, expect, bytes, canonical: false, error: Some(error) }
    };
    let image = good.tables.len() - 1;
    let region = |from: u64, to: u64| Extent::new(from * REGION_BLOCKS, (to - from) * REGION_BLOCKS);
    vec![
        bad("unaligned", "a region that ends within 16 MiB", "Field", &|tables| {
            tables[image].region = Extent::new(0, REGION_BLOCKS + 8);
        }),
        bad("empty", "a region without blocks", "Field", &|tables| tables[image].region = Extent::new(0, 0)),
        bad("outside", "rows outside of the region", "Field", &|tables| tables[image].region = region(1, 2)),
        bad("disks", "rows of two disks", "Field", &|tables| tables[image].bounds.high.disk = DiskId::new(2)),
        bad("interval", "of more than one LSN", "Field", &|tables| tables[image].first_lsn = Lsn::new(9)),
        bad("late", "behind the end of the index", "Table", &|tables| {
            (tables[image].first_lsn, tables[image].last_lsn) = (Lsn::new(31), Lsn::new(31));
        }),
        bad("twice", "two images of one region and LSN", "Table", &|tables| {
            tables[image].region = region(0, 2);
            tables.push(TableRef { region: region(0, 1), ..tables[image] });
        }),
    ]
}

fn ledger() -> Ledger {
    let part = |kind, epoch, first, last, lsn| LedgerPart {
        kind,
        epoch: Epoch::new(epoch),
        first: Seq::new(first),
        last: Seq::new(last),
        last_lsn: Lsn::new(lsn),
        header_hash: [lsn as u8; 32],
    };
    let (log, compact) = (SegmentKind::Log, SegmentKind::Compact);
    let mark = |lsn: u64| Mark { lsn: Lsn::new(lsn), time: at_ms(lsn * 10) };
    Ledger {
        domain: domain(),
        epoch: EPOCH,
        through: Through {
            epoch: Epoch::new(2),
            seq: Seq::new(3),
            header_hash: [60; 32],
            lsn: Lsn::new(60),
            time: at_ms(600),
        },
        first_time: at_ms(100),
        epochs: vec![
            EpochStart { epoch: Epoch::new(1), first_lsn: Lsn::new(1) },
            EpochStart { epoch: Epoch::new(2), first_lsn: Lsn::new(41) },
        ],
        parts: vec![part(log, 1, 1, 2, 10), part(compact, 5, 1, 1, 30), part(log, 1, 7, 7, 40), part(log, 2, 1, 3, 60)],
        retained: Retained { horizon: mark(45), kept: vec![mark(10), mark(25)] },
    }
}

/// A ledger that breaks LG-1 cannot be made by the codec, so each is a good one with its fields changed.
fn bad_ledgers(good: &Ledger) -> Vec<Vector> {
    let bad = |name: &str, about: &str, change: &dyn Fn(&mut Ledger)| {
        let mut ledger = good.clone();
        change(&mut ledger);
        let expect = Expect { domain: domain(), key: good.key() };
        let bytes = crate::forge::record(5, 1, &ledger.fields().to_cbor());
        let (name, about, rules) = (format!("bad-ledger-{name}"), about.to_owned(), vec!["LG-1"]);
        Vector { name, about, rules, expect, bytes, canonical: false, error: Some("Field") }
    };
    vec![
        bad("order", "a part that ends before the one in front of it", &|ledger| ledger.parts.swap(1, 2)),
        bad("crowded", "a part with more objects than LSNs", &|ledger| ledger.parts[0].last = Seq::new(11)),
        bad("backwards", "a part whose last object comes before its first", &|ledger| {
            ledger.parts[3].first = Seq::new(4)
        }),
        bad("compact-run", "two compact segments in one part", &|ledger| ledger.parts[1].last = Seq::new(2)),
        bad("later-compact", "a compact segment of a later epoch", &|ledger| ledger.parts[1].epoch = Epoch::new(6)),
        bad("short", "the last part ends before the tail", &|ledger| ledger.parts.truncate(3)),
    ]
}

fn root(tables: Vec<TableRef>) -> Root {
    Root {
        retained: None,
        domain: domain(),
        epoch: EPOCH,
        seq: Seq::new(1),
        through: Through {
            epoch: Epoch::new(2),
            seq: Seq::new(3),
            header_hash: [0xab; 32],
            lsn: Lsn::new(30),
            time: at_ms(307),
        },
        first_time: at_ms(100),
        epochs: vec![
            EpochStart { epoch: Epoch::new(1), first_lsn: Lsn::new(1) },
            EpochStart { epoch: Epoch::new(2), first_lsn: Lsn::new(11) },
        ],
        tables,
    }
}
