//! One line of the map's journal: 32 bytes that say what became of some units, or how far the data is durable.
//!
//! A record's hash covers its position and the header of its file, so a record is valid at one place only and what an older
//! file left there is none. So the end of the journal is found by reading on until a record is not valid.

use crate::core::states::State;

/// Bytes of a record. Divides the page, so no record is torn across two.
pub(crate) const RECORD_BYTES: usize = 32;
const HASH_BYTES: usize = 8;
/// Largest number of a unit: 2^48 units are 2^60 bytes.
pub(crate) const UNITS_MAX: u64 = 1 << 48;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// `len` units from `start` on are now `state`, or further.
    Set { start: u64, len: u64, state: State },
    /// The states of 64 units from word `index` on.
    Words { index: u64, words: [u64; 2] },
    /// The data of all that the records before number `through` say is durable.
    Commit { through: u64 },
    /// As `Commit`, and nothing was written since.
    Closed { through: u64 },
    /// The local disk failed to keep data. Nothing after this is to be believed.
    Failed,
}

/// Ties records to their file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seal(pub(crate) [u8; 32]);

impl Record {
    pub(crate) fn encode(self, seal: &Seal, number: u64) -> [u8; RECORD_BYTES] {
        let (kind, state, at, more) = match self {
            Self::Set { start, len, state } => (1, state.bits(), start, [len, 0]),
            Self::Words { index, words } => (2, 0, index, words),
            Self::Commit { through } => (3, 0, through, [0; 2]),
            Self::Closed { through } => (4, 0, through, [0; 2]),
            Self::Failed => (5, 0, 0, [0; 2]),
        };
        assert!(at < UNITS_MAX, "number {at} does not fit a record");
        let mut bytes = [0; RECORD_BYTES];
        bytes[8..16].copy_from_slice(&(kind | state << 8 | at << 16).to_le_bytes());
        bytes[16..24].copy_from_slice(&more[0].to_le_bytes());
        bytes[24..].copy_from_slice(&more[1].to_le_bytes());
        let hash = hash(seal, number, &bytes);
        bytes[..HASH_BYTES].copy_from_slice(&hash);
        bytes
    }

    /// The record of this number, if these bytes are one.
    pub(crate) fn decode(seal: &Seal, number: u64, bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        if bytes[..HASH_BYTES] != hash(seal, number, bytes) {
            return None;
        }
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let (head, more) = (word(8), [word(16), word(24)]);
        let at = head >> 16;
        Some(match head & 0xff {
            1 => Self::Set { start: at, len: more[0], state: State::of_bits(head >> 8 & 0xff)? },
            2 => Self::Words { index: at, words: more },
            3 => Self::Commit { through: at },
            4 => Self::Closed { through: at },
            5 => Self::Failed,
            _ => return None,
        })
    }
}

fn hash(seal: &Seal, number: u64, bytes: &[u8; RECORD_BYTES]) -> [u8; HASH_BYTES] {
    let mut covered = [0; 8 + RECORD_BYTES - HASH_BYTES];
    covered[..8].copy_from_slice(&number.to_le_bytes());
    covered[8..].copy_from_slice(&bytes[HASH_BYTES..]);
    let whole = blake3::keyed_hash(&seal.0, &covered);
    whole.as_bytes()[..HASH_BYTES].try_into().expect("a hash is longer")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Record; 5] = [
        Record::Set { start: UNITS_MAX - 1, len: u64::MAX, state: State::Dirty },
        Record::Words { index: 6, words: [1, u64::MAX] },
        Record::Commit { through: 9 },
        Record::Closed { through: 10 },
        Record::Failed,
    ];

    #[test]
    fn records_read_back_at_their_place_and_nowhere_else() {
        let seal = Seal([7; 32]);
        for (number, record) in (0..).zip(ALL) {
            let bytes = record.encode(&seal, number);
            assert_eq!(Record::decode(&seal, number, &bytes), Some(record));
            assert_eq!(Record::decode(&seal, number + 1, &bytes), None, "another place");
            assert_eq!(Record::decode(&Seal([8; 32]), number, &bytes), None, "another file");
            for bit in 0..RECORD_BYTES * 8 {
                let mut torn = bytes;
                torn[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Record::decode(&seal, number, &torn), None, "bit {bit}");
            }
        }
        assert_eq!(Record::decode(&seal, 0, &[0; RECORD_BYTES]), None, "zeros are no record");
    }
}
