//! `tidemark mount`: a domain's disks as files.

use crate::args::{BucketArgs, SizeBytes};
use crate::context::{interrupted, open_bucket, open_domain, resolve};
use crate::cost::{PriceArgs, say_rates};
use crate::failure::Outcome;
use crate::ui::Ui;
use anyhow::Context;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tidemark_env::Env;
use tidemark_format::with_causes;
use tidemark_fuse::{
    Access, LiveDisk, LiveTree, MountHandle, MountOptions, ServeOptions, TreeOptions, Unmounted, mount, open_disks,
};
use tidemark_overlay::{HydrateOptions, Hydrator, Rate};
use tidemark_reader::{Domain, PinOptions, PointSpec, ReaderOptions};

/// How long what a mount reads by stays after the mount died.
const PIN_LIFETIME: Duration = Duration::from_secs(3600);

/// Mount a domain's disks, at all points in time or at one
///
/// Shows `latest/`, `at/<time>/`, `lsn/<n>/` and `bookmarks/<name>/`, each with `<vm>/<disk>.raw`: any time and any LSN works
/// by just naming it. With --at shows that point's `<vm>/<disk>.raw` only. Read-only, unless --overlay gives a local directory for
/// what is written: the bucket never changes. Serves until it is unmounted or stopped by SIGINT or SIGTERM, which unmount it.
#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    #[command(flatten)]
    prices: PriceArgs,
    /// Where to mount
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Show this point only: latest, lsn:N, an RFC 3339 time, -10m, or bookmark:NAME
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    at: Option<PointSpec>,
    /// Let the disks of the point be written to, and keep what is written in this local directory; mounted again with it, they are as
    /// they were left
    #[arg(long, value_name = "DIR")]
    overlay: Option<PathBuf>,
    /// Bring the disks into the overlay, behind whoever uses them; then they need no bucket any more
    #[arg(long, requires = "overlay")]
    hydrate: bool,
    /// Bring in at most so many bytes a second
    #[arg(long, value_name = "BYTES", requires = "hydrate")]
    rate: Option<SizeBytes>,
    /// Who may look; a disk image holds its guest's secrets
    #[arg(long, value_enum, default_value_t = Who::Owner)]
    access: Who,
    /// Memory for disk contents
    #[arg(long, value_name = "BYTES", default_value = "256M")]
    cache: SizeBytes,
    /// Write no pin into the bucket: what maintenance deletes meanwhile may be missed
    #[arg(long)]
    no_pin: bool,
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
    let bucket = open_bucket(&args.bucket)?;
    let sheet = args.prices.sheet(&args.bucket.url)?;
    let pin = (!args.no_pin).then(|| PinOptions {
        pinner: bucket.pinner(),
        owner: format!("tidemark mount {}", args.dir.display()),
        lifetime: PIN_LIFETIME,
    });
    let cache_bytes_max = args.cache.get();
    let reader = ReaderOptions { cache_bytes_max, request_deadline: deadline, pin, ..Default::default() };
    let opened = tokio::select! {
        biased;
        () = &mut stop => return Ok(Outcome::Interrupted),
        domain = open_domain(&bucket, reader) => domain?,
    };
    let domain = opened.clone();
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
    let dir = args.dir.clone();
    let mut disks = Vec::new();
    let mount = if let Some(local) = &args.overlay {
        disks = recovery_disks(&opened, args.at.as_ref(), local, &env).await?;
        let (tree, env) = (Arc::new(LiveTree::new(disks.clone())), env.clone());
        tokio::task::spawn_blocking(move || tidemark_fuse::serve(tree, &dir, &serve, &env)).await.context("mount")??
    } else {
        let at = match &args.at {
            Some(spec) => Some(resolve(&opened, spec).await?),
            None => None,
        };
        let options = MountOptions { tree: TreeOptions { at, ..Default::default() }, serve };
        let env = env.clone();
        tokio::task::spawn_blocking(move || mount(opened, &dir, &options, &env)).await.context("mount")??
    };
    let mount = Arc::new(mount);
    let mounted = Mounted {
        mounted: mount.dir().display().to_string(),
        domain: timeline.domain().to_string(),
        name: timeline.name().to_owned(),
        latest_lsn: timeline.latest().lsn.get(),
    };
    ui.answer(&mounted, |mounted| format!("mounted {} on {}; Ctrl-C unmounts", mounted.name, mounted.mounted))?;
    say_rates(ui, &sheet);
    let rate = args.rate.map(|rate| Rate::bytes_per_second(rate.get()));
    let hydration = async {
        if args.hydrate {
            hydrate(&disks, rate, &env, ui).await;
        }
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        biased;
        () = &mut stop => unmount(&mount, ui).await,
        ended = mount.ended() => {
            ended?;
            ui.say("unmounted by somebody else");
            Ok(Outcome::Done)
        }
        () = hydration => unreachable!("it waits for the end of the mount"),
    };
    for disk in disks {
        let name = format!("{}/{}", disk.vm, disk.name);
        let closed = tokio::task::spawn_blocking(move || disk.overlay.close()).await.context("close an overlay")?;
        closed.with_context(|| format!("close the overlay of {name}"))?;
    }
    if let Err(error) = domain.unpin().await {
        ui.warn(format!("{:#}; it runs out within the hour", anyhow::Error::from(error)));
    }
    ended
}

/// The recovery disks in a local directory: of the point that they were made of, which the directory remembers, or of a new one.
async fn recovery_disks(
    domain: &Domain,
    at: Option<&PointSpec>,
    local: &Path,
    env: &Env,
) -> anyhow::Result<Vec<LiveDisk>> {
    let note = local.join("point");
    let known = match std::fs::read_to_string(&note) {
        Ok(text) => Some(text.trim().parse::<PointSpec>().with_context(|| format!("read {}", note.display()))?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("read {}", note.display())),
    };
    let spec = at.or(known.as_ref()).unwrap_or(&PointSpec::Latest);
    let point = resolve(domain, spec).await?;
    if known.is_none() {
        std::fs::create_dir_all(local).with_context(|| format!("make {}", local.display()))?;
        std::fs::write(&note, format!("lsn:{}\n", point.lsn)).with_context(|| format!("write {}", note.display()))?;
    }
    let disks = open_disks(domain, point, local, env).await?;
    anyhow::ensure!(!disks.is_empty(), "no disk can be restored at lsn {}", point.lsn);
    Ok(disks)
}

/// Hydrates one disk after the other, and says how it went.
async fn hydrate(disks: &[LiveDisk], rate: Option<Rate>, env: &Env, ui: &Ui) {
    for disk in disks {
        let name = format!("{}/{}", disk.vm, disk.name);
        let options = HydrateOptions { rate, ..HydrateOptions::default() };
        let hydrator = Hydrator::new(disk.overlay.clone(), options, env.clone());
        let bar = ui.bytes_bar(&name, Some(disk.overlay.size_bytes()));
        let mut news = hydrator.progress();
        let show = async {
            while news.changed().await.is_ok() {
                let progress = *news.borrow_and_update();
                bar.set(progress.done_bytes, progress.total_bytes);
            }
            std::future::pending::<()>().await;
        };
        let hydrated = tokio::select! {
            hydrated = hydrator.run() => hydrated,
            () = show => return,
        };
        match hydrated {
            Ok(hydrated) if hydrated.finished.is_some() => {
                ui.say(format_args!("{name} is hydrated: its overlay is a raw image"));
            }
            Ok(hydrated) => {
                ui.warn(format_args!(
                    "{name}: {} bytes are damaged or unknown and stay absent",
                    hydrated.unfilled_bytes
                ));
            }
            Err(error) => ui.warn(format_args!("{name} is not hydrated: {}", with_causes(&error))),
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
