//! Write logs of dm-log-writes and blklogwrites, as the command line imports them.
#![no_main]
use libfuzzer_sys::fuzz_target;
use tidemark_fuzz::bounded;

// The module alone: the rest of the command line would bring its hundreds of dependencies along.
#[path = "../../../tools/cli/src/logwrites/mod.rs"]
#[allow(dead_code, unused_imports)]
mod logwrites;

use logwrites::{ENTRY_BYTES, Entry, LogReader, SECTOR_BYTES_MAX, encode};

fuzz_target!(|bytes: &[u8]| {
    // A sector and a chunk of data are held besides what the input itself brings.
    let limit = bytes.len() + 4 * SECTOR_BYTES_MAX as usize;
    let surveyed = bounded(limit, || LogReader::open(bytes).and_then(LogReader::survey));
    let Ok(mut reader) = bounded(limit, || LogReader::open(bytes)) else { return };
    let (sector_bytes, promised) = (reader.sector_bytes(), reader.entries());
    let read: Result<Vec<Entry>, _> = bounded(limit, || reader.by_ref().collect());
    assert_eq!(surveyed.is_ok(), read.is_ok(), "a survey and a reading agree on whether a log is whole");
    let (Ok(survey), Ok(entries)) = (surveyed, read) else { return };
    assert_eq!(entries.len() as u64, promised);
    assert_eq!(survey.entries, promised);
    assert_eq!(survey.data_bytes, entries.iter().map(|entry| entry.data.len() as u64).sum::<u64>());
    assert_eq!(survey.end_bytes, entries.iter().map(Entry::end_bytes).max().unwrap_or(0));
    assert_eq!(survey.first_entry_hash, reader.first_entry_hash());
    // A name that is not UTF-8 grows when it is replaced by what can be shown, and then may not fit any more.
    let fits = |entry: &Entry| entry.mark.as_ref().is_none_or(|mark| mark.len() + ENTRY_BYTES <= sector_bytes as usize);
    if entries.iter().all(fits) {
        let again: Result<Vec<Entry>, _> =
            LogReader::open(&encode(sector_bytes, &entries)[..]).expect("just written").collect();
        assert_eq!(again.expect("just written"), entries);
    }
});
