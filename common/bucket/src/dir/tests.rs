use super::write::TEMPORARY;
use super::*;
use crate::{Bucket, BucketOptions, BucketUrl, Created, PutOutcome};
use tidemark_env::SeededEntropy;
use tidemark_format::{Epoch, ErrorKind, KeyFamily, ObjectKey, Seq};

fn log(seq: u64) -> ObjectKey {
    ObjectKey::Log { epoch: Epoch::new(1), seq: Seq::new(seq) }
}

fn bucket(root: &Path) -> Bucket {
    Bucket::open(&BucketUrl::file(root), &BucketOptions::default()).unwrap()
}

fn files_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_put_leaves_the_object_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    bucket(root.path()).appender().put(&log(1), "segment").await.unwrap();
    bucket(root.path()).appender().put(&log(1), "segment").await.unwrap();
    bucket(root.path()).appender().put_hint("hint").await.unwrap();
    assert_eq!(files_in(root.path()), ["log", "v"]);
    assert_eq!(files_in(&root.path().join("log/0000000000000001")), ["0000000000000001"]);
    assert_eq!(files_in(&root.path().join("v")), ["hint"]);
}

#[tokio::test]
async fn what_a_crash_leaves_behind_is_not_seen_and_not_in_the_way() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("log/0000000000000001");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(format!("{TEMPORARY}00")), "half a segm").unwrap();
    std::fs::write(root.path().join(format!("{TEMPORARY}01")), "half").unwrap();
    let bucket = bucket(root.path());
    assert_eq!(bucket.read_only().list(KeyFamily::Log).await.unwrap(), []);
    assert_eq!(bucket.appender().put(&log(1), "segment").await.unwrap(), PutOutcome::Stored);
    assert_eq!(bucket.read_only().list(KeyFamily::Log).await.unwrap(), [(log(1).to_string(), 7)]);
}

#[tokio::test]
async fn a_temporary_name_that_is_taken_costs_one_attempt() {
    let root = tempfile::tempdir().unwrap();
    // The same seed twice: the second bucket draws the name of the first one's temporary file.
    let options = |seed| BucketOptions { entropy: Arc::new(SeededEntropy::new(seed)), ..BucketOptions::default() };
    let nonce = u128::from_le_bytes(SeededEntropy::new(7).nonce());
    let dir = root.path().join("claim/w");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(format!("{TEMPORARY}{nonce:032x}")), "somebody's").unwrap();
    let appender = Bucket::open(&BucketUrl::file(root.path()), &options(7)).unwrap().appender();
    let claim = ObjectKey::writer_claim(Epoch::new(1));
    assert_eq!(appender.create(&claim, "mine").await.unwrap(), Created::New);
    assert_eq!(appender.get(&claim).await.unwrap(), "mine");
    assert_eq!(files_in(&dir), [format!("{TEMPORARY}{nonce:032x}"), format!("{:016x}", 1)], "somebody's is left alone");
}

#[tokio::test]
async fn a_directory_that_is_not_there_says_nothing_about_objects() {
    let above = tempfile::tempdir().unwrap();
    let root = above.path().join("a/b/c");
    let missing = bucket(&root);
    let error = missing.read_only().get(&log(1)).await.unwrap_err();
    assert!(error.is_no_bucket(), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::FixRequest);
    assert!(!root.exists(), "reading makes nothing");
    missing.appender().put(&log(1), "segment").await.unwrap();
    assert_eq!(missing.read_only().get(&log(1)).await.unwrap(), "segment");
}

#[tokio::test]
async fn a_directory_that_was_removed_says_nothing_about_objects() {
    let above = tempfile::tempdir().unwrap();
    let root = above.path().join("bucket");
    let bucket = bucket(&root);
    bucket.appender().put(&log(1), "segment").await.unwrap();
    assert_eq!(bucket.read_only().get(&log(2)).await.unwrap_err().kind(), ErrorKind::NotFound);
    std::fs::remove_dir_all(&root).unwrap();
    for _ in 0..2 {
        for error in [
            bucket.read_only().get(&log(2)).await.unwrap_err(),
            bucket.read_only().head(&log(1)).await.unwrap_err(),
            bucket.read_only().list(KeyFamily::Log).await.unwrap_err(),
            bucket.deleter().delete(&log(1)).await.unwrap_err(),
        ] {
            assert!(error.is_no_bucket(), "{error:?}");
        }
        // Another one in its place is not the same bucket.
        std::fs::create_dir_all(&root).unwrap();
    }
}

#[tokio::test]
async fn a_directory_in_an_objects_place_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let bucket = bucket(root.path());
    std::fs::create_dir_all(root.path().join(log(1).to_string())).unwrap();
    assert_eq!(bucket.read_only().get(&log(1)).await.unwrap_err().kind(), ErrorKind::FixRequest);
    assert_eq!(bucket.read_only().head(&log(1)).await.unwrap_err().kind(), ErrorKind::FixRequest);
}

#[tokio::test]
async fn an_epoch_directory_that_was_removed_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let bucket = bucket(root.path());
    bucket.appender().put(&log(1), "segment").await.unwrap();
    std::fs::remove_dir_all(root.path().join("log")).unwrap();
    assert_eq!(bucket.appender().put(&log(2), "segment").await.unwrap(), PutOutcome::Stored);
}

#[test]
fn without_hard_links_a_rename_that_replaces_nothing_decides() {
    let root = tempfile::tempdir().unwrap();
    let dir: OwnedFd = std::fs::File::open(root.path()).unwrap().into();
    for (temporary, want) in [("first", Put::Stored), ("second", Put::Exists)] {
        std::fs::write(root.path().join(temporary), temporary).unwrap();
        assert_eq!(write::publish_by_rename(&dir, temporary, "object").unwrap(), want);
    }
    assert_eq!(std::fs::read_to_string(root.path().join("object")).unwrap(), "first");
}
