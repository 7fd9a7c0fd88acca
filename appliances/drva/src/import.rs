//! Seeding on request: from the primary, from an image that was brought here, or from a disk of another domain.
//!
//! A seed from elsewhere is what the disk held once: its base objects are followed by a comparison with the primary, and
//! only then the disk is restorable.

use crate::control::Answer;
use crate::disk::{Disk, SeedFrom};
use crate::volume::primary::Primary;
use std::path::Path;
use std::sync::Arc;
use tidemark_api::{Problem, ProblemKind, SeedRequest, SeedSource};
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl};
use tidemark_format::with_causes;
use tidemark_io_filter::Volume;
use tidemark_reader::{Domain, PointSpec, ReaderOptions};

pub(crate) async fn begin(disk: &Arc<Disk>, request: SeedRequest) -> Answer<()> {
    if disk.volume.primary.is_none() {
        return Err(Problem::conflict(format!("{} has no primary: its tap seeds it", disk.address)));
    }
    let from = match request.source {
        SeedSource::Primary => SeedFrom::Primary,
        SeedSource::Image { path } => {
            let opening = path.clone();
            let opened = crate::volume::blocking(move || Primary::open(Path::new(&opening))).await;
            let image = opened.map_err(|e| Problem::new(ProblemKind::NotFound, format!("cannot open {path}: {e}")))?;
            SeedFrom::Image(Arc::new(image))
        }
        SeedSource::Domain { url, vm, disk: name, point } => {
            let failed = |kind, detail: String| Problem::new(kind, format!("cannot seed from {url}: {detail}"));
            let parsed: BucketUrl =
                url.parse().map_err(|e: tidemark_bucket::Error| failed(e.kind().into(), with_causes(&e)))?;
            let bucket = Bucket::open(&parsed, &BucketOptions::default())
                .map_err(|e| failed(e.kind().into(), with_causes(&e)))?;
            let env = disk.env.clone();
            let point: PointSpec =
                point.parse().map_err(|e: tidemark_reader::Error| failed(e.kind().into(), with_causes(&e)))?;
            let open = Domain::open(bucket.read_only(), ReaderOptions::default(), env.clone()).await;
            let domain = open.map_err(|e| failed(e.kind().into(), with_causes(&e)))?;
            let timeline = domain.timeline();
            let at = timeline
                .resolve(&point, env.clock.wall())
                .await
                .map_err(|e| failed(e.kind().into(), with_causes(&e)))?;
            let found = timeline.find_disk(&vm, &name, at.lsn);
            let found =
                found.ok_or_else(|| failed(ProblemKind::NotFound, format!("no disk {vm}/{name} at lsn {}", at.lsn)))?;
            let image = domain.disk(found.id, at.lsn).await.map_err(|e| failed(e.kind().into(), with_causes(&e)))?;
            SeedFrom::Point(image)
        }
    };
    let needs = disk.volume.geometry().size_bytes;
    let has = from.size_bytes().map_err(|e| Problem::new(ProblemKind::Unavailable, e.to_string()))?;
    if has.is_some_and(|has| has < needs) {
        let detail = format!("the source has {} bytes, {} has {needs}", has.unwrap_or_default(), disk.address);
        return Err(Problem::conflict(detail).hint("a seed covers the whole disk"));
    }
    disk.seed_from(from).map_err(Problem::conflict)
}
