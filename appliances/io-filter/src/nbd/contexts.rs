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
    let lsns = volume.offered_changes_since();
    let lsns = || lsns.iter().take(OFFERED_LSNS_MAX);
    std::iter::once(ALLOCATION.to_owned())
        .chain(lsns().map(|lsn| format!("{DIRTY_BITMAP}{lsn}")))
        .chain(lsns().map(|lsn| format!("{CHANGED_SINCE}{lsn}")))
        .collect()
}

/// Whether a client that lists contexts by this query wants to hear of this name.
pub(super) fn matches(query: &str, name: &str) -> bool {
    query == name || (query.ends_with(':') && name.starts_with(query))
}
