//! Tidemark Log Format v1: the reference codec of `SPEC.md`.
//!
//! Turns writes and events into the bytes of objects and back. Pure: no I/O, no clock, no randomness. Every decoder
//! accepts any bytes, never panics, and allocates no more than a small multiple of its input.
//!
//! Not here: which objects to read or write, and in which order (the writer's and the reader's cores).

mod column;
mod cursor;
pub mod cut;
pub mod error;
pub mod event;
pub mod fields;
pub mod frame;
pub mod genesis;
pub mod header;
pub mod ids;
pub mod index;
pub mod key;
pub mod kind;
pub mod ledger;
pub mod logstore;
pub mod record;
pub mod retention;
pub mod root;
pub mod segment;
pub mod statistics;
pub mod table;
pub mod text;
pub mod times;

pub use cut::{Cut, DiskState, Tail};
pub use error::FormatError;
pub use event::{BaseRef, Event, EventBody, Level};
pub use fields::{Fields, Value};
pub use frame::{
    FRAME_PLAIN_BYTES_MAX, FrameCodec, FrameCompressor, FrameDecoder, FrameDir, FrameEntry, FramePart, StoredFrame,
    check_stored, compress_frame, decode_frame, frame_hash,
};
pub use genesis::Genesis;
pub use header::{
    Expect, Features, HEADER_BYTES, OBJECT_BYTES_MAX, SegmentHeader, SegmentIdentity, SegmentKind, TICK_NS_DEFAULT,
};
pub use ids::{BLOCK_BYTES, BadName, DiskId, DomainId, Epoch, Extent, Lsn, Role, Seq, TimeNs};
pub use index::{DISK_BLOCKS_MAX, PackedIndex, PlacedRow, Row, RowKind};
pub use key::{KeyFamily, ObjectKey};
pub use kind::{ErrorKind, with_causes};
pub use ledger::{Ledger, LedgerPart};
pub use record::{Claim, ClaimMode, Hint, Pin, Quarantine};
pub use retention::{Hold, Mark, Policy, Retained, Retention};
pub use root::{EpochStart, Root, Through};
pub use segment::{CutDraft, SealedHead, SegmentDraft, SegmentHead, seal_cut, seal_segment};
pub use statistics::{Day, StatsTable};
pub use table::{
    EventRow, GroupInfo, REGION_BLOCKS, RowBounds, RowStart, SegmentRow, TableBuilder, TableFooter, TableKind,
    TableRef, TableRow,
};
pub use times::{PackedTimes, TimeStep};
