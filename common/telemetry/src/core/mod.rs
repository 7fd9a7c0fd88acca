//! What looks and requests become, without I/O, waiting or clock.

pub(crate) mod anomaly;
pub(crate) mod collector;
pub(crate) mod estimate;
pub(crate) mod latency;
pub(crate) mod probe;
pub(crate) mod readings;
pub(crate) mod row;
pub(crate) mod window;
