//! Holds images against the rows that they stand for: at the first offered point that goes by an image, the disk has to look by the
//! image and the rows behind it as it looks without. What the disk has lost by then counts for neither: tables may lack such rows (IX-5).
//!
//! In place of the oldest rows an older image of the region is read, which is judged itself: so each row is read about once for each of
//! the images of its region that follow it, not for all. What is not needed at that point is needed through the image at no later one.
//! Memory: of each run a footer and a row group; two sweeps; the edges of what is not settled, as in [`super::differences`].

use super::differences::{BLOCKS_NAMED_MAX, Edges};
use super::index::Truth;
use super::print::Version;
use super::{Damage, DamagedBlocks};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use tidemark_bucket::ReadOnly;
use tidemark_extent_map::liveness::{Standing, Sweep};
use tidemark_format::{
    DiskId, DomainId, Extent, Lsn, Mark, PlacedRow, Retained, Root, SegmentKind, TableKind, TableRef, TimeNs,
};
use tidemark_history::{Merged, Only, Rows, Tables};

/// What is to be judged.
pub(super) struct Images<'a> {
    pub(super) bucket: &'a ReadOnly,
    pub(super) domain: DomainId,
    pub(super) root: &'a Root,
    pub(super) truth: &'a Truth,
}

/// What a region holds at a point by one way of reading it.
struct Side<'a> {
    rows: Merged<'a>,
    sweep: Sweep,
}

impl Images<'_> {
    /// What is wrong with the images.
    pub(super) async fn find(&self) -> Result<Vec<Damage>> {
        let tables = Tables::new(self.bucket.clone(), self.domain, 0);
        let standing = self.truth.standing();
        let mut found = Vec::new();
        for image in self.root.tables_of(TableKind::Images) {
            found.extend(self.judge(&tables, image, &standing).await?);
        }
        Ok(found)
    }

    //= SPEC.md#images
    //# IX-8
    async fn judge(&self, tables: &Tables, image: &TableRef, standing: &[Standing]) -> Result<Option<Damage>> {
        let (disk, region) = (image.bounds.low.disk, image.region);
        let at = self.root.offers().first_from(image.last_lsn);
        let older = self.root.tables_of(TableKind::Images).rfind(|older| {
            older.last_lsn < image.last_lsn
                && older.bounds.low.disk == disk
                && older.region.intersection(region) == Some(region)
        });
        let mut with = self.side(tables, (disk, region), Some(image), at, standing).await?;
        let mut without = self.side(tables, (disk, region), older, at, standing).await?;
        let mut edges = Edges::default();
        loop {
            let (side, sign) = match (with.rows.peek(), without.rows.peek()) {
                (None, None) => break,
                (Some(one), other) if other.is_none_or(|other| one <= other) => (&mut with, 1),
                _ => (&mut without, -1),
            };
            if let Some(row) = side.rows.next().await? {
                side.sweep.push(row);
            }
            self.drain(side, (disk, region), sign, &mut edges);
            if edges.are_too_many() {
                break;
            }
        }
        for (side, sign) in [(&mut with, 1), (&mut without, -1)] {
            side.sweep.finish();
            self.drain(side, (disk, region), sign, &mut edges);
        }
        let pieces = edges.pieces();
        if pieces.is_empty() {
            return Ok(None);
        }
        let block = |(version, extent, _): &(Version, Extent, i32)| DamagedBlocks {
            disk,
            extent: *extent,
            first_lsn: version.lsn,
            last_lsn: version.lsn,
        };
        let blocks = pieces.iter().map(block).take(BLOCKS_NAMED_MAX).collect();
        let what = format!("at lsn {at} it shows other versions than the rows that it stands for");
        let lsns = Some((image.first_lsn, image.last_lsn));
        Ok(Some(Damage { lsns, blocks, ..Damage::of(image.key(), what) }))
    }

    /// A region at a point, by an image and the rows behind it, or by all rows.
    async fn side<'t>(
        &self,
        tables: &'t Tables,
        (disk, extent): (DiskId, Extent),
        image: Option<&TableRef>,
        at: Lsn,
        standing: &[Standing],
    ) -> Result<Side<'t>> {
        let only = Only { disk, extent, behind: image.map_or(Lsn::ZERO, |image| image.last_lsn), through: at };
        let mut runs: BTreeMap<Lsn, Vec<TableRef>> = BTreeMap::new();
        for table in self.root.tables_of(TableKind::Rows) {
            if only.behind < table.last_lsn && table.first_lsn <= at {
                runs.entry(table.first_lsn).or_default().push(*table);
            }
        }
        let runs = runs.into_values().map(|run| Rows::part(tables, run, only));
        let sources = runs.chain(image.map(|image| Rows::tables(tables, [*image]))).collect();
        let point = Retained { horizon: Mark { lsn: at, time: TimeNs::default() }, kept: Vec::new() };
        Ok(Side { rows: Merged::begin(sources).await.map_err(Error::from)?, sweep: Sweep::new(&point, standing) })
    }

    fn drain(&self, side: &mut Side<'_>, (disk, region): (DiskId, Extent), sign: i32, edges: &mut Edges) {
        while let Some(needed) = side.sweep.poll() {
            let PlacedRow { row, .. } = needed.placed;
            if let Some(within) = row.extent.intersection(region).filter(|_| row.disk == disk) {
                let holder = self.truth.at(row.lsn).map(|at| self.truth.segments[at].kind());
                // Where nobody can say what holds it, its place says nothing either.
                let version = Version::of(&needed.placed, holder.unwrap_or(SegmentKind::Compact));
                edges.add(version, within, sign);
            }
        }
    }
}
