//! Objects that were found damaged or wrong: said in the bucket, and then left alone by everybody.

use crate::error::{Error, Result};
use crate::maintainer::Maintainer;
use tidemark_bucket::ReadOnly;
use tidemark_format::{DomainId, ErrorKind, Expect, KeyFamily, ObjectKey, Quarantine, Root, TableRef};

/// All that is in quarantine.
///
/// # Errors
/// `Format` for a record that is damaged; store errors.
pub async fn quarantined(bucket: &ReadOnly, domain: DomainId) -> Result<Vec<Quarantine>> {
    let listed = bucket.list(KeyFamily::Volatile).await;
    let listed = listed.map_err(|source| Error::store("list what is in quarantine", source))?;
    let mut found = Vec::new();
    for key in listed.into_iter().filter_map(|(name, _)| name.parse::<ObjectKey>().ok()) {
        let ObjectKey::Quarantine { .. } = key else { continue };
        let bytes = match bucket.get(&key).await {
            Ok(bytes) => bytes,
            // Somebody has released it.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(source) => return Err(Error::store("read what is in quarantine", source)),
        };
        //= SPEC.md#quarantine
        //#
        let record = Quarantine::decode(&bytes, &Expect { domain, key });
        found.push(record.map_err(|source| Error::Format { key, source })?);
    }
    Ok(found)
}

/// Refuses to build on what is in quarantine.
pub(crate) fn refuse(root: &Root, held: &[Quarantine]) -> Result<()> {
    //= SPEC.md#quarantine
    //#
    let mut needed = root.tables.iter().map(TableRef::key).chain([root.key()]);
    match needed.find(|key| held.iter().any(|held| held.object == *key)) {
        Some(object) => Err(Error::Quarantined { root: root.key(), object }),
        None => Ok(()),
    }
}

impl Maintainer {
    /// Says of an object that it is damaged or wrong. `None` if it is not there.
    ///
    /// # Errors
    /// Store errors.
    pub async fn quarantine(&self, object: ObjectKey, why: &str) -> Result<Option<Quarantine>> {
        let bytes = match self.bucket.get(&object).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::store("read what is damaged", source)),
        };
        let (hash, len) = (Quarantine::hash_of(&bytes), bytes.len() as u64);
        let found = Quarantine { domain: self.domain, object, hash, len, why: why.to_owned() };
        let put = self.bucket.put_quarantine(&found.key(), found.encode()).await;
        put.map_err(|source| Error::store("put into quarantine", source))?;
        Ok(Some(found))
    }

    /// Puts a ledger, and a root, that say what the newest root does, in place of a ledger that is damaged. The root has to be right.
    /// False if there is none, or no epoch of its history is closed: then there is nothing to say.
    ///
    /// # Errors
    /// `Fenced` once a newer maintainer has claimed; damage of the root or what it names; store errors.
    pub async fn renew_ledger(&mut self) -> Result<bool> {
        (self.owned, self.base) = (None, None);
        self.owned().await?;
        let Some(root) = self.newest_root().await? else { return Ok(false) };
        if self.put_ledger(&root).await?.is_none() {
            return Ok(false);
        }
        self.publish(root, &mut crate::maintainer::PassReport::default()).await?;
        Ok(true)
    }
}
