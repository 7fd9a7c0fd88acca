//! `tidemark export`: a disk as it was, as an image file; or what was written to it, as a log.

mod image;
mod log;

use crate::args::{BucketArgs, DiskRef, SizeBytes};
use crate::cost::PriceArgs;
use crate::failure::{Outcome, Refused};
use crate::ui::Ui;
use anyhow::Context;
use clap::{Args, ValueEnum};
use std::fs::File;
use std::path::{Path, PathBuf};
use tempfile::{NamedTempFile, TempPath};
use tidemark_reader::PointSpec;

/// Write a disk as it was at a point into an image file, or what was written to it into a log
///
/// `raw`, `qcow2`, `vmdk` and `vhdx` take `--at` and make an image. Holes stay holes.
///
/// `blklogwrites` (QEMU) and `dm-log-writes` (Linux) are one format and take `--from` and `--to`: what was written after
/// the first point and up to the second, each write, discard, flush and bookmark as one entry, in order. Replayed onto the
/// disk as it was at the first point, the log gives the disk at the second.
///
/// The file appears under its name only once it is complete and on disk.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    #[command(flatten)]
    prices: PriceArgs,
    /// The disk: VM/DISK, or #N
    #[arg(long, value_name = "VM/DISK")]
    disk: DiskRef,
    /// The point of an image: latest, lsn:N, an RFC 3339 time, -10m, or bookmark:NAME
    #[arg(long, value_name = "POINT", allow_hyphen_values = true, conflicts_with_all = ["from", "to", "sector_size"])]
    at: Option<PointSpec>,
    /// The point before a log's first entry [default: before the disk was added]
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    from: Option<PointSpec>,
    /// The point of a log's last entry [default: latest]
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    to: Option<PointSpec>,
    /// The sector of a log, in whose units it counts [default: 512]
    #[arg(long, value_name = "BYTES", value_parser = log::sector_size)]
    sector_size: Option<SizeBytes>,
    /// What to write; all but raw images and logs need qemu-img
    #[arg(long, value_enum, default_value_t = Format::Raw)]
    format: Format,
    /// Replace OUT if it is there
    #[arg(long)]
    force: bool,
    /// The file to write
    #[arg(value_name = "OUT")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// An image, byte for byte
    Raw,
    /// An image for QEMU
    Qcow2,
    /// An image for VMware
    Vmdk,
    /// An image for Hyper-V
    Vhdx,
    /// A log as by QEMU's blklogwrites driver
    Blklogwrites,
    /// A log as by Linux' dm-log-writes target
    DmLogWrites,
}

impl Format {
    fn is_log(self) -> bool {
        matches!(self, Self::Blklogwrites | Self::DmLogWrites)
    }
}

pub(crate) async fn run(args: ExportArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let out = &args.out;
    if !args.force && out.symlink_metadata().is_ok() {
        return Err(Refused::new(format!("{} is there already", out.display())).hint("replace it with --force").into());
    }
    let ranged = args.from.is_some() || args.to.is_some() || args.sector_size.is_some();
    match &args.at {
        Some(_) if args.format.is_log() => Err(Refused::usage("a log has no --at")
            .hint("say --from and --to: it holds what was written between")
            .into()),
        None if !args.format.is_log() && ranged => Err(Refused::usage("--from, --to and --sector-size are for logs")
            .hint("the point of an image is --at")
            .into()),
        None if !args.format.is_log() => Err(Refused::usage("an image needs a point").hint("say --at POINT").into()),
        Some(at) => image::export(&args, at, ui).await,
        None => log::export(&args, ui).await,
    }
}

/// A nameless neighbour of `out`, so that renaming it is atomic. Gone if anything fails.
pub(super) fn partial_beside(out: &Path) -> anyhow::Result<NamedTempFile> {
    let dir = out.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = out.file_name().with_context(|| format!("{} names no file", out.display()))?.to_string_lossy();
    tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .suffix(".partial")
        .tempfile_in(dir)
        .with_context(|| format!("make a file in {}", dir.display()))
}

/// Gives a complete file its name. It stays readable by its owner only: a disk holds its guest's secrets.
pub(super) fn publish(done: TempPath, out: &Path) -> anyhow::Result<()> {
    done.persist(out).with_context(|| format!("rename to {}", out.display()))?;
    let dir = out.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("sync {}", dir.display()))
}
