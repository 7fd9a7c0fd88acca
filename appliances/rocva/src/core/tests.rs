//! The whole matrix of phases and causes, and recoveries that are interrupted anywhere.

use super::{Cause, Effect, Event, Phase, Recovery, StepState};
use proptest::prelude::*;
use std::collections::BTreeSet;
use tidemark_format::TimeNs;
use tidemark_runbook::{Inventory, Mode, Plan, Runbook, StepId, VmFacts};

fn at(ms: u64) -> TimeNs {
    TimeNs::new(1_000_000 * ms)
}

#[test]
fn the_matrix_of_phases_and_causes() {
    let cell = |phase: Phase, cause| phase.after(cause).map_or_else(|_| "-".to_owned(), |next| next.to_string());
    let row = |phase: Phase| {
        let cells: Vec<_> = Cause::ALL.into_iter().map(|cause| format!("{:<10}", cell(phase, cause))).collect();
        format!("{:<10}| {}", phase.to_string(), cells.join(" ")).trim_end().to_owned()
    };
    let rows: Vec<_> = Phase::ALL.into_iter().map(row).collect();
    // Causes: prepared, started, hydrated, revert, gone.
    let want = [
        "preparing | starting   -          -          reverting  -",
        "starting  | -          up         -          reverting  -",
        "up        | -          -          settled    reverting  -",
        "settled   | -          -          -          reverting  -",
        "reverting | -          -          -          -          reverted",
        "reverted  | -          -          -          -          -",
    ];
    assert_eq!(rows, want);
}

#[test]
fn what_cannot_happen_is_said_and_changes_nothing() {
    let mut recovery = Recovery::begin(plan("", &["a"]), at(0));
    let before = recovery.record().clone();
    let said = recovery.handle(at(1), Event::Gone).unwrap_err().to_string();
    assert_eq!(said, "a recovery that is preparing cannot be gone");
    assert_eq!(recovery.record(), &before);
}

fn plan(more: &str, vms: &[&str]) -> Plan {
    let runbook = Runbook::parse("r.toml", &format!("[runbook]\nname = \"r\"\n{more}")).unwrap();
    let facts = |name: &&str| VmFacts { name: (*name).to_owned(), networks: Vec::new() };
    runbook.plan(Mode::Failover, &Inventory { vms: vms.iter().map(facts).collect() }).unwrap()
}

fn effects(recovery: &mut Recovery) -> Vec<Effect> {
    std::iter::from_fn(|| recovery.poll()).collect()
}

/// The step that an effect asks for.
fn step(effect: &Effect) -> StepId {
    match effect {
        Effect::Do(step) => *step,
        other => panic!("{other:?} is no step"),
    }
}

const TWO: &str = r#"
[[group]]
name = "db"
vms = ["db"]
[[group]]
name = "web"
vms = ["web"]
approve = true
"#;

#[test]
fn a_group_waits_for_the_one_before_and_for_approval() {
    let mut recovery = Recovery::begin(plan(TWO, &["db", "web"]), at(0));
    assert_eq!(effects(&mut recovery), [Effect::Prepare]);
    recovery.handle(at(10), Event::Prepared).unwrap();
    let first = effects(&mut recovery);
    assert_eq!(first.len(), 1);
    recovery.handle(at(20), Event::Done(step(&first[0]))).unwrap();
    assert_eq!(effects(&mut recovery), [], "nobody has approved");
    assert_eq!(recovery.record().steps[1].state, StepState::Asked { failure: None });
    recovery.handle(at(30), Event::Approve).unwrap();
    let last = effects(&mut recovery);
    recovery.handle(at(40), Event::Done(step(&last[0]))).unwrap();
    assert_eq!(effects(&mut recovery), [Effect::Keep]);
    let record = recovery.record();
    assert_eq!((record.phase, record.up_ns), (Phase::Up, Some(at(40).get())));
    let spans: Vec<_> = record.steps.iter().map(|step| (step.began_ns.unwrap(), step.ended_ns.unwrap())).collect();
    assert_eq!(spans, [(10, 20), (20, 30), (30, 40)].map(|(a, b)| (at(a).get(), at(b).get())));
    recovery.handle(at(50), Event::Hydrated).unwrap();
    assert!(recovery.record().phase.is_at_rest());
}

#[test]
fn a_failed_step_aborts_goes_on_or_asks_as_the_runbook_says() {
    let failed = |policy: &str| {
        let more = format!("{TWO}[[vm]]\nname = \"db\"\non_failure = \"{policy}\"\n[failover]\napprovals = false\n");
        let mut recovery = Recovery::begin(plan(&more, &["db", "web"]), at(0));
        recovery.handle(at(1), Event::Prepared).unwrap();
        let first = step(&effects(&mut recovery)[1]);
        recovery.handle(at(2), Event::Failed(first, "no disk".into())).unwrap();
        (first, recovery)
    };
    let (first, mut aborted) = failed("abort");
    assert_eq!(effects(&mut aborted), [Effect::Revert]);
    assert_eq!(aborted.record().reverted_for.as_deref(), Some("db: start: no disk"));
    aborted.handle(at(3), Event::Done(first)).unwrap();
    assert_eq!(effects(&mut aborted), [], "what ends late changes nothing");
    aborted.handle(at(4), Event::Gone).unwrap();
    assert_eq!(aborted.record().phase, Phase::Reverted);

    let (_, mut going_on) = failed("continue");
    assert_eq!(effects(&mut going_on).len(), 1);
    assert_eq!(going_on.record().steps[0].state, StepState::Failed { failure: "no disk".into() });

    let (_, mut asked) = failed("pause");
    assert_eq!(effects(&mut asked), []);
    asked.handle(at(5), Event::Approve).unwrap();
    assert_eq!(effects(&mut asked).len(), 1);
}

const DIAMOND: &str = r#"
[[group]]
name = "a"
vms = ["a"]
[[group]]
name = "b"
vms = ["b", "c"]
[[group]]
name = "d"
vms = ["d"]
delay = "1s"
[[vm]]
name = "b"
pre = [{ command = ["x"] }]
check = [{ agent = true }]
post = [{ command = ["y"] }]
[[failover.pre]]
command = ["first"]
[[failover.post]]
command = ["last"]
"#;

proptest! {
    /// Steps end in any order, and the process dies at any moment: every step is done in the end, each after those that it waits for.
    #[test]
    fn prop_a_recovery_that_dies_anywhere_ends_the_same(
        picks in proptest::collection::vec(any::<prop::sample::Index>(), 1..60),
        deaths in proptest::collection::btree_set(0usize..40, 0..12),
    ) {
        let plan = plan(DIAMOND, &["a", "b", "c", "d", "e"]);
        let mut recovery = Recovery::begin(plan.clone(), at(0));
        let (mut under_way, mut done) = (Vec::new(), BTreeSet::new());
        for round in 0usize.. {
            prop_assert!(round < 1000, "it does not end");
            under_way.extend(effects(&mut recovery));
            if recovery.record().phase == Phase::Up {
                break;
            }
            if deaths.contains(&round) {
                // What was under way is lost; what was handled was saved.
                let text = serde_json::to_string(recovery.record()).unwrap();
                recovery = Recovery::resume(plan.clone(), serde_json::from_str(&text).unwrap()).unwrap();
                under_way.clear();
                continue;
            }
            prop_assert!(!under_way.is_empty(), "nothing is under way: {:?}", recovery.record());
            let pick = picks[round % picks.len()].index(under_way.len());
            let event = match under_way.swap_remove(pick) {
                Effect::Prepare => Event::Prepared,
                Effect::Do(step) => {
                    prop_assert!(plan.step(step).after.iter().all(|before| done.contains(before)));
                    prop_assert!(done.insert(step), "{step:?} is done twice");
                    Event::Done(step)
                }
                other => panic!("{other:?} before it is up"),
            };
            recovery.handle(at(round as u64), event).unwrap();
        }
        prop_assert_eq!(done.len(), plan.steps.len());
    }

    /// Wanted gone at any moment, it is: nothing else is asked for any more, whatever ends late.
    #[test]
    fn prop_a_recovery_can_be_reverted_at_any_moment(moment in 0usize..14, late in 0usize..12) {
        let mut recovery = Recovery::begin(plan(DIAMOND, &["a", "b", "c", "d", "e"]), at(0));
        let mut under_way = Vec::new();
        for _ in 0..moment {
            under_way.extend(effects(&mut recovery));
            let event = match under_way.pop() {
                Some(Effect::Prepare) => Event::Prepared,
                Some(Effect::Do(step)) => Event::Done(step),
                _ => break,
            };
            recovery.handle(at(1), event).unwrap();
        }
        recovery.handle(at(2), Event::Revert("enough".into())).unwrap();
        prop_assert_eq!(effects(&mut recovery), [Effect::Revert]);
        for effect in under_way.into_iter().take(late) {
            if let Effect::Do(step) = effect {
                recovery.handle(at(3), Event::Failed(step, "late".into())).unwrap();
            }
        }
        prop_assert_eq!(effects(&mut recovery), []);
        recovery.handle(at(4), Event::Gone).unwrap();
        prop_assert_eq!(recovery.record().phase, Phase::Reverted);
    }
}
