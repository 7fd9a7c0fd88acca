//! One thing in one minute: looks go in, the cells of a row come out.

use crate::core::latency::Latency;
use crate::core::readings::{Readings, Value};
use crate::core::row::Cell;
use crate::registry::{Kind, Measures, Unit};

/// Looks of one level that are kept; beyond, every other is let go. At one a second a minute has 61 at most.
const LOOKS_MAX: usize = 128;
const NS_PER_S: f64 = 1e9;

/// What a minute began with, and what was seen since.
#[derive(Debug)]
pub(crate) struct Window<M> {
    began_with: Readings<M>,
    levels: Vec<Level>,
}

#[derive(Debug, Default)]
struct Level {
    looks: Vec<f64>,
    least: f64,
    most: f64,
}

impl Level {
    fn see(&mut self, value: f64) {
        if self.looks.is_empty() {
            (self.least, self.most) = (value, value);
        }
        (self.least, self.most) = (self.least.min(value), self.most.max(value));
        if self.looks.len() == LOOKS_MAX {
            let mut nth = 0;
            self.looks.retain(|_| {
                nth += 1;
                nth % 2 == 0
            });
        }
        self.looks.push(value);
    }

    fn mean(&self) -> f64 {
        self.looks.iter().sum::<f64>() / self.looks.len() as f64
    }

    fn p99(&mut self) -> f64 {
        self.looks.sort_unstable_by(f64::total_cmp);
        let nth = (self.looks.len() as f64 * 0.99).ceil() as usize;
        self.looks[nth.clamp(1, self.looks.len()) - 1]
    }
}

impl<M: Measures> Window<M> {
    /// A window of something that is new: its counters began at zero.
    pub(crate) fn new() -> Self {
        Self::after(Readings::new())
    }

    /// The window that follows one which ended with `readings`.
    pub(crate) fn after(readings: Readings<M>) -> Self {
        let levels = M::ALL.iter().map(|_| Level::default()).collect();
        Self { began_with: readings, levels }
    }

    pub(crate) fn look(&mut self, readings: &Readings<M>) {
        for (index, level) in self.levels.iter_mut().enumerate() {
            if let Value::Now(value) = readings.at(index) {
                level.see(*value);
            }
        }
    }

    /// Ends the window with its last look, which it has seen: the cells of its measures.
    pub(crate) fn close(mut self, last: &Readings<M>) -> Vec<Cell> {
        let mut cells = Vec::new();
        for (index, measure) in M::ALL.iter().enumerate() {
            let level = &mut self.levels[index];
            let known = !level.looks.is_empty();
            let number = |known: bool, value: &mut dyn FnMut() -> f64| {
                if known { Cell::Number(value()) } else { Cell::Absent }
            };
            match measure.kind {
                Kind::Sum => cells.push(added(self.began_with.at(index), last.at(index), measure.unit)),
                Kind::Estimate => cells.push(match last.at(index) {
                    Value::Now(value) => Cell::Number(*value),
                    _ => Cell::Absent,
                }),
                Kind::Level => {
                    cells.push(number(known, &mut || level.mean()));
                    cells.push(number(known, &mut || level.most));
                }
                Kind::Lag => {
                    cells.push(number(known, &mut || level.least));
                    cells.push(number(known, &mut || level.mean()));
                    cells.push(number(known, &mut || level.p99()));
                    cells.push(number(known, &mut || level.most));
                }
                Kind::Latency => {
                    let counted = match (self.began_with.at(index), last.at(index)) {
                        (Value::Latency(before), Value::Latency(now)) => now.since(before),
                        (_, Value::Latency(now)) => now.clone(),
                        _ => Latency::default(),
                    };
                    let quantile = |share| counted.quantile(share);
                    let told = [0.5, 0.99, 1.0].map(quantile);
                    cells.extend(told.map(|took| took.map_or(Cell::Absent, |took| Cell::Number(took.as_secs_f64()))));
                }
            }
        }
        cells
    }
}

/// What a counter grew by.
fn added(before: &Value, now: &Value, unit: Unit) -> Cell {
    let Value::Sum(now) = now else { return Cell::Absent };
    let before = if let Value::Sum(before) = before { *before } else { 0 };
    // One that is smaller than it was began anew.
    let more = now.checked_sub(before).unwrap_or(*now);
    if unit == Unit::Seconds { Cell::Number(more as f64 / NS_PER_S) } else { Cell::from(more) }
}
