//! What maintenance adds to a domain's statistics: a row for each pass that changed something, and order in the files.
//!
//! Nothing here fails a pass: statistics are advisory.

use crate::ui::Ui;
use std::time::Duration;
use tidemark_bucket::{Bucket, MeterSnapshot, Op, Recorder};
use tidemark_env::Env;
use tidemark_format::{Day, StatsTable, with_causes};
use tidemark_gc::PassReport;
use tidemark_telemetry::registry::PassMeasure;
use tidemark_telemetry::{Readings, append, pass_row, upkeep};

/// Statistics are kept for so long.
const KEEP_DAYS: u32 = 400;

/// Follows the passes of one process.
pub(crate) struct Feed {
    recorder: Recorder,
    env: Env,
    run: String,
    domain: String,
    asked: MeterSnapshot,
    began: Duration,
    /// Files were put in order on this day.
    tidied: Option<Day>,
}

impl Feed {
    /// Of passes over a bucket with the domain of this name.
    pub(crate) fn new(bucket: &Bucket, domain: &str, env: &Env) -> Self {
        let run = crate::ui::hex(&env.entropy.nonce()[..8]);
        let (asked, began) = (bucket.meter().snapshot(), env.clock.monotonic());
        Self {
            recorder: bucket.recorder(),
            env: env.clone(),
            run,
            domain: domain.to_owned(),
            asked,
            began,
            tidied: None,
        }
    }

    /// A pass begins.
    pub(crate) fn begins(&mut self) {
        self.asked = self.recorder.meter().snapshot();
        self.began = self.env.clock.monotonic();
    }

    /// A pass is done: its row is put, and once a day the files are put in order.
    pub(crate) async fn passed(&mut self, passed: &PassReport, ui: &Ui) {
        let now = self.env.clock.wall();
        if passed.roots > 0 {
            let row = pass_row(now, &self.run, &self.domain, &self.readings(passed));
            if let Err(error) = append(&self.recorder, StatsTable::GcPass, vec![row], &self.env).await {
                ui.warn(format!("the pass is not in the statistics: {}", with_causes(&error)));
            }
        }
        if self.tidied.replace(Day::of(now)) != Some(Day::of(now))
            && let Err(error) = upkeep(&self.recorder, now, KEEP_DAYS, &self.env).await
        {
            ui.warn(format!("statistics stay as they are: {}", with_causes(&error)));
        }
    }

    fn readings(&self, passed: &PassReport) -> Readings<PassMeasure> {
        use PassMeasure as M;
        let asked = self.recorder.meter().snapshot().since(&self.asked);
        let took = self.env.clock.monotonic().saturating_sub(self.began);
        let dropped = passed.dropped.iter().map(|run| run.end().get() - run.start().get() + 1).sum();
        let mut readings = Readings::new();
        readings.now(M::Duration, took.as_secs_f64());
        readings.sum(M::Segments, passed.segments).sum(M::Rows, passed.rows).sum(M::Runs, passed.runs);
        readings.sum(M::Merges, passed.merges).sum(M::MergedRows, passed.merged_rows);
        readings.sum(M::Written, passed.bytes).sum(M::Roots, passed.roots).sum(M::DroppedPoints, dropped);
        readings.sum(M::Puts, asked.total(Op::Put).requests).sum(M::Deletes, asked.total(Op::Delete).requests);
        readings.sum(M::Gets, asked.total(Op::Get).requests).sum(M::GetBytes, asked.total(Op::Get).bytes);
        readings.sum(M::Lists, asked.total(Op::List).requests);
        readings
    }
}
