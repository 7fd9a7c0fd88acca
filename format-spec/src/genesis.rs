//! `tidemark.json`: what a domain is, readable by people, written once (SPEC.md §genesis).
//!
//! JSON of one member a line. The last member, `check`, is the BLAKE3 of every byte in front of its line.

use crate::error::{FormatError, Result};
use crate::header::{Features, KNOWN_READ_FEATURES, MAJOR, MINOR};
use crate::ids::{BLOCK_BYTES, DomainId, TimeNs};
use crate::text::{hex, unhex_number};
use serde_json::{Map, Value};

/// Largest genesis object in bytes (SPEC.md §limits).
pub const GENESIS_BYTES_MAX: usize = 64 << 10;
/// Value of the `format` member.
const FORMAT: &str = "tidemark-log";
const CHECK_LINE: &str = "  \"check\": \"blake3:";

/// What a domain is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// Its random name.
    pub domain: DomainId,
    /// Its name for people.
    pub name: String,
    /// When it was made, by its maker's clock.
    pub created: TimeNs,
    /// Feature masks.
    pub features: Features,
}

impl Genesis {
    /// The object's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let text = |v: &str| Value::from(v).to_string();
        let mask = |v: u64| text(&format!("{v:016x}"));
        let members = [
            ("format", text(FORMAT)),
            ("major", MAJOR.to_string()),
            ("minor", MINOR.to_string()),
            ("domain", text(&self.domain.to_string())),
            ("name", text(&self.name)),
            ("created_ns", text(&self.created.get().to_string())),
            ("block_bytes", BLOCK_BYTES.to_string()),
            ("granularity", text("write")),
            ("features_read", mask(self.features.read)),
            ("features_write", mask(self.features.write)),
            ("features_gc", mask(self.features.gc)),
            ("features_compat", mask(self.features.compat)),
        ];
        let mut out = String::from("{\n");
        for (name, value) in members {
            out.push_str(&format!("  \"{name}\": {value},\n"));
        }
        let check = hex(blake3::hash(out.as_bytes()).as_bytes());
        out.push_str(&format!("{CHECK_LINE}{check}\"\n}}\n"));
        out.into_bytes()
    }

    /// Reads `tidemark.json`.
    ///
    /// # Errors
    /// `Genesis` for anything that is not as written, `Major` or `ReadFeatures` for a domain of a later format.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let bad = |why: &str| FormatError::Genesis { why: why.to_owned() };
        if bytes.len() > GENESIS_BYTES_MAX {
            return Err(FormatError::Genesis {
                why: format!("{} bytes, at most {GENESIS_BYTES_MAX} are read", bytes.len()),
            });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| bad("not UTF-8"))?;
        let json: Value =
            serde_json::from_str(text).map_err(|e| FormatError::Genesis { why: format!("not JSON: {e}") })?;
        let members = json.as_object().ok_or_else(|| bad("not a JSON object"))?;
        if text_of(members, "format")? != FORMAT {
            return Err(bad("member format is not tidemark-log"));
        }
        let major = number_of(members, "major")?;
        //= SPEC.md#versions
        //# V-1
        if major != u64::from(MAJOR) {
            return Err(FormatError::Major { what: "genesis", found: major, known: MAJOR.into() });
        }
        let at = text.rfind(CHECK_LINE).ok_or_else(|| bad("no check line"))?;
        let check = hex(blake3::hash(&text.as_bytes()[..at]).as_bytes());
        //= SPEC.md#genesis
        //# G-1
        if text[at..] != format!("{CHECK_LINE}{check}\"\n}}\n") {
            return Err(bad("check differs: the object was altered"));
        }
        let mask = |name| {
            let digits = text_of(members, name)?;
            unhex_number(digits).ok_or_else(|| bad("a feature mask is not 16 hex digits"))
        };
        let features = Features {
            read: mask("features_read")?,
            write: mask("features_write")?,
            gc: mask("features_gc")?,
            compat: mask("features_compat")?,
        };
        //= SPEC.md#versions
        //# V-2
        if features.read & !KNOWN_READ_FEATURES != 0 {
            return Err(FormatError::ReadFeatures { bits: features.read & !KNOWN_READ_FEATURES });
        }
        if number_of(members, "block_bytes")? != BLOCK_BYTES {
            return Err(bad("block_bytes is not 512"));
        }
        if text_of(members, "granularity")? != "write" {
            return Err(bad("granularity is not write"));
        }
        Ok(Self {
            domain: text_of(members, "domain")?.parse().map_err(|_| bad("member domain is not a UUID"))?,
            name: text_of(members, "name")?.to_owned(),
            created: text_of(members, "created_ns")?
                .parse()
                .map(TimeNs::new)
                .map_err(|_| bad("member created_ns is not a number"))?,
            features,
        })
    }
}

fn text_of<'a>(members: &'a Map<String, Value>, name: &str) -> Result<&'a str> {
    let wrong = || FormatError::Genesis { why: format!("member {name} is missing or not a text") };
    members.get(name).and_then(Value::as_str).ok_or_else(wrong)
}

fn number_of(members: &Map<String, Value>, name: &str) -> Result<u64> {
    let wrong = || FormatError::Genesis { why: format!("member {name} is missing or not a number") };
    members.get(name).and_then(Value::as_u64).ok_or_else(wrong)
}
