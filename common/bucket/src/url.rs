//! Where a bucket is, as text: `DIR`, `file:///DIR`, `s3://`, `azblob://`, `gs://`, `memory:NAME`. Never with credentials.

use crate::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The place of one domain's objects. Holds no secret, so it may be shown anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketUrl {
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Memory { name: String },
    File { root: PathBuf },
    S3 { bucket: String, prefix: String, server: Server, region: Option<String>, path_style: Option<bool> },
    Azblob { container: String, prefix: String, server: Server },
    Gcs { bucket: String, prefix: String, server: Server },
}

/// How to reach a server other than the cloud's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Server {
    /// `http://` or `https://`, host, port.
    pub(crate) endpoint: Option<String>,
    /// PEM file with certificates to trust beside the system's.
    pub(crate) ca: Option<PathBuf>,
    /// Requests are not signed: for public buckets and emulators.
    pub(crate) anonymous: bool,
}

impl BucketUrl {
    /// A bucket in a directory.
    pub fn file(root: impl AsRef<Path>) -> Self {
        let root = root.as_ref();
        Self { place: Place::File { root: std::path::absolute(root).unwrap_or_else(|_| root.to_owned()) } }
    }

    /// A bucket in this process' memory, the same one for everybody who asks for `name`.
    pub fn memory(name: &str) -> Self {
        Self { place: Place::Memory { name: name.to_owned() } }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }
}

impl FromStr for BucketUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).map(|place| Self { place }).map_err(|why| Error::BadUrl { url: redact(text), why })
    }
}

/// Shortest name of a bucket or container, on every cloud.
const NAME_CHARS_MIN: usize = 3;

/// Parameters that hold secrets in some client's URLs. Refused by name, so that the mistake is explained.
const SECRETS: [&str; 12] = [
    "access_key",
    "access_key_id",
    "secret_key",
    "secret_access_key",
    "session_token",
    "token",
    "password",
    "account_key",
    "sas",
    "sas_token",
    "sig",
    "credential",
];

fn parse(text: &str) -> Result<Place, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if let Some(name) = text.strip_prefix("memory:") {
        return Ok(Place::Memory { name: name.trim_start_matches('/').to_owned() });
    }
    if !text.contains("://") {
        return Ok(BucketUrl::file(text).place);
    }
    let url = url::Url::parse(text).map_err(|error| error.to_string())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials do not belong into a URL, which ends up in logs".to_owned());
    }
    if url.fragment().is_some() {
        return Err("it has a '#' part".to_owned());
    }
    if url.scheme() == "file" {
        if url.query().is_some() {
            return Err("file:// takes no parameters".to_owned());
        }
        let root = url.to_file_path().map_err(|()| "file:// takes an absolute path: file:///DIR".to_owned())?;
        return Ok(Place::File { root });
    }
    let params = Params::of(&url)?;
    let name = url.host_str().filter(|host| !host.is_empty()).ok_or("it names no bucket")?.to_owned();
    if name.len() < NAME_CHARS_MIN {
        // Refused here because some servers do not: they store, and then list nothing.
        return Err(format!("{name:?} is no bucket: a name has at least {NAME_CHARS_MIN} characters"));
    }
    if url.port().is_some() {
        return Err("a port belongs into ?endpoint=http://HOST:PORT".to_owned());
    }
    let prefix = decode(url.path())?.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    let Params { server, region, path_style } = params;
    match url.scheme() {
        "s3" => Ok(Place::S3 { bucket: name, prefix, server, region, path_style }),
        _ if region.is_some() || path_style.is_some() => Err("region and path_style are for s3:// only".to_owned()),
        "azblob" => Ok(Place::Azblob { container: name, prefix, server }),
        "gs" | "gcs" => Ok(Place::Gcs { bucket: name, prefix, server }),
        other => Err(format!("{other}:// is not a kind of store that is known")),
    }
}

#[derive(Default)]
struct Params {
    server: Server,
    region: Option<String>,
    path_style: Option<bool>,
}

impl Params {
    fn of(url: &url::Url) -> Result<Self, String> {
        let mut params = Self::default();
        for (name, value) in url.query_pairs() {
            match &*name {
                "endpoint" => params.server.endpoint = Some(endpoint(&value)?),
                "anonymous" => {
                    params.server.anonymous = value.parse().map_err(|_| "anonymous is true or false".to_owned())?;
                }
                "ca" => params.server.ca = Some(PathBuf::from(&*value)),
                "region" => params.region = Some(value.into_owned()),
                "path_style" => {
                    params.path_style = Some(value.parse().map_err(|_| "path_style is true or false".to_owned())?);
                }
                secret if SECRETS.contains(&secret.to_ascii_lowercase().as_str()) => {
                    return Err(format!("{secret} does not belong into a URL, which ends up in logs"));
                }
                other => return Err(format!("parameter {other:?} is not known")),
            }
        }
        Ok(params)
    }
}

fn endpoint(text: &str) -> Result<String, String> {
    let url = url::Url::parse(text).map_err(|error| format!("endpoint: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err("endpoint: credentials do not belong into a URL, which ends up in logs".to_owned());
    }
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("endpoint: it has to be http://HOST:PORT or https://HOST:PORT".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// Undoes percent-encoding of a path.
fn decode(path: &str) -> Result<String, String> {
    let query = format!("p={}", path.replace('+', "%2B"));
    let decoded = url::form_urlencoded::parse(query.as_bytes()).next().map(|(_, value)| value.into_owned());
    decoded.filter(|text| !text.contains(['\0', '\u{fffd}'])).ok_or_else(|| "its path is not text".to_owned())
}

/// `text` as it may stand in a path or a query, with as much of it legible as possible.
fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:@!$,;*'()".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// `text` for an error message: what may be a secret is cut out, well-formed URL or not.
fn redact(text: &str) -> String {
    let (head, query) = text.split_once('?').map_or((text, None), |(head, query)| (head, Some(query)));
    let head = match (head.find("://"), head.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://***@{}", &head[..scheme], &head[at + 1..]),
        _ => head.to_owned(),
    };
    let Some(query) = query else { return head };
    let shown = query.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let known = matches!(name, "region" | "path_style" | "ca" | "anonymous")
            || (name == "endpoint" && !value.contains(['@', '?']));
        if known { pair.to_owned() } else { format!("{name}=***") }
    });
    format!("{head}?{}", shown.collect::<Vec<_>>().join("&"))
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, bucket, prefix, server) = match &self.place {
            Place::Memory { name } => return write!(f, "memory:{name}"),
            Place::File { root } => {
                return match url::Url::from_file_path(root) {
                    Ok(url) => write!(f, "{url}"),
                    Err(()) => write!(f, "{}", root.display()),
                };
            }
            Place::S3 { bucket, prefix, server, .. } => ("s3", bucket, prefix, server),
            Place::Azblob { container, prefix, server } => ("azblob", container, prefix, server),
            Place::Gcs { bucket, prefix, server } => ("gs", bucket, prefix, server),
        };
        let mut params = Vec::new();
        let mut add = |name: &str, value: &str| params.push(format!("{name}={}", escape(value)));
        if let Some(endpoint) = &server.endpoint {
            add("endpoint", endpoint);
        }
        if let Place::S3 { region, path_style, .. } = &self.place {
            if let Some(region) = region {
                add("region", region);
            }
            if let Some(path_style) = path_style {
                add("path_style", &path_style.to_string());
            }
        }
        if let Some(ca) = &server.ca {
            add("ca", &ca.to_string_lossy());
        }
        if server.anonymous {
            add("anonymous", "true");
        }
        let (params, slash) = (params.join("&"), if prefix.is_empty() { "" } else { "/" });
        let question = if params.is_empty() { "" } else { "?" };
        let prefix = escape(prefix);
        write!(f, "{scheme}://{bucket}{slash}{prefix}{question}{params}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_format::ErrorKind;

    fn place(text: &str) -> Place {
        text.parse::<BucketUrl>().unwrap_or_else(|error| panic!("{text}: {error}")).place
    }

    #[test]
    fn urls_of_every_kind_are_understood() {
        assert_eq!(place("memory:demo"), Place::Memory { name: "demo".to_owned() });
        assert_eq!(place("file:///a/b%20c"), Place::File { root: "/a/b c".into() });
        assert_eq!(place("/a/b c"), Place::File { root: "/a/b c".into() });
        let Place::File { root } = place("relative/dir") else { panic!("not a file") };
        assert!(root.is_absolute() && root.ends_with("relative/dir"), "{}", root.display());
        assert_eq!(
            place("s3://bucket/a/b?endpoint=https://host:9000/&region=eu-west-1&path_style=false&ca=/etc/ca.pem"),
            Place::S3 {
                bucket: "bucket".to_owned(),
                prefix: "a/b".to_owned(),
                server: Server {
                    endpoint: Some("https://host:9000".to_owned()),
                    ca: Some("/etc/ca.pem".into()),
                    anonymous: false,
                },
                region: Some("eu-west-1".to_owned()),
                path_style: Some(false),
            }
        );
        let azblob = Place::Azblob { container: "con".to_owned(), prefix: String::new(), server: Server::default() };
        assert_eq!(place("azblob://con/"), azblob);
        let gcs = Place::Gcs { bucket: "bkt".to_owned(), prefix: "p q".to_owned(), server: Server::default() };
        assert_eq!(place("gs://bkt//p%20q/"), gcs);
    }

    #[test]
    fn a_url_reads_back_as_shown() {
        for text in [
            "memory:demo",
            "file:///a/b%20c",
            "s3://bucket",
            "s3://bucket/a%20b/c",
            "s3://bucket/a?endpoint=http://127.0.0.1:8333&region=r&path_style=true&ca=/x%20y/ca.pem",
            "azblob://con/p?endpoint=https://account.blob.core.windows.net",
            "gs://bkt/p?endpoint=http://127.0.0.1:4443&anonymous=true",
        ] {
            let url: BucketUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), text);
            assert_eq!(url.to_string().parse::<BucketUrl>().unwrap(), url);
        }
    }

    #[test]
    fn secrets_in_a_url_are_refused_and_never_shown() {
        for text in [
            "s3://AKID:SECRET@bucket/prefix",
            "s3://SECRET@bucket",
            "s3://bucket?access_key=SECRET",
            "s3://bucket?secret_access_key=SECRET&region=r",
            "s3://bucket?ACCESS_KEY_ID=SECRET",
            "s3://bucket?endpoint=https://user:SECRET@host",
            "s3://bucket?endpoint=https://host/?sig=SECRET",
            "azblob://con/p?sig=SECRET",
            "azblob://con?sas_token=SECRET",
            "gs://bkt?credential=SECRET",
            "s3://bucket?unknown=SECRET",
            "s3://AKID:SECRET@:x",
        ] {
            let error = text.parse::<BucketUrl>().unwrap_err();
            assert!(!error.to_string().contains("SECRET"), "{text}: {error}");
            assert_eq!(error.kind(), ErrorKind::FixRequest);
            assert!(error.hint().is_some_and(|hint| hint.contains("environment")));
        }
    }

    #[test]
    fn what_names_no_bucket_is_refused() {
        for text in [
            "",
            "s3://",
            "s3://ab/prefix",
            "s3:///prefix",
            "ftp://host/x",
            "s3://bucket:9000/x",
            "s3://bkt?path_style=maybe",
            "s3://bkt?endpoint=host:9000",
            "azblob://con?region=r",
            "file://host/x",
            "file:///x?y=z",
            "s3://bkt#x",
        ] {
            assert!(text.parse::<BucketUrl>().is_err(), "{text}");
        }
    }
}
