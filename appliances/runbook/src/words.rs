//! Modes, networks and steps in the words that people read and write.

use crate::{Action, Check, Mode, Network, OnFailure, Probe, Script};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failover => "failover",
            Self::Test => "test",
            Self::Failback => "failback",
        })
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Failover, Self::Test, Self::Failback]
            .into_iter()
            .find(|mode| mode.to_string() == text)
            .ok_or_else(|| format!("{text:?} is not failover, test or failback"))
    }
}

impl fmt::Display for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Abort => "abort",
            Self::Continue => "continue",
            Self::Pause => "pause",
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unplugged => f.write_str("unplugged"),
            Self::Isolated => f.write_str("isolated"),
            Self::Outward => f.write_str("outward"),
            Self::Bridge(name) => write!(f, "bridge:{name}"),
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "unplugged" => Ok(Self::Unplugged),
            "isolated" => Ok(Self::Isolated),
            "outward" => Ok(Self::Outward),
            _ => match text.strip_prefix("bridge:") {
                // The kernel's limit, and what the command line of a hypervisor takes for one word.
                Some(name)
                    if (1..16).contains(&name.len())
                        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) =>
                {
                    Ok(Self::Bridge(name.to_owned()))
                }
                Some(name) => Err(format!("{name:?} is no name of a bridge")),
                None => Err(format!("{text:?} is not a network")),
            },
        }
    }
}

/// A span without what is not needed: `90s`, `1500ms`.
pub(crate) struct SpanWords(pub(crate) Duration);

impl fmt::Display for SpanWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_millis() {
            ms if ms % 1000 == 0 => write!(f, "{}s", ms / 1000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.command.join(" "))
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent => f.write_str("guest agent"),
            Self::Console(text) => write!(f, "console shows {text:?}"),
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Http { url, status } => write!(f, "{url} answers {status}"),
            Self::Command(command) => f.write_str(&command.join(" ")),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, within {}", self.probe, SpanWords(self.timeout))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Approve => f.write_str("wait for approval"),
            Self::Wait(span) => write!(f, "wait {}", SpanWords(*span)),
            Self::Script(script) => write!(f, "run {script}"),
            Self::Start(_) => f.write_str("start"),
            Self::Check(check) => write!(f, "check {check}"),
        }
    }
}
