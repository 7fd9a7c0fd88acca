//! What the structures of a log store say, as JSON (LOGSTORE.md).

use super::fields;
use serde_json::{Value as Json, json};
use tidemark_format::error::Result;
use tidemark_format::logstore::*;
use tidemark_format::text::hex;
use tidemark_format::{EventBody, FormatError};

/// Which structure, and what its reader knows beforehand.
#[derive(Clone, Copy, Debug)]
pub enum Structure {
    Label,
    /// A table of this LUN.
    Table(LunId, Geometry),
    Batch,
}

impl Structure {
    /// Its name, and what is known beforehand.
    pub fn json(&self) -> Json {
        match self {
            Self::Label => json!({ "structure": "label" }),
            Self::Table(lun, geometry) => json!({
                "structure": "table",
                "lun": lun.to_string(),
                "extent_bytes": geometry.extent_bytes(),
                "extents": geometry.extents(),
                "domains_max": geometry.domains_max(),
            }),
            Self::Batch => json!({ "structure": "batch" }),
        }
    }

    /// The reverse of [`Self::json`].
    pub fn from_json(json: &Json) -> Option<Self> {
        let number = |member: &str| json[member].as_u64();
        match json["structure"].as_str()? {
            "label" => Some(Self::Label),
            "table" => {
                let (extents, domains_max) = (number("extents")? as u32, number("domains_max")? as u32);
                let lun: tidemark_format::DomainId = json["lun"].as_str()?.parse().ok()?;
                let geometry = Geometry::new(number("extent_bytes")?, extents, domains_max).ok()?;
                Some(Self::Table(LunId::new(lun.bytes()), geometry))
            }
            "batch" => Some(Self::Batch),
            _ => None,
        }
    }
}

/// What the bytes say.
pub fn of(structure: &Structure, bytes: &[u8]) -> Result<Json> {
    match structure {
        Structure::Label => Label::decode(bytes).map(|label| self::label(&label)),
        Structure::Table(lun, geometry) => Ok(table(&Table::decode(bytes, *lun, geometry)?)),
        Structure::Batch => batch(bytes),
    }
}

/// The bytes that a writer of this version makes of what they say.
pub fn written_anew(structure: &Structure, bytes: &[u8]) -> Result<Vec<u8>> {
    match structure {
        Structure::Label => Ok(Label::decode(bytes)?.encode()),
        Structure::Table(lun, geometry) => Ok(Table::decode(bytes, *lun, geometry)?.encode()),
        Structure::Batch => {
            let head = whole_batch(bytes)?;
            let records: Vec<_> = head.placed().map(|(record, range)| (*record, &bytes[range])).collect();
            Ok(encode_batch(&head.preamble.identity, &head.preamble.chain, &records))
        }
    }
}

fn label(label: &Label) -> Json {
    let geometry = &label.geometry;
    json!({
        "lun": label.lun.to_string(),
        "extent_bytes": geometry.extent_bytes(),
        "extents": geometry.extents(),
        "domains_max": geometry.domains_max(),
        "table_bytes": geometry.table_bytes(),
        "extents_at": geometry.extents_at(),
        "meta_pages_max": geometry.meta_pages_max(),
    })
}

fn table(table: &Table) -> Json {
    let value = |meta: &MetaEntry| {
        let runs: Vec<_> = meta.runs.iter().map(|run| json!([run.page, run.pages])).collect();
        json!({ "name": meta.name, "len": meta.len, "hash": hex(&meta.hash), "runs": runs })
    };
    let domain = |entry: &DomainEntry| {
        json!({
            "domain": entry.domain.to_string(),
            "incarnation": entry.incarnation.to_string(),
            "min_bytes": entry.min_bytes,
            "max_bytes": entry.max_bytes,
            "first_lsn": entry.first_lsn.get(),
            "durable": entry.durable.get(),
            "head_page": entry.head.page,
            "head_prev_crc": entry.head.prev_crc,
            "head_seq": entry.head.seq.get(),
            "head_lsn": entry.head.lsn.get(),
            "head_time": entry.head.time.get(),
            "meta_extent": entry.meta_extent.get(),
            "log_extents": entry.extents.iter().map(|extent| extent.get()).collect::<Vec<_>>(),
            "values": entry.metas.iter().map(value).collect::<Vec<_>>(),
        })
    };
    json!({ "generation": table.generation, "domains": table.domains.iter().map(domain).collect::<Vec<_>>() })
}

/// A batch that is all there is.
fn whole_batch(bytes: &[u8]) -> Result<BatchHead> {
    let what = "log store batch";
    let head = BatchHead::decode(bytes)?;
    let (need, have) = (head.preamble.batch_bytes(), bytes.len() as u64);
    if have < need {
        return Err(FormatError::TooShort { what, need, have });
    }
    if have > need {
        return Err(FormatError::TrailingBytes { what, extra: have - need });
    }
    head.check_data(bytes)?;
    Ok(head)
}

fn batch(bytes: &[u8]) -> Result<Json> {
    let head = whole_batch(bytes)?;
    let mut records = Vec::new();
    for (record, range) in head.placed() {
        let data = &bytes[range];
        let mut said = json!({
            "lsn": record.lsn.get(),
            "time": record.time.get(),
            "disk": record.disk.get(),
            "start": record.extent.start,
            "blocks": record.extent.len,
            "data_bytes": record.data_bytes,
            "data_crc": record.data_crc,
        });
        said["kind"] = match record.kind {
            RecordKind::Write => "write",
            RecordKind::Zero => "zero",
            RecordKind::Unmap => "unmap",
            RecordKind::Event => "event",
        }
        .into();
        if record.kind == RecordKind::Write {
            said["data_blake3"] = blake3::hash(data).to_hex().as_str().into();
        }
        if record.kind == RecordKind::Event {
            let body = EventBody::from_cbor(data, record.lsn)?;
            said["event"] = json!({ "code": body.code(), "name": body.name(), "fields": fields(&body.fields()) });
        }
        records.push(said);
    }
    let Preamble { identity, chain, head_crc, .. } = head.preamble;
    Ok(json!({
        "lun": identity.lun.to_string(),
        "domain": identity.domain.to_string(),
        "incarnation": identity.incarnation.to_string(),
        "seq": chain.seq.get(),
        "first_lsn": chain.first_lsn.get(),
        "prev_crc": chain.prev_crc,
        "head_crc": head_crc,
        "records": records,
    }))
}
