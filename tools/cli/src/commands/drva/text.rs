//! What people see: sizes, shares, states and tables.

use indicatif::{BinaryBytes, HumanDuration};
use std::time::Duration;
use tidemark_api::{
    Attachment, Cost, DiskState, DiskStatus, DomainState, DomainStatus, Limit, MaintenanceStatus, Rpo, TapState,
    ThrottleStage,
};
use tidemark_prices::Money;

pub(super) fn bytes(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

pub(super) fn rate(limit: Limit) -> String {
    limit.get().map_or("unlimited".to_owned(), |rate| format!("{}/s", bytes(rate)))
}

/// A span with the precision that it deserves.
pub(super) fn span_ms(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", ms as f64 / 1e3),
        _ => HumanDuration(Duration::from_millis(ms)).to_string(),
    }
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn share(done: u64, total: u64) -> f64 {
    if total == 0 { 1.0 } else { done as f64 / total as f64 }
}

pub(super) fn rpo(rpo: &Rpo) -> String {
    let note = if rpo.age_ms > rpo.target_ms { ", BEHIND" } else { "" };
    format!("{} of {}{note}", span_ms(rpo.age_ms), span_ms(rpo.target_ms))
}

pub(super) fn domain_state(state: &DomainState) -> String {
    match state {
        DomainState::Opening => "opening".to_owned(),
        DomainState::Replicating => "replicating".to_owned(),
        DomainState::Offline { reason, since } => format!("OFFLINE since {since}: {reason}"),
        DomainState::Paused => "paused".to_owned(),
        DomainState::Fenced { reason } => format!("FENCED: {reason}"),
        DomainState::Diverged { reason } => format!("DIVERGED: {reason}"),
        DomainState::Failed { reason } => format!("FAILED: {reason}"),
    }
}

fn progress(what: &str, done: u64, total: u64, eta_s: Option<u64>) -> String {
    let eta = eta_s.map_or(String::new(), |eta| format!(", {} to go", HumanDuration(Duration::from_secs(eta))));
    format!("{what} {}{eta}", percent(share(done, total)))
}

pub(super) fn disk_state(state: &DiskState) -> String {
    match state {
        DiskState::Seeding { done_bytes, total_bytes, eta_s } => progress("seeding", *done_bytes, *total_bytes, *eta_s),
        DiskState::Protected => "protected".to_owned(),
        DiskState::Gap { since } => format!("GAP since {since}"),
        DiskState::Resyncing { done_bytes, total_bytes, eta_s } => {
            progress("resyncing", *done_bytes, *total_bytes, *eta_s)
        }
        DiskState::Failed { reason } => format!("FAILED: {reason}"),
        DiskState::Unprotected => "UNPROTECTED".to_owned(),
        DiskState::Removed => "removed".to_owned(),
    }
}

pub(super) fn attachment(attachment: &Attachment) -> String {
    match attachment {
        Attachment::Nothing => "nothing".to_owned(),
        Attachment::Inline { connections: 1 } => "inline, 1 connection".to_owned(),
        Attachment::Inline { connections } => format!("inline, {connections} connections"),
        Attachment::Tap { node, tap, .. } => match tap {
            TapState::Connecting => format!("tap of {node}, connecting"),
            TapState::Copying { done_bytes, total_bytes } => {
                format!("tap of {node}, copying {}", percent(share(*done_bytes, *total_bytes)))
            }
            TapState::Ready => format!("tap of {node}, ready"),
            TapState::Lost { reason } => format!("tap of {node}, LOST: {reason}"),
        },
    }
}

/// What a domain costs; a store that charges nothing is left out.
fn cost(cost: &Cost) -> String {
    let told = |nanos: u64| format!("{} {}", cost.currency, Money::of_nanos(nanos));
    if cost.spent_nanos == 0 && cost.kept_month_nanos == 0 {
        return String::new();
    }
    let month = cost.month_nanos.map_or(String::new(), |nanos| format!(", {} a month at this pace", told(nanos)));
    format!(
        "  requests   {} in {}{month} ({})\n  kept       {} stored since, {} a month\n",
        told(cost.spent_nanos),
        span_ms(cost.counted_ms),
        cost.sheet,
        bytes(cost.stored_bytes),
        told(cost.kept_month_nanos),
    )
}

/// How the bucket is maintained.
fn maintenance(of: &MaintenanceStatus) -> String {
    let ended = of.ended.map_or(String::new(), |ended| format!(" at {ended}"));
    let mut out = match &of.failed {
        Some(why) => format!("  upkeep     FAILED{ended}: {why}\n"),
        None => format!("  upkeep     done{ended}, indexed through lsn {}\n", of.indexed_lsn.unwrap_or_default()),
    };
    if let (Some(is), Some(promised)) = (of.window_ms, of.window_promised_ms) {
        let kept = if of.window_kept { "" } else { ", which is MISSED" };
        out += &format!("  window     {} of {} that are promised{kept}\n", span_ms(is), span_ms(promised));
    }
    out
}

/// Everything about one domain.
pub(super) fn domain(domain: &DomainStatus) -> String {
    let epoch = domain.epoch.map_or(String::new(), |epoch| format!(", epoch {epoch}"));
    let ratio = domain.compression_ratio.map_or(String::new(), |ratio| format!(", compressed {ratio:.1} : 1"));
    let flow = &domain.throughput;
    let throttle = match domain.throttle.stage {
        ThrottleStage::None => "none".to_owned(),
        stage => format!(
            "{}, {:.1} ms added to a write, guests may write {}",
            stage.name().to_uppercase(),
            domain.throttle.added_latency_ms,
            rate(domain.throttle.guest_bytes_per_s)
        ),
    };
    let mut out = format!(
        "{}: {}{epoch}\n  bucket     {}\n  rpo        {}\n  lsn        {}, in the bucket through {}\n  log        {} of {} ({})\n  \
         throttle   {throttle}\n  guests     {}/s, {} writes/s\n  shipped    {}/s{ratio}, seeding reads {}/s\n",
        domain.name,
        domain_state(&domain.state),
        domain.url,
        rpo(&domain.rpo),
        domain.last_lsn,
        domain.committed_lsn,
        bytes(domain.log.used_bytes),
        bytes(domain.log.max_bytes),
        percent(domain.log.fill),
        bytes(flow.guest_bytes_per_s),
        flow.guest_writes_per_s,
        bytes(flow.shipped_bytes_per_s),
        bytes(flow.seed_bytes_per_s),
    );
    if let Some(cost) = &domain.cost {
        out += &self::cost(cost);
    }
    if let Some(maintenance) = &domain.maintenance {
        out += &self::maintenance(maintenance);
    }
    if domain.vms.len() > 1 {
        let rows = domain.vms.iter().map(|vm| vec![vm.name.clone(), rpo(&vm.rpo), bytes(vm.pending_bytes)]);
        out += &indent(&table(&["VM", "RPO", "PENDING"], rows.collect()));
    }
    out + &indent(&disks(&domain.disks))
}

/// A table of disks.
pub(super) fn disks(disks: &[DiskStatus]) -> String {
    let row = |disk: &DiskStatus| {
        vec![
            format!("{}/{}", disk.vm, disk.disk),
            bytes(disk.size_bytes),
            disk.mode.name().to_owned(),
            disk_state(&disk.state),
            bytes(disk.pending_bytes),
            attachment(&disk.attachment),
        ]
    };
    if disks.is_empty() {
        return "no disks\n".to_owned();
    }
    table(&["DISK", "SIZE", "MODE", "STATE", "PENDING", "FED BY"], disks.iter().map(row).collect())
}

/// Everything about one disk.
pub(super) fn disk(status: &DiskStatus) -> String {
    let primary = status.primary.as_ref().map_or(String::new(), |primary| format!("primary  {primary}\n"));
    let exports = status.export.uris.iter().map(|uri| format!("export   {uri}\n")).collect::<String>();
    format!("{}{primary}{exports}", disks(std::slice::from_ref(status)))
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// Columns as wide as they have to be.
pub(super) fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let head = head.iter().map(|name| (*name).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..).map_while(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["web1/root".to_owned(), "1".to_owned()], vec!["é".to_owned(), "22".to_owned()]];
        assert_eq!(table(&["DISK", "N"], rows), "DISK       N\nweb1/root  1\né          22\n");
    }

    #[test]
    fn spans_have_the_precision_that_they_deserve() {
        for (ms, text) in [(7, "7 ms"), (1_234, "1.2 s"), (60_000, "60 seconds"), (7_200_000, "2 hours")] {
            assert_eq!(span_ms(ms), text);
        }
    }

    #[test]
    fn an_rpo_that_is_missed_stands_out() {
        assert_eq!(rpo(&Rpo { age_ms: 1_200, target_ms: 5_000 }), "1.2 s of 5.0 s");
        assert_eq!(rpo(&Rpo { age_ms: 6_000, target_ms: 5_000 }), "6.0 s of 5.0 s, BEHIND");
    }
}
