//! What can be wrong with bytes that claim to be Tidemark objects.

use crate::ids::{DomainId, Lsn};
use crate::key::ObjectKey;
use crate::kind::ErrorKind;
use crate::text::hex;

/// Why bytes were refused. [`Self::name`] is the name that golden vectors and other readers use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Fewer bytes than the structure needs.
    #[error("{what} needs {need} bytes, has {have}")]
    TooShort {
        /// The structure.
        what: &'static str,
        /// Bytes needed.
        need: u64,
        /// Bytes at hand.
        have: u64,
    },
    /// More bytes than the structure accounts for.
    #[error("{what} has {extra} bytes too many")]
    TrailingBytes {
        /// The structure.
        what: &'static str,
        /// Bytes left over.
        extra: u64,
    },
    /// The first eight bytes are of something else.
    #[error("{what} does not begin with its magic number")]
    Magic {
        /// The structure.
        what: &'static str,
    },
    /// Written by an incompatible major version.
    #[error("{what} has format major version {found}, this reader knows {known}")]
    Major {
        /// The structure.
        what: &'static str,
        /// Version in the object.
        found: u64,
        /// Version of this codec.
        known: u64,
    },
    /// Needs a feature that this reader lacks.
    #[error("needs read features {bits:#x} that this reader does not know")]
    ReadFeatures {
        /// The unknown bits.
        bits: u64,
    },
    /// The 512-byte header was altered.
    #[error("segment header hash differs: stored {stored}, computed {computed}")]
    HeaderHash {
        /// In the header, hex.
        stored: String,
        /// Over the header, hex.
        computed: String,
    },
    /// The sections in front of DATA were altered.
    #[error("segment meta hash differs: stored {stored}, computed {computed}")]
    MetaHash {
        /// In the header, hex.
        stored: String,
        /// Over the sections, hex.
        computed: String,
    },
    /// One frame was altered.
    #[error("frame hash differs: stored {stored}, computed {computed}")]
    FrameHash {
        /// In FRAMEDIR, hex.
        stored: String,
        /// Over the stored bytes, hex.
        computed: String,
    },
    /// A frame has the right hash but does not decompress to what FRAMEDIR promises.
    #[error("frame does not decompress to {plain_len} bytes: {why}")]
    FrameContents {
        /// Promised plaintext bytes.
        plain_len: u32,
        /// What went wrong.
        why: String,
    },
    /// The compressor produced bytes that do not decompress to their input; nothing was stored.
    #[error("compressor output does not decompress to its input of {plain_len} bytes")]
    CompressorLied {
        /// Plaintext bytes.
        plain_len: u64,
    },
    /// A small object's body was altered.
    #[error("{what} hash differs")]
    RecordHash {
        /// The object.
        what: &'static str,
    },
    /// The object belongs to another domain.
    #[error("object belongs to domain {found}, expected {expected}")]
    WrongDomain {
        /// In the object.
        found: DomainId,
        /// Expected by the reader.
        expected: DomainId,
    },
    /// The object lies under another key than its own.
    #[error("object names itself {found}, but was read from {expected}")]
    Misplaced {
        /// What the object says that it is.
        found: String,
        /// Where it was read.
        expected: ObjectKey,
    },
    /// The store holds more or fewer bytes than the header accounts for.
    #[error("object has {actual} bytes, its header says {header}")]
    TotalLen {
        /// `total_len` of the header.
        header: u64,
        /// Length in the store.
        actual: u64,
    },
    /// A header field has a value that the specification does not allow.
    #[error("header field {field} has forbidden value {value}")]
    HeaderField {
        /// Name of the field in SPEC.md.
        field: &'static str,
        /// The value.
        value: u64,
    },
    /// The section table contradicts itself.
    #[error("section table: {why}")]
    SectionTable {
        /// What is wrong.
        why: &'static str,
    },
    /// A section that must be understood is unknown.
    #[error("unknown critical section {id}")]
    UnknownCriticalSection {
        /// Section id.
        id: u16,
    },
    /// A packed column cannot be decoded.
    #[error("packed column: {why}")]
    Column {
        /// What is wrong.
        why: &'static str,
    },
    /// An index row breaks a rule.
    #[error("index row {row}: {why}")]
    Row {
        /// Row number in the segment, from 0.
        row: u64,
        /// The broken rule.
        why: &'static str,
    },
    /// Two totals that must agree differ.
    #[error("{what}: {left} against {right}")]
    Mismatch {
        /// Which totals.
        what: &'static str,
        /// First total.
        left: u64,
        /// Second total.
        right: u64,
    },
    /// A FRAMEDIR entry breaks a rule.
    #[error("frame {frame}: {why}")]
    Frame {
        /// Frame number in the segment, from 0.
        frame: u64,
        /// The broken rule.
        why: &'static str,
    },
    /// The TIMES section breaks a rule.
    #[error("times: {why}")]
    Times {
        /// The broken rule.
        why: &'static str,
    },
    /// CBOR that is malformed or of another shape.
    #[error("{what}: {why}")]
    Cbor {
        /// The structure.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A field that must be there is missing or of another type.
    #[error("{what} lacks field {field}, or it has another type or range")]
    Field {
        /// The structure.
        what: &'static str,
        /// Name of the field.
        field: &'static str,
    },
    /// An event that must be understood is unknown.
    #[error("unknown critical event {code} at lsn {lsn}")]
    UnknownCriticalEvent {
        /// Event code.
        code: u64,
        /// Its position.
        lsn: Lsn,
    },
    /// Events are out of order, or outside of the segment's LSN range.
    #[error("event at lsn {lsn}: {why}")]
    Event {
        /// Its position.
        lsn: Lsn,
        /// The broken rule.
        why: &'static str,
    },
    /// The LSNs of rows and events do not cover the segment's range exactly.
    #[error("lsn {lsn} {why}")]
    NotDense {
        /// First offending position.
        lsn: Lsn,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A table of the index is not as the specification asks.
    #[error("index table: {why}")]
    Table {
        /// What is wrong.
        why: String,
    },
    /// Bytes of a table are not those that the root, or the table's footer, names.
    #[error("{what} hash differs")]
    TableHash {
        /// Which bytes.
        what: &'static str,
    },
    /// The genesis object is not the JSON that the specification asks for.
    #[error("genesis: {why}")]
    Genesis {
        /// What is wrong.
        why: String,
    },
    /// A draft cannot be sealed because it breaks a rule of the format: a bug of the caller.
    #[error("cannot seal: {why}")]
    Draft {
        /// The broken rule.
        why: String,
    },
}

impl FormatError {
    /// The stable name of the error, used by `vectors/` and by other readers.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TooShort { .. } => "TooShort",
            Self::TrailingBytes { .. } => "TrailingBytes",
            Self::Magic { .. } => "Magic",
            Self::Major { .. } => "Major",
            Self::ReadFeatures { .. } => "ReadFeatures",
            Self::HeaderHash { .. } => "HeaderHash",
            Self::MetaHash { .. } => "MetaHash",
            Self::FrameHash { .. } => "FrameHash",
            Self::FrameContents { .. } => "FrameContents",
            Self::CompressorLied { .. } => "CompressorLied",
            Self::RecordHash { .. } => "RecordHash",
            Self::WrongDomain { .. } => "WrongDomain",
            Self::Misplaced { .. } => "Misplaced",
            Self::TotalLen { .. } => "TotalLen",
            Self::HeaderField { .. } => "HeaderField",
            Self::SectionTable { .. } => "SectionTable",
            Self::UnknownCriticalSection { .. } => "UnknownCriticalSection",
            Self::Column { .. } => "Column",
            Self::Row { .. } => "Row",
            Self::Mismatch { .. } => "Mismatch",
            Self::Frame { .. } => "Frame",
            Self::Times { .. } => "Times",
            Self::Cbor { .. } => "Cbor",
            Self::Field { .. } => "Field",
            Self::UnknownCriticalEvent { .. } => "UnknownCriticalEvent",
            Self::Event { .. } => "Event",
            Self::NotDense { .. } => "NotDense",
            Self::Table { .. } => "Table",
            Self::TableHash { .. } => "TableHash",
            Self::Genesis { .. } => "Genesis",
            Self::Draft { .. } => "Draft",
        }
    }

    /// What a caller can do about it.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Major { .. }
            | Self::ReadFeatures { .. }
            | Self::UnknownCriticalSection { .. }
            | Self::UnknownCriticalEvent { .. }
            | Self::Draft { .. } => ErrorKind::FixRequest,
            _ => ErrorKind::DataLoss,
        }
    }

    pub(crate) fn header_hash(stored: &[u8], computed: &[u8]) -> Self {
        Self::HeaderHash { stored: hex(stored), computed: hex(computed) }
    }
    pub(crate) fn meta_hash(stored: &[u8], computed: &[u8]) -> Self {
        Self::MetaHash { stored: hex(stored), computed: hex(computed) }
    }
    pub(crate) fn frame_hash(stored: &[u8], computed: &[u8]) -> Self {
        Self::FrameHash { stored: hex(stored), computed: hex(computed) }
    }
}

/// Result of the codec.
pub type Result<T> = std::result::Result<T, FormatError>;
