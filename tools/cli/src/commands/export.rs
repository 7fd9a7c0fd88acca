//! `tidemark export`: a disk as it was, as an image file.

use crate::args::{BucketArgs, DiskRef};
use crate::context::{disk_at, interrupted, open_bucket, open_domain, resolve};
use crate::failure::{Outcome, Refused};
use crate::ui::{Bar, Ui};
use anyhow::Context;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::{NamedTempFile, TempPath};
use tidemark_reader::{DiskImage, ExportSink, PointSpec, ReaderOptions, TimeText};

/// Write a disk as it was at a point into an image file
///
/// Holes stay holes. The file appears under its name only once it is complete and on disk.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    /// The disk: VM/DISK, or #N
    #[arg(long, value_name = "VM/DISK")]
    disk: DiskRef,
    /// The point: latest, lsn:N, an RFC 3339 time, -10m, or bookmark:NAME
    #[arg(long, value_name = "POINT", allow_hyphen_values = true)]
    at: PointSpec,
    /// What to write; qcow2 needs qemu-img
    #[arg(long, value_enum, default_value_t = Format::Raw)]
    format: Format,
    /// Replace OUT if it is there
    #[arg(long)]
    force: bool,
    /// The image file
    #[arg(value_name = "OUT")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Raw,
    Qcow2,
}

#[derive(Debug, Serialize)]
struct Report {
    disk: String,
    lsn: u64,
    time: String,
    size_bytes: u64,
    data_bytes: u64,
    out: String,
}

pub(crate) async fn run(args: ExportArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let out = &args.out;
    if !args.force && out.symlink_metadata().is_ok() {
        return Err(Refused::new(format!("{} is there already", out.display())).hint("replace it with --force").into());
    }
    let domain = open_domain(&open_bucket(&args.bucket)?, ReaderOptions::default()).await?;
    let point = resolve(&domain, &args.at)?;
    let disk = disk_at(&domain, &args.disk, point.lsn)?;
    let image = domain.disk(disk.id, point.lsn).await?;
    let partial = partial_beside(out)?;
    let bar = ui.bytes_bar("export", Some(image.size_bytes()));
    let data_bytes = tokio::select! {
        copied = copy(&image, partial.as_file(), &bar) => copied?,
        () = interrupted() => {
            return Err(Refused::interrupted(format!("stopped; {} was not written", out.display())).into());
        }
    };
    drop(bar);
    let done = match args.format {
        Format::Raw => partial.into_temp_path(),
        Format::Qcow2 => qcow2(&partial.into_temp_path(), out)?,
    };
    publish(done, out)?;
    let report = Report {
        disk: format!("{}/{}", disk.vm, disk.name),
        lsn: point.lsn.get(),
        time: TimeText(point.time).to_string(),
        size_bytes: image.size_bytes(),
        data_bytes,
        out: out.display().to_string(),
    };
    ui.answer(&report, |r| {
        let data = indicatif::HumanBytes(r.data_bytes);
        format!(
            "{} at lsn {} ({}): {} of {} bytes hold data ({data}), in {}",
            r.disk, r.lsn, r.time, r.data_bytes, r.size_bytes, r.out
        )
    })?;
    Ok(Outcome::Done)
}

/// A nameless neighbour of `out`, so that renaming it is atomic. Gone if anything fails.
fn partial_beside(out: &Path) -> anyhow::Result<NamedTempFile> {
    let dir = out.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = out.file_name().with_context(|| format!("{} names no file", out.display()))?.to_string_lossy();
    tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .suffix(".partial")
        .tempfile_in(dir)
        .with_context(|| format!("make a file in {}", dir.display()))
}

/// Writes data where it belongs and leaves holes where there is none.
struct Sparse<'a> {
    out: &'a File,
    data_bytes: u64,
}

impl ExportSink for Sparse<'_> {
    fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.data_bytes += bytes.len() as u64;
        tokio::task::block_in_place(|| self.out.write_all_at(bytes, offset))
    }

    fn zeros(&mut self, _: u64, _: u64) -> io::Result<()> {
        // The file was made of one hole.
        Ok(())
    }
}

/// Copies a disk into an empty file; how many bytes of data there were.
async fn copy(image: &DiskImage, out: &File, bar: &Bar) -> anyhow::Result<u64> {
    out.set_len(image.size_bytes()).context("set the size of the image")?;
    let mut sink = Sparse { out, data_bytes: 0 };
    image.export(&mut sink, |done| bar.set(done, image.size_bytes())).await?;
    tokio::task::block_in_place(|| out.sync_all()).context("write the image")?;
    Ok(sink.data_bytes)
}

fn qcow2(raw: &Path, out: &Path) -> anyhow::Result<TempPath> {
    let target = partial_beside(out)?.into_temp_path();
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-f", "raw", "-O", "qcow2"]).arg(raw).arg(&target).stdin(Stdio::null());
    let ran = match convert.output() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Refused::new("no qemu-img here").hint("apt install qemu-utils, or export --format raw").into());
        }
        other => other.context("run qemu-img")?,
    };
    let said = String::from_utf8_lossy(&ran.stderr);
    anyhow::ensure!(ran.status.success(), "qemu-img convert: {}", said.trim());
    File::open(&target).and_then(|file| file.sync_all()).context("write the image")?;
    Ok(target)
}

/// Gives a complete image its name. It stays readable by its owner only: a disk holds its guest's secrets.
fn publish(done: TempPath, out: &Path) -> anyhow::Result<()> {
    done.persist(out).with_context(|| format!("rename to {}", out.display()))?;
    let dir = out.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("sync {}", dir.display()))
}
