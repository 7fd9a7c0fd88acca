//! A disk's contents as they are: seeded as base segments of a new disk.

use super::input::Input;
use super::{IngestArgs, Report, find_disk, no_size, open_writer};
use crate::failure::{Outcome, Refused};
use crate::ui::{Bar, Ui};
use anyhow::Context;
use bytes::Bytes;
use futures::stream;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use tidemark_format::{BLOCK_BYTES, DiskId};
use tidemark_writer::{Content, DomainWriter, NewDisk, SeedPiece, When};

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces read ahead of the writer.
const PIECES_AHEAD_MAX: usize = 4;

pub(super) async fn ingest(args: &IngestArgs, input: &Input, ui: &Ui) -> anyhow::Result<(Report, Outcome)> {
    let contents_bytes = contents_bytes(input)?;
    let size_bytes = match (args.size, contents_bytes) {
        (Some(size), Some(bytes)) if bytes > size.get() => {
            let what = format!("{} has {bytes} bytes, more than --size {size}", input.name());
            return Err(Refused::new(what).hint("leave --size out, or make it larger").into());
        }
        (Some(size), _) => size.get(),
        (None, Some(0)) => return Err(Refused::new(format!("{} is empty", input.name())).hint("say --size").into()),
        (None, Some(bytes)) => bytes.next_multiple_of(BLOCK_BYTES),
        (None, None) => return Err(no_size(args).into()),
    };
    let writer = open_writer(args).await?;
    let disk = add_disk(&writer, args, size_bytes).await?;
    let bar = ui.bytes_bar("seed", Some(size_bytes));
    // Reading blocks, so it has a thread of its own, a few pieces ahead.
    let (send, receive) = tokio::sync::mpsc::channel(PIECES_AHEAD_MAX);
    let source = input.clone();
    let reading = tokio::task::spawn_blocking(move || read_pieces(&source, size_bytes, &send));
    let pieces = stream::unfold((receive, bar), |(mut receive, bar)| async move {
        let piece: io::Result<SeedPiece> = receive.recv().await?;
        if let Ok(piece) = &piece {
            progress(&bar, piece);
        }
        Some((piece, (receive, bar)))
    });
    let when = args.time_start.map_or(When::Now, When::At);
    tokio::select! {
        seeded = writer.seed(disk, pieces, when) => {
            let seeded = seeded?;
            reading.await.context("read the image")??;
            writer.close().await?;
            let report = Report {
                domain: writer.domain().to_string(),
                disk: args.disk.to_string(),
                disk_id: disk.get(),
                size_bytes,
                data_bytes: seeded.stored_bytes,
                first_lsn: seeded.from.get(),
                last_lsn: seeded.consistent_from.get(),
                complete: true,
                ..Report::default()
            };
            Ok((report, Outcome::Done))
        }
        () = crate::context::interrupted() => {
            let what = format!("{} is seeded in part and not restorable", args.disk);
            Err(Refused::interrupted(what).hint("run the same command again to seed it anew").into())
        }
    }
}

/// The disk to seed: a new one, or one whose seeding was cut short.
async fn add_disk(writer: &DomainWriter, args: &IngestArgs, size_bytes: u64) -> anyhow::Result<DiskId> {
    let Some(disk) = find_disk(writer, &args.disk) else {
        let disk = NewDisk { vm: args.disk.vm.clone(), name: args.disk.disk.clone(), size_bytes };
        let when = args.time_start.map_or(When::Now, When::At);
        let (id, _) = writer.submit_disk_add(&disk, Content::Existing, when).await?;
        return Ok(id);
    };
    let found_bytes = disk.blocks * BLOCK_BYTES;
    if disk.consistent_from.is_some() {
        let what = format!("{} is in the domain already, as disk {}", args.disk, disk.disk);
        let hint =
            "a raw image is the beginning of a new disk: choose another VM/DISK name, or ingest a log of its writes";
        return Err(Refused::new(what).hint(hint).into());
    }
    if found_bytes != size_bytes {
        let what = format!("{} has {found_bytes} bytes in the domain, the image {size_bytes}", args.disk);
        return Err(Refused::new(what).hint("choose another VM/DISK name, or give --size").into());
    }
    Ok(disk.disk)
}

/// Length of the contents, if that can be known before they are read. Compressed ones are read once for it.
fn contents_bytes(input: &Input) -> anyhow::Result<Option<u64>> {
    if let Some(mut file) = input.plain_file()? {
        return Ok(Some(file.seek(SeekFrom::End(0)).context("seek in the image")?));
    }
    if input.again().is_none() {
        return Ok(None);
    }
    let bytes = io::copy(&mut input.open()?, &mut io::sink()).with_context(|| format!("read {}", input.name()))?;
    Ok(Some(bytes))
}

fn progress(bar: &Bar, piece: &SeedPiece) {
    bar.add(match piece {
        SeedPiece::Data { data: bytes, .. } => bytes.len() as u64,
        SeedPiece::Zero { len, .. } => *len,
    });
}

type Sender = tokio::sync::mpsc::Sender<io::Result<SeedPiece>>;

/// Sends the contents in order, padded with zeros to the disk's size; ends early if nobody listens any more.
fn read_pieces(input: &Input, size_bytes: u64, to: &Sender) -> anyhow::Result<()> {
    let mut source = match input.plain_file()? {
        Some(file) => Source::Sparse(file),
        None => Source::Stream(input.open()?),
    };
    let mut offset = 0;
    while offset < size_bytes {
        let piece = source.next(offset, size_bytes);
        let len = match &piece {
            Ok(SeedPiece::Data { data: bytes, .. }) => bytes.len() as u64,
            Ok(SeedPiece::Zero { len, .. }) => *len,
            Err(_) => 0,
        };
        let failed = piece.is_err();
        if to.blocking_send(piece).is_err() || failed {
            return Ok(());
        }
        offset += len;
    }
    if let Source::Stream(stream) = &mut source
        && stream.read(&mut [0])? != 0
    {
        let error = io::Error::other(format!("it has more bytes than the disk, {size_bytes}"));
        // The writer, not this thread, has to learn of it, or it would call the disk restorable.
        let _ = to.blocking_send(Err(error));
    }
    Ok(())
}

enum Source {
    /// A file whose holes can be found.
    Sparse(File),
    /// Anything else.
    Stream(Box<dyn Read + Send>),
}

impl Source {
    /// What comes at `offset`: at most a piece of data, or a hole, in whole blocks.
    fn next(&mut self, offset: u64, size_bytes: u64) -> io::Result<SeedPiece> {
        if let Self::Sparse(file) = self {
            let data = next_data(file, offset)?.map_or(size_bytes, |at| (at / BLOCK_BYTES * BLOCK_BYTES).max(offset));
            let data = data.min(size_bytes);
            if data > offset {
                return Ok(SeedPiece::Zero { offset, len: data - offset });
            }
            file.seek(SeekFrom::Start(offset))?;
        }
        let mut bytes = vec![0; PIECE_BYTES.min((size_bytes - offset) as usize)];
        let mut got = 0;
        while got < bytes.len() {
            let read = match self {
                Self::Sparse(file) => file.read(&mut bytes[got..]),
                Self::Stream(stream) => stream.read(&mut bytes[got..]),
            };
            match read {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if got == 0 {
            return Ok(SeedPiece::Zero { offset, len: size_bytes - offset });
        }
        bytes.truncate((got as u64).next_multiple_of(BLOCK_BYTES) as usize);
        Ok(SeedPiece::Data { offset, data: Bytes::from(bytes) })
    }
}

/// Where data begins at or after `offset`; `None` if only a hole follows.
fn next_data(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
        Ok(at) => Ok(Some(at)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        // A file system or device that knows no holes.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOTSUP) => Ok(Some(offset)),
        Err(e) => Err(e.into()),
    }
}
