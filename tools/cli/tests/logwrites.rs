//! The reader of write logs against its writer, a recorded log, and bytes that mean harm.

use proptest::prelude::*;
use std::io::Read;
use tidemark_cli::logwrites::{
    DISK_BYTES_MAX, ENTRY_DATA_BYTES_MAX, Entry, Flags, LogError, LogReader, Survey, encode,
};

fn read_all(bytes: &[u8]) -> Result<Vec<Entry>, LogError> {
    LogReader::open(bytes)?.collect()
}

fn refused(bytes: &[u8]) -> String {
    let streamed = read_all(bytes).expect_err("must be refused").to_string();
    let surveyed = LogReader::open(bytes).and_then(LogReader::survey).expect_err("must be refused").to_string();
    assert_eq!(streamed, surveyed, "a survey refuses what a reading refuses");
    streamed
}

/// A log whose one entry has these raw fields.
fn raw_entry(sector: u64, sectors: u64, flags: u64, text_len: u64) -> Vec<u8> {
    let mut log = encode(512, &[Entry::flush()]);
    for (i, field) in [sector, sectors, flags, text_len].into_iter().enumerate() {
        log[512 + 8 * i..][..8].copy_from_slice(&field.to_le_bytes());
    }
    log
}

#[test]
fn recorded_log_is_written_back_byte_for_byte() {
    for (name, entries, writes) in [("sample.blklogwrites", 457, 275), ("sample.qemuio-discard-zero", 7, 3)] {
        let path = format!("{}/../../tests/e2e/data/{name}.log.zst", env!("CARGO_MANIFEST_DIR"));
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).unwrap();
        zstd::stream::read::Decoder::new(file).unwrap().read_to_end(&mut bytes).unwrap();
        let log = read_all(&bytes).unwrap();
        let survey = LogReader::open(&bytes[..]).unwrap().survey().unwrap();
        assert_eq!((log.len() as u64, survey.entries, survey.writes), (entries, entries, writes), "{name}");
        let again = encode(512, &log);
        assert!(again == bytes[..again.len()], "{name}: differs");
        assert!(bytes[again.len()..].iter().all(|&byte| byte == 0), "{name}: more than padding behind the last entry");
    }
}

#[test]
fn every_kind_of_entry_reads_back() {
    let entries = [
        Entry::write(0, vec![1; 1024]).with(Flags::METADATA),
        Entry::write(4096, vec![0; 512]).with(Flags::FLUSH).with(Flags::FUA),
        Entry::discard(1 << 30, 1 << 40),
        Entry::flush(),
        Entry::mark("dm-log-writes-end"),
    ];
    assert_eq!(read_all(&encode(512, &entries)).unwrap(), entries);
    let survey = LogReader::open(&encode(512, &entries)[..]).unwrap().survey().unwrap();
    let want = Survey {
        sector_bytes: 512,
        entries: 5,
        writes: 2,
        discards: 1,
        flushes: 2,
        marks: 1,
        data_bytes: 1536,
        end_bytes: (1 << 30) + (1 << 40),
        first_entry_hash: survey.first_entry_hash,
    };
    assert_eq!(survey, want);
}

#[test]
fn entries_beyond_the_count_of_the_super_are_not_read() {
    let mut log = encode(512, &[Entry::flush(), Entry::mark("late")]);
    log[16..24].copy_from_slice(&1u64.to_le_bytes());
    assert_eq!(read_all(&log).unwrap(), [Entry::flush()]);
}

#[test]
fn hostile_fields_are_refused_by_name_bound_and_value() {
    let log = encode(512, &[]);
    let with = |at: usize, value: u64| {
        let mut log = log.clone();
        log[at..at + 8].copy_from_slice(&value.to_le_bytes());
        log
    };
    assert_eq!(refused(&with(0, 7)), "not a write log: it begins with 0x0000000000000007, not 0x006a736677736872");
    assert_eq!(refused(&with(8, 2)), "write log of version 2, only 1 is known");
    for bytes in [0, 511, 513, 128 << 10] {
        let want = format!("log sector of {bytes} bytes, must be a power of two in 512..=65536");
        assert_eq!(refused(&with(24, bytes)), want);
    }
    let want = "log ends in entry 0 of 18446744073709551615: wanted 512 bytes, got 0";
    assert_eq!(refused(&with(16, u64::MAX)), want);
    assert_eq!(refused(&raw_entry(0, 0, 32, 0)), "entry 0 has flags 0x20, only 0x1f are known");
    assert_eq!(refused(&raw_entry(0, 0, 0, 0)), "entry 0 says nothing: no length, no flag (a hole in the log?)");
    assert_eq!(refused(&raw_entry(0, 0, 8, 481)), "mark in entry 0 has 481 bytes, at most 480 fit its sector");
    let long = ENTRY_DATA_BYTES_MAX / 512 + 1;
    assert_eq!(refused(&raw_entry(0, long, 0, 0)), "entry 0 has 33554944 bytes of data, at most 33554432 are read");
    for (sector, sectors) in [(u64::MAX, 1), (1, u64::MAX), (DISK_BYTES_MAX / 512, 1), (1, DISK_BYTES_MAX / 512)] {
        let want =
            format!("entry 0 covers {sectors} sectors from {sector}, a disk ends at {DISK_BYTES_MAX} bytes at most");
        assert_eq!(refused(&raw_entry(sector, sectors, 4, 0)), want);
    }
}

#[test]
fn a_log_cut_anywhere_says_in_which_entry() {
    let log = encode(512, &[Entry::write(0, vec![3; 1024]), Entry::flush()]);
    assert_eq!(refused(&log[..100]), "log ends in entry 0 of 2: wanted 512 bytes, got 100");
    assert_eq!(refused(&log[..512 + 512 + 700]), "log ends in entry 0 of 2: wanted 1024 bytes, got 700");
    assert_eq!(refused(&log[..log.len() - 1]), "log ends in entry 1 of 2: wanted 512 bytes, got 511");
}

fn any_entry(unit: u64) -> impl Strategy<Value = Entry> {
    let flags = (0u64..4).prop_map(|bits| Flags::from_bits(bits).expect("flush and fua are known"));
    prop_oneof![
        (0..1u64 << 20, 1..4u64, any::<u8>(), flags).prop_map(move |(sector, sectors, byte, flags)| {
            Entry::write(sector * unit, vec![byte; (sectors * unit) as usize]).with(flags)
        }),
        (0..1u64 << 20, 1..1u64 << 20).prop_map(move |(sector, sectors)| Entry::discard(sector * unit, sectors * unit)),
        Just(Entry::flush()),
        "[a-z0-9 /-]{0,40}".prop_map(|name| Entry::mark(&name)),
    ]
}

proptest! {
    #[test]
    fn prop_logs_read_back_as_written((shift, entries) in (9u32..13).prop_flat_map(|shift| {
        (Just(shift), prop::collection::vec(any_entry(1 << shift), 0..12))
    })) {
        let log = encode(1 << shift, &entries);
        prop_assert_eq!(read_all(&log).unwrap(), entries);
    }

    #[test]
    fn prop_damaged_logs_never_panic(
        entries in prop::collection::vec(any_entry(512), 0..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut log = encode(512, &entries);
        for (at, byte) in damage {
            let at = at.index(log.len());
            log[at] ^= byte;
        }
        log.truncate(cut.index(log.len()) + 1);
        let _ = read_all(&log);
        let _ = LogReader::open(&log[..]).and_then(LogReader::survey);
    }
}
