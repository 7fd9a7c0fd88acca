//! Claims, hints and roots: as they come, and with the input as the body of a right envelope.
#![no_main]
use libfuzzer_sys::fuzz_target;
use tidemark_format::*;
use tidemark_fuzz::{bounded, forge};

fuzz_target!(|bytes: &[u8]| {
    let body = bytes.get(48..).unwrap_or(bytes);
    for object in [bytes.to_vec(), forge::record(1, 1, body), forge::record(2, 1, body), forge::record(3, 1, body)] {
        let mut domain = DomainId::new([7; 16]);
        // An object that decodes for another domain tells which: ask again as that domain.
        for _ in 0..2 {
            match bounded(object.len(), || Hint::decode(&object, domain)) {
                Err(FormatError::WrongDomain { found, .. }) => domain = found,
                Ok(hint) => assert_eq!(Hint::decode(&hint.encode(), domain), Ok(hint)),
                Err(_) => break,
            }
        }
        for _ in 0..2 {
            match bounded(object.len(), || Root::decode_copy(&object, domain)) {
                Err(FormatError::WrongDomain { found, .. }) => domain = found,
                Ok(root) => {
                    let again = root.encode().expect("what decodes can be encoded");
                    assert_eq!(Root::decode_copy(&again, domain), Ok(root));
                    break;
                }
                Err(_) => break,
            }
        }
        let mut expect = Expect { domain, key: ObjectKey::writer_claim(Epoch::new(1)) };
        for _ in 0..3 {
            match bounded(object.len(), || Claim::decode(&object, &expect)) {
                Err(FormatError::WrongDomain { found, .. }) => expect.domain = found,
                Err(FormatError::Misplaced { found, .. }) => expect.key = found.parse().expect("a claim names its key"),
                Ok(claim) => {
                    assert_eq!(claim.key(), expect.key);
                    // The codec reads numbers of any width and skips unknown fields, so only the meaning is the same.
                    assert_eq!(Claim::decode(&claim.encode(), &expect), Ok(claim));
                    break;
                }
                Err(_) => break,
            }
        }
    }
});
