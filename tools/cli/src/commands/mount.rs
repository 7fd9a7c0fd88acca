//! `tidemark mount`: a domain's disks as files.

use crate::args::{BucketArgs, SizeBytes};
use crate::context::{interrupted, open_bucket, open_domain, resolve};
use crate::failure::Outcome;
use crate::ui::Ui;
use anyhow::Context;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tidemark_env::Env;
use tidemark_fuse::{Access, MountHandle, MountOptions, ServeOptions, TreeOptions, Unmounted, mount};
use tidemark_reader::{PointSpec, ReaderOptions};

/// Mount a domain's disks, at all points in time or at one
///
/// Shows `latest/`, `at/<time>/`, `lsn/<n>/` and `bookmarks/<name>/`, each with `<vm>/<disk>.raw`: any time and any LSN works
/// by just naming it. With --at shows that point's `<vm>/<disk>.raw` only. Read-only. Serves until it is unmounted or
/// stopped by SIGINT or SIGTERM, which unmount it.
#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    /// Where to mount
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Show this point only: latest, lsn:N, an RFC 3339 time, -10m, or bookmark:NAME
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    at: Option<PointSpec>,
    /// Who may look; a disk image holds its guest's secrets
    #[arg(long, value_enum, default_value_t = Who::Owner)]
    access: Who,
    /// Memory for disk contents
    #[arg(long, value_name = "BYTES", default_value = "256M")]
    cache: SizeBytes,
    /// A read that waits for the bucket longer than this fails with EIO
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    deadline: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Who {
    /// Only the user who mounts
    Owner,
    /// The user who mounts and the members of their group
    Group,
    /// Everybody on this machine
    Everyone,
}

#[derive(Debug, Serialize)]
struct Mounted {
    mounted: String,
    domain: String,
    name: String,
    latest_lsn: u64,
}

pub(crate) async fn run(args: MountArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    // Listening from before the mount is there, so that no signal leaves it behind.
    let mut stop = std::pin::pin!(interrupted());
    let deadline = Duration::from_secs(args.deadline.max(1));
    let reader = ReaderOptions { cache_bytes_max: args.cache.get(), request_deadline: deadline, ..Default::default() };
    let bucket = open_bucket(&args.bucket)?;
    let opened = tokio::select! {
        biased;
        () = &mut stop => return Ok(Outcome::Interrupted),
        domain = open_domain(&bucket, reader) => domain?,
    };
    let timeline = opened.timeline();
    let env = Env::system();
    let serve = ServeOptions {
        source_name: format!("tidemark:{}", timeline.name()),
        access: match args.access {
            Who::Owner => Access::Owner,
            Who::Group => Access::Group,
            Who::Everyone => Access::Everyone,
        },
        request_deadline: deadline,
        ..Default::default()
    };
    let at = match &args.at {
        Some(spec) => Some(resolve(&opened, spec).await?),
        None => None,
    };
    let options = MountOptions { tree: TreeOptions { at, ..Default::default() }, serve };
    let dir = args.dir.clone();
    let mount = tokio::task::spawn_blocking(move || mount(opened, &dir, &options, &env)).await.context("mount")??;
    let mount = Arc::new(mount);
    let mounted = Mounted {
        mounted: mount.dir().display().to_string(),
        domain: timeline.domain().to_string(),
        name: timeline.name().to_owned(),
        latest_lsn: timeline.latest().lsn.get(),
    };
    ui.answer(&mounted, |mounted| format!("mounted {} on {}; Ctrl-C unmounts", mounted.name, mounted.mounted))?;
    tokio::select! {
        biased;
        () = &mut stop => unmount(&mount, ui).await,
        ended = mount.ended() => {
            ended?;
            ui.say("unmounted by somebody else");
            Ok(Outcome::Done)
        }
    }
}

async fn unmount(mount: &Arc<MountHandle>, ui: &Ui) -> anyhow::Result<Outcome> {
    ui.say("unmounting");
    let gone = {
        let mount = mount.clone();
        tokio::task::spawn_blocking(move || mount.unmount()).await.context("unmount")??
    };
    if gone == Unmounted::StillInUse {
        ui.warn("files in the mount are still open; their users get errors from now on");
    }
    // Asked to stop, and stopped: that is success.
    Ok(Outcome::Done)
}
