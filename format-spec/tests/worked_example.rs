//! The worked example of SPEC.md is made by the codec, so it cannot rot. `UPDATE_SPEC=1 cargo test` writes it anew.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fmt::Write;
use tidemark_format::*;

const BEGIN: &str = "<!-- worked example: begin (kept by tests/worked_example.rs) -->\n";
const END: &str = "<!-- worked example: end -->";

/// The object of the example and its head.
fn object() -> (Vec<u8>, SegmentHead) {
    let domain: DomainId = "7469646d-6172-6b20-6578-616d706c6521".parse().unwrap();
    let (disk, epoch, seq) = (DiskId::new(1), Epoch::new(1), Seq::new(1));
    let at = |ms: u64| TimeNs::new(1_750_000_000_000_000_000 + ms * 1_000_000);
    let event = |lsn, body| Event { lsn: Lsn::new(lsn), body };
    let row = |start, len, lsn, kind| Row { disk, extent: Extent::new(start, len), lsn: Lsn::new(lsn), kind };
    let frame = compress_frame(&[b'A'; 1024], 1).unwrap();
    let identity = SegmentIdentity { domain, kind: SegmentKind::Log, role: Role::Writer, epoch, seq };
    let head = seal_segment(&SegmentDraft {
        identity,
        first_lsn: Lsn::new(1),
        last_lsn: Lsn::new(4),
        acked_through: Lsn::ZERO,
        prev_header_hash: [0xcc; 32],
        salt: *b"random in life, fixed in example",
        tick_ns: TICK_NS_DEFAULT,
        times: &[TimeStep { lsn: Lsn::new(1), time: at(0) }, TimeStep { lsn: Lsn::new(4), time: at(250) }],
        rows: &[row(0, 8, 2, RowKind::Zero), row(2, 2, 4, RowKind::Data)],
        events: &[
            event(1, EventBody::DiskAdd { disk, vm: "db".into(), name: "vda".into(), blocks: 8 }),
            event(3, EventBody::ConsistentFrom { disk }),
        ],
        frames: &[frame.entry],
    })
    .unwrap();
    let bytes = [head.bytes, frame.bytes].concat();
    let head = SegmentHead::decode(&bytes, &Expect { domain, key: identity.key() }).unwrap();
    head.check_dense().unwrap();
    (bytes, head)
}

/// Classic hexdump of `bytes[from..to]`, offsets in hex.
fn dump(bytes: &[u8], from: usize, to: usize) -> String {
    let mut out = String::new();
    for at in (from..to).step_by(16) {
        let line = &bytes[at..to.min(at + 16)];
        let hex: Vec<_> = line.iter().map(|b| format!("{b:02x}")).collect();
        let text: String = line.iter().map(|&b| if (32..127).contains(&b) { b as char } else { '.' }).collect();
        writeln!(out, "{at:04x}  {:<47}  {text}", hex.join(" ")).unwrap();
    }
    out
}

fn example() -> String {
    let (bytes, head) = object();
    let mut out = format!("\nThe object has {} bytes. Its header:\n\n```\n{}```\n", bytes.len(), dump(&bytes, 0, 512));
    let names = [(1u16, "INDEX"), (2, "FRAMEDIR"), (3, "TIMES"), (4, "EVENTS")];
    let mut at = 512;
    for (slot, (id, name)) in names.iter().enumerate() {
        let entry = &bytes[248 + slot * 24..][..24];
        assert_eq!(entry[..2], id.to_le_bytes());
        let len = u64::from_le_bytes(entry[16..].try_into().unwrap()) as usize;
        write!(out, "\n{name}, bytes {at} to {}:\n\n```\n{}```\n", at + len, dump(&bytes, at, at + len)).unwrap();
        at += len;
    }
    assert_eq!(at as u64, head.header.head_len);
    write!(out, "\nDATA, one zstd frame of 1,024 bytes of `A`:\n\n```\n{}```\n", dump(&bytes, at, bytes.len()))
        .unwrap();
    out.push_str(
        "\nRead INDEX so: chunk of disk `01` with `01` + 1 rows; first block `00`; one block step: width 0, shift 0, base 2; \
lengths 8 and 2:\nwidth 2, shift 1, base 2, bits `11` then `00`, so 2 + (3 << 1) and 2 + 0; LSNs less 1: width 1, shift 1, base 1, \
bits `0` then `1`;\nkinds: width 1, shift 0, base 0, bits `1` (zero) then `0` (data).\n\n",
    );
    out
}

#[test]
fn the_worked_example_is_what_the_codec_makes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/SPEC.md");
    let spec = std::fs::read_to_string(path).unwrap();
    let from = spec.find(BEGIN).expect("begin mark") + BEGIN.len();
    let to = spec.find(END).expect("end mark");
    if std::env::var_os("UPDATE_SPEC").is_some() {
        std::fs::write(path, format!("{}{}{}", &spec[..from], example(), &spec[to..])).unwrap();
        return;
    }
    assert!(spec[from..to] == example(), "SPEC.md differs; run UPDATE_SPEC=1 cargo test -p tidemark-format");
}
