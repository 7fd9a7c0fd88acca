//! The words of the command line: what all commands share, and the texts that name disks, sizes and points.

use crate::commands::Command;
use clap::{Args, Parser};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tidemark_api::units::parse_span;
use tidemark_bucket::{Attestation, BucketUrl};
use tidemark_format::{BLOCK_BYTES, DiskId};
use tidemark_writer::Attach;

/// Continuous data protection for VM disks whose only database is a bucket.
///
/// URL is DIR, file:///DIR, s3://BUCKET/PREFIX?endpoint=URL&region=R, azblob://CONTAINER/PREFIX or gs://BUCKET/PREFIX.
/// Credentials come from the environment (AWS_*, AZURE_STORAGE_*, GOOGLE_APPLICATION_CREDENTIALS) or the AWS profile,
/// never from flags.
#[derive(Debug, Parser)]
#[command(name = "tidemark", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 partly done, 10 no such bucket or domain, 11 fenced, \
                        12 denied, 13 corrupt, 130 interrupted"
)]
pub(crate) struct Cli {
    /// What all commands share.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_display_order = 900)]
pub(crate) struct Global {
    /// Answer in JSON, on stdout; errors too, on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say less: no progress, no notes
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Log more to stderr; twice for debugging (or set TIDEMARK_LOG)
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The bucket that a command works on.
#[derive(Clone, Debug, Args)]
pub(crate) struct BucketArgs {
    /// Where the domain's objects are
    #[arg(value_name = "URL")]
    pub(crate) url: UrlText,
}

/// What the operator vouches for where the store promises too little.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct AttestArgs {
    /// The store cannot create objects atomically; I promise that there is only ever one writer
    #[arg(long)]
    attest_single_writer: bool,
}

impl AttestArgs {
    pub(crate) fn attestation(self) -> Attestation {
        if self.attest_single_writer { Attestation::SingleWriterAttested } else { Attestation::None }
    }

    pub(crate) fn attach(self) -> Attach {
        if self.attest_single_writer { Attach::AttestedSingle } else { Attach::Probe }
    }
}

/// A bucket's URL as it was typed. It is parsed where it is used: the parser of arguments would repeat what it refuses,
/// and that may hold a secret.
#[derive(Clone)]
pub(crate) struct UrlText(String);

impl UrlText {
    pub(crate) fn parse(&self) -> tidemark_bucket::Result<BucketUrl> {
        self.0.parse()
    }

    /// In words that mean the same in every directory.
    pub(crate) fn anywhere(&self) -> std::io::Result<String> {
        match self.0.contains("://") {
            true => Ok(self.0.clone()),
            false => Ok(std::path::absolute(&self.0)?.display().to_string()),
        }
    }
}

impl From<String> for UrlText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for UrlText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UrlText(..)")
    }
}

/// A disk by the names that people gave it: `VM/DISK`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskName {
    /// Its VM.
    pub vm: String,
    /// Its name within the VM.
    pub disk: String,
}

impl FromStr for DiskName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not VM/DISK, such as web1/root");
        let (vm, disk) = text.split_once('/').ok_or_else(bad)?;
        if vm.is_empty() || disk.is_empty() || disk.contains('/') {
            return Err(bad());
        }
        Ok(Self { vm: vm.to_owned(), disk: disk.to_owned() })
    }
}

impl fmt::Display for DiskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.vm, self.disk)
    }
}

/// A disk by name, or by its number where a name was used twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DiskRef {
    /// `VM/DISK`: the newest disk of that name.
    Name(DiskName),
    /// `#N`.
    Id(DiskId),
}

impl FromStr for DiskRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix('#') {
            Some(number) => {
                number.parse().map(|n| Self::Id(DiskId::new(n))).map_err(|_| format!("{text:?} is not #N or VM/DISK"))
            }
            None => text.parse().map(Self::Name),
        }
    }
}

impl fmt::Display for DiskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Id(id) => write!(f, "#{id}"),
        }
    }
}

/// A size or an offset in bytes: `4096`, `64K`, `1GiB`. Units are powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SizeBytes(u64);

impl SizeBytes {
    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }
    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for SizeBytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let shift = match unit.to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            "p" => 50,
            _ => return Err(format!("{text:?} is not a size such as 4096, 64K or 10G")),
        };
        let number: u64 = number.parse().map_err(|_| format!("{text:?} is not a size such as 4096, 64K or 10G"))?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(|| format!("{text} is more than 2^64 bytes"))
    }
}

impl fmt::Display for SizeBytes {
    /// The largest unit that leaves a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(50, "P"), (40, "T"), (30, "G"), (20, "M"), (10, "K")] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// A span of time such as `5s`, in milliseconds.
pub(crate) fn span_ms(text: &str) -> Result<u64, String> {
    let span: Duration = parse_span(text).map_err(|e| e.to_string())?;
    u64::try_from(span.as_millis()).map_err(|_| format!("{text} is more than can be counted"))
}

/// A size of a disk: whole blocks.
pub(crate) fn disk_size(text: &str) -> Result<SizeBytes, String> {
    let size: SizeBytes = text.parse()?;
    match size.get() {
        0 => Err("a disk has at least one block of 512 bytes".to_owned()),
        bytes if !bytes.is_multiple_of(BLOCK_BYTES) => Err(format!("{bytes} is not a multiple of {BLOCK_BYTES} bytes")),
        _ => Ok(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("64K", 65_536), ("1g", 1 << 30), ("2MiB", 2 << 20), ("3kb", 3072)]
        {
            assert_eq!(text.parse(), Ok(SizeBytes::new(bytes)), "{text}");
        }
        for text in ["", "K", "1.5G", "-1", "64X", "99999999999999999999", "20000000T"] {
            assert!(text.parse::<SizeBytes>().is_err(), "{text}");
        }
        assert_eq!(SizeBytes::new(64 << 20).to_string(), "64M");
        assert_eq!(SizeBytes::new(1000).to_string(), "1000");
        assert!(disk_size("513").is_err() && disk_size("0").is_err() && disk_size("1M").is_ok());
    }

    #[test]
    fn disks_have_two_names_or_a_number() {
        assert_eq!("web1/root".parse::<DiskName>().map(|name| name.to_string()), Ok("web1/root".into()));
        assert_eq!("#7".parse(), Ok(DiskRef::Id(DiskId::new(7))));
        for text in ["", "web1", "/root", "web1/", "a/b/c", "#", "#x", "#4294967296"] {
            assert!(text.parse::<DiskRef>().is_err(), "{text}");
        }
    }
}
