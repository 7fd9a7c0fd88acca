//! A price sheet: a file, and what it makes of requests and bytes.

use crate::money::{MONTH, Money, Price};
use serde::Deserialize;
use std::path::Path;
use std::time::Duration;
use tidemark_api::Complaint;
use tidemark_config::{ConfigError, Source};

/// A file that explains every key.
const EXAMPLE: &str = "docs/ops/prices/aws-s3-standard.toml";

const GIB: u128 = 1 << 30;
const PER: u128 = 1_000;
/// Ten years: more is a mistake.
const STORAGE_DAYS_MAX: u32 = 3_650;
const DAY_S: u64 = 86_400;

macro_rules! embedded {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../../docs/ops/prices/", $name, ".toml"))),)*]
    };
}

/// The sheets that are part of the program, by name.
const EMBEDDED: &[(&str, &str)] = embedded!(
    "aws-s3-standard" "aws-s3-standard-ia" "azure-blob-hot" "gcs-standard" "cloudflare-r2" "backblaze-b2" "wasabi" "own"
);

/// Requests, by the kinds that bills tell apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Stored bodies.
    pub put: u64,
    /// Read bodies or parts of them.
    pub get: u64,
    /// Listed pages.
    pub list: u64,
    /// Removed objects.
    pub delete: u64,
    /// Asked lengths.
    pub head: u64,
}

impl Requests {
    /// All of them.
    pub const fn total(&self) -> u64 {
        let Self { put, get, list, delete, head } = *self;
        put.saturating_add(get).saturating_add(list).saturating_add(delete).saturating_add(head)
    }
}

/// What a store is asked to do, beyond keeping what it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Requests.
    pub requests: Requests,
    /// Bytes that they read.
    pub read_bytes: u64,
}

/// What one store charges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sheet {
    name: String,
    about: String,
    currency: String,
    source: String,
    as_of: String,
    storage_days_min: u32,
    /// For a thousand.
    put: Money,
    get: Money,
    list: Money,
    delete: Money,
    head: Money,
    /// For a GiB.
    month: Money,
    /// For a GiB: egress and retrieval together, since we take out all that we read.
    read: Money,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    about: String,
    currency: String,
    source: String,
    as_of: String,
    #[serde(default)]
    storage_days_min: u32,
    per_1000: Per1000,
    per_gib: PerGib,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Per1000 {
    put: Price,
    get: Price,
    list: Price,
    delete: Price,
    head: Price,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PerGib {
    month: Price,
    egress: Price,
    retrieval: Price,
}

impl Sheet {
    /// The names of the sheets that are part of the program.
    pub fn names() -> impl Iterator<Item = &'static str> {
        EMBEDDED.iter().map(|(name, _)| *name)
    }

    /// A sheet that is part of the program.
    pub fn named(name: &str) -> Option<Self> {
        let (_, text) = EMBEDDED.iter().find(|(known, _)| *known == name)?;
        Some(Self::parse(&format!("{name}.toml"), text).expect("a test reads every embedded sheet"))
    }

    /// The sheet that most likely holds for the bucket at a URL, as far as its scheme and endpoint tell: a guess to begin with.
    /// A store that is not known costs nothing for each request.
    pub fn likely(url: &str) -> Self {
        let (place, parameters) = url.split_once('?').unwrap_or((url, ""));
        let endpoint = parameters.split('&').find_map(|parameter| parameter.strip_prefix("endpoint="));
        let has = |part: &str| endpoint.is_some_and(|endpoint| endpoint.contains(part));
        let scheme = place.split_once("://").map_or("file", |(scheme, _)| scheme);
        let name = match (scheme, endpoint) {
            ("s3", None) => "aws-s3-standard",
            ("azblob", None) => "azure-blob-hot",
            ("gs" | "gcs", None) => "gcs-standard",
            ("s3", Some(_)) if has("amazonaws.com") => "aws-s3-standard",
            ("s3", Some(_)) if has("r2.cloudflarestorage.com") => "cloudflare-r2",
            ("s3", Some(_)) if has("backblazeb2.com") => "backblaze-b2",
            ("s3", Some(_)) if has("wasabisys.com") => "wasabi",
            ("azblob", Some(_)) if has("blob.core.windows.net") => "azure-blob-hot",
            _ => "own",
        };
        Self::named(name).expect("these are names of embedded sheets, which a test reads")
    }

    /// Reads a file.
    ///
    /// # Errors
    /// The first thing in it that is no price sheet, with its line and column.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::checked(&Source::load(path, EXAMPLE)?)
    }

    /// The sheet that a person chose: one that is part of the program by its name, or a file.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn chosen(text: &str) -> Result<Self, ConfigError> {
        if let Some(sheet) = Self::named(text) {
            return Ok(sheet);
        }
        Self::load(Path::new(text)).map_err(|error| match error {
            ConfigError::Unreadable { file, why, .. } => {
                let names = Self::names().collect::<Vec<_>>().join(", ");
                ConfigError::Unreadable { file, why, hint: format!("price sheets without a file are {names}") }
            }
            wrong => wrong,
        })
    }

    /// Reads what stands in `file`.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        Self::checked(&Source::new(file, text, EXAMPLE))
    }

    fn checked(source: &Source) -> Result<Self, ConfigError> {
        let file: File = source.read()?;
        check(&file).map_err(|complaint| source.complain(&complaint))?;
        let File { name, about, currency, source, as_of, storage_days_min, per_1000, per_gib } = file;
        Ok(Self {
            name,
            about,
            currency,
            source,
            as_of,
            storage_days_min,
            put: per_1000.put.0,
            get: per_1000.get.0,
            list: per_1000.list.0,
            delete: per_1000.delete.0,
            head: per_1000.head.0,
            month: per_gib.month.0,
            read: per_gib.egress.0.plus(per_gib.retrieval.0),
        })
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which store it is, where, and how it is reached.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// The currency, in three letters.
    pub fn currency(&self) -> &str {
        &self.currency
    }

    /// Where the prices are from, and the day from which they are known to hold.
    pub fn source(&self) -> (&str, &str) {
        (&self.source, &self.as_of)
    }

    /// An object is paid for so long at least.
    pub fn storage_min(&self) -> Duration {
        Duration::from_secs(u64::from(self.storage_days_min) * DAY_S)
    }

    /// An amount with its currency.
    pub fn told(&self, money: Money) -> String {
        format!("{} {money}", self.currency)
    }

    /// What requests cost.
    pub fn requests(&self, requests: &Requests) -> Money {
        let Requests { put, get, list, delete, head } = *requests;
        let kinds = [(self.put, put), (self.get, get), (self.list, list), (self.delete, delete), (self.head, head)];
        kinds.into_iter().fold(Money::ZERO, |sum, (price, count)| sum.plus(price.times(count.into(), PER)))
    }

    /// What reading so many bytes costs, besides the requests.
    pub fn read(&self, bytes: u64) -> Money {
        self.read.times(bytes.into(), GIB)
    }

    /// What requests and the bytes that they read cost.
    pub fn usage(&self, usage: &Usage) -> Money {
        self.requests(&usage.requests).plus(self.read(usage.read_bytes))
    }

    /// What keeping so many bytes costs in a month.
    pub fn month(&self, bytes: u64) -> Money {
        self.month.times(bytes.into(), GIB)
    }

    /// What keeping so many bytes for a time costs; at least the time that is paid for anyhow.
    pub fn kept(&self, bytes: u64, time: Duration) -> Money {
        self.month.times(u128::from(bytes) * time.max(self.storage_min()).as_millis(), GIB * MONTH.as_millis())
    }
}

/// What the parser does not see.
fn check(file: &File) -> Result<(), Complaint> {
    let wrong = |member: &str, value: &str, what: &str| Err(Complaint::new(member, format!("{value:?} is no {what}")));
    let name_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if file.name.is_empty() || file.name.len() > 64 || !file.name.bytes().all(name_byte) {
        return wrong("name", &file.name, "name: take up to 64 small letters, digits and hyphens");
    }
    if file.currency.len() != 3 || !file.currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return wrong("currency", &file.currency, "currency such as USD");
    }
    let digits = |at: usize| !matches!(at, 4 | 7);
    let is_day = |(at, byte): (usize, u8)| if digits(at) { byte.is_ascii_digit() } else { byte == b'-' };
    if file.as_of.len() != 10 || !file.as_of.bytes().enumerate().all(is_day) {
        return wrong("as_of", &file.as_of, "day such as 2026-11-25");
    }
    if file.storage_days_min > STORAGE_DAYS_MAX {
        let what = format!("{} days are more than {STORAGE_DAYS_MAX}", file.storage_days_min);
        return Err(Complaint::new("storage_days_min", what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3() -> Sheet {
        Sheet::named("aws-s3-standard").unwrap()
    }

    #[test]
    fn every_embedded_sheet_reads_and_says_its_name_source_and_day() {
        for name in Sheet::names() {
            let sheet = Sheet::named(name).unwrap();
            assert_eq!(sheet.name(), name);
            assert!(!sheet.about().is_empty() && !sheet.source().0.is_empty(), "{name}");
        }
        assert_eq!(Sheet::named("nobody"), None);
    }

    #[test]
    fn sums_are_exact() {
        let sheet = s3();
        let requests = Requests { put: 1_000, get: 10_000, list: 1, delete: 1 << 40, head: 0 };
        assert_eq!(sheet.requests(&requests).nanos(), 5_000_000 + 4_000_000 + 5_000);
        assert_eq!(sheet.month(10 << 30).nanos(), 230_000_000);
        let usage = Usage { requests: Requests { get: 1, ..Requests::default() }, read_bytes: 1 << 29 };
        assert_eq!(sheet.usage(&usage).nanos(), 400 + 45_000_000);
        assert_eq!(sheet.kept(1 << 30, MONTH / 2).nanos(), 11_500_000);
        assert_eq!(sheet.told(sheet.month(1 << 40)), "USD 23.55");
        assert_eq!(sheet.requests(&Requests { put: u64::MAX, ..requests }), Money::of_nanos(u64::MAX));
    }

    #[test]
    fn what_is_deleted_early_is_paid_for_all_the_same() {
        let wasabi = Sheet::named("wasabi").unwrap();
        let day = Duration::from_secs(DAY_S);
        assert_eq!(wasabi.kept(1 << 30, day), wasabi.kept(1 << 30, day * 90));
        assert!(wasabi.kept(1 << 30, day * 91) > wasabi.kept(1 << 30, day * 90));
        assert_eq!(s3().kept(1 << 30, Duration::ZERO), Money::ZERO);
    }

    #[test]
    fn a_bucket_tells_whose_prices_may_hold() {
        for (url, name) in [
            ("/srv/bucket", "own"),
            ("s3://vms/a?region=eu-central-1", "aws-s3-standard"),
            ("s3://vms?region=auto&endpoint=https://1234.r2.cloudflarestorage.com", "cloudflare-r2"),
            ("s3://vms?endpoint=http://10.0.0.7:8333", "own"),
            ("s3://vms?endpoint=https://s3.eu-central-2.wasabisys.com", "wasabi"),
            ("s3://vms?endpoint=https://s3.us-west-004.backblazeb2.com", "backblaze-b2"),
            ("azblob://vms", "azure-blob-hot"),
            ("gs://vms/a", "gcs-standard"),
            ("memory:x", "own"),
        ] {
            assert_eq!(Sheet::likely(url).name(), name, "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line_and_column() {
        let text = EMBEDDED[0].1;
        let refused = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            Sheet::parse("mine.toml", &text.replacen(from, to, 1)).unwrap_err()
        };
        let said = refused("put = 0.005", "putt = 0.005");
        assert_eq!(
            (said.to_string().as_str(), said.hint()),
            ("mine.toml:14:1: unknown key putt", Some("did you mean put?"))
        );
        assert_eq!(
            refused("get = 0.0004", "get = -1").to_string(),
            "mine.toml:15:7: a price is a number from 0 to 18446744073"
        );
        assert!(refused("get = 0.0004", "get = \"free\"").to_string().contains(":15:7: "));
        assert!(refused("get = 0.0004\n", "").to_string().contains("missing key `get`"));
        assert!(
            refused("\"USD\"", "\"usd\"").to_string().starts_with("mine.toml:5:12: currency: \"usd\" is no currency")
        );
        let unknown = Sheet::chosen("aws-s3-standrad").unwrap_err();
        assert!(unknown.hint().is_some_and(|hint| hint.contains("aws-s3-standard, ")), "{unknown}");
        assert_eq!(Sheet::chosen("wasabi").unwrap().name(), "wasabi");
        for (from, to) in [
            ("2025-06-01", "June 2025"),
            ("storage_days_min = 0", "storage_days_min = 9999"),
            ("\"aws-s3-standard\"", "\"\""),
        ] {
            refused(from, to);
        }
    }
}
