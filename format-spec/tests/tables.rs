//! Index tables and roots: what is written reads back, what was altered is refused, and a row stays small.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use tidemark_format::*;

const DOMAIN: DomainId = DomainId::new(*b"index-test-uuid!");

fn lsn(n: u64) -> Lsn {
    Lsn::new(n)
}

fn placed(disk: u32, start: u64, len: u64, at: u64, kind: RowKind, place: u64) -> PlacedRow {
    let row = Row { disk: DiskId::new(disk), extent: Extent::new(start, len), lsn: lsn(at), kind };
    PlacedRow { row, stream_block: place }
}

fn table<R: TableRow>(rows: Vec<R>) -> (Vec<u8>, TableRef) {
    let mut builder = TableBuilder::new(DOMAIN, Epoch::new(3), Seq::new(7)).unwrap();
    for row in rows {
        builder.push(row).unwrap();
    }
    let lsns = builder.lsns().unwrap();
    builder.finish(0, lsns).unwrap()
}

fn expect(table: &TableRef) -> Expect {
    Expect { domain: DOMAIN, key: table.key() }
}

fn footer_of(bytes: &[u8], table: &TableRef) -> error::Result<TableFooter> {
    TableFooter::decode(&bytes[table.footer_start() as usize..], table, &expect(table))
}

fn read<R: TableRow>(bytes: &[u8], table: &TableRef) -> error::Result<Vec<R>> {
    let footer = footer_of(bytes, table)?;
    let mut rows = Vec::new();
    for (number, group) in footer.groups().iter().enumerate() {
        let range = group.range.start as usize..group.range.end as usize;
        rows.extend(footer.decode_group::<R>(number, Bytes::copy_from_slice(&bytes[range]))?);
    }
    Ok(rows)
}

fn noise(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// `n` writes of 4 KiB at random places of a disk of 8 GiB, in segments of 8,192 writes.
fn random_writes(n: u64) -> Vec<PlacedRow> {
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let mut rows: Vec<_> =
        (1..=n).map(|at| placed(1, noise(&mut state) % (1 << 21) * 8, 8, at, RowKind::Data, 0)).collect();
    // The place is the rank of the row in its segment.
    for segment in rows.chunks_mut(8192) {
        segment.sort_by_key(|p| (p.row.extent.start, p.row.lsn));
        segment.iter_mut().enumerate().for_each(|(rank, p)| p.stream_block = rank as u64 * 8);
    }
    rows.sort_by_key(|p| (p.row.extent.start, p.row.lsn));
    rows
}

#[test]
fn a_row_of_random_4k_writes_takes_at_most_9_bytes() {
    for n in [65_536, 524_288] {
        let (bytes, _) = table(random_writes(n));
        let each = bytes.len() as f64 / n as f64;
        assert!(each <= 9.0, "{n} rows: {each} bytes a row");
    }
}

prop_compose! {
    fn any_row()(disk in 1u32..4, start in 0u64..5000, len in 1u64..300, at in 1u64..1000, kind in 0..3, place in 0u64..1 << 20) -> PlacedRow {
        let kind = [RowKind::Data, RowKind::Zero, RowKind::Unmap][kind as usize];
        placed(disk, start, len, at, kind, if kind == RowKind::Data { place } else { 0 })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn prop_rows_read_back_as_written(rows in vec(any_row(), 1..300), wide in any::<bool>()) {
        let mut rows = rows;
        rows.sort_by_key(|p| (p.row.disk, p.row.extent.start, p.row.lsn));
        rows.dedup_by_key(|p| (p.row.disk, p.row.extent.start, p.row.lsn));
        if wide {
            let mut more = random_writes(20_000);
            more.iter_mut().for_each(|p| p.row.disk = DiskId::new(9));
            rows.extend(more);
        }
        let (bytes, table) = table(rows.clone());
        prop_assert_eq!(table.rows, rows.len() as u64);
        prop_assert_eq!(&read::<PlacedRow>(&bytes, &table).unwrap(), &rows);
        let footer = footer_of(&bytes, &table).unwrap();
        let mut all = rows.iter();
        for group in footer.groups() {
            for placed in all.by_ref().take(group.rows as usize) {
                let Row { disk, extent, lsn, .. } = placed.row;
                prop_assert!(group.may_hold(disk, extent) && table.bounds.may_hold(disk, extent));
                prop_assert!(group.may_hold(disk, Extent::new(extent.end() - 1, 1)));
                prop_assert!(table.bounds.may_hold(disk, Extent::new(extent.end() - 1, 1)));
                let (low, high) = group.lsns(TableKind::Rows);
                prop_assert!(low <= lsn && lsn <= high);
            }
        }
    }
}

#[test]
fn bounds_of_a_table_exclude_what_it_cannot_hold() {
    let rows = vec![
        placed(1, 100, 10, 1, RowKind::Zero, 0),
        placed(1, 200, 10, 2, RowKind::Zero, 0),
        placed(3, 50, 500, 3, RowKind::Zero, 0),
        placed(3, 60, 1, 4, RowKind::Zero, 0),
    ];
    let (_, table) = table(rows);
    let may = |disk, start, len| table.bounds.may_hold(DiskId::new(disk), Extent::new(start, len));
    assert!(!may(0, 0, 1000) && !may(1, 0, 100) && may(1, 0, 101) && may(1, 209, 1));
    assert!(may(3, 549, 1) && !may(3, 550, 1) && may(3, 0, 51) && !may(4, 0, 1000));
}

fn sealed(first: u64, last: u64) -> SegmentHead {
    let identity = SegmentIdentity {
        domain: DOMAIN,
        kind: SegmentKind::Log,
        role: Role::Writer,
        epoch: Epoch::new(1),
        seq: Seq::new(first),
    };
    let events: Vec<_> = (first..=last)
        .map(|at| Event { lsn: lsn(at), body: EventBody::Bookmark { name: format!("b{at}"), level: Level::Crash } })
        .collect();
    let time = |at: u64| TimeNs::new(1_700_000_000_000_000_000 + at / 3 * 1_000_000);
    let mut times: Vec<TimeStep> = (first..=last).map(|at| TimeStep { lsn: lsn(at), time: time(at) }).collect();
    times.dedup_by_key(|step| step.time);
    let draft = SegmentDraft {
        identity,
        first_lsn: lsn(first),
        last_lsn: lsn(last),
        acked_through: lsn(first - 1),
        prev_header_hash: [1; 32],
        salt: [2; 32],
        tick_ns: TICK_NS_DEFAULT,
        times: &times,
        rows: &[],
        events: &events,
        frames: &[],
    };
    let head = seal_segment(&draft).unwrap();
    let key = ObjectKey::Log { epoch: Epoch::new(1), seq: Seq::new(first) };
    SegmentHead::decode(&head.bytes, &Expect { domain: DOMAIN, key }).unwrap()
}

#[test]
fn segments_keep_times_events_and_hashes() {
    let heads: Vec<_> = (0..1500).map(|n| sealed(n * 4 + 1, n * 4 + 4)).collect();
    let (bytes, table) = table(heads.iter().map(|head| SegmentRow::of(head).unwrap()).collect());
    assert_eq!(table.first_time, heads[0].header.first_time);
    let footer = footer_of(&bytes, &table).unwrap();
    assert!(footer.groups().len() >= 2);
    assert_eq!(footer.groups()[1].first_time().get(), heads[512].header.first_time.get());
    let rows = read::<SegmentRow>(&bytes, &table).unwrap();
    assert_eq!(rows.len(), heads.len());
    for (row, head) in rows.iter().zip(&heads) {
        assert_eq!((row.first_lsn, row.last_lsn), (head.header.first_lsn, head.header.last_lsn));
        assert_eq!(row.header_hash, head.header.header_hash);
        assert_eq!(row.events, head.events);
        assert_eq!(row.key(), head.header.identity.key());
        for at in row.first_lsn.get()..=row.last_lsn.get() {
            assert_eq!(Some(row.time_of(lsn(at))), head.times.as_ref().unwrap().time_of(lsn(at)));
        }
    }
}

#[test]
fn events_read_back_as_written() {
    let time = TimeNs::new(1_700_000_000_000_000_000);
    let bodies = [
        EventBody::DiskAdd { disk: DiskId::new(1), vm: "db".into(), name: "vda".into(), blocks: 8 },
        EventBody::Bookmark { name: "näme".into(), level: Level::Application },
        EventBody::VmConfig { vm: "db".into(), format: "xml".into(), body: vec![0, 1, 255] },
        EventBody::Other { code: 200, fields: Fields::default().with("x", 5u64) },
    ];
    let rows: Vec<_> =
        (1..).zip(bodies).map(|(at, body)| EventRow { event: Event { lsn: lsn(at), body }, time }).collect();
    let (bytes, table) = table(rows.clone());
    assert_eq!(read::<EventRow>(&bytes, &table).unwrap(), rows);
}

//= SPEC.md#index-tables
//# IX-2
#[test]
fn every_altered_byte_of_a_table_is_seen() {
    let (bytes, table) = table(random_writes(300));
    for at in 4..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        let error = read::<PlacedRow>(&altered, &table).unwrap_err();
        assert_eq!(error.name(), "TableHash", "byte {at}");
    }
    assert_eq!(footer_of(&bytes[1..], &table).map(|_| ()).unwrap_err().name(), "TableHash");
}

//= SPEC.md#index-tables
//# IX-3, IX-4
#[test]
fn a_table_of_another_name_or_shape_is_refused() {
    let (bytes, table) = table(random_writes(10));
    let footer = &bytes[table.footer_start() as usize..];
    let decode = |table: &TableRef, expect: &Expect| TableFooter::decode(footer, table, expect).map(|_| ());
    let elsewhere = Expect { key: ObjectKey::Index { epoch: Epoch::new(3), seq: Seq::new(8) }, ..expect(&table) };
    assert_eq!(decode(&table, &elsewhere).unwrap_err().name(), "Misplaced");
    let stranger = Expect { domain: DomainId::new([9; 16]), ..expect(&table) };
    assert_eq!(decode(&table, &stranger).unwrap_err().name(), "WrongDomain");
    let other_kind = TableRef { kind: TableKind::Events, ..table };
    assert_eq!(decode(&other_kind, &expect(&table)).unwrap_err().name(), "Table");
    let more = TableRef { rows: table.rows + 1, ..table };
    assert_eq!(decode(&more, &expect(&table)).unwrap_err().name(), "Table");
}

/// The same table with a text of its footer replaced by another of the same length, as a root would name it.
fn with_text(bytes: &[u8], table: &TableRef, from: &str, to: &str) -> (Vec<u8>, TableRef) {
    let (start, mut changed) = (table.footer_start() as usize, bytes.to_vec());
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> =
        (start..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from.as_bytes())).collect();
    assert!(!places.is_empty(), "{from} is not in the footer");
    for at in places {
        changed[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    let footer_hash = *blake3::hash(&changed[start..]).as_bytes();
    (changed, TableRef { footer_hash, ..*table })
}

//= SPEC.md#index-tables
//# IX-1
#[test]
fn a_table_with_other_columns_or_metadata_is_refused() {
    let (bytes, table) = table(random_writes(10));
    for (from, to, said) in [
        ("place", "plaCe", "its columns are not those of a table of rows"),
        ("tidemark.groups", "tidemark.Groups", "tidemark.groups is missing"),
        ("tidemark.domain", "tidemark.Domain", "tidemark.domain is missing"),
        ("tidemark.key", "tidemark.Key", "tidemark.key is missing"),
        ("tidemark.table", "tidemark.Table", "tidemark.table is missing"),
    ] {
        let (bytes, table) = with_text(&bytes, &table, from, to);
        assert_eq!(footer_of(&bytes, &table).map(|_| ()).unwrap_err().to_string(), format!("index table: {said}"));
    }
}

//= SPEC.md#tables-of-rows
//# IX-5
#[test]
fn rows_out_of_order_are_refused() {
    let late = placed(1, 8, 1, 5, RowKind::Zero, 0);
    for rows in [vec![late, placed(1, 0, 1, 9, RowKind::Zero, 0)], vec![late, late]] {
        let (bytes, table) = table(rows);
        assert_eq!(read::<PlacedRow>(&bytes, &table).unwrap_err().name(), "Row");
    }
    for bad in [placed(1, 8, 0, 5, RowKind::Zero, 0), placed(1, 1 << 54, 1, 5, RowKind::Zero, 0)] {
        let (bytes, table) = table(vec![bad]);
        assert_eq!(read::<PlacedRow>(&bytes, &table).unwrap_err().name(), "Row");
    }
}

//= SPEC.md#tables-of-segments
//# IX-6
#[test]
fn segments_that_do_not_follow_one_another_are_refused() {
    let heads = [sealed(1, 4), sealed(6, 9)];
    let (bytes, table) = table(heads.iter().map(|head| SegmentRow::of(head).unwrap()).collect());
    assert_eq!(read::<SegmentRow>(&bytes, &table).unwrap_err().name(), "Table");
}

//= SPEC.md#tables-of-events
//# IX-7
#[test]
fn events_out_of_order_are_refused() {
    let row = |at| EventRow { event: Event { lsn: lsn(at), body: EventBody::Barrier }, time: TimeNs::new(1) };
    let (bytes, table) = table(vec![row(2), row(2)]);
    assert_eq!(read::<EventRow>(&bytes, &table).unwrap_err().name(), "Table");
}

#[test]
fn a_table_tells_tools_what_it_is() {
    let (bytes, table) = table(random_writes(10));
    let told = TableRef::of_object(&bytes).unwrap();
    assert_eq!((told.kind, told.rows, told.len), (table.kind, table.rows, table.len));
    assert_eq!((told.footer_len, told.footer_hash), (table.footer_len, table.footer_hash));
    for len in 0..bytes.len() {
        assert!(TableRef::of_object(&bytes[..len]).is_err());
    }
}

#[test]
fn numbers_beyond_63_bits_are_refused_when_written() {
    let mut builder = TableBuilder::new(DOMAIN, Epoch::new(1), Seq::new(1)).unwrap();
    builder.push(placed(1, 0, 1, u64::MAX, RowKind::Zero, 0)).unwrap();
    let error = builder.finish(0, (lsn(1), lsn(2))).unwrap_err();
    assert_eq!(error.to_string(), "index table: 18446744073709551615 does not fit into 63 bits");
}

fn root() -> Root {
    let rows = table(random_writes(50)).1;
    let segments = table((0..2).map(|n| SegmentRow::of(&sealed(n * 4 + 1, n * 4 + 4)).unwrap()).collect()).1;
    let event = Event { lsn: lsn(1), body: EventBody::Barrier };
    let events = table(vec![EventRow { event, time: TimeNs::new(1) }]).1;
    let span = |table: TableRef| TableRef { first_lsn: lsn(1), last_lsn: lsn(8), ..table };
    Root {
        retained: None,
        domain: DOMAIN,
        epoch: Epoch::new(3),
        seq: Seq::new(1),
        through: Through {
            epoch: Epoch::new(2),
            seq: Seq::new(1),
            header_hash: [5; 32],
            lsn: lsn(8),
            time: TimeNs::new(9),
        },
        first_time: TimeNs::new(1),
        epochs: vec![
            EpochStart { epoch: Epoch::new(1), first_lsn: lsn(1) },
            EpochStart { epoch: Epoch::new(2), first_lsn: lsn(5) },
        ],
        tables: vec![span(rows), span(segments), span(events)],
    }
}

#[test]
fn roots_read_back_as_written_and_know_the_epoch_of_an_lsn() {
    let root = root();
    let bytes = root.encode().unwrap();
    let expect = Expect { domain: DOMAIN, key: root.key() };
    assert_eq!(Root::decode(&bytes, &expect).unwrap(), root);
    let epochs: Vec<_> = [0, 1, 4, 5, 8, 9].map(|at| root.epoch_of(lsn(at)).map_or(0, Epoch::get)).into();
    assert_eq!(epochs, [0, 1, 1, 2, 2, 0]);
    assert_eq!(Root::decode_copy(&bytes, DOMAIN).unwrap(), root);
    let elsewhere = Expect { key: ObjectKey::Root { epoch: root.epoch, seq: Seq::new(2) }, ..expect };
    assert_eq!(Root::decode(&bytes, &elsewhere).unwrap_err().name(), "Misplaced");
    assert_eq!(Root::decode_copy(&bytes, DomainId::new([9; 16])).unwrap_err().name(), "WrongDomain");
}

//= SPEC.md#roots
//# RT-2, RT-3
#[test]
fn roots_whose_tables_do_not_fit_together_are_refused() {
    let refused = |change: &dyn Fn(&mut Root)| {
        let mut root = root();
        change(&mut root);
        root.encode().unwrap_err().to_string()
    };
    type Change<'a> = (&'a str, &'a dyn Fn(&mut Root));
    let changes: [Change<'_>; 13] = [
        ("tail_seq", &|root| root.through.seq = Seq::new(0)),
        ("epochs", &|root| root.epochs.reverse()),
        ("epochs", &|root| root.epochs.clear()),
        ("epochs", &|root| root.epochs[0].first_lsn = lsn(2)),
        ("epochs", &|root| root.through.epoch = Epoch::new(1)),
        ("not sorted", &|root| root.tables.swap(0, 1)),
        ("overlaps", &|root| root.tables.insert(1, root.tables[1])),
        ("does not begin at lsn 1", &|root| root.tables[1].first_lsn = lsn(2)),
        ("segments end before lsn 9", &|root| root.through.lsn = lsn(9)),
        ("segments end before lsn 1", &|root| root.tables.truncate(1)),
        ("lacks field last", &|root| root.tables[0].last_lsn = Lsn::ZERO),
        ("lacks field foot", &|root| root.tables[0].footer_len = root.tables[0].len),
        ("lacks field len", &|root| root.tables[0].len = OBJECT_BYTES_MAX + 1),
    ];
    for (what, change) in changes {
        let said = refused(change);
        assert!(said.contains(what), "{what}: {said}");
    }
}

/// Forged tables to try; more by the environment, for a long run.
fn cases() -> u32 {
    std::env::var("TABLE_CASES").map_or(400, |n| n.parse().unwrap())
}

/// A table with some bytes changed, whose root and footer name the bytes as they are now: what a hostile maintainer writes.
fn forge(bytes: &[u8], table: &TableRef, changes: &[(u32, u8)], in_groups: bool) -> (Vec<u8>, TableRef) {
    let footer = footer_of(bytes, table).unwrap();
    let (start, mut forged) = (table.footer_start() as usize, bytes.to_vec());
    let span = if in_groups { 4..start } else { start..bytes.len() - 8 };
    for (at, value) in changes {
        forged[span.start + *at as usize % span.len()] = *value;
    }
    let hash = |bytes: &[u8], range: std::ops::Range<u64>| {
        blake3::hash(&bytes[range.start as usize..range.end as usize]).to_hex()[..32].to_owned()
    };
    if in_groups {
        for group in footer.groups() {
            let (old, new) = (hash(bytes, group.range.clone()), hash(&forged, group.range.clone()));
            let at = forged.windows(32).rposition(|window| window == old.as_bytes()).unwrap();
            forged[at..at + 32].copy_from_slice(new.as_bytes());
        }
    }
    let footer_hash = *blake3::hash(&forged[start..]).as_bytes();
    (forged, TableRef { footer_hash, ..*table })
}

fn read_forged<R: TableRow>(bytes: &[u8], table: &TableRef) {
    let Ok(footer) = footer_of(bytes, table) else { return };
    for (number, group) in footer.groups().iter().enumerate() {
        let range = group.range.start as usize..group.range.end as usize;
        let _ = footer.decode_group::<R>(number, Bytes::copy_from_slice(&bytes[range]));
        let _ = group.lsns(table.kind);
        let _ = table.kind == TableKind::Rows && group.may_hold(DiskId::new(1), Extent::new(0, 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn prop_forged_tables_are_refused_without_a_panic(
        changes in vec((any::<u32>(), any::<u8>()), 1..6), in_groups in any::<bool>(), kind in 0..3,
    ) {
        let time = TimeNs::new(5);
        match kind {
            0 => {
                let (bytes, table) = table(random_writes(200));
                let (bytes, table) = forge(&bytes, &table, &changes, in_groups);
                read_forged::<PlacedRow>(&bytes, &table);
            }
            1 => {
                let heads: Vec<_> = (0..20).map(|n| sealed(n * 4 + 1, n * 4 + 4)).collect();
                let (bytes, table) = table(heads.iter().map(|head| SegmentRow::of(head).unwrap()).collect());
                let (bytes, table) = forge(&bytes, &table, &changes, in_groups);
                read_forged::<SegmentRow>(&bytes, &table);
            }
            _ => {
                let body = |n| EventBody::Bookmark { name: format!("name {n}"), level: Level::FileSystem };
                let rows = (1..40).map(|n| EventRow { event: Event { lsn: lsn(n), body: body(n) }, time });
                let (bytes, table) = table(rows.collect());
                let (bytes, table) = forge(&bytes, &table, &changes, in_groups);
                read_forged::<EventRow>(&bytes, &table);
            }
        }
    }
}

#[test]
fn roots_offer_points_in_order_or_are_refused() {
    //= SPEC.md#retention
    //# RN-2
    let mark = |at: u64| Mark { lsn: lsn(at), time: TimeNs::new(at) };
    let with = |kept: &[u64], horizon| {
        let kept = kept.iter().copied().map(mark).collect();
        Root { retained: Some(Retained { horizon: mark(horizon), kept }), ..root() }
    };
    let good = with(&[1, 3], 5);
    let expect = Expect { domain: DOMAIN, key: good.key() };
    assert_eq!(Root::decode(&good.encode().unwrap(), &expect).unwrap(), good);
    let offered = good.retained.unwrap();
    assert_eq!([1, 2, 3, 4, 5, 9].map(|at| offered.offers(lsn(at))), [true, false, true, false, true, true]);
    assert_eq!(offered.nearest(lsn(2)), (Some(mark(1)), mark(3)));
    assert_eq!(offered.nearest(lsn(4)), (Some(mark(3)), mark(5)));
    for (kept, horizon) in [(&[3, 1][..], 5), (&[1, 1], 5), (&[1, 5], 5), (&[1, 6], 5), (&[0, 1], 5), (&[], 0)] {
        assert!(with(kept, horizon).encode().is_err(), "{kept:?} before {horizon}");
    }
}
