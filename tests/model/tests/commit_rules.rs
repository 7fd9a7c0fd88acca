//! The commit rules lose nothing, and each of them is there for a reason (SPEC.md §commit).
//!
//! Run with `--nocapture` to read the counterexamples.

#![allow(clippy::disallowed_macros, reason = "counterexamples are for people")]

use tidemark_model::rules::{Counterexample, Outcome, Rule, Scenario, explore};

fn holds(scenario: &Scenario) -> usize {
    match explore(scenario) {
        Outcome::Exhausted { states } => {
            eprintln!("{states} states: {scenario:?}");
            states
        }
        Outcome::Broken(found) => panic!("{scenario:?}\n{found}"),
    }
}

fn breaks(scenario: &Scenario) -> Counterexample {
    match explore(scenario) {
        Outcome::Exhausted { states } => panic!("no counterexample in {states} states: {scenario:?}"),
        Outcome::Broken(found) => {
            eprintln!("{scenario:?}\n{found}\n");
            found
        }
    }
}

#[test]
fn sim_two_writers_and_abandoned_claims_lose_nothing() {
    holds(&Scenario::of(2).abandoning(2).with_segments(3));
}

#[test]
fn sim_three_writers_and_an_abandoned_claim_lose_nothing() {
    holds(&Scenario::of(3).abandoning(1));
}

#[test]
fn sim_a_cloned_writer_loses_nothing() {
    holds(&Scenario::of(2).cloning().abandoning(1).with_segments(3));
}

#[test]
fn sim_what_a_reader_calls_final_survives_a_cloned_writer() {
    holds(&Scenario::of(2).cloning().reading());
}

#[test]
fn sim_what_a_reader_calls_final_never_changes() {
    holds(&Scenario::of(2).abandoning(1).reading().with_segments(3));
}

#[test]
fn sim_acknowledging_without_the_claim_check_loses_a_write() {
    breaks(&Scenario::of(2).without(Rule::AckAfterCheck));
}

#[test]
fn sim_a_claim_check_that_starts_before_the_puts_finish_loses_a_write() {
    breaks(&Scenario::of(2).without(Rule::CheckAfterPuts));
}

#[test]
fn sim_acknowledging_beyond_a_hole_loses_a_write() {
    breaks(&Scenario::of(2).without(Rule::AckPrefix));
}

#[test]
fn sim_probing_the_tail_before_claiming_loses_a_write() {
    breaks(&Scenario::of(2).without(Rule::ClaimBeforeProbe));
}

#[test]
fn sim_claims_that_overwrite_each_other_lose_a_write() {
    // Creating segments only if absent would still save us; a store that lies about one lies about the other.
    breaks(&Scenario::of(2).without(Rule::AtomicClaims).without(Rule::SegmentCreate));
}

#[test]
fn sim_ignoring_where_a_cut_ends_its_predecessor_breaks_the_history() {
    breaks(&Scenario::of(2).without(Rule::ClosedTail));
}

#[test]
fn sim_overwriting_segments_loses_a_write_once_a_writer_is_cloned() {
    breaks(&Scenario::of(1).cloning().without(Rule::SegmentCreate));
}

#[test]
fn sim_overwriting_segments_is_harmless_while_nobody_is_cloned() {
    // Why a store with plain PUTs can still hold segments: the epoch in the key is the fence.
    holds(&Scenario::of(3).without(Rule::SegmentCreate));
}

#[test]
fn sim_a_log_followed_without_its_hash_chain_mixes_the_writes_of_clones() {
    breaks(&Scenario::of(1).cloning().without(Rule::HashChain));
}

#[test]
fn sim_writers_alone_lose_nothing_without_the_check_after_the_cut() {
    // F4 tells a late starter at once that it lost; the ack rule alone already keeps it from promising anything.
    holds(&Scenario::of(3).without(Rule::CutRecheck));
}

#[test]
fn sim_without_the_check_after_the_cut_a_reader_takes_back_a_final_write() {
    // A segment says that all before its epoch is final; only the check after the CUT makes that true.
    breaks(&Scenario::of(3).reading().without(Rule::CutRecheck));
}

#[test]
fn sim_a_reader_that_takes_a_cut_for_proof_takes_back_a_final_write() {
    // Writer 2 stalls before its CUT; writer 3 passes it by and sees the log end earlier than writer 2 then does.
    breaks(&Scenario::of(3).reading().without(Rule::CutIsNoProof));
}

#[test]
fn sim_a_reader_that_skips_the_last_look_at_the_claims_takes_back_a_final_write() {
    breaks(&Scenario::of(2).reading().without(Rule::ReaderRecheck));
}

#[test]
fn sim_a_reader_that_trusts_an_older_epochs_tail_takes_back_a_final_write() {
    breaks(&Scenario::of(2).abandoning(1).reading().without(Rule::ReaderOwnEpoch));
}

#[test]
fn every_rule_is_switched_off_somewhere_in_this_file() {
    let here = include_str!("commit_rules.rs");
    for rule in Rule::ALL {
        assert!(here.contains(&format!("without(Rule::{rule:?})")), "{rule:?}");
    }
}

#[test]
fn sim_what_a_reader_calls_final_survives_three_writers() {
    holds(&Scenario::of(3).reading());
}
