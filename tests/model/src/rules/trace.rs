//! What the steps of a counterexample are called.

use super::state::{Action, Phase, ReaderPhase, State, WRITERS};
use super::{Rule, Scenario};

impl State {
    /// Tells what `action` does, for a trace.
    pub(super) fn describe(&self, scenario: &Scenario, action: Action) -> String {
        let claim = |e: u8| if self.store.claimed(e) { "there" } else { "absent" };
        match action {
            Action::Abandon => format!("somebody creates claim {} and vanishes", self.store.newest_claim() + 1),
            Action::Clone(w) => format!("writer {} is cloned: writer {WRITERS} wakes with its memory", w + 1),
            Action::LoseAnswer(w) => {
                format!("writer {} sends claim {} and gets no answer", w + 1, self.writers[w as usize].n)
            }
            Action::Land(w, seq) => {
                let writer = &self.writers[w as usize];
                let lsn = writer.next_lsn + seq - 1;
                format!("writer {}: PUT of log/{}/{seq} (lsn {lsn}) lands", w + 1, writer.epoch)
            }
            Action::Check(w) => {
                let next = self.writers[w as usize].epoch + 1;
                format!("writer {}: GET claim {next}: {}", w + 1, claim(next))
            }
            Action::Step(w) => {
                let writer = &self.writers[w as usize];
                let deed = match writer.phase {
                    Phase::Idle => format!("finds claim {} to be the newest", self.store.newest_claim()),
                    Phase::Claim if self.store.claimed(writer.n) && scenario.has(Rule::AtomicClaims) => {
                        format!("fails to create claim {}: another is there", writer.n)
                    }
                    Phase::Claim => format!("creates claim {}", writer.n),
                    Phase::Unclear => format!("looks whether claim {} became its own", writer.n),
                    Phase::FindPredecessor => match writer.n {
                        0 => "finds an empty domain".to_owned(),
                        n if self.store.object(n, 0).by != 0 => format!("GET log/{n}/0: there"),
                        n => format!("GET log/{n}/0: absent"),
                    },
                    Phase::Probe => match self.store.object(writer.pred, writer.tail + 1).by {
                        0 => format!("GET log/{}/{}: absent, so that epoch ends", writer.pred, writer.tail + 1),
                        _ => format!("GET log/{}/{}: there", writer.pred, writer.tail + 1),
                    },
                    Phase::PutCut => format!(
                        "PUT log/{}/0: CUT after log/{}/{}, next lsn {}",
                        writer.epoch, writer.pred, writer.tail, writer.next_lsn
                    ),
                    Phase::Recheck => format!("GET claim {}: {}", writer.epoch + 1, claim(writer.epoch + 1)),
                    Phase::Work | Phase::Stopped => unreachable!("no single next step"),
                };
                format!("writer {}: {deed}", w + 1)
            }
            Action::Read => match self.reader.phase {
                ReaderPhase::Idle => format!("reader: finds claim {} to be the newest", self.store.newest_claim()),
                ReaderPhase::FindCut => format!("reader: GET log/{}/0", self.reader.epoch),
                ReaderPhase::Tail => format!("reader: GET log/{}/{}", self.reader.epoch, self.reader.tail + 1),
                _ => format!(
                    "reader: GET claim {0}: {1}",
                    self.reader.newest_claim + 1,
                    claim(self.reader.newest_claim + 1)
                ),
            },
        }
    }
}
