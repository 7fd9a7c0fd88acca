//! Decoders hold memory in proportion to their input. One test, since the heap counts the whole process.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[allow(unreachable_pub)]
mod forge;
#[allow(unreachable_pub)]
mod heap;

use heap::bounded;
use std::fs;
use tidemark_format::*;

/// Every decoder on one input; true if it is a segment whose head decodes.
fn decode_as_anything(bytes: &[u8]) -> bool {
    let domain = DomainId::new([0; 16]);
    let claim = Expect { domain, key: ObjectKey::writer_claim(Epoch::new(1)) };
    let _ = bounded(bytes.len(), || Genesis::decode(bytes));
    let _ = bounded(bytes.len(), || Claim::decode(bytes, &claim));
    let _ = bounded(bytes.len(), || Hint::decode(bytes, domain));
    let Ok(header) = bounded(bytes.len(), || SegmentHeader::decode(bytes)) else { return false };
    let expect = Expect { domain: header.identity.domain, key: header.identity.key() };
    let Ok(head) = bounded(bytes.len(), || SegmentHead::decode(bytes, &expect)) else { return false };
    // 16 bytes for each LSN that is checked in one pass; at most one for each row beyond that.
    let window = (1 << 18).min(head.index.row_count() as usize + head.events.len());
    let _ = bounded(bytes.len() + window / 6, || head.check_dense());
    true
}

//= SPEC.md#limits
//# L-1
#[test]
fn decoders_hold_memory_in_proportion_to_their_input() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors");
    for file in fs::read_dir(dir).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "bin") {
            let bytes = fs::read(path).unwrap();
            decode_as_anything(&bytes);
            // Numbers of the header replaced by large ones, hashes made right: what a hostile object would claim.
            for (_, at, len) in forge::HEADER_FIELDS.iter().filter(|field| field.1 >= 80 && field.2 <= 8) {
                for value in [0x0fff_ffffu64, 0x7fff_ffff, u64::MAX] {
                    let mut claims = bytes.clone();
                    claims.resize(claims.len().max(forge::HEADER_BYTES), 0);
                    claims[*at..at + len].copy_from_slice(&value.to_le_bytes()[..*len]);
                    forge::rehash_segment(&mut claims);
                    decode_as_anything(&claims);
                }
            }
        }
    }
    // The densest inputs there are: empty maps, one-byte events, chunks of 128 constant rows, chunks of one row.
    let mut parts = forge::Parts::split(&fs::read(format!("{dir}/log-no-rows.bin")).unwrap());
    *parts.section(4) = [&b"\x81\x83\x09\x18\x80\xa1\x61a\x9a\x00\x01\x00\x00"[..], &[0xa0; 65_536]].concat();
    assert!(decode_as_anything(&parts.build()), "it is meant to decode");
    let mut parts = forge::Parts::split(&fs::read(format!("{dir}/log-no-rows.bin")).unwrap());
    let count = 20_000u32;
    let events: Vec<u8> =
        (9..9 + count).flat_map(|lsn| [&b"\x83\x1a"[..], &lsn.to_be_bytes(), &[6, 0xa0]].concat()).collect();
    *parts.section(4) = [&[0x9a][..], &count.to_be_bytes(), &events].concat();
    parts.set("last_lsn", 8 + u64::from(count));
    assert!(decode_as_anything(&parts.build()), "it is meant to decode");
    // Nested deeply below an unknown field: lists, lists without end, tags.
    parts.set("last_lsn", 9);
    for (opening, closing) in
        [(&[0x81u8][..], &[][..]), (&[0x9f], &[0xff]), (&[0xc1], &[]), (&[0x81, 0xa1, 0x61, 0x61], &[])]
    {
        let nested = [opening.repeat(20_000), vec![0], closing.repeat(20_000)].concat();
        *parts.section(4) = [&b"\x81\x83\x09\x06\xa1\x61a"[..], &nested].concat();
        assert!(decode_as_anything(&parts.build()), "it is meant to decode");
    }
    *parts.section(4) = b"\x81\x83\x09\x06\xa0".to_vec();
    for (front, steps, rows) in [(&[127u8][..], [0, 0, 1], 128), (&[0], [0, 0, 0], 1)] {
        let chunk = |disk: u8| [&[disk][..], front, &[0], &steps, &[0, 0, 1], &[0, 0, 0], &[0, 0, 1]].concat();
        let index: Vec<u8> = (0..100).flat_map(chunk).collect();
        parts.set("row_count", 100 * rows);
        *parts.section(1) = index;
        assert!(decode_as_anything(&parts.build()), "it is meant to decode");
    }
}
