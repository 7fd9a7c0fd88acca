//! Makes the golden vectors of `format-spec/vectors`, always the same ones. What is written once is never changed:
//! only vectors that are missing are added.

mod domains;
mod index;
mod logstore;
mod negatives;
mod positives;

use crate::meaning;
use serde_json::json;
use std::fmt::Write as _;
use std::path::Path;
use tidemark_format::*;

/// The domain of all vectors.
const DOMAIN: &str = "6f9619ff-8b86-4d11-b42d-00cf4fc964ff";

/// One object and what a reader must make of it.
struct Vector {
    name: String,
    about: String,
    /// The numbered rules of SPEC.md that it stands for.
    rules: Vec<&'static str>,
    expect: Expect,
    bytes: Vec<u8>,
    /// Whether a writer of this version makes these very bytes.
    canonical: bool,
    /// The name of the error; `None` if it decodes.
    error: Option<&'static str>,
}

fn domain() -> DomainId {
    DOMAIN.parse().expect("a UUID")
}

const fn log_key(epoch: u64, seq: u64) -> ObjectKey {
    ObjectKey::Log { epoch: Epoch::new(epoch), seq: Seq::new(seq) }
}

fn at_ms(ms: u64) -> TimeNs {
    TimeNs::new(1_750_000_000_000_000_000 + ms * 1_000_000)
}

impl Vector {
    /// The JSON beside the object.
    fn json(&self) -> String {
        let mut out = json!({
            "about": self.about,
            "rules": self.rules,
            "domain": self.expect.domain.to_string(),
            "key": self.expect.key.to_string(),
        });
        match (meaning::of(&self.bytes, &self.expect), self.error) {
            (Err(e), Some(name)) if e.name() == name => out["error"] = name.into(),
            (Ok(meaning), None) => {
                out["canonical"] = self.canonical.into();
                out["meaning"] = meaning;
            }
            (got, wanted) => panic!("vector {}: wanted error {wanted:?}, got {got:?}", self.name),
        }
        format!("{out:#}\n")
    }
}

fn all() -> Vec<Vector> {
    let mut all = positives::all();
    all.extend(negatives::all());
    all.extend(index::all());
    all
}

/// Every file of the folder: its name and its bytes.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for vector in all() {
        files.push((format!("{}.json", vector.name), vector.json().into_bytes()));
        files.push((format!("{}.bin", vector.name), vector.bytes));
    }
    for domain in domains::all() {
        files.push((format!("domains/{}.json", domain.name), domain.json().into_bytes()));
        files.extend(domain.bucket.into_iter().map(|(key, bytes)| (format!("domains/{}/{key}", domain.name), bytes)));
    }
    for vector in logstore::all() {
        files.push((format!("logstore/{}.json", vector.name), vector.json().into_bytes()));
        files.push((format!("logstore/{}.bin", vector.name), vector.bytes));
    }
    files
}

/// Adds the files that `dir` lacks, and their lines to its manifest. Returns their names.
pub(crate) fn write_new(dir: &Path) -> std::io::Result<Vec<String>> {
    let manifest = dir.join("MANIFEST.blake3");
    let mut lines = std::fs::read_to_string(&manifest).unwrap_or_default();
    let mut added = Vec::new();
    for (file, bytes) in files() {
        let path = dir.join(&file);
        if path.exists() {
            continue;
        }
        std::fs::create_dir_all(path.parent().expect("it lies in a folder"))?;
        std::fs::write(path, &bytes)?;
        writeln!(lines, "{}  {file}", blake3::hash(&bytes).to_hex()).expect("writing to a String cannot fail");
        added.push(file);
    }
    let mut sorted: Vec<_> = lines.lines().collect();
    sorted.sort_by_key(|line| line.split_once("  ").map(|(_, file)| file));
    std::fs::write(&manifest, sorted.join("\n") + "\n")?;
    Ok(added)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_vector_that_can_be_made_is_in_the_folder() {
        let dir = crate::root().join("format-spec/vectors");
        let mut names = BTreeSet::new();
        for (file, _) in files() {
            assert!(dir.join(&file).exists(), "{file} is not there: run `cargo xtask vectors --write-new`");
            assert!(names.insert(file.clone()), "{file} is made twice");
        }
    }
}
