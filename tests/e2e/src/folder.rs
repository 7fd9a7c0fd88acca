//! Buckets in directories: opened, and copied so that each round of a test begins with the same one.

use std::path::Path;
use tidemark_bucket::{Bucket, BucketOptions};

/// The bucket that a directory is.
pub fn bucket_at(dir: &Path) -> Bucket {
    let url = dir.to_str().expect("a test's own path").parse().expect("a directory is a bucket");
    Bucket::open(&url, &BucketOptions::default()).expect("it is there")
}

/// Copies everything in a directory into another one that is there.
pub fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a test's own directory") {
        let entry = entry.expect("a test's own directory");
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            std::fs::create_dir_all(&target).expect("a test's own directory");
            copy(&source, &target);
        } else {
            std::fs::copy(source, target).expect("a test's own file");
        }
    }
}
