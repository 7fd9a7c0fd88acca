//! Owning an epoch of role m: a claim that nobody can take back, and a look whether a newer one exists.

use crate::error::{Error, Result};
use tidemark_bucket::{Appender, Created};
use tidemark_env::Env;
use tidemark_format::{Claim, ClaimMode, DomainId, Epoch, ErrorKind, Expect, ObjectKey, Role};
use tidemark_history::Roots;

/// Attempts on one number whose outcome stayed unclear.
const UNCLEAR_MAX: u32 = 3;

/// Claims the epoch behind the newest.
pub(crate) async fn claim(bucket: &Appender, domain: DomainId, owner: &str, env: &Env) -> Result<Epoch> {
    let failed = |source| Error::store("claim maintenance of the domain", source);
    let roots = Roots::new(bucket.read_only().clone(), domain);
    let known = roots.copy().await.map_or(Epoch::new(0), |root| root.epoch);
    let mut epoch = roots.newest_claim(known).await?.next();
    let mut nonce = [0; 16];
    env.entropy.fill(&mut nonce);
    let mut unclear = 0;
    loop {
        let claim = Claim {
            domain,
            role: Role::Maintenance,
            epoch,
            nonce,
            mode: ClaimMode::Cas,
            owner: owner.to_owned(),
            time: env.clock.wall(),
        };
        //= SPEC.md#roots
        //# RT-1
        match bucket.create(&claim.key(), claim.encode()).await {
            Ok(Created::New) => return Ok(epoch),
            Ok(Created::Exists) => epoch = epoch.next(),
            Err(error) if error.kind() == ErrorKind::Retry && unclear < UNCLEAR_MAX => {
                unclear += 1;
                match bucket.get(&claim.key()).await {
                    Ok(bytes) => {
                        let expect = Expect { domain, key: claim.key() };
                        // A claim that cannot be read is burnt, whoever's it is.
                        if Claim::decode(&bytes, &expect).is_ok_and(|found| found.nonce == nonce) {
                            return Ok(epoch);
                        }
                        epoch = epoch.next();
                    }
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Refuses to go on if a newer maintainer has claimed.
pub(crate) async fn check(bucket: &Appender, epoch: Epoch) -> Result<()> {
    match bucket.get(&ObjectKey::maintenance_claim(epoch.next())).await {
        Ok(_) => Err(Error::Fenced { epoch }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::store("look for a newer maintainer", error)),
    }
}
