//! Decisions without I/O: which runs to merge, which segments make a run, which points stay, which versions they need,
//! which segments are rewritten, which regions get an image.

pub(crate) mod compact;
pub(crate) mod garbage;
pub(crate) mod images;
pub(crate) mod plan;
pub(crate) mod retention;

pub(crate) use tidemark_extent_map::liveness;
