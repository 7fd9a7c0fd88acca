//! Taps and freezes of real guests, while they write.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::{Value, json};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tidemark_env::SystemEntropy;
use tidemark_format::ErrorKind;
use tidemark_qemu::{
    Address, Agent, AgentOptions, GapCause, NbdTarget, Qmp, QmpOptions, Tap, TapOptions, TapState, disks, find_disk,
};
use tidemark_vm::{Disk, Guest, Job, Machine, NbdServer, Promises, Serial, fsck};
use tokio::sync::watch;

const DISK_BYTES: u64 = 64 << 20;
/// An emulated guest on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(180);

/// As long as what names a disk of a domain.
const TAP: &str = "04c726b3-8e49-45e1-ba3b-3aae91796559-1";

/// A guest that writes to its own disk, and a server that could take its writes.
struct Site {
    dir: tempfile::TempDir,
    source: PathBuf,
    target: PathBuf,
    server: NbdServer,
    guest: Guest,
    qmp: Qmp,
}

impl Site {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("source.raw"), dir.path().join("target.raw"));
        for image in [&source, &target] {
            File::create(image).unwrap().set_len(DISK_BYTES).unwrap();
        }
        let server = NbdServer::start(&target, &dir.path().join("target.sock"));
        let mut guest = Machine::new(dir.path(), "vm").disk(Disk::raw(&source)).job(Job::WRITE).boot();
        let qmp = Qmp::connect(&Address::Unix(guest.qmp_socket()), QmpOptions::default()).await.unwrap();
        guest.wait_mark(5);
        Self { dir, source, target, server, guest, qmp }
    }

    fn options(&self, reconnect_delay: Duration) -> TapOptions {
        let server = Address::Unix(self.server.socket().to_owned());
        TapOptions {
            name: TAP.to_owned(),
            disk: "vda".to_owned(),
            target: NbdTarget { server, export: NbdServer::EXPORT.to_owned(), tls_creds: None },
            reconnect_delay,
            copy_bytes_per_s_max: None,
        }
    }

    /// What QEMU has of a tap: jobs, and nodes that begin with its prefix.
    async fn left_in_qemu(&self) -> (usize, usize) {
        let jobs = self.qmp.execute("query-jobs", json!({})).await.unwrap();
        let nodes = self.qmp.execute("query-named-block-nodes", json!({ "flat": true })).await.unwrap();
        let ours = |node: &&Value| node["node-name"].as_str().unwrap().starts_with("tm");
        (jobs.as_array().unwrap().len(), nodes.as_array().unwrap().iter().filter(ours).count())
    }
}

/// Waits for a state.
async fn reaches(states: &mut watch::Receiver<TapState>, what: impl FnMut(&TapState) -> bool) -> TapState {
    let reached = tokio::time::timeout(PATIENCE, states.wait_for(what)).await.map(|state| state.unwrap().clone());
    reached.unwrap_or_else(|_| panic!("it is {} after {PATIENCE:?}", *states.borrow()))
}

async fn ready(states: &mut watch::Receiver<TapState>) {
    reaches(states, |state| *state == TapState::Ready).await;
}

/// A guest that checks what `image` holds.
fn checked(dir: &Path, image: &Path) -> Serial {
    Machine::new(dir, "check").disk(Disk::raw(image)).job(Job::Verify).boot().wait_end()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tapped_guest_saw_as_durable_is_on_the_target_when_qemu_is_killed() {
    let mut site = Site::start().await;
    let tap = Tap::attach(&site.qmp, site.options(Duration::from_secs(120))).await.unwrap();
    let mut states = tap.states();
    ready(&mut states).await;
    states.mark_unchanged();
    site.guest.wait_more_marks(5);

    // A target that comes back in time leaves no gap: what was unanswered is sent again.
    site.server.kill();
    site.server.restart();
    site.guest.wait_more_marks(10);
    assert!(!states.has_changed().unwrap(), "{}", tap.state());

    let mut promises = Promises::default();
    promises.add(&site.guest.kill());
    reaches(&mut states, |state| matches!(state, TapState::Gone(_))).await;
    site.server.kill();
    fsck(&site.target).unwrap();
    promises.check(&checked(site.dir.path(), &site.target)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_outlives_its_target_and_only_what_differs_is_copied_after() {
    let mut site = Site::start().await;
    let tap = Tap::attach(&site.qmp, site.options(Duration::from_secs(1))).await.unwrap();
    let mut states = tap.states();
    ready(&mut states).await;

    site.server.kill();
    let gap = reaches(&mut states, |state| matches!(state, TapState::Gap(_))).await;
    assert_eq!(gap, TapState::Gap(GapCause::TargetFailed));
    // The guest writes on, and the tap, which tries again and again, does not take that for an end of the gap.
    states.mark_unchanged();
    site.guest.wait_more_marks(40);
    assert!(!states.has_changed().unwrap(), "{}", tap.state());

    site.server.restart();
    tap.reattach().await.unwrap();
    ready(&mut states).await;
    site.guest.wait_more_marks(5);
    assert_eq!(tap.state(), TapState::Ready);

    // With nothing under way, both hold the same.
    site.qmp.execute("stop", json!({})).await.unwrap();
    site.guest.kill();
    assert!(std::fs::read(&site.source).unwrap() == std::fs::read(&site.target).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tap_is_taken_over_fails_starts_again_and_is_detached_from_a_target_that_hangs() {
    let mut site = Site::start().await;
    let options = site.options(Duration::from_secs(120));

    let unknown = TapOptions { disk: "vdz".to_owned(), ..options.clone() };
    let error = Tap::attach(&site.qmp, unknown).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("/machine/peripheral/vda/")), (ErrorKind::NotFound, true));
    let nobody = Address::Unix(site.dir.path().join("nobody.sock"));
    let deaf = TapOptions { target: NbdTarget { server: nobody, ..options.target.clone() }, ..options.clone() };
    assert_eq!(Tap::attach(&site.qmp, deaf).await.unwrap_err().kind(), ErrorKind::FixRequest);
    assert_eq!(find_disk(&site.qmp, "node-vda").await.unwrap().size_bytes, DISK_BYTES);
    assert_eq!(site.left_in_qemu().await, (0, 0));

    // Its owner dies; the next one finds the job, and copies nothing.
    let tap = Tap::attach(&site.qmp, options.clone()).await.unwrap();
    ready(&mut tap.states()).await;
    let copied = |jobs: Value| jobs[0]["offset"].as_u64().unwrap();
    let before = copied(site.qmp.execute("query-block-jobs", json!({})).await.unwrap());
    drop(tap);
    for name in ["vda", "node-vda"] {
        assert_eq!(find_disk(&site.qmp, name).await.unwrap().size_bytes, DISK_BYTES, "{name}");
    }
    let tap = Tap::attach(&site.qmp, options.clone()).await.unwrap();
    let mut states = tap.states();
    ready(&mut states).await;
    let after = copied(site.qmp.execute("query-block-jobs", json!({})).await.unwrap());
    assert!(after - before < DISK_BYTES / 2, "{before} bytes before, {after} after");
    assert_eq!(site.left_in_qemu().await, (1, 2));

    // Somebody ends the job; it is begun again when asked for.
    site.qmp.execute("block-job-cancel", json!({ "device": format!("tm-{TAP}"), "force": true })).await.unwrap();
    reaches(&mut states, |state| matches!(state, TapState::Failed(_))).await;
    site.guest.wait_more_marks(2);
    tap.reattach().await.unwrap();
    ready(&mut states).await;

    // The target hangs, and with it the guest, until the tap is gone.
    site.server.hang();
    tap.detach().await.unwrap();
    assert_eq!(*states.borrow(), TapState::Detached);
    site.guest.wait_more_marks(5);
    assert_eq!(site.left_in_qemu().await, (0, 0));
    assert_eq!(disks(&site.qmp).await.unwrap()[0].node, "node-vda");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_guest_writes_nothing_until_it_is_thawed() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.raw");
    File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
    let mut guest = Machine::new(dir.path(), "vm").disk(Disk::raw(&image)).job(Job::WRITE).boot();
    guest.wait_mark(5);
    let address = Address::Unix(guest.agent_socket());
    let options = AgentOptions { answer_max: PATIENCE, ..AgentOptions::new(Arc::new(SystemEntropy)) };

    let agent = Agent::connect(&address, options.clone()).await.unwrap();
    let frozen = agent.freeze(PATIENCE).await.unwrap();
    assert_eq!(frozen.filesystems(), 1);
    // What it had written is on the disk, clean: nothing is left to replay, and the disk does not change.
    let (held, marks) = (std::fs::read(&image).unwrap(), guest.serial().last_mark());
    fsck(&image).unwrap();
    assert!(std::fs::read(&image).unwrap() == held);
    assert!(guest.serial().last_mark() <= marks + 1);
    frozen.thaw().await.unwrap();
    guest.wait_more_marks(3);

    // Dropped, it thaws too.
    drop(Agent::connect(&address, options.clone()).await.unwrap().freeze(PATIENCE).await.unwrap());
    guest.wait_more_marks(3);
    let mut agent = Agent::connect(&address, options).await.unwrap();
    assert!(!agent.is_frozen().await.unwrap());
}
