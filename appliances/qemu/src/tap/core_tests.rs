//! The whole matrix of a tap's life, and that it follows QEMU's word and nothing else.

use super::*;
use proptest::prelude::*;
use serde_json::json;

const PHASES: [Phase; 8] = [
    Phase::Started,
    Phase::Seeding,
    Phase::Ready,
    Phase::Gap,
    Phase::Lagging,
    Phase::Failed,
    Phase::Detached,
    Phase::Gone,
];
const CAUSES: [Cause; 8] = [
    Cause::Copying,
    Cause::CatchingUp,
    Cause::Synced,
    Cause::Stopped,
    Cause::Ended,
    Cause::Detach,
    Cause::Lost,
    Cause::Restart,
];

const PACE: Pace = Pace {
    look_copying: Duration::from_millis(500),
    look_calm: Duration::from_secs(5),
    look_hinted: Duration::from_millis(20),
    resume: Duration::from_secs(1),
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn copied(done_bytes: u64) -> Progress {
    Progress { done_bytes, total_bytes: 100 }
}

fn job(standing: Standing, done_bytes: u64) -> JobSeen {
    JobSeen { standing, progress: copied(done_bytes) }
}

#[test]
fn the_life_of_a_tap_is_this_table() {
    let mut table = format!("{:<9}", "");
    for cause in CAUSES {
        table += &format!(" {:<10}", format!("{cause:?}"));
    }
    for phase in PHASES {
        table += &format!("\n{:<9}", format!("{phase:?}"));
        for cause in CAUSES {
            table += &format!(" {:<10}", phase.next(cause).map_or("-".to_owned(), |next| format!("{next:?}")));
        }
    }
    let table: Vec<_> = table.lines().map(str::trim_end).collect();
    let expected = [
        "          Copying    CatchingUp Synced     Stopped    Ended      Detach     Lost       Restart",
        "Started   Seeding    Lagging    Ready      Gap        Failed     Detached   Gone       -",
        "Seeding   Seeding    -          Ready      Gap        Failed     Detached   Gone       -",
        "Ready     -          Lagging    Ready      Gap        Failed     Detached   Gone       -",
        "Gap       Seeding    Lagging    Ready      Gap        Failed     Detached   Gone       -",
        "Lagging   -          Lagging    Ready      Gap        Failed     Detached   Gone       -",
        "Failed    -          -          -          -          -          Detached   Gone       Started",
        "Detached  -          -          -          -          -          -          -          -",
        "Gone      -          -          -          -          -          -          -          -",
    ];
    assert_eq!(table, expected);
}

#[test]
fn what_qemu_says_of_a_job_is_understood() {
    let entry = |status: &str, ready: bool, synced: bool, io: &str| json!({ "status": status, "ready": ready, "actively-synced": synced, "io-status": io, "offset": 1, "len": 2 });
    let standing = |entry: &Value| JobSeen::of(entry).map(|job| job.standing);
    let ended = |why: &str| Some(Standing::Ended(why.to_owned()));
    assert_eq!(standing(&entry("running", false, false, "ok")), Some(Standing::Copying));
    assert_eq!(standing(&entry("ready", true, true, "ok")), Some(Standing::Synced));
    assert_eq!(standing(&entry("ready", true, false, "ok")), Some(Standing::CatchingUp));
    assert_eq!(standing(&entry("standby", true, false, "failed")), Some(Standing::Stopped(GapCause::TargetFailed)));
    assert_eq!(standing(&entry("standby", true, true, "nospace")), Some(Standing::Stopped(GapCause::TargetFull)));
    assert_eq!(standing(&entry("paused", false, false, "ok")), Some(Standing::Stopped(GapCause::Paused)));
    assert_eq!(standing(&entry("aborting", true, true, "ok")), ended("somebody ended the job"));
    let mut failed = entry("concluded", true, false, "ok");
    failed["error"] = "Input/output error".into();
    assert_eq!(standing(&failed), ended("Input/output error"));
    // Not ready although it says that it is in sync: a mirror before its first pass is through.
    assert_eq!(standing(&entry("running", false, true, "ok")), Some(Standing::Copying));
    for missing in ["status", "ready", "actively-synced", "offset", "len"] {
        let mut lacking = entry("ready", true, true, "ok");
        lacking.as_object_mut().expect("it is an object").remove(missing);
        assert_eq!(JobSeen::of(&lacking), None, "{missing}");
    }
}

#[test]
fn a_gap_is_resumed_each_second_and_left_once_bytes_get_through() {
    let mut core = Core::new(ms(0), PACE);
    assert_eq!(core.due(ms(0)), Some(Effect::Look));
    core.seen(ms(0), job(Standing::Synced, 50)).expect("legal");
    assert_eq!((core.state(), core.wake_at()), (&TapState::Ready, Some(ms(5000))));

    // An event makes the next look come soon, however many come.
    for _ in 0..100 {
        core.hint(ms(100));
    }
    assert_eq!((core.due(ms(119)), core.due(ms(120)), core.due(ms(120))), (None, Some(Effect::Look), None));
    core.seen(ms(120), job(Standing::Stopped(GapCause::TargetFailed), 50)).expect("legal");
    assert_eq!(core.state(), &TapState::Gap(GapCause::TargetFailed));
    for second in 1..4 {
        let at = ms(120 + second * 1000);
        assert_eq!((core.due(at), core.due(at)), (Some(Effect::Resume), None), "{second}");
        // Each of the guest's writes makes an event now; none makes a look.
        core.hint(at);
        assert_eq!((core.due(at + ms(19)), core.due(at + ms(20))), (None, Some(Effect::Look)));
        // QEMU may not have noticed yet that its target is still gone.
        core.seen(at + ms(20), job(Standing::CatchingUp, 50)).expect("legal");
        assert_eq!(core.state(), &TapState::Gap(GapCause::TargetFailed));
        assert_eq!(core.due(at + ms(520)), Some(Effect::Look));
        core.seen(at + ms(520), job(Standing::Stopped(GapCause::TargetFailed), 50)).expect("legal");
    }
    core.nudge(ms(3700));
    assert_eq!(core.due(ms(3700)), Some(Effect::Resume));
    core.seen(ms(3720), job(Standing::CatchingUp, 51)).expect("legal");
    assert_eq!(core.state(), &TapState::Lagging(copied(51)));
    core.seen(ms(4220), job(Standing::Synced, 70)).expect("legal");
    assert_eq!(core.state(), &TapState::Ready);
    assert_eq!(core.due(ms(4220)), None);
}

#[test]
fn a_job_that_somebody_paused_waits_for_them() {
    let mut core = Core::new(ms(0), PACE);
    core.seen(ms(0), job(Standing::Stopped(GapCause::Paused), 0)).expect("legal");
    assert_eq!(core.state(), &TapState::Gap(GapCause::Paused));
    assert_eq!(core.due(ms(10_000)), Some(Effect::Look));
    assert_eq!(core.due(ms(10_000)), None);
    core.nudge(ms(10_000));
    assert_eq!(core.due(ms(10_000)), Some(Effect::Resume));
}

#[test]
fn a_tap_that_failed_starts_again_only_when_asked() {
    let mut core = Core::new(ms(0), PACE);
    core.seen(ms(0), job(Standing::Synced, 1)).expect("legal");
    core.seen(ms(1), job(Standing::Ended("Input/output error".to_owned()), 1)).expect("legal");
    assert_eq!((core.wake_at(), core.due(ms(100_000))), (None, None));
    core.restarted(ms(100_000)).expect("legal");
    assert_eq!(core.due(ms(100_000)), Some(Effect::Look));
    core.seen(ms(100_000), job(Standing::Copying, 0)).expect("legal");
    assert_eq!(core.state(), &TapState::Seeding(copied(0)));
    core.detached().expect("legal");
    let illegal = core.seen(ms(100_001), job(Standing::Synced, 0)).expect_err("it is over");
    assert_eq!(illegal.to_string(), "Synced while Detached");
}

fn any_standing() -> impl Strategy<Value = Standing> {
    prop_oneof![
        Just(Standing::Copying),
        Just(Standing::CatchingUp),
        Just(Standing::Synced),
        Just(Standing::Stopped(GapCause::TargetFailed)),
        Just(Standing::Stopped(GapCause::Paused)),
        Just(Standing::Ended("gone".to_owned())),
    ]
}

proptest! {
    /// Whatever QEMU says in whatever order: ready means that its last word was that the mirror is in sync, and while there is a
    /// job there is a next look.
    #[test]
    fn prop_ready_is_qemus_last_word(looks in prop::collection::vec((any_standing(), 0_u64..3, any::<bool>()), 1..40)) {
        let mut core = Core::new(ms(0), PACE);
        for (i, (standing, done, hinted)) in looks.into_iter().enumerate() {
            let now = ms(i as u64 * 700);
            if hinted {
                core.hint(now);
            }
            for _ in 0..3 {
                core.due(now);
            }
            let before = core.state().clone();
            let synced = standing == Standing::Synced;
            if core.seen(now, job(standing, done)).is_ok() {
                prop_assert_eq!(synced, *core.state() == TapState::Ready);
            } else {
                prop_assert_eq!(core.state(), &before);
            }
            prop_assert_eq!(core.phase().has_job(), core.wake_at().is_some());
        }
    }
}
