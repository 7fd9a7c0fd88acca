//! A domain's history as a read-only file tree.
