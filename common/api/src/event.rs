//! What happened lately, numbered, for people and for whoever follows along.

use crate::check::{Check, Complaint};
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

/// Events in one answer at most.
pub const EVENTS_PER_PAGE_MAX: u32 = 1_000;
/// Seconds that one request waits for events at most.
pub const WAIT_S_MAX: u32 = 60;

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Protection is worse than configured, or will be.
    Warning,
    /// Something is not protected, or somebody has to act.
    Error,
}

impl Severity {
    /// The word in texts and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number: the next is +1. Numbers begin at 1 when the appliance starts.
    pub seq: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub time: Time,
    /// How much it matters.
    pub severity: Severity,
    /// What kind of thing, a stable word such as `disk-gap`.
    pub kind: String,
    /// The domain that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The VM that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// The disk that it is about, by its name within the VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// The same for people.
    pub message: String,
    /// Numbers and names that belong to it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, serde_json::Value>,
}

/// Which events are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// Only events after this number.
    pub after: u64,
    /// If there are none, wait so many seconds for one, at most 60.
    #[param(maximum = 60)]
    pub wait_s: u32,
    /// So many at most, the oldest first; 0 or absent: 1,000.
    #[param(maximum = 1_000)]
    pub limit: u32,
}

/// Some events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventPage {
    /// Differs whenever the appliance was started anew and numbers began at 1 again.
    pub instance: String,
    /// Ask for those after this number next.
    pub last_seq: u64,
    /// Events after the number that was asked about which are no longer kept.
    pub lost: u64,
    /// The events, in order.
    pub events: Vec<Event>,
}

impl Check for EventQuery {
    fn check(&self) -> Result<(), Complaint> {
        let most = |member, value: u32, most: u32| {
            let what = || format!("{value} is more than {most}");
            if value > most { Err(Complaint::new(member, what())) } else { Ok(()) }
        };
        most("wait_s", self.wait_s, WAIT_S_MAX)?;
        most("limit", self.limit, EVENTS_PER_PAGE_MAX)
    }
}
