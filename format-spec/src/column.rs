//! Packed columns: up to 128 numbers as `base + (bits << shift)` with one bit width for all (SPEC.md §packed-columns).
//!
//! The frame-of-reference scheme of column stores, with a common power of two taken out so that 4 KiB-aligned
//! addresses in 512-byte blocks cost three bits less. A constant column costs three bytes.

use crate::cursor::{Cursor, put_varint};
use crate::error::{FormatError, Result};

/// Most numbers in one packed column.
pub(crate) const CHUNK_ROWS_MAX: usize = 128;

/// Appends `values` (at most [`CHUNK_ROWS_MAX`]).
pub(crate) fn put_packed(out: &mut Vec<u8>, values: &[u64]) {
    debug_assert!(values.len() <= CHUNK_ROWS_MAX);
    let base = values.iter().copied().min().unwrap_or(0);
    let spread = values.iter().fold(0, |all, v| all | (v - base));
    let shift = if spread == 0 { 0 } else { spread.trailing_zeros() };
    let width = 64 - (spread >> shift).leading_zeros();
    out.push(width as u8);
    out.push(shift as u8);
    put_varint(out, base);
    let (mut pending, mut pending_bits) = (0u128, 0u32);
    for v in values {
        pending |= u128::from((v - base) >> shift) << pending_bits;
        pending_bits += width;
        while pending_bits >= 8 {
            out.push(pending as u8);
            pending >>= 8;
            pending_bits -= 8;
        }
    }
    if pending_bits > 0 {
        out.push(pending as u8);
    }
}

/// Reads `out.len()` numbers.
pub(crate) fn take_packed(from: &mut Cursor<'_>, out: &mut [u64]) -> Result<()> {
    let (width, shift) = (u32::from(from.u8()?), u32::from(from.u8()?));
    //= SPEC.md#packed-columns
    //# PC-1
    if width > 64 || shift > 63 || width + shift > 64 {
        return Err(FormatError::Column { why: "width and shift exceed 64 bits" });
    }
    let base = from.varint()?;
    if width == 0 {
        if shift != 0 {
            return Err(FormatError::Column { why: "shift without width" });
        }
        out.fill(base);
        return Ok(());
    }
    let bits_len = out.len() * width as usize;
    let bytes = from.take(bits_len.div_ceil(8))?;
    let mask = u64::MAX >> (64 - width);
    // The largest representable number must not wrap; checked once for the column, not per number.
    if base.checked_add(mask << shift).is_some() {
        for (i, slot) in out.iter_mut().enumerate() {
            *slot = base + (bits_at(bytes, i * width as usize, mask) << shift);
        }
    } else {
        for (i, slot) in out.iter_mut().enumerate() {
            let offset = bits_at(bytes, i * width as usize, mask) << shift;
            *slot = base.checked_add(offset).ok_or(FormatError::Column { why: "number exceeds 64 bits" })?;
        }
    }
    let padding = bytes.len() * 8 - bits_len;
    if padding > 0 && bytes[bytes.len() - 1] >> (8 - padding) != 0 {
        return Err(FormatError::Column { why: "padding bits are not zero" });
    }
    Ok(())
}

fn bits_at(bytes: &[u8], bit: usize, mask: u64) -> u64 {
    let (byte, skip) = (bit / 8, bit % 8);
    // Nine bytes hold 64 bits at any bit offset.
    if let Some(window) = bytes.get(byte..byte + 8) {
        let low = u64::from_le_bytes(window.try_into().expect("eight bytes")) >> skip;
        let high = bytes.get(byte + 8).map_or(0, |&b| (u128::from(b) << 64 >> skip) as u64);
        (low | high) & mask
    } else {
        let mut window = [0u8; 8];
        let rest = &bytes[byte..];
        window[..rest.len()].copy_from_slice(rest);
        (u64::from_le_bytes(window) >> skip) & mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(bytes: &[u8], n: usize) -> Result<Vec<u64>> {
        let mut cursor = Cursor::new("column", bytes);
        let mut out = vec![0; n];
        take_packed(&mut cursor, &mut out)?;
        cursor.finish()?;
        Ok(out)
    }

    proptest! {
        #[test]
        fn prop_columns_read_back_as_written(
            values in prop_oneof![
                proptest::collection::vec(any::<u64>(), 1..=CHUNK_ROWS_MAX),
                proptest::collection::vec((0u64..100_000).prop_map(|v| v * 8), 1..=CHUNK_ROWS_MAX),
                (any::<u64>(), 1..=CHUNK_ROWS_MAX).prop_map(|(v, n)| vec![v; n]),
            ]
        ) {
            let mut bytes = Vec::new();
            put_packed(&mut bytes, &values);
            prop_assert_eq!(decoded(&bytes, values.len()), Ok(values));
        }

        #[test]
        fn prop_any_bytes_decode_or_err(bytes in proptest::collection::vec(any::<u8>(), 0..64), n in 1..=CHUNK_ROWS_MAX) {
            let _ = decoded(&bytes, n);
        }
    }

    #[test]
    fn a_constant_column_takes_three_bytes() {
        let mut bytes = Vec::new();
        put_packed(&mut bytes, &[8; 128]);
        assert_eq!(bytes, [0, 0, 8]);
    }

    #[test]
    fn numbers_beyond_64_bits_are_refused() {
        let mut bytes = vec![1, 0];
        put_varint(&mut bytes, u64::MAX);
        bytes.push(1);
        assert_eq!(decoded(&bytes, 1), Err(FormatError::Column { why: "number exceeds 64 bits" }));
    }
}
