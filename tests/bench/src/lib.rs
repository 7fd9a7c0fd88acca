//! Measurements beside the machine's own limits.
