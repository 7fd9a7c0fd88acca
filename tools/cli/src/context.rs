//! Opening what a command works on, the same way for all of them.

use crate::args::{BucketArgs, DiskName, DiskRef, UrlText};
use crate::failure::Refused;
use anyhow::Context;
use std::collections::BTreeMap;
use tidemark_bucket::{Bucket, BucketOptions};
use tidemark_env::Env;
use tidemark_format::{DiskId, Lsn};
use tidemark_reader::{DiskAt, Domain, Point, PointSpec, ReaderOptions};

/// Names faults to inject into the bucket, for crash tests. See docs/testing.md.
const FAULTS_VARIABLE: &str = "TIDEMARK_FAULTS";

/// The bucket of a command. Sends no request.
pub(crate) fn open_bucket(args: &BucketArgs) -> anyhow::Result<Bucket> {
    open_bucket_at(&args.url)
}

/// The bucket of a command that can do without. Sends no request.
pub(crate) fn open_bucket_at(url: &UrlText) -> anyhow::Result<Bucket> {
    let bucket = Bucket::open(&url.parse()?, &BucketOptions::default())?;
    match std::env::var(FAULTS_VARIABLE) {
        Ok(faults) if !faults.is_empty() => {
            let faults = faults.parse().with_context(|| format!("environment variable {FAULTS_VARIABLE}"))?;
            Ok(bucket.with_faults(faults))
        }
        _ => Ok(bucket),
    }
}

/// A domain to be read.
pub(crate) async fn open_domain(bucket: &Bucket, options: ReaderOptions) -> anyhow::Result<Domain> {
    Ok(Domain::open(bucket.read_only(), options, Env::system()).await?)
}

/// The point that a person meant.
pub(crate) async fn resolve(domain: &Domain, spec: &PointSpec) -> anyhow::Result<Point> {
    let now = Env::system().clock.wall();
    Ok(domain.timeline().resolve(spec, now).await?)
}

/// The disk that a person meant, as it is at a point.
pub(crate) fn disk_at(domain: &Domain, disk: &DiskRef, at: Lsn) -> anyhow::Result<DiskAt> {
    let timeline = domain.timeline();
    let disks = timeline.disks_at(at);
    let names = || disks.iter().map(|disk| format!("{}/{}", disk.vm, disk.name)).collect::<Vec<_>>().join(", ");
    let found = disks.iter().rfind(|candidate| match disk {
        DiskRef::Id(id) => candidate.id == *id,
        DiskRef::Name(DiskName { vm, disk }) => (&candidate.vm, &candidate.name) == (vm, disk),
    });
    found.cloned().ok_or_else(|| {
        let hint = if disks.is_empty() {
            "there is no disk at that point".to_owned()
        } else {
            format!("there are {}", names())
        };
        Refused::new(format!("no disk {disk} at lsn {at}")).hint(hint).into()
    })
}

/// The disk that a person meant, also if it has left the domain since; of equal names the newest. With its name.
pub(crate) fn any_disk(domain: &Domain, disk: &DiskRef) -> anyhow::Result<(DiskId, String)> {
    let disks = domain.timeline().all_disks();
    let names: BTreeMap<_, _> = disks.into_iter().map(|disk| (disk.id, format!("{}/{}", disk.vm, disk.name))).collect();
    let found = names.iter().rfind(|(id, name)| match disk {
        DiskRef::Id(wanted) => *id == wanted,
        DiskRef::Name(wanted) => **name == wanted.to_string(),
    });
    found.map(|(id, name)| (*id, name.clone())).ok_or_else(|| {
        let all = names.values().map(String::as_str).collect::<Vec<_>>().join(", ");
        let hint = if all.is_empty() { "the domain has no disk".to_owned() } else { format!("there are {all}") };
        Refused::new(format!("no disk {disk} in the domain")).hint(hint).into()
    })
}

/// Waits for SIGINT or SIGTERM. From the first wait on neither ends the process by itself.
pub(crate) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
        // Without handlers the signals end the process, as they do by default.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
}
