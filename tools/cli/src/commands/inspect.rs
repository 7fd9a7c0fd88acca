//! `tidemark inspect`: any object, and what there is.

use crate::args::BucketArgs;
use crate::context::open_bucket;
use crate::failure::Outcome;
use crate::ui::{Ui, hex};
use anyhow::Context;
use clap::Args;
use serde_json::{Map, Value as Json, json};
use std::fmt::Write;
use tidemark_bucket::ReadOnly;
use tidemark_format::fields::{Fields, Value};
use tidemark_format::{
    Claim, Expect, Genesis, Hint, KeyFamily, Ledger, ObjectKey, Pin, Quarantine, Retention, Root, SegmentHead,
    SegmentHeader, TableFooter, TableRef,
};
use tidemark_reader::TimeText;

/// Bytes that usually hold a whole head.
const HEAD_BYTES_FIRST: u64 = 128 << 10;

/// Show any object of a bucket, or what there is
///
/// Without KEY lists all objects with their sizes. With KEY decodes that object: genesis, claim, hint, log segment, CUT or
/// base segment.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    bucket: BucketArgs,
    /// The object, such as tidemark.json or log/0000000000000001/0000000000000001
    #[arg(value_name = "KEY")]
    key: Option<ObjectKey>,
    /// Also show each row of a segment's index and each of its frames
    #[arg(long, requires = "key")]
    rows: bool,
}

pub(crate) async fn run(args: InspectArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let bucket = open_bucket(&args.bucket)?.read_only();
    let shown = match args.key {
        None => list(&bucket).await?,
        Some(key) => object(&bucket, key, args.rows).await?,
    };
    let text = if args.key.is_none() { listing_text } else { object_text };
    ui.answer(&shown, text)?;
    Ok(Outcome::Done)
}

async fn list(bucket: &ReadOnly) -> anyhow::Result<Json> {
    let mut objects = Vec::new();
    for family in KeyFamily::ALL {
        for (key, bytes) in bucket.list(family).await? {
            objects.push(json!({ "key": key, "bytes": bytes }));
        }
    }
    if objects.is_empty() {
        // Tells an empty bucket from one that is not there.
        bucket.get(&ObjectKey::Genesis).await?;
    }
    Ok(json!({ "location": bucket.location(), "objects": objects }))
}

async fn object(bucket: &ReadOnly, key: ObjectKey, rows: bool) -> anyhow::Result<Json> {
    let genesis_bytes = bucket.get(&ObjectKey::Genesis).await?;
    let genesis = Genesis::decode(&genesis_bytes)?;
    let expect = Expect { domain: genesis.domain, key };
    let mut shown = match key {
        ObjectKey::Genesis => json!({
            "kind": "genesis",
            "domain": genesis.domain.to_string(),
            "name": genesis.name,
            "created": TimeText(genesis.created).to_string(),
            "features": {
                "read": genesis.features.read,
                "write": genesis.features.write,
                "gc": genesis.features.gc,
                "compat": genesis.features.compat,
            },
        }),
        ObjectKey::Claim { .. } => {
            let claim = Claim::decode(&bucket.get(&key).await?, &expect)?;
            json!({ "kind": "claim", "fields": fields(&claim.fields()), "time": TimeText(claim.time).to_string() })
        }
        ObjectKey::Hint => {
            let hint = Hint::decode(&bucket.get(&key).await?, genesis.domain)?;
            json!({ "kind": "hint", "fields": fields(&hint.fields()) })
        }
        ObjectKey::Retention => {
            let wish = Retention::decode(&bucket.get(&key).await?, genesis.domain)?;
            json!({ "kind": "retention", "fields": fields(&wish.fields()) })
        }
        ObjectKey::Root { .. } | ObjectKey::RootCopy => {
            let bytes = bucket.get(&key).await?;
            let root = match key {
                ObjectKey::RootCopy => Root::decode_copy(&bytes, genesis.domain)?,
                _ => Root::decode(&bytes, &expect)?,
            };
            json!({ "kind": "root", "fields": fields(&root.fields()) })
        }
        ObjectKey::Ledger { .. } => {
            let ledger = Ledger::decode(&bucket.get(&key).await?, &expect)?;
            json!({ "kind": "ledger", "fields": fields(&ledger.fields()) })
        }
        ObjectKey::Pin { .. } => {
            let pin = Pin::decode(&bucket.get(&key).await?, genesis.domain)?;
            json!({ "kind": "pin", "fields": fields(&pin.fields()), "until": TimeText(pin.until).to_string() })
        }
        ObjectKey::Quarantine { .. } => {
            let found = Quarantine::decode(&bucket.get(&key).await?, &expect)?;
            json!({ "kind": "quarantine", "fields": fields(&found.fields()) })
        }
        ObjectKey::Index { .. } => table(&bucket.get(&key).await?, &expect)?,
        ObjectKey::Probe { .. } => json!({ "kind": "probe", "bytes": bucket.get(&key).await?.len() }),
        ObjectKey::Statistics { table, .. } => {
            json!({ "kind": "statistics", "table": table.name(), "bytes": bucket.head(&key).await? })
        }
        ObjectKey::Log { .. } | ObjectKey::Base { .. } => segment(&head(bucket, &expect).await?, rows),
    };
    shown["key"] = json!(key.to_string());
    Ok(shown)
}

fn table(bytes: &[u8], expect: &Expect) -> anyhow::Result<Json> {
    let damaged = || format!("{} is damaged", expect.key);
    let table = TableRef::of_object(bytes).with_context(damaged)?;
    let footer = TableFooter::decode(&bytes[table.footer_start() as usize..], &table, expect).with_context(damaged)?;
    let groups = footer.groups().iter().map(|group| {
        let (first, last) = group.lsns(table.kind);
        let bytes = group.range.end - group.range.start;
        json!({ "rows": group.rows, "bytes": bytes, "first_lsn": first.get(), "last_lsn": last.get() })
    });
    Ok(json!({
        "kind": "table",
        "table": table.kind.name(),
        "rows": table.rows,
        "total_bytes": table.len,
        "footer_bytes": table.footer_len,
        "row_groups": groups.collect::<Vec<_>>(),
    }))
}

/// The head of a segment: usually in its first 128 KiB, else as long as its header says.
async fn head(bucket: &ReadOnly, expect: &Expect) -> anyhow::Result<SegmentHead> {
    let damaged = || format!("{} is damaged", expect.key);
    let mut bytes = bucket.get_prefix(&expect.key, HEAD_BYTES_FIRST).await?;
    let head_len = SegmentHeader::decode(&bytes).with_context(damaged)?.head_len();
    if head_len > bytes.len() as u64 {
        bytes = bucket.get_prefix(&expect.key, head_len).await?;
    }
    SegmentHead::decode(&bytes, expect).with_context(damaged)
}

fn segment(head: &SegmentHead, rows: bool) -> Json {
    let header = &head.header;
    let mut shown = json!({
        "kind": header.identity.kind.name(),
        "domain": header.identity.domain.to_string(),
        "role": header.identity.role.name(),
        "epoch": header.identity.epoch.get(),
        "seq": header.identity.seq.get(),
        "minor": header.minor,
        "total_bytes": header.total_len,
        "head_bytes": header.head_len,
        "data_bytes": header.data_len,
        "plain_bytes": header.stream_blocks.saturating_mul(tidemark_format::BLOCK_BYTES),
        "first_lsn": header.first_lsn.get(),
        "last_lsn": header.last_lsn.get(),
        "first_time": TimeText(header.first_time).to_string(),
        "last_time": TimeText(header.last_time).to_string(),
        "acked_through": header.acked_through.get(),
        "rows": header.row_count,
        "frames": header.frame_count,
        "tick_ns": header.tick_ns,
        "header_hash": hex(&header.header_hash),
        "prev_header_hash": hex(&header.prev_header_hash),
        "meta_hash": hex(&header.meta_hash),
        "events": head.events.iter().map(|event| json!({
            "lsn": event.lsn.get(),
            "event": event.body.name(),
            "fields": fields(&event.body.fields()),
        })).collect::<Vec<_>>(),
    });
    if let Some(cut) = &head.cut {
        shown["cut"] = fields(&cut.fields());
    }
    if rows {
        shown["index"] = head
            .index
            .iter()
            .map(|placed| {
                json!({
                    "disk": placed.row.disk.get(),
                    "offset_bytes": placed.row.extent.byte_start(),
                    "len_bytes": placed.row.extent.byte_len(),
                    "lsn": placed.row.lsn.get(),
                    "kind": placed.row.kind.name(),
                })
            })
            .collect();
        shown["frame_dir"] = (0..head.frames.len())
            .filter_map(|i| head.frames.entry(i))
            .map(|frame| {
                json!({
                    "stored_bytes": frame.stored_len,
                    "plain_bytes": frame.plain_len,
                    "codec": frame.codec.name(),
                    "hash": hex(&frame.hash),
                })
            })
            .collect();
    }
    shown
}

fn fields(record: &Fields) -> Json {
    let value = |value: &Value| match value {
        Value::Uint(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::Bytes(bytes) => json!(hex(bytes)),
        Value::List(records) => records.iter().map(fields).collect(),
    };
    Json::Object(record.iter().map(|(name, of)| (name.to_owned(), value(of))).collect::<Map<_, _>>())
}

fn listing_text(shown: &Json) -> String {
    let mut out = String::new();
    for object in shown["objects"].as_array().into_iter().flatten() {
        let (key, bytes) = (object["key"].as_str().unwrap_or_default(), &object["bytes"]);
        writeln!(out, "{bytes:>12}  {key}").expect("writing to a String cannot fail");
    }
    out
}

/// Scalars as `name  value`, lists as one line an element.
fn object_text(shown: &Json) -> String {
    let mut out = String::new();
    for (name, value) in shown.as_object().into_iter().flatten() {
        match value {
            Json::Array(items) => {
                writeln!(out, "{name:<22}{}", items.len()).expect("writing to a String cannot fail");
                for item in items {
                    writeln!(out, "    {}", one_line(item)).expect("writing to a String cannot fail");
                }
            }
            Json::Object(members) => {
                for (member, value) in members {
                    writeln!(out, "{:<22}{}", format!("{name}.{member}"), one_line(value))
                        .expect("writing to a String cannot fail");
                }
            }
            _ => writeln!(out, "{name:<22}{}", one_line(value)).expect("writing to a String cannot fail"),
        }
    }
    out
}

/// A value as `a=1 b.c=2`.
fn one_line(value: &Json) -> String {
    match value {
        Json::Object(members) => {
            let pairs = members.iter().map(|(name, value)| match value {
                Json::Object(_) => one_line(value),
                _ => format!("{name}={}", one_line(value)),
            });
            pairs.collect::<Vec<_>>().join(" ")
        }
        Json::Array(items) => items.iter().map(|item| format!("[{}]", one_line(item))).collect::<Vec<_>>().join(" "),
        Json::String(text) => text.clone(),
        _ => value.to_string(),
    }
}
