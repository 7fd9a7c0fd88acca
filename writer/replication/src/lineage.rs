//! Finds out whose writes the end of a bucket's log is, and who has claimed it since.

use crate::core::relation::{By, Found};
use crate::error::{Error, Result};
use std::sync::Arc;
use tidemark_bucket::ReadOnly;
use tidemark_format::{
    Claim, Cut, DomainId, Epoch, ErrorKind, Expect, Lsn, OBJECT_BYTES_MAX, ObjectKey, SegmentHead, Seq,
};
use tidemark_writer::DomainWriter;

/// A CUT with the largest table of disks that is usual fits into this many bytes; a larger one is read in full.
const CUT_BYTES_GUESS: u64 = 1 << 20;
/// Epochs of others that are looked through for where they began. Behind more, all may be theirs.
const OTHERS_MAX: usize = 256;

/// The claim of somebody else that came after the last epoch of `own`, if there is one. Claims of our own name that are not in
/// `own` count as ours: we may have died before we wrote them down.
pub(crate) async fn successor(
    bucket: &ReadOnly,
    domain: DomainId,
    owner: &str,
    own: &[Epoch],
) -> Result<Option<Claim>> {
    let Some(mut epoch) = own.last().copied() else { return Ok(None) };
    loop {
        epoch = epoch.next();
        let key = ObjectKey::writer_claim(epoch);
        let bytes = match bucket.get(&key).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(Error::Bucket { what: "look for a newer claim", source: Arc::new(source) });
            }
        };
        let claim = Claim::decode(&bytes, &Expect { domain, key }).map_err(|source| Error::Object { key, source })?;
        if claim.owner != owner {
            return Ok(Some(claim));
        }
    }
}

/// What the writer found when it took the domain over. Epochs that wrote nothing are passed by: they changed nothing.
pub(crate) async fn trace(bucket: &ReadOnly, domain: DomainId, writer: &DomainWriter, own: &[Epoch]) -> Result<Found> {
    let next = writer.last_lsn().next();
    let mut tail = writer.predecessor();
    let (mut theirs, mut looked) = (None, 0);
    let by = loop {
        let others = By::Others { from: theirs.unwrap_or(Lsn::new(1)) };
        match tail {
            None if theirs.is_none() => break By::Nobody,
            None => break By::Others { from: Lsn::new(1) },
            Some(tail) if own.contains(&tail.epoch) => break if theirs.is_none() { By::Us } else { others },
            Some(_) if looked == OTHERS_MAX => break By::Others { from: Lsn::new(1) },
            Some(of) => {
                let Some(cut) = cut(bucket, domain, of.epoch).await? else { break By::Others { from: Lsn::new(1) } };
                if of.seq > Seq::new(0) {
                    theirs = Some(cut.next_lsn);
                    looked += 1;
                }
                tail = cut.predecessor;
            }
        }
    };
    Ok(Found { next, by })
}

/// The CUT of an epoch.
async fn cut(bucket: &ReadOnly, domain: DomainId, epoch: Epoch) -> Result<Option<Cut>> {
    let key = ObjectKey::cut(epoch);
    let store = |source| Error::Bucket { what: "read the CUT of an earlier epoch", source: Arc::new(source) };
    let bad = |source| Error::Object { key, source };
    let mut bytes = bucket.get_prefix(&key, CUT_BYTES_GUESS).await.map_err(store)?;
    if bytes.len() as u64 == CUT_BYTES_GUESS {
        bytes = bucket.get_prefix(&key, OBJECT_BYTES_MAX).await.map_err(store)?;
    }
    let head = SegmentHead::decode(&bytes, &Expect { domain, key }).map_err(bad)?;
    Ok(head.cut)
}
