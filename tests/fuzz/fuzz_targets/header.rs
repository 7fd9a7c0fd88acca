//! The 512-byte header: any bytes, and the same bytes with magic, version and hash made right.
#![no_main]
use libfuzzer_sys::fuzz_target;
use tidemark_format::*;
use tidemark_fuzz::{bounded, forge};

fuzz_target!(|bytes: &[u8]| {
    let _ = bounded(bytes.len(), || SegmentHeader::decode(bytes));
    let mut forged = bytes.to_vec();
    forged.resize(forge::HEADER_BYTES, 0);
    forged[..10].copy_from_slice(b"\x89TLF\r\n\x1a\n\x01\x00");
    forge::rehash_header(&mut forged);
    if let Ok(header) = bounded(forged.len(), || SegmentHeader::decode(&forged)) {
        assert!(header.head_len() >= 512 && header.head_len() <= header.total_len);
        assert!(header.total_len <= OBJECT_BYTES_MAX);
        let expect = Expect { domain: header.identity.domain, key: header.identity.key() };
        header.check_identity(&expect).expect("it is where it says that it is");
        assert_eq!(expect.key.to_string().parse(), Ok(expect.key));
        // Any single bit turned over in what is hashed is found.
        let at = bytes.first().map_or(0, |&b| usize::from(b) % 448);
        forged[at] ^= 1;
        SegmentHeader::decode(&forged).expect_err("a bit was turned over");
    }
});
