//! Names of VMs, disks and bookmarks as file names, and back.
//!
//! A guest's name may hold anything; a file name may not. `/`, NUL, control characters, a leading dot and `%` itself are
//! written as `%XX`, so that no two names share a file name and [`unescape`] gives the name back. The one exception
//! is a name longer than [`ESCAPED_BYTES_MAX`] when escaped: it is cut and ends in `%~` and a hash of the whole.

use std::fmt::Write as _;

/// Longest escaped name: leaves room for `.raw` below the 255 bytes that Linux programs expect a name to fit in.
pub const ESCAPED_BYTES_MAX: usize = 240;

/// A file name for `name`: never empty, never `.` or `..`, without `/`, NUL and control characters.
pub fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (at, c) in name.char_indices() {
        let plain = !(c == '/' || c == '%' || c.is_control() || (at == 0 && c == '.'));
        if plain {
            out.push(c);
        } else {
            let mut utf8 = [0; 4];
            for byte in c.encode_utf8(&mut utf8).bytes() {
                push_hex(&mut out, byte);
            }
        }
    }
    if out.is_empty() {
        // "%" alone is never the escape of anything else.
        out.push('%');
    }
    if out.len() > ESCAPED_BYTES_MAX {
        let hash = blake3::hash(name.as_bytes());
        let tail = &hash.to_hex()[..16];
        let mut cut = ESCAPED_BYTES_MAX - 2 - tail.len();
        while !out.is_char_boundary(cut) {
            cut -= 1;
        }
        out.truncate(cut);
        out.push_str("%~");
        out.push_str(tail);
    }
    out
}

fn push_hex(out: &mut String, byte: u8) {
    write!(out, "%{byte:02X}").expect("writing to a String never fails");
}

/// The name that [`escape`] wrote as `file`; `None` if it wrote no such thing, or had to cut it.
pub fn unescape(file: &str) -> Option<String> {
    if file == "%" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(file.len());
    let mut rest = file.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    let name = String::from_utf8(bytes).ok()?;
    (escape(&name) == file).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in ["db", "web-1.example.org", "Größe 5", "a b", "disk.raw"] {
            assert_eq!(escape(name), name);
        }
    }

    #[test]
    fn names_that_are_no_file_names_are_escaped() {
        for (name, file) in [
            ("", "%"),
            (".", "%2E"),
            ("..", "%2E."),
            ("a/b", "a%2Fb"),
            ("100%", "100%25"),
            ("\0", "%00"),
            ("a\nb", "a%0Ab"),
            ("%", "%25"),
        ] {
            assert_eq!(escape(name), file, "{name:?}");
            assert_eq!(unescape(file).as_deref(), Some(name));
        }
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        let (a, b) = ("ü".repeat(200) + "a", "ü".repeat(200) + "b");
        assert!(escape(&a).len() <= ESCAPED_BYTES_MAX);
        assert_ne!(escape(&a), escape(&b));
    }

    #[test]
    fn text_that_was_never_escaped_is_refused() {
        for file in ["", ".hidden", "a%2", "a%zz", "%41", "%2f", "%~0123456789abcdef", "a/b"] {
            assert_eq!(unescape(file), None, "{file:?}");
        }
    }

    proptest! {
        #[test]
        fn prop_names_come_back(name in any::<String>()) {
            let file = escape(&name);
            prop_assert!(!file.is_empty() && !file.starts_with('.') && !file.contains(['/', '\0']));
            if !file.contains("%~") {
                prop_assert_eq!(unescape(&file), Some(name));
            }
        }
    }
}
