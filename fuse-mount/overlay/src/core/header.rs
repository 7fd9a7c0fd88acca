//! The first page of a map: what the local file is an overlay of. Text, so that an operator can read it with `head`.

use crate::core::record::Seal;
use crate::core::states::UNIT_BYTES;

/// Bytes of the header; records follow.
pub(crate) const HEADER_BYTES: usize = 4096;
/// Longest identity.
pub(crate) const IDENTITY_BYTES_MAX: usize = 1024;
const FIRST_LINE: &str = "tidemark-overlay 1";

/// What a map's first page says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// What is below: names contents that never change.
    pub(crate) identity: String,
    pub(crate) size_bytes: u64,
    /// Records that were there when the file was made: every one of them must be valid.
    pub(crate) records: u64,
    /// The boot of the machine in which the rest of the records were written.
    pub(crate) boot: String,
    /// False if a crash may have kept a guest's write over a hydrated unit, and lost that it is one.
    pub(crate) dirty_is_complete: bool,
    /// Makes the file unlike any other.
    pub(crate) nonce: u64,
}

impl Header {
    fn text(&self) -> String {
        let Self { identity, size_bytes, records, boot, dirty_is_complete, nonce } = self;
        let dirty = if *dirty_is_complete { "complete" } else { "partial" };
        format!(
            "{FIRST_LINE}\nof {identity}\nsize_bytes {size_bytes}\nunit_bytes {UNIT_BYTES}\nrecords {records}\n\
             boot {boot}\ndirty {dirty}\nnonce {nonce:016x}\n"
        )
    }

    /// The key of the records behind this header.
    pub(crate) fn seal(&self) -> Seal {
        Seal(*blake3::hash(self.text().as_bytes()).as_bytes())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let hash = blake3::hash(self.text().as_bytes()).to_hex();
        let mut bytes = format!("{}hash {hash}\n", self.text()).into_bytes();
        assert!(bytes.len() <= HEADER_BYTES, "identities are at most {IDENTITY_BYTES_MAX} bytes");
        bytes.resize(HEADER_BYTES, b'\n');
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// What is wrong with it, as text.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "its header is not text".to_owned())?;
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err(format!("it does not begin with {FIRST_LINE:?}"));
        }
        let mut field = |name: &str| {
            let value = lines.next().and_then(|line| line.strip_prefix(name)).and_then(|rest| rest.strip_prefix(' '));
            value.map(str::to_owned).ok_or_else(|| format!("its header has no {name}"))
        };
        let number =
            |name: &str, text: String| text.parse::<u64>().map_err(|_| format!("{name} {text:?} is no number"));
        let identity = field("of")?;
        let size_bytes = number("size_bytes", field("size_bytes")?)?;
        let unit = number("unit_bytes", field("unit_bytes")?)?;
        if unit != UNIT_BYTES {
            return Err(format!("its units have {unit} bytes, not {UNIT_BYTES}"));
        }
        let records = number("records", field("records")?)?;
        let boot = field("boot")?;
        let dirty_is_complete = field("dirty")? == "complete";
        let nonce = field("nonce")?;
        let nonce = u64::from_str_radix(&nonce, 16).map_err(|_| format!("nonce {nonce:?} is no number"))?;
        let header = Self { identity, size_bytes, records, boot, dirty_is_complete, nonce };
        let hash = blake3::hash(header.text().as_bytes()).to_hex();
        if field("hash")? != hash.as_str() { Err("its header's hash differs".to_owned()) } else { Ok(header) }
    }
}

/// An identity as one line of bounded length.
pub(crate) fn one_line(identity: &str) -> String {
    let line: String = identity.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() <= IDENTITY_BYTES_MAX {
        return line.trim().to_owned();
    }
    // Cut, and made unlike any other by its hash.
    let cut = (0..=IDENTITY_BYTES_MAX - 80).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
    format!("{} {}", line[..cut].trim(), blake3::hash(identity.as_bytes()).to_hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let (identity, boot) = ("disk 7 at lsn 9".to_owned(), "b-1".to_owned());
        Header { identity, size_bytes: 1 << 40, records: 3, boot, dirty_is_complete: true, nonce: 77 }
    }

    #[test]
    fn headers_read_back_and_damage_is_found() {
        let bytes = header().encode();
        assert_eq!(bytes.len(), HEADER_BYTES);
        assert_eq!(Header::decode(&bytes), Ok(header()));
        let used = bytes.iter().rposition(|b| *b != b'\n').unwrap();
        for at in 0..used {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Header::decode(&damaged).is_err(), "byte {at}");
        }
        assert!(Header::decode(b"").is_err());
    }

    #[test]
    fn identities_are_one_line_whatever_they_hold() {
        assert_eq!(one_line("a\nb"), "a b");
        let (long, other) = ("é".repeat(5000), "é".repeat(5001));
        assert!(one_line(&long).len() <= IDENTITY_BYTES_MAX);
        assert_ne!(one_line(&long), one_line(&other));
    }
}
