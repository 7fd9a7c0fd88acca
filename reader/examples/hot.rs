//! What a hit costs: `read_cached` of 4 KiB and 1 MiB from one and two threads, and a cold sequential read.
//!
//! `cargo run --release -p tidemark-reader --example hot`
#![allow(clippy::unwrap_used, clippy::disallowed_macros, reason = "a measurement for people")]
#![allow(clippy::missing_panics_doc, missing_docs, unreachable_pub)]

#[path = "../tests/common/mod.rs"]
mod common;

use common::{LogBuilder, noise};
use std::sync::Arc;
use tidemark_env::Env;
use tidemark_format::{DiskId, EventBody};
use tidemark_reader::{DiskImage, Domain, ReaderOptions};

const MIB: usize = 1 << 20;
const DISK_MIB: usize = 256;

#[tokio::main]
async fn main() {
    let env = Env::system();
    let mut log = LogBuilder::in_memory().await;
    let disk = DiskId::new(1);
    let blocks = (DISK_MIB * MIB / 512) as u64;
    log.event(EventBody::DiskAdd { disk, vm: "vm".into(), name: "disk".into(), blocks });
    let start = log.event(EventBody::SeedStart { disk });
    for part in 0..DISK_MIB / 32 {
        // Compressible by half, as disks are.
        let mut data = noise(part as u64, 32 * MIB);
        data.chunks_mut(4096).for_each(|page| page[2048..].fill(7));
        log.seed_part(disk, start, (part * 32 * MIB / 512) as u64, &data).await;
    }
    log.event(EventBody::ConsistentFrom { disk });
    log.seal().await;
    let options = ReaderOptions { cache_bytes_max: 512 << 20, ..ReaderOptions::default() };
    let domain = Domain::open(log.bucket.read_only(), options, env.clone()).await.unwrap();
    let image = domain.disk(disk, log.latest()).await.unwrap();

    let from = env.clock.monotonic();
    for at in (0..DISK_MIB * MIB).step_by(128 << 10) {
        if image.read_cached(at as u64, 128 << 10, |_| ()).is_none() {
            image.read(at as u64, 128 << 10).await.unwrap();
        }
    }
    let took = env.clock.monotonic() - from;
    println!("cold sequential 128 KiB reads: {:.0} MiB/s", DISK_MIB as f64 / took.as_secs_f64());

    for (len, reads) in [(4096, 4_000_000u64), (MIB, 400_000)] {
        for threads in [1, 2] {
            let from = env.clock.monotonic();
            let work = (0..threads).map(|seed| {
                let image = Arc::clone(&image);
                std::thread::spawn(move || hits(&image, len, reads, seed))
            });
            let sum: u64 = work.collect::<Vec<_>>().into_iter().map(|t| t.join().unwrap()).sum();
            let took = env.clock.monotonic() - from;
            println!(
                "hit of {len} bytes, {threads} threads: {:.0} ns a read ({sum})",
                took.as_nanos() as f64 / reads as f64
            );
        }
    }
}

fn hits(image: &DiskImage, len: usize, reads: u64, seed: u64) -> u64 {
    let mut state = seed * 77 + 1;
    let slots = (DISK_MIB * MIB / len) as u64;
    let mut sum = 0;
    for _ in 0..reads {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = (state >> 33) % slots * len as u64;
        sum += image.read_cached(at, len, |bytes| u64::from(bytes[len / 2])).unwrap();
    }
    sum
}
