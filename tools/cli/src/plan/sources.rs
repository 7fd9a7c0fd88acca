//! Loads from what other tools recorded.

use super::Load;
use super::load::Distinct;
use crate::logwrites::{Flags, LogError, LogReader};
use std::io::{BufRead, Read};
use tidemark_format::FRAME_PLAIN_BYTES_MAX;

/// Compression is measured over pieces of a frame's size, as the writer does it.
const FRAME_BYTES: usize = FRAME_PLAIN_BYTES_MAX as usize;
const ZSTD_LEVEL: i32 = 1;
/// Seconds that a load from timed records is divided into.
const PERIOD_S: f64 = 1.0;
/// A record further than this from the first is of no recording that anybody makes: 400 days.
const SPAN_S_MAX: f64 = 400.0 * 86_400.0;
const SECTOR_BYTES: f64 = 512.0;
const BLOCK_BYTES: u64 = 4096;

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Not a log of block writes.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Reading failed.
    #[error("cannot read the record")]
    Read(#[from] std::io::Error),
    /// It is something else, or holds nothing.
    #[error("{what}")]
    Nothing {
        /// What was looked for.
        what: String,
    },
}

fn nothing(what: impl Into<String>) -> SourceError {
    SourceError::Nothing { what: what.into() }
}

/// Gathers writes at times into periods.
struct Timed {
    source: &'static str,
    first_s: Option<f64>,
    written_bytes: Vec<f64>,
    writes: f64,
}

impl Timed {
    fn new(source: &'static str) -> Self {
        Self { source, first_s: None, written_bytes: Vec::new(), writes: 0.0 }
    }

    /// A write; the first one begins the load, and one that seems to be before it counts with it.
    fn add(&mut self, time_s: f64, bytes: f64) -> Result<(), SourceError> {
        let since = (time_s - *self.first_s.get_or_insert(time_s)).max(0.0);
        if !time_s.is_finite() || since > SPAN_S_MAX {
            return Err(nothing(format!("{} goes on until {time_s} s, at most {SPAN_S_MAX} s are read", self.source)));
        }
        let period = (since / PERIOD_S) as usize;
        if self.written_bytes.len() <= period {
            self.written_bytes.resize(period + 1, 0.0);
        }
        self.written_bytes[period] += bytes;
        self.writes += 1.0;
        Ok(())
    }

    fn load(self) -> Result<Load, SourceError> {
        if self.written_bytes.is_empty() {
            return Err(nothing(format!("no write in {}", self.source)));
        }
        Ok(Load { writes: self.writes, ..Load::new(self.source, self.written_bytes, PERIOD_S) })
    }
}

/// A log of QEMU's blklogwrites or Linux' dm-log-writes, which was recorded over so long: it has no times, but the data.
///
/// # Errors
/// What is no such log.
pub fn of_blklogwrites(log: impl Read, over_s: f64) -> Result<Load, SourceError> {
    let (mut plain, mut stored, mut writes) = (0_u64, 0_u64, 0_u64);
    let mut distinct = tidemark_telemetry::Distinct::new(DISTINCT_BITS);
    let mut frame = Vec::with_capacity(2 * FRAME_BYTES);
    for entry in LogReader::open(log)? {
        let entry = entry?;
        if entry.flags.has(Flags::DISCARD) || entry.data.is_empty() {
            continue;
        }
        writes += 1;
        plain += entry.data.len() as u64;
        let end = entry.offset_bytes.saturating_add(entry.data.len() as u64);
        (entry.offset_bytes / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES)).for_each(|block| distinct.add(block));
        frame.extend_from_slice(&entry.data);
        while frame.len() >= FRAME_BYTES {
            stored += packed(&frame[..FRAME_BYTES])?;
            frame.drain(..FRAME_BYTES);
        }
    }
    stored += if frame.is_empty() { 0 } else { packed(&frame)? };
    if plain == 0 {
        return Err(nothing("no write in the log"));
    }
    let bytes = (distinct.count() * BLOCK_BYTES as f64).min(plain as f64);
    Ok(Load {
        writes: writes as f64,
        compression: Some(plain as f64 / stored.max(1) as f64),
        distinct: Some(Distinct { bytes, over_s }),
        ..Load::new("the log of writes", vec![plain as f64], over_s)
    })
}

/// Registers of the estimate of distinct blocks, as a power of two: a standard error of 0.8 %.
const DISTINCT_BITS: u32 = 14;

/// Bytes that a frame is stored as.
fn packed(frame: &[u8]) -> std::io::Result<u64> {
    Ok(zstd::bulk::compress(frame, ZSTD_LEVEL)?.len().min(frame.len()) as u64)
}

/// The text that `blkparse` makes of a trace: writes are counted where they were queued.
///
/// # Errors
/// What has no write in it.
pub fn of_blktrace(text: impl BufRead) -> Result<Load, SourceError> {
    let mut timed = Timed::new("the trace");
    for line in text.lines() {
        let line = line?;
        // maj,min cpu seq time pid action RWBS sector + sectors [process]
        let words: Vec<_> = line.split_ascii_whitespace().take(10).collect();
        let [_, _, _, time, _, "Q", what, _, "+", sectors] = words[..] else { continue };
        if let (true, Ok(time), Ok(sectors)) = (what.contains('W'), time.parse::<f64>(), sectors.parse::<u32>()) {
            timed.add(time, f64::from(sectors) * SECTOR_BYTES)?;
        }
    }
    timed.load()
}

/// What `iostat -dx` or `iostat -dxk` printed every so many seconds, of all devices together or of one. Its first report is the mean
/// since the machine started, and left out.
///
/// # Errors
/// What has no report with a column `wkB/s` in it.
pub fn of_iostat(text: impl BufRead, every_s: f64, device: Option<&str>) -> Result<Load, SourceError> {
    let mut columns: Option<(usize, usize)> = None;
    // Bytes and writes of each report.
    let mut reports: Vec<(f64, f64)> = Vec::new();
    for line in text.lines() {
        let line = line?;
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let column = |name: &str| words.iter().position(|word| *word == name);
        if words.first().is_some_and(|word| word.starts_with("Device")) {
            columns = column("wkB/s").zip(column("w/s"));
            reports.extend(columns.map(|_| (0.0, 0.0)));
            continue;
        }
        let (Some((kib, count)), Some(report)) = (columns, reports.last_mut()) else { continue };
        // Some locales write a comma.
        let number =
            |at: usize| words.get(at)?.replace(',', ".").parse::<f64>().ok().filter(|n| *n >= 0.0 && n.is_finite());
        let wanted = device.is_none_or(|device| words.first() == Some(&device));
        if let (true, Some(kib), Some(count)) = (wanted, number(kib), number(count)) {
            *report = (report.0 + kib * 1024.0 * every_s, report.1 + count * every_s);
        }
    }
    if reports.len() < 2 {
        return Err(nothing("no second report with a column wkB/s: record with `iostat -dx 1 600`"));
    }
    let (bytes, writes): (Vec<_>, Vec<_>) = reports.into_iter().skip(1).unzip();
    Ok(Load { writes: writes.iter().sum(), ..Load::new("iostat", bytes, every_s) })
}

/// What fio wrote: a log of single requests (`--write_lat_log`, `--write_bw_log` or `--write_iops_log`, without averages), or the JSON of
/// its jobs, whose writes are taken to be one load.
///
/// # Errors
/// What has no write in it.
pub fn of_fio(mut text: impl BufRead) -> Result<Load, SourceError> {
    if text.fill_buf()?.trim_ascii_start().starts_with(b"{") {
        return of_fio_json(text);
    }
    const WRITE: f64 = 1.0;
    let mut timed = Timed::new("fio's log");
    for line in text.lines() {
        let line = line?;
        // time in ms, value, direction, bytes of the request, offset, ...
        let numbers: Vec<f64> = line.split(',').map_while(|word| word.trim().parse().ok()).take(4).collect();
        let [time_ms, _, WRITE, bytes] = numbers[..] else { continue };
        if bytes <= 0.0 {
            return Err(nothing("fio's log has averages: record each request, without --log_avg_msec"));
        }
        timed.add(time_ms / 1e3, bytes)?;
    }
    timed.load()
}

fn of_fio_json(text: impl BufRead) -> Result<Load, SourceError> {
    let said: serde_json::Value =
        serde_json::from_reader(text).map_err(|e| nothing(format!("this is not fio's JSON: {e}")))?;
    let (mut bytes, mut writes, mut longest_s) = (0.0, 0.0, 0.0_f64);
    for job in said["jobs"].as_array().into_iter().flatten() {
        let number = |name: &str| job["write"][name].as_f64().unwrap_or(0.0).max(0.0);
        bytes += number("io_bytes");
        writes += number("total_ios");
        longest_s = longest_s.max(number("runtime") / 1000.0);
    }
    if bytes <= 0.0 || longest_s <= 0.0 {
        return Err(nothing("no job of fio wrote anything"));
    }
    Ok(Load { writes, ..Load::new("fio", vec![bytes], longest_s) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logwrites::{Entry, encode};

    #[test]
    fn a_log_of_writes_says_how_well_its_data_compresses_and_how_much_is_distinct() {
        let text = b"payroll, June 2026. ".repeat(52_429);
        let write = || Entry::write(0, text[..1 << 20].to_vec());
        let entries = [write(), Entry::flush(), write(), Entry::discard(0, 4096)];
        let load = of_blklogwrites(&encode(512, &entries)[..], 60.0).unwrap();
        assert_eq!((load.written_bytes[0], load.writes), (2_097_152.0, 2.0));
        assert!(load.compression.unwrap() > 20.0);
        let distinct = load.distinct.unwrap();
        assert!((distinct.bytes / 1_048_576.0 - 1.0).abs() < 0.05, "{distinct:?}");
        assert!(of_blklogwrites(&b"no log"[..], 60.0).is_err());
        assert!(of_blklogwrites(&encode(512, &[Entry::flush()])[..], 60.0).is_err());
    }

    #[test]
    fn a_trace_is_counted_where_writes_are_queued() {
        let trace = "8,0 1 11 0.009507758 697 Q W 223490 + 8 [kjournald]\n\
                     8,0 1 12 0.009538995 697 C W 223490 + 8 [0]\n\
                     8,0 1 13 0.5 697 Q R 1 + 8 [x]\n\
                     8,0 1 14 2.25 697 Q WS 7 + 16 [x]\nCPU0 (8,0):\n";
        let load = of_blktrace(trace.as_bytes()).unwrap();
        assert_eq!((load.written_bytes, load.writes), (vec![4096.0, 0.0, 8192.0], 2.0));
        for late in ["1e12", "inf", "NaN"] {
            let text = format!("8,0 1 1 0.0 1 Q W 1 + 8 [x]\n8,0 1 1 {late} 1 Q W 1 + 8 [x]\n");
            assert!(of_blktrace(text.as_bytes()).is_err(), "{late}");
        }
        assert!(of_blktrace(&b"nothing"[..]).is_err());
    }

    #[test]
    fn iostat_is_read_by_its_columns_without_the_first_report() {
        let text = "Linux 6.1\n\nDevice r/s rkB/s w/s wkB/s\nsda 1 2 3 4\n\nDevice r/s rkB/s w/s wkB/s\nsda 0 0 10 100\nsdb 0 0 5 50\n";
        let all = of_iostat(text.as_bytes(), 2.0, None).unwrap();
        assert_eq!((all.written_bytes, all.writes), (vec![307_200.0], 30.0));
        assert_eq!(of_iostat(text.as_bytes(), 2.0, Some("sdb")).unwrap().written_bytes, [102_400.0]);
        assert!(of_iostat(&b"Device w/s wkB/s\nsda 1 1\n"[..], 1.0, None).is_err());
        assert!(of_iostat(&b"Device tps\nsda 1\nDevice tps\nsda 1\n"[..], 1.0, None).is_err());
    }

    #[test]
    fn fio_is_read_by_its_log_of_requests_or_by_what_its_jobs_wrote() {
        let log = "0, 1, 1, 4096, 0, 0\n400, 1, 0, 4096, 0, 0\n1500, 1, 1, 8192, 4096, 0\n";
        let load = of_fio(log.as_bytes()).unwrap();
        assert_eq!((load.written_bytes, load.writes), (vec![4096.0, 8192.0], 2.0));
        let averages = of_fio(&b"1000, 5000, 1, 0, 0\n"[..]).unwrap_err().to_string();
        assert!(averages.contains("--log_avg_msec"), "{averages}");
        let text =
            r#"  {"jobs": [{"write": {"io_bytes": 4096000, "total_ios": 1000, "runtime": 2000}}, {"read": {}}]}"#;
        let load = of_fio(text.as_bytes()).unwrap();
        assert_eq!((load.written_bytes, load.period_s, load.writes), (vec![4_096_000.0], 2.0, 1000.0));
        assert!(of_fio(&b"{}"[..]).is_err() && of_fio(&b"fio: engine not found"[..]).is_err());
    }
}
