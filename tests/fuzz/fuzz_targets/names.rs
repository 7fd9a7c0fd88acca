//! Texts that name things: object keys and domain ids.
#![no_main]
use libfuzzer_sys::fuzz_target;
use tidemark_format::{DomainId, ObjectKey};
use tidemark_fuzz::bounded;

fuzz_target!(|text: &str| {
    // One text for one key: what parses is printed as it was read.
    if let Ok(key) = bounded(text.len(), || text.parse::<ObjectKey>()) {
        assert_eq!(key.to_string(), text);
        assert!(text.starts_with(key.family().prefix()));
    }
    if let Ok(domain) = bounded(text.len(), || text.parse::<DomainId>()) {
        assert_eq!(domain.to_string(), text);
    }
});
