//! Structures of a log store, right and wrong ones (LOGSTORE.md).

use super::{at_ms, domain};
use crate::meaning::logstore::{Structure, of};
use serde_json::json;
use tidemark_format::logstore::*;
use tidemark_format::*;

/// A structure and what a reader must make of it.
pub(super) struct Vector {
    pub(super) name: String,
    about: &'static str,
    rules: Vec<&'static str>,
    structure: Structure,
    pub(super) bytes: Vec<u8>,
    /// Whether a writer of this version makes these very bytes.
    canonical: bool,
    error: Option<&'static str>,
}

impl Vector {
    pub(super) fn json(&self) -> String {
        let mut out = self.structure.json();
        out["about"] = self.about.into();
        out["rules"] = json!(self.rules);
        match (of(&self.structure, &self.bytes), self.error) {
            (Err(e), Some(name)) if e.name() == name => out["error"] = name.into(),
            (Ok(meaning), None) => {
                out["canonical"] = self.canonical.into();
                out["meaning"] = meaning;
            }
            (got, wanted) => panic!("vector {}: wanted error {wanted:?}, got {got:?}", self.name),
        }
        format!("{out:#}\n")
    }
}

const LUN: LunId = LunId::new(*b"tidemark LUN 001");

fn geometry() -> Geometry {
    Geometry::new(64 << 10, 100, 4).expect("within the limits")
}

pub(super) fn all() -> Vec<Vector> {
    let mut all = Vec::new();
    labels(&mut all);
    tables(&mut all);
    batches(&mut all);
    all
}

/// Adds vectors of one structure.
struct Adder<'a> {
    all: &'a mut Vec<Vector>,
    structure: Structure,
    prefix: &'static str,
}

impl Adder<'_> {
    fn push(&mut self, name: &str, about: &'static str, rules: &[&'static str], bytes: Vec<u8>, canonical: bool) {
        let (name, rules) = (format!("{}-{name}", self.prefix), rules.to_vec());
        self.all.push(Vector { name, about, rules, structure: self.structure, bytes, canonical, error: None });
    }
    fn good(&mut self, name: &str, about: &'static str, rules: &[&'static str], bytes: Vec<u8>) {
        self.push(name, about, rules, bytes, true);
    }
    fn bad(&mut self, name: &str, about: &'static str, rule: &[&'static str], error: &'static str, bytes: Vec<u8>) {
        let (name, rules) = (format!("bad-{}-{name}", self.prefix), rule.to_vec());
        let error = Some(error);
        self.all.push(Vector { name, about, rules, structure: self.structure, bytes, canonical: false, error });
    }
}

/// Bytes with a few of them changed.
fn with(bytes: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    with(bytes, at, &[bytes[at] ^ 1])
}

fn labels(all: &mut Vec<Vector>) {
    let mut add = Adder { all, structure: Structure::Label, prefix: "label" };
    let rehashed = |mut bytes: Vec<u8>| {
        let hash = blake3::hash(&bytes[..4064]);
        bytes[4064..].copy_from_slice(hash.as_bytes());
        bytes
    };
    let label = Label { lun: LUN, geometry: geometry() }.encode();
    let usual = Geometry::new(16 << 20, 1 << 16, 64).expect("within the limits");
    let most = Geometry::new(EXTENT_BYTES_MAX, EXTENTS_MAX, DOMAINS_MAX).expect("within the limits");
    let least = Geometry::new(EXTENT_BYTES_MIN, 1, 1).expect("within the limits");
    for (name, about, geometry) in [
        ("usual", "extents of 16 MiB, a TiB of them, 64 domains", usual),
        ("most", "the largest numbers", most),
        ("least", "the smallest numbers", least),
    ] {
        add.good(name, about, &["LL-2"], Label { lun: LUN, geometry }.encode());
    }
    let later = rehashed(with(&with(&label, 10, &[9, 0]), 64, b"of a later minor version"));
    add.push("later-minor", "a later minor version that uses reserved bytes", &["LV-1"], later, false);

    add.bad("empty", "no bytes", &[], "TooShort", Vec::new());
    add.bad("short", "a byte too few", &[], "TooShort", label[..4095].to_vec());
    add.bad("long", "a byte too many", &[], "TrailingBytes", [&label[..], &[0]].concat());
    add.bad("zeros", "a page of zeros", &[], "Magic", vec![0; 4096]);
    add.bad("major", "another major version", &["LV-1"], "Major", with(&label, 8, &[2, 0]));
    add.bad("lun-bit", "a bit of the UUID turned over", &["LL-1"], "RecordHash", flipped(&label, 20));
    add.bad("reserved-bit", "a reserved bit turned over", &["LL-1"], "RecordHash", flipped(&label, 2000));
    add.bad("hash-bit", "a bit of the hash turned over", &["LL-1"], "RecordHash", flipped(&label, 4095));
    let features = rehashed(with(&label, 32, &[1]));
    add.bad("features", "a feature that no reader knows", &["LV-2"], "ReadFeatures", features);
    let mut field = |name: &str, about, at, value: &[u8]| {
        add.bad(name, about, &["LL-2"], "HeaderField", rehashed(with(&label, at, value)));
    };
    field("extent-odd", "extents of 65,537 bytes", 40, &[1, 0, 1]);
    field("extent-small", "extents of 32 KiB", 40, &(32u64 << 10).to_le_bytes());
    field("extent-large", "extents of 2 GiB", 40, &(2u64 << 30).to_le_bytes());
    field("extents-none", "no extents", 48, &[0; 4]);
    field("extents-many", "2^24 + 1 extents", 48, &[1, 0, 0, 1]);
    field("domains-none", "no domains", 52, &[0; 4]);
    field("domains-many", "1,025 domains", 52, &1025u32.to_le_bytes());
    field("table-bytes", "a table of another size than the numbers make it", 56, &8192u64.to_le_bytes());
}

/// A table with two domains, one of which has trimmed and noted much.
fn table() -> Table {
    let extents = |numbers: &[u32]| numbers.iter().map(|n| LunExtent::new(*n)).collect();
    let value = |name: &str, bytes: &[u8], runs: &[(u32, u32)]| MetaEntry {
        name: name.to_owned(),
        len: bytes.len() as u32,
        hash: *blake3::hash(bytes).as_bytes(),
        runs: runs.iter().map(|&(page, pages)| Run { page, pages }).collect(),
    };
    let busy = DomainEntry {
        domain: domain(),
        incarnation: Incarnation::new(*b"the second life!"),
        min_bytes: 128 << 10,
        max_bytes: 4 << 20,
        first_lsn: Lsn::new(1234),
        durable: Lsn::new(1300),
        head: Head { page: 7, prev_crc: 0x1234_5678, seq: BatchSeq::new(99), lsn: Lsn::new(1200), time: at_ms(17) },
        meta_extent: LunExtent::new(0),
        extents: extents(&[9, 3, 4]),
        metas: vec![
            value("bitmap", &[0x55; 9000], &[(0, 1), (5, 2)]),
            value("checkpoint", b"lsn 1234", &[(3, 1)]),
            value("none", b"", &[]),
        ],
    };
    let fresh = DomainEntry {
        domain: DomainId::new([0x70; 16]),
        incarnation: Incarnation::new(*b"the first life!!"),
        min_bytes: 0,
        max_bytes: u64::MAX,
        first_lsn: Lsn::new(1),
        durable: Lsn::ZERO,
        head: Head { page: 0, prev_crc: 0, seq: BatchSeq::FIRST, lsn: Lsn::new(1), time: TimeNs::new(0) },
        meta_extent: LunExtent::new(99),
        extents: Vec::new(),
        metas: Vec::new(),
    };
    Table { lun: LUN, generation: 41, domains: vec![busy, fresh] }
}

fn tables(all: &mut Vec<Vector>) {
    let mut add = Adder { all, structure: Structure::Table(LUN, geometry()), prefix: "table" };
    let rehashed = |mut bytes: Vec<u8>, len: usize| {
        let hash = *blake3::Hasher::new().update(&bytes[..48]).update(&bytes[80..len]).finalize().as_bytes();
        bytes[48..80].copy_from_slice(&hash);
        bytes
    };
    let edited = |change: fn(&mut Table)| {
        let mut table = table();
        change(&mut table);
        table.encode()
    };
    let bytes = table().encode();
    let len = u64::from_le_bytes(bytes[40..48].try_into().expect("eight bytes")) as usize;
    add.good("empty", "no domains", &["LT-3"], Table { domains: Vec::new(), ..table() }.encode());
    let rules = ["LT-3", "LT-4", "LT-5", "LM-1"];
    add.good("domains", "a busy domain with values, and a fresh one", &rules, bytes.clone());
    let behind = edited(|table| table.domains[0].head.page = 16);
    add.good("head-behind", "a head behind the last page of its extent", &["LT-5"], behind);
    let ended =
        edited(|table| (table.domains[0].durable, table.domains[0].first_lsn) = (Lsn::new(1300), Lsn::new(1301)));
    add.good("all-trimmed", "a log of which nothing is left", &["LT-5"], ended);
    let later = rehashed(with(&with(&bytes, 10, &[3, 0]), 80 + 108, &[1; 12]), len);
    add.push("later-minor", "a later minor version that uses reserved bytes", &["LV-1"], later, false);

    let t1: &[_] = &["LT-1"];
    add.bad("empty-bytes", "no bytes", &[], "TooShort", Vec::new());
    add.bad("zeros", "a page of zeros", &[], "Magic", vec![0; 4096]);
    add.bad("major", "another major version", &["LV-1"], "Major", with(&bytes, 8, &[2, 0]));
    add.bad("cut-short", "fewer bytes than table_len", t1, "TooShort", bytes[..len - 1].to_vec());
    add.bad("generation-bit", "a bit of the generation turned over", t1, "RecordHash", flipped(&bytes, 32));
    add.bad("hash-bit", "a bit of the hash turned over", t1, "RecordHash", flipped(&bytes, 50));
    add.bad("last-bit", "a bit of the last byte turned over", t1, "RecordHash", flipped(&bytes, len - 1));
    add.bad("lun", "a table of another LUN", &["LT-2"], "HeaderField", rehashed(with(&bytes, 16, b"T"), len));
    let t5: &[_] = &["LT-5"];
    add.bad("len-small", "a table_len below the header", t5, "HeaderField", with(&bytes, 40, &79u64.to_le_bytes()));
    add.bad("len-large", "a table_len beyond table_bytes", t5, "HeaderField", with(&bytes, 40, &[255; 8]));
    let longer = rehashed(with(&bytes, 40, &(len as u64 + 1).to_le_bytes()), len + 1);
    add.bad("trailing", "a byte behind the last domain", t5, "TrailingBytes", longer);
    let many = rehashed(with(&bytes, 12, &[5]), len);
    add.bad("domains-many", "more domains than domains_max", t5, "HeaderField", many);
    let more = rehashed(with(&bytes, 12, &[3]), len);
    add.bad("domains-missing", "fewer domains than it says", t5, "TooShort", more);
    let extents = rehashed(with(&bytes, 80 + 100, &[255; 4]), len);
    add.bad("extents-missing", "fewer extents than it says", t5, "TooShort", extents);

    let mut field = |name: &str, about, rule: &'static str, change: fn(&mut Table)| {
        add.bad(name, about, &[rule], "HeaderField", edited(change));
    };
    field("order", "domains out of order", "LT-3", |table| table.domains.swap(0, 1));
    field("domain-twice", "a domain twice", "LT-3", |table| table.domains[1].domain = table.domains[0].domain);
    field("extent-beyond", "an extent beyond the LUN", "LT-4", |t| t.domains[0].extents[2] = LunExtent::new(100));
    field("extent-twice", "an extent of a log twice", "LT-4", |t| t.domains[0].extents[2] = LunExtent::new(9));
    field("extent-shared", "an extent of two domains", "LT-4", |t| t.domains[1].extents = vec![LunExtent::new(9)]);
    field("extent-meta", "values in an extent of the log", "LT-4", |t| t.domains[0].meta_extent = LunExtent::new(3));
    field("head-page", "a head beyond its extent", "LT-5", |table| table.domains[0].head.page = 17);
    field("head-nowhere", "a head in an extent that is not there", "LT-5", |table| table.domains[1].head.page = 1);
    field("head-seq", "a head with number 0", "LT-5", |table| table.domains[0].head.seq = BatchSeq::new(0));
    field("head-lsn", "a head at lsn 0", "LT-5", |table| table.domains[1].head.lsn = Lsn::ZERO);
    field("first-lsn", "trimmed to in front of the head", "LT-5", |t| t.domains[0].first_lsn = Lsn::new(1199));
    field("durable", "trimmed beyond what was durable", "LT-5", |t| t.domains[0].durable = Lsn::new(1232));
    field("limits", "a minimum above the maximum", "LT-5", |t| t.domains[0].min_bytes = (4 << 20) + 1);
    field("values-many", "65 values", "LT-5", |table| {
        let value = table.domains[0].metas[2].clone();
        table.domains[0].metas = (0..65).map(|n| MetaEntry { name: format!("{n:02}"), ..value.clone() }).collect();
    });
    field("name-empty", "a value without a name", "LT-5", |table| table.domains[0].metas[0].name.clear());
    field("name-long", "a name of 65 bytes", "LT-5", |table| table.domains[0].metas[2].name = "n".repeat(65));
    field("names-order", "names out of order", "LT-5", |table| table.domains[0].metas.swap(0, 1));
    field("name-twice", "a name twice", "LT-5", |table| table.domains[0].metas[1].name = "bitmap".to_owned());
    field("run-none", "a run of no pages", "LM-1", |t| t.domains[0].metas[2].runs = vec![Run { page: 9, pages: 0 }]);
    field("run-missing", "a value with fewer pages than bytes", "LM-1", |t| t.domains[0].metas[0].runs.truncate(1));
    field("run-shared", "two values in one page", "LM-1", |t| t.domains[0].metas[1].runs[0].page = 6);
    field("run-beyond", "a run beyond the extent", "LM-1", |t| t.domains[0].metas[0].runs[1].page = 15);
    field("run-huge", "a run that ends behind 2^32", "LM-1", |t| t.domains[0].metas[1].runs[0].page = u32::MAX);
    field("values-large", "values of more pages than may be", "LM-1", |table| {
        let meta = &mut table.domains[0].metas[2];
        (meta.len, meta.runs) = (5 * 4096, vec![Run { page: 8, pages: 5 }]);
    });
    let name_at = bytes.windows(6).position(|window| window == b"bitmap").expect("it is there");
    let no_text = rehashed(with(&bytes, name_at, &[0xff]), len);
    add.bad("name-no-text", "a name that is not UTF-8", t5, "HeaderField", no_text);
}

fn identity() -> BatchIdentity {
    BatchIdentity { lun: LUN, domain: domain(), incarnation: Incarnation::new(*b"the second life!") }
}

fn chain() -> BatchChain {
    BatchChain { seq: BatchSeq::new(99), first_lsn: Lsn::new(1200), prev_crc: 0x1234_5678 }
}

/// A record and its data.
type Sample = (BatchRecord, Vec<u8>);

fn sample(lsn: u64, kind: RecordKind, extent: Extent, data: Vec<u8>) -> Sample {
    let data_crc = if data.is_empty() { 0 } else { crc32c(&data) };
    let disk = DiskId::new(if kind == RecordKind::Event { 0 } else { 3 });
    let (lsn, time, data_bytes) = (Lsn::new(lsn), at_ms((lsn / 2).min(1_000_000)), data.len() as u32);
    (BatchRecord { lsn, time, kind, disk, extent, data_bytes, data_crc }, data)
}

fn event(lsn: u64, body: &EventBody) -> Sample {
    sample(lsn, RecordKind::Event, Extent::new(0, 0), body.to_cbor())
}

/// One record of each kind.
fn mixed() -> Vec<Sample> {
    let level = Level::FileSystem;
    vec![
        sample(1200, RecordKind::Write, Extent::new(64, 2), [[b'a'; 512], [b'b'; 512]].concat()),
        sample(1201, RecordKind::Zero, Extent::new(0, 1 << 40), Vec::new()),
        sample(1202, RecordKind::Unmap, Extent::new((1 << 54) - 1, 1), Vec::new()),
        event(1203, &EventBody::Bookmark { name: "before upgrade".into(), level }),
        sample(1204, RecordKind::Write, Extent::new(65, 1), vec![b'c'; 512]),
    ]
}

fn encoded(records: &[Sample]) -> Vec<u8> {
    let records: Vec<_> = records.iter().map(|(record, data)| (*record, &data[..])).collect();
    encode_batch(&identity(), &chain(), &records)
}

/// A batch with its checksum made right again.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let records = u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes")) as usize;
    let head = [&bytes[..124], &bytes[128..128 + 48 * records]].concat();
    bytes[124..128].copy_from_slice(&crc32c(&head).to_le_bytes());
    bytes
}

fn batches(all: &mut Vec<Vector>) {
    let mut add = Adder { all, structure: Structure::Batch, prefix: "batch" };
    let bytes = encoded(&mixed());
    add.good("mixed", "a record of each kind", &["LB-1", "LB-3", "LR-1", "LR-2", "LR-3", "LR-4"], bytes.clone());
    let exact = (4096 - 128 - 48 * 7) / 512;
    let page = sample(1200, RecordKind::Write, Extent::new(0, exact), vec![7; exact as usize * 512]);
    add.good("one-write", "a single write that leaves few bytes of its page", &["LB-2"], encoded(&[page]));
    let large = sample(1200, RecordKind::Write, Extent::new(8, 24), (0..24 * 512).map(|i| (i / 512) as u8).collect());
    add.good("pages", "a write of several pages", &["LB-2"], encoded(&[large]));
    let events: Vec<_> = (1200..1240).map(|lsn| event(lsn, &EventBody::Barrier)).collect();
    add.good("events", "nothing but events", &["LR-4"], encoded(&events));
    let last = sample(u64::MAX - 1, RecordKind::Zero, Extent::new(0, 1), Vec::new()).0;
    let last = BatchRecord { time: TimeNs::new(u64::MAX), ..last };
    let at_end = BatchChain { seq: BatchSeq::new(u64::MAX), first_lsn: last.lsn, prev_crc: 0 };
    add.good("end-of-numbers", "the largest numbers", &["LR-1"], encode_batch(&identity(), &at_end, &[(last, &[])]));
    let later = resealed(with(&with(&bytes, 10, &[3, 0]), 92, &[1; 32]));
    add.push("later-minor", "a later minor version that uses reserved bytes", &["LV-1"], later, false);

    let b1: &[_] = &["LB-1"];
    add.bad("empty", "no bytes", &[], "TooShort", Vec::new());
    add.bad("zeros", "a page of zeros", &[], "Magic", vec![0; 4096]);
    add.bad("major", "another major version", &["LV-1"], "Major", with(&bytes, 8, &[2, 0]));
    add.bad("header-short", "a byte too few for a header", &[], "TooShort", bytes[..127].to_vec());
    add.bad("head-short", "a byte too few for the descriptors", &[], "TooShort", bytes[..128 + 5 * 48 - 1].to_vec());
    add.bad("short", "a page without its last byte", &[], "TooShort", bytes[..4095].to_vec());
    add.bad("long", "a byte behind the last page", &[], "TrailingBytes", [&bytes[..], &[0]].concat());
    add.bad("seq-bit", "a bit of the number turned over", b1, "RecordHash", flipped(&bytes, 64));
    add.bad("reserved-bit", "a reserved bit turned over", b1, "RecordHash", flipped(&bytes, 100));
    add.bad("crc-bit", "a bit of the checksum turned over", b1, "RecordHash", flipped(&bytes, 127));
    add.bad("descriptor-bit", "a bit of a descriptor turned over", b1, "RecordHash", flipped(&bytes, 128 + 200));
    add.bad("data-bit", "a bit of data turned over", &["LR-3"], "RecordHash", flipped(&bytes, 128 + 5 * 48 + 700));
    add.bad("last-data-bit", "a bit of the last data turned over", &["LR-3"], "RecordHash", {
        let end = 128 + 5 * 48 + mixed().iter().map(|(_, data)| data.len()).sum::<usize>();
        flipped(&bytes, end - 1)
    });
    let none = resealed(with(&bytes, 12, &[0; 4]));
    add.bad("records-none", "no records", &["LB-2"], "HeaderField", none);
    let huge = resealed(with(&bytes, 80, &[255; 8]));
    add.bad("data-huge", "more data than an extent can hold", &["LB-2"], "HeaderField", huge);
    add.bad("records-huge", "2^32 - 1 records", &["LB-2"], "HeaderField", with(&bytes, 12, &[255; 4]));
    let sum = mixed().iter().map(|(_, data)| data.len() as u64).sum::<u64>();
    let less = resealed(with(&bytes, 80, &(sum - 1).to_le_bytes()));
    add.bad("data-bytes", "lengths that do not sum up", &["LB-3"], "Mismatch", less);

    let mut record = |name: &str, about, rule: &'static str, error, change: fn(&mut Vec<Sample>)| {
        let mut records = mixed();
        change(&mut records);
        add.bad(name, about, &[rule], error, encoded(&records));
    };
    record("lsn-gap", "a record that leaves out an LSN", "LR-1", "NotDense", |r| r[2].0.lsn = Lsn::new(1203));
    record("lsn-twice", "two records of one LSN", "LR-1", "NotDense", |r| r[2].0.lsn = Lsn::new(1201));
    record("first-lsn", "a first record of another LSN than the batch says", "LR-1", "NotDense", |r| {
        r[0].0.lsn = Lsn::new(1199);
    });
    record("time-back", "a record older than the one before", "LR-2", "Times", |r| r[3].0.time = at_ms(599));
    let field = "HeaderField";
    record("write-no-blocks", "a write of no blocks", "LR-4", field, |r| r[0].0.extent.len = 0);
    record("write-length", "a write with data of another length", "LR-4", field, |r| r[0].0.extent.len = 3);
    record("write-beyond", "a write beyond the largest disk", "LR-4", field, |r| r[0].0.extent.start = (1 << 54) - 1);
    record("write-huge", "blocks whose end has 65 bits", "LR-4", field, |r| r[1].0.extent = Extent::new(9, u64::MAX));
    record("zero-no-blocks", "a zero of no blocks", "LR-4", field, |r| r[1].0.extent.len = 0);
    record("zero-data", "a zero with data", "LR-4", field, |r| {
        (r[1].0.data_bytes, r[1].1) = (512, vec![0; 512]);
    });
    record("unmap-crc", "an unmap with a checksum", "LR-4", field, |r| r[2].0.data_crc = 1);
    record("event-disk", "an event with a disk", "LR-4", field, |r| r[3].0.disk = DiskId::new(1));
    record("event-blocks", "an event with blocks", "LR-4", field, |r| r[3].0.extent.len = 1);
    record("event-empty", "an event without data", "LR-4", field, |r| {
        (r[3].0.data_bytes, r[3].1) = (0, Vec::new());
    });
    let code = |cbor: &'static [u8]| sample(1203, RecordKind::Event, Extent::new(0, 0), cbor.to_vec());
    let mut cbor = |name: &str, about, error, cbor| {
        let mut records = mixed();
        records[3] = code(cbor);
        add.bad(name, about, &[], error, encoded(&records));
    };
    cbor("event-no-cbor", "an event that is not CBOR", "Cbor", &[0xff]);
    cbor("event-list", "an event that is a list of three", "Cbor", &[0x83, 0x06, 0xa0, 0x00]);
    cbor("event-trailing", "an event with a byte behind it", "TrailingBytes", &[0x82, 0x06, 0xa0, 0x00]);
    cbor("event-field", "a FLUSH without its disk", "Field", &[0x82, 0x05, 0xa0]);
    cbor("event-unknown", "an event of an unknown code below 128", "UnknownCriticalEvent", &[0x82, 0x18, 0x63, 0xa0]);
    for (name, about, kind) in [("kind-none", "a record of kind 0", 0), ("kind-unknown", "a record of kind 5", 5)] {
        add.bad(name, about, &["LR-4"], field, resealed(with(&bytes, 128 + 44, &[kind])));
    }
    let zero = sample(0, RecordKind::Zero, Extent::new(0, 1), Vec::new()).0;
    let from_zero = BatchChain { first_lsn: Lsn::ZERO, ..chain() };
    let bytes = encode_batch(&identity(), &from_zero, &[(zero, &[])]);
    add.bad("lsn-zero", "a record of lsn 0", &["LR-1"], "NotDense", bytes);
}
