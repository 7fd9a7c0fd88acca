//! Embeds the reader: prints the first block of every disk of a domain at a point in time, in hex.
//!
//! `cargo run -p tidemark-reader --example read_point -- /tmp/domain bookmark:after-1000-writes`

use tidemark_bucket::{Bucket, BucketOptions, BucketUrl};
use tidemark_env::Env;
use tidemark_format::BLOCK_BYTES;
use tidemark_reader::{Domain, PointSpec, ReaderOptions};

#[tokio::main]
#[expect(clippy::disallowed_macros, reason = "a program that prints")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("usage: read_point DIRECTORY [POINT]")?;
    let point: PointSpec = args.next().as_deref().unwrap_or("latest").parse()?;

    let bucket = Bucket::open(&BucketUrl::file(dir), &BucketOptions::default())?.read_only();
    let env = Env::system();
    let now = env.clock.wall();
    let domain = Domain::open(bucket, ReaderOptions::default(), env).await?;
    let timeline = domain.timeline();
    let point = timeline.resolve(&point, now).await?;
    for disk in timeline.disks_at(point.lsn) {
        let image = domain.disk(disk.id, point.lsn).await?;
        let block = image.read(0, BLOCK_BYTES as usize).await?;
        println!("{}/{} at lsn {}: {block:02x?}", disk.vm, disk.name, point.lsn);
    }
    Ok(())
}
