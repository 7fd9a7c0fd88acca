//! The writer and the reader for programs in C, and in whatever speaks C's ABI.
//!
//! Turns calls with pointers into calls of `tidemark-writer` and `tidemark-reader`, and their results into codes, errors
//! with messages, and callbacks. The header `include/tidemark.h` is made of the doc comments here; the manual, with the
//! rules for threads and ownership, is `tidemark.3`.
//!
//! Invariants: no panic crosses the boundary; a null or senseless argument is an error, not a crash; nobody but the
//! library's own threads does I/O, so a caller's signals and priorities never meet it; requests in flight are bounded; a
//! request that was accepted has its callback called exactly once, in the order of LSNs, whatever becomes of the writer.
//! Not here: what writing and reading mean (the two libraries), and the installation (`Makefile`, `tidemark.pc.in`).

//! Safety of every `tidemark_*` function: a pointer is null or points to what its type says, texts end with NUL, a handle was
//! not closed, and what is handed over does not change during the call. Closing is the last call on a handle.

#![allow(unsafe_code, reason = "what C hands over can be checked for null and no more")]
#![allow(clippy::missing_safety_doc, reason = "one contract for all, above: the doc comments are C's header")]

mod args;
mod error;
mod reader;
mod store;
mod submit;
mod threads;
mod writer;

pub use error::{
    Code, Failure, TIDEMARK_DATA_LOSS, TIDEMARK_DENIED, TIDEMARK_FENCED, TIDEMARK_FIX_REQUEST, TIDEMARK_INTERNAL,
    TIDEMARK_NOT_FOUND, TIDEMARK_OK, TIDEMARK_RETRY, tidemark_error_code, tidemark_error_free, tidemark_error_hint,
    tidemark_error_message, tidemark_version,
};
pub use reader::{
    Disk, Disks, Image, ImageInfo, Reader, ReaderOptions, tidemark_disks_count, tidemark_disks_free,
    tidemark_disks_get, tidemark_image_close, tidemark_image_open, tidemark_image_stat, tidemark_read_at,
    tidemark_reader_close, tidemark_reader_disks, tidemark_reader_open, tidemark_reader_refresh,
    tidemark_reader_resolve,
};
pub use store::{Store, TIDEMARK_ATTESTED, TIDEMARK_PROBE, tidemark_domain_create};
pub use submit::{
    Done, tidemark_submit_bookmark, tidemark_submit_flush, tidemark_submit_unmap, tidemark_submit_write,
    tidemark_submit_zero,
};
pub use writer::{
    Source, Status, TIDEMARK_APPLICATION, TIDEMARK_CRASH, TIDEMARK_FILE_SYSTEM, TIDEMARK_WRITE_BYTES_MAX, Writer,
    WriterOptions, tidemark_bookmark, tidemark_disk_add, tidemark_disk_add_existing, tidemark_disk_find,
    tidemark_disk_remove, tidemark_disk_resize, tidemark_disk_seed, tidemark_flush, tidemark_unmap, tidemark_write,
    tidemark_writer_abort, tidemark_writer_close, tidemark_writer_open, tidemark_writer_status, tidemark_zero,
};
