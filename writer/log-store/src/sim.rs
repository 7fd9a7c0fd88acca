//! Drives the real store over a disk that crashes, one write at a time, and compares it with a model.
//!
//! One seed decides what is appended, trimmed, noted and read on several domains, when writes fail, are cut short or
//! torn, and whether the process is killed or the power is lost. `TIDEMARK_LOG_STORE_SEEDS` sets how many seeds are run.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod damage;
mod model;

use crate::rules::{Rule, without};
use model::Sim;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Steps of one run.
const STEPS: u32 = 300;

/// The first of `seeds` that goes wrong, and what.
fn first_failure(seeds: std::ops::Range<u64>) -> Option<String> {
    seeds.into_iter().find_map(|seed| {
        let run = AssertUnwindSafe(|| Sim::new(seed).run(STEPS));
        let e = match catch_unwind(run) {
            Ok(Ok(())) => return None,
            Ok(Err(e)) => e,
            Err(panic) => match panic.downcast::<String>() {
                Ok(text) => *text,
                Err(_) => "a panic without words".to_owned(),
            },
        };
        Some(format!("seed {seed}: {e}"))
    })
}

//= LOGSTORE.md#appending
//# LA-1, LA-3, LA-4
#[test]
fn sim_what_was_acknowledged_is_there_after_every_crash() {
    let seeds = std::env::var("TIDEMARK_LOG_STORE_SEEDS").map_or(1500, |text| text.parse().unwrap());
    assert_eq!(first_failure(0..seeds), None);
}

/// Seeds that must show the harm of a rule that is not kept.
const SEEDS_WITHOUT: u64 = 400;

fn harmful_without(rule: Rule) {
    let found = without(rule, || first_failure(0..SEEDS_WITHOUT));
    assert!(found.is_some(), "{rule:?} makes no difference in {SEEDS_WITHOUT} runs");
}

//= LOGSTORE.md#recovery
//# LX-4
#[test]
fn sim_a_log_that_builds_on_what_is_not_durable_loses_it() {
    harmful_without(Rule::SyncBeforeUse);
}

//= LOGSTORE.md#appending
//# LA-2
#[test]
fn sim_a_log_that_goes_on_after_a_failed_write_overwrites_unsynced_bytes() {
    harmful_without(Rule::NothingAfterFailure);
}

//= LOGSTORE.md#table
//# LT-6, LT-8
#[test]
fn sim_a_table_in_one_copy_is_lost() {
    harmful_without(Rule::BothCopies);
}

//= LOGSTORE.md#space
//# LS-1
#[test]
fn sim_an_extent_used_before_the_table_names_it_is_lost() {
    harmful_without(Rule::KnownBeforeUse);
}

//= LOGSTORE.md#space
//# LS-2
#[test]
fn sim_an_extent_given_away_before_the_table_says_so_is_taken_twice() {
    harmful_without(Rule::FreeOnceKnown);
}

//= LOGSTORE.md#batches
//# LB-4
#[test]
fn sim_a_batch_of_an_earlier_life_would_be_taken_for_a_new_one() {
    harmful_without(Rule::PresentLife);
}

//= LOGSTORE.md#records
//# LR-3
#[test]
fn sim_a_torn_batch_would_half_appear() {
    harmful_without(Rule::DataChecked);
}

//= LOGSTORE.md#named-values
//# LM-2, LM-3
#[test]
fn sim_a_value_written_over_the_old_one_is_torn() {
    harmful_without(Rule::ValueBesideOld);
}
