//! A reader of level R0: the section "Restore at level R0" of SPEC.md in code, too simple to be wrong and too slow to use.
//!
//! It holds the golden domains to what they say, and can stand beside the real reader as its model.

use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use tidemark_format::*;

/// Objects by key.
pub type Bucket = BTreeMap<ObjectKey, Vec<u8>>;

/// A rule that is broken: the name of the error, and the object at which it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// A name of `FormatError`; `Chain` where two objects contradict each other, `Missing` where one is not there.
    pub error: &'static str,
    /// The object.
    pub key: ObjectKey,
}

/// A segment of the history.
struct Segment {
    key: ObjectKey,
    head: SegmentHead,
    /// The plaintext stream.
    stream: Vec<u8>,
}

/// A domain's history.
pub struct History {
    /// What the domain is.
    pub genesis: Genesis,
    /// Log segments, oldest first.
    log: Vec<Segment>,
    /// Base segments by key, as SEED_EXTENT events name them.
    bases: BTreeMap<ObjectKey, Segment>,
    /// No owner can give an LSN up to here another meaning.
    pub final_through: Lsn,
    /// The points that are offered; `None`: all.
    pub retained: Option<Retained>,
}

/// The bytes of a block; `None` if nothing is known of it, and reading it is an error.
pub type Block = Option<[u8; BLOCK_BYTES as usize]>;

/// A disk at a point.
pub struct Image {
    /// Every block up to the size of the disk.
    pub blocks: Vec<Block>,
    /// Whether the disk may be offered at the point.
    pub restorable: bool,
}

impl History {
    /// Reads all of a domain.
    pub fn open(bucket: &Bucket) -> Result<Self, Broken> {
        let missing = |key| Broken { error: "Missing", key };
        let genesis = bucket.get(&ObjectKey::Genesis).ok_or(missing(ObjectKey::Genesis))?;
        let genesis = Genesis::decode(genesis).map_err(|e| Broken { error: e.name(), key: ObjectKey::Genesis })?;
        let mut claimed = 0;
        while let Some(bytes) = bucket.get(&ObjectKey::writer_claim(Epoch::new(claimed + 1))) {
            claimed += 1;
            let key = ObjectKey::writer_claim(Epoch::new(claimed));
            let expect = Expect { domain: genesis.domain, key };
            Claim::decode(bytes, &expect).map_err(|e| Broken { error: e.name(), key })?;
        }
        // nothing is written in front of a claim, nor in front of a CUT.
        let behind = [ObjectKey::writer_claim(Epoch::new(claimed + 2)), ObjectKey::cut(Epoch::new(claimed + 1))];
        if behind.iter().any(|key| bucket.contains_key(key)) {
            return Err(missing(ObjectKey::writer_claim(Epoch::new(claimed + 1))));
        }
        let mut history =
            Self { genesis, log: Vec::new(), bases: BTreeMap::new(), final_through: Lsn::ZERO, retained: None };
        let begun = |epoch: &Epoch| {
            let first = ObjectKey::Log { epoch: *epoch, seq: Seq::new(1) };
            bucket.contains_key(&ObjectKey::cut(*epoch)) || bucket.contains_key(&first)
        };
        let Some(newest) = (1..=claimed).rev().map(Epoch::new).find(begun) else { return Ok(history) };
        if !bucket.contains_key(&ObjectKey::cut(newest)) {
            return Err(missing(ObjectKey::cut(newest)));
        }
        let ledger = history.newest_ledger(bucket)?;
        // Epochs from the newest to the oldest, each with its segments in order; last what a ledger names.
        let mut epochs = vec![history.newest_epoch(bucket, newest)?];
        while let Some(Tail { epoch, seq, header_hash }) = epochs.last().and_then(|segments| predecessor(&segments[0]))
        {
            let through = ledger.as_ref().map(|ledger| ledger.through);
            if through.is_some_and(|tail| (tail.epoch, tail.seq, tail.header_hash) == (epoch, seq, header_hash)) {
                let parts = ledger.iter().flat_map(|ledger| &ledger.parts);
                epochs.push(
                    parts
                        .map(|part| history.part(bucket, part))
                        .collect::<Result<Vec<_>, _>>()?
                        .into_iter()
                        .flatten()
                        .collect(),
                );
                break;
            }
            let keys = (0..=seq.get()).map(|seq| ObjectKey::Log { epoch, seq: Seq::new(seq) });
            epochs.push(keys.map(|key| history.segment(bucket, key)).collect::<Result<_, _>>()?);
        }
        history.log = epochs.into_iter().rev().flatten().collect();
        history.check_chain()?;
        history.check_disks()?;
        history.read_bases(bucket)?;
        let last = history.last_lsn();
        let acked = history.log.iter().map(|segment| segment.head.header.acked_through).max();
        history.retained = ledger.map(|ledger| ledger.retained);
        history.final_through = if newest.get() == claimed { last } else { acked.unwrap_or(Lsn::ZERO) };
        Ok(history)
    }

    /// The segments of the newest epoch, up to where its log ends: at the first that is absent, or that a clone of the
    /// owner left behind. What was acknowledged must not lie behind the end.
    fn newest_epoch(&self, bucket: &Bucket, epoch: Epoch) -> Result<Vec<Segment>, Broken> {
        let keys = (0..).map(|seq| ObjectKey::Log { epoch, seq: Seq::new(seq) });
        let mut segments: Vec<Segment> = Vec::new();
        let mut end: Option<ObjectKey> = None;
        for key in keys.take_while(|key| bucket.contains_key(key)) {
            let segment = self.segment(bucket, key)?;
            let header = &segment.head.header;
            let last = segments.last().map(|last| &last.head.header);
            if end.is_none() && last.is_some_and(|last| header.prev_header_hash != last.header_hash) {
                end = Some(key);
            }
            match end {
                None => segments.push(segment),
                Some(key) if last.is_some_and(|last| header.acked_through > last.last_lsn) => {
                    return Err(Broken { error: "Chain", key });
                }
                Some(_) => {}
            }
        }
        Ok(segments)
    }

    /// The newest ledger: that of the highest epoch that has one.
    fn newest_ledger(&self, bucket: &Bucket) -> Result<Option<Ledger>, Broken> {
        let claimed = (1..).take_while(|epoch| bucket.contains_key(&ObjectKey::maintenance_claim(Epoch::new(*epoch))));
        let keys =
            claimed.collect::<Vec<_>>().into_iter().rev().map(|epoch| ObjectKey::Ledger { epoch: Epoch::new(epoch) });
        let Some((key, bytes)) = keys.filter_map(|key| Some((key, bucket.get(&key)?))).next() else { return Ok(None) };
        let ledger = Ledger::decode(bytes, &Expect { domain: self.genesis.domain, key });
        ledger.map(Some).map_err(|e| Broken { error: e.name(), key })
    }

    /// The objects of one part of a ledger.
    fn part(&self, bucket: &Bucket, part: &LedgerPart) -> Result<Vec<Segment>, Broken> {
        let segments = part.keys().map(|key| self.segment(bucket, key)).collect::<Result<Vec<_>, _>>()?;
        match segments.last().filter(|last| last.head.header.header_hash != part.header_hash) {
            Some(last) => Err(Broken { error: "Chain", key: last.key }),
            None => Ok(segments),
        }
    }

    fn segment(&self, bucket: &Bucket, key: ObjectKey) -> Result<Segment, Broken> {
        let bytes = bucket.get(&key).ok_or(Broken { error: "Missing", key })?;
        let broken = |e: FormatError| Broken { error: e.name(), key };
        let head = SegmentHead::decode(bytes, &Expect { domain: self.genesis.domain, key }).map_err(broken)?;
        head.check_total_len(bytes.len() as u64).map_err(broken)?;
        head.check_dense().map_err(broken)?;
        let mut stream = Vec::new();
        for i in 0..head.frames.len() {
            let (entry, range) =
                (head.frames.entry(i).expect("in range"), head.frames.object_range(i).expect("in range"));
            stream.extend(decode_frame(entry, &bytes[range.start as usize..range.end as usize]).map_err(broken)?);
        }
        Ok(Segment { key, head, stream })
    }

    /// O-3, C-2, C-3 and T-1 between neighbours.
    fn check_chain(&self) -> Result<(), Broken> {
        for pair in self.log.windows(2) {
            let (before, after) = (&pair[0].head.header, &pair[1].head.header);
            // What a compact segment stands for is gone, and its hash with it.
            let compact = [before, after].iter().any(|header| header.identity.kind == SegmentKind::Compact);
            let holds = (compact || after.prev_header_hash == before.header_hash)
                && Some(after.first_lsn) == before.last_lsn.checked_next()
                && after.first_time >= before.last_time;
            if !holds {
                return Err(Broken { error: "Chain", key: pair[1].key });
            }
        }
        Ok(())
    }

    /// E-3 along the log.
    fn check_disks(&self) -> Result<(), Broken> {
        let mut disks = Vec::new();
        for segment in &self.log {
            for event in &segment.head.events {
                DiskState::apply(&mut disks, event).map_err(|e| Broken { error: e.name(), key: segment.key })?;
            }
        }
        Ok(())
    }

    /// through SEED_EXTENT events only, and with the hash that the event names.
    fn read_bases(&mut self, bucket: &Bucket) -> Result<(), Broken> {
        let mut bases = BTreeMap::new();
        for (_, body) in self.events() {
            let EventBody::SeedExtent { base, .. } = body else { continue };
            let key = ObjectKey::Base { role: base.role, epoch: base.epoch, seq: base.seq };
            let segment = self.segment(bucket, key)?;
            if segment.head.header.header_hash != base.header_hash {
                return Err(Broken { error: "Chain", key });
            }
            bases.insert(key, segment);
        }
        self.bases = bases;
        Ok(())
    }

    /// All events in order.
    pub fn events(&self) -> impl Iterator<Item = (Lsn, &EventBody)> {
        self.log.iter().flat_map(|segment| &segment.head.events).map(|event| (event.lsn, &event.body))
    }

    /// The newest LSN; 0 in an empty domain.
    pub fn last_lsn(&self) -> Lsn {
        self.log.last().map_or(Lsn::ZERO, |segment| segment.head.header.last_lsn)
    }

    /// The time of an LSN.
    pub fn time_of(&self, lsn: Lsn) -> Option<TimeNs> {
        let of = |segment: &Segment| {
            let header = &segment.head.header;
            let within = header.first_lsn <= lsn && lsn <= header.last_lsn;
            segment.head.times.as_ref().filter(|_| within)?.time_of(lsn)
        };
        self.log.iter().find_map(of)
    }

    /// The disk at point `at`; `None` if it was not there yet.
    pub fn image(&self, disk: DiskId, at: Lsn) -> Option<Image> {
        let mut restorable = None;
        let mut seeds: Vec<&Segment> = Vec::new();
        for (_, body) in self.events().take_while(|(lsn, _)| *lsn <= at) {
            match body {
                EventBody::DiskAdd { disk: of, .. } if *of == disk => restorable = Some(false),
                EventBody::SeedStart { disk: of } if *of == disk => seeds.clear(),
                EventBody::SeedExtent { disk: of, base, .. } if *of == disk => {
                    seeds.push(&self.bases[&ObjectKey::Base { role: base.role, epoch: base.epoch, seq: base.seq }]);
                }
                EventBody::ConsistentFrom { disk: of } if *of == disk => restorable = Some(true),
                EventBody::Gap { disk: of, .. } if *of == disk => restorable = Some(false),
                EventBody::DiskRemove { disk: of } if *of == disk => restorable = Some(false),
                _ => {}
            }
        }
        // A gap is known later than the points that it spoils.
        let lost = |(_, body): (Lsn, &EventBody)| matches!(body, EventBody::Gap { disk: of, from, to } if *of == disk && *from < at && at <= *to);
        let restorable = restorable? && !self.events().any(lost);
        let size = self.size(disk, at)?;
        // Base rows stand at their SEED_START: the newest row wins, and a resize forgets what is older than it.
        let segments: Vec<_> = self.log.iter().chain(seeds).collect();
        let contents = self.contents(&segments, disk, at);
        let blocks = (0..size).map(|block| contents.get(&block).copied()).collect();
        Some(Image { blocks, restorable })
    }

    /// The size of a disk in blocks.
    pub fn size(&self, disk: DiskId, at: Lsn) -> Option<u64> {
        self.sizes(disk).take_while(|(lsn, _)| *lsn <= at).last().map(|(_, blocks)| blocks)
    }

    /// The sizes of a disk and since when it has them.
    fn sizes(&self, disk: DiskId) -> impl Iterator<Item = (Lsn, u64)> {
        self.events().filter_map(move |(lsn, body)| match body {
            EventBody::DiskAdd { disk: of, blocks, .. } | EventBody::DiskResize { disk: of, blocks } if *of == disk => {
                Some((lsn, *blocks))
            }
            _ => None,
        })
    }

    /// What the rows of some segments leave in the blocks of a disk at a point.
    fn contents(&self, segments: &[&Segment], disk: DiskId, at: Lsn) -> BTreeMap<u64, [u8; BLOCK_BYTES as usize]> {
        let mut rows: Vec<_> = segments
            .iter()
            .flat_map(|segment| segment.head.index.iter().map(|placed| (placed, &segment.stream[..])))
            .filter(|(placed, _)| placed.row.disk == disk && placed.row.lsn <= at)
            .collect();
        rows.sort_by_key(|(placed, _)| placed.row.lsn);
        let mut sizes = self.sizes(disk).take_while(|(lsn, _)| *lsn <= at).peekable();
        let mut contents = BTreeMap::new();
        for (PlacedRow { row, stream_block }, stream) in rows {
            while let Some((_, size)) = sizes.next_if(|(lsn, _)| *lsn < row.lsn) {
                contents.split_off(&size);
            }
            for i in 0..row.extent.len {
                let mut bytes = [0; BLOCK_BYTES as usize];
                if row.kind == RowKind::Data {
                    let at = ((stream_block + i) * BLOCK_BYTES) as usize;
                    bytes.copy_from_slice(&stream[at..at + BLOCK_BYTES as usize]);
                }
                contents.insert(row.extent.start + i, bytes);
            }
        }
        sizes.for_each(|(_, size)| drop(contents.split_off(&size)));
        contents
    }
}

/// What a CUT names as its predecessor.
fn predecessor(cut: &Segment) -> Option<Tail> {
    cut.head.cut.as_ref()?.predecessor
}

/// The JSON of golden domains (`vectors/README.md`).
impl History {
    /// Positions, bookmarks, and each disk at each LSN.
    pub fn meaning(&self) -> Json {
        let last = self.last_lsn().get();
        let names = self.events().filter_map(|(_, body)| match body {
            EventBody::DiskAdd { disk, vm, name, .. } => Some((*disk, format!("{vm}/{name}"))),
            _ => None,
        });
        let bookmarks = self.events().filter_map(|(lsn, body)| match body {
            EventBody::Bookmark { name, level } => Some(json!([lsn.get(), name, level.name()])),
            _ => None,
        });
        let disks: Map<_, _> = names
            .map(|(disk, name)| {
                let offered = |lsn: &u64| self.retained.as_ref().is_none_or(|retained| retained.offers(Lsn::new(*lsn)));
                let points = (1..=last).filter(offered).filter_map(|lsn| self.point(disk, Lsn::new(lsn)));
                (name, json!({ "disk": disk.get(), "points": points.collect::<Vec<_>>() }))
            })
            .collect();
        json!({
            "domain": self.genesis.domain.to_string(),
            "name": self.genesis.name,
            "last_lsn": last,
            "last_time_ns": self.time_of(self.last_lsn()).map(TimeNs::get),
            "final_through": self.final_through.get(),
            "bookmarks": bookmarks.collect::<Vec<_>>(),
            "disks": disks,
        })
    }

    fn point(&self, disk: DiskId, at: Lsn) -> Option<Json> {
        let image = self.image(disk, at)?;
        let (mut known, mut unknown) = (blake3::Hasher::new(), Vec::<[u64; 2]>::new());
        for (at, block) in (0..).zip(&image.blocks) {
            match (block, unknown.last_mut()) {
                (Some(bytes), _) => drop(known.update(bytes)),
                (None, Some([start, len])) if *start + *len == at => *len += 1,
                (None, _) => unknown.push([at, 1]),
            }
        }
        Some(json!({
            "lsn": at.get(),
            "blocks": image.blocks.len(),
            "restorable": image.restorable,
            "unknown": unknown,
            "known_blake3": known.finalize().to_hex().to_string(),
        }))
    }
}
