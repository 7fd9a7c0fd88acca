//! `tidemark repair`: makes what is derived anew, and says what of the truth is lost.

use crate::args::BucketArgs;
use crate::commands::verify::{DamageReport, damage_report, disk_names};
use crate::context::{interrupted, open_bucket};
use crate::failure::{Outcome, Refused};
use crate::ui::Ui;
use clap::Args;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use tidemark_bucket::Bucket;
use tidemark_env::Env;
use tidemark_format::{DiskId, ErrorKind, Lsn, ObjectKey};
use tidemark_gc::{From, Maintainer, MaintenanceOptions};
use tidemark_reader::{Damage, Domain, ReaderOptions, VerifyReport, verify};

/// Ranges whose points are looked for.
const RANGES_MAX: usize = 1024;

/// Make what is derived anew, and say which points damage has spoiled
///
/// Checks the bucket as `tidemark verify` does. What is damaged, or wrong, goes into quarantine: it stays as it is, and nobody deletes it
/// or builds on it. A damaged ledger is made anew from the index, a damaged index from the log and the ledger. Nothing is deleted, and no
/// segment is written: what a damaged one held is lost, and is named, with the points of each disk that it spoils.
///
/// Needs the rights of `tidemark gc run --index-only`. Stopped at any moment, the next run does it again. Exits 13 if something is lost.
#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    /// Change nothing; show what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    location: String,
    dry_run: bool,
    /// What was put into quarantine, or would be.
    quarantined: Vec<Held>,
    /// `kept`, `copied` (its root to where readers look first) or `rebuilt`; of a dry run, what would be done.
    index: Index,
    /// `kept` or `rebuilt`.
    ledger: Ledger,
    /// Why not all could be made anew, if so.
    held_back: Option<String>,
    /// What of the truth is damaged or lost. Nothing brings it back.
    damage: Vec<DamageReport>,
    /// The points that this spoils.
    spoiled: Vec<Spoiled>,
    /// Nothing is damaged, apart from what is in quarantine and not needed any more.
    intact: bool,
}

#[derive(Debug, Serialize)]
struct Held {
    object: String,
    why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Index {
    Kept,
    Copied,
    Rebuilt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Ledger {
    Kept,
    Rebuilt,
}

/// Points of a disk at which some bytes cannot be read, or may be older than they should.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Spoiled {
    /// `None`: any disk may be concerned, for nobody knows what was written.
    disk: Option<String>,
    disk_id: Option<u32>,
    offset_bytes: u64,
    len_bytes: u64,
    first_lsn: u64,
    /// `None`: up to the newest.
    last_lsn: Option<u64>,
}

/// What is to be done about damage. Pure.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// Objects, as far as they are there, and what is wrong with them.
    quarantine: BTreeMap<ObjectKey, String>,
    index: Index,
    ledger: Ledger,
}

fn plan(report: &VerifyReport) -> Plan {
    let mut plan = Plan { quarantine: BTreeMap::new(), index: Index::Kept, ledger: Ledger::Kept };
    for damage in &report.damage {
        let Ok(key) = damage.object.parse::<ObjectKey>() else { continue };
        match key {
            // Overwritten as usual by whoever they belong to.
            ObjectKey::Hint | ObjectKey::Retention | ObjectKey::Pin { .. } | ObjectKey::Quarantine { .. } => continue,
            ObjectKey::RootCopy => {
                plan.index = if plan.index == Index::Kept { Index::Copied } else { plan.index };
                continue;
            }
            ObjectKey::Ledger { .. } => plan.ledger = Ledger::Rebuilt,
            ObjectKey::Index { .. } | ObjectKey::Root { .. } => plan.index = Index::Rebuilt,
            _ => {}
        }
        plan.quarantine.entry(key).or_insert_with(|| damage.what.clone());
    }
    plan
}

pub(crate) async fn run(args: RepairArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let bucket = open_bucket(&args.bucket)?;
    let work = async {
        let found = check(&bucket, ui).await?;
        let report = if args.dry_run { proposed(&bucket, &found).await } else { mend(&bucket, found, ui).await? };
        anyhow::Ok(report)
    };
    let report = tokio::select! {
        report = work => report?,
        () = interrupted() => return Err(Refused::interrupted("stopped; run it again to go on").into()),
    };
    ui.answer(&report, in_text)?;
    Ok(if report.intact { Outcome::Done } else { Outcome::Corrupt })
}

async fn check(bucket: &Bucket, ui: &Ui) -> anyhow::Result<VerifyReport> {
    let bar = ui.bytes_bar("verify", Some(0));
    let options = ReaderOptions::default();
    Ok(verify(&bucket.read_only(), &options, |at| bar.set(at.bytes_done, at.bytes_total)).await?)
}

async fn proposed(bucket: &Bucket, found: &VerifyReport) -> Report {
    let plan = plan(found);
    let mut quarantined = Vec::new();
    for (key, why) in plan.quarantine {
        // What is missing cannot be held.
        if bucket.read_only().head(&key).await.is_ok() {
            quarantined.push(Held { object: key.to_string(), why });
        }
    }
    let (index, ledger) = (plan.index, plan.ledger);
    Report { dry_run: true, quarantined, index, ledger, ..what_is_left(bucket, found).await }
}

/// Does it. Every step leaves the bucket at least as well as before, so it can be stopped anywhere.
async fn mend(bucket: &Bucket, mut found: VerifyReport, ui: &Ui) -> anyhow::Result<Report> {
    let (mut quarantined, mut index, mut ledger) = (Vec::new(), Index::Kept, Ledger::Kept);
    let mut held_back = None;
    let mut seen = BTreeSet::new();
    if !found.is_clean() {
        let mut maintainer = Maintainer::open(bucket.appender(), MaintenanceOptions::default(), Env::system()).await?;
        loop {
            let plan = plan(&found);
            //= SPEC.md#quarantine
            //#
            for (key, why) in plan.quarantine {
                if seen.insert(key)
                    && let Some(held) = maintainer.quarantine(key, &why).await?
                {
                    quarantined.push(Held { object: held.object.to_string(), why });
                }
            }
            let done = match (plan.ledger, plan.index) {
                // First the ledger, for which the index' tables of segments have to be whole, and nothing else of it.
                (Ledger::Rebuilt, _) if ledger == Ledger::Kept => {
                    ledger = Ledger::Rebuilt;
                    maintainer.renew_ledger().await.map(|_| ())
                }
                (_, Index::Rebuilt) if index != Index::Rebuilt => {
                    index = Index::Rebuilt;
                    maintainer.pass(From::Scratch, |_| {}).await.map(|_| ())
                }
                (_, Index::Copied) if index == Index::Kept => {
                    index = Index::Copied;
                    maintainer.pass(From::NewestRoot, |_| {}).await.map(|_| ())
                }
                _ => break,
            };
            match done {
                Ok(()) => {}
                // Without the truth nothing can be made from it: what there was stays.
                Err(error) if error.kind() == ErrorKind::DataLoss => {
                    held_back = Some(format!("{:#}", anyhow::Error::from(error)));
                    break;
                }
                Err(error) => return Err(error.into()),
            }
            found = check(bucket, ui).await?;
        }
    }
    Ok(Report { quarantined, index, ledger, held_back, ..what_is_left(bucket, &found).await })
}

/// A report of what is damaged, and of nothing done.
async fn what_is_left(bucket: &Bucket, found: &VerifyReport) -> Report {
    let names = disk_names(bucket).await;
    let truth: Vec<&Damage> = found.damage.iter().filter(|damage| !damage.is_of_index()).collect();
    Report {
        location: bucket.location(),
        dry_run: false,
        quarantined: Vec::new(),
        index: Index::Kept,
        ledger: Ledger::Kept,
        held_back: None,
        damage: truth.iter().map(|damage| damage_report(damage, &names)).collect(),
        spoiled: spoiled(bucket, &truth, &names).await,
        intact: found.is_clean(),
    }
}

/// The points that lost writes spoil.
async fn spoiled(bucket: &Bucket, truth: &[&Damage], names: &BTreeMap<DiskId, String>) -> Vec<Spoiled> {
    // A domain that lost too much does not open: then every later point counts as spoiled.
    let domain = Domain::open(bucket.read_only(), ReaderOptions::default(), Env::system()).await.ok();
    let mut found = BTreeSet::new();
    for damage in truth {
        if let (true, Some((first, _))) = (damage.blocks.is_empty(), damage.lsns) {
            found.insert(Spoiled {
                disk: None,
                disk_id: None,
                offset_bytes: 0,
                len_bytes: 0,
                first_lsn: first.get(),
                last_lsn: None,
            });
        }
        for lost in damage.blocks.iter().take(RANGES_MAX) {
            let until = match &domain {
                Some(domain) => domain.shown_until(lost.disk, lost.extent, lost.last_lsn).await.ok().flatten(),
                None => None,
            };
            found.insert(Spoiled {
                disk: Some(names.get(&lost.disk).cloned().unwrap_or_else(|| format!("#{}", lost.disk))),
                disk_id: Some(lost.disk.get()),
                offset_bytes: lost.extent.byte_start(),
                len_bytes: lost.extent.byte_len(),
                first_lsn: lost.first_lsn.get(),
                last_lsn: until.map(Lsn::get),
            });
        }
    }
    found.into_iter().collect()
}

fn in_text(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("writing to a String cannot fail");
    let would = if report.dry_run { "would be " } else { "" };
    for Held { object, why } in &report.quarantined {
        line(format!("{would}quarantined  {object}: {why}"));
    }
    match report.ledger {
        Ledger::Kept => {}
        Ledger::Rebuilt => line(format!("ledger   {would}made anew from the index")),
    }
    match report.index {
        Index::Kept => {}
        Index::Copied => line(format!("index    its root {would}copied to where readers look first")),
        Index::Rebuilt => line(format!("index    {would}made anew from the log")),
    }
    if let Some(why) = &report.held_back {
        line(format!("         not done: {why}"));
    }
    for damage in &report.damage {
        line(format!("damaged  {}: {}", damage.object, damage.what));
    }
    for Spoiled { disk, offset_bytes, len_bytes, first_lsn, last_lsn, .. } in &report.spoiled {
        let until = last_lsn.map_or("the newest".to_owned(), |last| format!("lsn {last}"));
        line(match disk {
            Some(disk) => {
                format!("spoiled  {disk} bytes {offset_bytes}+{len_bytes}: points from lsn {first_lsn} to {until}")
            }
            None => format!(
                "spoiled  what was written there is unknown: points of all disks from lsn {first_lsn} to {until}"
            ),
        });
    }
    line(match (report.intact, report.damage.is_empty()) {
        (true, _) => "intact".to_owned(),
        (false, true) if report.dry_run => "DAMAGED, and nothing is lost: run it without --dry-run".to_owned(),
        (false, true) => "DAMAGED still".to_owned(),
        (false, false) => {
            format!("LOST in {} places: restore these objects from a copy, if there is one", report.damage.len())
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(of: &[(&str, &str)]) -> VerifyReport {
        let damage = |(object, what): &(&str, &str)| Damage {
            object: (*object).to_owned(),
            what: (*what).to_owned(),
            lsns: None,
            blocks: Vec::new(),
        };
        VerifyReport { damage: of.iter().map(damage).collect(), ..VerifyReport::default() }
    }

    #[test]
    fn what_is_there_and_damaged_is_quarantined_and_only_what_is_derived_is_made_anew() {
        let (table, segment) =
            ("idx/0000000000000001/0000000000000001.parquet", "log/0000000000000001/0000000000000001");
        let of = |damage: &[(&str, &str)]| {
            let plan = plan(&found(damage));
            let held = plan.quarantine.keys().map(ObjectKey::to_string).collect::<Vec<_>>();
            (held, plan.index, plan.ledger)
        };
        assert_eq!(of(&[]), (vec![], Index::Kept, Ledger::Kept));
        assert_eq!(of(&[(segment, "frame 3: x")]), (vec![segment.to_owned()], Index::Kept, Ledger::Kept));
        assert_eq!(of(&[(table, "x"), ("v/root", "y")]), (vec![table.to_owned()], Index::Rebuilt, Ledger::Kept));
        assert_eq!(of(&[("v/root", "y"), ("v/hint", "z")]), (vec![], Index::Copied, Ledger::Kept));
        let ledger = "ledger/0000000000000002";
        assert_eq!(of(&[(ledger, "y")]), (vec![ledger.to_owned()], Index::Kept, Ledger::Rebuilt));
    }
}
