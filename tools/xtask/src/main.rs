//! Checks of the house, run as `cargo xtask NAME`; all of them also run as tests.

mod deps;
#[allow(unreachable_pub)]
#[path = "../../../format-spec/tests/forge/mod.rs"]
mod forge;
#[allow(unreachable_pub, dead_code)]
#[path = "../../../format-spec/tests/meaning/mod.rs"]
mod meaning;
mod offence;
#[allow(unreachable_pub, dead_code)]
#[path = "../../../format-spec/tests/r0/mod.rs"]
mod r0;
mod spec;
mod style;
mod vectors;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  deps                 dependencies point one way; names, time and entropy have one owner
  spec                 every rule of the specifications is cited by code and by a test
  style                length of files, unfinished code, names of tests
  vectors --write-new  add golden vectors that format-spec/vectors lacks
";

/// The root of the repository.
fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).canonicalize().expect("the workspace is here")
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let root = root();
    let sources = || offence::sources(&root);
    let offences = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["deps"] => [deps::check_manifests(&root, &deps::metadata(&root)), deps::check_time(&sources())].concat(),
        ["spec"] => spec::check_repository(&root, &sources()),
        ["style"] => style::check(&sources()),
        ["vectors", "--write-new"] => {
            for file in vectors::write_new(&root.join("format-spec/vectors")).expect("the folder can be written") {
                say(&format!("added {file}"));
            }
            return ExitCode::SUCCESS;
        }
        _ => {
            say(USAGE);
            return ExitCode::from(2);
        }
    };
    offences.iter().for_each(|offence| say(&offence.to_string()));
    if offences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One line for the person at the terminal.
fn say(line: &str) {
    // A closed pipe is no error of ours.
    let _ = writeln!(std::io::stdout(), "{}", line.trim_end());
}

/// Fails with every offence on a line of its own.
#[cfg(test)]
fn expect_none(offences: Vec<offence::Offence>) {
    let lines: Vec<_> = offences.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} offences:\n{}", lines.len(), lines.join("\n"));
}
