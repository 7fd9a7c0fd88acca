//! Embeds the writer: protects one disk of one VM in a directory.
//!
//! `cargo run -p tidemark-writer --example embed -- /tmp/domain`, then `tidemark mount /tmp/domain /mnt`.

use bytes::Bytes;
use tidemark_bucket::{Bucket, BucketOptions, BucketUrl};
use tidemark_env::Env;
use tidemark_format::Level;
use tidemark_writer::{Content, DomainWriter, NewDisk, WriterOptions, create_domain};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("usage: embed DIRECTORY")?;
    let bucket = Bucket::open(&BucketUrl::file(dir), &BucketOptions::default())?.appender();
    let env = Env::system();
    create_domain(&bucket, "example", &env).await?;

    let options = WriterOptions { owner: "embed example".into(), ..WriterOptions::default() };
    let writer = DomainWriter::open(bucket, options, env).await?;
    let disk = NewDisk { vm: "db".into(), name: "vda".into(), size_bytes: 1 << 30 };
    let disk = writer.disk_add(&disk, Content::Blank).await?;

    // Many writes in flight; each ticket is awaited where durability matters.
    let mut tickets = Vec::new();
    for i in 0..1000u64 {
        let data = Bytes::from(vec![i as u8; 4096]);
        tickets.push(writer.submit_write(disk, i * 4096, data).await?);
    }
    writer.flush(disk).await?;
    for ticket in tickets {
        ticket.committed().await?;
    }
    writer.bookmark("after-1000-writes", Level::Crash).await?;
    writer.close().await?;
    Ok(())
}
