//! Checks of the house, run as `cargo xtask NAME`; all but `vectors` also run as tests.

#[allow(unreachable_pub)]
#[path = "../../../format-spec/tests/forge/mod.rs"]
mod forge;
#[allow(unreachable_pub, dead_code)]
#[path = "../../../format-spec/tests/meaning/mod.rs"]
mod meaning;
mod vectors;

use std::path::PathBuf;
use std::process::ExitCode;

/// The root of the repository.
fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).canonicalize().expect("the workspace is here")
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["vectors", "--write-new"] => {
            for file in vectors::write_new(&root().join("format-spec/vectors")).expect("the folder can be written") {
                println!("added {file}");
            }
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: cargo xtask vectors --write-new");
            ExitCode::from(2)
        }
    }
}
