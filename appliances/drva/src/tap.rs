//! Taps: a running VM keeps its own disk, and QEMU mirrors each write to the disk's export here.
//!
//! While QEMU copies, blocks come in the order of addresses and no point can be offered; once it says `ready`, every write
//! is here before the guest hears of it, and the disk is restorable from that LSN on. Whatever ends that, QEMU's word, a
//! lost connection or our own restart, begins a gap. A copy behind a gap is compared with what the bucket has, so only
//! what differs is logged.

use crate::appliance::refused;
use crate::control::Answer;
use crate::disk::Disk;
use std::sync::Arc;
use std::time::Duration;
use tidemark_api::{AttachRequest, Problem, ProblemKind, Severity};
use tidemark_format::with_causes;
use tidemark_io_filter::Volume;
use tidemark_qemu::{Address, NbdTarget, Qmp, QmpOptions, Tap, TapOptions, TapState, disks, find_disk};

/// How long a guest's writes wait for us while we restart, before QEMU goes on without.
const RECONNECT_DELAY: Duration = Duration::from_secs(10);

/// A tap that is followed.
pub(crate) struct Attached {
    pub(crate) qmp_socket: String,
    pub(crate) node: String,
    pub(crate) tap: Tap,
}

/// Begins to tap a VM's disk.
pub(crate) async fn attach(disk: &Arc<Disk>, request: AttachRequest, nbd_socket: Option<&str>) -> Answer<()> {
    if disk.volume.primary.is_some() {
        let detail = format!("{} has a primary: its VM runs on our export", disk.address);
        return Err(Problem::conflict(detail).hint("only a disk that was added without a primary can be tapped"));
    }
    if disk.is_tapped() {
        return Err(Problem::conflict(format!("{} is tapped already", disk.address)).hint("detach it first"));
    }
    let Some(socket) = nbd_socket else {
        return Err(Problem::conflict("the appliance has no NBD unix socket for QEMU to mirror to")
            .hint("set `socket` in [nbd]"));
    };
    let failed = |e: tidemark_qemu::Error| {
        Problem::new(ProblemKind::Unavailable, format!("cannot tap {}: {}", disk.address, with_causes(&e)))
    };
    let address = Address::Unix(request.qmp_socket.clone().into());
    let qmp = Qmp::connect(&address, QmpOptions::default()).await.map_err(failed)?;
    let guest = match &request.node {
        Some(node) => find_disk(&qmp, node).await.map_err(failed)?,
        None => {
            let writable: Vec<_> = disks(&qmp).await.map_err(failed)?.into_iter().filter(|d| !d.read_only).collect();
            match <[_; 1]>::try_from(writable) {
                Ok([only]) => only,
                Err(several) => {
                    let names: Vec<_> = several.iter().map(|disk| disk.handle.as_str()).collect();
                    return Err(Problem::conflict(format!(
                        "the VM has {} disks that can be written: {names:?}",
                        names.len()
                    ))
                    .hint("say which with --node"));
                }
            }
        }
    };
    let size_bytes = disk.volume.geometry().size_bytes;
    if guest.size_bytes != size_bytes {
        let detail = format!("{} has {size_bytes} bytes here and {} in the VM", disk.address, guest.size_bytes);
        return Err(Problem::conflict(detail).hint("resize the disk here, or add it with the right size"));
    }
    disk.begin_copy().await.map_err(|e| refused(&e))?;
    let options = TapOptions {
        name: format!("{}-{}", disk.volume.domain.id(), disk.volume.disk),
        disk: guest.handle.clone(),
        target: NbdTarget { server: Address::Unix(socket.into()), export: disk.export_name(), tls_creds: None },
        reconnect_delay: RECONNECT_DELAY,
        copy_bytes_per_s_max: None,
    };
    let tap = Tap::attach(&qmp, options).await.map_err(failed)?;
    let states = tap.states();
    disk.attached(Attached { qmp_socket: request.qmp_socket, node: guest.handle, tap });
    disk.spawn(follow(Arc::downgrade(disk), states, qmp));
    Ok(())
}

/// Ends a tap.
pub(crate) async fn detach(disk: &Arc<Disk>) -> Answer<()> {
    let attached = disk.detached().ok_or_else(|| Problem::conflict(format!("{} is not tapped", disk.address)))?;
    let ended = attached.tap.detach().await;
    // Whether or not QEMU has ended it: from here on nothing is known of the disk.
    disk.gap("the tap was detached").await.map_err(|e| refused(&e))?;
    ended.map_err(|e| Problem::new(ProblemKind::Unavailable, format!("cannot end the tap: {}", with_causes(&e))))
}

/// Follows what QEMU says until the tap is over.
async fn follow(disk: std::sync::Weak<Disk>, mut states: tokio::sync::watch::Receiver<TapState>, _qmp: Qmp) {
    loop {
        let state = states.borrow_and_update().clone();
        let Some(disk) = disk.upgrade() else { return };
        let outcome = match &state {
            TapState::Seeding(_) | TapState::Lagging(_) => Ok(()),
            TapState::Ready => disk.copied().await,
            TapState::Gap(_) | TapState::Failed(_) | TapState::Gone(_) => {
                disk.gap(&format!("QEMU goes on without us: {state}")).await
            }
            TapState::Detached => return,
        };
        if let Err(error) = outcome {
            disk.event(
                Severity::Error,
                "tap-not-recorded",
                format!("cannot record what became of the tap: {}", with_causes(&error)),
            );
        }
        drop(disk);
        if matches!(state, TapState::Failed(_) | TapState::Gone(_)) || states.changed().await.is_err() {
            return;
        }
    }
}
