//! Cuts the golden vectors into the inputs of the fuzz targets: `seeds VECTORS_DIR SEEDS_DIR`.

use std::path::Path;
use std::{env, fs, io};
use tidemark_format::{DomainId, Epoch, ObjectKey, Role, Seq};
use tidemark_fuzz::forge::Parts;
use tidemark_io_filter::nbd::wire::{self, Framing, RequestHeader, command, command_flag, option};

fn main() -> io::Result<()> {
    let mut args = env::args().skip(1);
    let (Some(vectors), Some(seeds)) = (args.next(), args.next()) else {
        return Err(io::Error::other("usage: seeds VECTORS_DIR SEEDS_DIR"));
    };
    let put = |target: &str, name: &str, bytes: &[u8]| {
        let dir = Path::new(&seeds).join(target);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(name), bytes)
    };
    for file in fs::read_dir(&vectors)? {
        let path = file?.path();
        let (Some(name), Some("bin")) =
            (path.file_stem().and_then(|n| n.to_str()), path.extension().and_then(|e| e.to_str()))
        else {
            continue;
        };
        let bytes = fs::read(&path)?;
        let of = name.strip_prefix("bad-").unwrap_or(name);
        if of.starts_with("claim") || of.starts_with("hint") {
            put("records", name, &bytes)?;
        } else if of.starts_with("genesis") {
            put("genesis", name, &bytes)?;
        } else {
            put("header", name, &bytes[..bytes.len().min(512)])?;
            put("segment", name, &bytes)?;
            put_sections(name, &mut Parts::split(&bytes), &put)?;
        }
    }
    put_log_store(&Path::new(&vectors).join("logstore"), &put)?;
    put("logwrites", "small", &write_log())?;
    for (name, bytes) in connections() {
        put("nbd", &name, &bytes)?;
    }
    let (epoch, seq) = (Epoch::new(42), Seq::new(7));
    let keys = [
        ObjectKey::Genesis,
        ObjectKey::writer_claim(epoch),
        ObjectKey::Claim { role: Role::Maintenance, epoch },
        ObjectKey::Log { epoch, seq },
        ObjectKey::Base { role: Role::Writer, epoch, seq },
        ObjectKey::Hint,
        ObjectKey::Probe { nonce: [0x5a; 16] },
    ];
    for key in keys {
        put("names", key.family().name(), key.to_string().as_bytes())?;
    }
    put("names", "domain", DomainId::new(*b"0123456789abcdef").to_string().as_bytes())
}

/// Structures of a log store behind a byte that says which, once as they are and once to be sealed again.
fn put_log_store(dir: &Path, put: &impl Fn(&str, &str, &[u8]) -> io::Result<()>) -> io::Result<()> {
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        let (Some(name), Some("bin")) =
            (path.file_stem().and_then(|n| n.to_str()), path.extension().and_then(|e| e.to_str()))
        else {
            continue;
        };
        let of = name.strip_prefix("bad-").unwrap_or(name);
        let kind = ["label", "table", "batch"].iter().position(|kind| of.starts_with(kind)).unwrap_or(0) as u8;
        let bytes = fs::read(&path)?;
        // Zeros that fill up the last page only slow down.
        let len = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        for (suffix, kind) in [("", 2 * kind), ("-resealed", 2 * kind + 1)] {
            put("logstore", &format!("{name}{suffix}"), &[&[kind], &bytes[..len]].concat())?;
        }
    }
    Ok(())
}

/// What NBD clients send, after a byte that says how: see the target.
fn connections() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (how, framing) in [Framing::Simple, Framing::Structured, Framing::Extended].into_iter().enumerate() {
        let mut bytes = Vec::new();
        let mut ask = |command: u16, flags: u16, offset: u64, len: u64, data: &[u8]| {
            let payload = framing == Framing::Extended && command == command::WRITE;
            let flags = flags | if payload { command_flag::PAYLOAD_LEN } else { 0 };
            RequestHeader { flags, command, cookie: 7, offset, len }.encode(framing, &mut bytes);
            bytes.extend_from_slice(data);
        };
        ask(command::WRITE, 0, 0, 512, &[1; 512]);
        ask(command::WRITE, command_flag::FUA, 100, 10, &[2; 10]);
        ask(command::READ, 0, 0, 4096, &[]);
        ask(command::READ, command_flag::DF, 510, 9, &[]);
        ask(command::WRITE_ZEROES, command_flag::NO_HOLE, 4000, 1000, &[]);
        ask(command::WRITE_ZEROES, command_flag::FAST_ZERO, 0, 8192, &[]);
        ask(command::TRIM, 0, 100, 5000, &[]);
        ask(command::CACHE, 0, 0, 4096, &[]);
        ask(command::FLUSH, 0, 0, 0, &[]);
        ask(command::BLOCK_STATUS, 0, 0, 65536, &[]);
        ask(command::BLOCK_STATUS, command_flag::REQ_ONE, 1, 100, &[]);
        ask(command::READ, 0, 1 << 40, 512, &[]);
        ask(command::WRITE, 0, 1 << 40, 16, &[3; 16]);
        ask(command::DISC, 0, 0, 0, &[]);
        for piece in 0..4 {
            let how = how as u8 | piece << 2 | 2 << 4;
            seeds.push((format!("requests-{how}"), [&[how][..], &bytes].concat()));
        }
    }
    let say = |option: u32, data: &[u8]| {
        let header = [&wire::OPTION_MAGIC.to_be_bytes()[..], &option.to_be_bytes(), &(data.len() as u32).to_be_bytes()];
        [&header.concat(), data].concat()
    };
    let disk = b"\0\0\0\x04disk";
    let all = [
        say(option::LIST, &[]),
        say(option::STRUCTURED_REPLY, &[]),
        say(option::LIST_META_CONTEXT, &[&disk[..], &[0; 4]].concat()),
        say(option::SET_META_CONTEXT, &[&disk[..], b"\0\0\0\x01\0\0\0\x0fbase:allocation"].concat()),
        say(option::INFO, &[&disk[..], b"\0\x03\0\x01\0\x02\0\x03"].concat()),
        say(option::EXTENDED_HEADERS, &[]),
        say(option::STARTTLS, &[]),
        say(option::EXPORT_NAME, b"disk"),
    ];
    seeds.push(("options".to_owned(), [&[1 << 4][..], &all.concat()].concat()));
    seeds
}

/// A write log of a write, a discard, a mark and a flush.
fn write_log() -> Vec<u8> {
    let mut out = Vec::new();
    let mut sector = |numbers: &[u64], text: &[u8]| {
        let start = out.len();
        numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        out.extend_from_slice(text);
        out.resize(start + 512, 0);
    };
    sector(&[0x006a_7366_7773_6872, 1, 4, 512], b"");
    sector(&[8, 1, 0, 0], b"");
    sector(&[], b"data of the first write");
    sector(&[16, 8, 4, 0], b"");
    sector(&[0, 0, 8, 4], b"mark");
    sector(&[0, 0, 1, 0], b"");
    out
}

/// Sections as the section targets take them.
fn put_sections(name: &str, parts: &mut Parts, put: &impl Fn(&str, &str, &[u8]) -> io::Result<()>) -> io::Result<()> {
    for id in parts.sections.iter().map(|section| section.id).collect::<Vec<_>>() {
        let bytes = parts.section(id).clone();
        match id {
            1 => {
                let times = parts.section(3).clone();
                put("index", name, &[&(bytes.len() as u16).to_le_bytes()[..], &bytes, &times].concat())?;
            }
            2 => {
                let mut data = &parts.data[..];
                for (i, entry) in bytes.chunks_exact(28).enumerate() {
                    let number = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().expect("four bytes"));
                    let (stored, rest) = data.split_at((number(0) as usize).min(data.len()));
                    let blocks = (number(4) / 512).saturating_sub(1) as u8;
                    put("frame", &format!("{name}-{i}"), &[&[entry[8], blocks], stored].concat())?;
                    data = rest;
                }
            }
            4 => put("events", name, &bytes)?,
            5 => put("cut", name, &bytes)?,
            _ => {}
        }
    }
    Ok(())
}
