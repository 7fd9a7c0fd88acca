//! The only crate that reads a clock or draws randomness; everything else is handed both.
