//! What an error of a remote store means for whoever asked.

use crate::error::Cause;
use crate::store::Failure;
use opendal::ErrorKind;

/// Kinds of servers; each has its own words for "absent".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    S3,
    Azblob,
    Gcs,
}

pub(super) fn failure(kind: Kind, error: &opendal::Error) -> Failure {
    let (words, context) = (words(error), error.to_string());
    let says = |text: &str| words.contains(text) || context.contains(text);
    let cause = Cause::new(words.clone());
    if no_bucket(kind, &words) {
        return Failure::NoBucket;
    }
    match error.kind() {
        ErrorKind::NotFound if absent(kind, &words) => Failure::NotFound,
        ErrorKind::NotFound => Failure::Transient(Cause::new(format!("a 404 that does not name the key: {words}"))),
        ErrorKind::PermissionDenied => Failure::Denied(cause),
        _ if says("status: 401") || says("signing credential") || says("reqsign::LoadCredential") => {
            Failure::Denied(cause)
        }
        // Trying again does not make a certificate valid.
        _ if says("invalid peer certificate") => Failure::Refused(cause),
        ErrorKind::RateLimited | ErrorKind::Conflict => Failure::Transient(cause),
        _ if error.is_temporary() || error.is_persistent() => Failure::Transient(cause),
        _ => Failure::Refused(cause),
    }
}

/// True if the object may exist and have no bytes where some were asked for.
pub(super) fn may_be_beyond_end(error: &opendal::Error) -> bool {
    let unparsed = error.message().starts_with("header content range is invalid");
    unparsed || error.kind() == ErrorKind::RangeNotSatisfied || error.to_string().contains("status: 416")
}

/// True if the whole answer came, and was less than asked for. An answer cut off on its way is another error.
pub(super) fn is_fewer(error: &opendal::Error) -> bool {
    error.message() == "reader got too little data"
}

/// True if the server says that this key, not something else, is not there.
fn absent(kind: Kind, words: &str) -> bool {
    match kind {
        Kind::S3 => words.contains("NoSuchKey"),
        Kind::Azblob => words.contains("BlobNotFound"),
        Kind::Gcs => words.contains("No such object"),
    }
}

fn no_bucket(kind: Kind, words: &str) -> bool {
    match kind {
        Kind::S3 => words.contains("NoSuchBucket"),
        Kind::Azblob => words.contains("ContainerNotFound"),
        Kind::Gcs => words.contains("bucket does not exist"),
    }
}

/// The message and its causes, without the context: that holds URLs, and those may be signed.
fn words(error: &opendal::Error) -> String {
    let mut text = error.message().trim().to_owned();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    if text.is_empty() { format!("{} without a word", error.kind()) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opendal::Error;

    fn not_found(kind: Kind, message: &str) -> Failure {
        failure(kind, &Error::new(ErrorKind::NotFound, message))
    }

    #[test]
    fn only_a_404_about_the_key_proves_absence() {
        assert!(matches!(not_found(Kind::S3, r#"S3Error { code: "NoSuchKey" }"#), Failure::NotFound));
        assert!(matches!(not_found(Kind::Azblob, r#"AzblobError { code: "BlobNotFound" }"#), Failure::NotFound));
        assert!(matches!(not_found(Kind::Gcs, "No such object: bucket/log/1"), Failure::NotFound));
        for kind in [Kind::S3, Kind::Azblob, Kind::Gcs] {
            for message in ["", "<html>404 page not found</html>", "404 Not Found"] {
                assert!(matches!(not_found(kind, message), Failure::Transient(_)), "{kind:?} {message:?}");
            }
        }
        assert!(matches!(not_found(Kind::Azblob, r#"code: "ContainerNotFound""#), Failure::NoBucket));
    }

    #[test]
    fn signed_urls_do_not_reach_messages() {
        let error = Error::new(ErrorKind::Unexpected, "send http request")
            .with_context("url", "https://account.blob.core.windows.net/c/k?sig=SECRET")
            .set_temporary();
        let Failure::Transient(cause) = failure(Kind::Azblob, &error) else { panic!("{error}") };
        assert_eq!(cause.to_string(), "send http request");
    }
}
