//! Structures of a log store: as they are, and with their checksums made right, so that what is behind them is reached.
#![no_main]
use libfuzzer_sys::fuzz_target;
use tidemark_format::EventBody;
use tidemark_format::logstore::*;
use tidemark_fuzz::bounded;

const LUN: LunId = LunId::new(*b"tidemark LUN 001");

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 6 {
        0 => label(bytes),
        1 => label(&resealed_label(bytes)),
        2 => table(bytes),
        3 => table(&resealed_table(bytes)),
        4 => batch(bytes),
        _ => batch(&resealed_batch(bytes)),
    }
});

fn label(bytes: &[u8]) {
    let Ok(label) = bounded(bytes.len(), || Label::decode(bytes)) else { return };
    assert_eq!(Label::decode(&label.encode()), Ok(label));
    let geometry = label.geometry;
    assert_eq!(Geometry::largest(geometry.lun_bytes(), geometry.extent_bytes(), geometry.domains_max()), Ok(geometry));
}

/// A whole page with the right hash.
fn resealed_label(bytes: &[u8]) -> Vec<u8> {
    let mut page = bytes.to_vec();
    page.resize(4096, 0);
    let hash = blake3::hash(&page[..4064]);
    page[4064..].copy_from_slice(hash.as_bytes());
    page
}

fn table(bytes: &[u8]) {
    let geometry = Geometry::new(64 << 10, 100, 4).expect("within the limits");
    let Ok(table) = bounded(bytes.len(), || Table::decode(bytes, LUN, &geometry)) else { return };
    let again = table.encode();
    assert!(again.len() as u64 <= geometry.table_bytes(), "a table of {} bytes", again.len());
    assert_eq!(Table::decode(&again, LUN, &geometry), Ok(table));
}

/// Of this LUN, as long as it is, with the right hash.
fn resealed_table(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes.len() >= 80 {
        bytes[16..32].copy_from_slice(&LUN.bytes());
        let len = bytes.len() as u64;
        bytes[40..48].copy_from_slice(&len.to_le_bytes());
        let hash = *blake3::Hasher::new().update(&bytes[..48]).update(&bytes[80..]).finalize().as_bytes();
        bytes[48..80].copy_from_slice(&hash);
    }
    bytes
}

fn batch(bytes: &[u8]) {
    let _ = bounded(bytes.len(), || Preamble::decode(bytes));
    let Ok(head) = bounded(bytes.len(), || BatchHead::decode(bytes)) else { return };
    assert!(head.last_lsn() >= head.preamble.chain.first_lsn);
    let _ = head.check_data(bytes);
    let mut end = head.preamble.head_bytes() as usize;
    for (record, range) in head.placed() {
        assert_eq!((range.start, range.len()), (end, record.data_bytes as usize));
        end = range.end;
        if record.kind == RecordKind::Event
            && let Some(data) = bytes.get(range)
            && let Ok(body) = bounded(data.len(), || EventBody::from_cbor(data, record.lsn))
        {
            assert_eq!(EventBody::from_cbor(&body.to_cbor(), record.lsn), Ok(body));
        }
    }
    assert!(end as u64 <= head.preamble.batch_bytes());
    if bytes.len() >= end {
        let records: Vec<_> = head.placed().map(|(record, range)| (*record, &bytes[range])).collect();
        let again = encode_batch(&head.preamble.identity, &head.preamble.chain, &records);
        assert_eq!(BatchHead::decode(&again).expect("what decoded is encoded").records, head.records);
    }
}

/// With the right checksum over as many descriptors as there are, and lengths that sum up.
fn resealed_batch(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let Some(room) = bytes.len().checked_sub(BATCH_HEADER_BYTES) else { return bytes };
    let records = (bytes[12] as usize).clamp(1, 16).min(room / RECORD_DESCRIPTOR_BYTES);
    bytes[12..16].copy_from_slice(&(records as u32).to_le_bytes());
    let descriptors = BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + records * RECORD_DESCRIPTOR_BYTES;
    let first_lsn = u64::from_le_bytes(bytes[72..80].try_into().expect("eight bytes"));
    let mut sum = 0u64;
    for (n, record) in bytes[descriptors.clone()].chunks_exact_mut(RECORD_DESCRIPTOR_BYTES).enumerate() {
        record[..8].copy_from_slice(&first_lsn.wrapping_add(n as u64).to_le_bytes());
        sum += u64::from(u32::from_le_bytes(record[36..40].try_into().expect("four bytes")));
    }
    bytes[80..88].copy_from_slice(&sum.to_le_bytes());
    let crc = crc32c(&[&bytes[..124], &bytes[descriptors]].concat());
    bytes[124..128].copy_from_slice(&crc.to_le_bytes());
    bytes
}
