//! One look at everything that is measured of one thing.

use crate::core::latency::Latency;
use crate::registry::{Kind, Measures};
use std::marker::PhantomData;
use std::time::Duration;

/// What a look found.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// Not known.
    #[default]
    Unknown,
    /// Counted since the process started; of seconds, nanoseconds.
    Sum(u64),
    /// As of now.
    Now(f64),
    /// Counted since the process started.
    Latency(Latency),
}

/// A look at one thing. What was not set is not known.
#[derive(Clone, Debug, PartialEq)]
pub struct Readings<M> {
    values: Vec<Value>,
    of: PhantomData<M>,
}

impl<M: Measures> Default for Readings<M> {
    fn default() -> Self {
        Self { values: vec![Value::Unknown; M::ALL.len()], of: PhantomData }
    }
}

impl<M: Measures> Readings<M> {
    /// Nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// A counter's total.
    pub fn sum(&mut self, measure: M, total: u64) -> &mut Self {
        self.set(measure, Value::Sum(total), &[Kind::Sum])
    }

    /// A total of time.
    pub fn time(&mut self, measure: M, total: Duration) -> &mut Self {
        self.sum(measure, u64::try_from(total.as_nanos()).unwrap_or(u64::MAX))
    }

    /// A level, or an estimate. What is no number is not known.
    pub fn now(&mut self, measure: M, value: f64) -> &mut Self {
        let value = if value.is_finite() { Value::Now(value) } else { Value::Unknown };
        self.set(measure, value, &[Kind::Level, Kind::Lag, Kind::Estimate])
    }

    /// How long requests took.
    pub fn latency(&mut self, measure: M, counted: Latency) -> &mut Self {
        self.set(measure, Value::Latency(counted), &[Kind::Latency])
    }

    fn set(&mut self, measure: M, value: Value, kinds: &[Kind]) -> &mut Self {
        let of = &M::ALL[measure.index()];
        assert!(kinds.contains(&of.kind), "{} of {} is {:?}", of.name, M::SCOPE, of.kind);
        self.values[measure.index()] = value;
        self
    }

    /// What was found of a measure.
    pub fn get(&self, measure: M) -> &Value {
        &self.values[measure.index()]
    }

    pub(crate) fn at(&self, index: usize) -> &Value {
        &self.values[index]
    }
}
