//! Drives the log: drains its effects after every event, runs them as tasks, feeds their outcomes back.

use crate::core::log::{Done, Effect, Segment};
use crate::error::Error;
use crate::shell::build::{Built, Compressors, Frozen, freeze};
use crate::shell::retry::{put_owned, until_done};
use crate::shell::shared::Shared;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tidemark_bucket::{Appender, Pieces};
use tidemark_format::{
    Epoch, ErrorKind, FormatError, Hint, Lsn, ObjectKey, Role, SegmentDraft, SegmentIdentity, SegmentKind, Seq,
    TICK_NS_DEFAULT,
};
use tokio::task::{JoinError, JoinSet};

/// Shortest sleep: a clock that stands still, as in tests, must not make a busy loop.
const SLEEP_MIN: Duration = Duration::from_millis(1);

/// Runs one domain's log until it stops.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    bucket: Appender,
    compressors: Compressors,
    tasks: JoinSet<Finished>,
    /// Compressed, to be sealed once the one before is.
    built: HashMap<Seq, (Box<Segment>, Built)>,
    /// Sealed, to be put or being put.
    frozen: HashMap<Seq, Pieces>,
    hinting: bool,
}

/// What a task came back with.
enum Finished {
    Built(Box<Segment>, Built),
    Frozen(Seq, Frozen),
    Failed(Seq, FormatError),
    Done(Done),
    Hinted,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, bucket: Appender, compressors: Compressors) -> Self {
        let (tasks, built, frozen) = (JoinSet::new(), HashMap::new(), HashMap::new());
        Self { shared, bucket, compressors, tasks, built, frozen, hinting: false }
    }

    pub(crate) async fn run(mut self) {
        // Aborted or panicked: whoever waits is told.
        let _last = LastWord(self.shared.clone());
        let mut finished = None;
        loop {
            let (effects, sleep, drained) = self.step(finished.take());
            for effect in effects {
                if let Effect::Stop(why) = effect {
                    return self.stop(why);
                }
                self.perform(effect);
            }
            self.shared.publish();
            if drained {
                break;
            }
            tokio::select! {
                Some(task) = self.tasks.join_next() => finished = self.take(task),
                () = self.shared.work.notified() => {}
                () = sleep_for(sleep) => {}
            }
        }
        self.last_hint().await;
        self.stop(Error::Closed);
    }

    /// Feeds one outcome and the time to the log, and takes what it wants done, when to wake it, and whether it is over.
    fn step(&mut self, finished: Option<Done>) -> (Vec<Effect>, Option<Duration>, bool) {
        let now = self.shared.now();
        let mut log = self.shared.log();
        if let Some(done) = finished {
            log.handle(done);
        }
        log.tick(now);
        let effects = std::iter::from_fn(|| log.poll()).collect();
        let sleep = log.wake_at().map(|at| at.saturating_sub(now.monotonic).max(SLEEP_MIN));
        (effects, sleep, log.is_drained())
    }

    fn take(&mut self, task: Result<Finished, JoinError>) -> Option<Done> {
        let finished = match task {
            Ok(finished) => finished,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => unreachable!("tasks are cancelled only together with their driver"),
            },
        };
        Some(match finished {
            Finished::Built(segment, built) => {
                let (seq, stored_bytes) = (segment.seq, built.stored_bytes());
                self.built.insert(seq, (segment, built));
                Done::Compressed { seq, stored_bytes }
            }
            Finished::Frozen(seq, frozen) => {
                self.frozen.insert(seq, frozen.object);
                Done::Sealed { seq, header_hash: frozen.header_hash }
            }
            Finished::Failed(seq, error) => Done::Failed { seq, error },
            Finished::Done(done) => {
                if let Done::Put { seq } = &done {
                    self.frozen.remove(seq);
                }
                done
            }
            Finished::Hinted => {
                self.hinting = false;
                return None;
            }
        })
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Compress(segment) => self.compress(segment),
            Effect::Seal { seq, prev_header_hash, acked_through } => self.seal(seq, prev_header_hash, acked_through),
            Effect::Put { seq } => self.put(seq),
            Effect::CheckClaim => self.check_claim(),
            Effect::Commit { through } => self.shared.durability.committed(through),
            Effect::Release { units } => self.shared.room.add_permits(units as usize),
            Effect::Hint { seq } if !self.hinting => {
                self.hinting = true;
                let (shared, bucket) = (self.shared.clone(), self.bucket.clone());
                self.tasks.spawn(async move {
                    put_hint(&shared, &bucket, seq).await;
                    Finished::Hinted
                });
            }
            Effect::Hint { .. } => {}
            Effect::Stop(_) => unreachable!("handled by the loop"),
        }
    }

    fn compress(&mut self, mut segment: Box<Segment>) {
        let compressors = self.compressors.clone();
        let entries = std::mem::take(&mut segment.entries);
        self.tasks.spawn(async move {
            match compressors.build(entries).await {
                Ok(built) => Finished::Built(segment, built),
                Err(error) => Finished::Failed(segment.seq, error),
            }
        });
    }

    fn seal(&mut self, seq: Seq, prev_header_hash: [u8; 32], acked_through: Lsn) {
        let (segment, built) = self.built.remove(&seq).expect("it is sealed once, after it was compressed");
        let identity = SegmentIdentity {
            domain: self.shared.domain,
            kind: SegmentKind::Log,
            role: Role::Writer,
            epoch: self.shared.epoch,
            seq,
        };
        let salt = salt(&self.shared);
        self.tasks.spawn_blocking(move || {
            let Built { rows, frames, data } = built;
            let draft = SegmentDraft {
                identity,
                first_lsn: segment.first_lsn,
                last_lsn: segment.last_lsn,
                acked_through,
                prev_header_hash,
                salt,
                tick_ns: TICK_NS_DEFAULT,
                times: &segment.times,
                rows: &rows,
                events: &segment.events,
                frames: &frames,
            };
            match freeze(&draft, data) {
                Ok(frozen) => Finished::Frozen(seq, frozen),
                Err(error) => Finished::Failed(seq, error),
            }
        });
    }

    fn put(&mut self, seq: Seq) {
        // These bytes are frozen; every attempt sends the same.
        //= SPEC.md#commit-rules
        //# F-5
        //= SPEC.md#keys
        //# K-1
        let object = self.frozen.get(&seq).expect("it is put after it was sealed").clone();
        let key = ObjectKey::Log { epoch: self.shared.epoch, seq };
        let (shared, bucket) = (self.shared.clone(), self.bucket.clone());
        self.tasks.spawn(async move {
            Finished::Done(match put_owned(&shared, &bucket, key, &object).await {
                Ok(_) => Done::Put { seq },
                Err(error) => {
                    shared.report_failure("put a segment", error);
                    Done::Collision
                }
            })
        });
    }

    fn check_claim(&mut self) {
        let key = ObjectKey::writer_claim(Epoch::new(self.shared.epoch.get() + 1));
        let (shared, bucket) = (self.shared.clone(), self.bucket.clone());
        self.tasks.spawn(async move {
            // Only a proven NotFound is "absent"; anything else that is no answer is asked again.
            let look = || {
                let bucket = bucket.clone();
                async move {
                    match bucket.get(&key).await {
                        Ok(_) => Ok(true),
                        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
                        Err(e) => Err(e),
                    }
                }
            };
            let present = until_done(&shared, "look for a newer claim", look).await.unwrap_or(true);
            Finished::Done(Done::ClaimSeen { present })
        });
    }

    async fn last_hint(&mut self) {
        let seq = self.shared.log().committed_seq();
        if seq.get() > 0 {
            put_hint(&self.shared, &self.bucket, seq).await;
        }
    }

    fn stop(self, why: Error) {
        if matches!(why, Error::Closed) {
            tracing::debug!(epoch = %self.shared.epoch, "writer closed");
        } else {
            tracing::error!(epoch = %self.shared.epoch, error = %why, "writer stopped");
        }
        self.shared.log().stop(why.clone());
        self.shared.publish();
        self.shared.durability.stopped(&why);
        self.shared.room.close();
    }
}

/// Ends all waiting when the driver ends, however it ends.
struct LastWord(Arc<Shared>);

impl Drop for LastWord {
    fn drop(&mut self) {
        self.0.durability.stopped(&Error::Closed);
        self.0.room.close();
    }
}

/// One attempt: the hint is advisory.
async fn put_hint(shared: &Shared, bucket: &Appender, seq: Seq) {
    let hint = Hint { domain: shared.domain, epoch: shared.epoch, seq };
    if let Err(error) = bucket.put_hint(hint.encode()).await {
        tracing::debug!(%error, "the hint was not refreshed");
    }
}

pub(crate) fn salt(shared: &Shared) -> [u8; 32] {
    let mut salt = [0; 32];
    shared.env.entropy.fill(&mut salt);
    salt
}

async fn sleep_for(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
