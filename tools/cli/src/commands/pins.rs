//! `tidemark pins`: who keeps what from being deleted.

use crate::args::BucketArgs;
use crate::context::open_bucket;
use crate::failure::Outcome;
use crate::ui::Ui;
use clap::Args;
use serde::Serialize;
use std::fmt::Write;
use tidemark_env::Env;
use tidemark_format::{Genesis, KeyFamily, ObjectKey, Pin};
use tidemark_reader::TimeText;

/// List pins: who reads by which root, and until when
///
/// A mount pins what it reads by, so that `gc run` deletes nothing of it meanwhile. A pin that is not prolonged runs out by itself, and the
/// next `gc run` deletes it.
#[derive(Debug, Args)]
pub(crate) struct PinsArgs {
    #[command(flatten)]
    bucket: BucketArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    location: String,
    pins: Vec<PinReport>,
}

#[derive(Debug, Serialize)]
struct PinReport {
    key: String,
    root: String,
    owner: String,
    until: String,
    expired: bool,
    /// Why it cannot be read. `gc run` deletes nothing while there is such a pin.
    damage: Option<String>,
}

pub(crate) async fn run(args: PinsArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let bucket = open_bucket(&args.bucket)?.read_only();
    let domain = Genesis::decode(&bucket.get(&ObjectKey::Genesis).await?)?.domain;
    let now = Env::system().clock.wall();
    let mut pins = Vec::new();
    for (name, _) in bucket.list(KeyFamily::Volatile).await? {
        let Ok(key @ ObjectKey::Pin { .. }) = name.parse::<ObjectKey>() else { continue };
        let pin = Pin::decode(&bucket.get(&key).await?, domain);
        let damage = pin.as_ref().err().map(ToString::to_string);
        let text = |of: fn(&Pin) -> String| pin.as_ref().map(of).unwrap_or_default();
        pins.push(PinReport {
            key: name,
            root: text(|pin| pin.root().to_string()),
            owner: text(|pin| pin.owner.clone()),
            until: text(|pin| TimeText(pin.until).to_string()),
            expired: pin.is_ok_and(|pin| pin.until < now),
            damage,
        });
    }
    ui.answer(&Report { location: bucket.location(), pins }, in_text)?;
    Ok(Outcome::Done)
}

fn in_text(report: &Report) -> String {
    let mut out = format!("{} pins\n", report.pins.len());
    for pin in &report.pins {
        let state = match (&pin.damage, pin.expired) {
            (Some(damage), _) => format!("damaged: {damage}"),
            (None, true) => format!("{} by {}, ran out at {}", pin.root, pin.owner, pin.until),
            (None, false) => format!("{} by {} until {}", pin.root, pin.owner, pin.until),
        };
        writeln!(out, "{}  {state}", pin.key).expect("writing to a String cannot fail");
    }
    out
}
