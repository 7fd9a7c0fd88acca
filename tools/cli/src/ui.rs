//! The one place that prints: data to stdout, talk to stderr, progress only where a person watches.
#![allow(clippy::disallowed_macros, reason = "this is where the command line prints")]

use crate::args::Global;
use crate::failure::verdict;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// How a command talks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ui {
    json: bool,
    quiet: bool,
}

/// Whether somebody still reads what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// As far as can be told.
    Listens,
    /// The pipe was closed: whoever read has seen enough.
    Gone,
}

#[derive(Serialize)]
struct ErrorReport {
    error: String,
    hint: Option<String>,
    exit_code: u8,
}

impl Ui {
    pub(crate) fn new(global: &Global) -> Self {
        Self { json: global.json, quiet: global.quiet }
    }

    /// Sends the libraries' log to stderr: warnings, more with `-v` and of services, or what TIDEMARK_LOG says.
    pub(crate) fn start_log(self, verbose: u8) {
        use tracing_subscriber::EnvFilter;
        let level = match verbose {
            0 => "warn",
            1 => "info",
            2 => "debug",
            _ => "trace",
        };
        let filter = EnvFilter::try_from_env("TIDEMARK_LOG").unwrap_or_else(|_| EnvFilter::new(level));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .init();
    }

    /// The answer: as JSON if that is wanted, else as text.
    pub(crate) fn answer<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        if self.json {
            self.data(&serde_json::to_string_pretty(value)?)
        } else {
            self.data(text(value).trim_end_matches('\n'))
        }
    }

    /// True if the answer is to be JSON.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Lines of the answer on stdout. A reader who has seen enough (`| head`) is no error.
    pub(crate) fn data(self, text: &str) -> anyhow::Result<()> {
        self.write(&[text.as_bytes(), b"\n"]).map(drop)
    }

    /// Bytes of the answer on stdout.
    pub(crate) fn bytes(self, bytes: &[u8]) -> anyhow::Result<()> {
        self.write(&[bytes]).map(drop)
    }

    /// One of many answers: a line of JSON, or lines of text.
    pub(crate) fn one_of_many<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<Reader> {
        let text = if self.json { serde_json::to_string(value)? } else { text(value) };
        self.write(&[text.trim_end_matches('\n').as_bytes(), b"\n"])
    }

    /// An answer in place of the one before.
    pub(crate) fn instead<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<Reader> {
        const HOME_AND_CLEAR: &[u8] = b"\x1b[H\x1b[2J";
        if self.json || !io::stdout().is_terminal() {
            return self.one_of_many(value, |value| text(value) + "\n");
        }
        self.write(&[HOME_AND_CLEAR, text(value).as_bytes()])
    }

    fn write(self, parts: &[&[u8]]) -> anyhow::Result<Reader> {
        let mut out = io::stdout().lock();
        let done = parts.iter().try_for_each(|part| out.write_all(part)).and_then(|()| out.flush());
        match done {
            Ok(()) => Ok(Reader::Listens),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
            Err(e) => Err(e.into()),
        }
    }

    /// Talk.
    pub(crate) fn say(self, text: impl fmt::Display) {
        if !self.quiet && !self.json {
            eprintln!("{text}");
        }
    }

    /// Talk that nobody may switch off.
    pub(crate) fn warn(self, text: impl fmt::Display) {
        eprintln!("warning: {text}");
    }

    /// Progress of `total` bytes, if somebody watches.
    pub(crate) fn bytes_bar(self, what: &str, total: Option<u64>) -> Bar {
        let style = match total {
            Some(_) => "{prefix:>10} [{bar:32}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {msg}",
            None => "{prefix:>10} {spinner} {bytes} {binary_bytes_per_sec} {msg}",
        };
        self.bar(what, total, style)
    }

    /// Progress of `total` things, if somebody watches.
    pub(crate) fn count_bar(self, what: &str, total: u64) -> Bar {
        self.bar(what, Some(total), "{prefix:>10} [{bar:32}] {pos}/{len} {per_sec} {eta} {msg}")
    }

    fn bar(self, what: &str, total: Option<u64>, style: &str) -> Bar {
        let watched = !self.quiet && !self.json && io::stderr().is_terminal();
        let target = if watched { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total, target);
        let style = ProgressStyle::with_template(style).expect("the templates above are right");
        bar.set_style(style.progress_chars("=> "));
        bar.set_prefix(what.to_owned());
        if watched {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Bar { bar }
    }

    /// Reports an error; the exit code that goes with it.
    pub(crate) fn fail(self, error: &anyhow::Error) -> ExitCode {
        let verdict = verdict(error);
        let text = format!("{error:#}");
        if self.json {
            let report = ErrorReport { error: text, hint: verdict.hint, exit_code: verdict.code };
            eprintln!("{}", serde_json::to_string_pretty(&report).unwrap_or(report.error));
        } else {
            eprintln!("error: {text}");
            if let Some(hint) = verdict.hint {
                eprintln!("hint: {hint}");
            }
        }
        ExitCode::from(verdict.code)
    }
}

/// A progress bar that goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// So much more is done.
    pub(crate) fn add(&self, more: u64) {
        self.bar.inc(more);
    }

    /// So much of so much is done.
    pub(crate) fn set(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    /// What is being done.
    pub(crate) fn say(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Bytes as people and JSON see them.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").expect("writing to a String cannot fail");
        out
    })
}
