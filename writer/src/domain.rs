//! The genesis object: making a domain, and finding out which one a bucket holds.

use crate::core::disks::check_name;
use crate::error::{Error, Result};
use tidemark_bucket::{Appender, Created, ReadOnly};
use tidemark_env::Env;
use tidemark_format::{DomainId, ErrorKind, Features, Genesis, ObjectKey};

/// Write feature bits that this writer understands: none are defined in minor version 0.
const KNOWN_WRITE_FEATURES: u64 = 0;

/// Makes a domain in a bucket that holds none.
///
/// # Errors
/// `DomainExists` if there is one, and those of the store.
pub async fn create_domain(bucket: &Appender, name: &str, env: &Env) -> Result<Genesis> {
    check_name("name of the domain", name)?;
    let mut id = env.entropy.nonce();
    // A UUID of version 4, variant 1 (RFC 9562).
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    let genesis = Genesis {
        domain: DomainId::new(id),
        name: name.to_owned(),
        created: env.clock.wall(),
        features: Features::default(),
    };
    //= SPEC.md#genesis
    //# G-2
    match bucket.create(&ObjectKey::Genesis, genesis.encode()).await {
        Ok(Created::New) => Ok(genesis),
        Ok(Created::Exists) => {
            let there = open_domain(bucket).await?;
            Err(Error::DomainExists { location: bucket.location(), domain: there.domain })
        }
        Err(e) => Err(Error::store("create the domain", e)),
    }
}

/// Reads what domain a bucket holds.
///
/// # Errors
/// `NoDomain` if there is none, `Format` for a genesis that cannot be read, and those of the store.
pub async fn open_domain(bucket: &ReadOnly) -> Result<Genesis> {
    let key = ObjectKey::Genesis;
    let bytes = match bucket.get(&key).await {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(Error::NoDomain { location: bucket.location() }),
        Err(e) => return Err(Error::store("read the domain's genesis", e)),
    };
    Genesis::decode(&bytes).map_err(|source| Error::Format { key, source })
}

/// Refuses to write to a domain that needs more than this writer knows.
pub(crate) fn check_writable(genesis: &Genesis) -> Result<()> {
    match genesis.features.write & !KNOWN_WRITE_FEATURES {
        //= SPEC.md#versions
        //# V-4
        0 => Ok(()),
        bits => Err(Error::WriteFeatures { bits }),
    }
}
