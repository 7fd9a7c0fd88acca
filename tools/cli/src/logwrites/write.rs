//! Writing a log, byte for byte as its recorders do.

use super::{ENTRY_BYTES, Entry, Flags, MAGIC, VERSION};

/// The bytes of a log with these entries.
///
/// # Panics
/// If an entry is not in whole sectors, or a mark's name does not fit one: the caller made it.
pub fn encode(sector_bytes: u32, entries: &[Entry]) -> Vec<u8> {
    let unit = sector_bytes as usize;
    let mut out = Vec::new();
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    out.extend_from_slice(&sector_bytes.to_le_bytes());
    out.resize(unit, 0);
    for entry in entries {
        encode_entry(&mut out, sector_bytes, entry);
    }
    out
}

/// Appends one entry and its data.
///
/// # Panics
/// As [`encode`].
pub fn encode_entry(out: &mut Vec<u8>, sector_bytes: u32, entry: &Entry) {
    let unit = u64::from(sector_bytes);
    let sectors = |bytes: u64| {
        assert!(bytes.is_multiple_of(unit), "{bytes} bytes are not whole sectors of {unit}");
        bytes / unit
    };
    let text = entry.mark.as_deref().unwrap_or_default().as_bytes();
    assert!(text.len() + ENTRY_BYTES <= unit as usize, "mark of {} bytes in a sector of {unit}", text.len());
    let start = out.len();
    let fields = [sectors(entry.offset_bytes), sectors(entry.len_bytes), entry.flags.bits(), text.len() as u64];
    fields.iter().for_each(|field| out.extend_from_slice(&field.to_le_bytes()));
    out.extend_from_slice(text);
    out.resize(start + unit as usize, 0);
    if !entry.flags.has(Flags::DISCARD) {
        assert_eq!(entry.data.len() as u64, entry.len_bytes, "an entry's data is as long as it says");
        out.extend_from_slice(&entry.data);
    }
}
