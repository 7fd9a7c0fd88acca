//! What else a writer promises: its costs, its bounds, what it refuses, what it says about itself, and seeding.

mod common;

use bytes::Bytes;
use common::{BLOCK, History, START, block_on, domain, options, writer};
use futures::stream;
use std::time::Duration;
use tidemark_bucket::{Fault, Faults, Op};
use tidemark_env::{Entropy, Env, SeededEntropy};
use tidemark_format::{
    Claim, ClaimMode, DiskId, DomainId, Epoch, ErrorKind, EventBody, Expect, Features, Genesis, KeyFamily, Level, Lsn,
    ObjectKey, TimeNs,
};
use tidemark_writer::{
    Attach, Content, DomainWriter, Error, NewDisk, Request, SeedPiece, WRITE_BYTES_MAX, When, WriterOptions,
    create_domain, open_domain,
};

const MIB: u64 = 1 << 20;

fn disk(name: &str, size_bytes: u64) -> NewDisk {
    NewDisk { vm: "vm".into(), name: name.into(), size_bytes }
}

#[test]
fn a_run_of_writes_costs_one_put_a_segment_one_claim_and_one_cut_and_no_list() {
    block_on(async {
        let bucket = domain().await;
        let before = bucket.meter().snapshot();
        // A 64th of the size that the promise is made for: 1 GiB in segments of 64 MiB.
        let options = WriterOptions { segment_bytes_max: MIB, age_ms_max: 60_000, ..options() };
        let writer = DomainWriter::open(bucket.appender(), options, Env::system()).await.unwrap();
        let (id, _ticket) = writer.submit_disk_add(&disk("a", 64 * MIB), Content::Blank, When::Now).await.unwrap();
        for i in 0..16 * MIB / 4096 {
            let mut data = vec![0; 4096];
            data[..8].copy_from_slice(&(i + 1).to_le_bytes());
            let _ticket = writer.submit_write(id, i * 4096, data.into()).await.unwrap();
        }
        writer.close().await.unwrap();
        let cost = bucket.meter().snapshot().since(&before);
        assert_eq!(cost.get(Op::Put, KeyFamily::Log).requests, 16 + 1);
        assert_eq!(cost.get(Op::Put, KeyFamily::Claim).requests, 1);
        assert!(cost.get(Op::Put, KeyFamily::Volatile).requests <= 2);
        assert_eq!(cost.total(Op::List).requests, 0);
        assert_eq!(cost.total(Op::Delete).requests, 0);
    });
}

#[test]
fn a_quiet_writer_puts_nothing() {
    block_on(async {
        let bucket = domain().await;
        let writer = writer(&bucket).await;
        let before = bucket.meter().snapshot();
        writer.sync().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let cost = bucket.meter().snapshot().since(&before);
        assert_eq!(cost.total(Op::Put).requests + cost.total(Op::Get).requests, 0);
    });
}

#[test]
fn fault_while_the_store_is_gone_submitting_waits_at_the_bound_and_the_status_says_why() {
    block_on(async {
        let bucket = domain().await;
        let faults = Faults::seeded(1).surfacing();
        let bound = 2 * MIB + WRITE_BYTES_MAX;
        let options = WriterOptions { segment_bytes_max: MIB, buffer_bytes_max: bound, ..options() };
        let appender = bucket.with_faults(faults.clone()).appender();
        let writer = DomainWriter::open(appender, options, Env::system()).await.unwrap();
        let id = writer.disk_add(&disk("a", 1 << 30), Content::Blank).await.unwrap();
        faults.vanish();
        let dice = SeededEntropy::new(1);
        let mut noise = vec![0; MIB as usize];
        dice.fill(&mut noise);
        let noise = Bytes::from(noise);
        let mut tickets = Vec::new();
        let writing = async {
            for i in 0..200 {
                tickets.push(writer.submit_write(id, i * MIB, noise.clone()).await.unwrap());
            }
        };
        let mut status = writer.status();
        tokio::select! {
            () = writing => panic!("200 MiB fit into {bound} bytes"),
            // Both: retries are going on, and the buffer is as full as it gets.
            stuck = status.wait_for(|s| s.failures_in_a_row > 3 && s.buffered_bytes + MIB >= bound - MIB) => {
                let stuck = stuck.unwrap();
                assert!(stuck.buffered_bytes <= bound, "{} bytes are held", stuck.buffered_bytes);
                assert_eq!(stuck.last_error.as_ref().map(Error::kind), Some(ErrorKind::Retry));
                assert!(stuck.oldest_pending_since.is_some());
                assert!(stuck.stopped.is_none());
            }
        }
        assert!(tickets.len() < 40);
        faults.come_back();
        writer.sync().await.unwrap();
        for ticket in tickets {
            ticket.committed().await.unwrap();
        }
        let calm = writer.status().borrow().clone();
        assert_eq!((calm.buffered_bytes, calm.failures_in_a_row, calm.oldest_pending_since), (0, 0, None));
        assert_eq!(calm.committed, calm.logged);
    });
}

#[test]
fn requests_that_make_no_sense_are_refused_and_take_no_lsn() {
    block_on(async {
        let bucket = domain().await;
        let writer = writer(&bucket).await;
        let id = writer.disk_add(&disk("a", 8 * 512), Content::Blank).await.unwrap();
        let last = writer.last_lsn();
        let block = || Bytes::from(vec![1; BLOCK]);
        let gone = DiskId::new(9);
        for refused in [
            writer.submit_write(gone, 0, block()).await,
            writer.submit_write(id, 1, block()).await,
            writer.submit_write(id, 0, block().slice(1..)).await,
            writer.submit_write(id, 0, Bytes::new()).await,
            writer.submit_write(id, 8 * 512, block()).await,
            writer.submit_write(id, u64::MAX - 511, block()).await,
            writer.submit_write(id, 0, vec![0; WRITE_BYTES_MAX as usize + 512].into()).await,
            writer.submit(Request::Zero { disk: id, offset: 512, len: 8 * 512 }, When::Now).await,
            writer.submit(Request::Unmap { disk: id, offset: 0, len: 0 }, When::Now).await,
            writer.submit(Request::Flush { disk: gone }, When::Now).await,
            writer.submit(Request::Bookmark { name: String::new(), level: Level::Crash }, When::Now).await,
            writer.submit_disk_add(&disk("a", 512), Content::Blank, When::Now).await.map(|(_, ticket)| ticket),
            writer.submit_disk_add(&disk("b", 513), Content::Blank, When::Now).await.map(|(_, ticket)| ticket),
            writer.submit_disk_add(&disk("", 512), Content::Blank, When::Now).await.map(|(_, ticket)| ticket),
            writer.submit_disk_resize(gone, 512, When::Now).await,
            writer.submit_disk_remove(gone, When::Now).await,
        ] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::FixRequest);
        }
        assert_eq!(writer.last_lsn(), last);
        assert_eq!(writer.disk_remove(id).await.unwrap().lsn, last.next());
        assert_eq!(writer.write(id, 0, block()).await.unwrap_err().kind(), ErrorKind::FixRequest);
        writer.close().await.unwrap();
        assert!(matches!(writer.flush(id).await.unwrap_err(), Error::NoDisk { .. }));
        assert!(matches!(writer.bookmark("late", Level::Crash).await.unwrap_err(), Error::Closed));
    });
}

#[test]
fn times_never_go_back_whoever_gives_them() {
    block_on(async {
        let bucket = domain().await;
        let clock = std::sync::Arc::new(tidemark_env::ManualClock::new(START));
        let open = || DomainWriter::open(bucket.appender(), options(), Env::seeded(3, clock.clone()));
        let writer = open().await.unwrap();
        let mark = || Request::Bookmark { name: "x".into(), level: Level::Crash };
        let early = TimeNs::new(START.get() - 5_000_000_000);
        let mut times = Vec::new();
        for when in [When::At(early), When::At(TimeNs::new(early.get() + 1_700_000)), When::Now] {
            times.push(writer.submit(mark(), when).await.unwrap().time().get());
        }
        clock.set_wall(TimeNs::new(START.get() - 1_000_000_000));
        times.push(writer.submit(mark(), When::Now).await.unwrap().time().get());
        times.push(writer.submit(mark(), When::At(early)).await.unwrap().time().get());
        writer.close().await.unwrap();
        times.push(open().await.unwrap().bookmark("y", Level::Crash).await.unwrap().time.get());
        let (early, start) = (early.get(), START.get());
        assert_eq!(times, [early, early + 1_000_000, start, start, start, start]);
        let history = History::read(&bucket.read_only()).await;
        assert_eq!(history.at.iter().map(|at| at.time.get()).collect::<Vec<_>>(), times);
    });
}

//= SPEC.md#events
//# E-5
#[test]
fn a_seeded_disk_reads_as_it_was_beneath_what_was_written_since() {
    block_on(async {
        let bucket = domain().await;
        let writer = DomainWriter::open(
            bucket.appender(),
            WriterOptions { segment_bytes_max: 8 << 10, ..options() },
            Env::system(),
        )
        .await
        .unwrap();
        let blocks = 128u64;
        let id = writer.disk_add(&disk("a", blocks * 512), Content::Existing).await.unwrap();
        let early = writer.write(id, 0, Bytes::from(vec![1; BLOCK])).await.unwrap();
        let old: Vec<u8> =
            (0..64 * BLOCK).map(|i| if (8..16).contains(&(i / BLOCK)) { 0 } else { (i / BLOCK) as u8 + 100 }).collect();
        let pieces: Vec<std::io::Result<SeedPiece>> = old
            .chunks(4 * BLOCK)
            .enumerate()
            .map(|(i, data)| Ok(SeedPiece::Data { offset: (i * 4 * BLOCK) as u64, data: Bytes::copy_from_slice(data) }))
            // Blocks 64 to 80 are left out; the rest is a hole.
            .chain([Ok(SeedPiece::Zero { offset: 80 * 512, len: 48 * 512 })])
            .collect();
        let live = async {
            let mut last = Lsn::ZERO;
            for i in 0..20u64 {
                last = writer.write(id, (i * 3) * 512, Bytes::from(vec![200; BLOCK])).await.unwrap().lsn;
            }
            last
        };
        let (seeded, last) = tokio::join!(writer.seed(id, stream::iter(pieces), When::Now), live);
        let seeded = seeded.unwrap();
        assert_eq!(seeded.objects, 5);
        writer.close().await.unwrap();
        let history = History::read(&bucket.read_only()).await;
        let bodies: Vec<_> = history.at.iter().filter_map(|at| at.event.as_ref().map(|e| e.body.name())).collect();
        assert_eq!(bodies.iter().filter(|name| **name == "SEED_EXTENT").count(), 5);
        let done = history.at[seeded.consistent_from.get() as usize - 1].event.clone().unwrap();
        assert_eq!(done.body, EventBody::ConsistentFrom { disk: id });
        let image = |lsn: Lsn| history.image(lsn)[&id].clone();
        let block = |byte: u8| Some([byte; BLOCK]);
        let at_start = image(seeded.from);
        assert_eq!(at_start[1], block(101), "what was there");
        assert_eq!((at_start[64], at_start[79]), (None, None), "what nobody said anything about is unknown");
        assert_eq!((at_start[8], at_start[15], at_start[80]), (block(0), block(0), block(0)));
        assert_eq!(image(early.lsn)[0], block(1));
        let at_end = image(last.max(seeded.consistent_from));
        assert_eq!((at_end[0], at_end[57], at_end[58]), (block(200), block(200), block(158)));
    });
}

#[test]
fn a_seed_whose_source_fails_or_goes_back_is_refused_and_may_start_over() {
    block_on(async {
        let bucket = domain().await;
        let writer = writer(&bucket).await;
        let id = writer.disk_add(&disk("a", 16 * 512), Content::Existing).await.unwrap();
        let piece = |offset: u64| Ok(SeedPiece::Zero { offset, len: 1024 });
        for pieces in [
            vec![piece(1024), piece(0)],
            vec![piece(0), piece(512)],
            vec![piece(15 * 512)],
            vec![piece(0), Err(std::io::Error::other("disk read error"))],
            vec![piece(1)],
        ] {
            let error = writer.seed(id, stream::iter(pieces), When::Now).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FixRequest, "{error}");
        }
        let whole = vec![Ok(SeedPiece::Zero { offset: 0, len: 16 * 512 })];
        let seeded = writer.seed(id, stream::iter(whole), When::Now).await.unwrap();
        writer.close().await.unwrap();
        let history = History::read(&bucket.read_only()).await;
        assert!(history.image(seeded.consistent_from)[&id].iter().all(Option::is_some));
    });
}

#[test]
fn many_starts_find_the_newest_claim_with_few_requests() {
    block_on(async {
        let bucket = domain().await;
        for _ in 0..20 {
            writer(&bucket).await.close().await.unwrap();
        }
        let before = bucket.meter().snapshot();
        let last = writer(&bucket).await;
        assert_eq!(last.epoch().get(), 21);
        // No hint: epochs without a segment leave none. Strides and halving: 1, 2, 4, 8, 16 and back.
        assert!(bucket.meter().snapshot().since(&before).get(Op::Get, KeyFamily::Claim).requests <= 12);
        let id = last.disk_add(&disk("a", 512), Content::Blank).await.unwrap();
        last.write(id, 0, Bytes::from(vec![1; BLOCK])).await.unwrap();
        last.close().await.unwrap();
        assert!(bucket.read_only().get(&ObjectKey::Hint).await.is_ok());
        let before = bucket.meter().snapshot();
        assert_eq!(writer(&bucket).await.epoch().get(), 22);
        assert_eq!(bucket.meter().snapshot().since(&before).get(Op::Get, KeyFamily::Claim).requests, 3);
    });
}

//= SPEC.md#genesis
//# G-2
#[test]
fn a_bucket_holds_one_domain_and_a_writer_needs_one() {
    block_on(async {
        let bucket = tidemark_bucket::Bucket::memory();
        let error = DomainWriter::open(bucket.appender(), options(), Env::system()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let made = create_domain(&bucket.appender(), "one", &Env::system()).await.unwrap();
        let error = create_domain(&bucket.appender(), "two", &Env::system()).await.unwrap_err();
        assert!(matches!(error, Error::DomainExists { domain, .. } if domain == made.domain));
        let probing = WriterOptions { attach: Attach::Probe, ..options() };
        DomainWriter::open(bucket.appender(), probing, Env::system()).await.unwrap().close().await.unwrap();
    });
}

#[test]
fn dropping_a_writer_ends_the_waiting_of_its_tickets() {
    block_on(async {
        let bucket = domain().await;
        let patient = WriterOptions { age_ms_max: 60_000, ..options() };
        let writer = DomainWriter::open(bucket.appender(), patient, Env::system()).await.unwrap();
        let (_, ticket) = writer.submit_disk_add(&disk("a", 512), Content::Blank, When::Now).await.unwrap();
        drop(writer);
        assert!(matches!(ticket.committed().await, Err(Error::Closed)));
    });
}

//= SPEC.md#store-assumptions
//# S-1
#[test]
fn fault_a_store_whose_create_overwrites_is_refused_before_a_claim_unless_the_writer_is_attested_to_be_alone() {
    block_on(async {
        let bucket = domain().await;
        let lying = bucket.with_faults(Faults::seeded(1).on("", Op::Put, Fault::IgnoreCondition, 1.0));
        let probing = WriterOptions { attach: Attach::Probe, ..options() };
        let error = DomainWriter::open(lying.appender(), probing, Env::system()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FixRequest, "{error}");
        let first = ObjectKey::writer_claim(Epoch::new(1));
        assert_eq!(bucket.read_only().get(&first).await.unwrap_err().kind(), ErrorKind::NotFound);
        let attested = WriterOptions { attach: Attach::AttestedSingle, ..options() };
        DomainWriter::open(lying.appender(), attested, Env::system()).await.unwrap().close().await.unwrap();
        let claim = bucket.read_only().get(&first).await.unwrap();
        let domain = open_domain(&bucket.read_only()).await.unwrap().domain;
        let claim = Claim::decode(&claim, &Expect { domain, key: first }).unwrap();
        assert_eq!(claim.mode, ClaimMode::AttestedSingle);
    });
}

//= SPEC.md#versions
//# V-4
#[test]
fn a_domain_that_needs_an_unknown_write_feature_is_not_written_to() {
    block_on(async {
        let bucket = tidemark_bucket::Bucket::memory();
        let genesis = Genesis {
            domain: DomainId::new([1; 16]),
            name: "later".into(),
            created: START,
            features: Features { write: 4, ..Features::default() },
        };
        let _new = bucket.appender().create(&ObjectKey::Genesis, genesis.encode()).await.unwrap();
        let error = DomainWriter::open(bucket.appender(), options(), Env::system()).await.unwrap_err();
        assert!(matches!(error, Error::WriteFeatures { bits: 4 }), "{error:?}");
        let first = ObjectKey::writer_claim(Epoch::new(1));
        assert_eq!(bucket.read_only().get(&first).await.unwrap_err().kind(), ErrorKind::NotFound);
    });
}
