//! DuckDB, Arrow and Prometheus' own parser, and what a running appliance shows to scrapers.

use crate::second_reader::root;
use serde_json::Value as Json;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs `tests/tables/check.py ARGS` with `input` on stdin; what it found.
///
/// # Panics
/// If it finds a fault, or what it needs is not installed.
pub fn check(args: &[&str], input: &str) -> Json {
    let python = root(".tools/tables/python/bin/python");
    assert!(python.exists(), "there is no {}\nhint: run tests/tables/install.sh", python.display());
    let mut command = Command::new(python);
    command.arg(root("tests/tables/check.py")).args(args).env("PYTHONDONTWRITEBYTECODE", "1");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it is there");
    // Nothing is said before all of it was read.
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("the checker listens");
    let output = child.wait_with_output().expect("it is our child");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the checker answers in JSON")
}

/// What an appliance answers to a GET on its control socket: head and body.
///
/// # Panics
/// If nobody listens.
pub fn get(socket: &Path, path: &str) -> (String, String) {
    let stream = UnixStream::connect(socket).unwrap_or_else(|e| panic!("{}: {e}", socket.display()));
    get_over(stream, path)
}

/// The same over any connection.
///
/// # Panics
/// If the connection breaks.
pub fn get_over(mut stream: impl Read + Write, path: &str) -> (String, String) {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: tidemark\r\nConnection: close\r\n\r\n").expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers in text");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {answer}"));
    (head.to_owned(), body.to_owned())
}
