//! The CUT section (CBOR) in an otherwise right CUT whose header agrees with it.
#![no_main]
use libfuzzer_sys::fuzz_target;
use tidemark_format::*;
use tidemark_fuzz::{decode_own, decode_reconciled, forge};

fuzz_target!(|bytes: &[u8]| {
    let identity = SegmentIdentity {
        domain: DomainId::new([7; 16]),
        kind: SegmentKind::Cut,
        role: Role::Writer,
        epoch: Epoch::new(u64::MAX),
        seq: Seq::new(0),
    };
    let cut = Cut { predecessor: None, next_lsn: Lsn::new(1), claim_nonce: [0; 16], disks: Vec::new() };
    let (time, tick_ns, salt) = (TimeNs::new(0), TICK_NS_DEFAULT, [0; 32]);
    let sealed = seal_cut(&CutDraft { identity, cut: &cut, time, tick_ns, salt }).expect("a valid draft");
    let mut parts = forge::Parts::split(&sealed.bytes);
    *parts.section(5) = bytes.to_vec();
    if let Some(at) = bytes.windows(11).position(|window| window == b"tail_hash\x58\x20")
        && let Some(hash) = bytes.get(at + 11..at + 43)
    {
        let (at, len) = forge::field("prev_header_hash");
        parts.header[at..at + len].copy_from_slice(hash);
    }
    let Some(head) = decode_reconciled(&mut parts) else { return };
    let cut = head.cut.expect("a CUT has a body");
    let sealed = seal_cut(&CutDraft { identity, cut: &cut, time, tick_ns, salt }).expect("what decoded seals");
    let again = decode_own(&sealed.bytes).expect("a header").expect("a sealed CUT decodes");
    assert_eq!(again.cut, Some(cut));
});
