//! Changes with their contents, as `rbd import-diff` of Ceph takes them.
//!
//! Format v1, all numbers little endian: the line `rbd diff v1`, then records of one letter and what belongs to it: `f` and
//! `t`, the names of the snapshots from and to (u32 length, bytes), `s`, the size (u64), `w`, data (u64 offset, u64 length,
//! bytes), `z`, zeros (u64 offset, u64 length), and `e`, the end. Without `f` it starts from an empty image.

use crate::commands::export::{partial_beside, publish};
use crate::commands::points::PointReport;
use crate::context::interrupted;
use crate::failure::{Outcome, Refused};
use crate::ui::Ui;
use anyhow::Context;
use serde::Serialize;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use tidemark_format::{DiskId, Extent};
use tidemark_reader::{Domain, ExportSink, Point};

/// Data of one record at most: what an RBD image keeps in one object.
const RECORD_BYTES_MAX: usize = 4 << 20;

#[derive(Debug, Serialize)]
struct Report {
    disk: String,
    disk_id: u32,
    /// Absent for the whole disk.
    from: Option<PointReport>,
    to: PointReport,
    size_bytes: u64,
    data_bytes: u64,
    zero_bytes: u64,
    /// Absent for stdout.
    out: Option<String>,
}

/// Refuses to write to stdout what should not go there.
pub(super) fn check_stdout(ui: &Ui) -> anyhow::Result<()> {
    if io::stdout().is_terminal() {
        let hint = "pipe it to `rbd import-diff`, or say --out FILE";
        return Err(Refused::usage("a diff is not for terminals").hint(hint).into());
    }
    if ui.is_json() {
        return Err(Refused::usage("stdout cannot take both the diff and JSON").hint("say --out FILE").into());
    }
    Ok(())
}

/// Writes the diff to a file, or to stdout.
pub(super) async fn write(
    domain: &Domain,
    (id, disk): (DiskId, String),
    from: Option<Point>,
    to: Point,
    out: Option<&Path>,
    ui: &Ui,
) -> anyhow::Result<Outcome> {
    let image = domain.disk(id, to.lsn).await?;
    let extents = match from {
        Some(from) => {
            // A diff from a disk that nobody can have helps nobody.
            domain.disk(id, from.lsn).await?;
            joined(domain.changed(id, from.lsn, to.lsn).await?.iter().map(|changed| changed.extent))
        }
        None => vec![Extent::new(0, u64::MAX)],
    };
    let mut report = Report {
        disk,
        disk_id: id.get(),
        from: from.map(PointReport::from),
        to: to.into(),
        size_bytes: image.size_bytes(),
        data_bytes: 0,
        zero_bytes: 0,
        out: out.map(|out| out.display().to_string()),
    };
    let partial = out.map(partial_beside).transpose()?;
    let mut target: Box<dyn Write + Send> = match &partial {
        Some(partial) => Box::new(BufWriter::new(partial.as_file().try_clone().context("write the diff")?)),
        // Not the line buffer of stdout: a diff is full of line ends.
        None => Box::new(BufWriter::new(io::stdout())),
    };
    target.write_all(&head(from, to, image.size_bytes())).context("write the diff")?;
    let mut sink = Sink { out: target, at: 0, data: Vec::new(), data_bytes: 0, zero_bytes: 0 };
    let bar = ui.bytes_bar("diff", None);
    tokio::select! {
        exported = image.export_extents(&extents, &mut sink, |done| bar.set(done, done)) => exported?,
        () = interrupted() => return Err(Refused::interrupted("stopped; the diff is not complete").into()),
    }
    drop(bar);
    tokio::task::block_in_place(|| sink.finish()).context("write the diff")?;
    if let (Some(partial), Some(out)) = (partial, out) {
        tokio::task::block_in_place(|| partial.as_file().sync_all()).context("write the diff")?;
        publish(partial.into_temp_path(), out)?;
    }
    (report.data_bytes, report.zero_bytes) = (sink.data_bytes, sink.zero_bytes);
    match out {
        Some(_) => ui.answer(&report, in_text)?,
        None => ui.say(in_text(&report)),
    }
    Ok(Outcome::Done)
}

fn in_text(report: &Report) -> String {
    let Report { disk, from, to, size_bytes, data_bytes, zero_bytes, .. } = report;
    let from = from.as_ref().map_or("nothing".to_owned(), |from| format!("lsn-{}", from.lsn));
    let (data, zeros) = (indicatif::HumanBytes(*data_bytes), indicatif::HumanBytes(*zero_bytes));
    format!("{disk} from {from} to lsn-{}: {size_bytes} bytes, {data} of data and {zeros} of zeros changed", to.lsn)
}

/// What stands before the changes.
fn head(from: Option<Point>, to: Point, size_bytes: u64) -> Vec<u8> {
    let mut head = b"rbd diff v1\n".to_vec();
    let snapshots = from.map(|point| (b'f', point)).into_iter().chain([(b't', to)]);
    for (tag, point) in snapshots {
        let name = format!("lsn-{}", point.lsn);
        head.push(tag);
        head.extend_from_slice(&(name.len() as u32).to_le_bytes());
        head.extend_from_slice(name.as_bytes());
    }
    head.push(b's');
    head.extend_from_slice(&size_bytes.to_le_bytes());
    head
}

/// Joins extents that follow each other.
fn joined(extents: impl Iterator<Item = Extent>) -> Vec<Extent> {
    let mut all: Vec<Extent> = Vec::new();
    for extent in extents {
        match all.last_mut() {
            Some(last) if last.end() == extent.start => last.len += extent.len,
            _ => all.push(extent),
        }
    }
    all
}

/// Turns runs of bytes into records.
struct Sink {
    out: Box<dyn Write + Send>,
    /// Where `data` belongs.
    at: u64,
    data: Vec<u8>,
    data_bytes: u64,
    zero_bytes: u64,
}

impl Sink {
    fn record(&mut self, tag: u8, offset: u64, len: u64) -> io::Result<()> {
        let mut record = [0; 17];
        record[0] = tag;
        record[1..9].copy_from_slice(&offset.to_le_bytes());
        record[9..].copy_from_slice(&len.to_le_bytes());
        self.out.write_all(&record)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.data.is_empty() {
            return Ok(());
        }
        let len = self.data.len() as u64;
        self.record(b'w', self.at, len)?;
        self.out.write_all(&self.data)?;
        self.data_bytes += len;
        self.at += len;
        self.data.clear();
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        self.out.write_all(b"e")?;
        self.out.flush()
    }
}

impl ExportSink for Sink {
    fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        tokio::task::block_in_place(|| {
            if self.at + self.data.len() as u64 != offset || self.data.len() + bytes.len() > RECORD_BYTES_MAX {
                self.flush()?;
                self.at = offset;
            }
            self.data.extend_from_slice(bytes);
            Ok(())
        })
    }

    fn zeros(&mut self, offset: u64, len: u64) -> io::Result<()> {
        tokio::task::block_in_place(|| {
            self.flush()?;
            self.zero_bytes += len;
            self.record(b'z', offset, len)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_that_follow_each_other_are_one() {
        let extents = [(0, 8), (8, 8), (20, 1), (21, 3)].map(|(start, len)| Extent::new(start, len));
        assert_eq!(joined(extents.into_iter()), [Extent::new(0, 16), Extent::new(20, 4)]);
    }
}
