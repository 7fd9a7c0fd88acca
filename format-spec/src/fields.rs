//! Flat CBOR maps from names to numbers, texts and bytes: the body of every small record (SPEC.md §cbor).
//!
//! One shape serves events, CUTs, claims and hints, so that strangers need one decoder and tools can show any of them.

use crate::error::{FormatError, Result};
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

/// A value in a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// An unsigned number.
    Uint(u64),
    /// UTF-8 text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list of records, one level deep.
    List(Vec<Fields>),
}

impl From<u64> for Value {
    fn from(v: u64) -> Self {
        Self::Uint(v)
    }
}
impl From<Vec<Fields>> for Value {
    fn from(v: Vec<Fields>) -> Self {
        Self::List(v)
    }
}
impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Self::Text(v.to_owned())
    }
}
impl From<&[u8]> for Value {
    fn from(v: &[u8]) -> Self {
        Self::Bytes(v.to_vec())
    }
}

/// As shown to people.
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uint(v) => write!(f, "{v}"),
            Self::Text(v) => write!(f, "{v:?}"),
            Self::Bytes(v) if v.len() > 32 => write!(f, "{} bytes", v.len()),
            Self::Bytes(v) => f.write_str(&crate::text::hex(v)),
            Self::List(v) => write!(f, "{} records", v.len()),
        }
    }
}

/// A record: named values in ascending order of (length of name, name), each name once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, Value)>);

impl Fields {
    /// Adds a field; replaces one of the same name.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        match self.0.binary_search_by_key(&(name.len(), name), |(n, _)| (n.len(), n)) {
            Ok(at) => self.0[at].1 = value.into(),
            Err(at) => self.0.insert(at, (name.to_owned(), value.into())),
        }
        self
    }

    /// The fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        let at = self.0.binary_search_by_key(&(name.len(), name), |(n, _)| (n.len(), n)).ok()?;
        Some(&self.0[at].1)
    }
    pub(crate) fn uint(&self, what: &'static str, field: &'static str) -> Result<u64> {
        match self.get(field) {
            Some(Value::Uint(v)) => Ok(*v),
            _ => Err(FormatError::Field { what, field }),
        }
    }
    pub(crate) fn uint32(&self, what: &'static str, field: &'static str) -> Result<u32> {
        u32::try_from(self.uint(what, field)?).map_err(|_| FormatError::Field { what, field })
    }
    pub(crate) fn text(&self, what: &'static str, field: &'static str) -> Result<String> {
        match self.get(field) {
            Some(Value::Text(v)) => Ok(v.clone()),
            _ => Err(FormatError::Field { what, field }),
        }
    }
    pub(crate) fn bytes<const N: usize>(&self, what: &'static str, field: &'static str) -> Result<[u8; N]> {
        match self.get(field) {
            Some(Value::Bytes(v)) => v.as_slice().try_into().map_err(|_| FormatError::Field { what, field }),
            _ => Err(FormatError::Field { what, field }),
        }
    }
    pub(crate) fn blob(&self, what: &'static str, field: &'static str) -> Result<Vec<u8>> {
        match self.get(field) {
            Some(Value::Bytes(v)) => Ok(v.clone()),
            _ => Err(FormatError::Field { what, field }),
        }
    }
    pub(crate) fn list(&self, what: &'static str, field: &'static str) -> Result<&[Fields]> {
        match self.get(field) {
            Some(Value::List(v)) => Ok(v),
            _ => Err(FormatError::Field { what, field }),
        }
    }

    /// Appends the record as a CBOR map.
    /// The record's CBOR.
    pub fn to_cbor(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let mut to = Encoder::new(&mut *out);
        let infallible = "writing to a Vec cannot fail";
        to.map(self.0.len() as u64).expect(infallible);
        for (name, value) in &self.0 {
            to.str(name).expect(infallible);
            match value {
                Value::Uint(v) => drop(to.u64(*v).expect(infallible)),
                Value::Text(v) => drop(to.str(v).expect(infallible)),
                Value::Bytes(v) => drop(to.bytes(v).expect(infallible)),
                Value::List(v) => {
                    to.array(v.len() as u64).expect(infallible);
                    v.iter().for_each(|record| record.put(to.writer_mut()));
                }
            }
        }
    }

    /// Reads a CBOR map of definite length. Values of other types than [`Value`] are skipped: a later minor version may
    /// add them. Allocates no more than the input holds.
    pub(crate) fn take(from: &mut Decoder<'_>, what: &'static str) -> Result<Self> {
        Self::take_nested(from, what, 1)
    }

    fn take_nested(from: &mut Decoder<'_>, what: &'static str, depth_left: u8) -> Result<Self> {
        let bad = |e: minicbor::decode::Error| FormatError::Cbor { what, why: e.to_string() };
        let shape = |why: &str| FormatError::Cbor { what, why: why.to_owned() };
        let len = from.map().map_err(bad)?.ok_or_else(|| shape("map of indefinite length"))?;
        let mut fields: Vec<(String, Value)> = Vec::new();
        // Of every name, kept or skipped: whether a map is in order does not depend on what its reader knows.
        let mut last: Option<&str> = None;
        for _ in 0..len {
            let name = from.str().map_err(bad)?;
            //= SPEC.md#cbor
            //# CB-1
            if last.is_some_and(|last| (last.len(), last) >= (name.len(), name)) {
                return Err(shape("names are not in order"));
            }
            last = Some(name);
            let value = match from.datatype().map_err(bad)? {
                Type::U8 | Type::U16 | Type::U32 | Type::U64 => Value::Uint(from.u64().map_err(bad)?),
                Type::String => Value::Text(from.str().map_err(bad)?.to_owned()),
                Type::Bytes => Value::Bytes(from.bytes().map_err(bad)?.to_vec()),
                Type::Array if depth_left > 0 => match Self::take_list(from, what, depth_left - 1)? {
                    Some(list) => Value::List(list),
                    None => continue,
                },
                _ => {
                    from.skip().map_err(bad)?;
                    continue;
                }
            };
            fields.push((name.to_owned(), value));
        }
        Ok(Self(fields))
    }

    /// Reads a list of records; skips a list that holds anything else.
    fn take_list(from: &mut Decoder<'_>, what: &'static str, depth_left: u8) -> Result<Option<Vec<Self>>> {
        let bad = |e: minicbor::decode::Error| FormatError::Cbor { what, why: e.to_string() };
        let start = from.position();
        let len = from.array().map_err(bad)?.unwrap_or(0);
        let mut list = Vec::new();
        for _ in 0..len {
            if from.datatype().map_err(bad)? != Type::Map {
                from.set_position(start);
                from.skip().map_err(bad)?;
                return Ok(None);
            }
            list.push(Self::take_nested(from, what, depth_left)?);
        }
        Ok(Some(list))
    }
}
