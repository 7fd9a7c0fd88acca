//! What guests write, over time.

use super::RequestRates;

/// The load's peak over its mean where nobody measured it.
const PEAK_GUESSED: f64 = 4.0;
/// Halvings until a rate is found: beyond what a number holds.
const HALVINGS: usize = 60;

/// How much of what is written is distinct.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distinct {
    /// Distinct bytes written within a time.
    pub bytes: f64,
    /// That time.
    pub over_s: f64,
}

impl Distinct {
    /// Within another time: it grows with its square root.
    pub(super) fn within(self, span_s: f64) -> f64 {
        self.bytes * (span_s / self.over_s).sqrt()
    }
}

/// What guests write.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// Bytes written in each of some periods, one after the other.
    pub written_bytes: Vec<f64>,
    /// How long a period is.
    pub period_s: f64,
    /// Writes in all periods.
    pub writes: f64,
    /// Plain bytes for each byte that is stored, if it was measured.
    pub compression: Option<f64>,
    /// How much is distinct, if it was measured.
    pub distinct: Option<Distinct>,
    /// Highest bytes a second, if it was said.
    pub peak_bytes_per_s: Option<f64>,
    /// Requests, if they were measured.
    pub requests: Option<RequestRates>,
    /// Where it comes from, for people.
    pub source: String,
}

impl Load {
    /// Of bytes in each period; nothing else is known.
    pub fn new(source: &str, written_bytes: Vec<f64>, period_s: f64) -> Self {
        Self {
            written_bytes,
            period_s,
            writes: 0.0,
            compression: None,
            distinct: None,
            peak_bytes_per_s: None,
            requests: None,
            source: source.to_owned(),
        }
    }

    pub(super) fn covered_s(&self) -> f64 {
        (self.written_bytes.len() as f64 * self.period_s).max(1e-9)
    }

    pub(super) fn rate(&self) -> f64 {
        self.written_bytes.iter().sum::<f64>() / self.covered_s()
    }

    /// Twice the relative standard error of the mean over periods. Neighbours are alike, so every tenth counts.
    pub(super) fn error(&self) -> f64 {
        let (count, mean) = (self.written_bytes.len() as f64, self.rate() * self.period_s);
        if count < 2.0 || mean <= 0.0 {
            return 0.5;
        }
        let variance = self.written_bytes.iter().map(|bytes| (bytes - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (2.0 * variance.sqrt() / mean / (count / 10.0).max(1.0).sqrt()).clamp(0.02, 1.0)
    }

    /// Most bytes that were written within `span_s`.
    pub(super) fn most_within(&self, span_s: f64) -> f64 {
        let periods = ((span_s / self.period_s).ceil() as usize).max(1);
        if periods >= self.written_bytes.len() {
            return self.rate() * span_s;
        }
        let mut window: f64 = self.written_bytes[..periods].iter().sum();
        let mut most = window;
        for (old, new) in self.written_bytes.iter().zip(&self.written_bytes[periods..]) {
            window += new - old;
            most = most.max(window);
        }
        most * (span_s / (periods as f64 * self.period_s))
    }

    /// The factor by which the peak is guessed from the mean, if it has to be.
    pub(super) fn peak_guess(&self) -> Option<f64> {
        (self.written_bytes.len() < 2 && self.peak_bytes_per_s.is_none()).then_some(PEAK_GUESSED)
    }

    /// Highest bytes a second.
    pub(super) fn peak(&self) -> f64 {
        let measured = self.written_bytes.iter().fold(0.0, |most: f64, bytes| most.max(*bytes)) / self.period_s;
        self.peak_bytes_per_s.unwrap_or(measured * self.peak_guess().unwrap_or(1.0))
    }

    /// The least rate that takes everything within `lag_s` after it comes.
    pub(super) fn drain_within(&self, lag_s: f64) -> f64 {
        if self.written_bytes.len() < 2 {
            return self.peak();
        }
        let keeps = |rate: f64| {
            let mut queue: f64 = 0.0;
            self.written_bytes.iter().all(|bytes| {
                queue = (queue + bytes - rate * self.period_s).max(0.0);
                queue <= rate * lag_s
            })
        };
        let (mut low, mut high) = (0.0, self.peak());
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(low, high);
            if keeps(middle) { high = middle } else { low = middle }
        }
        high
    }
}
