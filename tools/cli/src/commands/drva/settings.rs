//! `tidemark drva limits`: targets, limits and policies of a domain.

use super::args::{Mode, Overflow, rate, size, size_limit, window};
use super::text;
use crate::args::span_ms;
use crate::failure::Outcome;
use crate::ui::Ui;
use clap::Args;
use std::fmt::Write;
use tidemark_api::{BandwidthWindow, Client, Limit, Settings, SettingsPatch};

/// Show or change how a domain is protected
///
/// Without options it shows the settings in force. What is changed stays so after a restart of the appliance.
#[derive(Debug, Args)]
pub(super) struct LimitsArgs {
    /// The domain
    #[arg(value_name = "DOMAIN")]
    domain: String,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Settings that are to differ from what is in force.
#[derive(Debug, Args)]
pub(super) struct SettingsArgs {
    /// A write is in the bucket so long after its ack, if the uplink keeps up
    #[arg(long, value_name = "SPAN", value_parser = span_ms)]
    rpo: Option<u64>,
    /// A segment is cut at so many bytes of writes
    #[arg(long, value_name = "BYTES", value_parser = size)]
    segment_size: Option<u64>,
    /// zstd level, 1 to 19
    #[arg(long, value_name = "LEVEL")]
    zstd_level: Option<i32>,
    /// Upload limit, such as 50MiB/s, 400Mbit/s or unlimited
    #[arg(long, value_name = "RATE", value_parser = rate)]
    upload: Option<Limit>,
    /// Hours with another upload limit, such as "mon-fri 08:00-18:00 10MiB/s"; may be repeated, replaces all
    #[arg(long, value_name = "WINDOW", value_parser = window)]
    bandwidth: Vec<BandwidthWindow>,
    /// No hours with another upload limit
    #[arg(long, conflicts_with = "bandwidth")]
    no_bandwidth: bool,
    /// Limit of seeding and resync
    #[arg(long, value_name = "RATE", value_parser = rate)]
    seed: Option<Limit>,
    /// Seeding slows down once guest writes take longer than this
    #[arg(long, value_name = "SPAN", value_parser = span_ms)]
    seed_guest_latency_max: Option<u64>,
    /// When a write is acknowledged, for disks that do not say otherwise
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// What becomes of writes when the log is full, for disks that do not say otherwise
    #[arg(long, value_enum)]
    overflow: Option<Overflow>,
    /// Bytes of the log store that are kept for the domain
    #[arg(long, value_name = "BYTES", value_parser = size)]
    log_min: Option<u64>,
    /// Bytes of the log store that the domain may take, or unlimited
    #[arg(long, value_name = "BYTES", value_parser = size_limit)]
    log_max: Option<Limit>,
    /// Fill of the log, 0 to 1, from which guest writes are slowed down
    #[arg(long, value_name = "SHARE")]
    throttle_start_fill: Option<f64>,
    /// Throttling delays one guest write so long at most
    #[arg(long, value_name = "SPAN", value_parser = span_ms)]
    throttle_latency_max: Option<u64>,
}

impl SettingsArgs {
    pub(super) fn patch(self) -> SettingsPatch {
        let calendar = self.no_bandwidth || !self.bandwidth.is_empty();
        SettingsPatch {
            rpo_ms: self.rpo,
            segment_bytes: self.segment_size,
            zstd_level: self.zstd_level,
            upload_bytes_per_s: self.upload,
            bandwidth: calendar.then_some(self.bandwidth),
            seed_bytes_per_s: self.seed,
            seed_guest_latency_ms_max: self.seed_guest_latency_max,
            mode: self.mode.map(Into::into),
            overflow: self.overflow.map(Into::into),
            log_bytes_min: self.log_min,
            log_bytes_max: self.log_max,
            throttle_start_fill: self.throttle_start_fill,
            throttle_latency_ms_max: self.throttle_latency_max,
        }
    }
}

pub(super) async fn run(args: LimitsArgs, client: &Client, ui: &Ui) -> anyhow::Result<Outcome> {
    let patch = args.settings.patch();
    let settings = if patch == SettingsPatch::default() {
        client.settings(&args.domain).await?
    } else {
        client.change_settings(&args.domain, &patch).await?
    };
    ui.answer(&settings, in_text)?;
    Ok(Outcome::Done)
}

fn in_text(settings: &Settings) -> String {
    let log_max = settings.log_bytes_max.get().map_or("unlimited".to_owned(), text::bytes);
    let rows = [
        ("rpo", text::span_ms(settings.rpo_ms)),
        ("segment-size", text::bytes(settings.segment_bytes)),
        ("zstd-level", settings.zstd_level.to_string()),
        ("upload", text::rate(settings.upload_bytes_per_s)),
        ("seed", text::rate(settings.seed_bytes_per_s)),
        ("seed-guest-latency-max", text::span_ms(settings.seed_guest_latency_ms_max)),
        ("mode", settings.mode.name().to_owned()),
        ("overflow", settings.overflow.name().to_owned()),
        ("log-min", text::bytes(settings.log_bytes_min)),
        ("log-max", log_max),
        ("throttle-start-fill", settings.throttle_start_fill.to_string()),
        ("throttle-latency-max", text::span_ms(settings.throttle_latency_ms_max)),
    ];
    let mut out = String::new();
    for (name, value) in rows {
        writeln!(out, "{name:<24}{value}").expect("writing to a String cannot fail");
    }
    for BandwidthWindow { days, from, to, upload_bytes_per_s } in &settings.bandwidth {
        let days = days.iter().map(|day| format!("{day:?}").to_lowercase()).collect::<Vec<_>>().join(",");
        writeln!(out, "{:<24}{days} {from}-{to} {}", "bandwidth", text::rate(*upload_bytes_per_s))
            .expect("writing to a String cannot fail");
    }
    out
}
