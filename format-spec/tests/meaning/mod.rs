//! What an object says, as the JSON of `vectors/README.md`: reads it whole, in the order of checks written there.

#[allow(dead_code)]
pub mod logstore;

use serde_json::{Map, Value as Json, json};
use tidemark_format::error::Result;
use tidemark_format::text::hex;
use tidemark_format::*;

/// Decodes the object read from `key`: its meaning, or the first rule that it breaks.
pub fn of(bytes: &[u8], expect: &Expect) -> Result<Json> {
    match expect.key {
        ObjectKey::Log { .. } | ObjectKey::Base { .. } => segment(bytes, expect),
        ObjectKey::Claim { .. } => Ok(json!({ "claim": fields(&Claim::decode(bytes, expect)?.fields()) })),
        ObjectKey::Root { .. } => Ok(json!({ "root": fields(&Root::decode(bytes, expect)?.fields()) })),
        ObjectKey::Ledger { .. } => Ok(json!({ "ledger": fields(&Ledger::decode(bytes, expect)?.fields()) })),
        ObjectKey::Pin { .. } => Ok(json!({ "pin": fields(&Pin::decode(bytes, expect.domain)?.fields()) })),
        ObjectKey::Quarantine { .. } => {
            Ok(json!({ "quarantine": fields(&Quarantine::decode(bytes, expect)?.fields()) }))
        }
        ObjectKey::Index { .. } => table(bytes, expect),
        ObjectKey::Retention => Ok(json!({ "retention": fields(&Retention::decode(bytes, expect.domain)?.fields()) })),
        ObjectKey::Hint => Ok(json!({ "hint": fields(&Hint::decode(bytes, expect.domain)?.fields()) })),
        _ => genesis(bytes),
    }
}

/// The same object written anew from what it says. Stored frames are taken over as they are: another zstd may compress
/// to other bytes.
pub fn written_anew(bytes: &[u8], expect: &Expect) -> Result<Vec<u8>> {
    Ok(match expect.key {
        ObjectKey::Claim { .. } => Claim::decode(bytes, expect)?.encode(),
        ObjectKey::Root { .. } => Root::decode(bytes, expect)?.encode()?,
        ObjectKey::Ledger { .. } => Ledger::decode(bytes, expect)?.encode()?,
        ObjectKey::Pin { .. } => Pin::decode(bytes, expect.domain)?.encode(),
        ObjectKey::Quarantine { .. } => Quarantine::decode(bytes, expect)?.encode(),
        ObjectKey::Retention => Retention::decode(bytes, expect.domain)?.encode()?,
        ObjectKey::Hint => Hint::decode(bytes, expect.domain)?.encode(),
        ObjectKey::Log { .. } | ObjectKey::Base { .. } => {
            let head = SegmentHead::decode(bytes, expect)?;
            let header = &head.header;
            let sealed = match &head.cut {
                Some(cut) => {
                    let (time, tick_ns, salt) = (header.first_time, header.tick_ns, header.salt);
                    seal_cut(&CutDraft { identity: header.identity, cut, time, tick_ns, salt })?
                }
                None => seal_segment(&SegmentDraft {
                    identity: header.identity,
                    first_lsn: header.first_lsn,
                    last_lsn: header.last_lsn,
                    acked_through: header.acked_through,
                    prev_header_hash: header.prev_header_hash,
                    salt: header.salt,
                    tick_ns: header.tick_ns,
                    times: &head.times.iter().flat_map(PackedTimes::iter).collect::<Vec<_>>(),
                    rows: &head.index.iter().map(|placed| placed.row).collect::<Vec<_>>(),
                    events: &head.events,
                    frames: &(0..head.frames.len()).filter_map(|i| head.frames.entry(i).copied()).collect::<Vec<_>>(),
                })?,
            };
            [&sealed.bytes, &bytes[header.head_len as usize..]].concat()
        }
        _ => Genesis::decode(bytes)?.encode(),
    })
}

fn segment(bytes: &[u8], expect: &Expect) -> Result<Json> {
    let head = SegmentHead::decode(bytes, expect)?;
    head.check_total_len(bytes.len() as u64)?;
    head.check_dense()?;
    let (mut frames, mut stream) = (Vec::new(), Vec::new());
    for i in 0..head.frames.len() {
        let entry = head.frames.entry(i).expect("i is in range");
        let range = head.frames.object_range(i).expect("i is in range");
        let plain = decode_frame(entry, &bytes[range.start as usize..range.end as usize])?;
        frames.push(json!({
            "offset": range.start,
            "stored_len": entry.stored_len,
            "plain_len": entry.plain_len,
            "codec": entry.codec.name(),
            "hash": hex(&entry.hash),
        }));
        stream.extend(plain);
    }
    let header = &head.header;
    let identity = &header.identity;
    let mut meaning = json!({
        "header": {
            "minor": header.minor,
            "kind": identity.kind.name(),
            "role": identity.role.name(),
            "features_read": header.features.read,
            "features_write": header.features.write,
            "features_gc": header.features.gc,
            "features_compat": header.features.compat,
            "domain": identity.domain.to_string(),
            "epoch": identity.epoch.get(),
            "seq": identity.seq.get(),
            "total_len": header.total_len,
            "first_lsn": header.first_lsn.get(),
            "last_lsn": header.last_lsn.get(),
            "first_time_ns": header.first_time.get(),
            "last_time_ns": header.last_time.get(),
            "acked_through": header.acked_through.get(),
            "row_count": header.row_count,
            "head_len": header.head_len,
            "data_len": header.data_len,
            "stream_blocks": header.stream_blocks,
            "frame_count": header.frame_count,
            "tick_ns": header.tick_ns,
            "salt": hex(&header.salt),
            "prev_header_hash": hex(&header.prev_header_hash),
            "meta_hash": hex(&header.meta_hash),
            "header_hash": hex(&header.header_hash),
        },
    });
    let said = meaning.as_object_mut().expect("made as an object");
    match (&head.cut, &head.times) {
        (Some(cut), _) => drop(said.insert("cut".into(), fields(&cut.fields()))),
        (None, times) => {
            said.insert("rows".into(), head.index.iter().map(row).collect());
            said.insert("frames".into(), frames.into());
            said.insert("stream_blake3".into(), blake3::hash(&stream).to_hex().to_string().into());
            let steps = times.iter().flat_map(PackedTimes::iter);
            said.insert("times".into(), steps.map(|step| json!([step.lsn.get(), step.time.get()])).collect());
            said.insert("events".into(), head.events.iter().map(event).collect());
        }
    }
    Ok(meaning)
}

/// A table by itself; its root would also vouch for the footer.
fn table(bytes: &[u8], expect: &Expect) -> Result<Json> {
    let table = TableRef::of_object(bytes)?;
    let footer = TableFooter::decode(&bytes[table.footer_start() as usize..], &table, expect)?;
    let rows = match table.kind {
        TableKind::Rows | TableKind::Images => groups::<PlacedRow>(bytes, &footer, row)?,
        TableKind::Segments => groups::<SegmentRow>(bytes, &footer, segment_row)?,
        TableKind::Events => groups::<EventRow>(bytes, &footer, |row| {
            let mut meaning = event(&row.event);
            meaning["time_ns"] = row.time.get().into();
            meaning
        })?,
    };
    Ok(json!({ "table": table.kind.name(), "groups": rows }))
}

fn groups<R: TableRow>(bytes: &[u8], footer: &TableFooter, meaning: impl Fn(R) -> Json) -> Result<Vec<Json>> {
    let groups = footer.groups().iter().enumerate().map(|(number, group)| {
        let bytes = bytes[group.range.start as usize..group.range.end as usize].to_vec();
        let rows = footer.decode_group::<R>(number, bytes.into())?;
        Ok(Json::Array(rows.into_iter().map(&meaning).collect()))
    });
    groups.collect()
}

fn segment_row(row: SegmentRow) -> Json {
    json!({
        "first_lsn": row.first_lsn.get(),
        "last_lsn": row.last_lsn.get(),
        "first_time_ns": row.first_time.get(),
        "last_time_ns": row.last_time.get(),
        "kind": row.kind.name(),
        "epoch": row.epoch.get(),
        "seq": row.seq.get(),
        "rows": row.rows,
        "bytes": row.bytes,
        "data_bytes": row.data_bytes,
        "data_blocks": row.data_blocks,
        "tick_ns": row.times.tick_ns(),
        "hash": hex(&row.header_hash),
        "times": row.times.iter().map(|step| json!([step.lsn.get(), step.time.get()])).collect::<Vec<_>>(),
        "events": row.events.iter().map(event).collect::<Vec<_>>(),
    })
}

fn row(placed: PlacedRow) -> Json {
    let Row { disk, extent, lsn, kind } = placed.row;
    let place = match kind {
        RowKind::Data => json!(placed.stream_block),
        RowKind::Zero | RowKind::Unmap => Json::Null,
    };
    json!([disk.get(), extent.start, extent.len, lsn.get(), kind.name(), place])
}

fn event(event: &Event) -> Json {
    json!({
        "lsn": event.lsn.get(),
        "code": event.body.code(),
        "name": event.body.name(),
        "fields": fields(&event.body.fields()),
    })
}

fn fields(of: &Fields) -> Json {
    let value = |value: &Value| match value {
        Value::Uint(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::Bytes(bytes) => json!({ "hex": hex(bytes) }),
        Value::List(records) => records.iter().map(fields).collect(),
    };
    Json::Object(of.iter().map(|(name, of)| (name.to_owned(), value(of))).collect::<Map<_, _>>())
}

fn genesis(bytes: &[u8]) -> Result<Json> {
    let genesis = Genesis::decode(bytes)?;
    Ok(json!({ "genesis": {
        "domain": genesis.domain.to_string(),
        "name": genesis.name,
        "created_ns": genesis.created.get(),
        "features_read": genesis.features.read,
        "features_write": genesis.features.write,
        "features_gc": genesis.features.gc,
        "features_compat": genesis.features.compat,
    } }))
}
