//! Gives every write and event of a domain its position and time.
//!
//! Invariants: LSNs are dense; time is in whole ticks and never goes back, whatever the wall clock does; the table of
//! disks is that of the last position. A step of the wall clock is logged in front of what comes next.
//! Numbering is in two steps, since the log may refuse for want of room: what was refused took no position.

use crate::error::{Error, Result};
use std::time::Duration;
use tidemark_format::{Event, EventBody, Lsn, TICK_NS_DEFAULT, TimeNs};
use tidemark_log_store::{Record, RecordBody};
use tidemark_writer::{Body, DiskTable, Submission};

/// A wall clock that moves by this much more or less than the monotonic one has stepped.
const CLOCK_STEP_MIN: Duration = Duration::from_secs(2);

/// What the clocks show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) wall: TimeNs,
    pub(crate) monotonic: Duration,
}

#[derive(Debug)]
pub(crate) struct Sequencer {
    last_lsn: Lsn,
    last_time: TimeNs,
    disks: DiskTable,
    /// What the clocks showed when they were last looked at.
    clocks: Option<Now>,
}

/// Numbered, but not taken by the log yet.
#[derive(Debug)]
pub(crate) struct Numbered {
    pub(crate) records: Vec<Record>,
    clocks: Now,
}

impl Sequencer {
    pub(crate) fn new(last_lsn: Lsn, last_time: TimeNs, disks: DiskTable) -> Self {
        Self { last_lsn, last_time, disks, clocks: None }
    }

    pub(crate) fn last_lsn(&self) -> Lsn {
        self.last_lsn
    }

    pub(crate) fn last_time(&self) -> TimeNs {
        self.last_time
    }

    pub(crate) fn disks(&self) -> &DiskTable {
        &self.disks
    }

    /// Numbers what is to be logged with nothing in between. All of it must make sense as the next thing: what comes of
    /// [`DiskTable::plan_add`] and its like, or single writes and events.
    pub(crate) fn number(&self, now: Now, plan: Vec<Submission>) -> Result<Numbered> {
        let tick = u64::from(TICK_NS_DEFAULT);
        let time = TimeNs::new(now.wall.get() - now.wall.get() % tick).max(self.last_time);
        let step = self.clocks.and_then(|before| clock_step(before, now));
        let mut lsn = self.last_lsn;
        let mut records = Vec::with_capacity(plan.len() + 1);
        match plan.first() {
            Some(Submission::Write { disk, extent, .. }) => self.disks.check(*disk, *extent),
            Some(Submission::Event(body)) => self.disks.check_event(lsn.next(), body),
            None => Ok(()),
        }
        .map_err(Error::writer("log it"))?;
        for what in step.map(Submission::Event).into_iter().chain(plan) {
            lsn = lsn.next();
            records.push(Record { lsn, time, body: to_record(what) });
        }
        Ok(Numbered { records, clocks: now })
    }

    /// The log has taken it.
    pub(crate) fn taken(&mut self, numbered: &Numbered) {
        self.clocks = Some(numbered.clocks);
        for record in &numbered.records {
            self.follow(record);
        }
    }

    /// Goes on behind a record that the log held already.
    pub(crate) fn follow(&mut self, record: &Record) {
        assert!(record.lsn == self.last_lsn.next(), "lsn {} does not follow {}", record.lsn, self.last_lsn);
        assert!(record.time >= self.last_time, "time goes back at lsn {}", record.lsn);
        self.last_lsn = record.lsn;
        self.last_time = record.time;
        if let RecordBody::Event(body) = &record.body {
            let event = Event { lsn: record.lsn, body: body.clone() };
            self.disks.apply(&event).expect("events are checked before they are logged");
        }
    }
}

/// The event of a stepped clock, if it stepped.
fn clock_step(before: Now, now: Now) -> Option<EventBody> {
    let passed = now.monotonic.saturating_sub(before.monotonic);
    let expected = before.wall.get().saturating_add(u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX));
    let off = Duration::from_nanos(expected.abs_diff(now.wall.get()));
    (off >= CLOCK_STEP_MIN).then_some(EventBody::ClockStep { from: TimeNs::new(expected), to: now.wall })
}

fn to_record(what: Submission) -> RecordBody {
    match what {
        Submission::Write { disk, extent, body: Body::Data(data) } => RecordBody::Write { disk, extent, data },
        Submission::Write { disk, extent, body: Body::Zero } => RecordBody::Zero { disk, extent },
        Submission::Write { disk, extent, body: Body::Unmap } => RecordBody::Unmap { disk, extent },
        Submission::Event(body) => RecordBody::Event(body),
    }
}

/// A record as the writer takes it.
pub(crate) fn to_submission(body: RecordBody) -> Submission {
    match body {
        RecordBody::Write { disk, extent, data } => Submission::Write { disk, extent, body: Body::Data(data) },
        RecordBody::Zero { disk, extent } => Submission::Write { disk, extent, body: Body::Zero },
        RecordBody::Unmap { disk, extent } => Submission::Write { disk, extent, body: Body::Unmap },
        RecordBody::Event(body) => Submission::Event(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_format::{DiskId, Extent};
    use tidemark_writer::Content;

    const MS: u64 = 1_000_000;

    fn now(wall_ms: u64, monotonic_ms: u64) -> Now {
        Now { wall: TimeNs::new(wall_ms * MS + 17), monotonic: Duration::from_millis(monotonic_ms) }
    }

    fn log(sequencer: &mut Sequencer, now: Now, plan: Vec<Submission>) -> Vec<Record> {
        let numbered = sequencer.number(now, plan).unwrap();
        sequencer.taken(&numbered);
        numbered.records
    }

    fn with_disk() -> (Sequencer, DiskId) {
        let mut sequencer = Sequencer::new(Lsn::ZERO, TimeNs::default(), DiskTable::default());
        let (disk, plan) = sequencer.disks().plan_add("vm", "a", 64, Content::Blank).unwrap();
        log(&mut sequencer, now(1000, 0), plan);
        (sequencer, disk)
    }

    fn zero(disk: DiskId) -> Vec<Submission> {
        vec![Submission::Write { disk, extent: Extent::new(0, 8), body: Body::Zero }]
    }

    #[test]
    fn positions_are_dense_and_what_the_log_refuses_takes_none() {
        let (mut sequencer, disk) = with_disk();
        let last = sequencer.last_lsn();
        let refused = sequencer.number(now(1001, 1), zero(disk)).unwrap();
        assert_eq!(refused.records[0].lsn, last.next());
        assert_eq!(log(&mut sequencer, now(1001, 1), zero(disk))[0].lsn, last.next());
    }

    #[test]
    fn nonsense_is_refused() {
        let (sequencer, disk) = with_disk();
        let beyond = Submission::Write { disk, extent: Extent::new(60, 8), body: Body::Zero };
        let nobody = Submission::Event(EventBody::Flush { disk: DiskId::new(9) });
        for what in [beyond, nobody] {
            assert!(sequencer.number(now(1001, 1), vec![what]).is_err());
        }
    }

    #[test]
    fn time_stands_still_while_the_clock_is_back_and_the_step_is_logged() {
        let (mut sequencer, disk) = with_disk();
        let hour = 3_600_000;
        log(&mut sequencer, now(hour, hour - 1000), zero(disk));
        let back = log(&mut sequencer, now(10, hour), zero(disk));
        assert_eq!(back.len(), 2);
        let RecordBody::Event(EventBody::ClockStep { from, to }) = &back[0].body else {
            panic!("the step is not logged: {back:?}")
        };
        assert_eq!((from.get() / MS, to.get() / MS), (hour + 1000, 10));
        assert!(back.iter().all(|record| record.time == TimeNs::new(hour * MS)), "time never goes back");
        assert_eq!(log(&mut sequencer, now(11, hour + 1), zero(disk)).len(), 1, "a step is logged once");
    }

    #[test]
    fn a_slow_guest_and_a_slewed_clock_are_no_steps() {
        let (mut sequencer, disk) = with_disk();
        assert_eq!(log(&mut sequencer, now(101_500, 100_000), zero(disk)).len(), 1);
    }
}
