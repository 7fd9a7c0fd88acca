//! Points in time, versions, changes, exports.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{LogBuilder, START, noise};
use std::io;
use tidemark_format::{ErrorKind, EventBody, Extent, Level, Lsn, RowKind, TimeNs};
use tidemark_reader::{ChangeKind, Error, ExportSink, PointSpec, Timeline};

fn after(ms: u64) -> TimeNs {
    TimeNs::new(START.get() + ms * 1_000_000)
}

async fn at(timeline: &Timeline, text: &str) -> Lsn {
    timeline.resolve(&text.parse().unwrap(), after(100_000)).await.unwrap().lsn
}

#[tokio::test]
async fn points_are_found_by_lsn_time_span_and_bookmark() {
    let mut log = LogBuilder::in_memory().await;
    let disk = log.blank_disk(1, 8);
    log.pass(10_000);
    let a = log.write(disk, 0, &[1; 512]);
    let mark = |name: &str| EventBody::Bookmark { name: name.into(), level: Level::FileSystem };
    let old = log.event(mark("twice"));
    log.seal().await;
    log.pass(10_000);
    let b = log.write(disk, 0, &[2; 512]);
    let new = log.event(mark("twice"));
    log.begin_epoch_after_seal().await;
    log.pass(10_000);
    let c = log.write(disk, 0, &[3; 512]);
    log.seal().await;

    let timeline = log.open().await.timeline();
    assert_eq!(at(&timeline, "latest").await, c);
    assert_eq!(at(&timeline, &format!("lsn:{a}")).await, a);
    assert_eq!(at(&timeline, "bookmark:twice").await, new);
    assert_eq!(timeline.bookmarks().iter().map(|m| m.point.lsn).collect::<Vec<_>>(), [old, new]);
    assert_eq!(at(&timeline, "-80s").await, new, "the last write at or before then");
    assert_eq!(at(&timeline, "-75s").await, new);
    assert_eq!(at(&timeline, "-1s").await, c, "beyond the newest is the newest");
    for lsn in 1..=c.get() {
        let lsn = Lsn::new(lsn);
        let time = timeline.time_of(lsn).await.unwrap().unwrap();
        let point = timeline.at_time(time).await.unwrap().unwrap();
        assert!(point.lsn >= lsn && timeline.time_of(point.lsn).await.unwrap() == Some(time));
    }
    assert_eq!(timeline.time_of(b).await.unwrap(), Some(after(20_000)));
    let early = timeline.resolve(&PointSpec::Time(TimeNs::new(START.get() - 1)), after(0)).await.unwrap_err();
    assert!(matches!(early, Error::BeforeHistory { .. }) && early.to_string().contains("lsn 1"), "{early}");
    assert_eq!(early.kind(), ErrorKind::FixRequest);
    let late = timeline.resolve(&PointSpec::Lsn(c.next()), after(0)).await.unwrap_err();
    assert!(matches!(late, Error::AfterHistory { .. }), "{late}");
    assert!(timeline.resolve(&"bookmark:never".parse().unwrap(), after(0)).await.is_err());
    let sample = timeline.sample(16).await.unwrap();
    assert_eq!(sample.last(), Some(&timeline.latest()));
    for point in sample {
        assert_eq!(timeline.at_time(point.time).await.unwrap(), Some(point));
    }
}

#[tokio::test]
async fn sizes_and_disks_are_those_of_the_point() {
    let mut log = LogBuilder::in_memory().await;
    let disk = log.blank_disk(1, 8);
    let small = log.latest();
    let grown = log.event(EventBody::DiskResize { disk, blocks: 16 });
    log.range(disk, Extent::new(8, 8), RowKind::Zero);
    let gone = log.event(EventBody::DiskRemove { disk });
    log.seal().await;
    let timeline = log.open().await.timeline();
    assert_eq!(timeline.disks_at(Lsn::ZERO), []);
    assert_eq!(timeline.disks_at(Lsn::new(1))[0].consistent_from, None);
    assert_eq!(timeline.disks_at(small)[0].size_bytes, 8 * 512);
    assert_eq!(timeline.disks_at(small)[0].consistent_from, Some(small));
    assert_eq!(timeline.find_disk("vm", "disk1", grown).unwrap().size_bytes, 16 * 512);
    assert_eq!(timeline.disks_at(gone), []);
    assert_eq!(timeline.disks_at(Lsn::new(gone.get() - 1)).len(), 1);
}

#[tokio::test]
async fn a_vm_is_what_was_recorded_last_at_or_before_the_point() {
    let mut log = LogBuilder::in_memory().await;
    let config = |vm: &str, body: &[u8]| EventBody::VmConfig { vm: vm.into(), format: "f".into(), body: body.to_vec() };
    let old = log.event(config("a", b"old"));
    log.seal().await;
    log.event(config("b", b"other"));
    let new = log.event(config("a", b"new"));
    log.seal().await;
    let timeline = log.open().await.timeline();
    let body = |vm, lsn| timeline.vm_config(vm, lsn).map(|found| (found.recorded.lsn, found.body.to_vec()));
    assert_eq!(body("a", Lsn::new(old.get() - 1)), None);
    assert_eq!(body("a", Lsn::new(new.get() - 1)), Some((old, b"old".to_vec())));
    assert_eq!(body("a", new), Some((new, b"new".to_vec())));
    assert_eq!(body("c", new), None);
}

//= SPEC.md#reader-rules
//#
#[tokio::test]
async fn a_gap_is_shown_and_its_points_are_not_offered() {
    let mut log = LogBuilder::in_memory().await;
    let disk = log.blank_disk(1, 8);
    let good = log.write(disk, 0, &[1; 512]);
    let lossy = log.write(disk, 0, &[2; 512]);
    let recorded = log.event(EventBody::Gap { disk, from: good, to: lossy });
    log.event(EventBody::ResyncStart { disk });
    let resynced = log.event(EventBody::ResyncDone { disk });
    let again = log.event(EventBody::ConsistentFrom { disk });
    log.seal().await;
    let domain = log.open().await;
    let timeline = domain.timeline();
    assert_eq!(
        timeline.gaps().iter().map(|g| (g.from, g.to, g.recorded.lsn)).collect::<Vec<_>>(),
        [(good, lossy, recorded)]
    );
    for (lsn, offered) in [(good, true), (lossy, false), (recorded, false), (resynced, false), (again, true)] {
        assert_eq!(timeline.disks_at(lsn)[0].consistent_from.is_some(), offered, "lsn {lsn}");
        assert_eq!(domain.disk(disk, lsn).await.is_ok(), offered, "lsn {lsn}");
    }
    let error = domain.disk(disk, lossy).await.unwrap_err();
    assert!(
        matches!(&error, Error::NotRestorable { .. }) && error.to_string().contains(&format!("lsn {again}")),
        "{error}"
    );
}

#[tokio::test]
async fn every_version_of_a_block_and_every_change_is_listed() {
    let mut log = LogBuilder::in_memory().await;
    let disk = log.blank_disk(1, 64);
    let base = log.latest();
    let a = log.write(disk, 10, &noise(1, 2048));
    log.seal().await;
    let b = log.write(disk, 12, &noise(2, 512));
    let c = log.range(disk, Extent::new(11, 4), RowKind::Unmap);
    log.seal().await;
    let d = log.event(EventBody::DiskResize { disk, blocks: 32 });
    log.seal().await;
    let domain = log.open().await;
    let versions = domain.versions(disk, 12 * 512 + 100).await.unwrap();
    let seen: Vec<_> = versions.iter().map(|v| (v.lsn, v.kind, v.frame.is_some())).collect();
    assert_eq!(
        seen,
        [
            (Lsn::new(2), RowKind::Zero, false),
            (a, RowKind::Data, true),
            (b, RowKind::Data, true),
            (c, RowKind::Unmap, false)
        ]
    );
    assert_ne!(versions[1].frame.unwrap().hash, versions[2].frame.unwrap().hash);
    let changes = |from, to| {
        let domain = domain.clone();
        async move {
            let changed = domain.changed(disk, from, to).await.unwrap();
            changed.iter().map(|c| (c.extent.start, c.extent.len, c.lsn, c.kind)).collect::<Vec<_>>()
        }
    };
    assert_eq!(changes(base, a).await, [(10, 4, a, ChangeKind::Data)]);
    assert_eq!(changes(base, c).await, [(10, 1, a, ChangeKind::Data), (11, 4, c, ChangeKind::Unmap)]);
    assert_eq!(changes(a, b).await, [(12, 1, b, ChangeKind::Data)]);
    assert_eq!(changes(c, d).await, [(32, 32, d, ChangeKind::CutOff)]);
    assert_eq!(changes(d, d).await, []);
}

/// Collects an export and checks that it comes in order and without gaps.
#[derive(Default)]
struct Image {
    bytes: Vec<u8>,
    data: u64,
}

impl ExportSink for Image {
    fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert_eq!(offset, self.bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
        self.data += bytes.len() as u64;
        Ok(())
    }
    fn zeros(&mut self, offset: u64, len: u64) -> io::Result<()> {
        assert_eq!(offset, self.bytes.len() as u64);
        self.bytes.resize((offset + len) as usize, 0);
        Ok(())
    }
}

#[tokio::test]
async fn an_export_is_the_whole_disk_in_order_with_its_holes() {
    let mut log = LogBuilder::in_memory().await;
    // 40 MiB and a bit: three regions.
    let blocks = 40 * 2048 + 3;
    let disk = log.blank_disk(1, blocks);
    let mut wanted = vec![0; blocks as usize * 512];
    for i in 0..60u64 {
        let block = i * i * 21 % (blocks - 40);
        let data = noise(i, 512 * (1 + i as usize % 40));
        log.write(disk, block, &data);
        wanted[block as usize * 512..][..data.len()].copy_from_slice(&data);
        if i % 7 == 0 {
            log.seal().await;
        }
    }
    log.seal().await;
    let domain = log.open().await;
    let image = domain.disk(disk, log.latest()).await.unwrap();
    let mut sink = Image::default();
    let mut done = 0;
    image.export(&mut sink, |bytes| done = bytes).await.unwrap();
    assert!(sink.bytes == wanted);
    assert_eq!(done, blocks * 512);
    assert!(sink.data < 60 * 40 * 512 && sink.data == image.data_bytes().await.unwrap());
}

impl LogBuilder {
    async fn begin_epoch_after_seal(&mut self) {
        self.seal().await;
        self.begin_epoch().await;
    }
}
