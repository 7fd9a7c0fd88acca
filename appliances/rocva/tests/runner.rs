//! Recoveries in a world that is all in memory, cut off at any moment and gone on with.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidemark_env::{Entropy, Env, SeededEntropy};
use tidemark_format::{DiskId, Lsn, TimeNs};
use tidemark_reader::{DiskAt, Point};
use tidemark_rocva::{
    Bus, DiskOfVm, Disks, DisksOf, Error, Guest, GuestState, Hydration, Hypervisor, Image, Job, JobSpec, MachineConfig,
    Phase, RecordedVm, Report, Result, Runner, Site, StepState, Until, WISHES_MAX, Wanted, Wish, look,
};
use tidemark_runbook::Mode;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

const RUNBOOK: &str = r#"
[runbook]
name = "three"
[[group]]
name = "first"
vms = ["a"]
[[group]]
name = "second"
vms = ["b", "c"]
delay = "2s"
[[vm]]
name = "a"
check = [{ agent = true }, { console = "login:" }]
"#;

/// What outlives a runner: VMs and what serves their disks.
#[derive(Debug, Default)]
struct World {
    served: BTreeSet<String>,
    /// VMs that run, and whether from local disks.
    running: BTreeMap<String, bool>,
    /// How often each was started.
    starts: BTreeMap<String, u32>,
    /// VMs that were served, in vain or not.
    hydrated: BTreeSet<String>,
    /// VMs that never get ready.
    mute: BTreeSet<String>,
    /// The order of starts.
    order: Vec<String>,
}

#[derive(Clone, Default)]
struct Fakes(Arc<Mutex<World>>);

impl Fakes {
    fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

#[async_trait]
impl Hypervisor for Fakes {
    async fn start(&self, guest: &Guest) -> Result<()> {
        sleep(Duration::from_millis(300)).await;
        {
            let mut world = self.world();
            assert!(world.served.contains(&guest.name), "{} starts without disks", guest.name);
            if world.running.contains_key(&guest.name) {
                return Ok(());
            }
            world.running.insert(guest.name.clone(), false);
            world.order.push(guest.name.clone());
            *world.starts.entry(guest.name.clone()).or_default() += 1;
        }
        // It may be cut off between the deed and the word.
        sleep(Duration::from_millis(300)).await;
        Ok(())
    }

    async fn state(&self, guest: &Guest) -> Result<GuestState> {
        let runs = self.world().running.contains_key(&guest.name);
        Ok(if runs { GuestState::Running } else { GuestState::Gone })
    }

    async fn agent_answers(&self, guest: &Guest) -> Result<()> {
        sleep(Duration::from_millis(700)).await;
        let world = self.world();
        if world.running.contains_key(&guest.name) && !world.mute.contains(&guest.name) {
            return Ok(());
        }
        Err(Error::Guest { vm: guest.name.clone(), why: "it is mute".into() })
    }

    async fn console(&self, _: &Guest) -> Result<Vec<u8>> {
        Ok(b"Debian\nlogin: ".to_vec())
    }

    async fn screenshot(&self, _: &Guest, _: &Path) -> Result<()> {
        Ok(())
    }

    async fn move_disk(&self, guest: &Guest, _: usize, image: &Image) -> Result<()> {
        assert!(matches!(image, Image::File(_)), "{image:?}");
        assert!(self.world().hydrated.contains(&guest.name), "{} moves to half a disk", guest.name);
        self.world().running.insert(guest.name.clone(), true);
        Ok(())
    }

    async fn go_on(&self, _: &Guest) -> Result<()> {
        Ok(())
    }

    async fn stop(&self, guest: &Guest, _: Duration) -> Result<()> {
        sleep(Duration::from_millis(50)).await;
        self.world().running.remove(&guest.name);
        Ok(())
    }
}

#[async_trait]
impl Disks for Fakes {
    async fn serve(&self, of: DisksOf<'_>) -> Result<Vec<Image>> {
        sleep(Duration::from_millis(200)).await;
        self.world().served.insert(of.vm.name.clone());
        Ok(vec![Image::Nbd { socket: of.dir.join("nbd"), export: "disk1".into() }])
    }

    async fn is_served(&self, of: DisksOf<'_>) -> bool {
        self.world().served.contains(&of.vm.name)
    }

    async fn hydration(&self, of: DisksOf<'_>) -> Result<Hydration> {
        let all = self.world().running.len() == 3;
        let images = (of.hydrate && all).then(|| {
            self.world().hydrated.insert(of.vm.name.clone());
            vec![Image::File(of.dir.join("disks/disk1.raw"))]
        });
        Ok(Hydration { local_bytes: 0, total_bytes: 512, images })
    }

    async fn release(&self, of: DisksOf<'_>) -> Result<()> {
        let world = self.world();
        let runs = world.running.get(&of.vm.name).copied();
        assert!(runs != Some(false), "{} runs, and loses its disks", of.vm.name);
        drop(world);
        self.world().served.remove(&of.vm.name);
        Ok(())
    }
}

fn spec(runbook: &str, hydrate: bool) -> JobSpec {
    let vm = |id: u32, name: &str| {
        let at = DiskAt {
            id: DiskId::new(id),
            vm: name.into(),
            name: "root".into(),
            size_bytes: 512,
            consistent_from: Some(Lsn::new(1)),
        };
        let disks = vec![DiskOfVm { at, bus: Bus::Virtio }];
        (name.to_owned(), RecordedVm { config: MachineConfig::default(), recorded: None, disks })
    };
    let site = Site {
        point: Point { lsn: Lsn::new(7), time: TimeNs::new(1_000_000_000) },
        vms: [vm(1, "a"), vm(2, "b"), vm(3, "c")].into(),
    };
    let wanted = Wanted {
        url: "/nowhere".into(),
        domain: "d".into(),
        mode: Mode::Test,
        runbook: Some(("r.toml".into(), runbook.into())),
        hydrate,
    };
    JobSpec::new(wanted, &site)
}

fn now() -> TimeNs {
    Env::system().clock.wall()
}

struct Bench {
    dir: tempfile::TempDir,
    fakes: Fakes,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), fakes: Fakes::default() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("r")
    }

    fn runner(&self, parts: (Job, tidemark_rocva::Recovery)) -> Runner {
        Runner::new(parts, Arc::new(self.fakes.clone()), Arc::new(self.fakes.clone()), Env::system())
    }

    fn create(&self, runbook: &str, hydrate: bool) -> Runner {
        self.runner(Job::create(&self.path(), spec(runbook, hydrate), now()).unwrap())
    }

    /// Goes on as another process would: with what was on the disk when the one before ended.
    async fn resume(&self, before: Runner) -> Runner {
        drop(before);
        loop {
            match Job::resume(&self.path()) {
                Ok(parts) => return self.runner(parts),
                // Its tasks are on their way out.
                Err(Error::InUse { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn check_up(&self) {
        let world = self.fakes.world();
        assert_eq!(world.starts, ["a", "b", "c"].map(|vm| (vm.to_owned(), 1)).into(), "each is started once");
        assert_eq!(world.order[0], "a", "the first group is the first: {:?}", world.order);
    }
}

async fn run(runner: &mut Runner, until: Until, wishes: &[Wish]) -> Phase {
    let (wish, mut wanted) = mpsc::channel(WISHES_MAX);
    for one in wishes {
        wish.send(one.clone()).await.unwrap();
    }
    runner.run(until, &mut wanted, &mut |_| {}).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn fault_cut_off_at_a_hundred_moments_a_recovery_ends_the_same() {
    let entropy = SeededEntropy::new(4);
    for round in 0..100 {
        let bench = Bench::new();
        let mut runner = bench.create(RUNBOOK, true);
        for _ in 0..1 + entropy.number() % 4 {
            let moment = Duration::from_millis(entropy.number() % 6000);
            timeout(moment, run(&mut runner, Until::Settled, &[])).await.ok();
            runner = bench.resume(runner).await;
        }
        assert_eq!(run(&mut runner, Until::Settled, &[]).await, Phase::Settled, "round {round}");
        bench.check_up();
        assert!(bench.fakes.world().running.values().all(|local| *local) && bench.fakes.world().served.is_empty());
        let record = runner.recovery().record();
        assert!(record.steps.iter().all(|step| step.state == StepState::Done && step.ended_ns >= step.began_ns));
        let mut runner = bench.resume(runner).await;
        assert_eq!(run(&mut runner, Until::Settled, &[Wish::Revert("enough".into())]).await, Phase::Reverted);
        assert!(bench.fakes.world().running.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn fault_reverted_and_cut_off_at_any_moment_nothing_is_left() {
    let entropy = SeededEntropy::new(5);
    for round in 0..100 {
        let bench = Bench::new();
        let mut runner = bench.create(RUNBOOK, false);
        timeout(Duration::from_millis(entropy.number() % 6000), run(&mut runner, Until::Settled, &[])).await.ok();
        let wish = Wish::Revert("enough".into());
        let mut runner = bench.resume(runner).await;
        timeout(
            Duration::from_millis(entropy.number() % 200),
            run(&mut runner, Until::Settled, std::slice::from_ref(&wish)),
        )
        .await
        .ok();
        let mut runner = bench.resume(runner).await;
        let again = if runner.recovery().record().reverted_for.is_some() { vec![] } else { vec![wish] };
        assert_eq!(run(&mut runner, Until::Settled, &again).await, Phase::Reverted, "round {round}");
        let world = bench.fakes.world();
        assert!(world.running.is_empty() && world.served.is_empty(), "{world:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_that_never_holds_reverts_all_and_the_report_says_so() {
    let bench = Bench::new();
    bench.fakes.world().mute.insert("a".into());
    let mut runner = bench.create(RUNBOOK, false);
    assert_eq!(run(&mut runner, Until::Up, &[]).await, Phase::Reverted);
    assert!(bench.fakes.world().running.is_empty());
    let (spec, record) = look(&bench.path()).unwrap();
    let report = Report::new(&spec, "three", runner.recovery().plan(), &record);
    let why = report.reverted_for.as_deref().unwrap();
    assert!(why.starts_with("a: check guest agent, within 300s: not within 300000 ms: VM a: it is mute"), "{why}");
    assert_eq!((report.rto_ms, report.vms[0].ready), (None, false));
    assert!(report.html().contains("it is mute"));
}

#[tokio::test(start_paused = true)]
async fn what_failed_and_was_gone_on_after_is_in_the_report() {
    let bench = Bench::new();
    bench.fakes.world().mute.insert("a".into());
    let mut runner = bench.create(&format!("{RUNBOOK}[test]\non_failure = \"continue\"\n"), false);
    assert_eq!(run(&mut runner, Until::Up, &[]).await, Phase::Up);
    let report = Report::new(runner.job().spec(), "<three>", runner.recovery().plan(), runner.recovery().record());
    assert_eq!((report.failures, report.vms[0].ready, report.vms[0].rto_ms), (1, false, None));
    assert!(report.rto_ms.is_some() && report.vms[1].ready && report.vms[1].rto_ms.is_some());
    assert!(report.html().contains("&lt;three&gt;"), "what people wrote is no markup");
}

#[tokio::test(start_paused = true)]
async fn one_process_works_on_a_recovery_and_all_can_look() {
    let bench = Bench::new();
    let runner = bench.create(RUNBOOK, false);
    assert!(matches!(Job::resume(&bench.path()), Err(Error::InUse { .. })));
    assert!(matches!(Job::create(&bench.path(), spec(RUNBOOK, false), now()), Err(Error::InUse { .. })));
    assert_eq!(look(&bench.path()).unwrap().1.phase, Phase::Preparing);
    drop(runner);
    assert!(matches!(Job::create(&bench.path(), spec(RUNBOOK, false), now()), Err(Error::AlreadyThere { .. })));
    Job::resume(&bench.path()).unwrap();
    std::fs::write(bench.path().join("state.json"), "{}").unwrap();
    let error = Job::resume(&bench.path()).unwrap_err();
    assert!(error.to_string().contains("state.json is no recovery that can go on"), "{error}");
    assert!(matches!(look(&bench.dir.path().join("none")), Err(Error::NoRecovery { .. })));
    let long = bench.dir.path().join("x".repeat(90));
    assert!(matches!(Job::create(&long, spec(RUNBOOK, false), now()), Err(Error::LongName { .. })));
}
