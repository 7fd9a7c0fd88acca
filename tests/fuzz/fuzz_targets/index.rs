//! INDEX and TIMES sections in an otherwise right segment. Input: length of INDEX (2 bytes), INDEX, TIMES; if the latter
//! is empty, one step is put there.
#![no_main]
use libfuzzer_sys::fuzz_target;
use tidemark_fuzz::{check_head, decode_reconciled, empty_log};

fuzz_target!(|bytes: &[u8]| {
    let Some((len, rest)) = bytes.split_first_chunk::<2>() else { return };
    let (index, times) = rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len()));
    let mut parts = empty_log(u64::MAX / 2);
    *parts.section(1) = index.to_vec();
    if !times.is_empty() {
        *parts.section(3) = times.to_vec();
        // The last time of the header is that of the last step; the first step of the seed stands at LSN 1, tick 0.
        let ticks = u64::from_le_bytes(*bytes.last_chunk::<8>().unwrap_or(&[0; 8])) >> 24;
        parts.set("last_time_ns", ticks * u64::from(tidemark_format::TICK_NS_DEFAULT));
    }
    if let Some(head) = decode_reconciled(&mut parts) {
        check_head(&head);
    }
});
