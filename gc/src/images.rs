//! Writes images: of each block of a region the version that is the newest at the end of a run.
//!
//! Memory: one row group of each run that lies behind the region's last image, what the sweep keeps, and the table that is made.

use crate::core::images::{Region, Regions};
use crate::core::plan::runs;
use crate::error::Result;
use crate::maintainer::Maintainer;
use crate::output::{Image, Output};
use crate::sweeping::Sweeping;
use std::sync::Arc;
use tidemark_format::{Lsn, Mark, Retained, Root, TableKind, TableRef};
use tidemark_history::{Only, Rows, Tables};

impl Maintainer {
    /// Writes the images that are due as of `at`, where a run of `root` ends, and names them. `regions` have counted the rows of
    /// that run. Says how many rows it wrote.
    pub(crate) async fn add_images(&mut self, root: &mut Root, regions: Regions, at: Mark) -> Result<u64> {
        let (due, waiting) = regions.divide(self.options.image_rows_min);
        let mut written = 0;
        let mut made = Vec::new();
        let tables = Arc::clone(&self.tables);
        for region in &due {
            let rows_max = self.options.table_rows_max;
            let images = image_of(&tables, root, region, at, rows_max, self.owned().await?.output()).await?;
            written += images.iter().map(|image| image.rows).sum::<u64>();
            made.extend(images);
        }
        for table in root.tables.iter_mut().filter(|table| table.kind == TableKind::Images) {
            if let Some(region) = waiting.iter().find(|region| region.image.is_some_and(|i| i.key() == table.key())) {
                table.rows_since = region.rows_since;
            }
        }
        root.tables.extend(made);
        Ok(written)
    }
}

/// Puts the image of a region as of `at`.
async fn image_of(
    tables: &Tables,
    root: &Root,
    region: &Region,
    at: Mark,
    rows_max: u64,
    out: &mut Output,
) -> Result<Vec<TableRef>> {
    let since = region.image.map_or(Lsn::ZERO, |image| image.last_lsn);
    let only = Only { disk: region.disk, extent: region.extent, behind: since, through: at.lsn };
    let wanted = runs(root).into_iter().filter(|run| since < run.last && run.first <= at.lsn);
    let sources = wanted.map(|run| Rows::part(tables, run.tables(root, TableKind::Rows).copied(), only));
    let sources = sources.chain(region.image.map(|image| Rows::tables(tables, [image])));
    // Of all versions up to the one retained point, it needs the newest.
    let retained = Retained { horizon: at, kept: Vec::new() };
    let mut newest = Sweeping::begin(sources.collect(), &retained, &[]).await?;
    let mut image = Image::new(region.extent, at.lsn, rows_max);
    while let Some(needed) = newest.next().await? {
        // A row group may hold other disks, too.
        if needed.placed.row.disk == region.disk {
            image.push(needed.placed, out).await?;
        }
    }
    image.finish(out).await
}
