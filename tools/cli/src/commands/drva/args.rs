//! Words that several commands share.

use clap::ValueEnum;
use std::str::FromStr;
use tidemark_api::units::{parse_rate, parse_size_limit};
use tidemark_api::{
    BandwidthWindow, BookmarkLevel, Day, DiskAddress, GuestAgent, Limit, OverflowPolicy, ProtectionMode,
};

/// A disk of the appliance: `DOMAIN/VM/DISK`.
pub(super) fn disk(text: &str) -> Result<DiskAddress, String> {
    match *text.split('/').collect::<Vec<_>>() {
        [domain, vm, disk] if ![domain, vm, disk].contains(&"") => {
            Ok(DiskAddress { domain: domain.to_owned(), vm: vm.to_owned(), disk: disk.to_owned() })
        }
        _ => Err(format!("{text:?} is not DOMAIN/VM/DISK, such as accounting/web1/root")),
    }
}

/// A rate such as `50MiB/s`, or `unlimited`.
pub(super) fn rate(text: &str) -> Result<Limit, String> {
    parse_rate(text).map_err(|e| e.to_string())
}

/// A size such as `8GiB`, or `unlimited`.
pub(super) fn size_limit(text: &str) -> Result<Limit, String> {
    parse_size_limit(text).map_err(|e| e.to_string())
}

/// `VM=SOCKET`.
pub(super) fn agent(text: &str) -> Result<GuestAgent, String> {
    match text.split_once('=') {
        Some((vm, socket)) if !vm.is_empty() && !socket.is_empty() => {
            Ok(GuestAgent { vm: vm.to_owned(), socket: socket.to_owned() })
        }
        _ => Err(format!("{text:?} is not VM=SOCKET, such as web1=/run/qga/web1.sock")),
    }
}

/// `DAYS FROM-TO RATE`, such as `mon-fri 08:00-18:00 10MiB/s`; DAYS is `daily`, or days and ranges of them with commas.
pub(super) fn window(text: &str) -> Result<BandwidthWindow, String> {
    let bad = |why: String| format!("{text:?} is not a window such as \"mon-fri 08:00-18:00 10MiB/s\": {why}");
    let words: Vec<_> = text.split_whitespace().collect();
    let [on, hours, limit] = *words else { return Err(bad("it takes three words".to_owned())) };
    let (from, to) = hours.split_once('-').ok_or_else(|| bad(format!("{hours} is not FROM-TO")))?;
    Ok(BandwidthWindow {
        days: days(on).map_err(bad)?,
        from: from.parse().map_err(|e| bad(format!("{e}")))?,
        to: to.parse().map_err(|e| bad(format!("{e}")))?,
        upload_bytes_per_s: rate(limit).map_err(bad)?,
    })
}

fn days(text: &str) -> Result<Vec<Day>, String> {
    let day = |name: &str| {
        let known = Day::ALL.into_iter().find(|day| format!("{day:?}").eq_ignore_ascii_case(name));
        known.ok_or_else(|| format!("{name:?} is no day"))
    };
    let mut days = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            _ if part == "daily" => days.extend(Day::ALL),
            None => days.push(day(part)?),
            Some((first, last)) => {
                let (first, last) = (day(first)? as usize, day(last)? as usize);
                let count = (last + 7 - first) % 7 + 1;
                days.extend(Day::ALL.into_iter().cycle().skip(first).take(count));
            }
        }
    }
    days.sort();
    days.dedup();
    Ok(days)
}

/// A choice on the command line for each choice of the API.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident as $of:ident { $($(#[$doc:meta])* $word:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, ValueEnum)]
        pub(super) enum $name {
            $($(#[$doc])* $word,)*
        }

        impl From<$name> for $of {
            fn from(word: $name) -> Self {
                match word {
                    $($name::$word => Self::$word,)*
                }
            }
        }
    };
}

words! {
    /// When a write is acknowledged.
    Mode as ProtectionMode {
        /// It is in the replication log and on the primary disk
        WriteThrough,
        /// It is in the replication log; the primary disk catches up
        WriteBack,
    }
}

words! {
    /// What becomes of writes when the log is full.
    Overflow as OverflowPolicy {
        /// They wait until there is room, and the VM stands still
        Stall,
        /// They go unprotected, and the history has a gap that a resync closes
        Degrade,
    }
}

words! {
    /// How consistent the guests are at a bookmark.
    Level as BookmarkLevel {
        /// As after pulling the plug
        Crash,
        /// File systems are frozen by the guest agents of --agent
        Fs,
        /// Applications are quiesced by the command of --pre
        App,
    }
}

/// A number of bytes, of blocks of 512.
pub(super) fn disk_size(text: &str) -> Result<u64, String> {
    crate::args::disk_size(text).map(crate::args::SizeBytes::get)
}

/// A number of bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    crate::args::SizeBytes::from_str(text).map(crate::args::SizeBytes::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_have_three_names() {
        assert_eq!(disk("accounting/web1/root").unwrap().to_string(), "web1/root of accounting");
        for text in ["", "web1/root", "a/b/", "/b/c", "a//c", "a/b/c/d"] {
            assert!(disk(text).is_err(), "{text}");
        }
    }

    #[test]
    fn windows_read_as_people_write_them() {
        use Day::{Fri, Mon, Sat, Sun, Thu, Tue, Wed};
        let on = |text: &str| window(&format!("{text} 08:00-18:00 10MiB/s")).map(|window| window.days);
        assert_eq!(on("mon-fri"), Ok(vec![Mon, Tue, Wed, Thu, Fri]));
        assert_eq!(on("fri-mon"), Ok(vec![Mon, Fri, Sat, Sun]));
        assert_eq!(on("sun,Wed,sun"), Ok(vec![Wed, Sun]));
        assert_eq!(on("daily").map(|days| days.len()), Ok(7));
        let night = window("daily 22:00-06:00 unlimited").unwrap();
        assert_eq!((night.from.to_string(), night.upload_bytes_per_s), ("22:00".into(), Limit::Unlimited));
        for text in ["", "mon", "mon 08:00 1/s", "mon 8-18 1MiB/s", "mon 08:00-18:00 fast", "moon 08:00-18:00 1MiB/s"] {
            assert!(window(text).unwrap_err().contains("mon-fri 08:00-18:00 10MiB/s"), "{text}");
        }
    }
}
