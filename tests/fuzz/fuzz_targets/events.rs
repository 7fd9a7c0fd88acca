//! The EVENTS section (CBOR) in an otherwise right segment.
#![no_main]
use libfuzzer_sys::fuzz_target;
use tidemark_fuzz::{check_head, decode_reconciled, empty_log};

fuzz_target!(|bytes: &[u8]| {
    let mut parts = empty_log(u64::MAX / 2);
    *parts.section(4) = bytes.to_vec();
    if let Some(head) = decode_reconciled(&mut parts) {
        check_head(&head);
        let mut disks = Vec::new();
        for event in &head.events {
            let _ = tidemark_format::DiskState::apply(&mut disks, event);
            assert!(disks.is_sorted_by_key(|state: &tidemark_format::DiskState| state.disk));
            for (name, value) in event.body.fields().iter() {
                let _ = format!("{name} {value}");
            }
        }
    }
});
