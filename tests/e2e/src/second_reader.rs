//! The reader in Python of `format-spec/python`, which shares no code with ours.

use serde_json::Value as Json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file or folder of the tree.
pub fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// What it said, and how it ended.
#[derive(Debug)]
pub struct Answer {
    /// Its exit code.
    pub code: Option<i32>,
    /// Each line or document of JSON on its stdout.
    pub json: Vec<Json>,
    /// All that it said.
    pub text: String,
}

/// Runs `python3 ARGS` among the reader's files, with `input` on stdin and `environment` beside ours.
///
/// # Panics
/// If what it needs is not installed, with the command that does it.
pub fn python(args: &[&str], input: &str, environment: &[(&str, &str)]) -> Answer {
    let python = root(".tools/spec/python/bin/python");
    assert!(python.exists(), "there is no {}\nhint: run tests/spec/install.sh", python.display());
    let mut command = Command::new(python);
    command.args(args).current_dir(root("format-spec/python")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.envs(environment.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it is there");
    // Inputs are shorter than a pipe, so this does not wait for an answer.
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("the reader listens");
    let output = child.wait_with_output().expect("it is our child");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let json = serde_json::Deserializer::from_str(&stdout).into_iter().map_while(Result::ok).collect();
    let text = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
    Answer { code: output.status.code(), json, text }
}
