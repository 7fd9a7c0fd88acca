//! What a recovery leaves in the domain's statistics: a row with its times.
//!
//! Nothing here fails a recovery: statistics are advisory, and whoever recovers may have no right to write.

use crate::args::UrlText;
use crate::context::open_bucket_at;
use crate::ui::Ui;
use tidemark_env::Env;
use tidemark_format::{StatsTable, TimeNs};
use tidemark_rocva::{Record, Report};
use tidemark_telemetry::registry::RecoveryMeasure;
use tidemark_telemetry::{Readings, Recovered, append, recovery_row};

/// Puts how far a recovery came. Rows of one recovery have the same run, and the last of them has the last word.
pub(super) async fn put(report: &Report, record: &Record, ui: &Ui) {
    if let Err(error) = try_put(report, record).await {
        ui.say(format_args!("this recovery is not in the domain's statistics: {error:#}"));
    }
}

async fn try_put(report: &Report, record: &Record) -> anyhow::Result<()> {
    let steps = serde_json::to_string(&report.steps)?;
    let recovered = Recovered {
        began: TimeNs::new(record.began_ns),
        domain: &report.domain,
        mode: &report.mode,
        phase: &report.phase,
        lsn: report.lsn,
        reverted_for: report.reverted_for.as_deref(),
        steps: &steps,
    };
    let row = recovery_row(&recovered, &readings(report));
    let bucket = open_bucket_at(&UrlText::from(report.url.clone()))?;
    Ok(append(&bucket.recorder(), StatsTable::RecoveryRun, vec![row], &Env::system()).await?)
}

fn readings(report: &Report) -> Readings<RecoveryMeasure> {
    use RecoveryMeasure as M;
    let mut readings = Readings::new();
    let ready = report.vms.iter().filter(|vm| vm.ready).count();
    readings.sum(M::Vms, report.vms.len() as u64).sum(M::ReadyVms, ready as u64);
    readings.sum(M::Steps, report.steps.len() as u64).sum(M::FailedSteps, report.failures);
    readings.sum(M::Disks, report.vms.iter().map(|vm| vm.disk_bytes).sum());
    report.rto_ms.map(|rto_ms| readings.now(M::Rto, rto_ms as f64 / 1e3));
    readings
}
