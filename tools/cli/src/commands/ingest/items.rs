//! What each entry of a log becomes in a domain. Depends on the entry alone, so that a later run can count where an
//! earlier one stopped.

use crate::logwrites::{Entry, Flags};
use bytes::Bytes;

/// One thing that takes one LSN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A write.
    Write { offset_bytes: u64, data: Bytes },
    /// A discard.
    Unmap { offset_bytes: u64, len_bytes: u64 },
    /// A flush of the disk.
    Flush,
    /// A mark, as a bookmark of this name.
    Bookmark(String),
}

/// Longest name of a bookmark, in bytes.
const NAME_BYTES_MAX: usize = 200;

/// The items of entry `number`, counted from 0, in order. A flush that comes with a write precedes it.
pub(crate) fn items_of(number: u64, entry: Entry) -> impl Iterator<Item = Item> {
    let Entry { flags, offset_bytes, len_bytes, mark, data } = entry;
    let flush = flags.has(Flags::FLUSH).then_some(Item::Flush);
    let write = if flags.has(Flags::DISCARD) {
        (len_bytes > 0).then_some(Item::Unmap { offset_bytes, len_bytes })
    } else {
        (!data.is_empty()).then_some(Item::Write { offset_bytes, data })
    };
    let mark = mark.map(|name| Item::Bookmark(bookmark_name(number, &name)));
    [flush, write, mark].into_iter().flatten()
}

/// A mark's text as a bookmark's name: of one line, not empty, not too long.
fn bookmark_name(number: u64, mark: &str) -> String {
    let mut name: String = mark.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    while name.len() > NAME_BYTES_MAX {
        name.pop();
    }
    if name.is_empty() { format!("mark-{number}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(entry: Entry) -> Vec<Item> {
        items_of(7, entry).collect()
    }

    #[test]
    fn one_write_record_is_one_item_whatever_its_flags() {
        let data = Bytes::from(vec![1; 512]);
        let write = Item::Write { offset_bytes: 512, data: data.clone() };
        let entry = Entry::write(512, data);
        for flags in [Flags::NONE, Flags::FUA, Flags::FUA.and(Flags::METADATA)] {
            assert_eq!(items(entry.clone().with(flags)), vec![write.clone()]);
        }
        assert_eq!(items(entry.with(Flags::FLUSH)), [Item::Flush, write]);
    }

    #[test]
    fn flushes_discards_and_marks_become_what_they_mean() {
        assert_eq!(items(Entry::flush()), [Item::Flush]);
        assert_eq!(items(Entry::discard(0, 4096)), [Item::Unmap { offset_bytes: 0, len_bytes: 4096 }]);
        assert_eq!(items(Entry::discard(0, 0)), []);
        assert_eq!(items(Entry::mark(" after\nboot ")), [Item::Bookmark("after boot".into())]);
        assert_eq!(items(Entry::mark("")), [Item::Bookmark("mark-7".into())]);
        let long = items(Entry::mark(&"é".repeat(150)));
        assert_eq!(long, [Item::Bookmark("é".repeat(100))]);
    }
}
