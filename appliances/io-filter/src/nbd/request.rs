//! Tells what a request asks, and whether that can be granted at all. Pure.

use super::negotiate::size_bytes;
use super::wire::{Errno, Framing, RequestHeader, command, command_flag};
use crate::range::ByteRange;
use crate::volume::{Geometry, Persist, ZeroOptions};

/// Something to do, within the bounds of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read; in one chunk if `whole`.
    Read {
        /// What.
        range: ByteRange,
        /// In one chunk.
        whole: bool,
    },
    /// Write what follows.
    Write {
        /// Where.
        range: ByteRange,
        /// What the reply promises.
        persist: Persist,
    },
    /// Make zeros.
    Zero {
        /// Where.
        range: ByteRange,
        /// How.
        options: ZeroOptions,
        /// What the reply promises.
        persist: Persist,
    },
    /// Forget.
    Trim {
        /// What.
        range: ByteRange,
        /// What the reply promises.
        persist: Persist,
    },
    /// Make all that was answered durable.
    Flush,
    /// Read ahead.
    Cache {
        /// What.
        range: ByteRange,
    },
    /// Tell what is known; of the first run only if `first`.
    Status {
        /// About what.
        range: ByteRange,
        /// The first run only.
        first: bool,
    },
}

/// What to do about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Do it.
    Do(Command),
    /// Answer with an error, after reading past so many bytes that follow the header.
    Refuse {
        /// The error.
        error: Errno,
        /// Why, for people.
        why: &'static str,
        /// What follows the header.
        skip_bytes: u64,
    },
    /// The client says goodbye.
    Disconnect,
}

/// Judges a request.
pub fn judge(header: &RequestHeader, framing: Framing, geometry: &Geometry, payload_bytes_max: u32) -> Verdict {
    use command_flag::{DF, FAST_ZERO, FUA, NO_HOLE, PAYLOAD_LEN, REQ_ONE};
    let has = |flag: u16| header.flags & flag != 0;
    let extended = framing == Framing::Extended;
    // Whether the length is that of a payload: always with a write, and wherever extended headers say so.
    let payload = header.command == command::WRITE || (extended && has(PAYLOAD_LEN));
    let refuse = |error, why| Verdict::Refuse { error, why, skip_bytes: if payload { header.len } else { 0 } };

    let valid = match header.command {
        command::READ if framing != Framing::Simple => FUA | DF,
        command::WRITE if extended => FUA | PAYLOAD_LEN,
        command::WRITE_ZEROES => FUA | NO_HOLE | FAST_ZERO,
        command::BLOCK_STATUS => FUA | REQ_ONE,
        command::DISC => u16::MAX,
        _ => FUA,
    };
    if header.flags & !valid != 0 {
        return refuse(Errno::Inval, "a flag that this command does not have");
    }
    let range = ByteRange::new(header.offset, header.len);
    let size = size_bytes(geometry);
    let inside = header.offset.checked_add(header.len).is_some_and(|end| end <= size);
    let large = header.len > u64::from(payload_bytes_max);
    let changes = matches!(header.command, command::WRITE | command::WRITE_ZEROES | command::TRIM);
    if changes && geometry.read_only {
        return refuse(Errno::Perm, "the export is read-only");
    }
    if changes && !inside {
        return refuse(Errno::NoSpace, "beyond the end of the export");
    }
    let persist = if has(FUA) { Persist::Fua } else { Persist::Normal };
    let command = match header.command {
        command::DISC => return Verdict::Disconnect,
        command::FLUSH => Command::Flush,
        command::READ | command::CACHE | command::BLOCK_STATUS if !inside => {
            return refuse(Errno::Inval, "beyond the end of the export");
        }
        command::READ if large && has(DF) => return refuse(Errno::Overflow, "larger than one reply may be"),
        command::READ | command::WRITE if large => return refuse(Errno::Inval, "larger than one payload may be"),
        command::READ => Command::Read { range, whole: has(DF) },
        command::WRITE => Command::Write { range, persist },
        command::WRITE_ZEROES => {
            let options = ZeroOptions { may_unmap: !has(NO_HOLE), fast_only: has(FAST_ZERO) };
            Command::Zero { range, options, persist }
        }
        command::TRIM => Command::Trim { range, persist },
        command::CACHE => Command::Cache { range },
        command::BLOCK_STATUS if range.len == 0 => return refuse(Errno::Inval, "the status of no bytes"),
        command::BLOCK_STATUS => Command::Status { range, first: has(REQ_ONE) },
        _ => return refuse(Errno::Inval, "an unknown command"),
    };
    Verdict::Do(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GEOMETRY: Geometry = Geometry::of_size(1 << 20);

    fn verdict(framing: Framing, command: u16, flags: u16, offset: u64, len: u64) -> Verdict {
        let header = RequestHeader { flags, command, cookie: 7, offset, len };
        judge(&header, framing, &GEOMETRY, 4096)
    }

    fn error(framing: Framing, command: u16, flags: u16, offset: u64, len: u64) -> (Errno, u64) {
        match verdict(framing, command, flags, offset, len) {
            Verdict::Refuse { error, skip_bytes, .. } => (error, skip_bytes),
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn prop_what_is_done_lies_within_the_volume(
            flags: u16, command in 0_u16..10, offset in 0_u64..(1 << 21), len in 0_u64..(1 << 21), extended: bool,
        ) {
            let framing = if extended { Framing::Extended } else { Framing::Simple };
            if let Verdict::Do(command) = verdict(framing, command, flags, offset, len) {
                match command {
                    Command::Read { range, .. } | Command::Write { range, .. } => {
                        prop_assert!(range.end() <= GEOMETRY.size_bytes && range.len <= 4096);
                    }
                    Command::Zero { range, .. }
                    | Command::Trim { range, .. }
                    | Command::Cache { range }
                    | Command::Status { range, .. } => prop_assert!(range.end() <= GEOMETRY.size_bytes),
                    Command::Flush => {}
                }
            }
        }

        #[test]
        fn prop_any_header_is_judged(flags: u16, command: u16, offset: u64, len: u64) {
            for framing in [Framing::Simple, Framing::Structured, Framing::Extended] {
                verdict(framing, command, flags, offset, len);
            }
        }
    }

    #[test]
    fn bounds_have_the_errors_that_clients_expect() {
        let simple = Framing::Simple;
        assert_eq!(error(simple, command::WRITE, 0, 1 << 20, 512), (Errno::NoSpace, 512));
        assert_eq!(error(simple, command::READ, 0, 1 << 20, 512), (Errno::Inval, 0));
        assert_eq!(error(simple, command::TRIM, 0, u64::MAX, 2), (Errno::NoSpace, 0));
        assert_eq!(error(simple, command::READ, 0, 0, 4097), (Errno::Inval, 0));
        assert_eq!(error(simple, command::WRITE, 0, 0, 4097), (Errno::Inval, 4097));
        assert_eq!(error(Framing::Structured, command::READ, command_flag::DF, 0, 4097), (Errno::Overflow, 0));
        assert_eq!(error(simple, command::BLOCK_STATUS, 0, 0, 0), (Errno::Inval, 0));
        assert_eq!(error(simple, 99, 0, 0, 512), (Errno::Inval, 0));
    }

    #[test]
    fn flags_belong_to_commands_and_framings() {
        let df = command_flag::DF;
        assert_eq!(error(Framing::Simple, command::READ, df, 0, 512).0, Errno::Inval);
        assert!(matches!(verdict(Framing::Structured, command::READ, df, 0, 512), Verdict::Do(_)));
        assert_eq!(error(Framing::Simple, command::TRIM, command_flag::NO_HOLE, 0, 512).0, Errno::Inval);
        let payload = command_flag::PAYLOAD_LEN;
        assert!(matches!(verdict(Framing::Extended, command::WRITE, payload, 0, 512), Verdict::Do(_)));
        assert_eq!(error(Framing::Structured, command::WRITE, payload, 0, 512), (Errno::Inval, 512));
        assert_eq!(error(Framing::Extended, command::READ, payload, 0, 512), (Errno::Inval, 512));
    }

    #[test]
    fn a_read_only_export_refuses_changes_and_reads_past_their_payload() {
        let geometry = Geometry { read_only: true, ..GEOMETRY };
        let header = RequestHeader { flags: 0, command: command::WRITE, cookie: 7, offset: 0, len: 512 };
        let verdict = judge(&header, Framing::Simple, &geometry, 4096);
        assert!(matches!(verdict, Verdict::Refuse { error: Errno::Perm, skip_bytes: 512, .. }));
    }
}
