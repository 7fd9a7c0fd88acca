//! Which bucket a domain is in, and making one.

use crate::args::{self, Sized_};
use crate::error::{Code, Failure, call};
use crate::threads::{Threads, check_may_wait};
use std::ffi::c_char;
use tidemark_bucket::{Attestation, Bucket, BucketOptions, S3Key, attach_probe};
use tidemark_env::Env;
use tidemark_writer::create_domain;

/// The store is probed whenever a writer attaches to it; one that does not fence is refused.
pub const TIDEMARK_PROBE: u32 = 0;
/// The caller vouches that there is only ever one writer, whatever the store does.
pub const TIDEMARK_ATTESTED: u32 = 1;

/// Where a domain is. Set size to sizeof(tidemark_store) and what is not needed to zero. Only read during the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Store {
    /// sizeof(tidemark_store).
    pub size: usize,
    /// A directory, or a URL as on the command line: file:///DIR, s3://BUCKET/PREFIX?endpoint=URL&region=R, ...
    pub url: *const c_char,
    /// For s3://, the access key; NULL: the environment (AWS_*) or the AWS profile says it.
    pub s3_key_id: *const c_char,
    /// Its secret; required where s3_key_id is given.
    pub s3_secret: *const c_char,
}

// SAFETY: it is repr(C), begins with its size, and null pointers are values.
unsafe impl Sized_ for Store {
    const NAME: &str = "tidemark_store";
}

/// The bucket of a store. Sends no request.
///
/// # Safety
/// `store` is null or a `Store` of the size that it says, its texts null or valid.
pub(crate) unsafe fn open_bucket(store: *const Store) -> Result<Bucket, Failure> {
    // SAFETY: the caller vouches for all of it.
    let (url, id, secret) = unsafe {
        let store = args::sized(store)?.ok_or_else(|| Failure::request("store is NULL"))?;
        let url = args::text("store.url", store.url)?;
        let id = args::text_or_null("store.s3_key_id", store.s3_key_id)?;
        (url, id, args::text_or_null("store.s3_secret", store.s3_secret)?)
    };
    let s3_key = match (id, secret) {
        (None, None) => None,
        (Some(id), Some(secret)) => Some(S3Key { id: id.to_owned(), secret: secret.to_owned() }),
        _ => return Err(Failure::request("store has one of s3_key_id and s3_secret, both are needed")),
    };
    Ok(Bucket::open(&url.parse()?, &BucketOptions { s3_key, ..BucketOptions::default() })?)
}

/// What the caller vouches for.
pub(crate) fn attestation(attach: u32) -> Result<Attestation, Failure> {
    match attach {
        TIDEMARK_PROBE => Ok(Attestation::None),
        TIDEMARK_ATTESTED => Ok(Attestation::SingleWriterAttested),
        other => {
            Err(Failure::request(format!("attach is {other}, only TIDEMARK_PROBE and TIDEMARK_ATTESTED are known")))
        }
    }
}

/// Makes a domain in a bucket, or below a prefix, that holds none; a directory has to be there. Tests first whether the store
/// keeps the promises that a domain's safety rests on; attach is TIDEMARK_PROBE or TIDEMARK_ATTESTED. Waits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidemark_domain_create(
    store: *const Store,
    name: *const c_char,
    attach: u32,
    error: *mut *mut Failure,
) -> Code {
    let body = || {
        check_may_wait("tidemark_domain_create")?;
        // SAFETY: the caller vouches for them.
        let (bucket, name) = unsafe { (open_bucket(store)?.appender(), args::text("name", name)?.to_owned()) };
        let attested = attestation(attach)?;
        Threads::start("tidemark-create", 1)?.run(async move {
            let env = Env::system();
            attach_probe(&bucket, &*env.entropy, attested).await?;
            create_domain(&bucket, &name, &env).await?;
            Ok(())
        })
    };
    // SAFETY: the caller vouches for `error`.
    unsafe { call(error, body) }
}
