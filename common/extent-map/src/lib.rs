//! The newest version of each block at or before an LSN. Pure.
