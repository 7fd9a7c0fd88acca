//! What the appliance protects, remembered over restarts: one JSON file, replaced as a whole.
//!
//! The configuration and the API say what is to be protected; this is where the outcome stands. It names no positions and
//! holds no data: those are in the log store and the bucket.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tidemark_api::DomainSpec;

const FILE: &str = "inventory.json";
const VERSION: u32 = 1;

/// A protected domain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// What it is and how it is protected.
    pub(crate) spec: DomainSpec,
    /// Its id, once its bucket told.
    pub(crate) id: Option<String>,
}

/// The file.
#[derive(Debug)]
pub(crate) struct Inventory {
    dir: PathBuf,
    pub(crate) domains: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    domains: Vec<Entry>,
}

impl Inventory {
    /// Reads it; nothing is protected if it is not there.
    pub(crate) fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let broken = |why: String| Error::Inventory { path: path.display().to_string(), why };
        fs::create_dir_all(dir).map_err(|e| broken(e.to_string()))?;
        let domains = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(broken(e.to_string())),
            Ok(bytes) => {
                let stored: Stored = serde_json::from_slice(&bytes).map_err(|e| broken(e.to_string()))?;
                if stored.version != VERSION {
                    return Err(broken(format!("its version is {}, this program knows {VERSION}", stored.version)));
                }
                stored.domains
            }
        };
        Ok(Self { dir: dir.to_owned(), domains })
    }

    /// Writes it down; durable on return.
    pub(crate) fn save(&self) -> Result<()> {
        let path = self.dir.join(FILE);
        let stored = Stored { version: VERSION, domains: self.domains.clone() };
        let bytes = serde_json::to_vec_pretty(&stored).expect("texts and numbers are JSON");
        let save = || -> io::Result<()> {
            let new = self.dir.join(format!("{FILE}.new"));
            let mut file = File::create(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        save().map_err(|e| Error::Inventory { path: path.display().to_string(), why: e.to_string() })
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Entry> {
        self.domains.iter_mut().find(|entry| entry.spec.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_damage_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut inventory = Inventory::load(dir.path()).expect("nothing yet");
        assert!(inventory.domains.is_empty());
        let spec: DomainSpec =
            serde_json::from_str(r#"{"name": "a", "url": "/b", "disks": [{"vm": "v", "disk": "d"}]}"#).expect("a spec");
        inventory.domains.push(Entry { spec, id: Some("x".into()) });
        inventory.save().expect("save");
        let again = Inventory::load(dir.path()).expect("load");
        assert_eq!(again.domains, inventory.domains);
        fs::write(dir.path().join(FILE), "{\"version\": 9, \"domains\": []}").expect("damage it");
        let refused = Inventory::load(dir.path()).expect_err("a version of the future").to_string();
        assert!(refused.contains("inventory.json") && refused.contains("version is 9"), "{refused}");
    }
}
