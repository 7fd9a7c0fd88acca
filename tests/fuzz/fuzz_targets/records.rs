//! Claims, hints, roots, ledgers, pins and records of quarantine: as they come, and with the input as the body of a right envelope.
#![no_main]
use libfuzzer_sys::fuzz_target;
use tidemark_format::*;
use tidemark_fuzz::{bounded, forge};

fuzz_target!(|bytes: &[u8]| {
    let body = bytes.get(48..).unwrap_or(bytes);
    let forged = [1, 2, 3, 5, 6, 7].map(|kind| forge::record(kind, 1, body));
    for object in [bytes.to_vec()].into_iter().chain(forged) {
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
        for _ in 0..2 {
            match bounded(object.len(), || Pin::decode(&object, domain)) {
                Err(FormatError::WrongDomain { found, .. }) => domain = found,
                Ok(pin) => assert_eq!(Pin::decode(&pin.encode(), domain), Ok(pin)),
                Err(_) => break,
            }
        }
        let mut expect = Expect { domain, key: ObjectKey::Hint.quarantine() };
        for _ in 0..3 {
            match bounded(object.len(), || Quarantine::decode(&object, &expect)) {
                Err(FormatError::WrongDomain { found, .. }) => expect.domain = found,
                Err(FormatError::Misplaced { found, .. }) => {
                    expect.key = found.parse().expect("a record of quarantine names its key")
                }
                Ok(found) => {
                    assert_eq!(Quarantine::decode(&found.encode(), &expect), Ok(found));
                    break;
                }
                Err(_) => break,
            }
        }
        let mut expect = Expect { domain, key: ObjectKey::Ledger { epoch: Epoch::new(1) } };
        for _ in 0..3 {
            match bounded(object.len(), || Ledger::decode(&object, &expect)) {
                Err(FormatError::WrongDomain { found, .. }) => expect.domain = found,
                Err(FormatError::Misplaced { found, .. }) => {
                    expect.key = found.parse().expect("a ledger names its key")
                }
                Ok(ledger) => {
                    let again = ledger.encode().expect("what decodes can be encoded");
                    assert_eq!(Ledger::decode(&again, &expect), Ok(ledger));
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
