//! Hexadecimal text, as used in keys and in the genesis object.

/// Lower-case hex of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Bytes of lower-case hex; `None` for an odd length, upper case or any other character.
pub fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// The number in exactly `width` lower-case hex digits.
pub(crate) fn unhex_number(text: &str) -> Option<u64> {
    let raw: [u8; 8] = unhex(text.as_bytes())?.try_into().ok()?;
    Some(u64::from_be_bytes(raw))
}

/// At most 80 characters of `text`, for an error message.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}
