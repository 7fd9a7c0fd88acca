//! An image of a disk at one point.

use super::{ExportArgs, Format, partial_beside, publish};
use crate::context::{disk_at, interrupted, open_bucket, open_domain, resolve};
use crate::cost::{Known, reading_data, say_before};
use crate::failure::{Outcome, Refused};
use crate::ui::{Bar, Ui};
use anyhow::Context;
use serde::Serialize;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempPath;
use tidemark_reader::{DiskImage, ExportSink, PointSpec, ReaderOptions, TimeText};

#[derive(Debug, Serialize)]
struct Report {
    disk: String,
    lsn: u64,
    time: String,
    size_bytes: u64,
    data_bytes: u64,
    out: String,
}

pub(super) async fn export(args: &ExportArgs, at: &PointSpec, ui: &Ui) -> anyhow::Result<Outcome> {
    let out = &args.out;
    let domain = open_domain(&open_bucket(&args.bucket)?, ReaderOptions::default()).await?;
    let point = resolve(&domain, at).await?;
    let disk = disk_at(&domain, &args.disk, point.lsn)?;
    let image = domain.disk(disk.id, point.lsn).await?;
    let sheet = args.prices.sheet(&args.bucket.url)?;
    say_before(ui, &sheet, &reading_data(image.data_bytes().await?), Known::AtMost);
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
        Format::Qcow2 => convert(&partial.into_temp_path(), out, "qcow2", &[])?,
        // Grains of 64 KiB that are allocated as they are needed.
        Format::Vmdk => convert(&partial.into_temp_path(), out, "vmdk", &["-o", "subformat=monolithicSparse"])?,
        // The smallest blocks that it knows: each that holds something is allocated whole.
        Format::Vhdx => convert(&partial.into_temp_path(), out, "vhdx", &["-o", "subformat=dynamic,block_size=1M"])?,
        _ => partial.into_temp_path(),
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

/// Has qemu-img make another kind of image of a raw one, whose holes it looks for.
fn convert(raw: &Path, out: &Path, format: &str, options: &[&str]) -> anyhow::Result<TempPath> {
    let target = partial_beside(out)?.into_temp_path();
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-f", "raw", "-O", format]).args(options).arg(raw).arg(&target).stdin(Stdio::null());
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
