//! The index of a domain, read as it stands.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use tidemark_bucket::Bucket;
use tidemark_format::{Genesis, ObjectKey, Root, TableRef, TableRow};
use tidemark_history::{Roots, Tables};

/// The newest root of a domain that has one.
pub async fn newest_root(bucket: &Bucket) -> Root {
    let genesis = Genesis::decode(&bucket.read_only().get(&ObjectKey::Genesis).await.unwrap()).unwrap();
    Roots::new(bucket.read_only(), genesis.domain).newest(None).await.unwrap().unwrap()
}

/// All rows of a table.
pub async fn rows_of<R: TableRow>(bucket: &Bucket, root: &Root, table: &TableRef) -> Vec<R> {
    let tables = Tables::new(bucket.read_only(), root.domain, 0);
    let footer = tables.load_footer(table).await.unwrap();
    let mut rows = Vec::new();
    for number in 0..footer.groups().len() {
        rows.extend(tables.load::<R>(table, &footer, number).await.unwrap());
    }
    rows
}
