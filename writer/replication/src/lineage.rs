//! Finds out whose writes the end of a bucket's log is.

use crate::core::relation::{By, Found};
use crate::error::{Error, Result};
use tidemark_bucket::ReadOnly;
use tidemark_format::{DomainId, Epoch, Expect, OBJECT_BYTES_MAX, ObjectKey, SegmentHead, Seq};
use tidemark_writer::DomainWriter;

/// A CUT with the largest table of disks that is usual fits into this many bytes; a larger one is read in full.
const CUT_BYTES_GUESS: u64 = 1 << 20;

/// What the writer found when it took the domain over. Epochs that wrote nothing are passed by: they changed nothing.
pub(crate) async fn trace(bucket: &ReadOnly, domain: DomainId, writer: &DomainWriter, own: &[Epoch]) -> Result<Found> {
    let next = writer.last_lsn().next();
    let mut tail = writer.predecessor();
    let by = loop {
        match tail {
            None => break By::Nobody,
            Some(tail) if own.contains(&tail.epoch) => break By::Us,
            Some(tail) if tail.seq > Seq::new(0) => break By::Others,
            Some(of) => tail = predecessor(bucket, domain, of.epoch).await?,
        }
    };
    Ok(Found { next, by })
}

/// What the CUT of an epoch names.
async fn predecessor(bucket: &ReadOnly, domain: DomainId, epoch: Epoch) -> Result<Option<tidemark_format::Tail>> {
    let key = ObjectKey::cut(epoch);
    let store =
        |source| Error::Bucket { what: "read the CUT of an earlier epoch", source: std::sync::Arc::new(source) };
    let bad = |source| Error::Object { key, source };
    let mut bytes = bucket.get_prefix(&key, CUT_BYTES_GUESS).await.map_err(store)?;
    if bytes.len() as u64 == CUT_BYTES_GUESS {
        bytes = bucket.get_prefix(&key, OBJECT_BYTES_MAX).await.map_err(store)?;
    }
    let head = SegmentHead::decode(&bytes, &Expect { domain, key }).map_err(bad)?;
    Ok(head.cut.and_then(|cut| cut.predecessor))
}
