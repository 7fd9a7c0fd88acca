//! Names of the contexts that clients may ask about.
//!
//! | name | context |
//! |---|---|
//! | `base:allocation` | which ranges hold data |
//! | `qemu:dirty-bitmap:since-lsn-N` | which ranges may have changed after LSN N, to tools that know QEMU's bitmaps |
//! | `tidemark:changed-since:N` | the same, under our own name |

use crate::volume::{OFFERED_LSNS_MAX, StatusContext, Volume};
use tidemark_format::Lsn;

const ALLOCATION: &str = "base:allocation";
const DIRTY_BITMAP: &str = "qemu:dirty-bitmap:since-lsn-";
const CHANGED_SINCE: &str = "tidemark:changed-since:";

/// The context of exactly this name, if the volume can answer it.
pub(super) fn find(volume: &dyn Volume, name: &str) -> Option<StatusContext> {
    if name == ALLOCATION {
        return Some(StatusContext::Allocation);
    }
    let digits = name.strip_prefix(DIRTY_BITMAP).or_else(|| name.strip_prefix(CHANGED_SINCE))?;
    let lsn: u64 = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let lsn = Lsn::new(lsn);
    volume.knows_changes_since(lsn).then_some(StatusContext::ChangedSince(lsn))
}

/// Names that a client may be told of; there are more that work.
pub(super) fn offered(volume: &dyn Volume) -> Vec<String> {
    names(&volume.offered_changes_since())
}

fn names(lsns: &[Lsn]) -> Vec<String> {
    let lsns = &lsns[..lsns.len().min(OFFERED_LSNS_MAX)];
    std::iter::once(ALLOCATION.to_owned())
        .chain(lsns.iter().map(|lsn| format!("{DIRTY_BITMAP}{lsn}")))
        .chain(lsns.iter().map(|lsn| format!("{CHANGED_SINCE}{lsn}")))
        .collect()
}

/// Whether a client that lists contexts by this query wants to hear of this name.
pub(super) fn matches(query: &str, name: &str) -> bool {
    query == name || (query.ends_with(':') && name.starts_with(query))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryVolume;

    #[test]
    fn a_bounded_number_of_positions_is_offered() {
        let lsns: Vec<Lsn> = (0..1000).map(Lsn::new).collect();
        assert_eq!(names(&lsns).len(), 1 + 2 * OFFERED_LSNS_MAX);
    }

    #[test]
    fn names_are_exact_and_numbers_are_digits() {
        let volume = MemoryVolume::new(512).expect("small");
        let zero = Some(StatusContext::ChangedSince(Lsn::ZERO));
        assert_eq!(find(&volume, "base:allocation"), Some(StatusContext::Allocation));
        assert_eq!(find(&volume, "qemu:dirty-bitmap:since-lsn-0"), zero);
        assert_eq!(find(&volume, "tidemark:changed-since:0"), zero);
        for unknown in ["", "base:", "base:allocation2", "tidemark:changed-since:", "tidemark:changed-since:+0"] {
            assert_eq!(find(&volume, unknown), None, "{unknown}");
        }
        assert_eq!(find(&volume, "tidemark:changed-since:1"), None, "nothing is known of the future");
        assert_eq!(find(&volume, "tidemark:changed-since:99999999999999999999"), None);
        assert!(matches("qemu:", "qemu:dirty-bitmap:since-lsn-0") && !matches("qemu", "qemu:dirty-bitmap:since-lsn-0"));
    }
}
