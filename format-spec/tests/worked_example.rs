//! The worked example of SPEC.md is made by the codec, so it cannot rot. `UPDATE_SPEC=1 cargo test` writes it anew.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[allow(unreachable_pub, dead_code)]
mod r0;

use std::fmt::Write;
use tidemark_format::*;

const BEGIN: &str = "<!-- worked example: begin (kept by tests/worked_example.rs) -->\n";
const END: &str = "<!-- worked example: end -->";

/// The objects of the example, in the order in which they are written.
struct Example {
    genesis: Vec<u8>,
    claim: Vec<u8>,
    cut: Vec<u8>,
    segment: Vec<u8>,
}

fn objects() -> Example {
    let domain: DomainId = "7469646d-6172-6b20-6578-616d706c6521".parse().unwrap();
    let (disk, epoch, role) = (DiskId::new(1), Epoch::new(1), Role::Writer);
    let nonce = *b"a nonce, 16 byte";
    let salt = *b"random in life, fixed in example";
    let at = |ms: u64| TimeNs::new(1_750_000_000_000_000_000 + ms * 1_000_000);
    let genesis = Genesis { domain, name: "example".into(), created: at(0), features: Features::default() }.encode();
    let claim =
        Claim { domain, role, epoch, nonce, mode: ClaimMode::Cas, owner: "drva-7".into(), time: at(0) }.encode();
    let cut = Cut { predecessor: None, next_lsn: Lsn::new(1), claim_nonce: nonce, disks: vec![] };
    let identity = SegmentIdentity { domain, kind: SegmentKind::Cut, role, epoch, seq: Seq::new(0) };
    let time = TimeNs::new(0);
    let cut = seal_cut(&CutDraft { identity, cut: &cut, time, tick_ns: TICK_NS_DEFAULT, salt }).unwrap();

    let event = |lsn, body| Event { lsn: Lsn::new(lsn), body };
    let row = |start, len, lsn, kind| Row { disk, extent: Extent::new(start, len), lsn: Lsn::new(lsn), kind };
    let frame = compress_frame(&[b'A'; 1024], 1).unwrap();
    let identity = SegmentIdentity { domain, kind: SegmentKind::Log, role, epoch, seq: Seq::new(1) };
    let head = seal_segment(&SegmentDraft {
        identity,
        first_lsn: Lsn::new(1),
        last_lsn: Lsn::new(4),
        acked_through: Lsn::ZERO,
        prev_header_hash: cut.header_hash,
        salt,
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
    Example { genesis, claim, cut: cut.bytes.to_vec(), segment: [head.bytes, frame.bytes].concat() }
}

/// The sections of an object as its own table names them: (name, from, to), DATA behind them.
fn sections(object: &[u8]) -> Vec<(&'static str, usize, usize)> {
    let names = ["", "INDEX", "FRAMEDIR", "TIMES", "EVENTS", "CUT"];
    let number = |at: usize| u64::from_le_bytes(object[at..at + 8].try_into().unwrap()) as usize;
    let slots = (0..7).map(|slot| 248 + slot * 24).take_while(|&at| object[at] > 0);
    slots.map(|at| (names[usize::from(object[at])], number(at + 8), number(at + 8) + number(at + 16))).collect()
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
    let objects = objects();
    let mut out = String::new();
    let mut say = |text: &str| out.push_str(text);
    let whole = |bytes: &[u8]| format!("\n```\n{}```\n", dump(bytes, 0, bytes.len()));

    say(
        "\n### 1. The genesis\n\nAn operator makes the domain: `tidemark.json`, by create-if-absent (G-2).\n\n```json\n",
    );
    say(&String::from_utf8(objects.genesis.clone()).unwrap());
    say("```\n\n### 2. The claim\n\n");
    say("A writer finds `claim/w/0000000000000001` absent, so it puts it there: epoch 1 is its own (F-1).\n");
    say(&whole(&objects.claim));
    say(
        "\nThe first 16 bytes are magic number, kind 1 (claim), major 1 and the length of the body; 32 bytes of BLAKE3 follow. The\n\
         body begins at 0030 with `a7`, a map of seven, whose names are in order of length.\n",
    );
    say("\n### 3. The CUT\n\n");
    say(
        "No older epoch has a CUT: there is nothing to continue (F-2). `log/0000000000000001/0000000000000000` begins the log at LSN 1\n\
         (F-3), after which the writer looks whether claim 2 is absent (F-4).\n\nIts header:\n",
    );
    say(&format!("\n```\n{}```\n", dump(&objects.cut, 0, 512)));
    for (name, from, to) in sections(&objects.cut) {
        say(&format!(
            "\nSection {name}, bytes {from} to {to}, a record:\n\n```\n{}```\n",
            dump(&objects.cut, from, to)
        ));
    }
    say("\n### 4. A segment\n\n");
    say(
        "LSN 1 adds the disk `vda` of VM `db`, with 8 blocks. LSN 2 zeroes it, LSN 3 declares it consistent, LSN 4 writes two blocks of\n\
         `A` at block 2, a quarter of a second later. All of it is one object of ",
    );
    say(&format!("{} bytes, `log/0000000000000001/0000000000000001`. Its header:\n", objects.segment.len()));
    say(&format!("\n```\n{}```\n", dump(&objects.segment, 0, 512)));
    let mut end = 0;
    for (name, from, to) in sections(&objects.segment) {
        say(&format!("\n{name}, bytes {from} to {to}:\n\n```\n{}```\n", dump(&objects.segment, from, to)));
        end = to;
    }
    let data = dump(&objects.segment, end, objects.segment.len());
    say(&format!("\nDATA, one zstd frame of 1,024 bytes of `A`:\n\n```\n{data}```\n"));
    say(
        "\nRead INDEX so: chunk of disk `01` with `01` + 1 rows; first block `00`; one block step: width 0, shift 0, base 2; \
         lengths 8 and 2:\nwidth 2, shift 1, base 2, bits `11` then `00`, so 2 + (3 << 1) and 2 + 0; LSNs less 1: width 1, shift 1, \
         base 1, bits `0` then `1`;\nkinds: width 1, shift 0, base 0, bits `1` (zero) then `0` (data).\n",
    );
    say("\nThe writer asks for claim 2 again, sees that it is absent, and acknowledges LSN 4 (F-6).\n");
    say("\n### 5. The bucket\n\n| key | bytes | its header hash, or hash, begins with |\n|---|---|---|\n");
    let hash = |bytes: &[u8]| bytes[..4].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for (key, bytes, hash) in [
        ("tidemark.json", &objects.genesis, "in `check`".to_owned()),
        ("claim/w/0000000000000001", &objects.claim, hash(&objects.claim[16..])),
        ("log/0000000000000001/0000000000000000", &objects.cut, hash(&objects.cut[448..])),
        ("log/0000000000000001/0000000000000001", &objects.segment, hash(&objects.segment[448..])),
    ] {
        say(&format!("| `{key}` | {} | {hash} |\n", bytes.len()));
    }
    say("\n### 6. A restore\n\nA stranger with nothing but this document restores `db/vda` as of LSN 4:\n\n");
    say(&restore(&objects));
    out.push('\n');
    out
}

/// Restores the disk at LSN 4 and 1 as "Restore at level R0" says, and tells each step.
fn restore(objects: &Example) -> String {
    let mut bucket = r0::Bucket::new();
    for (key, bytes) in [
        ("tidemark.json", &objects.genesis),
        ("claim/w/0000000000000001", &objects.claim),
        ("log/0000000000000001/0000000000000000", &objects.cut),
        ("log/0000000000000001/0000000000000001", &objects.segment),
    ] {
        bucket.insert(key.parse().unwrap(), bytes.clone());
    }
    let meaning = r0::History::open(&bucket).unwrap().meaning();
    let points = meaning["disks"]["db/vda"]["points"].as_array().unwrap();
    let hash = |image: &[u8]| blake3::hash(image).to_hex().to_string();
    let image = [vec![0; 1024], vec![b'A'; 1024], vec![0; 2048]].concat();
    assert_eq!(points[3]["known_blake3"], hash(&image));
    assert_eq!(points[0]["unknown"], serde_json::json!([[0, 8]]));
    let mut out = String::new();
    for (get, why) in [
        ("tidemark.json", "`check` is right, `major` is 1, no unknown bit in `features_read`"),
        ("claim/w/0000000000000001", "there; the domain is that of the genesis"),
        ("claim/w/0000000000000002", "absent: `c` is 1"),
        ("log/0000000000000001/0000000000000000", "there: `h` is 1. It names no tail: this is the oldest part"),
        (
            "log/0000000000000001/0000000000000001",
            "there. Its `prev_header_hash` is the header hash of the CUT, its first LSN the CUT's `next_lsn`",
        ),
        ("log/0000000000000001/0000000000000002", "absent, as are the 16 keys behind it: the log ends at LSN 4"),
        ("claim/w/0000000000000002", "absent still: all four LSNs are final"),
    ] {
        writeln!(out, "- GET `{get}`: {why}.").unwrap();
    }
    writeln!(
        out,
        "\nEvents up to LSN 4 say that disk 1 has 8 blocks and is restorable from LSN 3 on; it was never seeded. Rows in order of LSN:\n\n\
         | LSN | row | image afterwards, a letter a block |\n|---|---|---|\n\
         | 1 | (an event) | `????????` |\n| 2 | zero, blocks 0 to 8 | `00000000` |\n| 3 | (an event) | `00000000` |\n\
         | 4 | data, blocks 2 to 4, from block 0 of the plaintext | `00AA0000` |\n"
    )
    .unwrap();
    writeln!(
        out,
        "The BLAKE3 of these 4,096 bytes is `{}`.\nAt LSN 1 all blocks are unknown: `?` is an error, not a zero.",
        hash(&image)
    )
    .unwrap();
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
