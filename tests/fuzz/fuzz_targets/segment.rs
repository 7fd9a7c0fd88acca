//! Whole objects: as they come, and taken apart and put together with right hashes, lengths and totals.
#![no_main]
use libfuzzer_sys::fuzz_target;
use tidemark_fuzz::{check_head, decode_own, decode_reconciled, forge};

fuzz_target!(|bytes: &[u8]| {
    if let Some(Ok(head)) = decode_own(bytes) {
        check_head(&head);
    }
    let mut parts = forge::Parts::split(bytes);
    parts.header[..10].copy_from_slice(b"\x89TLF\r\n\x1a\n\x01\x00");
    if let Some(head) = decode_reconciled(&mut parts) {
        check_head(&head);
    }
});
