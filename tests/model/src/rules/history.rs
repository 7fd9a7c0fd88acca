//! What somebody who opens the bucket finds in it.

use super::state::{LSNS, Object, SEGMENTS, Store};
use super::{Rule, Scenario};

/// The log as it reads from one CUT.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Whose write each LSN holds; 0 = none.
    pub(super) content: [u8; LSNS],
    /// Highest `acked_through` in any header of it.
    pub(super) acked_through: u8,
    /// Why this is no history that any writer made.
    pub(super) broken: Option<String>,
}

/// Reads epoch `epoch` and everything before it, as far as `tail`, or as far as it goes.
pub(super) fn walk(store: &Store, scenario: &Scenario, epoch: u8, tail: Option<u8>) -> Log {
    let mut log = Log::default();
    let mut next_lsn = 1;
    let mut last = Object::default();
    follow(store, scenario, epoch, tail, &mut log, &mut next_lsn, &mut last);
    log
}

fn follow(
    store: &Store,
    scenario: &Scenario,
    epoch: u8,
    tail: Option<u8>,
    log: &mut Log,
    next_lsn: &mut u8,
    last: &mut Object,
) {
    let cut = store.object(epoch, 0);
    if cut.by == 0 {
        log.broken.get_or_insert(format!("epoch {epoch} is named as a predecessor but has no CUT"));
        return;
    }
    if cut.pred != 0 {
        let named = scenario.has(Rule::ClosedTail).then_some(cut.tail);
        follow(store, scenario, cut.pred, named, log, next_lsn, last);
    }
    if cut.lsn != *next_lsn || cut.prev_by != last.by {
        log.broken.get_or_insert(format!("the CUT of epoch {epoch} does not continue at lsn {next_lsn}"));
    }
    log.acked_through = log.acked_through.max(cut.acked_through);
    *last = cut;
    for seq in 1..=SEGMENTS as u8 {
        if tail.is_some_and(|t| seq > t) {
            return;
        }
        let object = store.object(epoch, seq);
        if object.by == 0 || (scenario.has(Rule::HashChain) && object.prev_by != last.by) {
            if tail.is_some() {
                log.broken.get_or_insert(format!("log/{epoch}/{seq} is named by a CUT but is not there"));
            }
            return;
        }
        if object.lsn != *next_lsn {
            log.broken.get_or_insert(format!("log/{epoch}/{seq} has lsn {}, not {next_lsn}", object.lsn));
        }
        if object.prev_by != last.by {
            log.broken.get_or_insert(format!("log/{epoch}/{seq} follows a segment that its writer never wrote"));
        }
        log.content[object.lsn as usize] = object.by;
        log.acked_through = log.acked_through.max(object.acked_through);
        *next_lsn += 1;
        *last = object;
    }
}
