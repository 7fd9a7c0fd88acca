//! What the newest root says.

use crate::core::plan::runs;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use tidemark_bucket::ReadOnly;
use tidemark_format::{DomainId, Epoch, ErrorKind, Genesis, Lsn, ObjectKey, Root, Seq, TableKind, TimeNs};
use tidemark_history::Roots;

/// Runs of one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelStatus {
    /// The level.
    pub level: u32,
    /// Its runs.
    pub runs: u64,
    /// Their tables.
    pub tables: u64,
    /// Their versions of blocks.
    pub rows: u64,
    /// Bytes of their tables.
    pub bytes: u64,
}

/// The index at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexStatus {
    /// Maintenance epoch of the root.
    pub epoch: Epoch,
    /// Its number in that epoch.
    pub seq: Seq,
    /// The index covers LSNs up to this one.
    pub through: Lsn,
    /// When that happened.
    pub time: TimeNs,
    /// Log segments that it covers.
    pub segments: u64,
    /// By level, the lowest first.
    pub levels: Vec<LevelStatus>,
    /// The images.
    pub images: ImagesStatus,
}

/// All images of an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImagesStatus {
    /// Their tables: each is the image of a region.
    pub tables: u64,
    /// Their versions of blocks.
    pub rows: u64,
    /// Bytes of their tables.
    pub bytes: u64,
}

impl IndexStatus {
    pub(crate) fn of(root: &Root) -> Self {
        let mut levels: BTreeMap<u32, LevelStatus> = BTreeMap::new();
        for run in runs(root) {
            levels.entry(run.level).or_default().runs += 1;
        }
        let mut images = ImagesStatus::default();
        for table in &root.tables {
            if table.kind == TableKind::Images {
                images.tables += 1;
                images.rows += table.rows;
                images.bytes += table.len;
                continue;
            }
            let level = levels.entry(table.level).or_default();
            level.level = table.level;
            level.tables += 1;
            level.bytes += table.len;
            level.rows += if table.kind == TableKind::Rows { table.rows } else { 0 };
        }
        Self {
            epoch: root.epoch,
            seq: root.seq,
            through: root.through.lsn,
            time: root.through.time,
            segments: root.tables_of(TableKind::Segments).map(|table| table.rows).sum(),
            levels: levels.into_values().collect(),
            images,
        }
    }
}

/// What the newest root of the domain in `bucket` says; `None` if there is no index.
///
/// # Errors
/// `NoDomain`, `Format` for a damaged genesis or root; store errors.
pub async fn status(bucket: &ReadOnly) -> Result<Option<IndexStatus>> {
    let genesis = genesis(bucket).await?;
    Ok(newest_root(bucket, genesis.domain).await?.as_ref().map(IndexStatus::of))
}

pub(crate) async fn newest_root(bucket: &ReadOnly, domain: DomainId) -> Result<Option<Root>> {
    let roots = Roots::new(bucket.clone(), domain);
    let copy = roots.copy().await;
    Ok(roots.newest(copy.as_ref()).await?)
}

pub(crate) async fn genesis(bucket: &ReadOnly) -> Result<Genesis> {
    let key = ObjectKey::Genesis;
    let bytes = bucket.get(&key).await.map_err(|source| match source.kind() {
        ErrorKind::NotFound => Error::NoDomain { location: bucket.location() },
        _ => Error::store("read tidemark.json", source),
    })?;
    let genesis = Genesis::decode(&bytes).map_err(|source| Error::Format { key, source })?;
    match genesis.features.gc {
        0 => Ok(genesis),
        bits => Err(Error::Features { bits }),
    }
}
