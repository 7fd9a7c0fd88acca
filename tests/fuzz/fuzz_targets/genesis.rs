//! `tidemark.json`: as it comes, and with its check line made right.
#![no_main]
use libfuzzer_sys::fuzz_target;
use tidemark_format::Genesis;
use tidemark_fuzz::{bounded, forge};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.rfind("  \"check\": ").map_or(&*text, |at| &text[..at]);
    for object in [bytes.to_vec(), forge::genesis(lines)] {
        if let Ok(genesis) = bounded(object.len(), || Genesis::decode(&object)) {
            assert_eq!(Genesis::decode(&genesis.encode()), Ok(genesis));
        }
    }
});
