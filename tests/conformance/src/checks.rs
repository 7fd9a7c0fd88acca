//! The promises, one check each. A check gets an empty bucket and says what it saw that it should not have seen.

mod creates;
mod lists;
mod reads;
mod rights;
mod writes;

use futures::StreamExt;
use futures::future::BoxFuture;
use std::fmt;
use tidemark_bucket::Bucket;
use tidemark_env::SeededEntropy;
use tidemark_format::{Epoch, ErrorKind, ObjectKey, Seq, with_causes};

/// A promise by name, and how to try it.
#[derive(Clone, Copy)]
pub struct Check {
    /// What holds if it passes.
    pub name: &'static str,
    run: fn(Bucket) -> BoxFuture<'static, Outcome>,
}

/// What a check found.
type Outcome = Result<(), Wrong>;

/// What was seen.
#[derive(Debug)]
struct Wrong(String);

/// A promise that a store does not keep.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Name of the check.
    pub check: &'static str,
    /// What was seen.
    pub why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.why)
    }
}

impl From<tidemark_bucket::Error> for Wrong {
    fn from(error: tidemark_bucket::Error) -> Self {
        Self(with_causes(&error))
    }
}

/// Checks under way at the same time: some stores make the losers of a race wait for seconds.
const CHECKS_IN_FLIGHT: usize = 6;

/// Tries every promise, each on a bucket of its own: `fresh` is given the check's number and returns an empty one.
pub async fn suite(mut fresh: impl FnMut(usize) -> Bucket) -> Vec<Broken> {
    let tried = CHECKS.iter().enumerate().map(|(number, check)| {
        let bucket = fresh(number);
        async move {
            // A task of its own, so that a panic is one broken promise and not the end of the suite.
            match tokio::spawn((check.run)(bucket)).await {
                Ok(Ok(())) => None,
                Ok(Err(Wrong(why))) => Some(Broken { check: check.name, why }),
                Err(error) => Some(Broken { check: check.name, why: error.to_string() }),
            }
        }
    });
    futures::stream::iter(tried).buffered(CHECKS_IN_FLIGHT).filter_map(std::future::ready).collect().await
}

macro_rules! checks {
    ($($module:ident: $($name:ident),+;)+) => {
        /// Every check, in the order in which they run.
        pub const CHECKS: &[Check] = &[$($(
            Check { name: stringify!($name), run: |bucket| Box::pin($module::$name(bucket)) },
        )+)+];
    };
}

checks! {
    reads: an_object_reads_back_as_written, an_empty_object_reads_back_empty, a_segment_in_pieces_reads_back_joined,
        a_prefix_ends_with_the_object, a_range_is_exact, a_range_beyond_the_end_is_data_loss, an_empty_range_is_empty,
        concurrent_ranges_agree_with_the_whole, head_tells_the_length, an_absent_object_is_not_found,
        an_error_names_key_and_place;
    creates: create_makes_an_absent_object, create_leaves_an_existing_object_alone, create_sees_what_put_wrote,
        racing_creates_have_one_winner, racing_creates_through_clones_have_one_winner,
        an_object_is_found_after_it_was_looked_for_in_vain, attach_finds_a_store_that_fences,
        an_object_is_never_seen_in_part;
    writes: put_again_with_the_same_bytes_is_fine, put_with_other_bytes_is_a_collision, put_with_another_end_is_a_collision,
        racing_puts_of_one_segment_all_succeed, the_hint_is_overwritten, the_hint_is_never_torn,
        many_objects_at_once_are_all_stored, keys_next_to_each_other_do_not_mix;
    lists: a_list_is_complete_and_sorted, a_list_of_nothing_is_empty, a_list_keeps_families_apart,
        a_list_goes_beyond_one_page, a_deleted_object_is_gone, deleting_what_is_absent_is_fine;
    rights: claims_and_genesis_are_never_deleted, an_appender_writes_each_family_its_own_way, a_pinner_writes_below_v_only,
        a_recorder_writes_and_deletes_statistics_only,
        the_meter_counts_each_request_once;
}

/// Fails the check unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::checks::Wrong(format!($($message)+)));
        }
    };
}
use ensure;

/// A log segment's key.
fn log(seq: u64) -> ObjectKey {
    ObjectKey::Log { epoch: Epoch::new(1), seq: Seq::new(seq) }
}

/// A claim's key.
fn claim(epoch: u64) -> ObjectKey {
    ObjectKey::writer_claim(Epoch::new(epoch))
}

/// `len` bytes that differ from those of any other seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    use tidemark_env::Entropy;
    let mut bytes = vec![0; len];
    SeededEntropy::new(seed).fill(&mut bytes);
    bytes
}

/// Fails the check unless the result is an error of this kind.
fn fails<T>(result: tidemark_bucket::Result<T>, kind: ErrorKind, what: &str) -> Outcome {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => Err(Wrong(format!("{what}: wanted {kind:?}, got {:?}: {}", error.kind(), Wrong::from(error).0))),
        Ok(_) => Err(Wrong(format!("{what}: it succeeds"))),
    }
}
