//! `tidemark explain`: every version of one block.

use crate::args::{BucketArgs, DiskRef, SizeBytes};
use crate::context::{any_disk, open_bucket, open_domain};
use crate::failure::Outcome;
use crate::ui::Ui;
use clap::Args;
use serde::Serialize;
use std::fmt::Write;
use tidemark_format::BLOCK_BYTES;
use tidemark_reader::{BlockVersion, ReaderOptions, TimeText};

/// List every version of one block of a disk
///
/// Oldest first: the LSN and time of each write, what it was, the object and frame that hold it, and that frame's hash.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    /// The disk: VM/DISK, or #N
    #[arg(long, value_name = "VM/DISK")]
    disk: DiskRef,
    /// A byte of the disk; its block of 512 bytes is explained
    #[arg(long, value_name = "BYTES")]
    offset: SizeBytes,
}

#[derive(Debug, Serialize)]
struct Report {
    disk: String,
    disk_id: u32,
    offset_bytes: u64,
    len_bytes: u64,
    versions: Vec<Version>,
}

#[derive(Debug, Serialize)]
struct Version {
    lsn: u64,
    time: String,
    /// `data`, `zero` or `unmap`.
    kind: &'static str,
    /// The blocks of the write that the version is part of.
    write_offset_bytes: u64,
    write_len_bytes: u64,
    object: String,
    /// Number of the frame in the object that holds the bytes; absent for zeros.
    frame: Option<u32>,
    /// First 16 bytes of the BLAKE3 of the frame's stored bytes.
    frame_hash: Option<String>,
}

pub(crate) async fn run(args: ExplainArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let domain = open_domain(&open_bucket(&args.bucket)?, ReaderOptions::default()).await?;
    let (id, disk) = any_disk(&domain, &args.disk)?;
    let versions = domain.versions(id, args.offset.get()).await?;
    let report = Report {
        disk,
        disk_id: id.get(),
        offset_bytes: args.offset.get() / BLOCK_BYTES * BLOCK_BYTES,
        len_bytes: BLOCK_BYTES,
        versions: versions.iter().map(Version::from).collect(),
    };
    ui.answer(&report, in_text)?;
    Ok(Outcome::Done)
}

impl From<&BlockVersion> for Version {
    fn from(version: &BlockVersion) -> Self {
        Self {
            lsn: version.lsn.get(),
            time: TimeText(version.time).to_string(),
            kind: version.kind.name(),
            write_offset_bytes: version.extent.byte_start(),
            write_len_bytes: version.extent.byte_len(),
            object: version.key.to_string(),
            frame: version.frame.map(|frame| frame.index),
            frame_hash: version.frame.map(|frame| crate::ui::hex(&frame.hash)),
        }
    }
}

fn in_text(report: &Report) -> String {
    let mut out = format!("{} bytes {}+{}\n", report.disk, report.offset_bytes, report.len_bytes);
    if report.versions.is_empty() {
        out.push_str("unknown: nothing was ever written there\n");
    }
    for version in &report.versions {
        let Version { lsn, time, kind, write_offset_bytes: offset, write_len_bytes: len, object, .. } = version;
        write!(out, "lsn {lsn:<10} {time}  {kind:<5}  bytes {offset}+{len}  {object}").expect("a String takes all");
        if let (Some(frame), Some(hash)) = (version.frame, &version.frame_hash) {
            write!(out, " frame {frame} {hash}").expect("a String takes all");
        }
        out.push('\n');
    }
    out
}
