//! Ships the log: claims the domain, finds out where to go on, replays records into the writer, follows its commits.
//!
//! Only records that are durable in the log are shipped: the bucket must never know what a crash here could undo.

use crate::core::ledger::Ledger;
use crate::core::phase::{Cause, Phase};
use crate::core::relation::{Held, Relation, relate};
use crate::core::sequencer::{Sequencer, to_submission};
use crate::error::{Error, Result};
use crate::lineage::{successor, trace};
use crate::options::TakeOver;
use crate::shared::{Shared, State};
use crate::{keeper, pace};
use std::sync::Arc;
use std::time::Duration;
use tidemark_format::{EventBody, Lsn, ObjectKey};
use tidemark_writer::{DiskTable, DomainWriter, FenceCause, Submission};

/// What became durable is shipped together with what follows within this: looking at each write by itself would cost the
/// guest's next one time.
const GATHER: Duration = Duration::from_millis(10);

/// Ships until the domain is closed.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut pause_ms = shared.options.retry_ms_first;
    loop {
        let phase = shared.state().phase;
        let outcome = match phase {
            Phase::Closed => return,
            Phase::Opening | Phase::Offline => connect(&shared).await.map(drop),
            Phase::Replicating => {
                pause_ms = shared.options.retry_ms_first;
                ship(&shared).await
            }
            Phase::Paused | Phase::Fenced | Phase::Diverged | Phase::Failed => {
                shared.wait_until(|state| state.phase != phase).await;
                Ok(())
            }
        };
        let Err(error) = outcome else { continue };
        // It may have moved on by itself meanwhile: closed, say.
        let _ = shared.give_up(&error);
        if shared.state().phase == Phase::Offline {
            let wait = Duration::from_millis(pause_ms);
            pause_ms = (2 * pause_ms).min(shared.options.retry_ms_max);
            let _ = tokio::time::timeout(wait, shared.wait_until(|state| state.phase == Phase::Closed)).await;
        }
    }
}

/// Claims the domain and goes on from where the log and the bucket meet.
pub(crate) async fn connect(shared: &Arc<Shared>) -> Result<Arc<DomainWriter>> {
    let writer = claim(shared).await?;
    shared.enter(Cause::Claimed, format!("epoch {}", writer.epoch()))?;
    Ok(writer)
}

async fn claim(shared: &Arc<Shared>) -> Result<Arc<DomainWriter>> {
    let own = shared.state().ledger.epochs.clone();
    let asked = shared.state().take_over;
    // Who went on while we were away owns the domain: a claim of ours would fence them.
    if asked.is_none()
        && let Some(claim) =
            successor(&shared.bucket.read_only(), shared.domain, &shared.options.writer.owner, &own).await?
    {
        let why = format!("{:?} has claimed epoch {} since this appliance last owned it", claim.owner, claim.epoch);
        shared.enter(Cause::ClaimLost, why.clone())?;
        return Err(Error::NotTaking { phase: Phase::Fenced, why });
    }
    let writer = DomainWriter::open(shared.bucket.appender(), shared.options.writer.clone(), shared.env.clone())
        .await
        .map_err(Error::writer("claim the domain"))?;
    let found = trace(&shared.bucket.read_only(), shared.domain, &writer, &own).await?;
    let held = Held { first: shared.log.first_lsn(), last: shared.log.last_lsn() };
    let relation = relate(held, found);
    tracing::info!(domain = %shared.domain, epoch = %writer.epoch(), ?held, ?relation, "claimed the domain");
    match relation {
        Relation::Continues { .. } => {}
        Relation::BucketLost { next } => return Err(Error::BucketLost { next, first: held.first }),
        Relation::Diverged { next, lacks } if asked != Some(TakeOver::DiscardLocal) => {
            let why = format!(
                "another owner has written through lsn {}, and lsn {}..={} are only here",
                next.get() - 1,
                lacks,
                held.last
            );
            shared.enter(Cause::BranchSeen, why.clone())?;
            return Err(Error::NotTaking { phase: Phase::Diverged, why });
        }
        Relation::LogBehind { next } | Relation::Diverged { next, .. } | Relation::Succeeded { next } => {
            begin_anew(shared, next, &writer).await?;
        }
    }
    shared.state().ledger.own(writer.epoch());
    // Before the first of our writes gets there: whoever finds it has to know it as ours.
    keeper::keep(shared).await?;
    let writer = Arc::new(writer);
    {
        let mut state = shared.state();
        state.writer = Some(writer.clone());
        state.take_over = None;
        commit(&mut state, Lsn::new(found.next.get() - 1));
    }
    Ok(writer)
}

/// Follows the bucket: what the log holds is given up. The domain's disks are what the bucket says; of those that have a
/// primary here nobody knows how they differ from it.
async fn begin_anew(shared: &Arc<Shared>, next: Lsn, writer: &DomainWriter) -> Result<()> {
    let (disks, time) = (writer.disks(), writer.last_time());
    shared
        .blocking(move |shared| {
            let mut kept = shared.kept();
            let mut state = shared.state();
            *kept = None;
            shared.log.reset(next).map_err(Error::log("begin the log anew"))?;
            let last = Lsn::new(next.get() - 1);
            state.sequencer = Sequencer::new(last, time, DiskTable::new(disks));
            let primaries = std::mem::take(&mut state.ledger.applied);
            state.ledger = Ledger { epochs: std::mem::take(&mut state.ledger.epochs), ..Ledger::default() };
            for disk in primaries.into_keys() {
                if state.sequencer.disks().get(disk).is_err() {
                    continue;
                }
                let last = state.sequencer.last_lsn();
                let gap = Submission::Event(EventBody::Gap { disk, from: last, to: last });
                let numbered = state.sequencer.number(shared.now(), vec![gap])?;
                let appended = shared.log.append(numbered.records.clone()).map_err(Error::log("log a gap"))?;
                state.sequencer.taken(&numbered);
                let lsn = appended.wait().map_err(Error::log("log a gap"))?;
                state.ledger.suspects.insert(disk);
                state.ledger.applied.insert(disk, lsn);
            }
            Ok(())
        })
        .await
}

/// Replays the log from where the writer stands until something ends it. An epoch that has become old is ended, and the next one
/// begun: what a successor has to read to find the log's end stays short, and maintenance may clean what the epoch wrote.
async fn ship(shared: &Arc<Shared>) -> Result<()> {
    let Some(writer) = shared.state().writer.clone() else { return Ok(()) };
    tokio::select! {
        ended = replay(shared, &writer) => return ended,
        ended = follow(shared, &writer) => return ended,
        ended = watch_claim(shared, &writer) => return ended,
        () = shared.wait_until(|state| state.phase != Phase::Replicating) => return Ok(()),
        () = is_old(shared, &writer) => {}
    }
    // What the writer has is committed now; what it has not yet is in the log, for the next one.
    writer.close().await.map_err(Error::writer("end an epoch"))?;
    shared.pace.packed(writer.status().borrow().packed);
    let writer = claim(shared).await?;
    tracing::info!(domain = %shared.domain, epoch = %writer.epoch(), "began the next epoch");
    shared.has_moved();
    Ok(())
}

/// Waits until the epoch is as old as it may be, and something was written in it.
async fn is_old(shared: &Shared, writer: &DomainWriter) {
    let began = shared.state().committed;
    let age = Duration::from_millis(shared.options.epoch_ms_max);
    tokio::time::sleep(age).await;
    let mut status = writer.status();
    // If the writer is gone, the others notice.
    if status.wait_for(|status| status.committed > began).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn replay(shared: &Arc<Shared>, writer: &DomainWriter) -> Result<()> {
    let mut next = writer.last_lsn().next();
    let mut durable = shared.log.durable();
    loop {
        if *durable.borrow() < next {
            durable.wait_for(|durable| *durable >= next).await.map_err(|_| Error::Gone)?;
            tokio::time::sleep(GATHER).await;
        }
        let (from, bytes_max) = (next, shared.options.read_bytes_max);
        let read = move |shared: &Shared| shared.log.read(from, bytes_max).map_err(Error::log("read the log"));
        for record in shared.blocking(read).await? {
            pace::before_shipping(shared).await;
            let (lsn, time) = (record.lsn, record.time);
            let replayed = writer.replay(lsn, time, to_submission(record.body)).await;
            let _ticket = replayed.map_err(Error::writer("ship the log"))?;
            next = lsn.next();
        }
    }
}

/// An owner that has nothing to commit asks for the next claim all the same: guests must not be served for long after
/// another appliance took the domain over.
async fn watch_claim(shared: &Shared, writer: &DomainWriter) -> Result<()> {
    let key = ObjectKey::writer_claim(writer.epoch().next());
    let every = Duration::from_millis(shared.options.fence_check_ms);
    let bucket = shared.bucket.read_only();
    let mut committed = Lsn::ZERO;
    loop {
        tokio::time::sleep(every).await;
        // Each commit has asked already.
        let now = shared.state().committed;
        if std::mem::replace(&mut committed, now) != now {
            continue;
        }
        if bucket.get(&key).await.is_ok() {
            let source = tidemark_writer::Error::Fenced { epoch: writer.epoch(), cause: FenceCause::NewerClaim };
            return Err(Error::Writer { what: "go on as the owner", source });
        }
    }
}

/// Takes in what the writer commits, until it stops.
async fn follow(shared: &Shared, writer: &DomainWriter) -> Result<()> {
    let mut status = writer.status();
    loop {
        let (committed, packed, stopped) = {
            let status = status.borrow_and_update();
            (status.committed, status.packed, status.stopped.clone())
        };
        shared.pace.packed(packed);
        let news = commit(&mut shared.state(), committed);
        if news {
            shared.has_moved();
        }
        if let Some(source) = stopped {
            return Err(Error::Writer { what: "ship the log", source });
        }
        status.changed().await.map_err(|_| Error::Gone)?;
    }
}

/// Takes note of what is committed; true if that is news.
fn commit(state: &mut State, through: Lsn) -> bool {
    let news = through > state.committed;
    if news {
        state.committed = through;
        state.ages.committed(through);
    }
    news
}
