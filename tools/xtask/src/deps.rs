//! Which crate may name which: dependencies point one way (docs/ARCHITECTURE.md), and some names have one owner.

use crate::offence::{Offence, Source};
use serde_json::Value as Json;
use std::path::Path;

/// Crates by folder, from the bottom up. A crate depends on crates of lower layers only; dev-dependencies alike, except
/// that any test may use the model.
const LAYERS: &[(&str, u8)] = &[
    ("format-spec", 0),
    ("common/env", 1),
    ("common/extent-map", 2),
    ("common/bucket", 2),
    ("common/api", 2),
    ("writer/rates", 2),
    ("writer/log-store", 2),
    ("common/history", 3),
    ("common/telemetry", 3),
    ("common/config", 3),
    ("common/prices", 4),
    ("writer", 5),
    ("reader", 5),
    ("gc", 5),
    ("writer/replication", 6),
    ("fuse-mount/overlay", 6),
    ("fuse-mount", 7),
    ("appliances/io-filter", 6),
    ("appliances/qemu", 6),
    ("appliances/runbook", 6),
    ("appliances/", 8),
    ("tools/", 9),
    ("tests/", 10),
];

/// A library that only some folders may name: prefix of its package name, folders, what others use instead.
const OWNED: &[(&str, &[&str], &str)] = &[
    ("opendal", &["common/bucket"], "tidemark-bucket"),
    ("object_store", &[], "tidemark-bucket"),
    ("fuser", &["fuse-mount"], "the transport-neutral trait of tidemark-fuse"),
    ("clap", &["tools/", "appliances/", "tests/bench"], "an options struct that the caller fills"),
    ("axum", &["appliances/"], "the client of tidemark-api"),
    ("toml", &["common/config"], "tidemark-config"),
    ("indicatif", &["tools/"], "progress through a callback or a watch channel"),
    ("anyhow", &["tools/", "appliances/", "tests/"], "the crate's own error enum"),
    ("arrow", &["format-spec", "common/telemetry"], "format-spec"),
    ("parquet", &["format-spec", "common/telemetry"], "format-spec"),
    ("getrandom", &["common/env"], "tidemark_env::Entropy"),
    ("rand_chacha", &["common/env", "tests/"], "tidemark_env::SeededEntropy"),
    ("uuid", &["common/env", "tests/"], "tidemark_env::Entropy and DomainId"),
    ("chrono", &[], "jiff in tools, TimeNs elsewhere"),
];

/// Calls that read the clock or entropy of the machine. Tests and benchmarks may measure.
const TIME_AND_ENTROPY: &[&str] = &[
    "SystemTime::now",
    "Instant::now",
    "Utc::now",
    "Timestamp::now",
    "Zoned::now",
    "getrandom::",
    "rand::rng",
    "rand::random",
    "thread_rng",
    "OsRng",
    "Uuid::new_v4",
];

/// Places outside of tidemark-env that may make such calls, and why.
const TIME_ALLOWED: &[(&str, &str)] = &[
    ("common/env/src/", "it is the one that reads them"),
    ("tools/xtask/", "names them to look for them"),
    ("tests/", "tests and benchmarks measure"),
];

fn layer(folder: &str) -> Option<u8> {
    let of = |(prefix, layer): &(&str, u8)| {
        let matches = if prefix.ends_with('/') { folder.starts_with(prefix) } else { folder == *prefix };
        matches.then_some(*layer)
    };
    LAYERS.iter().find_map(of)
}

/// A dependency as written in a manifest.
struct Dependency<'a> {
    name: &'a str,
    /// Folder, if it is one of ours.
    folder: Option<String>,
    dev: bool,
}

/// Checks manifests as `cargo metadata` tells them.
pub(crate) fn check_manifests(root: &Path, metadata: &Json) -> Vec<Offence> {
    let folder_of = |path: &str| {
        let relative = Path::new(path).strip_prefix(root).ok()?;
        Some(relative.to_string_lossy().into_owned())
    };
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let Some(folder) = Path::new(manifest).parent().and_then(|dir| folder_of(&dir.to_string_lossy())) else {
            continue;
        };
        let text = std::fs::read_to_string(manifest).unwrap_or_default();
        let mut offend = |name: &str, what: String| {
            let line = text.lines().position(|line| line.starts_with(name)).map_or(1, |at| at + 1);
            found.push(Offence::new(format!("{folder}/Cargo.toml"), line, what));
        };
        let Some(own) = layer(&folder) else {
            offend("name", format!("{folder} has no layer: add it to tools/xtask/src/deps.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let dependency = Dependency {
                name: dependency["name"].as_str().unwrap_or_default(),
                folder: dependency["path"].as_str().and_then(folder_of),
                dev: dependency["kind"] == "dev",
            };
            if let Some(why) = refusal(&folder, own, &dependency) {
                offend(dependency.name, why);
            }
        }
    }
    found
}

/// Why a crate of `folder` and layer `own` may not depend on this.
fn refusal(folder: &str, own: u8, on: &Dependency<'_>) -> Option<String> {
    let Dependency { name, folder: on_folder, dev } = on;
    if let Some(on_folder) = on_folder {
        let of_tests = folder.starts_with("tests/") && on_folder.starts_with("tests/");
        let model = *dev && on_folder.starts_with("tests/") && layer("tests/") == layer(on_folder);
        return match layer(on_folder) {
            Some(lower) if lower < own || of_tests || model => None,
            _ => {
                Some(format!("{folder} may not depend on {on_folder}: dependencies point from {folder} downwards only"))
            }
        };
    }
    let (_, owners, instead) = OWNED.iter().find(|(prefix, _, _)| name.starts_with(prefix))?;
    let owned = owners.iter().any(|owner| folder == *owner || owner.ends_with('/') && folder.starts_with(owner));
    (!owned).then(|| format!("{folder} may not name {name}: use {instead}"))
}

/// Checks that only tidemark-env reads the machine's clock and entropy.
pub(crate) fn check_time(sources: &[Source]) -> Vec<Offence> {
    let mut found = Vec::new();
    for source in sources {
        if TIME_ALLOWED.iter().any(|(prefix, _)| source.path.starts_with(prefix)) {
            continue;
        }
        // tokio's clock can be stopped and moved by a test, so timeouts of I/O may use it.
        let tokio = source.text.lines().any(|line| line.contains("use tokio::time::") && line.contains("Instant"));
        for (number, line, test) in source.lines() {
            let code = line.trim_start();
            if test || code.starts_with("//") {
                continue;
            }
            for call in TIME_AND_ENTROPY.iter().filter(|call| code.contains(*call)) {
                if *call == "Instant::now" && (tokio || code.contains("tokio::time::Instant")) {
                    continue;
                }
                let what = format!("`{call}`: only tidemark-env reads time and entropy; take an `Env`");
                found.push(Offence::new(&source.path, number, what));
            }
        }
    }
    found
}

/// What cargo knows of the workspace's own packages.
pub(crate) fn metadata(root: &Path) -> Json {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let output = std::process::Command::new(cargo).args(args).current_dir(root).output().expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(name: &'static str, folder: Option<&str>, dev: bool) -> Dependency<'static> {
        Dependency { name, folder: folder.map(str::to_owned), dev }
    }

    #[test]
    fn writer_and_reader_never_meet() {
        for (folder, on_folder) in [("writer", "reader"), ("reader", "writer")] {
            for dev in [false, true] {
                assert!(refusal(folder, 3, &on("x", Some(on_folder), dev)).is_some(), "{folder} on {on_folder}");
            }
        }
    }

    #[test]
    fn dependencies_point_down_and_names_have_owners() {
        assert_eq!(refusal("writer", 3, &on("tidemark-bucket", Some("common/bucket"), false)), None);
        assert_eq!(refusal("writer", 3, &on("tidemark-model", Some("tests/model"), true)), None);
        assert!(refusal("writer", 3, &on("tidemark-model", Some("tests/model"), false)).is_some());
        assert!(refusal("common/bucket", 2, &on("tidemark-writer", Some("writer"), false)).is_some());
        assert!(refusal("common/bucket", 2, &on("tidemark-extent-map", Some("common/extent-map"), false)).is_some());
        assert!(refusal("writer", 3, &on("opendal", None, false)).is_some());
        assert_eq!(refusal("common/bucket", 2, &on("opendal", None, false)), None);
        assert_eq!(refusal("tests/bench", 7, &on("clap", None, false)), None);
        assert!(refusal("tests/e2e", 7, &on("fuser", None, false)).is_some());
    }

    #[test]
    fn clocks_are_read_by_env_alone() {
        let source = |path: &str, text: &str| check_time(&[Source::new(path, text)]);
        assert_eq!(source("writer/src/a.rs", "\nlet t = Instant::now();\n")[0].line, 2);
        assert_eq!(source("writer/src/a.rs", "use tokio::time::{Instant, sleep};\nlet t = Instant::now();\n"), []);
        assert_eq!(source("common/env/src/clock.rs", "Instant::now()"), []);
        assert_eq!(source("writer/src/a.rs", "#[cfg(test)]\nmod tests {\n    Instant::now();\n}\n"), []);
    }

    #[test]
    fn dependencies_of_the_workspace_point_one_way() {
        let root = crate::root();
        crate::expect_none(check_manifests(&root, &metadata(&root)));
    }

    #[test]
    fn nothing_but_env_reads_time_or_entropy() {
        crate::expect_none(check_time(&crate::offence::sources(&crate::root())));
    }
}
