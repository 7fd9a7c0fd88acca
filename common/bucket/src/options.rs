//! Limits and patience of a bucket.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tidemark_env::{Entropy, SystemEntropy};

/// How a bucket is used: how much at once, and for how long before giving up.
#[derive(Clone)]
pub struct BucketOptions {
    /// Requests under way at the same time; more wait.
    pub requests_in_flight_max: u32,
    /// Body bytes under way at the same time; more wait. A body beyond the limit goes alone.
    pub bytes_in_flight_max: u64,
    /// Time for one operation with all its attempts and its waiting, beside that for sending its body once; then it fails with
    /// an error of kind `Retry`.
    pub give_up_after: Duration,
    /// Time for one attempt without a body.
    pub attempt_timeout: Duration,
    /// Slowest acceptable transfer; a body adds its length divided by this to the attempt's time.
    pub bytes_per_second_min: u64,
    /// Attempts for one operation.
    pub attempts_max: u32,
    /// Wait after the first failed attempt; doubled each time, and shortened at random by up to a half.
    pub backoff_first: Duration,
    /// Longest wait between two attempts.
    pub backoff_max: Duration,
    /// Credentials for `s3://` in place of those of the environment or the profile.
    pub s3_key: Option<S3Key>,
    /// Chance, for waits and for names of temporary files.
    pub entropy: Arc<dyn Entropy>,
}

/// An access key of S3, for programs that embed us and keep their secrets elsewhere than in the environment.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Key {
    /// Its name.
    pub id: String,
    /// Its secret.
    pub secret: String,
}

impl fmt::Debug for S3Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Key({}, ***)", self.id)
    }
}

impl Default for BucketOptions {
    fn default() -> Self {
        Self {
            requests_in_flight_max: 64,
            bytes_in_flight_max: 256 << 20,
            give_up_after: Duration::from_secs(60),
            attempt_timeout: Duration::from_secs(15),
            bytes_per_second_min: 1 << 20,
            attempts_max: 12,
            backoff_first: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            s3_key: None,
            entropy: Arc::new(SystemEntropy),
        }
    }
}

impl fmt::Debug for BucketOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketOptions")
            .field("requests_in_flight_max", &self.requests_in_flight_max)
            .field("bytes_in_flight_max", &self.bytes_in_flight_max)
            .field("give_up_after", &self.give_up_after)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("bytes_per_second_min", &self.bytes_per_second_min)
            .field("attempts_max", &self.attempts_max)
            .field("backoff_first", &self.backoff_first)
            .field("backoff_max", &self.backoff_max)
            .field("s3_key", &self.s3_key)
            .finish_non_exhaustive()
    }
}
